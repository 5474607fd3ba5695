"""Levels: one column for each of the most frequent levels of a raw column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.block import LEAST_SCALE, Arrays, column_numbers, finite
from altrelu_dist.encoding.raw import MOST_LEVELS, RawColumns
from altrelu_dist.encoding.sketch import ColumnSketch
from altrelu_dist.errors import ModelFileError
from altrelu_dist.moments.rows import Floats

__all__ = ["LevelColumns"]

_MOST_COLUMNS = 512  # of all raw columns together


@dataclass(frozen=True, eq=False)
class LevelColumns:
    """Standardised indicators of levels; those of rare levels are less than that.

    A level that has none, because it is rarer still or was never seen, has all of them at 0 before
    they are standardised.

    Parameters
    ----------
    columns : ndarray of int of shape (n_encoded,)
        The raw columns that have indicators; their values are the places of levels.
    n_levels : ndarray of int of shape (n_encoded,)
        Number of levels of each that have one, at least one.
    center : ndarray of shape (n_columns,)
        Share of each level in the training rows that have one.
    """

    columns: NDArray[np.intp]
    n_levels: NDArray[np.intp]
    center: Floats

    @classmethod
    def learn(cls, sketch: ColumnSketch, raw: RawColumns) -> LevelColumns:
        """The most frequent levels, as many of each column as there is room for."""
        varying = [c for c, of in enumerate(raw) if of.kind == "levels" and sketch.deviation[c] > 0]
        counts = np.array([len(raw[column].levels) for column in varying], dtype=np.intp)
        most = int(counts.max(initial=1))
        while most > 1 and np.minimum(counts, most).sum() > _MOST_COLUMNS:
            most -= max(1, most // 8)
        n_levels = np.minimum(counts, most)
        centers = []
        for column, n in zip(varying, n_levels.tolist(), strict=True):
            values, weights = sketch.points(column)
            known = (values >= 0) & (values < n)
            share = np.zeros(n)
            share[values[known].astype(np.intp)] = weights[known]
            share /= weights.sum()
            centers.append(share)
        return cls(
            np.array(varying, dtype=np.intp),
            n_levels,
            np.concatenate([*centers, np.zeros(0)]),
        )

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""
        return len(self.center)

    @property
    def sources(self) -> NDArray[np.intp]:
        """Raw column of each encoded one."""
        return np.repeat(self.columns, self.n_levels)

    @property
    def places(self) -> NDArray[np.intp]:
        """The level of each encoded column."""
        counted = np.arange(self.n_columns)
        return counted - np.repeat(np.cumsum(self.n_levels) - self.n_levels, self.n_levels)

    @property
    def scale(self) -> Floats:
        """What each indicator is divided by, once it is centred."""
        return np.maximum(np.sqrt(self.center * (1 - self.center)), LEAST_SCALE)

    @property
    def variance(self) -> float:
        """Variance of the encoded columns, summed, in the training rows that have a level."""
        return float((self.center * (1 - self.center) / self.scale**2).sum())

    def encode(self, X: Floats) -> Floats:
        """The encoded columns of raw rows."""
        out = np.empty((len(X), self.n_columns))
        out[:] = -self.center
        starts = np.cumsum(self.n_levels) - self.n_levels
        for column, n, start in zip(self.columns, self.n_levels, starts, strict=True):
            codes = X[:, column]
            with np.errstate(invalid="ignore"):
                known = np.flatnonzero((codes >= 0) & (codes < n))
            out[known, start + codes[known].astype(np.intp)] += 1
            out[np.isnan(codes), start : start + n] = np.nan
        out /= self.scale
        return out

    def of_columns(self, chosen: NDArray[np.bool_]) -> LevelColumns:
        """Those of some raw columns."""
        own = chosen[self.columns]
        center = self.center[chosen[self.sources]]
        return LevelColumns(self.columns[own], self.n_levels[own], center)

    def linear_between(self) -> dict[int, Floats]:
        """The places of levels, and one at either end that is none."""
        counts = zip(self.columns.tolist(), self.n_levels.tolist(), strict=True)
        return {column: np.arange(-1.0, n + 1) for column, n in counts}

    def names_out(self, feature_names: Sequence[str], raw: RawColumns | None = None) -> list[str]:
        """The column and the level, as in ``"colour = red"``; its place, where it has no name."""
        names = []
        for column, n in zip(self.columns, self.n_levels, strict=True):
            numbered = [f"level {place}" for place in range(n)]
            levels = numbered if raw is None else raw[column].levels[:n]
            names += [f"{feature_names[column]} = {level}" for level in levels]
        return names

    def to_arrays(self) -> dict[str, Floats]:
        """All that there is to it."""
        return {
            "columns": self.columns.astype(np.float64),
            "level_counts": self.n_levels.astype(np.float64),
            "center": self.center,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_features: int) -> LevelColumns:
        """Undo `to_arrays`."""
        columns = column_numbers(arrays, "columns", n_features)
        found = finite(arrays, "level_counts", len(columns))
        counts = np.clip(found, 0, MOST_LEVELS + 1).astype(np.intp)
        if not np.array_equal(counts, found) or not ((counts > 0) & (counts <= MOST_LEVELS)).all():
            raise ModelFileError(
                f"the encoder's 'level_counts' are not whole numbers from 1 to {MOST_LEVELS}"
            )
        center = finite(arrays, "center", int(counts.sum()))
        if not ((center >= 0) & (center <= 1)).all():
            raise ModelFileError("the encoder's 'center' is not all from 0 to 1")
        return cls(columns, counts, center)
