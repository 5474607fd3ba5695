"""What is in a data set: sizes, and missing and constant columns, from one look at every chunk."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.dataset import dataset_of
from altrelu_dist.data.finding import find_sources
from altrelu_dist.encoding.raw import RawColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import dask.array as da

    from altrelu_dist.data.source import Array, Source
    from altrelu_dist.encoding.raw import Kind, RawColumns

_FREQUENT = 5  # levels that are named
_N_STATISTICS = 6  # missing, infinite, finite, their sum, least and greatest


@dataclass(frozen=True)
class ColumnSummary:
    """One column; `minimum`, `mean` and `maximum` are of its finite values, nan if it has none.

    Those of times are seconds since 1970, and nan of text. A column of text has `levels`, how many
    there are, and `frequent`, the most frequent ones with the number of their rows.
    """

    name: str
    role: str
    missing: int
    infinite: int
    minimum: float
    mean: float
    maximum: float
    kind: Kind = "number"
    levels: int = 0
    frequent: tuple[tuple[str, int], ...] = ()

    @property
    def constant(self) -> bool:
        """Whether all its finite values are equal."""
        return self.levels <= 1 if self.kind == "levels" else not self.minimum < self.maximum


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
    ids : tuple of str
        Columns of text that are not features, since they name the rows.
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
    ids: tuple[str, ...]


def describe(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    only: Sequence[str] | None = None,
    classes: bool | None = None,
) -> Description:
    """Read every chunk once, and say what is there.

    It runs on the current Dask client, or on threads of this process without one; memory is a few
    blocks a thread.

    Parameters
    ----------
    address, target, weight, categorical, drop, only
        As for `open_dataset`; without a target all columns of a table are features.
    classes : bool, optional
        As for `convert`.

    Returns
    -------
    Description

    Raises
    ------
    DataError
        As `open_dataset`, or a chunk is damaged: the message names it.
    """
    from dask.base import compute

    opened = find_sources(
        address,
        target=target,
        weight=weight,
        categorical=categorical,
        drop=drop,
        only=only,
        classes=classes,
    )
    sources, data = opened.sources, dataset_of(opened, address)
    weights = None if data.sample_weight is None else data.sample_weight[:, np.newaxis]
    parts = {
        "feature": (data.X, opened.features),
        "target": (data.y, data.target_names),
        "weight": (weights, (weight or "sample_weight",)),
    }
    present = {role: (a, names) for role, (a, names) in parts.items() if a is not None}
    raw = data.columns or (RawColumn(),) * len(opened.features)
    counts = _level_counts(data.X, raw)
    labels = () if data.classes is None else (RawColumn("levels", tuple(map(str, data.classes))),)
    class_counts = () if data.y is None or not labels else (_level_counts(data.y, labels),)
    statistics = [_statistics(array) for array, _ in present.values()]
    *found, counted, of_classes = compute(*statistics, counts, class_counts)
    for source in sources:
        source.verify()
    columns = [
        _column(name, role, statistics)
        for (role, (_, names)), table in zip(present.items(), found, strict=True)
        for name, statistics in zip(names, table.T, strict=True)
    ]
    columns[: len(raw)] = _of_kinds(columns, raw, counted)
    if labels:
        at = slice(len(raw), len(raw) + 1)
        columns[at] = _of_kinds(columns[at], labels, of_classes[0])
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
        columns=tuple(columns),
        left_out=data.left_out,
        ids=data.ids,
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


def _level_counts(X: da.Array, columns: RawColumns) -> da.Array:
    """Rows of each level of each column of text, one column's after the other's."""
    import dask.array as da

    sizes = {j: len(column.levels) for j, column in enumerate(columns) if column.levels}
    counts: da.Array = da.reduction(
        X,
        chunk=partial(_block_counts, sizes),
        combine=_sum,
        aggregate=_sum,
        axis=0,
        dtype=np.int64,
        output_size=sum(sizes.values()),
        split_every=8,
        meta=np.empty((0, 0), np.int64),
    )
    return counts


def _block_counts(sizes: Mapping[int, int], block: Array, axis: Any, keepdims: bool) -> Array:  # noqa: ARG001
    counts = [np.zeros(0, np.int64)]
    for j, size in sizes.items():
        codes = block[:, j]
        counts.append(np.bincount(codes[codes >= 0].astype(int), minlength=size))
    return np.concatenate(counts)[np.newaxis]


def _sum(counts: Array, axis: Any, keepdims: bool) -> Array:  # noqa: ARG001
    total: Array = counts.sum(axis=0, keepdims=keepdims)
    return total


def _of_kinds(
    found: Sequence[ColumnSummary], columns: RawColumns, counts: Array
) -> Iterator[ColumnSummary]:
    """Summaries of features, those of text with their levels."""
    at = 0
    for summary, column in zip(found, columns, strict=False):
        if column.kind != "levels":
            yield replace(summary, kind=column.kind)
            continue
        size = len(column.levels)
        rows = counts[at : at + size]
        first = np.argsort(-rows, kind="stable")[:_FREQUENT]
        at += size
        yield replace(
            summary,
            kind="levels",
            minimum=math.nan,
            mean=math.nan,
            maximum=math.nan,
            levels=size,
            frequent=tuple((column.levels[i], int(rows[i])) for i in first),
        )


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
