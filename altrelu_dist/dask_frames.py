"""Dask DataFrames and Series as Dask arrays whose blocks are their partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.data.columns import Coding, LevelCounts, learnt
from altrelu_dist.encoding.raw import all_numbers
from altrelu_dist.errors import DataError
from altrelu_dist.frames import dask_dtype, given
from altrelu_dist.tables import (
    Column,
    Taken,
    Taking,
    counted,
    dtype_of,
    ids_remark,
    matrix_of,
    pandas_column,
    pandas_found,
    pandas_values,
)

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["read_together", "take"]

_FLOAT64 = np.dtype(np.float64)
# Dask otherwise reads several files as one partition where few columns are used, so that X and y
# of the same files would be cut differently, and not as their lengths were counted.
_KEEP_PARTITIONS = {"optimization.tune.active": False}


def read_together(frames: Mapping[str, Any], *, lengths: bool = True) -> dict[str, da.Array]:
    """Dask DataFrames and Series of numbers as arrays.

    Those of equally many partitions are one expression for Dask: what they have in common, such as
    the files they are read from, is read once a pass for all of them, and random or shuffled rows
    stay in step.

    Parameters
    ----------
    frames : mapping
        Dask DataFrames and Series by their names in messages.
    lengths : bool, default True
        Whether the numbers of rows must be known: they are counted, which for Parquet takes its
        metadata alone.

    Raises
    ------
    DataError
        If columns are not numbers, or a name is there twice.
    """
    import dask

    groups: dict[int, dict[str, Any]] = {}
    for what, frame in frames.items():
        given(frame, what, numbers=True)
        groups.setdefault(frame.npartitions, {})[what] = frame
    arrays: dict[str, da.Array] = {}
    with dask.config.set(_KEEP_PARTITIONS):
        for group in groups.values():
            arrays |= _arrays(group, lengths=lengths)
    return arrays


def take(data: Any, what: str, taking: Taking) -> Taken:
    """A Dask DataFrame as one of numbers, with the same partitions.

    Raises
    ------
    DataError
        If it has columns that cannot be taken; of values that cannot when it is computed.
    """
    import pandas as pd

    dtypes = [*zip(data.columns, data.dtypes, strict=True)]
    numbers = _of_numbers(data[[name for name, dtype in dtypes if _is_unknown(dtype)]])
    table = taking.kept(
        [
            Column(name, pandas_found(_FLOAT64 if name in numbers else dtype), _unread, _unread)
            for name, dtype in dtypes
        ]
    )
    columns = taking.known(table, what)
    ids: tuple[str, ...] = ()
    if taking.columns is None:
        names = [name for name, column in columns.items() if column.kind == "levels"]
        codings = taking.codings([c for c in table if c.name in names], columns, what)
        levels, ids = learnt(_count(data[names], codings), taking.categorical, what)
        table = [column for column in table if str(column.name) not in ids]
        if ids and not table:
            raise DataError(f"{what} has no feature: {ids_remark(ids)}")
        columns = {c.name: levels.get(str(c.name), columns[c.name]) for c in table}
    names = [column.name for column in table]
    raw = tuple(columns.values())
    dtype = dtype_of([column.found for column in table], raw, what)
    codings = taking.codings(table, columns, what)
    meta = pd.DataFrame(np.empty((0, len(names)), dtype), columns=names)
    values = data[names].map_partitions(_numbers, codings, dtype, what, meta=meta)
    return Taken(values, names, None if all_numbers(raw) else raw, ids)


def _unread(*_: Any) -> Any:
    raise AssertionError("a column of a Dask DataFrame is read by its partitions")


def _count(data: Any, codings: Mapping[Any, Coding]) -> dict[str, LevelCounts]:
    """The levels of all columns of a Dask DataFrame, added up pair by pair."""
    from dask.delayed import delayed

    if not codings:
        return {}
    counts = [delayed(_counted)(partition, codings) for partition in data.to_delayed()]
    while len(counts) > 1:
        counts = [delayed(_merged)(counts[i : i + 2]) for i in range(0, len(counts), 2)]
    found: dict[str, LevelCounts] = counts[0].compute()
    return found


def _counted(partition: Any, codings: Mapping[Any, Coding]) -> dict[str, LevelCounts]:
    pairs = [(pandas_column(name, partition[name]), coding) for name, coding in codings.items()]
    return {str(column.name): counted(column, coding) for column, coding in pairs}


def _merged(counts: Sequence[dict[str, LevelCounts]]) -> dict[str, LevelCounts]:
    first, *others = counts
    for other in others:
        first = {name: LevelCounts().merge(one).merge(other[name]) for name, one in first.items()}
    return first


def _is_unknown(dtype: Any) -> bool:
    """Whether it is of categories that Dask does not know."""
    from dask.dataframe.utils import UNKNOWN_CATEGORIES

    categories = getattr(dtype, "categories", None)
    return categories is not None and UNKNOWN_CATEGORIES in categories


def _of_numbers(data: Any) -> list[Any]:
    """The columns of categories that are numbers in all partitions, as pandas would have them."""
    from dask.base import compute
    from dask.delayed import delayed

    if not len(data.columns):
        return []
    kinds = compute(*(delayed(_kinds)(partition) for partition in data.to_delayed()))
    together = {name: {kind for one in kinds for kind in one[name]} for name in data.columns}
    return [name for name, found in together.items() if found == {"number"}]


def _kinds(partition: Any) -> dict[Any, set[str | None]]:
    """What the categories of each column are; of no categories nothing."""
    dtypes = dict(partition.dtypes)
    return {
        name: {pandas_found(dtype.categories.dtype).kind} if len(dtype.categories) else set()
        for name, dtype in dtypes.items()
    }


def _numbers(partition: Any, codings: Mapping[Any, Coding], dtype: np.dtype[Any], what: str) -> Any:
    import pandas as pd

    table = [pandas_column(name, partition[name]) for name in partition.columns]
    values = matrix_of(table, codings, dtype, len(partition), what)
    return pd.DataFrame(values, index=partition.index, columns=partition.columns)


def _arrays(frames: Mapping[str, Any], *, lengths: bool) -> dict[str, da.Array]:
    dtypes = tuple(dask_dtype(frame, what) for what, frame in frames.items())
    # Dask takes the columns that a step uses for those of its result, which here has none: each
    # frame goes through a step of its own that keeps all of them.
    first, *others = (frame.map_partitions(_same) for frame in frames.values())
    partitions = first.map_partitions(
        _values, *others, dtypes=dtypes, align_dataframes=False, meta=np.empty(0, object)
    )
    rows = _lengths(frames) if lengths else [(np.nan,) * first.npartitions] * len(frames)
    arrays = {}
    for i, (what, frame) in enumerate(frames.items()):
        wide = frame.ndim == 2
        arrays[what] = partitions.map_blocks(
            itemgetter(i),
            chunks=(rows[i], (len(frame.columns),)) if wide else (rows[i],),
            new_axis=1 if wide else None,
            dtype=dtypes[i],
            meta=np.empty((0,) * frame.ndim, dtypes[i]),
        )
    return arrays


def _lengths(frames: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Rows of each partition of each frame; indices need no column to be read."""
    first, *others = (getattr(frame, "index", frame) for frame in frames.values())
    counts = first.map_partitions(
        _counts, *others, align_dataframes=False, meta=np.empty((0, len(frames)), np.int64)
    ).compute()
    return [tuple(map(int, column)) for column in counts.T]


def _same(partition: Any) -> Any:
    return partition


def _values(*partitions: Any, dtypes: tuple[np.dtype[Any], ...]) -> tuple[NDArray[Any], ...]:
    return tuple(map(pandas_values, partitions, dtypes))


def _counts(*partitions: Any) -> NDArray[np.int64]:
    return np.array([[len(partition) for partition in partitions]])
