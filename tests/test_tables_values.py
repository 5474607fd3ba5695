"""Values of tables: texts, categories, times and gaps become numbers."""

from __future__ import annotations

import datetime
from collections import Counter
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from mixed_tables import opened

from altrelu_dist.data.columns import Coding, LevelCounts, coded, seconds_of
from altrelu_dist.encoding.raw import MOST_LEVELS, UNSEEN, RawColumn
from altrelu_dist.errors import DataError
from altrelu_dist.frames import given

NAN = np.nan
DOUBLE = np.dtype("f8")


def test_numbers_stay_what_they_were():
    frame = pd.DataFrame({"a": np.arange(3, dtype=np.int64), "b": np.arange(3, dtype=np.int8)})
    for data in (frame, pa.Table.from_pandas(frame), pl.from_pandas(frame)):
        found = given(data, "X")
        assert (found.columns, found.ids) == (None, ())
    assert given(frame, "X").values.dtype == np.int64
    assert given(frame[["b"]].assign(t="x"), "X").values.dtype == np.float32


TEXTS = st.lists(st.sampled_from([None, "a", "b", "ä", "B", " a", "3", "3.0"]), max_size=40)


@settings(max_examples=60, deadline=None)
@examples(texts=TEXTS, cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 99))
def test_levels_do_not_depend_on_chunks_or_order(texts, cuts, seed):
    edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    pieces = [pa.array(texts[a:b], pa.string()) for a, b in pairwise(edges)]
    counted = [LevelCounts() for _ in pieces]
    for counts, piece in zip(counted, pieces, strict=True):
        counts.add(pa.chunked_array([piece, piece.dictionary_encode()[:0].cast(pa.string())]))
    total = LevelCounts()
    for k in np.random.default_rng(seed).permutation(len(counted)):
        total.merge(counted[k])
    expected = Counter(text for text in texts if text is not None)
    assert total.counts == expected
    column = RawColumn.of_levels(total.counts)
    assert list(column.levels) == sorted(expected, key=lambda text: (-expected[text], text))
    places = {text: place for place, text in enumerate(column.levels)} | {None: NAN}
    whole = pa.chunked_array(pieces, pa.string())
    for values in (whole, whole.dictionary_encode(), whole.cast(pa.large_string())):
        np.testing.assert_array_equal(
            coded(values, Coding(column), DOUBLE), [places[text] for text in texts]
        )


def test_what_no_level_is_is_unseen_and_a_gap_is_none():
    column = Coding(RawColumn("levels", ("b", "a")))
    encoded = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2, None, 3]), pa.array(["a", None, "c", "b"])
    )
    np.testing.assert_array_equal(
        coded(pa.chunked_array([encoded]), column, DOUBLE), [1, NAN, UNSEEN, NAN, 0]
    )
    empty = Coding(RawColumn("levels"))
    np.testing.assert_array_equal(
        coded(pa.chunked_array([["x", None]]), empty, DOUBLE), [UNSEEN, NAN]
    )


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, 30, None], pa.int8()),
        pa.array([3.0, 30.0, NAN], pa.float32()),
        pa.array([3.0, 30.0, None]),
        pa.array([Decimal("3.00"), Decimal("30"), None]),
        pa.array([3, 30, None]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_a_number_is_one_level_whatever_its_type(values):
    column = pa.chunked_array([values])
    counts = LevelCounts()
    counts.add(column)
    assert counts.counts == {"3": 1, "30": 1}
    levels = Coding(RawColumn("levels", ("30", "3")))
    np.testing.assert_array_equal(coded(column, levels, DOUBLE), [1, 0, NAN])


def test_categorical_numbers_of_files_and_frames_agree(tmp_path):
    (tmp_path / "a.csv").write_text("c,y\n3,1\n3.0,2\n0.10,3\nNA,4\n+3,5\n-0,6\n")
    _, X = opened(tmp_path / "a.csv", categorical=["c"])
    frame = pd.read_csv(tmp_path / "a.csv")
    found = given(frame[["c"]], "X", categorical=["c"])
    assert found.columns == (RawColumn("levels", ("3", "0", "0.1")),)
    np.testing.assert_array_equal(X, found.values)
    np.testing.assert_array_equal(X[:, 0], [0, 0, 2, NAN, 0, 1])
    # With levels of numbers a file is read as text, whatever its first rows seem to hold.
    (tmp_path / "b.csv").write_text("c,y\n3.0,1\n7.0,2\n")
    _, other = opened(tmp_path / "b.csv", columns=found.columns, features=["c"])
    np.testing.assert_array_equal(other[:, 0], [0, UNSEEN])
    # Texts stay apart.
    (tmp_path / "d.csv").write_text("c,y\n3,1\n3.0,2\nx,3\n")
    assert opened(tmp_path / "d.csv")[0].columns[0].levels == ("3", "3.0", "x")


MOMENT = datetime.datetime(1969, 12, 31, 23, 59, 58, 123_457)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([MOMENT, None], pa.timestamp("us")), -1.876543),
        (pa.array([MOMENT, None], pa.timestamp("ns")), -1.876543),
        (pa.array([MOMENT, None], pa.timestamp("ns", "America/New_York")), -1.876543),
        (pa.array([86_400_123, None], pa.timestamp("ms")), 86_400.123),
        (pa.array([-7, None], pa.timestamp("s")), -7),
        (pa.array([datetime.date(1969, 12, 31), None], pa.date32()), -86_400),
        (pa.array([datetime.date(1969, 12, 31), None], pa.date64()), -86_400),
        (pa.array([datetime.time(1, 2, 3, 500_000), None], pa.time64("ns")), 3723.5),
        (pa.array([datetime.time(1, 2, 3), None], pa.time32("s")), 3723),
        (pa.array([datetime.timedelta(hours=-1), None], pa.duration("ms")), -3600),
        (pa.nulls(2), NAN),
    ],
    ids=lambda values: str(getattr(values, "type", "")),
)
def test_times_are_seconds(values, expected):
    found = seconds_of(pa.chunked_array([values]))
    # A whole second and its fraction are added, which is right to the last place or the next.
    np.testing.assert_allclose(found, [expected, NAN], rtol=1e-15)


def test_a_time_is_the_same_float_in_every_unit():
    ticks = np.random.default_rng(0).integers(-(2**50), 2**50, 1000)
    small = pa.chunked_array([pa.array(ticks, pa.timestamp("us"))])
    np.testing.assert_array_equal(
        seconds_of(small), seconds_of(small.cast(pa.timestamp("ns"))), strict=True
    )
    np.testing.assert_allclose(seconds_of(small), ticks / 1e6, rtol=1e-15)


def test_times_of_csv_as_people_write_them(tmp_path):
    lines = [
        "d,t,z,c,y",
        "2024-02-29,2024-02-29 01:00,2024-02-29T00:00:00Z,01:30,1",
        "1900-01-01,2024-02-29T01:00:00.5,2024-02-29T02:00:00+02:00,00:00:01,2",
        "NA,,,-,3",
    ]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    data, X = opened(tmp_path / "a.csv")
    assert {column.kind for column in data.columns} == {"time"}
    leap = (19_723 + 31 + 28) * 86_400
    np.testing.assert_array_equal(
        X,
        [
            [leap, leap + 3600, leap, 5400],
            [-25_567 * 86_400, leap + 3600.5, leap, 1],
            [NAN] * 4,
        ],
    )
    rows = "2024-02-29,1\n" * 100_000 + "soon,1\n"
    (tmp_path / "b.csv").write_text(f"d,y\n{rows}")
    with pytest.raises(
        DataError, match=r"column d, row 100000: 'soon' is not a time.*categorical="
    ):
        opened(tmp_path / "b.csv")
    assert len(opened(tmp_path / "b.csv", categorical=["d"])[0].columns[0].levels) == 2


def test_text_behind_numbers_names_the_row_and_the_way_out(tmp_path):
    rows = "1,1\n" * 300_000 + "x,1\n"
    (tmp_path / "a.csv").write_text(f"c,y\n{rows}")
    match = r"column c, row 300000: 'x' is not a number; if it holds text, say so with categorical"
    with pytest.raises(DataError, match=match):
        opened(tmp_path / "a.csv")
    data, X = opened(tmp_path / "a.csv", categorical=["c"])
    assert data.columns == (RawColumn("levels", ("1", "x")),)
    assert (X.sum(), X[-1, 0]) == (1, 1)
    with pytest.raises(DataError) as caught:  # that it is a number is known: it is no question
        opened(tmp_path / "a.csv", columns=(RawColumn(),), features=["c"])
    assert "categorical" not in str(caught.value)


def test_a_column_has_so_many_levels_at_most():
    texts = pa.array([f"{i}" for i in range(MOST_LEVELS)])
    full = LevelCounts()
    full.add(pa.chunked_array([texts] * 3))
    assert not full.is_id
    one = LevelCounts()
    one.add(pa.chunked_array([["one more"]]))
    assert LevelCounts().merge(one).merge(full).is_id
    assert full.merge(one).counts is None
    frame = pd.DataFrame({"t": [f"{i}" for i in range(MOST_LEVELS + 1)] * 2, "a": 1.0})
    assert given(frame, "X").ids == ("t",)
    with pytest.raises(DataError, match=r"column t has over 65,536 different values"):
        given(frame, "X", categorical=["t"])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1, "a"], r"column z holds 1 \(int\) and 'a' \(str\); expected values of one kind"),
        ([[1], [2]], r"column z holds \[1\] \(list\); expected numbers, texts or times"),
        ([b"a", b"b"], r"column z holds b'a' \(bytes\)"),
    ],
)
def test_objects_of_other_kinds_are_named(values, match):
    frame = pd.DataFrame({"a": [1.0, 2.0], "z": pd.Series(values, dtype=object)})
    with pytest.raises(DataError, match=match):
        given(frame, "X")
    with pytest.raises(DataError, match="no column nope; columns: a"):
        given(frame[["a"]], "X", categorical=["nope"])


def test_objects_that_are_texts_or_times_are_taken():
    day = datetime.date(1970, 1, 2)
    frame = pd.DataFrame(
        {
            "town": pd.Series(["Rome", None, "Oslo"], dtype=object),
            "day": pd.Series([day, None, day], dtype=object),
            "wait": pd.to_timedelta([1, None, 3], unit="h"),
            "month": pd.period_range("1970-02", periods=3, freq="M"),
            "range": pd.cut([0.5, 1.5, 0.7], [0, 1, 2]),
            "price": pd.Series([Decimal("1.5"), None, Decimal(2)], dtype=object),
        }
    )
    found = given(frame, "X")
    kinds = ["levels", "time", "number", "time", "levels", "number"]
    assert [column.kind for column in found.columns] == kinds
    assert found.columns[4].levels == ("(0, 1]", "(1, 2]")
    np.testing.assert_array_equal(
        found.values,
        [
            [1, 86_400, 3600, 31 * 86_400, 0, 1.5],
            [NAN, NAN, NAN, 59 * 86_400, 1, NAN],
            [0, 86_400, 10_800, 90 * 86_400, 0, 2],
        ],
    )
