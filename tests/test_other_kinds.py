"""Columns that hold another kind than elsewhere: times as texts, and numbers where texts were."""

from __future__ import annotations

from itertools import permutations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from commands import passes, refuses
from oracles import same

from altrelu_dist import AltReLURegressor, open_dataset
from altrelu_dist.data.columns import Found, LevelCounts, OtherKindError, coded
from altrelu_dist.data.source import Wanted
from altrelu_dist.data.tables import coding_of
from altrelu_dist.data.zarr_store import ZarrSource
from altrelu_dist.encoding.raw import RawColumn
from altrelu_dist.errors import DataError, MissingValuesError, Remedy
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Rows
from altrelu_dist.moments.summary import summarise

QUICK = ("--workers", 0, "--hidden", 2, "--method", "damped", "--max-iter", 1)
SPELLINGS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ")


def frame(rows=200):
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"a": rng.normal(size=rows), "town": rng.choice(["Rome", "Oslo"], rows)})
    made["when"] = pd.to_datetime("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**7, rows), "s")
    made["y"] = made["a"] + (made["town"] == "Oslo")
    return made


def written(spelling, dtype=str):
    return frame().assign(when=frame()["when"].dt.strftime(spelling).astype(dtype))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_parquet("t.parquet", index=False)


def in_a_store(data):
    data.to_parquet("text.parquet", index=False)
    passes("convert", "text.parquet", "text.zarr", "--target", "y", "--overwrite")
    return open_dataset("text.zarr", target=None)


def in_a_file(data):
    data.to_parquet("text.parquet", index=False)
    return open_dataset("text.parquet", target="y")


@pytest.mark.parametrize("read", [in_a_file, in_a_store])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("dtype", [str, "category"])
def test_texts_of_times_are_times_in_files(read, spelling, dtype):
    expected = open_dataset("t.parquet", target="y")
    found = read(written(spelling, dtype))
    assert found.columns == expected.columns
    assert [column.kind for column in found.columns] == ["number", "levels", "time"]
    same(found.X.compute(), expected.X.compute())


@pytest.mark.parametrize("table", [lambda data: data, lambda data: dd.from_pandas(data, 3)])
def test_texts_of_times_are_times_in_tables(table):
    options = {"method": "damped", "max_iter": 1, "random_state": 0}

    def fitted(data):
        return AltReLURegressor(2, **options).fit(data[["a", "town", "when"]], data["y"])

    expected, found = fitted(frame()), fitted(table(written(SPELLINGS[0])))
    assert found.network_.columns == expected.network_.columns
    X = frame()[["a", "town", "when"]]
    np.testing.assert_allclose(found.predict(X), expected.predict(X), rtol=1e-6)
    same(found.predict(written(SPELLINGS[2])[[*X]]), found.predict(X))


def with_zones(row, text):
    """A text of a time, of every other row with a zone, of every seventh in another one."""
    if row % 7 == 0:
        there = pd.Timestamp(text) + pd.Timedelta(hours=2)
        return f"{there:%Y-%m-%dT%H:%M:%S}+02:00"
    return text + "Z" * (row % 2)


def in_lines(data):
    data.to_json("text.jsonl", orient="records", lines=True, double_precision=15)
    return open_dataset("text.jsonl", target="y")


def in_csv(data):
    data.to_csv("text.csv", index=False)
    return open_dataset("text.csv", target="y")


@pytest.mark.parametrize("read", [in_a_file, in_a_store, in_lines, in_csv])
def test_each_text_says_whether_it_has_a_zone_and_an_empty_one_is_missing(read):
    data = written(SPELLINGS[0])
    data["when"] = [with_zones(row, text) for row, text in enumerate(data["when"])]
    data.loc[9, "when"] = ""
    found = read(data)
    assert [column.kind for column in found.columns] == ["number", "levels", "time"]
    expected = frame()["when"].to_numpy("M8[s]").astype(float)
    expected[9] = np.nan
    np.testing.assert_array_equal(found.X.compute()[:, 2], expected)


@pytest.mark.parametrize(
    ("column", "are_times"),
    [
        (["2024-01-01", "2024-01-01 10:00Z", "", None, "2024-01-01 10:00-02:30"], True),
        (["2024-01-01", "2024-01-01 10:00Z", "", None, "2024-01"], False),
        (["", None, ""], False),
        ([None, None], False),
    ],
)
def test_whether_texts_are_times_follows_from_the_rows_alone(column, are_times):
    def counts(texts):
        made = LevelCounts()
        made.add(pa.chunked_array([pa.array(texts, pa.string())]), numeric=False)
        return made

    assert counts(column).are_times is are_times
    for order in permutations(column):
        nothing = LevelCounts()  # as of a file in which the column has no value, and no type
        nothing.add(pa.chunked_array([pa.nulls(2)]), numeric=True)
        for text in order:
            nothing.merge(counts([text]))
        assert nothing.are_times is are_times


def test_one_text_that_is_no_time_makes_them_texts():
    data = written("%Y-%m-%d")
    data.loc[7, "when"] = "soon"
    (column,) = open_dataset_columns(data, "when")
    assert column.kind == "levels"
    assert "soon" in column.levels


def test_who_says_so_has_levels():
    (column,) = open_dataset_columns(written("%Y-%m-%d"), "when", categorical=["when"])
    assert column.kind == "levels"


def open_dataset_columns(data, name, **options):
    data.to_parquet("text.parquet", index=False)
    found = open_dataset("text.parquet", target="y", **options)
    return [c for n, c in zip(found.feature_names, found.columns, strict=True) if n == name]


def test_a_text_that_is_no_time_is_named_where_times_are_known():
    passes("train", "t.parquet", "--target", "y", "--out", "m.zarr", *QUICK)
    data = written(SPELLINGS[0])
    data.loc[7, "when"] = "soon"
    data.to_parquet("text.parquet", index=False)
    line = refuses("evaluate", "m.zarr", "text.parquet")
    assert "text.parquet: column when holds the text 'soon'; expected times" in line


@pytest.mark.parametrize("ending", ["csv", "parquet", "zarr"])
def test_numbers_where_texts_were_are_refused_and_missing_values_are_not(ending):
    passes("train", "t.parquet", "--target", "y", "--out", "m.zarr", *QUICK)

    def wrote(town):
        data = frame().assign(town=town)
        if ending == "csv":
            data.to_csv("n.csv", index=False)
            return
        data.to_parquet("n.parquet", index=False)
        if ending == "zarr":
            passes("convert", "n.parquet", "n.zarr", "--target", "y", "--overwrite")

    wrote(7)
    for command in (("evaluate",), ("predict", "--out", "p.csv")):
        line = refuses(command[0], "m.zarr", f"n.{ending}", *command[1:])
        assert "town" in line
        assert "expected texts" in line
    wrote(np.nan)
    told = passes("predict", "m.zarr", f"n.{ending}", "--out", "p.csv").stderr
    assert "200 rows have missing" in told
    with pytest.raises(DataError, match="expected texts such as"):
        AltReLURegressor.load("m.zarr").predict(frame().assign(town=7)[["a", "town", "when"]])


@pytest.mark.parametrize("missing", [{"town": None}, {"when": None}, {"town": None, "when": None}])
@pytest.mark.parametrize("dtype", ["float64", "string"])
def test_columns_that_lack_all_values_pass_for_any_kind_in_a_store(missing, dtype):
    columns = open_dataset("t.parquet", target="y").columns
    data = frame()
    for name in missing:
        data[name] = pd.Series([None] * len(data), dtype=dtype)
    in_a_store(data)
    source = ZarrSource.open("text.zarr", Wanted())
    known = dict(zip(source.feature_names, columns, strict=True))
    (part,) = source.with_columns(known).parts()
    found = pd.DataFrame(part.X.read(0, len(data)), columns=[*known])
    assert [*found.columns[found.isna().all()]] == [*missing]


def test_numbers_are_refused_where_texts_or_times_were_in_a_store_of_numbers():
    in_a_store(frame().assign(town=7.0, when=None).astype({"when": "float64"}))
    source = ZarrSource.open("text.zarr", Wanted())
    columns = open_dataset("t.parquet", target="y").columns
    (part,) = source.with_columns(dict(zip(source.feature_names, columns, strict=True))).parts()
    with pytest.raises(DataError, match=r"text\.zarr: column town holds numbers; expected texts"):
        part.X.read(0, 9)


@pytest.mark.parametrize("texts", [["7"], ["7", "Rome"], [None, "Rome"]])
def test_numbers_where_texts_were_are_known_by_type_and_levels_not_by_the_block(texts):
    column = pa.chunked_array([pa.array(texts, pa.string())])
    levels = RawColumn("levels", ("Rome", "Oslo"))

    def codes(column, *, empty):
        found = Found("number", np.dtype(float), "double", as_text=True, empty=empty)
        return coded(column, coding_of("t.csv", "town", found, levels), np.dtype(float))

    with pytest.raises(OtherKindError, match="holds numbers; expected texts such as 'Rome'"):
        codes(column, empty=False)
    assert np.isnan(codes(pa.chunked_array([pa.nulls(2, pa.string())]), empty=False)).all()
    expected = [{"7": -1, "Rome": 0, None: np.nan}[text] for text in texts]
    np.testing.assert_array_equal(codes(column, empty=True), expected)


def test_the_mean_is_advised_only_where_it_can_fill():
    passes("train", "t.parquet", "--target", "y", "--out", "m.zarr", *QUICK)
    some, none = np.arange(200) % 2 == 0, np.zeros(200, dtype=bool)
    for name, there, advised in [("a", some, True), ("town", none, False), ("when", none, False)]:
        data = frame()
        data[name] = data[name].where(there)
        data.to_parquet("text.parquet", index=False)
        line = refuses("evaluate", "m.zarr", "text.parquet")
        assert f"in {name} (" in line
        assert ("--impute mean" in line) is advised
    kinds = (RawColumn(), RawColumn("levels", ("Rome",)), RawColumn("time"))
    for j, kind in enumerate(kinds):
        X = np.ones((4, 3))
        X[0, j] = np.nan
        summary = summarise(Rows(0, X, np.ones((4, 1)), None))
        with pytest.raises(MissingValuesError) as told:
            check_summary(summary, None, None, kinds=kinds)
        assert (Remedy.IMPUTE in told.value.remedies) is (kind.kind == "number")


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
