"""Blosc chunks of a local Zarr store, looked at before they are decoded.

The decoder that Zarr uses believes a chunk's header and reads beyond the end of a chunk that is cut
short or lies about its length: the process dies, and a cluster's workers one after the other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zarr

__all__ = ["cells_of", "check_blosc"]

_HEADER = struct.Struct("<BBBBIII")  # version, of the codec, flags, type size; the three below
_VERSION = 2


def check_blosc(array: zarr.Array[Any], start: int, stop: int) -> None:
    """Refuse rows of an array whose chunks' headers do not fit the chunks.

    Arrays in other stores or in shards, or compressed by something else, are passed over.

    Raises
    ------
    ValueError
        A header is cut short, or contradicts the size of the chunk or of its file.
    """
    from zarr.storage import LocalStore

    store = array.store_path.store
    if type(store) is not LocalStore or array.shards is not None or not _is_blosc(array):
        return
    folder = Path(store.root) / array.store_path.path
    plain = math.prod(array.chunks) * array.dtype.itemsize
    for cell in cells_of(array, start, stop):
        key = array.metadata.encode_chunk_key(cell)
        try:
            with (folder / key).open("rb") as file:
                header, length = file.read(_HEADER.size), file.seek(0, 2)
        except FileNotFoundError:
            continue
        if len(header) < _HEADER.size:
            raise ValueError("it is cut short")
        version, _, _, item, unpacked, block, packed = _HEADER.unpack(header)
        fits = version == _VERSION and item > 0 and 0 < block <= unpacked and packed == length
        if not fits or (not array.filters and unpacked != plain):
            raise ValueError(f"its Blosc header does not fit: {unpacked} bytes in {packed}")


def cells_of(array: zarr.Array[Any], start: int, stop: int) -> Iterator[tuple[int, ...]]:
    """Numbers of the chunks, or shards, that hold some rows."""
    sizes = array.shards or array.chunks
    spans = [(start, stop), *((0, size) for size in array.shape[1:])]
    yield from product(
        *(
            range(low // size, -(-high // size))
            for (low, high), size in zip(spans, sizes, strict=True)
        )
    )


def _is_blosc(array: zarr.Array[Any]) -> bool:
    return any(type(codec).__name__ in ("Blosc", "BloscCodec") for codec in array.compressors)
