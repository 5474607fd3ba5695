"""Opening a Zarr store: one of the package's own format, or any other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.arrays import ArrayInfo, ArraySource, choose_arrays
from altrelu_dist.data.packing import Packing, packing_of
from altrelu_dist.data.source import (
    READ_BYTES,
    Array,
    DType,
    Wanted,
    even_chunks,
    files_at,
    reading,
    rows_in,
)
from altrelu_dist.data.zarr_format import (
    FORMAT,
    has_names,
    own_arrays,
    own_columns,
    own_labels,
    own_wanted,
)
from altrelu_dist.data.zarr_rows import ZarrRows, storage_at
from altrelu_dist.encoding.raw import UNSEEN, RawColumn, RawColumns, all_numbers
from altrelu_dist.errors import DataError
from altrelu_dist.links import check_regular, split_chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr

__all__ = ["STORE_MARKS", "ZarrSource"]

STORE_MARKS = ("zarr.json", ".zgroup", ".zarray")  # a folder with one of them is a Zarr store
_METADATA = (*STORE_MARKS, ".zattrs", ".zmetadata")
_ONE_AT_A_TIME = ("tar://", "libarchive://")  # Zarr reads several files of a store at once
_MAX_CHUNKS = 10_000_000  # more than Dask can schedule, or damage


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
            node = zarr.open(storage_at(address), mode="r")
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
            wanted = own_wanted(address, attributes, wanted)
        chosen = choose_arrays(address, infos, wanted, X="X" if "" not in arrays else "")
        first = arrays[chosen.names[0]]
        for used in (arrays[name] for name in chosen.names if name is not None):
            if not all((*used.chunks, *(used.shards or ()))) or used.nchunks > _MAX_CHUNKS:
                raise DataError(f"{address}: damaged, or over {_MAX_CHUNKS} chunks: {used.chunks}")
        if own:
            chosen = own_arrays(address, attributes, chosen, arrays)
        named = own and has_names(attributes, wanted)
        columns = own_columns(address, attributes, len(chosen.feature_names)) if own else None
        labels = own_labels(address, attributes, len(chosen.target_names)) if own else None
        return cls(address, *chosen, own, first.chunks[0], named, packings, columns, labels=labels)

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
