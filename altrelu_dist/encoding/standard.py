"""Standardised columns: centred, in standard deviations, clipped at 6 of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.block import Arrays, column_numbers, finite, positive
from altrelu_dist.encoding.sketch import ColumnSketch
from altrelu_dist.moments.rows import Floats

__all__ = ["CLIP", "StandardColumns"]

CLIP = 6.0  # standard deviations


@dataclass(frozen=True, eq=False)
class StandardColumns:
    """Standardised columns, all but constant ones.

    Parameters
    ----------
    columns : ndarray of int of shape (n_columns,)
        Their numbers among the raw columns.
    center, scale : ndarray of shape (n_columns,)
        Mean and standard deviation.
    """

    columns: NDArray[np.intp]
    center: Floats
    scale: Floats

    @classmethod
    def learn(cls, sketch: ColumnSketch, numbers: NDArray[np.bool_]) -> StandardColumns:
        """Mean and standard deviation of the columns of numbers that vary."""
        deviation = sketch.deviation
        columns = np.flatnonzero((deviation > 0) & numbers)
        return cls(columns, sketch.mean[columns], deviation[columns])

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
        out = X[:, self.columns]
        out -= self.center
        out /= self.scale
        return np.clip(out, -CLIP, CLIP, out=out)

    def of_columns(self, chosen: NDArray[np.bool_]) -> StandardColumns:
        """Those of some raw columns."""
        own = chosen[self.columns]
        return StandardColumns(self.columns[own], self.center[own], self.scale[own])

    def linear_between(self) -> dict[int, Floats]:
        """The numbers between which each column begins to be clipped."""
        ends = self.center[:, None] + CLIP * self.scale[:, None] * [-1, 1]
        both = np.concatenate([np.nextafter(ends, -np.inf), ends, np.nextafter(ends, np.inf)], 1)
        return dict(zip(self.columns.tolist(), np.sort(both), strict=True))

    def variance(self, sketch: ColumnSketch) -> float:
        """Variance of the encoded columns, summed."""
        total = 0.0
        for column, center, scale in zip(self.columns, self.center, self.scale, strict=True):
            values, weights = sketch.points(column)
            encoded = np.clip((values - center) / scale, -CLIP, CLIP)
            mean = np.average(encoded, weights=weights)
            total += float(np.average((encoded - mean) ** 2, weights=weights))
        return total

    def names_out(self, feature_names: Sequence[str]) -> list[str]:
        """The names of the columns."""
        return [feature_names[column] for column in self.columns]

    def to_arrays(self) -> dict[str, Floats]:
        """All that there is to it."""
        return {
            "columns": self.columns.astype(np.float64),
            "center": self.center,
            "scale": self.scale,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_features: int) -> StandardColumns:
        """Undo `to_arrays`."""
        columns = column_numbers(arrays, "columns", n_features)
        center = finite(arrays, "center", len(columns))
        return cls(columns, center, positive(arrays, "scale", len(columns)))
