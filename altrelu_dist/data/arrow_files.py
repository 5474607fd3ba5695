"""Arrow files (Feather): record batches are the blocks, and only the columns asked for are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from altrelu_dist.data.source import (
    PIECE_BYTES,
    READ_BYTES,
    Block,
    Part,
    Wanted,
    even_chunks,
    merged_chunks,
    open_binary,
    reading,
    rows_in,
)
from altrelu_dist.data.tables import (
    TableRows,
    TableSource,
    choose_stored,
    index_of,
    schema_found,
)
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from altrelu_dist.data.columns import Found

_MAGIC = {b"FEA1": "an old Feather file (version 1)", b"\xff\xff\xff\xff": "an Arrow stream"}


@dataclass(frozen=True)
class ArrowRows(TableRows):
    """Some columns of an Arrow file."""

    batch_rows: tuple[int, ...]

    def tables(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Rows start to stop, batch by batch."""
        with open_binary(self.address) as file:
            ends = [*accumulate(self.batch_rows, initial=0)]
            numbers = [i for i in range(len(ends) - 1) if ends[i] < stop and ends[i + 1] > start]
            for i, table in _tables(self.address, file, names, numbers, self.batch_rows):
                low, high = max(start, ends[i]), min(stop, ends[i + 1])
                yield table.slice(low - ends[i], high - low)


@dataclass(frozen=True)
class ArrowSource(TableSource):
    """One Arrow file."""

    batch_rows: tuple[int, ...]

    @classmethod
    def open(cls, address: str, wanted: Wanted) -> ArrowSource:
        """Read the schema, and how many rows each batch has."""
        with reading(f"{address}: not an Arrow file, or cut short"), open_binary(address) as file:
            if old := _MAGIC.get(file.read(4)):
                raise DataError(
                    f"{address}: is {old}; write it as an Arrow file (Feather version 2) or Parquet"
                )
            file.seek(0)
            reader = _reader(file, None)
            found = schema_found(address, reader.schema)
            chosen = choose_stored(address, found, wanted, index_of(reader.schema))
            batch_rows = _batch_rows(address, file, reader, found)
        widest = max(batch_rows, default=0)
        source = cls(address, sum(batch_rows), *chosen, batch_rows)
        if 8 * widest * max(1, len(source.stored_names)) > PIECE_BYTES:
            raise DataError(
                f"{address}: a record batch of {widest} rows is over {PIECE_BYTES >> 20} MiB in "
                "one piece: write it with smaller ones (chunksize=65536), or as Parquet"
            )
        return source

    def parts(self) -> list[Part]:
        """One part: small batches are read together, and large ones in pieces."""
        fits = rows_in(READ_BYTES, len(self.feature_names), self.dtypes[0])
        # A piece is cut from its whole batch, so that pieces are worth it for memory only.
        pieces = [n for rows in self.batch_rows for n in even_chunks(rows, 4 * fits)]
        reader = partial(
            ArrowRows,
            self.address,
            codings=self.codings,
            partition=self.partition,
            batch_rows=self.batch_rows,
        )
        return [self.part(self.about_rows, merged_chunks(pieces, fits), reader)]

    def blocks(self, n_rows: int) -> Iterator[Block]:
        """Batches in order, in pieces where they are large."""
        done, numbers = 0, [*range(len(self.batch_rows))]
        with reading(f"{self.address}: cannot be read"), open_binary(self.address) as file:
            names = self.stored_names
            for _, table in _tables(self.address, file, names, numbers, self.batch_rows):
                for start in range(0, table.num_rows, n_rows):
                    piece = table.slice(start, n_rows)
                    done += piece.num_rows
                    yield self.block(piece, done / self.about_rows)

    def raw(self, names: Sequence[str]) -> Iterator[Any]:
        """Batches in order."""
        return self.scan(names)

    def scan(self, names: Sequence[str]) -> Iterator[Any]:
        """Batches in order."""
        numbers = [*range(len(self.batch_rows))]
        with reading(f"{self.address}: cannot be read"), open_binary(self.address) as file:
            for _, table in _tables(self.address, file, names, numbers, self.batch_rows):
                yield table


def _reader(file: Any, fields: Sequence[int] | None) -> Any:
    from pyarrow import ipc

    options = ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    return ipc.open_file(file, options=options)


def _batch(address: str, reader: Any, number: int) -> Any:
    """One batch, looked at for damage that would make Arrow read beyond its buffers."""
    import pyarrow as pa

    try:
        batch = reader.get_batch(number)
    except pa.ArrowMemoryError as error:  # it believes the sizes that a file claims
        raise DataError(f"{address}: damaged, or too large for the memory: {error}") from error
    batch.validate(full=True)
    return batch


def _batch_rows(
    address: str, file: Any, reader: Any, found: Mapping[str, Found]
) -> tuple[int, ...]:
    """Rows of each batch, for which one of its columns is read: one of numbers where there is."""
    numbers = [i for i, one in enumerate(found.values()) if one.kind == "number"]
    file.seek(0)
    one = _reader(file, numbers[:1] or [0])
    return tuple(_batch(address, one, i).num_rows for i in range(reader.num_record_batches))


def _tables(
    address: str, file: Any, names: Sequence[str], numbers: Sequence[int], rows: Sequence[int]
) -> Iterator[tuple[int, Any]]:
    """Some columns of some batches as tables, and the number of each batch."""
    import pyarrow as pa

    file.seek(0)
    schema = _reader(file, None).schema
    file.seek(0)
    reader = _reader(file, sorted(schema.get_field_index(name) for name in names))
    if reader.num_record_batches != len(rows):
        raise DataError(f"{address}: has changed since it was opened")
    for i in numbers:
        batch = _batch(address, reader, i)
        if batch.num_rows != rows[i]:
            raise DataError(f"{address}: has changed since it was opened")
        yield i, pa.Table.from_batches([batch])
