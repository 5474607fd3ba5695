"""What the columns of opened sources are: one kind in all of them, and the levels of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from altrelu_dist.data.columns import LevelCounts, learnt
from altrelu_dist.data.source import reading
from altrelu_dist.data.tables import TableSource, constant, stored
from altrelu_dist.encoding.raw import RawColumn
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from altrelu_dist.data.source import Source

__all__ = ["count_levels", "learn_columns"]


def learn_columns(
    sources: Sequence[Source],
    categorical: Sequence[str],
    what: str,
    target: LevelCounts | None = None,
) -> tuple[dict[str, RawColumn], tuple[str, ...]] | None:
    """Columns of tables that are not all numbers, from one pass over those of text.

    Parameters
    ----------
    sources : sequence of Source
        With the same features.
    categorical : sequence of str
        Columns that are no ids, however many levels they have.
    what : str
        The address in messages.
    target : LevelCounts, optional
        Gets the levels of a target that is classes, in the same pass.

    Returns
    -------
    (dict of RawColumn, tuple of str), or None
        What each feature is, in their order, and the features that are ids and not among them;
        None where all are numbers.

    Raises
    ------
    DataError
        If a column is of several kinds, or a categorical one has too many levels.
    """
    tables = [source for source in sources if isinstance(source, TableSource)]
    if target is None and not any(table.codings for table in tables):
        return None
    columns = {name: _agreed(tables, name) for name in tables[0].feature_names}
    names = [name for name, column in columns.items() if column.kind == "levels"]
    counts = {name: LevelCounts() for name in names}
    every = dict(counts)
    if target is not None:
        every[tables[0].target_names[0]] = target
    for table in tables:
        count_levels(table.with_columns(columns), every)
    levels, ids = learnt(counts, categorical, what)
    if ids and len(ids) == len(columns):
        raise DataError(f"{what}: no feature columns left: all are texts that name their rows")
    return {name: levels.get(name, columns[name]) for name in columns if name not in ids}, ids


def _agreed(tables: Sequence[TableSource], name: str) -> RawColumn:
    """What a column is in all tables: of levels where it is text in one of them."""
    places: dict[str, str] = {}
    for table in tables:
        found, coding = table.found[name], table.codings.get(name)
        if not found.empty:
            kind = "number" if coding is None else coding.column.kind
            places.setdefault(kind, table.address)
    if len(places) > 1 and "levels" not in places:
        raise DataError(
            f"{places['time']}: column {name} holds times, in {places['number']} numbers; expected "
            "the same in all"
        )
    kind = "levels" if "levels" in places else "time" if "time" in places else "number"
    return RawColumn(kind)


def count_levels(table: TableSource, counts: Mapping[str, LevelCounts]) -> None:
    """Count the levels of some columns, in one pass over them."""
    numeric = {name: table.codings[name].numeric for name in counts}
    names = stored([*counts], table.partition)
    rows = 0
    with reading(f"{table.address}: cannot be read"):
        for some in table.scan(names) if names else ():
            rows += some.num_rows
            for name in names:
                counts[name].add(some.column(name), numeric=numeric[name])
    if len(names) < len(counts) and not names:
        rows = sum(part.X.shape[0] for part in table.parts())
    for name, counted in counts.items():
        if name in table.partition:
            one = LevelCounts()
            one.add(constant(table.partition[name]))
            counted.merge(one.times(rows))
