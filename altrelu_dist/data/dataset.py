"""Opening data of any format as Dask arrays of row blocks."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from altrelu_dist.data.csv_files import CsvSource
from altrelu_dist.data.numpy_files import NumpySource, npy_partner
from altrelu_dist.data.parquet_files import ParquetSource
from altrelu_dist.data.source import RowReader, Source, Wanted, files_at, listed, reading
from altrelu_dist.data.zarr_store import STORE_MARKS, ZarrSource
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.outputs import recovered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da

_OPENERS: dict[str, Callable[[str, Wanted], Source]] = {
    ".zarr": ZarrSource.open,
    ".parquet": ParquetSource.open,
    ".pq": ParquetSource.open,
    ".csv": CsvSource.open,
    ".csv.gz": CsvSource.open,
    ".npz": NumpySource.open_npz,
    ".npy": NumpySource.open_npy,
}


@dataclass(frozen=True)
class DataSet:
    """Rows to train on or to predict for, as Dask arrays with the same row chunks.

    Attributes
    ----------
    X : dask.array.Array, shape (n, d)
        Features, in one column chunk.
    y : dask.array.Array, shape (n, q), or None
        Targets, float32 or float64.
    sample_weight : dask.array.Array, shape (n,), or None
        Weights, float32 or float64.
    feature_names, target_names : tuple of str
        Names of the columns; x0, x1, ... and y, or y0, y1, ..., where the source has none.
    source : str
        The address it was opened from.
    """

    X: da.Array
    y: da.Array | None
    sample_weight: da.Array | None
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    source: str


def open_dataset(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    require_target: bool = True,
) -> DataSet:
    """Open data as Dask arrays; rows are read when they are computed, in the worker.

    Parameters
    ----------
    address : str or path
        A .zarr, .parquet, .csv, .csv.gz, .npz or .npy file or store, a folder of such parts, or a
        glob. Parts are put together in natural order (part-2 before part-10).
    target : str or sequence of str, optional
        Target columns of a table; the target array of an .npz or Zarr group (default ``y``); the
        file with the targets for an .npy (default: the same name with y in place of X).
    weight : str, optional
        Column, array or file of sample weights; arrays named ``sample_weight`` need no naming.
    require_target : bool
        Whether data without a target is refused.

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        The data is missing, empty, damaged, of another format than its name says, lacks a column
        or array, or holds other things than numbers. Values are not looked at here: NaN passes.
    """
    sources = find_sources(address, target=target, weight=weight, require_target=require_target)
    return dataset_of(sources, address)


def dataset_of(sources: Sequence[Source], address: str | os.PathLike[str]) -> DataSet:
    """Put opened sources with the same columns together."""
    import dask.array as da

    parts = [part for source in sources for part in source.parts() if part.X.shape[0]]
    if not parts:
        raise DataError(f"{address}: has no rows")
    arrays: list[da.Array | None] = []
    for role in ("X", "y", "weight"):
        readers = [getattr(part, role) for part in parts]
        if readers[0] is None:
            arrays.append(None)
            continue
        dtype = np.result_type(*(reader.dtype for reader in readers))
        blocks = [
            _dask_array(reader, part.chunks, role).astype(dtype)
            for reader, part in zip(readers, parts, strict=True)
        ]
        arrays.append(da.concatenate(blocks) if len(blocks) > 1 else blocks[0])
    X, y, weights = arrays
    assert X is not None
    names = sources[0].feature_names, sources[0].target_names
    return DataSet(X, y, weights, *names, os.fspath(address))


def find_sources(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    require_target: bool = False,
) -> list[Source]:
    """Open every part at an address, and check that they have the same columns."""
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    used = [*targets, *([weight] if weight is not None else [])]
    if len(set(used)) < len(used):
        raise ParameterError(f"named twice as target or weight: {listed(used)}")
    wanted = Wanted(targets, weight, require_target)
    text = os.fspath(address)
    try:
        sources = _opened(text, wanted)
    except DataError:
        other = recovered(text)
        if other is None:
            raise
        sources = _opened(other, wanted)
    first = sources[0]
    for source in sources[1:]:
        for role, mine, others in (
            ("features", source.feature_names, first.feature_names),
            ("targets", source.target_names, first.target_names),
        ):
            if mine != others:
                differ = sorted(set(mine) ^ set(others)) or ["their order"]
                raise DataError(
                    f"{source.address}: other {role} than {first.address}: {listed(differ)}"
                )
        if (source.dtypes[2] is None) != (first.dtypes[2] is None):
            raise DataError(f"{source.address}: weights in it or in {first.address}, not in both")
    return sources


def _opened(address: str, wanted: Wanted) -> list[Source]:
    with reading(address):
        places = _parts_at(address)
    return [_OPENERS[kind](place, wanted) for kind, place in places]


def _parts_at(address: str) -> list[tuple[str, str]]:
    """Formats and addresses of the parts, in natural order."""
    fs, path = files_at(address)
    if fs.isdir(path) and not _format(fs, path):
        inside = [p for p in fs.ls(path, detail=False) if p.rpartition("/")[2][0] not in "._"]
        found = [p for p in inside if _format(fs, p)]
        if all(_format(fs, p) == ".npy" for p in found):
            found = [p for p in found if npy_partner(_address(fs, p))]
        if not found:
            raise DataError(
                f"{address}: nothing in this folder can be read ({listed([*_OPENERS])})"
            )
    elif fs.exists(path):
        found = [path]
    else:
        found = [p for p in fs.glob(path) if p.rpartition("/")[2][0] != "."]
        if not found:
            raise DataError(f"{address}: no such file or folder")
    kinds = {_format(fs, p).removesuffix(".gz") for p in found}
    if "" in kinds:
        unknown = next(p for p in found if not _format(fs, p))
        raise DataError(f"{unknown}: not a format that can be read ({listed([*_OPENERS])})")
    if len(kinds) > 1:
        raise DataError(f"{address}: several formats: {listed(sorted(kinds))}; name one by a glob")
    for p in found:
        if fs.isfile(p) and not fs.size(p):
            raise DataError(f"{p}: is empty (0 bytes)")
    return [(_format(fs, p), _address(fs, p)) for p in sorted(found, key=_natural)]


def _address(fs: Any, path: str) -> str:
    """Of a path on a file system, as it is known everywhere."""
    from fsspec.implementations.local import LocalFileSystem

    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _format(fs: Any, path: str) -> str:
    """Give the ending that tells the format, empty if none; a Zarr store may have any name."""
    name = path.lower()
    for ending in _OPENERS:
        if name.endswith(ending):
            return ending
    return ".zarr" if any(fs.exists(f"{path}/{mark}") for mark in STORE_MARKS) else ""


def _natural(path: str) -> list[tuple[str, int]]:
    """Order numbers in names by value."""
    return [(word, int(number or -1)) for word, number in re.findall(r"(\D*)(\d*)", path)]


def _dask_array(reader: RowReader, chunks: tuple[int, ...], role: str) -> da.Array:
    import dask.array as da

    array: da.Array = da.from_array(
        reader,
        chunks=(chunks, *((n,) for n in reader.shape[1:])),
        name=f"read-{role}-{uuid4().hex}",
        asarray=True,
        fancy=False,
        meta=np.empty((0,) * reader.ndim, reader.dtype),
        inline_array=True,
    )
    return array
