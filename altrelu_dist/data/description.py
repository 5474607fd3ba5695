"""What is in a data set: sizes, and missing and constant columns, from one look at every chunk."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.dataset import dataset_of, find_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da

    from altrelu_dist.data.source import Array, Source

_N_STATISTICS = 6  # missing, infinite, finite, their sum, least and greatest


@dataclass(frozen=True)
class ColumnSummary:
    """One column; `minimum`, `mean` and `maximum` are of its finite values, nan if it has none."""

    name: str
    role: str
    missing: int
    infinite: int
    minimum: float
    mean: float
    maximum: float

    @property
    def constant(self) -> bool:
        """Whether all its finite values are equal."""
        return not self.minimum < self.maximum


@dataclass(frozen=True)
class Description:
    """What `describe` found.

    Attributes
    ----------
    address : str
        The data described.
    rows, n_features, n_targets : int
        Its size.
    dtype : str
        Of the features, as they are read.
    n_chunks, chunk_rows : int
        Blocks of rows that are read by one task, and the rows of the largest.
    bytes_on_disk, bytes_in_memory : int
        Of the files, and of all rows as they are read.
    columns : tuple of ColumnSummary
        Features, then targets, then the weight; `role` is "feature", "target" or "weight".
    left_out : tuple of str
        Columns that are not features, since they are an index.
    """

    address: str
    rows: int
    n_features: int
    n_targets: int
    dtype: str
    n_chunks: int
    chunk_rows: int
    bytes_on_disk: int
    bytes_in_memory: int
    columns: tuple[ColumnSummary, ...]
    left_out: tuple[str, ...]


def describe(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
) -> Description:
    """Read every chunk once, and say what is there.

    It runs on the current Dask client, or on threads of this process without one; memory is a few
    blocks a thread.

    Parameters
    ----------
    address, target, weight
        As for `open_dataset`; without a target all columns of a table are features.

    Returns
    -------
    Description

    Raises
    ------
    DataError
        As `open_dataset`, or a chunk is damaged: the message names it.
    """
    from dask.base import compute

    found_there = find_sources(address, target=target, weight=weight)
    sources = found_there.sources
    data = dataset_of(found_there, address)
    weights = None if data.sample_weight is None else data.sample_weight[:, np.newaxis]
    parts = {
        "feature": (data.X, sources[0].feature_names),
        "target": (data.y, data.target_names),
        "weight": (weights, (weight or "sample_weight",)),
    }
    present = {role: (a, names) for role, (a, names) in parts.items() if a is not None}
    found = compute(*(_statistics(array) for array, _ in present.values()))
    for source in sources:
        source.verify()
    columns = tuple(
        _column(name, role, statistics)
        for (role, (_, names)), table in zip(present.items(), found, strict=True)
        for name, statistics in zip(names, table.T, strict=True)
    )
    return Description(
        address=os.fspath(address),
        rows=int(data.X.shape[0]),
        n_features=int(data.X.shape[1]),
        n_targets=len(data.target_names),
        dtype=str(data.X.dtype),
        n_chunks=int(data.X.numblocks[0]),
        chunk_rows=max(data.X.chunks[0]),
        bytes_on_disk=sum(bytes_on_disk(source) for source in sources),
        bytes_in_memory=sum(int(array.nbytes) for array, _ in present.values()),
        columns=columns,
        left_out=data.left_out,
    )


def _statistics(array: da.Array) -> da.Array:
    import dask.array as da

    table: da.Array = da.reduction(
        array,
        chunk=_block_statistics,
        combine=_merged,
        aggregate=_merged,
        axis=0,
        keepdims=True,
        dtype=np.float64,
        output_size=_N_STATISTICS,
        split_every=8,
        meta=np.empty((0, 0)),
    )
    return table


def _block_statistics(block: Array, axis: Any, keepdims: bool) -> Array:  # noqa: ARG001
    values = block if block.dtype.kind == "f" else block.astype(np.float64)
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):
        total = np.sum(values, axis=0, where=finite, dtype=np.float64)
    missing = np.isnan(values).sum(axis=0)
    count = finite.sum(axis=0)
    return np.array(
        [
            missing,
            len(values) - count - missing,
            count,
            total,
            np.min(values, axis=0, where=finite, initial=np.inf),
            np.max(values, axis=0, where=finite, initial=-np.inf),
        ],
        dtype=np.float64,
    )


def _merged(tables: Array, axis: Any, keepdims: bool) -> Array:  # noqa: ARG001
    tables = tables.reshape(-1, _N_STATISTICS, tables.shape[1])
    low, high = tables[:, 4].min(axis=0), tables[:, 5].max(axis=0)
    return np.vstack([tables[:, :4].sum(axis=0), low, high])


def _column(name: str, role: str, statistics: Array) -> ColumnSummary:
    missing, infinite, count, total, low, high = statistics.tolist()
    if not count:
        low = mean = high = math.nan
    else:
        mean = total / count
    return ColumnSummary(name, role, int(missing), int(infinite), low, mean, high)


def bytes_on_disk(source: Source) -> int:
    """Bytes of the files of a source."""
    from altrelu_dist.data.source import files_at

    total = 0
    for address in source.addresses():
        fs, path = files_at(address)
        total += int(fs.du(path))
    return total
