"""Missing values: a column that says where another has none.

Where a training row lacks a value, the encoded columns of its column are zero, their mean, and the
column of this block is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.block import Arrays, column_numbers, finite
from altrelu_dist.encoding.sketch import ColumnSketch
from altrelu_dist.errors import ModelFileError
from altrelu_dist.moments.rows import Floats

__all__ = ["GapColumns"]


@dataclass(frozen=True, eq=False)
class GapColumns:
    """Standardised indicators of missing values.

    Parameters
    ----------
    columns : ndarray of int of shape (n_columns,)
        The raw columns of which training rows lacked values.
    share : ndarray of shape (n_columns,)
        Of the weight of the training rows that lacked them, in (0, 1).
    """

    columns: NDArray[np.intp]
    share: Floats

    @classmethod
    def learn(cls, sketch: ColumnSketch) -> GapColumns:
        """Of the columns that have some values, but not all."""
        columns = np.flatnonzero((sketch.missing > 0) & (sketch.total > 0))
        missing = sketch.missing[columns]
        return cls(columns, missing / (missing + sketch.total[columns]))

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""
        return len(self.columns)

    @property
    def sources(self) -> NDArray[np.intp]:
        """Raw column of each encoded one."""
        return self.columns

    @property
    def scale(self) -> Floats:
        """Standard deviation of each indicator."""
        return np.sqrt(self.share * (1 - self.share))

    def encode(self, X: Floats) -> Floats:
        """The encoded columns of raw rows."""
        out: Floats = np.isnan(X[:, self.columns]) - self.share
        out /= self.scale
        return out

    def of_columns(self, chosen: NDArray[np.bool_]) -> GapColumns:
        """Those of some raw columns."""
        own = chosen[self.columns]
        return GapColumns(self.columns[own], self.share[own])

    def linear_between(self) -> dict[int, Floats]:
        """Any two knots: what is not missing is all the same."""
        return {column: np.array([0.0, 1.0]) for column in self.columns.tolist()}

    def names_out(self, feature_names: Sequence[str]) -> list[str]:
        """The column, as in ``"age missing"``."""
        return [f"{feature_names[column]} missing" for column in self.columns]

    def to_arrays(self) -> dict[str, Floats]:
        """All that there is to it."""
        return {"columns": self.columns.astype(np.float64), "share": self.share}

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_features: int) -> GapColumns:
        """Undo `to_arrays`."""
        columns = column_numbers(arrays, "columns", n_features)
        share = finite(arrays, "share", len(columns))
        if not ((share > 0) & (share < 1)).all():
            raise ModelFileError("the encoder's 'share' is not all between 0 and 1")
        return cls(columns, share)
