"""Arrow columns as numbers: of which kind a column is, its levels counted, its values coded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from altrelu_dist.data.source import Array, DType
from altrelu_dist.encoding.raw import MOST_LEVELS, UNSEEN, Kind, RawColumn
from altrelu_dist.errors import DataError

__all__ = [
    "Coding",
    "Found",
    "LevelCounts",
    "OtherKindError",
    "coded",
    "fitting",
    "found_of",
    "learnt",
    "number_text",
    "seconds_of",
]

_LEVELS, _TIMES = np.dtype(np.float32), np.dtype(np.float64)  # that hold every code, every time
_MOST_BYTES = 64 << 20  # of the distinct texts of a column; more are no levels but texts to read
FEW_ROWS = 50  # in which all values may differ though they are no ids
ID_SHARE = 0.5  # of the rows with a value: a text column with more distinct ones names its rows
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400
_ZONE = "[ T].*[Z+-]"  # is in the text of a time that has one; that of a date has none
_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_BOOLEANS = {"true": "1", "false": "0"}


class Found(NamedTuple):
    """What a column holds by its type.

    `dtype` is that of its numbers, `words` say the type in messages. `as_text` says whether it was
    read from text, and can be read as text too; `empty` whether it holds nothing so far.
    """

    kind: Kind | None  # None: nothing that can be learnt from
    dtype: DType
    words: str
    as_text: bool = False
    empty: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it holds numbers as they are, and no durations."""
        return self.kind == "number" and not self.words.startswith("duration")

    @property
    def plain_words(self) -> str:
        """Of the type, without what is known to Arrow and NumPy alone."""
        if self.kind == "number":
            return "numbers" if self.is_plain else "durations"
        return "times" if self.kind == "time" else self.words


class Coding(NamedTuple):
    """How a column becomes numbers: what it is, and whether its texts are those of numbers.

    `other` says that it holds numbers, and no level is one: only missing values are read then.
    """

    column: RawColumn
    numeric: bool = False
    other: bool = False


class OtherKindError(ValueError):
    """A column holds something else than what it is read as; the text says what, not where."""


@contextmanager
def fitting(what: str, name: object) -> Iterator[None]:
    """Say of which column of `what` it is that it holds something else.

    Raises
    ------
    DataError
    """
    try:
        yield
    except OtherKindError as error:
        raise DataError(f"{what}: column {name} {error}") from None


class LevelCounts:
    """How often each text is in a column; mergeable, in any order, and of bounded memory."""

    def __init__(self) -> None:
        self.rows = 0  # that have a value
        self.counts: dict[str, int] | None = {}  # None: more than a column of levels can have
        self._bytes = 0
        self._times: bool | None = None  # whether all texts so far are; None: only empty ones

    def add(self, column: Any, *, numeric: bool = False) -> None:
        """Count the values of an Arrow column; of a `numeric` one each number under one text."""
        for chunk in column.chunks:
            places, values = _dictionary_of(chunk)
            counts = np.bincount(places.drop_null(), minlength=len(values))
            used = np.flatnonzero(counts)
            texts = _texts_of(values.take(used))
            self._see(_are_times(texts, numeric=numeric))
            for text, count in zip(texts.to_pylist(), counts[used].tolist(), strict=True):
                if text is not None:
                    self._count((number_text(text) or text) if numeric else text, count)

    def merge(self, other: LevelCounts) -> LevelCounts:
        """The counts of both, in this one."""
        self._see(other._times)
        if other.counts is None:
            self.counts = None
            self.rows += other.rows
        else:
            for text, count in other.counts.items():
                self._count(text, count)
        return self

    def times(self, rows: int) -> LevelCounts:
        """The same texts, each in so many times as many rows."""
        made = LevelCounts()
        made._times = self._times
        for text, count in (self.counts or {}).items():
            made._count(text, count * rows)
        return made

    def _see(self, times: bool | None) -> None:
        """Note whether further texts are times."""
        if times is not None:
            self._times = times and self._times is not False

    def _count(self, text: str, count: int) -> None:
        self.rows += count
        if self.counts is None:
            return
        if text not in self.counts:
            self._bytes += len(text)
        self.counts[text] = self.counts.get(text, 0) + count
        if len(self.counts) > MOST_LEVELS or self._bytes > _MOST_BYTES:
            self.counts = None

    @property
    def are_times(self) -> bool:
        """Whether the texts are times, as ISO 8601 writes them, or empty, but not all empty."""
        return self._times is True

    @property
    def is_id(self) -> bool:
        """Whether the texts name the rows, and say nothing of others."""
        if self.counts is None:
            return True
        return self.rows > FEW_ROWS and len(self.counts) > ID_SHARE * self.rows


def found_of(arrow_type: Any) -> Found:
    """What an Arrow column of a type holds; a dictionary what its values are."""
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        return found_of(arrow_type.value_type)
    words = str(arrow_type)
    if (
        types.is_boolean(arrow_type)
        or types.is_integer(arrow_type)
        or types.is_floating(arrow_type)
    ):
        return Found("number", np.dtype(arrow_type.to_pandas_dtype()), words)
    if types.is_decimal(arrow_type) or types.is_duration(arrow_type):
        return Found("number", _TIMES, words)
    if types.is_null(arrow_type):
        return Found("number", _TIMES, words, empty=True)
    if _is_text(arrow_type):
        return Found("levels", _LEVELS, "text")
    if types.is_date(arrow_type) or types.is_timestamp(arrow_type) or types.is_time(arrow_type):
        return Found("time", _TIMES, words)
    return Found(None, _TIMES, words)


def learnt(
    counts: Mapping[str, LevelCounts], categorical: Sequence[str], what: str
) -> tuple[dict[str, RawColumn], tuple[str, ...]]:
    """Columns of the levels that were counted, or times; and the names of those that are ids.

    Raises
    ------
    DataError
        If a column that was named as categorical has too many levels.
    """
    columns, ids = {}, []
    for name, counted in counts.items():
        if counted.are_times and name not in categorical:
            columns[name] = RawColumn("time")
        elif counted.counts is not None and (name in categorical or not counted.is_id):
            columns[name] = RawColumn.of_levels(counted.counts)
        elif name in categorical:
            raise DataError(
                f"{what}: column {name} has over {MOST_LEVELS:,} different values, or very long "
                "ones; expected fewer of a categorical one: leave it out"
            )
        else:
            ids.append(name)
    return columns, tuple(ids)


def coded(column: Any, coding: Coding, dtype: DType) -> Array:
    """The numbers that the values of an Arrow column become; missing ones are NaN.

    Parameters
    ----------
    column : pyarrow.ChunkedArray, length n
        Of a kind that goes with the coding.
    coding : Coding
    dtype : dtype
        Of numbers and codes, float32 or float64. Times are float64.

    Returns
    -------
    ndarray, shape (n,)
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if coding.column.kind == "levels":
        return _codes_of(column, coding, dtype)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if coding.column.kind == "time" and _is_text(column.type):
        return _seconds_of_texts(column)
    if pa.types.is_duration(column.type) or coding.column.kind == "time":
        return seconds_of(column)
    numbers: Array = pc.cast(column, pa.from_numpy_dtype(dtype), safe=False).to_numpy()
    return numbers


def seconds_of(column: Any) -> Array:
    """Seconds of an Arrow column of times or durations, the same whatever its unit.

    Times with a zone are those of UTC, as Arrow has them; those without are taken for such.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    missing = column.is_null().to_numpy()
    small = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    whole = pc.cast(pc.cast(column, pa.int32()), pa.int64()) if small else column
    ticks = pc.cast(whole, pa.int64()).fill_null(0).to_numpy()
    if pa.types.is_date32(kind):
        seconds: Array = ticks * float(_DAY)
    else:
        # Each part is exact, so that a time is the same float in every unit.
        seconds_whole, rest = np.divmod(ticks, per := _PER_SECOND[getattr(kind, "unit", "ms")])
        seconds = seconds_whole + rest / per
    seconds[missing] = np.nan
    return seconds


def _seconds_of_texts(column: Any) -> Array:
    """Seconds of texts of times.

    Raises
    ------
    OtherKindError
        If one is none.
    """
    import pyarrow as pa

    seconds = []
    for chunk in column.chunks:
        texts = _plain_texts(chunk)
        times = _times_of(texts)
        if times is None:
            other = next(text for text in texts if _times_of(_array_of(text)) is None)
            raise OtherKindError(
                f"holds the text {other.as_py()!r:.60}; expected times, such as 2024-02-29 13:00"
            )
        seconds.append(seconds_of(pa.chunked_array([times])))
    return np.concatenate([*seconds, np.empty(0)])


def _times_of(texts: Any) -> Any:
    """An Arrow array of texts as times in UTC, empty ones as missing; None if one is no time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    zoned = pc.match_substring_regex(texts, _ZONE)
    try:
        with_zone = pc.cast(pc.if_else(zoned, texts, None), pa.timestamp("us", "UTC"))
        without = pc.cast(pc.if_else(zoned, None, texts), pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None
    ticks = pc.coalesce(pc.cast(with_zone, pa.int64()), pc.cast(without, pa.int64()))
    return pc.cast(ticks, pa.timestamp("us"))


def _are_times(texts: Any, *, numeric: bool) -> bool | None:
    """Whether all texts of an Arrow array that are not empty are times; None if there is none."""
    import pyarrow.compute as pc

    if not pc.any(pc.not_equal(texts, "")).as_py():
        return None
    return not numeric and _times_of(texts) is not None


def _array_of(value: Any) -> Any:
    import pyarrow as pa

    return pa.array([value.as_py()], pa.string())


def _codes_of(column: Any, coding: Coding, dtype: DType) -> Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pa.array(coding.column.levels, pa.string())
    codes = np.empty(len(column), dtype)
    at = 0
    for chunk in column.chunks:
        indices, values = _dictionary_of(chunk)
        texts = _texts_of(values)
        places = pc.index_in(texts, value_set=known).fill_null(UNSEEN).to_numpy().astype(dtype)
        there = texts.is_valid().to_numpy(zero_copy_only=False)
        if coding.other and there.any():
            raise OtherKindError(
                f"holds numbers; expected texts such as {coding.column.levels[0]!r:.40}, as in the "
                "data of the fit"
            )
        places[~there] = np.nan
        if coding.numeric and (unseen := np.flatnonzero(places == UNSEEN)).size:
            others = [number_text(text) or text for text in texts.take(unseen).to_pylist()]
            found = pc.index_in(pa.array(others, pa.string()), value_set=known)
            places[unseen] = found.fill_null(UNSEEN).to_numpy()
        missing = len(places)
        by_place = np.append(places, np.array(np.nan, dtype))
        codes[at : at + len(chunk)] = by_place[indices.fill_null(missing).to_numpy()]
        at += len(chunk)
    return codes


def _dictionary_of(chunk: Any) -> tuple[Any, Any]:
    """An Arrow array as places in an array of distinct values."""
    import pyarrow as pa

    if not pa.types.is_dictionary(chunk.type):
        chunk = (_plain_texts(chunk) if _is_text(chunk.type) else chunk).dictionary_encode()
    values = _plain_texts(chunk.dictionary) if _is_text(chunk.dictionary.type) else chunk.dictionary
    return chunk.indices.cast(pa.int64()), values


def _texts_of(values: Any) -> Any:
    """Texts of an Arrow array: of a number the same whatever its type ("3" for 3 and 3.0)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if _is_text(kind):
        return _plain_texts(values)
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_duration(kind):
        numbers = coded(pa.chunked_array([values]), Coding(RawColumn()), _TIMES)
    elif pa.types.is_floating(kind):
        numbers = values.to_numpy(zero_copy_only=False)
    else:
        return pc.cast(
            pc.cast(values, pa.int8()) if pa.types.is_boolean(kind) else values, "string"
        )
    return pa.array([_float_text(number) for number in numbers], pa.string())


def _plain_texts(values: Any) -> Any:
    """Texts in Arrow's plainest type, which every version of it can work on."""
    import pyarrow as pa

    if values.type == pa.string():
        return values
    try:
        return values.cast(pa.string())
    except pa.ArrowNotImplementedError:
        return pa.array(values.to_pylist(), pa.string())


def _is_text(arrow_type: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(arrow_type)
        or types.is_large_string(arrow_type)
        or types.is_string_view(arrow_type)
        or types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_binary_view(arrow_type)
    )


def _float_text(number: Any) -> str | None:
    """The shortest text of a float, an integer's without a point; None of NaN."""
    if math.isnan(number):
        return None
    return str(int(number)) if float(number).is_integer() else str(number)


def number_text(text: str) -> str | None:
    """The one text of the number that a text writes; None where it writes none."""
    bare = text.strip()
    if _INTEGER.fullmatch(bare):
        return str(int(bare))
    if bare.lower() in _BOOLEANS:
        return _BOOLEANS[bare.lower()]
    try:
        return None if "_" in bare else _float_text(float(bare))
    except ValueError:
        return None
