"""Converting data of any format to the package's own Zarr format, block by block."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from altrelu_dist.data.finding import Sources, check_choice, find_sources
from altrelu_dist.data.missing import Cleaner, column_means
from altrelu_dist.data.source import (
    READ_BYTES,
    Block,
    DType,
    float_dtype,
    rows_in,
)
from altrelu_dist.data.zarr_format import FORMAT
from altrelu_dist.data.zarr_writer import StoreWriter, rows_per_chunk
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.outputs import check_output, write_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote.

    Attributes
    ----------
    destination : str
        The store.
    rows, n_features, n_targets : int
        Its size.
    target_names : tuple of str
    dtype : str
        Of the features.
    chunk_rows, n_chunks : int
        Rows of a chunk, and how many chunks the features have.
    bytes_on_disk : int
        Of all files of the store.
    dropped, filled, missing : int
        Rows left out, and values filled, because something was missing; features that still are.
    left_out : tuple of str
        Columns that were left out, since they are an index.
    ids : tuple of str
        Columns of text that were left out, since they name the rows.
    classes : tuple, or None
        Of the target, where it is classes.
    seconds : float
        Time taken.
    """

    destination: str
    rows: int
    n_features: int
    n_targets: int
    target_names: tuple[str, ...]
    dtype: str
    chunk_rows: int
    n_chunks: int
    bytes_on_disk: int
    dropped: int
    filled: int
    missing: int
    left_out: tuple[str, ...]
    ids: tuple[str, ...]
    classes: tuple[str | int | float | bool, ...] | None
    seconds: float


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    only: Sequence[str] | None = None,
    missing: Literal["keep", "error"] = "keep",
    categories: Literal["learn", "error"] = "learn",
    classes: bool | None = None,
    drop_missing: bool = False,
    impute: Literal["mean"] | None = None,
    overwrite: bool = False,
    dtype: Literal["float32", "float64"] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Callable[[int, float], object] | None = None,
) -> Conversion:
    """Write data of any format as a chunked Zarr store with checksums, in bounded memory.

    Parameters
    ----------
    source, target, weight, categorical, drop, only, categories
        As the address and the names of `open_dataset`. Without a target the store has features
        only, which is enough to predict. Of text the store has the places of the levels, and the
        levels; of a target that is classes their places, and the classes.
    classes : bool, optional
        Whether the target is classes; by default texts and booleans are.
    destination : path
        A path, or an address that fsspec knows, that ends in ``.zarr``. It
        appears, or is replaced, when all is written.
    missing : "keep" or "error"
        Whether missing features are kept as NaN, or refused. Rows without a target are left out.
        Infinite values, and missing weights, are refused.
    drop_missing : bool
        Leave out rows in which a value is NaN, null or infinite.
    impute : "mean", optional
        Fill missing and infinite features by the mean of the column, but those of text. Targets and
        weights are never filled: rows without a target are left out, and rows without a weight are
        refused, or left out with `drop_missing`.
    overwrite : bool
        Whether an existing store that this package wrote may be replaced; nothing else is.
    dtype : "float32" or "float64", optional
        Of everything stored. By default the features, the targets and the weights are each float32
        where it holds every value of the source's types exactly (float32, float16, bool, integers
        of up to 16 bits, text), else float64.
    chunk_bytes : int
        About the size of a chunk in memory; a chunk has at least 4096 rows. Smaller ones are
        written where there would be fewer than eight.
    progress : callable, optional
        Called after every block with the rows read and the fraction done (nan if unknown).

    Returns
    -------
    Conversion

    Raises
    ------
    ExistsError
        The destination exists, and is not to be replaced.
    DataError
        The source cannot be read or holds values that are refused, or the destination cannot be
        written.
    ParameterError
        A parameter has no such value.
    """
    started = time.perf_counter()
    _check_parameters(destination, impute, dtype, chunk_bytes)
    check_choice("missing", missing, ("keep", "error"))
    check_output(destination, overwrite=overwrite, kind=FORMAT)
    found = find_sources(
        source,
        target=target,
        weight=weight,
        categorical=categorical,
        drop=drop,
        only=only,
        categories=categories,
        classes=classes,
    )
    sources, first, text = found.sources, found.sources[0], os.fspath(source)
    features, columns = found.features, found.columns
    if dtype == "float32" and any(column.kind == "time" for column in columns or ()):
        raise ParameterError(
            "is 'float32', which holds times of today to two minutes only; expected 'float64' or "
            "None",
            parameter="dtype",
        )
    dtypes = _stored_dtypes(found, dtype)
    weights = () if dtypes[2] is None else (weight or "sample_weight",)
    names = (*features, *first.target_names, *weights)
    about_rows = sum(each.about_rows for each in sources)
    chunk_rows = rows_per_chunk(len(features), dtypes[0], chunk_bytes, about_rows)
    n_rows = min(chunk_rows, rows_in(READ_BYTES, len(names), np.dtype(np.float64)))
    means = None
    passes = 1 if impute is None else 2
    if impute is not None:
        blocks = _blocks(found, n_rows, progress, 0, passes)
        means = column_means(text, features, columns, blocks)
    keep = missing == "keep"
    cleaner = Cleaner(text, names, dtypes, drop=drop_missing, means=means, keep=keep)
    with write_beside(destination, overwrite=overwrite, kind=FORMAT) as path:
        writer = StoreWriter(
            path,
            features,
            first.target_names,
            dtypes,
            chunk_rows,
            named=first.named,
            columns=columns,
            classes=found.labels,
        )
        for block in cleaner.clean(_blocks(found, n_rows, progress, passes - 1, passes)):
            writer.append(block)
        if not writer.rows:
            left = " left: something is missing in every row" if cleaner.dropped else ""
            raise DataError(f"{text}: has no rows{left}")
        writer.finish()
        n_bytes = writer.n_bytes
    return Conversion(
        destination=os.fspath(destination),
        rows=writer.rows,
        n_features=len(features),
        n_targets=len(first.target_names),
        target_names=first.target_names,
        dtype=str(dtypes[0]),
        chunk_rows=chunk_rows,
        n_chunks=-(-writer.rows // chunk_rows),
        bytes_on_disk=n_bytes,
        dropped=cleaner.dropped,
        filled=cleaner.filled,
        missing=cleaner.kept,
        left_out=first.unread,
        ids=found.ids,
        classes=found.labels,
        seconds=time.perf_counter() - started,
    )


def _check_parameters(
    destination: str | os.PathLike[str], impute: object, dtype: object, chunk_bytes: int
) -> None:
    if not os.fspath(destination).rstrip("/").endswith(".zarr"):
        raise ParameterError(f"{os.fspath(destination)}: the destination must end in .zarr")
    if impute not in (None, "mean"):
        raise ParameterError(f"is {impute!r}; expected 'mean' or None", parameter="impute")
    if dtype not in (None, "float32", "float64"):
        raise ParameterError(
            f"is {dtype!r}; expected 'float32', 'float64' or None", parameter="dtype"
        )
    if chunk_bytes < 1:
        raise ParameterError(f"is {chunk_bytes}; expected at least 1", parameter="chunk_bytes")


def _stored_dtypes(found: Sources, dtype: str | None) -> tuple[DType, DType | None, DType | None]:
    X, y, weight = (
        None
        if of[0] is None
        else np.dtype(dtype)
        if dtype
        else float_dtype([one for one in of if one is not None])
        for of in zip(*(source.dtypes for source in found.sources), strict=True)
    )
    assert X is not None
    made = [one.dtype for one in found.renumberings if one is not None]
    if y is not None and made and not dtype:
        y = float_dtype([y, *made] if None in found.renumberings else made)
    return X, y, weight


def _blocks(
    found: Sources,
    n_rows: int,
    progress: Callable[[int, float], object] | None,
    number: int,
    passes: int,
) -> Iterator[Block]:
    """Blocks of all sources, in pass `number` of `passes` over them."""
    rows, places = 0, found.places
    for i, source in enumerate(found.sources):
        for block in source.blocks(n_rows):
            renumbering = found.renumberings[i]
            if renumbering is not None and block.y is not None:
                block = block._replace(y=renumbering(block.y))
            yield block if places is None else block._replace(X=block.X[:, places])
            rows += len(block.X)
            if progress is not None:
                progress(rows, (number + (i + block.fraction) / len(found.sources)) / passes)
