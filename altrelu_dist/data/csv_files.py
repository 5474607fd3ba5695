"""CSV, plain or gzipped: cut into blocks at line ends, each block parsed by itself."""

from __future__ import annotations

import csv
import gzip
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from altrelu_dist.data.source import (
    PIECE_BYTES,
    READ_BYTES,
    Array,
    Block,
    DType,
    Part,
    RowReader,
    Wanted,
    listed,
    one_line,
    open_binary,
    reading,
)
from altrelu_dist.data.tables import TableSource, arrow_kind, arrow_matrix, choose_columns
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SAMPLE_BYTES = 1 << 20  # what the column types are inferred from
_BAD_VALUE = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid value '(.*)'")


@dataclass(frozen=True)
class CsvLayout:
    """How whole lines of a file, its header left out, are parsed."""

    address: str
    names: tuple[str, ...]
    delimiter: str
    booleans: frozenset[str] = frozenset()

    def numbers(self, data: bytes, first_row: int, columns: Sequence[str]) -> Any:
        """Parse some columns to an Arrow table of numbers; `first_row` is for messages."""
        import pyarrow as pa

        types = {name: pa.bool_() if name in self.booleans else pa.float64() for name in columns}
        return self._parse(data, first_row, columns, types)

    def count(self, data: bytes, first_row: int) -> int:
        """Count the rows, by the parser that will read them."""
        import pyarrow as pa

        first = self.names[0]
        return int(self._parse(data, first_row, [first], {first: pa.binary()}).num_rows)

    def kinds(self, sample: bytes) -> dict[str, DType | str]:
        """Guess from the first lines what each column holds."""
        if not sample:
            return dict.fromkeys(self.names, np.dtype(np.float64))
        table = self._parse(sample, 0, self.names, None)
        kinds = {field.name: arrow_kind(field.type) for field in table.schema}
        for name, kind in kinds.items():
            if kind == "text":
                values = table.column(name).to_pylist()
                odd = next((v for v in values if v and not _is_number(v)), values[0])
                kinds[name] = f"text: {odd!r}"
        return kinds

    def _parse(
        self, data: bytes, first_row: int, columns: Sequence[str], types: dict[str, Any] | None
    ) -> Any:
        import pyarrow as pa
        import pyarrow.csv as pc

        convert = pc.ConvertOptions(include_columns=columns, column_types=types)
        convert.null_values = [*convert.null_values, "?"]
        read = pc.ReadOptions(use_threads=False, column_names=self.names, block_size=len(data) + 1)
        parse = pc.ParseOptions(delimiter=self.delimiter)
        try:
            return pc.read_csv(pa.BufferReader(data), read, parse, convert)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.address}: {self._explain(error, first_row)}") from error

    def _explain(self, error: Exception, first_row: int) -> str:
        if not (found := _BAD_VALUE.search(str(error))):
            return f"after row {first_row}: {one_line(error)}"
        column, row, value = found.groups()
        where = f"row {first_row + int(row) - 1}" if row else f"after row {first_row}"
        return f"column {self.names[int(column)]}, {where}: '{value}' is not a number"


@dataclass(frozen=True)
class CsvRows(RowReader):
    """Some columns of a run of lines of a CSV file."""

    columns: tuple[str, ...]
    layout: CsvLayout
    first_row: int
    offset: int
    n_bytes: int

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop; the whole run is parsed for them."""
        with (
            reading(f"{self.address}: cannot be read"),
            open_binary(self.address) as raw,
            _unzipped(self.address, raw) as file,
        ):
            file.seek(self.offset)
            data = file.read(self.n_bytes)
        table = self.layout.numbers(data, self.first_row, self.columns)
        if table.num_rows != self.shape[0]:
            raise DataError(f"{self.address}: has changed since it was opened")
        return arrow_matrix(table.slice(start, stop - start), self.columns, self.dtype)


@dataclass(frozen=True)
class CsvSource(TableSource):
    """One CSV file."""

    layout: CsvLayout
    header_bytes: int
    file_bytes: int

    @classmethod
    def open(cls, address: str, wanted: Wanted) -> CsvSource:
        """Read the header, and infer the types from the first rows."""
        with (
            reading(f"{address}: cannot be read as CSV"),
            open_binary(address) as raw,
            _unzipped(address, raw) as file,
        ):
            header = file.readline(_SAMPLE_BYTES)
            layout = _layout(address, header)
            _, sample = next(_line_blocks(file, _SAMPLE_BYTES), (0, b""))
            read_bytes, file_bytes = raw.tell(), raw.seek(0, io.SEEK_END)
            kinds = layout.kinds(sample)
            rows = layout.count(sample, 0) * file_bytes // read_bytes if sample else 0
        columns = choose_columns(address, kinds, wanted)
        booleans = frozenset(name for name in kinds if kinds[name] == np.bool_)
        layout = CsvLayout(address, layout.names, layout.delimiter, booleans)
        return cls(address, rows, *columns, layout, len(header), file_bytes)

    def parts(self) -> list[Part]:
        """One part a block of lines; a gzipped file cannot be cut and is one block."""
        parts: list[Part] = []
        zipped, first_row = _zipped(self.address), 0
        with (
            reading(f"{self.address}: cannot be read"),
            open_binary(self.address) as raw,
            _unzipped(self.address, raw) as file,
        ):
            file.seek(self.header_bytes)
            for offset, data in _line_blocks(file, PIECE_BYTES if zipped else READ_BYTES):
                if zipped and parts:
                    raise DataError(
                        f"{self.address}: unpacks to over {PIECE_BYTES >> 20} MiB, and gzip cannot "
                        "be read in parts",
                        Remedy.CONVERT,
                    )
                rows = self.layout.count(data, first_row)
                reader = partial(
                    CsvRows,
                    self.address,
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
        names = [name for group in self.groups for name in group]
        size = min(READ_BYTES, 8 * len(names) * n_rows)
        first_row = 0
        with (
            reading(f"{self.address}: cannot be read"),
            open_binary(self.address) as raw,
            _unzipped(self.address, raw) as file,
        ):
            file.seek(self.header_bytes)
            for _, data in _line_blocks(file, size):
                table = self.layout.numbers(data, first_row, names)
                first_row += table.num_rows
                yield self.block(table, raw.tell() / self.file_bytes)


def _zipped(address: str) -> bool:
    return address.lower().endswith(".gz")


@contextmanager
def _unzipped(address: str, raw: BinaryIO) -> Iterator[BinaryIO]:
    if not _zipped(address):
        yield raw
        return
    with gzip.GzipFile(fileobj=raw, mode="rb") as file:
        yield cast("BinaryIO", file)


def _layout(address: str, header: bytes) -> CsvLayout:
    """Names and delimiter from the first line."""
    line = header.decode("utf-8-sig").strip("\r\n")
    if not line.strip() or "\0" in line:
        raise DataError(f"{address}: not a CSV file: no column names in the first line")
    delimiter = max(",;\t", key=line.count)
    names = tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))
    counted = names == tuple(map(str, range(len(names))))  # pandas' names for columns without any
    if not counted and all(_is_number(name) for name in names):
        raise DataError(f"{address}: the first line holds numbers; put the column names there")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{address}: two columns are named {listed(doubled)}")
    return CsvLayout(address, names, delimiter)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line_blocks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about `size` bytes at a time, and where they start; blank blocks left out."""
    offset, rest = 0, b""
    while more := file.read(max(size, len(rest))):
        data = rest + more
        end = data.rfind(b"\n") + 1
        if not end and len(data) > PIECE_BYTES:
            raise ValueError(f"no line end in {len(data) >> 20} MiB: not a CSV file")
        lines, rest = data[:end], data[end:]
        if lines and not lines.isspace():
            yield offset, lines
        offset += end
    if rest and not rest.isspace():
        yield offset, rest
