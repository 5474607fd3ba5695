"""CSV and TSV, plain or compressed: cut into blocks at line ends, each block parsed by itself."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.columns import Found, found_of
from altrelu_dist.data.lines import Layout, LineSource, line_blocks, unpacked
from altrelu_dist.data.source import (
    Wanted,
    file_name,
    listed,
    one_line,
    open_binary,
    reading,
)
from altrelu_dist.data.tables import choose_stored
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from altrelu_dist.encoding.raw import Kind

SAMPLE_BYTES = 1 << 20  # what the column types are inferred from
_BAD_VALUE = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?.*(?:invalid value '(.*)'|zone offset in '(.*?)')"
)
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
        found, types = layout.inferred(sample)
        rows = layout.count(sample, 0) * file_bytes // read_bytes if sample else 0
    chosen = choose_stored(address, found, wanted)
    layout = replace(layout, types=types, free=frozenset(() if wanted.known else chosen[0]))
    return LineSource(address, rows, *chosen, layout, len(header), file_bytes)


@dataclass(frozen=True)
class CsvLayout(Layout):
    """Of a CSV file.

    `types` are the Arrow types of times and booleans in the first rows; `free` are the columns that
    may be read as text on demand.
    """

    delimiter: str
    types: Mapping[str, Any] = field(default_factory=dict)
    free: frozenset[str] = frozenset()

    def table(self, data: bytes, first_row: int, kinds: Mapping[str, Kind]) -> Any:
        """Parse some columns to an Arrow table, each as its kind; `first_row` is for messages."""
        import pyarrow as pa

        types = {
            "levels": pa.dictionary(pa.int32(), pa.string()),
            "time": pa.string(),
            "number": pa.float64(),
        }
        read_as = {
            name: types[kind] if kind == "levels" else self.types.get(name, types[kind])
            for name, kind in kinds.items()
        }
        return self._parse(data, first_row, [*kinds], read_as)

    def raw(self, data: bytes, first_row: int, names: Sequence[str]) -> Any:
        """Parse some columns as texts, as they are written; empty ones are missing."""
        import pyarrow as pa

        return self._parse(data, first_row, names, dict.fromkeys(names, pa.string()), ("",))

    def count(self, data: bytes, first_row: int) -> int:
        """Count the rows, by the parser that will read them."""
        import pyarrow as pa

        first = self.names[0]
        return int(self._parse(data, first_row, [first], {first: pa.binary()}).num_rows)

    def inferred(self, sample: bytes) -> tuple[dict[str, Found], dict[str, Any]]:
        """Guess from the first lines what each column holds, and of times and booleans the type."""
        if not sample:
            return dict.fromkeys(self.names, Found("number", np.dtype(float), "", True, True)), {}
        table = self._parse(sample, 0, self.names, None)
        found, types = {}, {}
        for column in table.schema:
            one = found_of(column.type)
            if one.kind == "levels":
                one = one._replace(words=_first_text(table.column(column.name).to_pylist()))
            elif one.kind == "time" or one.dtype == np.bool_:
                types[column.name] = _finest(column.type)
            found[column.name] = one._replace(as_text=True)
        return found, types

    def _parse(
        self,
        data: bytes,
        first_row: int,
        columns: Sequence[str],
        types: dict[str, Any] | None,
        missing: Sequence[str] | None = None,
    ) -> Any:
        import pyarrow as pa
        import pyarrow.csv as pc

        convert = pc.ConvertOptions(include_columns=columns, column_types=types)
        convert.null_values = missing or _missing_values(convert.null_values)
        convert.strings_can_be_null = types is not None
        read = pc.ReadOptions(use_threads=False, column_names=self.names, block_size=len(data) + 1)
        parse = pc.ParseOptions(delimiter=self.delimiter)
        try:
            return pc.read_csv(pa.BufferReader(data), read, parse, convert)
        except pa.ArrowInvalid as error:
            raise self._explained(error, first_row) from error

    def _explained(self, error: Exception, first_row: int) -> DataError:
        if not (found := _BAD_VALUE.search(str(error))):
            return DataError(f"{self.address}: after row {first_row}: {one_line(error)}")
        column, row, value, zone = found.groups()
        name = self.names[int(column)]
        where = f"row {first_row + int(row) - 1}" if row else f"after row {first_row}"
        expected = "a number"
        if found_of(self.types.get(name, _no_type())).kind == "time":
            expected = f"a time as in the first rows ({self.types[name]})"
        return DataError(
            f"{self.address}: column {name}, {where}: '{value or zone}' is not {expected}",
            *((Remedy.CATEGORICAL,) if name in self.free else ()),
        )


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


def _finest(kind: Any) -> Any:
    """A type of times for those of further rows too, which may have fractions of a second."""
    import pyarrow as pa

    if pa.types.is_time(kind):
        return pa.time64("ns")
    if pa.types.is_date(kind):
        return pa.timestamp("us")
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", kind.tz)
    return kind


def _no_type() -> Any:
    import pyarrow as pa

    return pa.null()


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in str(text)  # Python's own, of no file
