"""Columns of tables as they are, in the order of their rows: what predictions are put beside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from altrelu_dist.data.finding import find_sources
from altrelu_dist.data.source import check_there, reading
from altrelu_dist.data.tables import TableSource, stored
from altrelu_dist.errors import DataError

__all__ = ["KeptColumns"]


class KeptColumns:
    """Some columns of tables, read from the first row to the last in bounded memory.

    Parameters
    ----------
    address : str or path
        As `open_dataset` takes it.
    names : sequence of str

    Raises
    ------
    DataError
        If a column is not there, or the data are arrays, which do not keep what a table held.
    """

    def __init__(self, address: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.address, self.names = os.fspath(address), [*dict.fromkeys(names)]
        self._tables: list[TableSource] = []
        for source in find_sources(address, features=()).sources:
            if not isinstance(source, TableSource):
                raise DataError(
                    f"{self.address}: holds arrays, whose columns cannot be kept; give the table "
                    "that they were made from"
                )
            check_there(source.address, self.names, source.found)
            self._tables.append(source)
        self._rest = self._blocks()
        self._waiting: list[Any] = []

    def next(self, rows: int) -> Any:
        """The next rows, as an Arrow table."""
        import pyarrow as pa

        there = sum(table.num_rows for table in self._waiting)
        while there < rows:
            table = next(self._rest, None)
            if table is None:
                raise DataError(f"{self.address}: has changed since it was opened")
            self._waiting.append(table)
            there += table.num_rows
        with reading(f"{self.address}: the columns to keep differ between its files"):
            whole = pa.concat_tables(self._waiting, promote_options="permissive")
        self._waiting = [whole.slice(rows)]
        return whole.slice(0, rows)

    def _blocks(self) -> Iterator[Any]:
        import pyarrow as pa

        for source in self._tables:
            names = stored(self.names, source.partition)
            rows = (part.X.shape[0] for part in source.parts())
            constants = (pa.table({"": pa.nulls(count)}) for count in rows)
            for table in source.raw(names) if names else constants:
                columns = {
                    name: pa.array([source.partition[name]] * table.num_rows)
                    if name in source.partition
                    else _plain(table.column(name))
                    for name in self.names
                }
                yield pa.table(columns)


def _plain(column: Any) -> Any:
    """A column without a dictionary, of which each block may have another."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
