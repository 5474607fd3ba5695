"""Zarr stores: the package's own format, written with checksums in whole chunks, and any other."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.arrays import ArrayInfo, ArraySource, choose_arrays, numbered
from altrelu_dist.data.blosc_chunks import cells_of, check_blosc
from altrelu_dist.data.packing import Packing, packing_of
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
from altrelu_dist.encoding.raw import UNSEEN, RawColumn, RawColumns, all_numbers, columns_of
from altrelu_dist.errors import AltReLUError, DataError, Remedy
from altrelu_dist.links import check_regular, split_chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import zarr

FORMAT = "altrelu-dataset"
# Since 2 with a checksum of the metadata, since 3 without names made up; 4 where features are
# missing or were no numbers, 5 where the target is classes, which older readers do not expect.
FORMAT_VERSION = 5
_KNOWS_NAMES = 3  # the version since which names are the data's own
STORE_MARKS = ("zarr.json", ".zgroup", ".zarray")  # a folder with one of them is a Zarr store
_METADATA = (*STORE_MARKS, ".zattrs", ".zmetadata")
_ONE_AT_A_TIME = ("tar://", "libarchive://")  # Zarr reads several files of a store at once
_STEP_ROWS = 4096  # row counts of chunks are a power of two from here on
_MAX_CHUNKS = 10_000_000  # more than Dask can schedule, or damage
_CHECKSUM = "metadata_checksum"
_NAMES = {"X", "y", "sample_weight"}  # of the arrays of the package's own format
_FEW_CHUNKS = 8  # smaller chunks where there would be fewer than this to share among workers


@dataclass(frozen=True)
class ZarrRows(RowReader):
    """An array of a Zarr store; where convert wrote it (`own`), no chunk may be missing.

    Values of the columns in `lacking` are all missing; each goes with what is said if one is not.
    """

    array: str
    own: bool
    packing: Packing | None = None
    recoded: Mapping[int, Array] = field(default_factory=dict)
    lacking: Mapping[int, str] = field(default_factory=dict)

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop; the checksums of their chunks are tested on the way."""
        import zarr

        try:
            array = zarr.open_array(_store(self.address), path=self.array, mode="r")
            if array.shape[0] != self.shape[0]:
                raise DataError(f"{self.address}: has changed since it was opened")
            _check_files(array, start, stop)
            check_blosc(array, start, stop)
            block = read_rows(array, start, stop)
        except (AltReLUError, MemoryError):
            raise
        except Exception as error:
            raise self._damaged(start, stop, one_line(error)) from error
        if self.own and _has_holes(block, array.fill_value):
            raise self._damaged(start, stop, "missing")
        for j, other in self.lacking.items():
            if not np.isnan(block[:, j]).all():
                raise DataError(f"{self.address}: {other}")
        for j, codes in self.recoded.items():
            there = ~np.isnan(block[:, j])
            block[there, j] = codes[block[there, j].astype(int)]
        return block if self.packing is None else self.packing.values(block)

    def _damaged(self, start: int, stop: int, reason: str) -> DataError:
        where = f"{self.address}: array {self.array or 'X'}, rows {start} to {stop - 1}"
        return DataError(f"{where}: {self._bad_file(start, stop)} cannot be used: {reason}")

    def _bad_file(self, start: int, stop: int) -> str:
        """Name the first chunk that cannot be read, as the path of its file in the store."""
        import zarr

        try:
            array = zarr.open_array(_store(self.address), path=self.array, mode="r")
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
                rows = chunk[0].indices(array.shape[0])[:2]
                _check_files(array, *rows)
                check_blosc(array, *rows)
                if self.own and _has_holes(np.asarray(array[chunk]), array.fill_value):
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
        for name in sorted(set(sync(listed_names())) - set(_METADATA)):
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
    has_names: bool
    packings: Mapping[str, Packing]
    raw_columns: RawColumns | None = None
    recoded: Mapping[int, Array] = field(default_factory=dict)
    lacking: Mapping[int, str] = field(default_factory=dict)
    labels: tuple[str | int | float | bool, ...] | None = None

    @property
    def classes(self) -> tuple[str | int | float | bool, ...] | None:
        """What convert found the classes of the target to be."""
        return self.labels

    @property
    def named(self) -> bool:
        """Whether convert found names, and kept them."""
        return self.has_names

    @property
    def columns(self) -> RawColumns | None:
        """What convert found the features to be."""
        return self.raw_columns

    def with_columns(self, columns: Mapping[str, RawColumn]) -> ZarrSource:
        """The same, with the codes of other levels than those that convert found.

        Where a column lacked all values it found numbers, or no level: such a column may be any.
        """
        if not self.own or (self.raw_columns is None and all_numbers([*columns.values()])):
            return super().with_columns(columns)
        found = list(self.raw_columns or (RawColumn() for _ in self.feature_names))
        recoded, lacking = {}, {}
        for j, name in enumerate(self.feature_names):
            mine, wanted = found[j], columns.get(name, found[j])
            if mine.kind != wanted.kind:
                words = {"number": "numbers", "levels": "texts", "time": "times"}
                other = f"column {name} holds {words[mine.kind]}; expected {words[wanted.kind]}"
                if wanted.kind == "number" or mine.kind == "time" or mine.levels:
                    raise DataError(f"{self.address}: {other}")
                lacking[j] = other
                found[j] = wanted
            elif mine.levels != wanted.levels:
                places = {level: place for place, level in enumerate(wanted.levels)}
                codes = [places.get(level, UNSEEN) for level in mine.levels]
                recoded[j] = np.array([*codes, UNSEEN])  # the last is that of UNSEEN itself
                found[j] = wanted
        return replace(self, raw_columns=tuple(found), recoded=recoded, lacking=lacking)

    @classmethod
    def open(cls, address: str, wanted: Wanted) -> ZarrSource:
        """Read the metadata; for the package's own format also test that every chunk is there."""
        import zarr

        if split_chain(address)[1].startswith(_ONE_AT_A_TIME):
            raise DataError(
                f"{address}: the chunks of a store in a tar archive cannot be read side by side: "
                "unpack it, or put it in a .zip"
            )
        with reading(f"{address}: not a Zarr store, or damaged"):
            _check_metadata_files(address)
            node = zarr.open(_store(address), mode="r")
            if isinstance(node, zarr.Group):
                arrays: dict[str, zarr.Array[Any]] = _arrays_of(node)
                attributes: Mapping[str, Any] = dict(node.attrs)
            else:
                arrays, attributes = {"": node}, {}
        kind = attributes.get("format", FORMAT)
        if kind != FORMAT:
            raise DataError(f"{address}: is of the format {kind}, not a data set")
        own = "format" in attributes
        packings = {} if own else _packings(address, arrays, wanted)
        with reading(f"{address}: not a Zarr store, or damaged"):
            infos = {
                name: ArrayInfo(
                    a.shape, packings[name].dtype if name in packings else np.dtype(a.dtype)
                )
                for name, a in arrays.items()
            }
        if own:
            wanted = _own_wanted(address, attributes, wanted)
        chosen = choose_arrays(address, infos, wanted, X="X" if "" not in arrays else "")
        first = arrays[chosen.names[0]]
        for used in (arrays[name] for name in chosen.names if name is not None):
            if not all((*used.chunks, *(used.shards or ()))) or used.nchunks > _MAX_CHUNKS:
                raise DataError(f"{address}: damaged, or over {_MAX_CHUNKS} chunks: {used.chunks}")
        if own:
            names = [attributes[key] for key in ("feature_names", "target_names")]
            names[0] = chosen.feature_names if names[0] is None else names[0]
            counts = [len(chosen.feature_names), len(chosen.target_names)]
            if [len(of) for of in names] != counts or attributes.get("rows") != chosen.rows:
                raise DataError(f"{address}: damaged: its metadata contradict each other")
            chosen = chosen._replace(feature_names=tuple(names[0]), target_names=tuple(names[1]))
            for name in chosen.names:
                if name is not None:
                    with reading(f"{address}: damaged"):
                        _check_all_there(address, name, arrays[name])
            _check_metadata(address, attributes, arrays)
        has_names = own and _has_names(attributes, wanted)
        columns = _columns(address, attributes, len(chosen.feature_names)) if own else None
        labels = _labels(address, attributes, len(chosen.target_names)) if own else None
        return cls(
            address, *chosen, own, first.chunks[0], has_names, packings, columns, labels=labels
        )

    def reader(self, name: str, shape: tuple[int, ...], dtype: DType) -> ZarrRows:
        """Reader of one array."""
        packing = self.packings.get(name)
        rows = ZarrRows(self.address, shape, dtype, name, self.own, packing)
        if name != self.names[0]:
            return rows
        return replace(rows, recoded=self.recoded, lacking=self.lacking)

    def chunks(self, rows: int) -> tuple[int, ...]:
        """Stored chunks, those of other writers put together to about 16 MiB."""
        wanted = rows_in(READ_BYTES, len(self.feature_names), self.dtypes[0])
        together = 1 if self.own else max(1, wanted // self.chunk_rows)
        return even_chunks(rows, self.chunk_rows * together)


@dataclass(frozen=True)
class HandedRows:
    """A Zarr array that a user opened, for Dask: its files are looked at, its values decoded."""

    array: zarr.Array[Any]
    packing: Packing | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def dtype(self) -> DType:
        """Of the values."""
        return np.dtype(self.array.dtype) if self.packing is None else self.packing.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        start, stop, _ = index[0].indices(self.shape[0])
        _check_files(self.array, start, stop)
        block = np.asarray(self.array[index])
        return block if self.packing is None else self.packing.values(block)


def handed_rows(array: zarr.Array[Any], what: str) -> HandedRows:
    """Rows of a Zarr array that a user opened; `what` is its name in messages.

    Raises
    ------
    DataError
        It holds times, or it is packed in a way that cannot be understood.
    """
    return HandedRows(array, packing_of(array, what))


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
        *,
        named: bool,
        columns: RawColumns | None = None,
        classes: Sequence[str | int | float | bool] | None = None,
    ) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        self.rows = 0
        self._columns = columns
        self._classes = classes
        self._missing = False
        self._names = {
            "feature_names": list(feature_names) if named else None,
            "target_names": list(target_names),
        }
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
                # As which a lost chunk is known: no value that is written is that.
                fill_value=float("inf" if name == "X" else "nan"),
            )
            for name, buffer in self._buffers.items()
        }

    def append(self, block: Block) -> None:
        """Add rows; they are copied."""
        given = {"X": block.X, "y": block.y, "sample_weight": block.weight}
        start = 0
        self._missing = self._missing or bool(np.isnan(block.X).any())
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
        columns = None if all_numbers(self._columns) else self._columns
        version = 4 if self._missing or columns is not None else _KNOWS_NAMES
        version = version if self._classes is None else FORMAT_VERSION
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": version,
            "rows": self.rows,
            **self._names,
            **({} if columns is None else {"columns": [column.to_json() for column in columns]}),
            **({} if self._classes is None else {"classes": list(self._classes)}),
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


def _store(address: str) -> Any:
    """What Zarr opens for an address; older archives of fsspec raise KeyError for missing files."""
    if "::" not in address:
        return address
    from zarr.storage import FsspecStore

    missing = (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError)
    return FsspecStore.from_url(address, read_only=True, allowed_exceptions=missing)


def _packings(
    address: str, arrays: Mapping[str, zarr.Array[Any]], wanted: Wanted
) -> dict[str, Packing]:
    """How the arrays are packed that may be read; the others may hold what cannot be decoded."""
    used = {"", "X", "y", "sample_weight", *wanted.targets, wanted.weight}
    packings = {}
    with reading(f"{address}: not a Zarr store, or damaged"):
        for name, array in arrays.items():
            if name in used and (packing := packing_of(array, f"{address}: array {name or 'X'}")):
                packings[name] = packing
    return packings


def _check_metadata_files(address: str) -> None:
    """Refuse metadata of a local store that are no regular files, which Zarr would wait for."""
    from fsspec.implementations.local import LocalFileSystem

    fs, root = files_at(address)
    if not isinstance(fs, LocalFileSystem):
        return
    inside = Path(root).iterdir() if Path(root).is_dir() else ()
    for folder in (Path(root), *inside):
        for name in _METADATA:
            check_regular(str(folder / name))


def _check_files(array: zarr.Array[Any], start: int, stop: int) -> None:
    """Refuse chunks of a local store that are no regular files."""
    from zarr.storage import LocalStore

    store = array.store_path.store
    if isinstance(store, LocalStore):
        folder = Path(store.root) / array.store_path.path
        for cell in cells_of(array, start, stop):
            check_regular(str(folder / array.metadata.encode_chunk_key(cell)))


def _own_wanted(address: str, attributes: Mapping[str, Any], wanted: Wanted) -> Wanted:
    """Check the version and the names of a store of the own format; its target is always y."""
    version = attributes.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataError(
            f"{address}: format version {version} is newer than {FORMAT_VERSION}, the newest that "
            "this version of altrelu-dist reads: install a newer one"
        )
    names = [attributes.get(key) for key in ("feature_names", "target_names")]
    knows = isinstance(version, int) and version >= _KNOWS_NAMES
    nameless = knows and attributes.get("feature_names", ()) is None
    told = names[1:] if nameless else names
    if version not in range(1, FORMAT_VERSION + 1) or not all(
        isinstance(of, list) and all(isinstance(name, str) for name in of) for of in told
    ):
        raise DataError(f"{address}: damaged: its metadata lack the version or the column names")
    targets = tuple(names[1] or ())
    if wanted.targets not in ((), targets):
        has = f"has the target {listed(targets)}" if targets else "was converted without a target"
        raise DataError(f"{address}: {has}, not {listed(wanted.targets)}: convert it again")
    if wanted.require_target and not targets:
        raise DataError(f"{address}: was converted without a target", Remedy.CONVERT_WITH_TARGET)
    return replace(wanted, targets=())


def _has_names(attributes: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether the columns of a store of the own format have names.

    Up to version 2 a store does not say whether x0, x1, ... were made up: they were, if none of
    them is wanted and others are.
    """
    names = attributes["feature_names"]
    if names is None:
        return False
    unclear = attributes["format_version"] < _KNOWS_NAMES and numbered("x", len(names)) == (*names,)
    return not unclear or not wanted.features or bool({*wanted.features} & {*names})


def _columns(address: str, attributes: Mapping[str, Any], count: int) -> RawColumns | None:
    """What the features were, where they were not all numbers."""
    try:
        columns = columns_of(attributes.get("columns"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{address}: damaged: {one_line(error)}") from error
    if columns is not None and len(columns) != count:
        raise DataError(f"{address}: damaged: it has {count} features, and tells of {len(columns)}")
    return columns


def _labels(
    address: str, attributes: Mapping[str, Any], n_targets: int
) -> tuple[str | int | float | bool, ...] | None:
    """The classes of the target, where it is classes."""
    found = attributes.get("classes")
    if found is None:
        return None
    kinds = {*map(type, found)} if isinstance(found, list) else {None}
    alike = kinds in ({str}, {bool}) or (kinds and kinds <= {int, float})
    if not alike or n_targets != 1 or len({*found}) < len(found):
        raise DataError(f"{address}: damaged: its classes are {found!r:.80}")
    return tuple(found)


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


def _has_holes(block: Array, fill_value: Any) -> bool:
    """Whether rows are as a lost chunk reads, which nothing that convert writes is."""
    first = as_columns(block)[:, 0]
    return bool((np.isnan(first) if np.isnan(fill_value) else first == fill_value).any())
