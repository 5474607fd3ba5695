"""Parquet: row groups are the blocks, and only the columns asked for are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.source import (
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
    SCAN_ROWS,
    TableRows,
    TableSource,
    choose_stored,
    index_of,
    schema_found,
    texts_in,
)
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BUFFER_BYTES = 1 << 18  # read ahead in a column, in place of all of its row group at once


@dataclass(frozen=True)
class ParquetRows(TableRows):
    """Some columns of a Parquet file."""

    def tables(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Rows start to stop, batch by batch from the row groups that hold them."""
        with open_binary(self.address) as file:
            parquet = _open(file, texts_in(names, self.codings))
            ends = [0, *accumulate(_group_rows(parquet))]
            if ends[-1] != self.shape[0]:
                raise DataError(f"{self.address}: has changed since it was opened")
            first = int(np.searchsorted(ends, start, side="right")) - 1
            groups = [*range(first, int(np.searchsorted(ends, stop, side="left")))]
            at = ends[first]
            fits = rows_in(READ_BYTES // 4, len(names), self.dtype)
            for table in _tables(parquet, names, groups, fits):
                low, high = max(start, at), min(stop, at + table.num_rows)
                if low < high:
                    yield table.slice(low - at, high - low)
                at += table.num_rows
                if at >= stop:
                    break


@dataclass(frozen=True)
class ParquetSource(TableSource):
    """One Parquet file."""

    group_rows: tuple[int, ...]

    @classmethod
    def open(cls, address: str, wanted: Wanted) -> ParquetSource:
        """Read the schema and choose the columns."""
        with reading(f"{address}: not a Parquet file, or cut short"), open_binary(address) as file:
            parquet = _open(file)
            schema = parquet.schema_arrow
            group_rows = _group_rows(parquet)
        if min(group_rows, default=0) < 0:
            raise DataError(f"{address}: is damaged: a row group has {min(group_rows)} rows")
        found = schema_found(address, schema)
        chosen = choose_stored(address, found, wanted, index_of(schema))
        return cls(address, sum(group_rows), *chosen, group_rows)

    def parts(self) -> list[Part]:
        """One part: small row groups are read together, and very large ones in pieces."""
        fits = rows_in(READ_BYTES, len(self.feature_names), self.dtypes[0])
        # A piece is read from the start of its group, so that pieces are worth it for memory only.
        pieces = [n for rows in self.group_rows for n in even_chunks(rows, 4 * fits)]
        reader = partial(ParquetRows, self.address, codings=self.codings, partition=self.partition)
        return [self.part(self.about_rows, merged_chunks(pieces, fits), reader)]

    def blocks(self, n_rows: int) -> Iterator[Block]:
        """Batches in order; a row group is never decoded as a whole."""
        done = 0
        with reading(f"{self.address}: cannot be read"), open_binary(self.address) as file:
            names = self.stored_names
            parquet = _open(file, texts_in(names, self.codings))
            groups = [*range(len(self.group_rows))]
            for table in _tables(parquet, names, groups, n_rows):
                done += table.num_rows
                yield self.block(table, done / self.about_rows)

    def scan(self, names: Sequence[str]) -> Iterator[Any]:
        """Batches in order."""
        return self._batches(names, names)

    def raw(self, names: Sequence[str]) -> Iterator[Any]:
        """Batches in order, texts as such."""
        return self._batches(names, ())

    def _batches(self, names: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
        with reading(f"{self.address}: cannot be read"), open_binary(self.address) as file:
            groups = [*range(len(self.group_rows))]
            yield from _tables(_open(file, texts), names, groups, SCAN_ROWS)


def _tables(parquet: Any, columns: Sequence[str], groups: list[int], n_rows: int) -> Iterator[Any]:
    """Arrow tables of at most `n_rows` rows, in order."""
    import pyarrow as pa

    for batch in parquet.iter_batches(n_rows, groups, [*columns], use_threads=False):
        yield pa.Table.from_batches([batch])


def _open(file: Any, texts: Sequence[str] = ()) -> Any:
    """A file of which columns of texts are read as dictionaries, as they mostly are stored."""
    from pyarrow.parquet import ParquetFile

    return ParquetFile(
        file,
        read_dictionary=[*texts] or None,
        pre_buffer=False,
        buffer_size=_BUFFER_BYTES,
        page_checksum_verification=True,
    )


def _group_rows(parquet: Any) -> tuple[int, ...]:
    metadata = parquet.metadata
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
