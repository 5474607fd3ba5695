"""Tables in memory of which some columns are texts or times: as a matrix of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.data.columns import (
    Coding,
    Found,
    LevelCounts,
    coded,
    fitting,
    found_of,
    learnt,
)
from altrelu_dist.data.source import listed, reading
from altrelu_dist.data.tables import coding_of
from altrelu_dist.encoding.raw import RawColumn, RawColumns, all_numbers
from altrelu_dist.errors import DataError

__all__ = [
    "Column",
    "Taken",
    "Taking",
    "arrow_column",
    "ids_remark",
    "pandas_column",
    "pandas_number",
]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
# What pandas says of objects that are all numbers, or missing; and of others that Arrow knows.
NUMBER_OBJECTS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")
_KNOWN_OBJECTS = {
    "string": "levels",
    "date": "time",
    "datetime": "time",
    "datetime64": "time",
    "time": "time",
    "timedelta": "number",
    "timedelta64": "number",
}


class Column(NamedTuple):
    """One column of a table: what it holds, and how to get at it as Arrow or as plain numbers."""

    name: Any
    found: Found
    arrow: Callable[[], Any]
    numbers: Callable[[np.dtype[Any]], NDArray[Any]]


class Taken(NamedTuple):
    """What a table becomes: a matrix of numbers, its names, what they were, and ids left out."""

    values: Any
    names: list[Any]
    columns: RawColumns | None
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Taking:
    """How the columns of a table are to be taken.

    Parameters
    ----------
    columns : tuple of RawColumn, optional
        What they are, where that is known; else it is learnt.
    features : tuple of str, optional
        The names that go with `columns`, which else are by position. Further columns of text are
        left out, where some of `columns` are texts.
    categorical : tuple of str
        Those of which each number is a level.
    text : bool
        Whether columns of text have levels, or are refused.
    """

    columns: RawColumns | None = None
    features: tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    text: bool = True

    @property
    def plain(self) -> bool:
        """Whether a table of numbers is taken as it is."""
        return not self.categorical and all_numbers(self.columns)

    def kept(self, table: Sequence[Column]) -> list[Column]:
        """The columns that are not left out.

        Raises
        ------
        DataError
            If one that is named is not there, or is there twice.
        """
        names = [str(column.name) for column in table]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"two columns are named {listed(twice)}; rename or drop one")
        if absent := [name for name in self.categorical if name not in names]:
            raise DataError(f"no column {listed(absent)}; columns: {listed(names)}")
        if self.features is None or all_numbers(self.columns):
            return [*table]
        return [
            column
            for column, name in zip(table, names, strict=True)
            if name in self.features or column.found.kind != "levels"
        ]

    def known(self, table: Sequence[Column], what: str) -> dict[Any, RawColumn]:
        """What each column is; of text that is not known, without its levels.

        Raises
        ------
        DataError
            If it is something that cannot be learnt from, or not what is known.
        """
        if self.columns is None:
            return {column.name: self._guessed(column, what) for column in table}
        if self.features is not None:
            by_name = dict(zip(self.features, self.columns, strict=True))
            return {column.name: by_name.get(str(column.name), RawColumn()) for column in table}
        if len(self.columns) != len(table):
            raise DataError(
                f"{what} has {len(table)} columns; expected {len(self.columns)} as in the fit"
            )
        return {column.name: one for column, one in zip(table, self.columns, strict=True)}

    def _guessed(self, column: Column, what: str) -> RawColumn:
        kind = column.found.kind
        if kind is None or (kind == "levels" and not self.text):
            raise not_numbers(what, {column.name: column.found.words})
        levels = kind == "levels" or str(column.name) in self.categorical
        return RawColumn("levels" if levels else kind)

    def codings(
        self, table: Sequence[Column], columns: Mapping[Any, RawColumn], what: str
    ) -> dict[Any, Coding]:
        """How each column is read."""
        codings = {}
        for column in table:
            raw = columns[column.name]
            if raw.kind == "number" and column.found.kind != "number":
                if self.features is not None and str(column.name) not in self.features:
                    raise not_numbers(what, {column.name: column.found.words})
                raise _other_kind(what, column, "numbers")
            codings[column.name] = coding_of(what, str(column.name), column.found, raw)
        return codings

    def take(self, table: Sequence[Column], rows: int, what: str) -> Taken:
        """A table in memory as a matrix.

        Raises
        ------
        DataError
            As `known`, or if all columns name the rows.
        """
        table = self.kept(table)
        columns = self.known(table, what)
        codings = self.codings(table, columns, what)
        ids: tuple[str, ...] = ()
        if self.columns is None:
            counts = {
                str(column.name): counted(column, codings[column.name])
                for column in table
                if columns[column.name].kind == "levels"
            }
            levels, ids = learnt(counts, self.categorical, what)
            table = [column for column in table if str(column.name) not in ids]
            if ids and not table:
                raise DataError(f"{what} has no feature: {ids_remark(ids)}")
            columns = {c.name: levels.get(str(c.name), columns[c.name]) for c in table}
            codings = self.codings(table, columns, what)
        raw = tuple(columns[column.name] for column in table)
        dtype = dtype_of([column.found for column in table], raw, what)
        values = matrix_of(table, codings, dtype, rows, what)
        return Taken(
            values, [column.name for column in table], None if all_numbers(raw) else raw, ids
        )


def ids_remark(ids: Sequence[str]) -> str:
    """What is said of columns that are left out, since their texts name the rows."""
    whose = "its" if len(ids) == 1 else "their"
    return f"left out, since {whose} texts name the rows: {listed(ids)}"


def counted(column: Column, coding: Coding) -> LevelCounts:
    """The levels of one column."""
    counts = LevelCounts()
    with reading(f"column {column.name} cannot be read"):
        counts.add(column.arrow(), numeric=coding.numeric)
    return counts


def matrix_of(
    table: Sequence[Column],
    codings: Mapping[Any, Coding],
    dtype: np.dtype[Any],
    rows: int,
    what: str,
) -> NDArray[Any]:
    """Columns as a matrix.

    Raises
    ------
    DataError
        If one holds texts where numbers are known, or numbers where texts are.
    """
    values = np.empty((rows, len(table)), dtype)
    for j, column in enumerate(table):
        coding = codings[column.name]
        _check_kind(column, coding, what)
        plain = coding.column.kind == "number" and column.found.is_plain
        with fitting(what, column.name):
            values[:, j] = column.numbers(dtype) if plain else coded(column.arrow(), coding, dtype)
    return values


def _check_kind(column: Column, coding: Coding, what: str) -> None:
    """Refuse texts for numbers."""
    found = column.found
    if coding.column.kind == "number" and found.kind == "levels" and not found.empty:
        raise _other_kind(what, column, "numbers")


def _other_kind(what: str, column: Column, expected: str) -> DataError:
    return DataError(
        f"{what}: column {column.name} holds {column.found.words}; expected {expected}, as in the "
        "data of the fit"
    )


def dtype_of(found: Sequence[Found], columns: RawColumns, what: str) -> np.dtype[Any]:
    """The dtype of a matrix of some columns: float32 where it is exact for all, else float64."""
    of_kind: dict[str, np.dtype[Any]] = {"levels": _FLOAT32, "time": _FLOAT64}
    pairs = zip(found, columns, strict=True)
    return common([of_kind.get(raw.kind, one.dtype) for one, raw in pairs], what)


def common(dtypes: Sequence[np.dtype[Any]], what: str) -> np.dtype[Any]:
    """The dtype of an array of columns of numbers."""
    if not dtypes:
        raise DataError(
            f"Found array with 0 feature(s): {what} has no columns, expected one at least"
        )
    one = np.result_type(*dtypes)
    return _FLOAT64 if one.itemsize > _FLOAT64.itemsize else one


def arrow_column(name: Any, column: Any) -> Column:
    """A column of an Arrow table."""

    def numbers(dtype: np.dtype[Any]) -> NDArray[Any]:
        return coded(column, Coding(RawColumn()), dtype)

    return Column(name, found_of(column.type), lambda: column, numbers)


def pandas_column(name: Any, column: Any) -> Column:
    """A column of a pandas DataFrame.

    Raises
    ------
    DataError
        If it holds objects of several kinds, or of one that is not known.
    """

    def numbers(dtype: np.dtype[Any]) -> NDArray[Any]:
        return pandas_values(column, dtype)

    found = pandas_found(column.dtype)
    if found.words == "object":
        from pandas.api.types import infer_dtype

        kind = infer_dtype(column, skipna=True)
        if kind in NUMBER_OBJECTS:
            found = Found("number", _FLOAT64, kind, empty=kind == "empty")
        elif kind in _KNOWN_OBJECTS:
            found = found_of(_arrow_of(name, column).type)
        else:
            raise _mixed(name, column)
    return Column(name, found, lambda: _arrow_of(name, column), numbers)


def pandas_found(dtype: Any) -> Found:
    """What a pandas column holds by its dtype; of objects it is to be looked at."""
    import pandas as pd

    words, levels = str(dtype), Found("levels", _FLOAT32, "text")
    if (number := pandas_number(dtype)) is not None:
        return Found("number", number, words)
    if isinstance(dtype, pd.CategoricalDtype):
        known = None if dtype.categories is None else dtype.categories.dtype
        times = known is not None and pandas_found(known).kind == "time"
        return Found("time", _FLOAT64, words) if times else levels
    if isinstance(dtype, pd.ArrowDtype):
        return found_of(dtype.pyarrow_dtype)
    if isinstance(dtype, pd.PeriodDtype) or pd.api.types.is_datetime64_any_dtype(dtype):
        return Found("time", _FLOAT64, words)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return Found("number", _FLOAT64, "duration")
    if isinstance(dtype, pd.StringDtype):
        return levels
    return (
        Found("levels", _FLOAT32, "object") if words == "object" else Found(None, _FLOAT64, words)
    )


def pandas_number(dtype: Any) -> np.dtype[Any] | None:
    """The dtype of a pandas column of numbers as an array; None if it is of something else."""
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories  # None where Dask does not know them
        known = categories is not None and pandas_number(categories.dtype) is not None
        return _FLOAT64 if known else None
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    if isinstance(dtype, np.dtype):
        return dtype if dtype.kind in "biuf" else None
    types = pd.api.types
    return _FLOAT64 if types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype) else None


def pandas_values(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A pandas DataFrame or Series of numbers as an array, missing values as NaN."""
    values: NDArray[Any] = (
        data.to_numpy(dtype=dtype, na_value=np.nan)
        if dtype.kind == "f"
        else data.to_numpy(dtype=dtype)
    )
    return values


def not_numbers(what: str, found: Mapping[Any, Any]) -> DataError:
    """The error for columns, or for a whole array (its name None), of something else."""
    kinds = [str(kind) for kind in found.values()]
    cures = []
    if any(word in kind for kind in kinds for word in ("date", "time", "period", "duration")):
        cures.append("take numbers from dates and times, such as .dt.year or .dt.dayofyear")
    if not cures or len(kinds) > 1:
        cures.append(
            "encode text and categories as numbers, for example with "
            "sklearn.preprocessing.OneHotEncoder(sparse_output=False)"
        )
    cure = ", ".join(cures)
    if None in found:
        return DataError(f"{what} holds {kinds[0]}, not numbers; {cure}")
    named = ", ".join(f"{name} ({kind})" for name, kind in list(found.items())[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    them = "them" if len(found) > 1 else "it"
    columns = "columns that are" if len(found) > 1 else "a column that is"
    return DataError(f"{what} has {columns} not numbers: {named}{more}; {cure}, or drop {them}")


_LISTED = 5  # columns that a message names


def _arrow_of(name: Any, column: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    if isinstance(column.dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = column.cat.categories
        if pandas_found(known.dtype).kind is None:  # intervals, for example
            column = column.cat.rename_categories(known.astype(str))
    try:
        made = pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise _mixed(name, column) from None
    return made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made])


def _mixed(name: Any, column: Any) -> DataError:
    """The error for objects of several kinds, or of one that nothing can be learnt from."""
    values = column.dropna()
    first = values.iloc[0]
    other = next((value for value in values if type(value) is not type(first)), None)
    shown = [f"{value!r:.60} ({type(value).__name__})" for value in (first, other)]
    return DataError(
        f"column {name} holds {shown[0]}; expected numbers, texts or times"
        if other is None
        else f"column {name} holds {' and '.join(shown)}; expected values of one kind: make texts "
        f"of them (.astype(str)), or drop it"
    )
