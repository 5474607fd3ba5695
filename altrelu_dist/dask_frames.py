"""Dask DataFrames and Series as Dask arrays whose blocks are their partitions."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.frames import dask_dtype, given, pandas_values

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["read_together"]

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
        given(frame, what)
        groups.setdefault(frame.npartitions, {})[what] = frame
    arrays: dict[str, da.Array] = {}
    with dask.config.set(_KEEP_PARTITIONS):
        for group in groups.values():
            arrays |= _arrays(group, lengths=lengths)
    return arrays


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
