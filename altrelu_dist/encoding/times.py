"""Times: where they are in the day, in the week and in the year, on circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.block import Arrays, finite, positive
from altrelu_dist.encoding.raw import RawColumns
from altrelu_dist.encoding.sketch import ColumnSketch
from altrelu_dist.errors import ModelFileError
from altrelu_dist.moments.rows import Floats

__all__ = ["TimeColumns"]

_PERIODS = {"day": 86_400.0, "week": 604_800.0, "year": 31_556_952.0}  # seconds
_HARMONICS = 3  # of each period: all that the seven days of a week can say
_LEAST_DEVIATION = 1e-6  # of what is no constant: times at midnight are at one place of the day


@dataclass(frozen=True, eq=False)
class TimeColumns:
    """Sines and cosines of times, centred; those of one period have a variance of one together.

    Parameters
    ----------
    columns : ndarray of int of shape (n_columns,)
        Raw column of each encoded one, in seconds.
    period : ndarray of shape (n_columns,)
        Seconds after which it comes again.
    phase : ndarray of shape (n_columns,)
        What is added to the angle: 0 for sines, a quarter of a circle for cosines.
    center, scale : ndarray of shape (n_columns,)
    """

    columns: NDArray[np.intp]
    period: Floats
    phase: Floats
    center: Floats
    scale: Floats

    @classmethod
    def learn(cls, sketch: ColumnSketch, raw: RawColumns) -> TimeColumns:
        """Of the columns of times, and the periods of which they see more than one place."""
        found: list[tuple[int, float, float, float, float]] = []
        for column, of in enumerate(raw):
            if of.kind != "time" or not sketch.deviation[column] > 0:
                continue
            values, weights = sketch.points(column)
            for whole in _PERIODS.values():
                seen = []
                for period in (whole / k for k in range(1, _HARMONICS + 1)):
                    for phase in (0.0, np.pi / 2):
                        waves = _waves(values, period, phase)
                        mean = float(np.average(waves, weights=weights))
                        variance = float(np.average((waves - mean) ** 2, weights=weights))
                        if variance > _LEAST_DEVIATION**2:
                            seen.append((period, phase, mean, variance))
                scale = float(np.sqrt(sum(variance for *_, variance in seen)))
                found += [(column, period, phase, mean, scale) for period, phase, mean, _ in seen]
        columns, *others = np.array(found).reshape(-1, 5).T
        return cls(columns.astype(np.intp), *others)

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""
        return len(self.columns)

    @property
    def sources(self) -> NDArray[np.intp]:
        """Raw column of each encoded one."""
        return self.columns

    def encode(self, X: Floats) -> Floats:
        """The encoded columns of raw rows."""
        out = _waves(X[:, self.columns], self.period, self.phase)
        out -= self.center
        out /= self.scale
        return out

    def of_columns(self, chosen: NDArray[np.bool_]) -> TimeColumns:
        """Those of some raw columns."""
        own = chosen[self.columns]
        of_waves = self.period, self.phase, self.center, self.scale
        return TimeColumns(self.columns[own], *(values[own] for values in of_waves))

    def linear_between(self) -> None:
        """Nowhere."""

    def names_out(self, feature_names: Sequence[str]) -> list[str]:
        """The column and the wave, as in ``"at sine of 1/2 week"``."""
        names = []
        for column, period, phase in zip(self.columns, self.period, self.phase, strict=True):
            unit, part = next(
                (unit, k)
                for unit, whole in _PERIODS.items()
                for k in range(1, _HARMONICS + 1)
                if whole / k == period
            )
            wave = f"{'cosine' if phase else 'sine'} of {f'1/{part} ' if part > 1 else ''}{unit}"
            names.append(f"{feature_names[column]} {wave}")
        return names

    def to_arrays(self) -> dict[str, Floats]:
        """All that there is to it."""
        return {
            "columns": self.columns.astype(np.float64),
            "period": self.period,
            "phase": self.phase,
            "center": self.center,
            "scale": self.scale,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_features: int) -> TimeColumns:
        """Undo `to_arrays`."""
        size = int(np.size(arrays.get("columns", ())))
        found = finite(arrays, "columns", size)
        columns = np.where((found >= 0) & (found < n_features), found, -1).astype(np.intp)
        if not np.array_equal(columns, found):
            raise ModelFileError(
                f"the encoder's 'columns' are not numbers of its {n_features} columns"
            )
        period, phase = positive(arrays, "period", size), finite(arrays, "phase", size)
        known = [whole / k for whole in _PERIODS.values() for k in range(1, _HARMONICS + 1)]
        if not (np.isin(period, known) & np.isin(phase, (0.0, np.pi / 2))).all():
            raise ModelFileError("the encoder's 'period' or 'phase' is unknown")
        scale = positive(arrays, "scale", size)
        return cls(columns, period, phase, finite(arrays, "center", size), scale)


def _waves(values: Floats, period: Floats | float, phase: Floats | float) -> Floats:
    """The sine of each time, on a circle that is one period long."""
    out: Floats = np.sin(2 * np.pi * np.mod(values / period, 1.0) + phase)
    return out
