"""Zarr stores: the package's own format, written with checksums in whole chunks, and any other."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.arrays import ArrayInfo, ArraySource, choose_arrays
from altrelu_dist.data.blosc_chunks import cells_of, check_blosc
from altrelu_dist.data.raw_chunks import read_rows
from altrelu_dist.data.source import (
    READ_BYTES,
    Array,
    Block,
    DType,
    RowReader,
    Wanted,
    as_columns,
    even_chunks,
    files_at,
    listed,
    one_line,
    reading,
    rows_in,
)
from altrelu_dist.errors import AltReLUError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT = "altrelu-dataset"
FORMAT_VERSION = 2  # since 2 with a checksum of the metadata
STORE_MARKS = ("zarr.json", ".zgroup", ".zarray")  # a folder with one of them is a Zarr store
_FILES_OF_A_GROUP = {"zarr.json", ".zgroup", ".zattrs", ".zmetadata"}
_STEP_ROWS = 4096  # row counts of chunks are a power of two from here on
_MAX_CHUNKS = 10_000_000  # more than Dask can schedule, or damage
_CHECKSUM = "metadata_checksum"
_NAMES = {"X", "y", "sample_weight"}  # of the arrays of the package's own format
_FEW_CHUNKS = 8  # smaller chunks where there would be fewer than this to share among workers


@dataclass(frozen=True)
class ZarrRows(RowReader):
    """An array of a Zarr store; where convert wrote it (`own`), no chunk may be missing."""

    array: str
    own: bool

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop; the checksums of their chunks are tested on the way."""
        import zarr

        try:
            array = zarr.open_array(self.address, path=self.array, mode="r")
            if array.shape[0] != self.shape[0]:
                raise DataError(f"{self.address}: has changed since it was opened")
            check_blosc(array, start, stop)
            block = read_rows(array, start, stop)
        except (AltReLUError, MemoryError):
            raise
        except Exception as error:
            raise self._damaged(start, stop, one_line(error)) from error
        if self.own and _has_holes(block):
            raise self._damaged(start, stop, "missing")
        return block

    def _damaged(self, start: int, stop: int, reason: str) -> DataError:
        where = f"{self.address}: array {self.array or 'X'}, rows {start} to {stop - 1}"
        return DataError(f"{where}: {self._bad_file(start, stop)} cannot be used: {reason}")

    def _bad_file(self, start: int, stop: int) -> str:
        """Name the first chunk that cannot be read, as the path of its file in the store."""
        import zarr

        try:
            array = zarr.open_array(self.address, path=self.array, mode="r")
        except Exception:  # noqa: BLE001 - any failure is the answer
            return f"the metadata in {self.array}"
        sizes = array.shards or array.chunks
        for cell in cells_of(array, start, stop):
            chunk = tuple(
                slice(i * size, (i + 1) * size) for i, size in zip(cell, sizes, strict=True)
            )
            name = "a chunk"
            try:
                name = f"chunk file {self.array}/{array.metadata.encode_chunk_key(cell)}"
                check_blosc(array, *chunk[0].indices(array.shape[0])[:2])
                if _has_holes(np.asarray(array[chunk])) and self.own:
                    return name
            except Exception:  # noqa: BLE001 - any failure is the answer
                return name
        return "a chunk"


def _arrays_of(group: Any) -> dict[str, Any]:
    """The arrays of a group, opened one by one.

    Zarr opens all at once; where several are damaged, asyncio logs the tracebacks of all but one.
    """
    import zarr
    from zarr.core.sync import sync

    async def listed_names() -> list[str]:
        return [name async for name in group.store.list_dir(group.path)]

    found = {}
    if group.metadata.consolidated_metadata is None:  # else none is opened
        for name in sorted(set(sync(listed_names())) - _FILES_OF_A_GROUP):
            try:
                found[name] = group[name]
            except KeyError:  # something else that lies there
                continue
    arrays = {name: node for name, node in found.items() if isinstance(node, zarr.Array)}
    return arrays or dict(group.arrays())  # some storage cannot list


@dataclass(frozen=True)
class ZarrSource(ArraySource):
    """A Zarr group with arrays X and y, or one array."""

    own: bool
    chunk_rows: int

    @classmethod
    def open(cls, address: str, wanted: Wanted) -> ZarrSource:
        """Read the metadata; for the package's own format also test that every chunk is there."""
        import zarr

        with reading(f"{address}: not a Zarr store, or damaged"):
            node = zarr.open(address, mode="r")
            if isinstance(node, zarr.Group):
                arrays: dict[str, zarr.Array[Any]] = _arrays_of(node)
                attributes: Mapping[str, Any] = dict(node.attrs)
            else:
                arrays, attributes = {"": node}, {}
            infos = {name: ArrayInfo(a.shape, np.dtype(a.dtype)) for name, a in arrays.items()}
        kind = attributes.get("format", FORMAT)
        if kind != FORMAT:
            raise DataError(f"{address}: is of the format {kind}, not a data set")
        own = "format" in attributes
        if own:
            wanted = _own_wanted(address, attributes, wanted)
        chosen = choose_arrays(address, infos, wanted, X="X" if "" not in arrays else "")
        first = arrays[chosen.names[0]]
        for used in (arrays[name] for name in chosen.names if name is not None):
            if not all((*used.chunks, *(used.shards or ()))) or used.nchunks > _MAX_CHUNKS:
                raise DataError(f"{address}: damaged, or over {_MAX_CHUNKS} chunks: {used.chunks}")
        if own:
            names = [tuple(attributes[key]) for key in ("feature_names", "target_names")]
            counts = [len(chosen.feature_names), len(chosen.target_names)]
            if [len(of) for of in names] != counts or attributes.get("rows") != chosen.rows:
                raise DataError(f"{address}: damaged: its metadata contradict each other")
            chosen = chosen._replace(feature_names=names[0], target_names=names[1])
            for name in chosen.names:
                if name is not None:
                    with reading(f"{address}: damaged"):
                        _check_all_there(address, name, arrays[name])
            _check_metadata(address, attributes, arrays)
        return cls(address, *chosen, own, first.chunks[0])

    def reader(self, name: str, shape: tuple[int, ...], dtype: DType) -> ZarrRows:
        """Reader of one array."""
        return ZarrRows(self.address, shape, dtype, name, self.own)

    def chunks(self, rows: int) -> tuple[int, ...]:
        """Stored chunks, those of other writers put together to about 16 MiB."""
        wanted = rows_in(READ_BYTES, len(self.feature_names), self.dtypes[0])
        together = 1 if self.own else max(1, wanted // self.chunk_rows)
        return even_chunks(rows, self.chunk_rows * together)


class StoreWriter:
    """Writes blocks of rows of any length as a store of the package's own format.

    Only whole chunks are written, and the last one once, so that no chunk is ever read back.
    """

    def __init__(
        self,
        address: str,
        feature_names: tuple[str, ...],
        target_names: tuple[str, ...],
        dtypes: tuple[DType, DType | None, DType | None],
        chunk_rows: int,
    ) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        self.rows = 0
        self._names = {"feature_names": list(feature_names), "target_names": list(target_names)}
        self._chunk_rows = chunk_rows
        self._address = address
        self._group = zarr.create_group(address, zarr_format=3)
        tails = {"X": (len(feature_names),), "y": (len(target_names),), "sample_weight": ()}
        self._buffers = {
            name: np.empty((chunk_rows, *tail), dtype)
            for (name, tail), dtype in zip(tails.items(), dtypes, strict=True)
            if dtype is not None
        }
        self._arrays = {
            name: self._group.create_array(
                name,
                shape=buffer.shape,
                chunks=buffer.shape,
                dtype=buffer.dtype,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                fill_value=float("nan"),
            )
            for name, buffer in self._buffers.items()
        }

    def append(self, block: Block) -> None:
        """Add rows; they are copied."""
        given = {"X": block.X, "y": block.y, "sample_weight": block.weight}
        start = 0
        while start < len(block.X):
            filled = self.rows % self._chunk_rows
            count = min(len(block.X) - start, self._chunk_rows - filled)
            for name, buffer in self._buffers.items():
                rows = given[name]
                assert rows is not None
                buffer[filled : filled + count] = rows[start : start + count]
            start += count
            self.rows += count
            if filled + count == self._chunk_rows:
                self._write(self._chunk_rows)

    def finish(self) -> None:
        """Write the last rows and the metadata."""
        if rest := self.rows % self._chunk_rows:
            self._write(rest)
        for array in self._arrays.values():
            array.resize((self.rows, *array.shape[1:]))
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "rows": self.rows,
            **self._names,
        }
        checksum = _metadata_checksum(self._address, attributes, self._arrays)
        self._group.attrs.update(attributes | {_CHECKSUM: checksum})

    @property
    def n_bytes(self) -> int:
        """Of all files of the store."""
        fs, root = files_at(self._address)
        return int(fs.du(root))

    def _write(self, count: int) -> None:
        for name, array in self._arrays.items():
            if self.rows > array.shape[0]:
                array.resize((2 * array.shape[0], *array.shape[1:]))
            array[self.rows - count : self.rows] = self._buffers[name][:count]


def rows_per_chunk(n_features: int, dtype: DType, chunk_bytes: int, about_rows: int) -> int:
    """Rows of a chunk: a power of two from 4096 on, for about `chunk_bytes` and eight chunks."""
    most = min(rows_in(chunk_bytes, n_features, dtype), about_rows // _FEW_CHUNKS)
    rows = _STEP_ROWS
    while 2 * rows <= most:
        rows *= 2
    return rows


def _own_wanted(address: str, attributes: Mapping[str, Any], wanted: Wanted) -> Wanted:
    """Check the version and the names of a store of the own format; its target is always y."""
    version = attributes.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataError(
            f"{address}: format version {version} is newer than {FORMAT_VERSION}, the newest that "
            "this version of altrelu-dist reads: install a newer one"
        )
    names = [attributes.get(key) for key in ("feature_names", "target_names")]
    if version not in (1, FORMAT_VERSION) or not all(
        isinstance(of, list) and all(isinstance(name, str) for name in of) for of in names
    ):
        raise DataError(f"{address}: damaged: its metadata lack the version or the column names")
    targets = tuple(names[1] or ())
    if wanted.targets not in ((), targets):
        has = f"has the target {listed(targets)}" if targets else "was converted without a target"
        raise DataError(f"{address}: {has}, not {listed(wanted.targets)}: convert it again")
    if wanted.require_target and not targets:
        raise DataError(f"{address}: was converted without a target: convert with --target NAME")
    return replace(wanted, targets=())


def _metadata_checksum(address: str, attributes: Mapping[str, Any], names: Iterable[str]) -> str:
    """SHA-256 of the attributes of a store, and of its arrays' metadata as they were written."""
    fs, root = files_at(address)
    found = sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(names):
        found.update(fs.cat_file(f"{root}/{name}/zarr.json"))
    return found.hexdigest()


def _check_metadata(address: str, attributes: Mapping[str, Any], arrays: Iterable[str]) -> None:
    """Refuse metadata that are not as they were written; those of version 1 had no checksum."""
    told = {key: value for key, value in attributes.items() if key != _CHECKSUM}
    if len(told) == len(attributes) and attributes["format_version"] == 1:
        return
    with reading(f"{address}: damaged"):
        found = _metadata_checksum(address, told, _NAMES & set(arrays))
    if attributes.get(_CHECKSUM) != found:
        raise DataError(f"{address}: damaged: the checksum of its metadata does not fit")


def _check_all_there(address: str, name: str, array: Any) -> None:
    """Test that a file exists for every chunk."""
    fs, root = files_at(address)
    there = set(fs.find(f"{root}/{name}"))
    cells = product(
        *(range(-(-n // size)) for n, size in zip(array.shape, array.chunks, strict=True))
    )
    keys = (f"{name}/{array.metadata.encode_chunk_key(cell)}" for cell in cells)
    if lost := [key for key in keys if f"{root}/{key}" not in there]:
        raise DataError(
            f"{address}: damaged: {len(lost)} of {array.nchunks} chunks missing, first {lost[0]}"
        )


def _has_holes(block: Array) -> bool:
    """Whether rows are NaN: nothing that convert writes is, but a lost chunk reads so."""
    return bool(np.isnan(as_columns(block)[:, 0]).any())
