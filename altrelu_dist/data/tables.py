"""Tables with named columns (Parquet, CSV, ...): which column is what, Arrow columns as numbers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

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
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

# Names under which pandas and Dask write an index that has none, and read one back.
_INDEX_COLUMN = re.compile(r"|__index_level_\d+__|__null_dask_index__|Unnamed: 0(\.\d+)*")


class Columns(NamedTuple):
    """The columns of a table by their use, the dtypes they are read in, and those not used."""

    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    dtypes: tuple[DType, DType | None, DType | None]
    weight_name: str | None
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class TableRows(RowReader):
    """Some columns of a table; those in `partition` have one value, which is not in the file."""

    columns: tuple[str, ...]
    partition: Mapping[str, float]

    @abstractmethod
    def tables(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Columns of rows start to stop as Arrow tables, in order."""

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop as a matrix of numbers, missing values as NaN."""
        rows = np.empty((stop - start, len(self.columns)), self.dtype)
        _fill(rows, None, self.columns, self.partition)
        names = stored(self.columns, self.partition)
        at = 0
        with reading(f"{self.address}: rows {start} to {stop - 1} cannot be read"):
            for table in self.tables(start, stop, names) if names else ():
                _fill(rows[at : at + table.num_rows], table, self.columns, self.partition)
                at += table.num_rows
        if names and at != len(rows):
            raise DataError(f"{self.address}: has changed since it was opened")
        return rows


@dataclass(frozen=True)
class TableSource(Source):
    """A source whose features, targets and weight are named columns of one table."""

    weight_name: str | None
    left_out: tuple[str, ...]
    partition: Mapping[str, float]

    @property
    def unread(self) -> tuple[str, ...]:
        """Indexes, and what the caller did not ask for."""
        return self.left_out

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
            _fill(rows, table, names, self.partition)
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
    kinds: Mapping[str, DType | str],
    wanted: Wanted,
    index: Collection[str] = (),
) -> Columns:
    """Sort columns into features, targets and weight; `kinds` are dtypes, or a word for the others.

    The columns of an `index`, and those that by their name are one, are features only if the
    caller names them. What a column that is not used holds does not matter.

    Raises
    ------
    DataError
        A named column is missing, there is no target or no feature, or a column is not numbers.
    """
    targets, weight, features = wanted.targets, wanted.weight, wanted.features
    if wanted.require_target and not targets:
        raise DataError(
            f"{address}: no target column is named; columns: {listed([*kinds])}", Remedy.TARGET
        )
    weights = () if weight is None else (weight,)
    used = (*targets, *weights)
    if features is None:
        features = tuple(
            name
            for name in kinds
            if name not in used and name not in index and not _INDEX_COLUMN.fullmatch(name)
        )
    check_there(address, (*features, *used), kinds)
    for role, names in (("feature", features), ("target", targets), ("weight", weights)):
        bad = [f"{name} ({kinds[name]})" for name in names if isinstance(kinds[name], str)]
        if bad:
            what = f"{role} column{'s' if len(bad) > 1 else ''} {listed(bad)} not numeric"
            free = role == "feature" and wanted.features is None
            raise DataError(f"{address}: {what}", *((Remedy.ENCODE,) if free else ()))
    if not features and wanted.features is None:
        raise DataError(f"{address}: no feature columns left; columns: {listed([*kinds])}")
    dtypes = (
        _float_of(kinds, features),
        _float_of(kinds, targets) if targets else None,
        _float_of(kinds, weights) if weights else None,
    )
    left_out = tuple(name for name in kinds if name not in {*features, *used})
    return Columns(features, targets, dtypes, weight, left_out)


def index_of(schema: Any) -> tuple[str, ...]:
    """Columns of an Arrow schema that pandas or Dask wrote as the index of a frame."""
    try:
        columns = schema.pandas_metadata["index_columns"]
        return tuple(name for name in columns if isinstance(name, str))
    except (KeyError, TypeError, ValueError):  # there are none, or another writer's
        return ()


def arrow_kind(arrow_type: Any) -> DType | str:
    """Give the NumPy dtype of an Arrow column of numbers, or a word for what else it holds."""
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        return arrow_kind(arrow_type.value_type)
    if (
        types.is_boolean(arrow_type)
        or types.is_integer(arrow_type)
        or types.is_floating(arrow_type)
    ):
        dtype: DType = np.dtype(arrow_type.to_pandas_dtype())
        return dtype
    if types.is_decimal(arrow_type) or types.is_null(arrow_type):
        return np.dtype(np.float64)
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary)
    return "text" if any(is_text(arrow_type) for is_text in texts) else str(arrow_type)


def choose_stored(
    address: str,
    kinds: Mapping[str, DType | str],
    wanted: Wanted,
    index: Collection[str] = (),
) -> tuple[Columns, Mapping[str, float]]:
    """As `choose_columns`, of the columns of a file and those its folders are named for."""
    number = np.dtype(np.float64)
    of_folders: dict[str, DType | str] = {
        name: f"text: {value!r}" if isinstance(value, str) else number
        for name, value in wanted.partition
    }
    # A folder's value comes first where the file has such a column too, as in Arrow.
    both = {name: kind for name, kind in kinds.items() if name not in of_folders} | of_folders
    partition = {name: value for name, value in wanted.partition if not isinstance(value, str)}
    return choose_columns(address, both, wanted, index), partition


def schema_kinds(address: str, schema: Any) -> dict[str, DType | str]:
    """Of the columns of an Arrow schema, as `arrow_kind`."""
    with reading(f"{address}: damaged: its column names"):
        names = schema.names
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{address}: two columns are named {listed(doubled)}")
    return {field.name: _field_kind(field) for field in schema}


def stored(names: Sequence[str], partition: Mapping[str, float]) -> list[str]:
    """Those columns that are in the file."""
    return [name for name in names if name not in partition]


def _field_kind(field: Any) -> DType | str:
    """An extension type that this process has not registered looks like its bare storage."""
    extension = (field.metadata or {}).get(b"ARROW:extension:name")
    if extension:
        return str(extension.decode(errors="replace"))
    return arrow_kind(field.type)


def _fill(rows: Array, table: Any, names: Sequence[str], partition: Mapping[str, float]) -> None:
    """Write the columns of an Arrow table, where there is one, and the constants into a matrix."""
    import pyarrow as pa
    import pyarrow.compute as pc

    arrow_dtype = pa.from_numpy_dtype(rows.dtype)
    for j, name in enumerate(names):
        if name in partition:
            rows[:, j] = partition[name]
        elif table is not None:
            rows[:, j] = pc.cast(table.column(name), arrow_dtype, safe=False).to_numpy()


def _float_of(kinds: Mapping[str, DType | str], names: Sequence[str]) -> DType:
    return float_dtype([np.dtype(kinds[name]) for name in names])
