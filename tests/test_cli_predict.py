"""`altrelu predict` in this process, and how commands find the columns that a network takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import QUICK, frame, passes, refuses, snapshot

from altrelu_dist.network import Network


@pytest.fixture(autouse=True)
def here(trained_folder):
    return trained_folder


@pytest.mark.parametrize("ending", ["parquet", "csv", "npy", "zarr"])
def test_predictions_in_every_format_are_the_networks(ending):
    passes("predict", "model.zarr", "data.parquet", "--out", f"p.{ending}")
    if ending == "parquet":
        found = pd.read_parquet("p.parquet")["target"].to_numpy()
    elif ending == "csv":
        assert Path("p.csv").read_text().startswith("target\n")
        found = np.loadtxt("p.csv", skiprows=1)
    elif ending == "npy":
        found = np.load("p.npy")
    else:
        import zarr

        found = zarr.open_group("p.zarr", mode="r")["y"][:, 0]
    wanted = Network.load("model.zarr").predict(frame()[["a", "b", "c"]])[:, 0]
    np.testing.assert_array_equal(found, wanted)


def test_columns_are_found_by_name():
    shuffled = frame()[["c", "target", "a", "b"]]
    shuffled.to_csv("shuffled.csv", index=False)
    passes("predict", "model.zarr", "shuffled.csv", "--out", "by_name.npy")
    passes("predict", "model.zarr", "data.zarr", "--out", "in_order.npy")
    np.testing.assert_allclose(np.load("by_name.npy"), np.load("in_order.npy"), rtol=1e-12)


def test_other_columns_are_named():
    frame().drop(columns="b").assign(z=1.0, w=2.0).to_csv("other.csv", index=False)
    for command in (("predict", "model.zarr", "other.csv", "--out", "p.csv"),
                    ("evaluate", "model.zarr", "other.csv")):  # fmt: skip
        assert "no column b; columns: a, c, target, z, w" in refuses(*command)
    assert not Path("p.csv").exists()


def test_columns_that_are_not_needed_are_ignored_in_one_line():
    more = {"id": range(300), "note": "hello", "day": pd.Timestamp("2020-01-01")}
    frame().assign(**more).to_csv("more.csv", index=False)
    line = "columns that the network does not need are ignored: id, note, day\n"
    passes("predict", "model.zarr", "data.parquet", "--out", "plain.npy")
    result = passes("predict", "model.zarr", "more.csv", "--out", "p.npy")
    assert result.stderr.count(line) == 1
    np.testing.assert_allclose(np.load("p.npy"), np.load("plain.npy"), rtol=1e-12)
    plain = json.loads(passes("evaluate", "model.zarr", "data.parquet", "--json").stdout)
    result = passes("evaluate", "model.zarr", "more.csv", "--json")
    assert result.stderr.count(line) == 1
    assert json.loads(result.stdout)["mse"] == pytest.approx(plain["mse"])
    frame().assign(target="unknown").to_csv("unknown.csv", index=False)
    assert "ignored" not in passes("predict", "model.zarr", "unknown.csv", "--out", "u.npy").stderr
    np.testing.assert_allclose(np.load("u.npy"), np.load("plain.npy"), rtol=1e-12)


def test_an_index_that_is_left_out_is_said():
    table = frame()
    table.index = pd.Index(np.arange(300)[::-1], name="row")
    table.to_parquet("row.parquet")
    line = "left out, as an index: row"
    assert line in passes("convert", "row.parquet", "row.zarr", "--target", "target").stdout
    assert line in passes("info", "row.parquet").stdout
    trained = passes("train", "row.parquet", "--target", "target", "--hidden", 3,
                     "--out", "row-model.zarr", *QUICK)  # fmt: skip
    assert trained.stderr.count(line) == 1
    assert Network.load("row-model.zarr").feature_names == ("a", "b", "c")


def test_a_run_that_begins_with_a_network_finds_its_columns():
    frame()[["c", "target", "b", "a"]].to_csv("shuffled.csv", index=False)
    start = ("--hidden", 3, "--warm-start", "model.zarr", *QUICK)
    for data, out in (("data.parquet", "straight.zarr"), ("shuffled.csv", "shuffled.zarr")):
        passes("train", data, "--target", "target", "--out", out, *start)
    one, two = (Network.load(name) for name in ("straight.zarr", "shuffled.zarr"))
    assert one.feature_names == two.feature_names == ("a", "b", "c")
    np.testing.assert_allclose(one.hidden_weights, two.hidden_weights, rtol=1e-6)
    frame().drop(columns="a").assign(z=1.0).to_csv("other.csv", index=False)
    assert "without a and with z" in refuses(
        "train", "other.csv", "--target", "target", "--out", "new.zarr", *start
    )


def test_a_run_on_arrays_knows_no_names():
    columns = frame()
    np.savez("rows.npz", X=columns[["a", "b", "c"]].to_numpy(), y=columns["target"].to_numpy())
    passes("train", "rows.npz", "--hidden", 3, "--out", "rows-model.zarr", *QUICK)
    network = Network.load("rows-model.zarr")
    assert network.feature_names is None
    result = passes("predict", "rows-model.zarr", "rows.npz", "--out", "p.npy")
    assert "position" not in result.stderr
    columns.rename(columns={"target": "y"}).to_csv("rows.csv", index=False)
    result = passes("predict", "rows-model.zarr", "rows.csv", "--out", "q.npy")
    assert result.stderr.count("the network knows no names of columns; taken by position: a") == 1
    np.testing.assert_allclose(np.load("p.npy"), np.load("q.npy"), rtol=1e-12)


def test_arrays_without_names_go_by_position():
    columns = frame()[["a", "b", "c"]].to_numpy()
    np.save("X.npy", columns)
    passes("predict", "model.zarr", "X.npy", "--out", "p.npy")
    np.testing.assert_array_equal(
        np.load("p.npy"), Network.load("model.zarr").predict(columns)[:, 0]
    )
    np.save("X.npy", columns[:, :2])
    assert "has 2 columns without names; expected 3: a, b, c" in refuses(
        "predict", "model.zarr", "X.npy", "--out", "q.npy"
    )


def test_rows_with_missing_values_are_counted_and_stay_in_place():
    holes = frame(10)[["a", "b", "c"]]
    holes.iloc[3, 1] = np.nan
    holes.to_csv("holes.csv", index=False)
    result = passes("predict", "model.zarr", "holes.csv", "--out", "p.npy")
    assert "1 rows have missing" in result.stderr
    assert np.flatnonzero(np.isnan(np.load("p.npy"))).tolist() == [3]


def test_predict_refuses_before_it_works(here):
    assert ".parquet, .csv, .npy, .zarr" in refuses(
        "predict", "model.zarr", "data.zarr", "--out", "p.txt"
    )
    Path("p.csv").write_text("mine")
    assert "p.csv" in refuses("predict", "model.zarr", "data.zarr", "--out", "p.csv")
    assert Path("p.csv").read_text() == "mine"
    before = snapshot(here / "data.zarr")
    for out in ("data.zarr", "data.zarr/p.csv", "model.zarr", "model.zarr/p.csv"):
        refuses("predict", "model.zarr", "data.zarr", "--out", out, "--overwrite")
    table = snapshot(here / "data.parquet")
    for data in ("data.parquet", "*.parquet"):
        line = refuses("predict", "model.zarr", data, "--out", "data.parquet", "--overwrite")
        assert "is one of the inputs" in line
    assert snapshot(here / "data.zarr") == before
    assert snapshot(here / "data.parquet") == table


def test_a_failure_while_writing_leaves_the_old_file(here):
    chunk = next(path for path in Path("data.zarr/X/c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    Path("p.csv").write_text("mine")
    line = refuses("predict", "model.zarr", "data.zarr", "--out", "p.csv", "--overwrite")
    assert "X/c/" in line
    assert Path("p.csv").read_text() == "mine"
    assert not [path for path in here.iterdir() if path.name.startswith(".")]
