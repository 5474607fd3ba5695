"""JSON, one object a line, plain or compressed: cut into blocks at line ends like CSV."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.columns import Found
from altrelu_dist.data.csv_files import SAMPLE_BYTES
from altrelu_dist.data.lines import Layout, LineSource, line_blocks, unpacked
from altrelu_dist.data.source import Wanted, one_line, open_binary, reading
from altrelu_dist.data.tables import choose_stored, schema_found
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from altrelu_dist.encoding.raw import Kind

_TIME = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?Z?)?$"
_CHANGED = re.compile(r"Column\(/(.*)\) changed from \w+ to (\w+) in row (\d+)")


def open_json(address: str, wanted: Wanted) -> LineSource:
    """Infer the columns and their types from the first rows."""
    with (
        reading(f"{address}: cannot be read as JSON, one object a line"),
        open_binary(address) as raw,
        unpacked(address, raw) as file,
    ):
        _, sample = next(line_blocks(file, SAMPLE_BYTES), (0, b""))
        read_bytes, file_bytes = raw.tell(), raw.seek(0, io.SEEK_END)
        if not sample:
            raise DataError(f"{address}: has no rows")
        table = JsonLayout(address, (), {}).parse(sample, 0, None)
        rows = table.num_rows * file_bytes // read_bytes
    found = {
        name: _found_in(table.column(name), one)
        for name, one in schema_found(address, table.schema).items()
    }
    layout = JsonLayout(address, tuple(table.schema.names), found)
    return LineSource(address, rows, *choose_stored(address, found, wanted), layout, 0, file_bytes)


def _found_in(column: Any, found: Found) -> Found:
    """Texts that all write times are times: Arrow knows only those of whole seconds as such."""
    import pyarrow.compute as pc

    if found.kind == "levels" and pc.all(pc.match_substring_regex(column, _TIME)).as_py():
        found = Found("time", np.dtype(np.float64), "times")
    return found._replace(as_text=found.kind == "time")


@dataclass(frozen=True)
class JsonLayout(Layout):
    """Of a file of JSON objects; a key that an object lacks is a missing value."""

    found: Mapping[str, Found]

    def table(self, data: bytes, first_row: int, kinds: Mapping[str, Kind]) -> Any:
        """Parse some columns, each as its kind."""
        import pyarrow as pa

        types = {}
        for name, kind in kinds.items():
            found = self.found[name]
            if kind == "time" or (kind == "levels" and (found.kind != "number" or found.empty)):
                types[name] = pa.string()
            else:
                types[name] = pa.bool_() if found.dtype == bool else pa.float64()
        return self.parse(data, first_row, pa.schema(types))

    def raw(self, data: bytes, first_row: int, names: Sequence[str]) -> Any:
        """Parse some columns: numbers as such, all else as texts."""
        import pyarrow as pa

        types = {}
        for name in names:
            found = self.found[name]
            if found.kind is None:
                raise DataError(
                    f"{self.address}: column {name} holds {found.words}; expected texts, numbers "
                    "or times"
                )
            number = found.kind == "number" and not found.empty
            types[name] = pa.type_for_alias(found.words) if number else pa.string()
        return self.parse(data, first_row, pa.schema(types))

    def count(self, data: bytes, first_row: int) -> int:
        """Count the objects."""
        import pyarrow as pa

        return int(self.parse(data, first_row, pa.schema({})).num_rows)

    def parse(self, data: bytes, first_row: int, schema: Any) -> Any:
        """Parse the columns of a schema; None: all columns, with the types that they seem to be."""
        import pyarrow as pa
        import pyarrow.json as pj

        read = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
        others = "infer" if schema is None else "ignore"
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others)
        try:
            return pj.read_json(pa.BufferReader(data), read, options)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.address}: {self._explain(error, first_row)}") from error

    def _explain(self, error: Exception, first_row: int) -> str:
        if not (found := _CHANGED.search(str(error))):
            return f"after row {first_row}: {one_line(error)}"
        column, kind, row = found.groups()
        number = column in self.found and self.found[column].kind == "number"
        expected = "a number" if number else "as in the first rows"
        return f"column {column}, row {first_row + int(row)}: a {kind}, not {expected}"
