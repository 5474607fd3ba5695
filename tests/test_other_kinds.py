"""Columns that hold another kind than elsewhere: times as texts, and numbers where texts were."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from commands import passes, refuses
from oracles import same

from altrelu_dist import AltReLURegressor, open_dataset
from altrelu_dist.errors import DataError

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
    if ending != "zarr":
        told = passes("predict", "m.zarr", f"n.{ending}", "--out", "p.csv").stderr
        assert "200 rows have missing" in told
    with pytest.raises(DataError, match="expected texts such as"):
        AltReLURegressor.load("m.zarr").predict(frame().assign(town=7)[["a", "town", "when"]])
