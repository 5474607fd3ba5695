"""Writing a store of the package's own format, in whole chunks with checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.source import Block, DType, files_at, rows_in
from altrelu_dist.data.zarr_format import (
    CHECKSUM,
    FORMAT,
    FORMAT_VERSION,
    KNOWS_NAMES,
    metadata_checksum,
)
from altrelu_dist.encoding.raw import RawColumns, all_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["StoreWriter", "rows_per_chunk"]

_STEP_ROWS = 4096  # row counts of chunks are a power of two from here on
_FEW_CHUNKS = 8  # smaller chunks where there would be fewer than this to share among workers


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
        version = 4 if self._missing or columns is not None else KNOWS_NAMES
        version = version if self._classes is None else FORMAT_VERSION
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": version,
            "rows": self.rows,
            **self._names,
            **({} if columns is None else {"columns": [column.to_json() for column in columns]}),
            **({} if self._classes is None else {"classes": list(self._classes)}),
        }
        checksum = metadata_checksum(self._address, attributes, self._arrays)
        self._group.attrs.update(attributes | {CHECKSUM: checksum})

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
