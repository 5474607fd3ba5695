"""Tables as they come: texts, categories, times and gaps become the same numbers everywhere."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pytest
import zarr
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor
from altrelu_dist.cli.app import app
from altrelu_dist.data import convert, describe, open_dataset
from altrelu_dist.data.columns import Coding, LevelCounts, coded, seconds_of
from altrelu_dist.encoding.raw import MOST_LEVELS, UNSEEN, RawColumn
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.frames import given
from altrelu_dist.inputs import lazy_array
from altrelu_dist.network import Network

ROWS = 120
NAN = np.nan
DOUBLE = np.dtype("f8")
DAYS = pd.to_datetime("2024-02-28") + pd.to_timedelta(np.arange(ROWS) * 5_000, unit="s")
MONTH = 29 * 86_400
KNOWN = (
    RawColumn(),
    RawColumn("levels", ("Rome", "Bern", "Oslo")),
    RawColumn("levels", ("2", "7")),
    RawColumn(),
    RawColumn("time"),
)
NAMES = ("size", "town", "code", "flag", "day")


def make_table() -> pd.DataFrame:
    """One column of each kind, an id, and gaps; no name of a level is in the order of its rows."""
    i = np.arange(ROWS)
    town = np.select([i % 7 == 0, i % 3 == 0], ["Oslo", "Bern"], "Rome").astype(object)
    town[5] = None
    frame = pd.DataFrame(
        {
            "size": np.where(i == 3, NAN, i / 4),
            "town": town,
            "code": np.where(i % 4 == 0, 7, 2),
            "flag": i % 2 == 0,
            "day": DAYS,
            "id": [f"id-{7 * k % ROWS}" for k in i],
            "y": i.astype(float),
        }
    )
    frame.loc[9, "day"] = pd.NaT
    return frame


def expected_matrix(frame: pd.DataFrame) -> np.ndarray:
    """By dictionaries and datetime, row by row."""
    towns, codes = ({level: k for k, level in enumerate(KNOWN[j].levels)} for j in (1, 2))
    epoch = datetime.datetime(1970, 1, 1)
    return np.array(
        [
            [
                size,
                towns.get(town, NAN),
                codes[str(code)],
                flag,
                NAN if pd.isna(day) else (day.to_pydatetime() - epoch).total_seconds(),
            ]
            for size, town, code, flag, day in frame[list(NAMES)].itertuples(index=False)
        ]
    )


FILES = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "parquet": lambda frame, path: frame.to_parquet(path, row_group_size=50),
    "feather": lambda frame, path: feather.write_feather(frame, str(path), chunksize=50),
    "jsonl": lambda frame, path: frame.to_json(
        path, orient="records", lines=True, date_format="iso", double_precision=15
    ),
}


@pytest.fixture(scope="module")
def table():
    return make_table()


def written(frame, kind, folder, name="t"):
    path = folder / f"{name}.{kind}"
    FILES[kind](frame, path)
    return path


def opened(address, **options):
    data = open_dataset(address, **({"target": "y"} | options))
    return data, data.X.compute(scheduler="sync")


@pytest.mark.parametrize("kind", FILES)
def test_every_format_becomes_the_same_numbers(kind, table, tmp_path):
    path = written(table, kind, tmp_path)
    data, X = opened(path, categorical=["code"])
    assert data.feature_names == NAMES
    assert data.columns == KNOWN
    assert (data.ids, data.left_out) == (("id",), ())
    np.testing.assert_array_equal(X, expected_matrix(table), strict=True)
    summary = convert(path, tmp_path / "s.zarr", target="y", categorical=["code"])
    assert (summary.missing, summary.ids) == (3, ("id",))
    store, stored = opened(tmp_path / "s.zarr", target=None)
    assert (store.columns, store.feature_names) == (KNOWN, NAMES)
    np.testing.assert_array_equal(stored, X, strict=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: frame,
        lambda frame: frame.astype({"town": "category", "code": "category"}),
        lambda frame: frame.astype({"town": "string"}),
        lambda frame: frame.assign(
            day=frame["day"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
        ),
        lambda frame: pa.Table.from_pandas(frame),
        lambda frame: pa.Table.from_pandas(frame).to_pandas(types_mapper=pd.ArrowDtype),
        pl.from_pandas,
        lambda frame: pl.from_pandas(frame).lazy(),
        lambda frame: pl.from_pandas(frame).cast(
            {"town": pl.Categorical, "day": pl.Datetime("ms")}
        ),
        lambda frame: dd.from_pandas(frame, npartitions=4),
        lambda frame: dd.from_pandas(frame.astype({"town": "category"}), npartitions=3),
    ],
)
def test_every_frame_becomes_the_same_numbers(make, table):
    data = make(table.drop(columns="y"))
    found = given(data, "X", categorical=["code"])
    assert (found.texts, found.columns, found.ids) == (NAMES, KNOWN, ("id",))
    known = given(data, "X", KNOWN, features=NAMES)
    assert known.texts == NAMES
    for one in (found, known):
        lazy = hasattr(one.values, "dask")
        values = lazy_array(one.values, "X").compute() if lazy else one.values
        np.testing.assert_array_equal(values, expected_matrix(table), strict=True)


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


def test_columns_that_name_the_rows_are_left_out(tmp_path):
    n = 200
    frame = pd.DataFrame(
        {
            "half": [f"h{i // 2}" for i in range(n)],  # exactly half of them differ
            "more": [f"m{i // 2 if i else 'x'}" for i in range(n)],
            "gaps": [f"g{i}" if i < 51 else None for i in range(n)],
            "few": [f"f{i}" if i < 50 else None for i in range(n)],
            "same": "s",
            "none": pd.Series([None] * n, dtype="string"),
            "y": 1.0,
        }
    )
    path = written(frame, "parquet", tmp_path)
    data, X = opened(path)
    assert data.ids == ("more", "gaps")
    assert given(frame.drop(columns="y"), "X").ids == data.ids
    assert data.feature_names == ("half", "few", "same", "none")
    assert [len(column.levels) for column in data.columns] == [100, 50, 1, 0]
    assert (X[:, 2] == 0).all()
    assert np.isnan(X[:, 3]).all()
    asked = opened(path, categorical=["more"])[0]
    assert len(asked.columns[1].levels) == 101
    assert opened(path, only=["gaps", "few"])[0].feature_names == ("few",)
    with pytest.raises(DataError, match="no feature columns left"):
        opened(path, only=["gaps"])


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


def test_folders_of_files_agree_on_their_columns(table, tmp_path):
    first, second = table.iloc[:50], table.iloc[50:]
    folder = tmp_path / "csv"
    folder.mkdir()
    for name, some in (("a", first.assign(code="7")), ("b", second.assign(code="x"))):
        written(some, "csv", folder, name)
    data, X = opened(folder)
    assert data.columns[2].levels == ("x", "7")  # text in one of them
    np.testing.assert_array_equal(X[:, 2], [1] * 50 + [0] * 70)
    for code in ("north", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"hive/area={code}").mkdir(parents=True)
    written(first, "parquet", tmp_path / "hive/area=north")
    written(second, "parquet", tmp_path / "hive/area=__HIVE_DEFAULT_PARTITION__")
    data, X = opened(tmp_path / "hive")
    assert data.columns[-1] == RawColumn("levels", ("north",))
    np.testing.assert_array_equal(np.sort(X[:, -1]), [0] * 50 + [NAN] * 70)
    written(first.assign(day=1.5), "csv", folder, "b")
    with pytest.raises(DataError, match=r"a\.csv: column day holds times, in .*b\.csv numbers"):
        opened(folder)


@pytest.mark.parametrize("kind", ["csv", "parquet", "store"])
def test_known_columns_are_read_as_such(kind, table, tmp_path):
    if kind == "store":
        path = tmp_path / "s.zarr"
        convert(written(table, "parquet", tmp_path), path, target="y", categorical=["code"])
    else:
        path = written(table, kind, tmp_path)
    columns = (RawColumn("levels", ("Oslo", "Lima")), RawColumn("time"), RawColumn())
    features = ("town", "day", "size")
    options = {"features": features, "require_target": False, "target": None}
    data, X = opened(path, columns=columns, **options)
    assert data.columns == columns
    whole = expected_matrix(table)
    towns = whole[:, 1]
    np.testing.assert_array_equal(
        X[:, 0], np.select([np.isnan(towns), towns == 2], [NAN, 0], UNSEEN)
    )
    np.testing.assert_array_equal(X[:, 1:], whole[:, [4, 0]])
    for wrong, found in ((0, "town"), (1, "day")):
        others = tuple(RawColumn() if j == wrong else c for j, c in enumerate(columns))
        with pytest.raises(DataError, match=rf"column {found} .*(not numeric|expected numbers)"):
            opened(path, columns=others, **options)
    others = (*columns[:2], RawColumn("time"))
    with pytest.raises(DataError, match=r"column size holds .*; expected times"):
        opened(path, columns=others, **options)


def test_arrays_hold_no_levels(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((3, 1)), y=np.ones(3))
    with pytest.raises(DataError, match="is an array of numbers; expected a table with texts"):
        open_dataset(tmp_path / "a.npz", columns=(RawColumn("levels", ("a",)),))
    with pytest.raises(DataError, match="convert the table again to have x0 as levels"):
        open_dataset(tmp_path / "a.npz", categorical=["x0"])


@pytest.mark.parametrize("rows", [4096, 10_001])
def test_a_store_is_the_same_for_any_blocks(rows, tmp_path):
    i = np.arange(20_000)
    frame = pd.DataFrame({"t": np.array(["b", "a", "c"], object)[i % 3], "x": i / 2, "y": 1.0})
    frame.loc[5_000:16_000, "t"] = None  # a whole chunk without one
    for name, group in (("a", rows), ("b", 20_000)):
        frame.to_parquet(tmp_path / f"{name}.parquet", row_group_size=group)
        convert(tmp_path / f"{name}.parquet", tmp_path / f"{name}.zarr", target="y", chunk_bytes=1)
    one, other = (
        {p.relative_to(tmp_path / f"{n}.zarr"): p.read_bytes() for p in files(tmp_path, n)}
        for n in "ab"
    )
    assert one == other
    data, X = opened(tmp_path / "a.zarr", target=None)
    levels = data.columns[0].levels
    assert levels == tuple(sorted("abc", key=frame["t"].value_counts().get, reverse=True))
    texts = [None if np.isnan(code) else levels[int(code)] for code in X[:, 0]]
    assert texts == [None if pd.isna(text) else text for text in frame["t"]]
    (tmp_path / "a.zarr/X/c/1/0").unlink()
    with pytest.raises(DataError, match="1 of 5 chunks missing"):
        opened(tmp_path / "a.zarr", target=None)
    with pytest.raises(DataError, match=r"chunk file X/c/1/0 cannot be used: missing"):
        data.X.compute(scheduler="sync")


def files(folder, name):
    return [path for path in (folder / f"{name}.zarr").rglob("*") if path.is_file()]


@pytest.fixture
def store(table, tmp_path):
    convert(written(table, "parquet", tmp_path), tmp_path / "s.zarr", target="y")
    return tmp_path / "s.zarr"


@pytest.mark.parametrize(
    "change",
    [
        lambda columns: columns[1]["levels"].reverse(),
        lambda columns: columns.pop(),
        lambda columns: columns[0].update(kind="level"),
        lambda columns: columns[1]["levels"].append("Rome"),
    ],
)
def test_a_store_with_other_columns_than_were_written_is_refused(change, store):
    metadata = json.loads((store / "zarr.json").read_text())
    change(metadata["attributes"]["columns"])
    (store / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="damaged"):
        open_dataset(store)


def test_only_stores_that_need_it_are_of_the_new_version(table, tmp_path):
    whole = table[["code", "flag", "y"]]
    for name, frame, version in (
        ("plain", whole, 3),
        ("gaps", whole.assign(a=NAN), 4),
        ("text", whole.assign(a="x"), 4),
    ):
        path = tmp_path / f"{name}.zarr"
        convert(written(frame, "parquet", tmp_path, name), path, target="y")
        attributes = zarr.open_group(path, mode="r").attrs
        assert attributes["format_version"] == version
        assert ("columns" in attributes) == (name == "text")


def test_filling_leaves_text_alone(table, tmp_path):
    path = written(table, "parquet", tmp_path)
    summary = convert(path, tmp_path / "s.zarr", target="y", impute="mean")
    assert (summary.filled, summary.missing) == (2, 1)
    X = open_dataset(tmp_path / "s.zarr").X.compute()
    assert np.argwhere(np.isnan(X)).tolist() == [[5, 1]]
    assert X[3, 0] == pytest.approx(table["size"].mean())
    with pytest.raises(ParameterError, match="dtype is 'float32', which holds times"):
        convert(path, tmp_path / "t.zarr", target="y", dtype="float32")


def test_whoever_wants_to_be_asked_is(table, tmp_path):
    path = written(table, "csv", tmp_path)
    match = r"columns town \(text: 'Oslo' in row 0\), id \(text: 'id-0' in row 0\) not numeric; enc"
    with pytest.raises(DataError, match=match):
        open_dataset(path, target="y", categories="error")
    with pytest.raises(DataError, match="X has a column that is not numbers: town"):
        given(table.drop(columns="y"), "X", categories="error")
    with pytest.raises(DataError, match="column size has no value in row 3; expected one"):
        opened(path, missing="error")
    with pytest.raises(
        DataError, match=r"in 3 of 120 rows, .* row 3 .*: size \(1\), town \(1\), day"
    ):
        convert(path, tmp_path / "s.zarr", target="y", missing="error")
    assert opened(path, missing="error", only=["code"])[1].shape == (ROWS, 1)
    with pytest.raises(ParameterError, match="missing is 'drop'; expected 'keep' or 'error'"):
        open_dataset(path, target="y", missing="drop")


@pytest.mark.parametrize("kind", ["csv", "store"])
def test_columns_are_chosen_by_name(kind, table, store, tmp_path):
    path = written(table, "csv", tmp_path) if kind == "csv" else store
    target = "y" if kind == "csv" else None
    whole = expected_matrix(table)
    data, X = opened(path, target=target, drop=["town", "code"])
    assert (data.feature_names, data.left_out) == (("size", "flag", "day"), ())
    np.testing.assert_array_equal(X, whole[:, [0, 3, 4]])
    data, X = opened(path, target=target, only=["town", "size"])
    assert data.feature_names == ("size", "town")
    assert data.columns == KNOWN[:2]
    np.testing.assert_array_equal(X, whole[:, :2])
    convert(path, tmp_path / "o.zarr", target=target, only=["town", "size"])
    np.testing.assert_array_equal(open_dataset(tmp_path / "o.zarr").X.compute(), X)
    for options in ({"drop": ["nope"]}, {"only": ["nope"]}):
        with pytest.raises(DataError, match="no column nope; columns: size, town"):
            opened(path, target=target, **options)
    with pytest.raises(ParameterError, match="to be left out, and used: town"):
        opened(path, target=target, drop=["town"], only=["town"])


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


def test_info_shows_levels_and_times(table, tmp_path):
    path = written(table, "csv", tmp_path)
    columns = {column.name: column for column in describe(path, target="y").columns}
    counts = table["town"].value_counts()
    assert columns["town"].frequent == tuple(counts.items())
    assert (columns["town"].levels, columns["town"].missing) == (3, 1)
    assert columns["day"].minimum == (DAYS[0] - pd.Timestamp(0)).total_seconds()
    shown = CliRunner().invoke(app, ["info", str(path), "--target", "y"], terminal_width=300)
    assert "3 levels: Rome (" in shown.output
    assert "2024-02-28" in shown.output
    assert "left out, since its texts name the rows: id" in shown.output
    made = CliRunner().invoke(app, ["info", str(path), "--target", "y", "--drop", "id", "--json"])
    assert json.loads(made.stdout.splitlines()[-1])["ids"] == []


def test_the_command_tells_of_levels_that_it_does_not_know(table, tmp_path):
    whole = table.dropna()
    old, new = (
        written(whole.assign(town=towns), "csv", tmp_path, name)
        for name, towns in (("old", whole["town"]), ("new", ["Lima"] * 7 + ["Rome"] * 110))
    )
    run, model = CliRunner(), f"{tmp_path}/m.zarr"
    layers = np.ones((5, 2)), np.ones(2), np.ones((2, 1)), np.ones(1)
    Network(*layers, feature_names=NAMES, columns=KNOWN).save(model)
    told = run.invoke(app, ["predict", model, str(new), "--out", f"{tmp_path}/p.npy", "--json"])
    assert told.exit_code == 0, told.output
    assert "levels that the network does not know: town (7)" in told.stderr
    assert json.loads(told.stdout)["unknown_levels"] == {"town": 7}
    assert np.isfinite(np.load(tmp_path / "p.npy")).all()
    scored = run.invoke(app, ["evaluate", model, str(new), "--target", "y", "--json"])
    assert json.loads(scored.stdout)["unknown_levels"] == {"town": 7}
    known = run.invoke(app, ["evaluate", model, str(old), "--target", "y", "--json"])
    assert json.loads(known.stdout)["unknown_levels"] == {}
    refused = run.invoke(
        app, ["train", str(old), "--out", "x.zarr", "--target", "y", "--categories", "error"]
    )
    assert refused.exit_code == 1
    assert "not numeric" in refused.stderr


# --- a column that is of another kind than in the fit ---------------------------------------------


def _fitted_on_both():
    table = pd.DataFrame({"size": [1.0, 2.0, 4.0] * 10, "town": ["Rome", "Oslo", "Bonn"] * 10})
    return table, AltReLURegressor(2, method="damped", max_iter=1).fit(table, table["size"])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"town": 3.0}, "column town holds numbers; expected texts such as 'Bonn'"),
        ({"size": "big"}, "column size holds text; expected numbers"),
    ],
)
def test_a_column_of_another_kind_than_in_the_fit_is_refused(other, words, lazy):
    table, model = _fitted_on_both()
    odd = table.assign(**other)
    if lazy:
        odd = dd.from_pandas(odd, npartitions=2)
    with pytest.raises(DataError, match=f"X: {words}, as in the data of the fit"):
        np.asarray(model.predict(odd))


def test_numbers_alone_in_the_fit_and_a_text_then_is_refused_by_its_name():
    table, _ = _fitted_on_both()
    y = table.pop("size")
    table = table.assign(a=y, b=y**2)[["a", "b"]]
    model = AltReLURegressor(2, method="damped", max_iter=1).fit(table, y)
    for odd in (table.assign(b="big"), pa.table(table.assign(b="big"))):
        with pytest.raises(DataError, match="X: column b holds text; expected numbers, as in"):
            model.predict(odd)
        with pytest.raises(DataError, match="X: column b holds text; expected numbers, as in"):
            model.network_.predict(odd)
    with pytest.raises(DataError, match="X has a column that is not numbers: town"):
        model.predict(table.assign(town="Rome"))
    np.testing.assert_array_equal(model.predict(table.astype(object)), model.predict(table))


def test_missing_values_alone_and_numbers_that_are_levels_are_taken():
    table, _ = _fitted_on_both()
    gaps = table.assign(town=[None, *table["town"][1:]])
    model = AltReLURegressor(2, method="damped", max_iter=1).fit(gaps, table["size"])
    lost = model.predict(table.assign(town=np.nan))
    np.testing.assert_array_equal(lost, model.predict(table.assign(town=None)))
    codes = table.assign(town=np.tile(["1", "2", "x"], 10))
    model = AltReLURegressor(2, method="damped", max_iter=1).fit(codes, table["size"])
    expected = model.predict(codes.assign(town="2"))
    np.testing.assert_array_equal(model.predict(codes.assign(town=2)), expected)


def test_categories_of_numbers_that_dask_does_not_know_are_numbers_as_in_pandas():
    table, _ = _fitted_on_both()
    table = table.assign(code=pd.Categorical([1, 2, 3] * 10))
    y = table.pop("size")
    lazy = dd.from_pandas(table, npartitions=3)
    lazy["code"] = lazy["code"].cat.as_unknown()
    lazy["town"] = lazy["town"].astype("category").cat.as_unknown()
    quick = {"method": "damped", "max_iter": 1, "random_state": 0}
    model = AltReLURegressor(2, **quick).fit(lazy, dd.from_pandas(y, npartitions=3))
    assert [column.kind for column in model.network_.columns] == ["levels", "number"]
    for each in (lazy, table):
        np.testing.assert_allclose(
            np.asarray(model.predict(each)),
            AltReLURegressor(2, **quick).fit(table, y).predict(table),
        )
    only = AltReLURegressor(2, **quick).fit(lazy[["code"]], dd.from_pandas(y, npartitions=3))
    assert only.network_.columns is None
    assert len(np.asarray(only.predict(lazy[["code"]]))) == 30
