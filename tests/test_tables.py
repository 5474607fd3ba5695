"""Tables as they come become the same numbers everywhere: in files, frames, folders and stores."""

from __future__ import annotations

import json

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import zarr
from mixed_tables import (
    DAYS,
    FILES,
    KNOWN,
    NAMES,
    ROWS,
    expected_matrix,
    make_table,
    opened,
    written,
)
from typer.testing import CliRunner

from altrelu_dist.cli.app import app
from altrelu_dist.data import convert, describe, open_dataset
from altrelu_dist.encoding.raw import UNSEEN, RawColumn
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.frames import given
from altrelu_dist.inputs import lazy_array
from altrelu_dist.network import Network

NAN = np.nan


@pytest.fixture(scope="module")
def table():
    return make_table()


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
