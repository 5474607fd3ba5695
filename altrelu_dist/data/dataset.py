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
from altrelu_dist.data.source import (
    RowReader,
    Source,
    Wanted,
    check_there,
    files_at,
    listed,
    reading,
)
from altrelu_dist.data.zarr_store import STORE_MARKS, ZarrSource
from altrelu_dist.errors import DataError, ParameterError

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
    feature_names : tuple of str, or None
        Names of the columns of X; None where the source has none.
    target_names : tuple of str
        Names of the columns of y; y, or y0, y1, ..., where the source has none.
    source : str
        The address it was opened from.
    left_out : tuple of str
        Columns of the source that are not read: an index of pandas or Dask, and those that
        `features` does not name.
    """

    X: da.Array
    y: da.Array | None
    sample_weight: da.Array | None
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...]
    source: str
    left_out: tuple[str, ...] = ()


def open_dataset(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
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
    features : sequence of str, optional
        The features, in the order that X is to have them; other columns are not read, and may hold
        anything. By default all columns of numbers but the target, the weight and an index. Columns
        without names are taken as they are, where there are as many.
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
    sources = find_sources(
        address, target=target, weight=weight, features=features, require_target=require_target
    )
    return dataset_of(sources, address, features)


def column_names(address: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Names of all columns at an address, but a store's targets and weight; None without names."""
    first = find_sources(address, features=())[0]
    return (*first.feature_names, *first.unread) if first.named else None


def dataset_of(
    sources: Sequence[Source],
    address: str | os.PathLike[str],
    features: Sequence[str] | None = None,
) -> DataSet:
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
    text, first = os.fspath(address), sources[0]
    names, left_out = first.feature_names, first.unread
    if features is not None and not first.named and len(features) != len(names):
        raise DataError(
            f"{text}: has {len(names)} columns without names; expected {len(features)}: "
            f"{listed(features)}"
        )
    if features is not None and first.named and names != tuple(features):  # an array has them all
        check_there(text, features, names)
        X = X[:, [names.index(name) for name in features]]
        left_out = tuple(name for name in names if name not in features)
        names = tuple(features)
    return DataSet(
        X, y, weights, names if first.named else None, first.target_names, text, left_out
    )


def find_sources(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    require_target: bool = False,
) -> list[Source]:
    """Open every part at an address, and check that they have the same columns."""
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    used = [*targets, *([weight] if weight is not None else [])]
    if len(set(used)) < len(used):
        raise ParameterError(f"named twice as target or weight: {listed(used)}")
    inputs = None if features is None else tuple(features)
    if both := [name for name in used if name in (inputs or ())]:
        raise ParameterError(f"named as target or weight, and a feature: {listed(both)}")
    wanted = Wanted(targets, weight, require_target, inputs)
    text = os.fspath(address)
    with reading(text):
        places = _parts_at(text)
    sources = [_OPENERS[kind](place, wanted) for kind, place in places]
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
