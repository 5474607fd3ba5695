"""NumPy files: .npz with arrays X and y, and pairs X.npy and y.npy."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from altrelu_dist.data.arrays import ArrayInfo, ArraySource, choose_arrays
from altrelu_dist.data.source import (
    PIECE_BYTES,
    READ_BYTES,
    Array,
    Block,
    DType,
    RowReader,
    Wanted,
    even_chunks,
    file_name,
    files_at,
    open_binary,
    reading,
    rows_in,
)
from altrelu_dist.errors import DataError, Remedy
from altrelu_dist.links import split_chain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PIECE_BYTES = 1 << 20  # zipfile makes three copies of what it is asked for at once


@dataclass(frozen=True)
class Layout:
    """Where in its file an array lies."""

    shape: tuple[int, ...]
    dtype: DType
    fortran: bool
    offset: int
    member: str | None = None  # the packed member of an .npz that the offset counts in

    @property
    def n_bytes(self) -> int:
        """Size of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class NumpyRows(RowReader):
    """An array in a .npy file, or in an .npz."""

    layout: Layout

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop; a packed member is unpacked from its start."""
        with (
            reading(f"{self.address}: rows {start} to {stop - 1} cannot be read"),
            open_binary(self.address) as file,
        ):
            if self.layout.member is None:
                return _rows(file, self.layout, start, stop)
            with zipfile.ZipFile(file) as archive, archive.open(self.layout.member) as member:
                block = _rows(member, self.layout, start, stop)
                member.read(1)  # zipfile tests the checksum of a member at its end
                return block


@dataclass(frozen=True)
class NumpySource(ArraySource):
    """An .npz, or a pair of .npy files."""

    files: Mapping[str, tuple[str, Layout]]  # by array: the file that holds it, and where in it

    @classmethod
    def open_npz(cls, address: str, wanted: Wanted) -> NumpySource:
        """Read the headers of all members."""
        with reading(f"{address}: not an .npz file, or cut short"), open_binary(address) as file:
            files = {name: (address, layout) for name, layout in _members(file)}
        return cls._choose(address, files, wanted)

    @classmethod
    def open_npy(cls, address: str, wanted: Wanted) -> NumpySource:
        """Read the headers of X, of its partner or the named target, and of the named weights."""
        places = {"X": address}
        places |= {name: name for name in (*wanted.targets, wanted.weight) if name is not None}
        if not wanted.targets and (partner := npy_partner(address)):
            places["y"] = partner
        files = {}
        for name, place in places.items():
            with reading(f"{place}: not an .npy file, or cut short"), open_binary(place) as file:
                n_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
                files[name] = (place, _header(file, n_bytes))
        return cls._choose(address, files, wanted)

    @property
    def _is_archive(self) -> bool:
        return file_name(self.address).endswith(".npz")

    @classmethod
    def _choose(
        cls, address: str, files: Mapping[str, tuple[str, Layout]], wanted: Wanted
    ) -> NumpySource:
        infos = {name: ArrayInfo(lay.shape, lay.dtype) for name, (_, lay) in files.items()}
        return cls(address, *choose_arrays(address, infos, wanted), files)

    def reader(self, name: str, shape: tuple[int, ...], dtype: DType) -> NumpyRows:
        """Reader of one array."""
        place, layout = self.files[name]
        return NumpyRows(place, shape, dtype, layout)

    def chunks(self, rows: int) -> tuple[int, ...]:
        """Blocks of about 16 MiB; all rows at once where a member is packed."""
        _, layout = self.files[self.names[0]]
        if layout.member is None:
            return even_chunks(rows, rows_in(READ_BYTES, len(self.feature_names), layout.dtype))
        if layout.n_bytes > PIECE_BYTES:
            raise DataError(
                f"{self.address}: array {self.names[0]} unpacks to over {PIECE_BYTES >> 20} MiB "
                "in one piece; write it with numpy.savez",
                Remedy.CONVERT,
            )
        return (rows,)

    def blocks(self, n_rows: int) -> Iterator[Block]:
        """Rows in order; the members of an .npz are streamed, and their checksums tested."""
        members = [None if name is None else self.files[name] for name in self.names]
        if not self._is_archive or any(m is not None and m[1].fortran for m in members):
            yield from super().blocks(n_rows)
            return
        rows = self.about_rows
        with (
            reading(f"{self.address}: damaged"),
            open_binary(self.address) as file,
            zipfile.ZipFile(file) as archive,
            ExitStack() as stack,
        ):
            streams = []
            for name in self.names:
                if name is not None:
                    stream = stack.enter_context(archive.open(f"{name}.npy"))
                    layout = _header(stream, archive.getinfo(f"{name}.npy").file_size)
                    streams.append((stream, layout))
            for start in range(0, rows, n_rows):
                count = min(n_rows, rows - start)
                read = (_next_rows(stream, layout, count) for stream, layout in streams)
                X, y, weight = (None if name is None else next(read) for name in self.names)
                assert X is not None
                y = None if y is None else y.reshape(count, -1)
                yield Block(X, y, weight, (start + count) / rows)
            for stream, _ in streams:
                stream.read(1)  # as above

    def verify(self) -> None:
        """Test the checksums of an .npz, which reading in place passes by."""
        if self._is_archive:
            with reading(f"{self.address}: damaged"), open_binary(self.address) as file:
                if bad := zipfile.ZipFile(file).testzip():
                    raise DataError(f"{self.address}: damaged: the checksum of {bad} is wrong")

    def addresses(self) -> set[str]:
        """The .npz, or the .npy files."""
        return {place for place, _ in self.files.values()}


def npy_partner(address: str) -> str | None:
    """Give the address of the y file of an X file: its last X as y; None without one."""
    before, link, after = split_chain(address)
    folder, slash, name = link.rpartition("/")
    head, found, tail = name.rpartition("X")
    partner = f"{before}{folder}{slash}{head}y{tail}{after}"
    fs, path = files_at(partner)
    return partner if found and fs.exists(path) else None


def _header(file: Any, file_bytes: int) -> Layout:
    """Read the header of an array, and check that the file is as long as it says."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f".npy format version {version} is not known here")
    shape, fortran, dtype = readers[version](file)
    if min(shape, default=0) < 0:
        raise ValueError(f"an array cannot have the shape {shape}")
    layout = Layout(shape, dtype, fortran and len(shape) > 1, file.tell())
    if not dtype.hasobject and layout.offset + layout.n_bytes > file_bytes:
        raise ValueError(f"{file_bytes} of {layout.offset + layout.n_bytes} bytes are there")
    return layout


def _members(file: BinaryIO) -> Iterator[tuple[str, Layout]]:
    """Arrays of an .npz; those that are not packed can be read in place."""
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                layout = replace(_header(member, info.file_size), member=info.filename)
            if info.compress_type == zipfile.ZIP_STORED:
                file.seek(info.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))  # of the name and the extra field
                offset = info.header_offset + 30 + sum(lengths) + layout.offset
                layout = replace(layout, member=None, offset=offset)
            yield info.filename.removesuffix(".npy"), layout


def _rows(file: Any, layout: Layout, start: int, stop: int) -> Array:
    """Rows start to stop of an array in a file that can seek."""
    item = layout.dtype.itemsize
    if not layout.fortran:
        file.seek(layout.offset + start * item * math.prod(layout.shape[1:]))
        return _next_rows(file, layout, stop - start)
    n_rows, n_columns = layout.shape
    block = np.empty((stop - start, n_columns), layout.dtype)
    column = replace(layout, shape=(n_rows,))
    for j in range(n_columns):
        file.seek(layout.offset + (j * n_rows + start) * item)
        block[:, j] = _next_rows(file, column, stop - start)
    return block


def _next_rows(file: Any, layout: Layout, n_rows: int) -> Array:
    """Read the next rows of an array in C order."""
    block = np.empty((n_rows, *layout.shape[1:]), layout.dtype)
    rest = block.reshape(-1).view(np.uint8).data
    while rest:
        done = file.readinto(rest[:_PIECE_BYTES])
        if not done:
            raise ValueError("the file is cut short")
        rest = rest[done:]
    return block
