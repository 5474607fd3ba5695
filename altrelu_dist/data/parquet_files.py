"""Parquet: row groups are the blocks, and only the columns asked for are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.source import (
    READ_BYTES,
    Array,
    Block,
    Part,
    RowReader,
    Wanted,
    even_chunks,
    listed,
    merged_chunks,
    open_binary,
    reading,
    rows_in,
)
from altrelu_dist.data.tables import (
    TableSource,
    arrow_kind,
    arrow_matrix,
    choose_columns,
    index_of,
)
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BUFFER_BYTES = 1 << 18  # read ahead in a column, in place of all of its row group at once


@dataclass(frozen=True)
class ParquetRows(RowReader):
    """Some columns of a Parquet file."""

    columns: tuple[str, ...]

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop, batch by batch from the row groups that hold them."""
        rows = np.empty((stop - start, len(self.columns)), self.dtype)
        with (
            reading(f"{self.address}: rows {start} to {stop - 1} cannot be read"),
            open_binary(self.address) as file,
        ):
            parquet = _open(file)
            ends = [0, *accumulate(_group_rows(parquet))]
            if ends[-1] != self.shape[0]:
                raise DataError(f"{self.address}: has changed since it was opened")
            first = int(np.searchsorted(ends, start, side="right")) - 1
            groups = [*range(first, int(np.searchsorted(ends, stop, side="left")))]
            at = ends[first]
            fits = rows_in(READ_BYTES // 4, len(self.columns), self.dtype)
            for table in _tables(parquet, self.columns, groups, fits):
                low, high = max(start, at), min(stop, at + table.num_rows)
                if low < high:
                    part = table.slice(low - at, high - low)
                    rows[low - start : high - start] = arrow_matrix(part, self.columns, self.dtype)
                at += table.num_rows
                if at >= stop:
                    break
        return rows


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
        if len(set(schema.names)) < len(schema.names):
            doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
            raise DataError(f"{address}: two columns are named {listed(doubled)}")
        kinds = {field.name: arrow_kind(field.type) for field in schema}
        columns = choose_columns(address, kinds, wanted, index_of(schema))
        return cls(address, sum(group_rows), *columns, group_rows)

    def parts(self) -> list[Part]:
        """One part: small row groups are read together, and very large ones in pieces."""
        fits = rows_in(READ_BYTES, len(self.feature_names), self.dtypes[0])
        # A piece is read from the start of its group, so that pieces are worth it for memory only.
        pieces = [n for rows in self.group_rows for n in even_chunks(rows, 4 * fits)]
        reader = partial(ParquetRows, self.address)
        return [self.part(self.about_rows, merged_chunks(pieces, fits), reader)]

    def blocks(self, n_rows: int) -> Iterator[Block]:
        """Batches in order; a row group is never decoded as a whole."""
        done, names = 0, [name for group in self.groups for name in group]
        with reading(f"{self.address}: cannot be read"), open_binary(self.address) as file:
            parquet = _open(file)
            for table in _tables(parquet, names, [*range(len(self.group_rows))], n_rows):
                done += table.num_rows
                yield self.block(table, done / self.about_rows)


def _tables(parquet: Any, columns: Sequence[str], groups: list[int], n_rows: int) -> Iterator[Any]:
    """Arrow tables of at most `n_rows` rows, in order."""
    import pyarrow as pa

    for batch in parquet.iter_batches(n_rows, groups, [*columns], use_threads=False):
        yield pa.Table.from_batches([batch])


def _open(file: Any) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(
        file, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
    )


def _group_rows(parquet: Any) -> tuple[int, ...]:
    metadata = parquet.metadata
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
