"""Reading rows of a Zarr array: of a store at an address, or one that a user opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.blosc_chunks import cells_of, check_blosc
from altrelu_dist.data.packing import Packing, packing_of
from altrelu_dist.data.raw_chunks import read_rows
from altrelu_dist.data.source import Array, DType, RowReader, one_line
from altrelu_dist.data.zarr_format import has_holes
from altrelu_dist.errors import AltReLUError, DataError
from altrelu_dist.links import check_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr

__all__ = ["HandedRows", "ZarrRows", "handed_rows", "storage_at"]


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
            array = zarr.open_array(storage_at(self.address), path=self.array, mode="r")
            if array.shape[0] != self.shape[0]:
                raise DataError(f"{self.address}: has changed since it was opened")
            _check_files(array, start, stop)
            check_blosc(array, start, stop)
            block = read_rows(array, start, stop)
        except (AltReLUError, MemoryError):
            raise
        except Exception as error:
            raise self._damaged(start, stop, one_line(error)) from error
        if self.own and has_holes(block, array.fill_value):
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
            array = zarr.open_array(storage_at(self.address), path=self.array, mode="r")
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
                if self.own and has_holes(np.asarray(array[chunk]), array.fill_value):
                    return name
            except Exception:  # noqa: BLE001 - any failure is the answer
                return name
        return "a chunk"


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


def storage_at(address: str) -> Any:
    """What Zarr opens for an address; older archives of fsspec raise KeyError for missing files."""
    if "::" not in address:
        return address
    from zarr.storage import FsspecStore

    missing = (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError)
    return FsspecStore.from_url(address, read_only=True, allowed_exceptions=missing)


def _check_files(array: zarr.Array[Any], start: int, stop: int) -> None:
    """Refuse chunks of a local store that are no regular files."""
    from zarr.storage import LocalStore

    store = array.store_path.store
    if isinstance(store, LocalStore):
        folder = Path(store.root) / array.store_path.path
        for cell in cells_of(array, start, stop):
            check_regular(str(folder / array.metadata.encode_chunk_key(cell)))
