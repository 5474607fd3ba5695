"""Tables with named columns (Parquet, CSV, ...): which column is what, Arrow columns as numbers."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from altrelu_dist.data.columns import Coding, Found, coded, fitting, found_of, number_text
from altrelu_dist.data.source import (
    Array,
    Block,
    DType,
    Part,
    RowReader,
    Source,
    Wanted,
    check_there,
    float_dtype,
    listed,
    reading,
)
from altrelu_dist.encoding.raw import Kind, RawColumn, RawColumns, all_numbers
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

SCAN_ROWS = 1 << 16  # that are looked at together where levels are counted

# Names under which pandas and Dask write an index that has none, and read one back.
_INDEX_COLUMN = re.compile(r"|__index_level_\d+__|__null_dask_index__|Unnamed: 0(\.\d+)*")


Stored = tuple[  # the last fields of a `TableSource`
    tuple[str, ...],
    tuple[str, ...],
    tuple[DType, DType | None, DType | None],
    str | None,
    tuple[str, ...],
    Mapping[str, Coding],
    Mapping[str, float | str],
    Mapping[str, Found],
]


class Columns(NamedTuple):
    """The columns of a table by their use, the dtypes they are read in, and those not used.

    `codings` are of the features that are no plain numbers.
    """

    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    dtypes: tuple[DType, DType | None, DType | None]
    weight_name: str | None
    left_out: tuple[str, ...]
    codings: Mapping[str, Coding]


@dataclass(frozen=True)
class TableRows(RowReader):
    """Some columns of a table; those in `partition` have one value, which is not in the file."""

    columns: tuple[str, ...]
    codings: Mapping[str, Coding]
    partition: Mapping[str, float | str]

    @abstractmethod
    def tables(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Columns of rows start to stop as Arrow tables, in order."""

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop as a matrix of numbers, missing values as NaN."""
        rows = np.empty((stop - start, len(self.columns)), self.dtype)
        _fill(rows, None, self.columns, self.codings, self.partition, self.address)
        names = stored(self.columns, self.partition)
        at = 0
        with reading(f"{self.address}: rows {start} to {stop - 1} cannot be read"):
            for table in self.tables(start, stop, names) if names else ():
                some = rows[at : at + table.num_rows]
                _fill(some, table, self.columns, self.codings, self.partition, self.address)
                at += table.num_rows
        if names and at != len(rows):
            raise DataError(f"{self.address}: has changed since it was opened")
        return rows


@dataclass(frozen=True)
class TableSource(Source):
    """A source whose features, targets and weight are named columns of one table."""

    weight_name: str | None
    left_out: tuple[str, ...]
    codings: Mapping[str, Coding]
    partition: Mapping[str, float | str]
    found: Mapping[str, Found]

    @property
    def unread(self) -> tuple[str, ...]:
        """Indexes, and what the caller did not ask for."""
        return self.left_out

    @property
    def columns(self) -> RawColumns | None:
        """What the features are; None where all are numbers."""
        plain = Coding(RawColumn())
        columns = tuple(self.codings.get(name, plain).column for name in self.feature_names)
        return None if all_numbers(columns) else columns

    @property
    def class_coding(self) -> Coding | None:
        """How the target is read, where it is classes."""
        return self.codings.get(self.target_names[0]) if len(self.target_names) == 1 else None

    def with_columns(self, columns: Mapping[str, RawColumn]) -> Self:
        """The same, with these columns as features, read as what they are."""
        names = tuple(columns)
        codings = {
            name: coding_of(self.address, name, self.found[name], column)
            for name, column in columns.items()
        }
        dtype = _float_of(self.found, names, codings)
        codings = {name: one for name, one in codings.items() if one.column.kind != "number"}
        if (target := self.class_coding) is not None:
            codings[self.target_names[0]] = target
        return replace(self, feature_names=names, dtypes=(dtype, *self.dtypes[1:]), codings=codings)

    def with_target(self, column: RawColumn, *, numeric: bool) -> Self:
        """The same, with these levels as classes of the target, `numeric` if numbers are meant."""
        (name,) = self.target_names
        coding = coding_of(self.address, name, self.found[name], column)
        codings = {**self.codings, name: coding._replace(numeric=coding.numeric or numeric)}
        of_X, _, of_weight = self.dtypes
        dtypes = (of_X, _float_of(self.found, self.target_names, codings), of_weight)
        return replace(self, dtypes=dtypes, codings=codings)

    @abstractmethod
    def raw(self, names: Sequence[str]) -> Iterator[Any]:
        """Some columns of the file as they are, of all rows, as Arrow tables."""

    @abstractmethod
    def scan(self, names: Sequence[str]) -> Iterator[Any]:
        """Some columns of the file, of all rows, as Arrow tables, of no more rows than needed."""

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the columns of X, of y and of the weight."""
        weights = () if self.weight_name is None else (self.weight_name,)
        return self.feature_names, self.target_names, weights

    @property
    def stored_names(self) -> list[str]:
        """Names of all columns that are read from the file."""
        return stored([name for group in self.groups for name in group], self.partition)

    def block(self, table: Any, fraction: float) -> Block:
        """Rows of an Arrow table as matrices."""

        def matrix(names: Sequence[str], dtype: DType | None) -> Array | None:
            if dtype is None:
                return None
            rows = np.empty((table.num_rows, len(names)), dtype)
            _fill(rows, table, names, self.codings, self.partition, self.address)
            return rows

        X, y, weight = map(matrix, self.groups, self.dtypes)
        assert X is not None
        return Block(X, y, None if weight is None else weight[:, 0], fraction)

    def part(
        self,
        rows: int,
        chunks: tuple[int, ...],
        reader: Callable[[tuple[int, ...], DType, tuple[str, ...]], RowReader],
    ) -> Part:
        """Readers of X, y and the weight, each made by `reader(shape, dtype, column names)`."""
        features, targets, weights = self.groups
        of_X, of_y, of_weight = self.dtypes
        return Part(
            reader((rows, len(features)), of_X, features),
            None if of_y is None else reader((rows, len(targets)), of_y, targets),
            None if of_weight is None else reader((rows,), of_weight, weights),
            chunks,
        )


def choose_columns(
    address: str,
    found: Mapping[str, Found],
    wanted: Wanted,
    index: Collection[str] = (),
) -> Columns:
    """Sort columns into features, targets and weight; those of text have levels to be learnt yet.

    The columns of an `index`, and those that by their name are one, are features only if the
    caller names them. What a column that is not used holds does not matter.

    Raises
    ------
    DataError
        A named column is missing, there is no target or no feature, or a column cannot be that.
    """
    targets, weight, features = wanted.targets, wanted.weight, wanted.features
    if wanted.require_target and not targets:
        raise DataError(
            f"{address}: no target column is named; columns: {listed([*found])}", Remedy.TARGET
        )
    weights = () if weight is None else (weight,)
    used = (*targets, *weights)
    if features is None:
        features = tuple(
            name
            for name in found
            if name not in used
            and name not in wanted.drop
            and (
                name in wanted.only
                if wanted.only is not None
                else name not in index and not _INDEX_COLUMN.fullmatch(name)
            )
        )
    check_there(address, (*features, *used, *wanted.drop, *(wanted.only or ())), found)
    kinds = {"number", "time"} | ({"levels"} if wanted.text_allowed else set())
    codings = {}
    for role, names in (("feature", features), ("target", targets), ("weight", weights)):
        fits = {
            name: found[name].kind in kinds if role == "feature" else found[name].is_plain
            for name in names
        }
        if role == "target" and _is_classes(found, names, wanted.classes):
            (name,) = names
            codings[name] = coding_of(address, name, found[name], RawColumn("levels"))
            fits[name] = True
        if bad := [name for name, fit in fits.items() if not fit]:
            free = role == "feature" and wanted.features is None
            text = all(found[name].kind == "levels" for name in bad)
            remedies = (Remedy.ENCODE,) if text else (Remedy.DROP_COLUMNS,)
            if role == "target" and text:
                free, remedies = True, (Remedy.ONE_TARGET if names[1:] else Remedy.CLASSES,)
            raise not_numeric(address, role, bad, found, *(remedies if free else ()))
        for name in names if role == "feature" else ():
            kind = found[name].kind
            levels = kind == "levels" or name in wanted.categorical
            column = RawColumn("levels" if levels else kind or "number")
            if column.kind != "number":
                codings[name] = coding_of(address, name, found[name], column)
    if not features and wanted.features is None:
        raise DataError(f"{address}: no feature columns left; columns: {listed([*found])}")
    dtypes = (
        _float_of(found, features, codings),
        _float_of(found, targets, codings) if targets else None,
        _float_of(found, weights) if weights else None,
    )
    asked = {*features, *used, *wanted.drop}
    left_out = tuple(name for name in found if name not in asked and wanted.only is None)
    return Columns(features, targets, dtypes, weight, left_out, codings)


def _is_classes(found: Mapping[str, Found], targets: Sequence[str], asked: bool | None) -> bool:
    """Whether the target is classes: text and booleans, where nothing else is said."""
    if len(targets) != 1 or asked is False:
        return False
    kind = found[targets[0]].kind
    return kind == "levels" or (
        kind == "number" and (bool(asked) or found[targets[0]].dtype == np.bool_)
    )


def not_numeric(
    address: str, role: str, names: Sequence[str], found: Mapping[str, Found], *remedies: Remedy
) -> DataError:
    """The error for columns of something else than numbers."""
    bad = [f"{name} ({found[name].words})" for name in names]
    what = f"{role} column{'s' if len(bad) > 1 else ''} {listed(bad)} not numeric"
    return DataError(f"{address}: {what}", *remedies)


def coding_of(address: str, name: str, found: Found, column: RawColumn) -> Coding:
    """How a feature is read as what it is known to be.

    Raises
    ------
    DataError
        If it holds something else.
    """
    number = found.kind == "number"
    if column.kind == "levels" and found.kind is not None and (number or found.as_text):
        levels = column.levels
        typed = number and not found.empty
        other = typed and levels and all(number_text(level) is None for level in levels)
        return Coding(column, numeric=number, other=bool(other))
    if found.kind == column.kind or found.empty:
        return Coding(column)
    if column.kind == "time" and found.kind == "levels":
        return Coding(column)
    if column.kind == "number":
        raise not_numeric(address, "feature", [name], {name: found})
    expected = "texts" if column.kind == "levels" else "times"
    raise DataError(f"{address}: column {name} holds {found.plain_words}; expected {expected}")


def index_of(schema: Any) -> tuple[str, ...]:
    """Columns of an Arrow schema that pandas or Dask wrote as the index of a frame."""
    try:
        columns = schema.pandas_metadata["index_columns"]
        return tuple(name for name in columns if isinstance(name, str))
    except (KeyError, TypeError, ValueError):  # there are none, or another writer's
        return ()


def choose_stored(
    address: str,
    found: Mapping[str, Found],
    wanted: Wanted,
    index: Collection[str] = (),
) -> Stored:
    """As `choose_columns`, of the columns of a file and those its folders are named for."""
    number = np.dtype(np.float64)
    of_folders = {
        name: Found("levels", number, f"text: {value!r}")
        if isinstance(value, str)
        else Found("number", number, "number", empty=math.isnan(value))
        for name, value in wanted.partition
    }
    # A folder's value comes first where the file has such a column too, as in Arrow.
    both = {name: one for name, one in found.items() if name not in of_folders} | of_folders
    return (*choose_columns(address, both, wanted, index), dict(wanted.partition), both)


def schema_found(address: str, schema: Any) -> dict[str, Found]:
    """Of the columns of an Arrow schema, as `found_of`."""
    with reading(f"{address}: damaged: its column names"):
        names = schema.names
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{address}: two columns are named {listed(doubled)}")
    return {field.name: _field_found(field) for field in schema}


def stored(names: Sequence[str], partition: Mapping[str, float | str]) -> list[str]:
    """Those columns that are in the file."""
    return [name for name in names if name not in partition]


def kinds_of(names: Sequence[str], codings: Mapping[str, Coding]) -> dict[str, Kind]:
    """Of some columns."""
    return {name: codings[name].column.kind if name in codings else "number" for name in names}


def texts_in(names: Sequence[str], codings: Mapping[str, Coding]) -> list[str]:
    """Those columns that have levels."""
    return [name for name, kind in kinds_of(names, codings).items() if kind == "levels"]


def constant(value: float | str) -> Any:
    """The value that a folder is named for, as an Arrow column of one row."""
    import pyarrow as pa

    return pa.chunked_array([pa.array([value])])


def _field_found(field: Any) -> Found:
    """An extension type that this process has not registered looks like its bare storage."""
    extension = (field.metadata or {}).get(b"ARROW:extension:name")
    if extension:
        return Found(None, np.dtype(np.float64), extension.decode(errors="replace"))
    return found_of(field.type)


def _fill(
    rows: Array,
    table: Any,
    names: Sequence[str],
    codings: Mapping[str, Coding],
    partition: Mapping[str, float | str],
    address: str,
) -> None:
    """Write the columns of an Arrow table, where there is one, and the constants into a matrix."""
    plain = Coding(RawColumn())
    for j, name in enumerate(names):
        coding = codings.get(name, plain)
        column = constant(partition[name]) if name in partition else None
        if column is None and table is not None:
            column = table.column(name)
        if column is not None:
            with fitting(address, name):
                rows[:, j] = coded(column, coding, rows.dtype)


def _float_of(
    found: Mapping[str, Found], names: Sequence[str], codings: Mapping[str, Coding] | None = None
) -> DType:
    """The dtype of a matrix of some columns: of the numbers and codes that they become."""
    narrow, wide = np.dtype(np.float32), np.dtype(np.float64)
    kinds = kinds_of(names, codings or {})
    of_kind: dict[str, DType] = {"levels": narrow, "time": wide}
    return float_dtype([of_kind.get(kinds[name], found[name].dtype) for name in names])
