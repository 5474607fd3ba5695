"""CSV and TSV, plain or compressed: cut into blocks at line ends, each block parsed by itself."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.lines import Layout, LineSource, line_blocks, unpacked
from altrelu_dist.data.source import (
    DType,
    Wanted,
    file_name,
    listed,
    one_line,
    open_binary,
    reading,
)
from altrelu_dist.data.tables import arrow_kind, choose_stored
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SAMPLE_BYTES = 1 << 20  # what the column types are inferred from
_BAD_VALUE = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid value '(.*)'")
# Beside those that Arrow knows: of pandas, R, SAS, databases and people.
_MISSING = (
    "?", "-", "--", ".", "None", "none", "NONE", "NAN", "Nan", "Null", "NaT", "nat", "<NA>", "na",
    "N.A.", "n.a.", "\\N", "(null)",
)  # fmt: skip


def open_csv(address: str, wanted: Wanted) -> LineSource:
    """Read the header, and infer the types from the first rows."""
    with (
        reading(f"{address}: cannot be read as CSV"),
        open_binary(address) as raw,
        unpacked(address, raw) as file,
    ):
        header = file.readline(SAMPLE_BYTES)
        layout = _layout(address, header)
        _, sample = next(line_blocks(file, SAMPLE_BYTES), (0, b""))
        read_bytes, file_bytes = raw.tell(), raw.seek(0, io.SEEK_END)
        kinds = layout.kinds(sample)
        rows = layout.count(sample, 0) * file_bytes // read_bytes if sample else 0
    columns, partition = choose_stored(address, kinds, wanted)
    booleans = frozenset(name for name in kinds if kinds[name] == np.bool_)
    layout = CsvLayout(address, layout.names, layout.delimiter, booleans)
    return LineSource(address, rows, *columns, partition, layout, len(header), file_bytes)


@dataclass(frozen=True)
class CsvLayout(Layout):
    """Of a CSV file."""

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
                kinds[name] = _first_text(table.column(name).to_pylist())
        return kinds

    def _parse(
        self, data: bytes, first_row: int, columns: Sequence[str], types: dict[str, Any] | None
    ) -> Any:
        import pyarrow as pa
        import pyarrow.csv as pc

        convert = pc.ConvertOptions(include_columns=columns, column_types=types)
        convert.null_values = _missing_values(convert.null_values)
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


def _layout(address: str, header: bytes) -> CsvLayout:
    """Names and delimiter from the first line."""
    line = header.decode("utf-8-sig").strip("\r\n")
    if not line.strip() or "\0" in line:
        raise DataError(f"{address}: not a CSV file: no column names in the first line")
    delimiter = "\t" if ".tsv" in file_name(address) else max(",;\t", key=line.count)
    names = tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))
    counted = names == tuple(map(str, range(len(names))))  # pandas' names for columns without any
    if not counted and all(_is_number(name) for name in names):
        raise DataError(f"{address}: the first line holds numbers; put the column names there")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{address}: two columns are named {listed(doubled)}")
    return CsvLayout(address, names, delimiter)


def _missing_values(of_arrow: Iterable[str]) -> list[str]:
    """What stands for a missing value, alone or between blanks."""
    known = dict.fromkeys([*of_arrow, *_MISSING])
    return [
        f"{before}{text}{after}" for text in known for before in ("", " ") for after in ("", " ")
    ]


def _first_text(values: Sequence[str | bytes | None]) -> str:
    """Name the first value of a column that is neither a number nor a missing one."""
    import pyarrow.csv as pc

    missing = {*_missing_values(pc.ConvertOptions().null_values)}
    for row, value in enumerate(values):
        if value is not None and value not in missing and not _is_number(value):
            return f"text: {value!r} in row {row}"
    return "text"


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in str(text)  # Python's own, of no file
