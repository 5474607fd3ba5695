"""Sources made of whole arrays (Zarr, NumPy): which array is X, y or the weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from altrelu_dist.data.source import (
    DType,
    Part,
    RowReader,
    Source,
    Wanted,
    float_dtype,
    listed,
)
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

MAX_COLUMNS = 1_000_000  # more than this can only be damage


class ArrayInfo(NamedTuple):
    """Shape and dtype of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Arrays(NamedTuple):
    """The chosen arrays, as the fields that an `ArraySource` has."""

    rows: int
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    dtypes: tuple[DType, DType | None, DType | None]
    names: tuple[str, str | None, str | None]


@dataclass(frozen=True)
class ArraySource(Source):
    """A source of which X, y and the weights are arrays, named in `names`."""

    names: tuple[str, str | None, str | None]

    @property
    def named(self) -> bool:
        """Arrays have numbered columns."""
        return False

    @abstractmethod
    def reader(self, name: str, shape: tuple[int, ...], dtype: DType) -> RowReader:
        """Reader of one array."""

    @abstractmethod
    def chunks(self, rows: int) -> tuple[int, ...]:
        """Row counts of the blocks of X that are cheap to read."""

    def parts(self) -> list[Part]:
        """One part with all rows."""
        rows = self.about_rows
        shapes = ((rows, len(self.feature_names)), (rows, len(self.target_names)), (rows,))
        X, y, weight = (
            None if name is None or dtype is None else self.reader(name, shape, dtype)
            for name, shape, dtype in zip(self.names, shapes, self.dtypes, strict=True)
        )
        assert X is not None
        return [Part(X, y, weight, self.chunks(rows))]


def choose_arrays(
    address: str, found: Mapping[str, ArrayInfo], wanted: Wanted, X: str = "X"
) -> Arrays:
    """Choose X, y (or the array named as target) and the weights, and check that they go together.

    Raises
    ------
    DataError
        An array is missing, is not of numbers, has another number of axes or rows.
    """
    if X not in found:
        raise DataError(f"{address}: no array {X}; arrays: {listed([*found]) or 'none'}")
    if len(wanted.targets) > 1:
        raise DataError(f"{address}: name one array as target, found {listed(wanted.targets)}")
    y = next(iter(wanted.targets), "y" if "y" in found else None)
    weight = wanted.weight or ("sample_weight" if "sample_weight" in found else None)
    if y is None and wanted.require_target:
        raise DataError(f"{address}: no target array y; found {listed([*found])}", Remedy.TARGET)
    rows = None
    for name, axes in ((X, (2,)), (y, (1, 2)), (weight, (1,))):
        if name is not None:
            if name not in found:
                raise DataError(f"{address}: no array {name}; arrays: {listed([*found])}")
            rows = _checked_rows(f"{address}: array {name}", found[name], axes, rows)
    assert rows is not None
    n_features = found[X].shape[1]
    n_targets = 0 if y is None else (*found[y].shape, 1)[1]
    return Arrays(
        rows,
        numbered("x", n_features),
        ("y",) if n_targets == 1 else numbered("y", n_targets),
        (
            _native(found[X].dtype),
            None if y is None else float_dtype([found[y].dtype]),
            None if weight is None else float_dtype([found[weight].dtype]),
        ),
        (X, y, weight),
    )


def numbered(letter: str, count: int) -> tuple[str, ...]:
    """Names for columns that have none: x0, x1, ..."""
    return tuple(f"{letter}{i}" for i in range(count))


def _checked_rows(what: str, info: ArrayInfo, axes: tuple[int, ...], rows: int | None) -> int:
    """Check one array against the number of rows of X (None for X itself), and give it."""
    if info.dtype.kind not in "biuf":
        raise DataError(f"{what} holds {info.dtype}, not numbers: encode it as numbers first")
    if len(info.shape) not in axes:
        wanted = " or ".join("(rows, columns)" if n == 2 else "(rows,)" for n in axes)
        raise DataError(f"{what} has shape {info.shape}; {wanted} is needed")
    if rows is not None and info.shape[0] != rows:
        raise DataError(f"{what} has {info.shape[0]} rows, X has {rows}")
    if info.shape[1:] == (0,):
        raise DataError(f"{what} has no columns")
    if info.shape[1:] > (MAX_COLUMNS,):
        raise DataError(f"{what} has {info.shape[1]} columns; {MAX_COLUMNS} is the most")
    return info.shape[0]


def _native(dtype: DType) -> DType:
    """Give the dtype X is read in: its own, or float32 or float64 where that is unusual."""
    return float_dtype([dtype]) if dtype.kind == "f" else dtype.newbyteorder("=")
