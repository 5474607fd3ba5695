"""What a kind of encoded columns has to offer, and how its arrays are read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.errors import ModelFileError
from altrelu_dist.moments.rows import Floats

__all__ = ["LEAST_SCALE", "Arrays", "ColumnBlock", "column_numbers", "finite", "positive"]

Arrays = Mapping[str, NDArray[Any]]

LEAST_SCALE = 1 / 6  # of an indicator: none is above 6, as no standardised column is


class ColumnBlock(Protocol):
    """Encoded columns of one kind; a further kind is a file of its own, named in `encoder.py`."""

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""

    @property
    def sources(self) -> NDArray[np.intp]:
        """The raw column that each encoded one is made of."""

    def encode(self, X: Floats) -> Floats:
        """The encoded columns, (n, n_columns), of raw rows (n, n_features).

        NaN where the raw value is; a mean of zero over the training rows otherwise.
        """

    def of_columns(self, chosen: NDArray[np.bool_]) -> Self:
        """What is made of some raw columns alone, of a mask (n_features,)."""

    def linear_between(self) -> dict[int, Floats] | None:
        """Knots of each raw column, at least two; None where encoded columns have none.

        An encoded column is linear from one knot to the next, and constant beyond them. Of levels
        that holds for whole numbers.
        """

    def names_out(self, feature_names: Sequence[str]) -> list[str]:
        """A name for each encoded column."""

    def to_arrays(self) -> dict[str, Floats]:
        """All that there is to it, as arrays of finite numbers."""

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_features: int) -> Self:
        """Undo `to_arrays`, or raise a `ModelFileError`."""


def column_numbers(arrays: Arrays, name: str, n_features: int) -> NDArray[np.intp]:
    """Numbers of raw columns, increasing."""
    found = _of_one_axis(arrays, name)
    numbers = np.where((found >= 0) & (found < n_features), found, -1).astype(np.intp)
    if not (np.array_equal(numbers, found) and (np.diff(numbers) > 0).all()):
        raise ModelFileError(
            f"the encoder's {name!r} are not increasing numbers of its {n_features} columns"
        )
    return numbers


def finite(arrays: Arrays, name: str, size: int) -> Floats:
    """So many finite numbers."""
    found = _of_one_axis(arrays, name)
    if found.shape != (size,) or not np.isfinite(found).all():
        raise ModelFileError(
            f"the encoder's {name!r} of shape {found.shape} are not {size} finite numbers"
        )
    return found


def positive(arrays: Arrays, name: str, size: int) -> Floats:
    """So many finite numbers above zero."""
    found = finite(arrays, name, size)
    if not (found > 0).all():
        raise ModelFileError(f"the encoder's {name!r} are not all above zero")
    return found


def _of_one_axis(arrays: Arrays, name: str) -> Floats:
    if name not in arrays:
        raise ModelFileError(f"the encoder has no {name!r}")
    found = np.asarray(arrays[name])
    if found.ndim != 1 or found.dtype.kind not in "fiub":
        raise ModelFileError(
            f"the encoder's {name!r} is {found.dtype} of shape {found.shape}, expected numbers of "
            "one axis"
        )
    return found.astype(np.float64)
