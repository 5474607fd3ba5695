"""Files of lines (CSV, JSON), plain or compressed: blocks of whole lines, each parsed by itself."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from altrelu_dist.data.source import (
    PIECE_BYTES,
    READ_BYTES,
    Block,
    Part,
    file_name,
    open_binary,
    reading,
)
from altrelu_dist.data.tables import TableRows, TableSource, kinds_of
from altrelu_dist.errors import DataError, Remedy
from altrelu_dist.links import split_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from altrelu_dist.encoding.raw import Kind

_ARCHIVES = ("zip://", "tar://", "libarchive://")


@dataclass(frozen=True)
class Layout(ABC):
    """How whole lines of a file, its header left out, are parsed."""

    address: str
    names: tuple[str, ...]

    @abstractmethod
    def table(self, data: bytes, first_row: int, kinds: Mapping[str, Kind]) -> Any:
        """Parse some columns to an Arrow table, each as its kind; `first_row` is for messages."""

    @abstractmethod
    def raw(self, data: bytes, first_row: int, names: Sequence[str]) -> Any:
        """Parse some columns to an Arrow table, as near to what is written as can be."""

    @abstractmethod
    def count(self, data: bytes, first_row: int) -> int:
        """Count the rows, by the parser that will read them."""


@dataclass(frozen=True)
class LineRows(TableRows):
    """Some columns of a run of lines."""

    layout: Layout
    first_row: int
    offset: int
    n_bytes: int

    def tables(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Rows start to stop; the whole run is parsed for them."""
        with (
            reading(f"{self.address}: cannot be read"),
            open_binary(self.address) as raw,
            unpacked(self.address, raw) as file,
        ):
            _skip(self.address, file, self.offset)
            data = file.read(self.n_bytes)
        table = self.layout.table(data, self.first_row, kinds_of(names, self.codings))
        if table.num_rows != self.shape[0]:
            raise DataError(f"{self.address}: has changed since it was opened")
        yield table.slice(start, stop - start)


@dataclass(frozen=True)
class LineSource(TableSource):
    """One file of lines."""

    layout: Layout
    header_bytes: int
    file_bytes: int

    def parts(self) -> list[Part]:
        """One part a block of lines; a compressed file cannot be cut and is one block."""
        parts: list[Part] = []
        whole, first_row = not _can_be_cut(self.address), 0
        with (
            reading(f"{self.address}: cannot be read"),
            open_binary(self.address) as raw,
            unpacked(self.address, raw) as file,
        ):
            _skip(self.address, file, self.header_bytes)
            for offset, data in line_blocks(file, PIECE_BYTES if whole else READ_BYTES):
                if whole and parts:
                    raise DataError(
                        f"{self.address}: unpacks to over {PIECE_BYTES >> 20} MiB, and what is "
                        "compressed cannot be read in parts",
                        Remedy.CONVERT,
                    )
                rows = self.layout.count(data, first_row)
                reader = partial(
                    LineRows,
                    self.address,
                    codings=self.codings,
                    partition=self.partition,
                    layout=self.layout,
                    first_row=first_row,
                    offset=self.header_bytes + offset,
                    n_bytes=len(data),
                )
                parts.append(self.part(rows, (rows,), reader))
                first_row += rows
        return parts

    def blocks(self, n_rows: int) -> Iterator[Block]:
        """Blocks of lines in order, each parsed once."""
        names = self.stored_names
        size = min(READ_BYTES, 8 * max(1, len(names)) * n_rows)
        for table, fraction in self._tables(names, size):
            yield self.block(table, fraction)

    def scan(self, names: Sequence[str]) -> Iterator[Any]:
        """Blocks of lines in order."""
        for table, _ in self._tables(names, READ_BYTES):
            yield table

    def raw(self, names: Sequence[str]) -> Iterator[Any]:
        """Blocks of lines in order."""
        for table, _ in self._tables(names, READ_BYTES, raw=True):
            yield table

    def _tables(
        self, names: Sequence[str], size: int, *, raw: bool = False
    ) -> Iterator[tuple[Any, float]]:
        """Blocks of lines of some bytes, and the share of the file read so far."""
        kinds, first_row = kinds_of(names, self.codings), 0
        layout = self.layout
        with (
            reading(f"{self.address}: cannot be read"),
            open_binary(self.address) as packed,
            unpacked(self.address, packed) as file,
        ):
            _skip(self.address, file, self.header_bytes)
            for _, data in line_blocks(file, size):
                table = (
                    layout.raw(data, first_row, names)
                    if raw
                    else layout.table(data, first_row, kinds)
                )
                first_row += table.num_rows
                yield table, packed.tell() / self.file_bytes


@contextmanager
def unpacked(address: str, raw: BinaryIO) -> Iterator[BinaryIO]:
    """The content of a file that may be compressed, as its name says."""
    unpack = next(
        (u for ending, u in UNPACKERS.items() if file_name(address).endswith(ending)), None
    )
    if unpack is None:
        yield raw
        return
    with unpack(raw) as file:
        yield file


def _unpack_zstd(raw: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"))


UNPACKERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": lambda raw: cast("BinaryIO", gzip.GzipFile(fileobj=raw, mode="rb")),
    ".bz2": lambda raw: cast("BinaryIO", bz2.BZ2File(raw)),
    ".xz": lambda raw: cast("BinaryIO", lzma.LZMAFile(raw)),  # noqa: SIM115 - `unpacked` closes
    ".zst": _unpack_zstd,
}


def _can_be_cut(address: str) -> bool:
    """Whether what lies far behind in a file can be read without what lies before it."""
    packed = file_name(address).endswith(tuple(UNPACKERS))
    return not packed and not split_chain(address)[1].startswith(_ARCHIVES)


def _skip(address: str, file: BinaryIO, n_bytes: int) -> None:
    """Go to a place from the start of a file."""
    if _can_be_cut(address):
        file.seek(n_bytes)
    else:
        file.read(n_bytes)


def line_blocks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about `size` bytes at a time, and where they start; blank blocks left out."""
    offset, rest = 0, b""
    while more := file.read(max(size, len(rest))):
        data = rest + more
        end = data.rfind(b"\n") + 1
        if not end and len(data) > PIECE_BYTES:
            raise ValueError(f"no line end in {len(data) >> 20} MiB: not a file of lines")
        lines, rest = data[:end], data[end:]
        if lines and not lines.isspace():
            yield offset, lines
        offset += end
    if rest and not rest.isspace():
        yield offset, rest
