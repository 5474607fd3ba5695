"""The `altrelu` command in this process: every command's result, and every bad input's one line."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from altrelu_dist.cli.app import app
from altrelu_dist.data import DataSet
from altrelu_dist.estimators import AltReLURegressor
from altrelu_dist.interrupts import Interrupts
from altrelu_dist.network import Network
from altrelu_dist.runs import progress
from altrelu_dist.runs.output import number
from altrelu_dist.runs.training import Prepared, TrainOptions

COMMANDS = ("convert", "info", "train", "evaluate", "predict", "report", "export", "demo")
QUICK = ("--workers", 0, "--method", "alternating", "--max-iter", 2)


def run(*arguments):
    """Run a command; the exit code is the test's business, a traceback never is."""
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def passes(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refuses(*arguments, code=1):
    """The one line of an error."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    *before, line = result.stderr.strip().splitlines()
    assert not any("error" in text or "Traceback" in text for text in before)
    return line


def frame(rows=300):
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["a", "b", "c"])
    made["target"] = np.maximum(made["a"], 0) * 3 + made["b"] + rng.normal(size=rows) / 10
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a table, a store of it and a network trained on it."""
    folder = tmp_path_factory.mktemp("made")
    frame().to_parquet(folder / "data.parquet", index=False)
    passes("convert", folder / "data.parquet", folder / "data.zarr", "--target", "target")
    passes("train", folder / "data.zarr", "--hidden", 3, "--out", folder / "model.zarr", *QUICK)
    return folder


@pytest.fixture(autouse=True)
def here(made, tmp_path, monkeypatch):
    """A fresh copy of it, as the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(path):
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {file: file.read_bytes() for file in files}


# --- help, version, usage ---------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    shown = re.sub(r"\s+", " ", passes(command, "--help").stdout)
    assert f"Example: altrelu {command}" in shown


def test_help_and_version():
    listed = passes("--help").stdout
    assert all(command in listed for command in COMMANDS)
    assert "--install-completion" in listed
    assert re.fullmatch(r"altrelu-dist \d+\.\d+.*\n", passes("--version").stdout)


def test_usage_errors_are_one_line_and_code_2():
    refused = refuses("--bogus", code=2)
    assert "--bogus" in refused
    assert "see 'altrelu --help'" in refused
    assert "--hidden" in refuses("train", "data.zarr", "--hidden", 0, "--out", "x.zarr", code=2)
    assert "--out" in refuses("train", "data.zarr", "--hidden", 3, code=2)
    assert "search" in refuses(
        "train", "data.zarr", "--hidden", 3, "--out", "x.zarr", "--method", "sgd", code=2
    )
    assert "'train'" in refuses("trian", "data.zarr", code=2)


# --- the commands -----------------------------------------------------------------------------


def test_convert_says_what_it_wrote():
    result = passes("convert", "data.parquet", "new.zarr", "--target", "target")
    assert "300 rows, features: 3, targets: 1" in result.stdout
    record = json.loads(
        passes(
            "convert", "data.parquet", "new.zarr", "--target", "target", "--overwrite", "--json"
        ).stdout
    )
    assert record["rows"] == 300
    assert record["n_features"] == 3


def test_convert_missing_values():
    holes = frame(50)
    holes.iloc[3, 1] = np.nan
    holes.iloc[7, 0] = np.inf
    holes.to_csv("holes.csv", index=False)
    of = ("convert", "holes.csv", "new.zarr", "--target", "target")
    assert "1 of 50 rows" in refuses(*of)  # the infinity
    line = refuses(*of, "--missing", "error")
    assert "2 of 50 rows" in line
    assert "row 3" in line
    assert "--drop-missing" in line
    assert not Path("new.zarr").exists()
    dropped = passes("convert", "holes.csv", "new.zarr", "--target", "target", "--drop-missing")
    assert "2 rows left out" in dropped.stdout
    filled = passes("convert", "holes.csv", "mean.zarr", "--target", "target", "--impute", "mean")
    assert "2 values filled" in filled.stdout


def test_info_finds_constant_columns():
    frame().assign(same=4.0).to_parquet("same.parquet", index=False)
    result = passes("info", "same.parquet", "--target", "target")
    assert re.search(r"same\b.*constant", result.stdout)
    record = json.loads(passes("info", "same.parquet", "--json").stdout)
    assert record["constant"] == ["same"]


def test_train_evaluate_predict():
    trained = json.loads(
        passes(
            *("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", "--json"),
            *("--test-fraction", 0.25, *QUICK),
        ).stdout
    )
    for key in ("mse", "r2", "test_mse", "test_r2", "seconds", "peak_memory"):
        assert np.isfinite(trained[key]), key
    assert trained["iterations"] >= 2
    assert trained["passes"] >= 2
    assert trained["stop_reason"] in ("max_iter", "converged")
    assert trained["peak_memory"] == trained["memory"]["client"]
    assert trained["rows"] == 225

    scored = json.loads(passes("evaluate", "new.zarr", "data.zarr", "--json").stdout)
    table = passes("evaluate", "new.zarr", "data.parquet").stdout
    assert "target" in table
    assert "300" in table
    network = Network.load("new.zarr")
    assert network.feature_names == ("a", "b", "c")
    data = frame()
    error = data["target"] - network.predict(data[["a", "b", "c"]])[:, 0]
    assert scored["mse"] == pytest.approx(np.mean(error**2))
    assert scored["targets"][0]["mae"] == pytest.approx(np.mean(np.abs(error)))
    assert scored["r2"] == pytest.approx(1 - np.mean(error**2) / data["target"].var(ddof=0))


def test_early_stopping_and_what_the_last_half_bought():
    options = ("train", "data.zarr", "--hidden", 6, "--out", "new.zarr", "--overwrite")
    options += ("--workers", 0, "--method", "damped", "--max-iter", 8)
    early = ("--early-stopping", "--validation-fraction", 0.3)
    told = passes(*options, *early).stdout
    model = AltReLURegressor.load("new.zarr")
    assert model.validation_fraction == 0.3
    kept = number(model.history_[-1]["validation_loss"])
    assert f"kept: {model.network_.n_hidden} neurons, MSE {kept} on the rows held out" in told
    bought = "the second half of that time lowered the training loss by" in told
    assert bought == math.isfinite(model.last_doubling_)
    record = json.loads(passes(*options, "--json").stdout)
    assert "validation_mse" not in record
    assert record["last_doubling"] is None or 0 <= record["last_doubling"] <= 1
    refused = run(*options, *early[1:])
    assert refused.exit_code == 1
    assert "--validation-fraction is for early stopping" in refused.stderr


def test_the_same_seed_gives_the_same_network():
    for name in ("one.zarr", "two.zarr"):
        passes("train", "data.zarr", "--hidden", 3, "--out", name, "--seed", 5, *QUICK)
    one, two = (Network.load(name) for name in ("one.zarr", "two.zarr"))
    np.testing.assert_array_equal(one.hidden_weights, two.hidden_weights)


def test_a_saved_run_opens_as_an_estimator():
    model = AltReLURegressor.load("model.zarr")
    assert model.history_
    assert list(model.feature_names_in_) == ["a", "b", "c"]


def test_quiet_is_silent():
    result = passes("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", "--quiet", *QUICK)
    assert result.output == ""
    assert passes("predict", "new.zarr", "data.zarr", "--out", "p.npy", "--quiet").output == ""
    assert passes("convert", "data.parquet", "q.zarr", "--quiet").output == ""


def test_json_is_all_of_stdout_and_progress_is_on_stderr():
    result = passes("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", "--json", *QUICK)
    assert json.loads(result.stdout)["out"] == "new.zarr"
    for word in ("alternating", "iteration", "loss", "passes", "rows/s"):
        assert word in result.stderr


# --- predict ----------------------------------------------------------------------------------


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


# --- bad inputs of train ----------------------------------------------------------------------


def write_bad_inputs():
    good = frame(20)
    Path("empty.csv").touch()
    Path("not.parquet").write_text("hello")
    Path("cut.parquet").write_bytes(Path("data.parquet").read_bytes()[:-100])
    good.to_csv("good.csv", index=False)
    good.assign(target="x").to_csv("text.csv", index=False)
    good.assign(b="x").to_csv("words.csv", index=False)
    good.iloc[:0].to_csv("header.csv", index=False)
    good.iloc[:1].to_csv("single.csv", index=False)
    good[["target"]].to_csv("alone.csv", index=False)
    holes = good.copy()
    holes.iloc[4, 1] = np.nan
    holes.to_csv("holes.csv", index=False)
    np.savez("uneven.npz", X=np.zeros((5, 2)), y=np.zeros(4))


@pytest.mark.parametrize(
    ("store", "target", "words"),
    [
        ("nowhere.zarr", None, ["nowhere.zarr", "no such file"]),
        ("empty.csv", "target", ["empty"]),
        ("not.parquet", "target", ["not a Parquet file"]),
        ("cut.parquet", "target", ["cut short"]),
        ("good.csv", None, ["--target", "columns: a, b, c, target"]),
        ("good.csv", "price", ["no column price"]),
        ("text.csv", "target", ["target target has one class: x", "expected two"]),
        ("header.csv", "target", ["no rows"]),
        ("single.csv", "target", ["single row"]),
        ("alone.csv", "target", ["no feature columns"]),
        ("uneven.npz", None, ["4 rows", "5"]),
        ("model.zarr", None, ["altrelu-network", "not a data set"]),
    ],
)
def test_bad_data_is_one_line_and_writes_nothing(here, store, target, words):
    write_bad_inputs()
    before = set(here.iterdir())
    named = [] if target is None else ["--target", target]
    line = refuses("train", store, *named, "--hidden", 3, "--out", "new.zarr", *QUICK)
    for word in words:
        assert word in line
    assert set(here.iterdir()) == before


def test_who_wants_to_be_asked_is_asked_before_there_is_a_network():
    write_bad_inputs()
    of = ("--target", "target", "--hidden", 3, "--out", "new.zarr", *QUICK)
    asked = refuses("train", "words.csv", *of, "--categories", "error")
    assert "feature column" in asked
    assert "not numeric" in asked
    line = refuses("train", "holes.csv", *of, "--missing", "error")
    assert "column b has no value in row 4" in line
    assert not Path("new.zarr").exists()


def test_damaged_store_names_its_chunk():
    chunk = next(path for path in Path("data.zarr/X/c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    assert "X/c/" in refuses("info", "data.zarr")
    assert "X/c/" in refuses("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", *QUICK)
    chunk.unlink()
    assert "missing" in refuses("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", *QUICK)
    assert not Path("new.zarr").exists()


def test_existing_out_is_refused_before_the_data_is_opened(here):
    before = snapshot(here / "model.zarr")
    line = refuses("train", "nowhere.zarr", "--hidden", 3, "--out", "model.zarr")
    assert "model.zarr" in line
    assert "--overwrite" in line
    assert snapshot(here / "model.zarr") == before
    passes("train", "data.zarr", "--hidden", 2, "--out", "model.zarr", "--overwrite", *QUICK)
    assert Network.load("model.zarr").n_hidden == 2


def test_a_run_begins_with_a_network(here, monkeypatch):
    def trained(*options):
        record = passes("train", "data.zarr", "--json", "--overwrite", *options)
        return json.loads(record.stdout)["mse"]

    first = trained("--hidden", 2, "--out", "first.zarr", *QUICK)
    before = snapshot(here / "first.zarr")
    short = ("--method", "alternating", "--max-iter", 1, "--workers", 0)
    start = ("--warm-start", "first.zarr", *short)
    assert trained("--hidden", 2, "--out", "second.zarr", *start) <= first
    assert trained("--hidden", 2, "--out", "third.zarr", *short) > first
    # From a checkpoint, in another folder, without it being named again.
    trained("--hidden", 2, "--out", "second.zarr", "--checkpoint", "kept", *start)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    passes("train", "--resume", "../kept", "--overwrite", "--workers", 0)
    monkeypatch.chdir(here)
    assert "no such model" in refuses(
        "train", "data.zarr", "--hidden", 2, "--out", "new.zarr", "--warm-start", "nowhere.zarr"
    )
    line = refuses(
        *("train", "data.zarr", "--hidden", 2, "--out", "new.zarr", "--negative-slope", 0.1),
        *("--warm-start", "first.zarr"),
    )
    assert "--negative-slope is 0.1; that of the network" in line
    assert snapshot(here / "first.zarr") == before


# --- a committee ------------------------------------------------------------------------------

COMMITTEE = ("--workers", 0, "--max-iter", 1)


def test_without_hidden_a_run_says_what_it_chose_and_expects():
    words = ("train", "data.zarr", "--test-fraction", 0.3, *COMMITTEE)
    record = json.loads(passes(*words, "--out", "one.zarr", "--json").stdout)
    network = Network.load("one.zarr")
    assert record["method"] == "committee"
    assert record["hidden"] == network.n_hidden
    for name in ("expected_r2", "expected_r2_spread", "expected_mse", "groups"):
        assert record[name] == network.info[name]
    # Of a third of few rows: within some of its spreads.
    gap = abs(record["test_r2"] - record["expected_r2"])
    assert gap < 3 * record["expected_r2_spread"]

    shown = passes(*words, "--out", "two.zarr", "--extrapolate", "--early-stopping").stdout
    assert f"chosen: {network.n_hidden:,} neurons" in shown
    assert all(f"{group['name']} " in shown for group in record["groups"])
    expected = f"R2 {record['expected_r2']:.3f} +- {record['expected_r2_spread']:.3f}"
    test = f"on the test rows: {record['test_r2']:.3f}"
    assert f"expected on new rows: {expected} (out of fold); {test}" in shown
    assert network.target_range is not None
    assert Network.load("two.zarr").target_range is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--warm-start", "model.zarr"), "--warm-start is for one plain network"),
        (("--hidden", 3, "--extrapolate"), "--extrapolate is a choice for committees"),
        (("--hidden", 3, "--max-size", 9), "--max-size bounds the neurons of a committee"),
        (("--method", "damped", "--max-size", 9), "--max-size bounds the neurons of a committee"),
        (("--hidden", 3, "--method", "committee"), "--hidden is for one plain network"),
    ],
)
def test_what_is_not_for_a_committee_is_said_before_data_are_opened(options, words):
    assert words in refuses("train", "nowhere.zarr", "--out", "new.zarr", *options)


def test_a_committees_network_is_no_start():
    passes("train", "data.zarr", "--out", "many.zarr", *COMMITTEE)
    start = ("--hidden", 3, "--warm-start", "many.zarr")
    line = refuses("train", "nowhere.zarr", "--out", "new.zarr", *start)
    assert "--warm-start is a network over encoded columns in many.zarr, of a committee" in line


@pytest.mark.parametrize(("hidden", "times"), [(50, 1), (29, 0)])
def test_weights_near_the_rows_are_said_once(hidden, times):
    """5 for each neuron, and one: 151 and more are above half of 300 rows."""
    done = passes("train", "data.zarr", "--hidden", hidden, "--out", "new.zarr", *QUICK)
    assert done.output.count("may have fitted noise") == times
    assert ("50 neurons have 251 weights for 300 rows" in done.stderr) == times


def test_overwrite_replaces_nothing_but_a_network(here):
    before = snapshot(here / "data.zarr")
    for out in ("data.zarr", "data.parquet", "."):
        refuses("train", "data.zarr", "--hidden", 3, "--out", out, "--overwrite", *QUICK)
    assert snapshot(here / "data.zarr") == before


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ((), False),
        (("--workers", 1), True),
        (("--threads", 1), True),
        (("--memory", "1GiB"), True),
        (("--performance-report", "report.html"), True),
    ],
)
def test_small_data_is_trained_without_workers_unless_they_are_asked_for(
    monkeypatch, options, starts
):
    asked = []

    @contextmanager
    def no_workers(choice, output):
        del output
        asked.append(choice)
        yield None

    monkeypatch.setattr("altrelu_dist.cli.cluster._local", no_workers)
    monkeypatch.setattr("altrelu_dist.cli.profiles.tell_workers", lambda _: None)
    monkeypatch.setattr("altrelu_dist.cli.train.reported", lambda *_: nullcontext())
    done = passes("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", *QUICK[2:], *options)
    assert bool(asked) == starts
    assert ("trained in this process" in done.stderr) != starts


@pytest.mark.parametrize(
    ("rows", "columns", "hidden", "small"),
    [
        (10**5, 300, 8, True),  # all rows are held for the search
        (10**6, 7, 8, True),  # 64 million bytes
        (10**6, 50, 8, False),
        (10**5, 5000, 8, False),
        (10**5, 300, None, True),
        (10**6, 100, None, False),
    ],
)
def test_what_small_data_is(rows, columns, hidden, small):
    lazy = da.zeros((rows, columns), chunks=(10**4, columns))
    data = DataSet(lazy, lazy[:, :1], None, (), (), "here")
    options = TrainOptions("here", hidden, "there")
    assert Prepared(options, None, {"train": data}, {}).small == small


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_run_stopped_before_there_is_a_network_saves_nothing(here, monkeypatch, interrupted):
    before = snapshot(here)
    options = ("train", "data.zarr", "--hidden", 3, "--out", "model.zarr", "--overwrite")
    if interrupted:
        pressed = nullcontext(Interrupts(requested=True))
        monkeypatch.setattr(progress, "catch_interrupts", lambda *_, **__: pressed)
        line = refuses(*options, "--workers", 0, code=130)
        assert line == "interrupted before there was a network: nothing is saved"
    else:
        assert "--max-time" in refuses(*options, "--workers", 0, "--max-time", 0)
    assert snapshot(here) == before


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_network_is_saved_even_where_its_place_is_taken(here, monkeypatch, elsewhere):
    """The place is taken, or its folder gone, while the training goes on."""
    fit, out = AltReLURegressor.fit, Path("runs/new.zarr")
    out.parent.mkdir()

    def taken(self, *arguments, **named):
        fit(self, *arguments, **named)
        out.parent.rmdir() if elsewhere else out.write_text("theirs")
        return self

    monkeypatch.setattr(AltReLURegressor, "fit", taken)
    done = run("train", "data.zarr", "--hidden", 3, "--out", out, *QUICK)
    assert done.exit_code == 1
    assert elsewhere or out.read_text() == "theirs"
    (saved,) = (here if elsewhere else out.parent).resolve().glob("new-*.zarr")
    assert Network.load(saved).n_hidden == 3
    assert f"saved: {saved}" in done.stdout.replace("\n", "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert line.endswith(f"the network is in {saved}")


def test_a_weight_column_is_known_again():
    weighted = frame().assign(weight=np.linspace(0.1, 2, 300))
    weighted.to_parquet("weighted.parquet", index=False)
    passes("convert", "weighted.parquet", "w.zarr", "--target", "target", "--weight", "weight")
    asked = ("--target", "target", "--weight", "weight", "--hidden", 3, "--out", "w-model.zarr")
    passes("train", "weighted.parquet", *asked, *QUICK)
    scores = [
        json.loads(passes("evaluate", "w-model.zarr", data, *target, "--json").stdout)["mse"]
        for data, target in (
            ("w.zarr", ()),
            ("weighted.parquet", ()),
            ("weighted.parquet", ("--target", "target")),
        )
    ]
    assert len(set(scores)) == 1
    passes("predict", "w-model.zarr", "weighted.parquet", "--out", "p.npy")
    expected = Network.load("w-model.zarr").predict(weighted[["a", "b", "c"]])[:, 0]
    np.testing.assert_array_equal(np.load("p.npy"), expected)
    weighted[["c", "a", "b"]].to_parquet("bare.parquet", index=False)
    passes("predict", "w-model.zarr", "bare.parquet", "--out", "bare.npy")
    np.testing.assert_array_equal(np.load("bare.npy"), expected)


def test_a_score_under_early_stopping_says_which_rows_it_is_of():
    options = ("train", "data.zarr", "--hidden", 2, "--out", "new.zarr", *QUICK)
    told = passes(*options, "--early-stopping").stdout
    assert "train, held out" in told
    assert "train, held out" not in passes(*options, "--overwrite").stdout


def test_the_demo_leaves_a_folder_that_is_not_its_own(here):
    before = snapshot(here)
    assert "earlier demo" in refuses("demo", "--out", here)
    assert snapshot(here) == before


@pytest.mark.parametrize("folder", ["nowhere", "data.parquet", "/proc"])
def test_out_in_a_folder_that_cannot_be_written(folder):
    assert folder in refuses(
        "train", "data.zarr", "--hidden", 3, "--out", f"{folder}/new.zarr", *QUICK
    )


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--test-fraction", 1.5], "--test-fraction"),
        (["--test-fraction", 0.0001], "too few"),
        (["--negative-slope", 2], "--negative-slope is 2.0"),
        (["--memory", "lots"], "--memory lots"),
        (["--memory", "1MiB"], "at least"),
        (["--memory", "1GiB", "--workers", 10**6], "--workers 1000000: at most"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--workers"),
        (["--weight", "nope"], "nope"),
        (["--performance-report", "report.html"], "--performance-report is of a cluster"),
    ],
)
def test_bad_options(options, word):
    workers = [] if "--memory" in options else ["--workers", 0]
    line = refuses("train", "data.parquet", "--target", "target", "--hidden", 3, "--out", "n.zarr",
                   *options, *workers)  # fmt: skip
    assert word in line


REPORTED = (
    *("train", "data.zarr", "--hidden", 2, "--method", "damped", "--max-iter", 1),
    *("--out", "new.zarr", "--workers", 1, "--performance-report"),
)


def test_a_report_replaces_nothing(here):
    before = snapshot(here)
    assert "data.parquet: is a page, named *.html" in refuses(*REPORTED, "data.parquet")
    Path("report.html").write_text("mine")
    assert "report.html: exists already" in refuses(*REPORTED, "report.html")
    assert Path("report.html").read_text() == "mine"
    Path("report.html").unlink()
    assert snapshot(here) == before


@pytest.mark.cluster
@pytest.mark.usefixtures("here")
def test_a_report_that_cannot_be_drawn_takes_nothing_along(monkeypatch):
    @contextlib.contextmanager
    def undrawn(filename):
        yield
        raise RuntimeError(f"cannot draw {filename}")

    monkeypatch.setattr("distributed.performance_report", undrawn)
    done = passes(*REPORTED, "report.html")
    assert "report.html: the report cannot be written: cannot draw report.html" in done.stderr
    assert Network.load("new.zarr").n_hidden == 2


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "cannot connect to nonsense"),
        ("foo://x:1", "cannot connect to foo://x:1"),
        ("tls://127.0.0.1:1", "tls://127.0.0.1:1 takes certificates"),
    ],
)
def test_bad_scheduler_addresses(address, why):
    line = refuses("train", "data.zarr", "--hidden", 3, "--out", "n.zarr", "--scheduler", address)
    assert why in line


# --- bad models -------------------------------------------------------------------------------


def test_bad_models():
    assert "no such model" in refuses("evaluate", "nowhere.zarr", "data.zarr")
    assert "not a saved network" in refuses("evaluate", "data.zarr", "data.zarr")
    described = json.loads(Path("model.zarr/zarr.json").read_text())
    described["attributes"]["format_version"] = 99
    Path("model.zarr/zarr.json").write_text(json.dumps(described))
    assert "format version 99" in refuses("predict", "model.zarr", "data.zarr", "--out", "p.csv")
    Path("model.zarr/zarr.json").write_text("{")
    assert "not a saved network" in refuses("evaluate", "model.zarr", "data.zarr")


def test_targets_are_found_by_name_too():
    both = frame().assign(other=lambda rows: rows["a"] - rows["c"])
    both.to_parquet("both.parquet", index=False)
    passes("convert", "both.parquet", "xy.zarr", "--target", "target", "--target", "other")
    passes("convert", "both.parquet", "yx.zarr", "--target", "other", "--target", "target")
    passes("train", "xy.zarr", "--hidden", 3, "--out", "two.zarr", *QUICK)
    scores = [
        json.loads(passes("evaluate", "two.zarr", store, "--json").stdout)["targets"]
        for store in ("xy.zarr", "yx.zarr")
    ]
    assert [score["target"] for score in scores[0]] == ["target", "other"]
    assert scores[0] == [pytest.approx(score) for score in scores[1]]
    assert "target, other" in refuses("evaluate", "model.zarr", "xy.zarr")
    passes("predict", "two.zarr", "both.parquet", "--out", "two.csv")
    assert Path("two.csv").read_text().startswith("target,other\n")


def test_evaluate_without_a_target():
    frame()[["a", "b", "c"]].to_csv("features.csv", index=False)
    assert "--target" in refuses("evaluate", "model.zarr", "features.csv")


# --- what is nobody's fault -------------------------------------------------------------------


@pytest.fixture
def usual_logging():
    yield
    logger = logging.getLogger("altrelu_dist")
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()


@pytest.mark.usefixtures("usual_logging")
def test_an_unexpected_error_says_how_to_see_its_traceback(monkeypatch):
    def fail(*_args, **_options):
        raise KeyError("surprise")

    monkeypatch.setattr("altrelu_dist.data.describe", fail)
    line = refuses("info", "data.zarr")
    assert "unexpected KeyError" in line
    assert "--debug" in line
    result = CliRunner().invoke(app, ["--debug", "info", "data.zarr"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "KeyError: 'surprise'" in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "", "x.zarr"), ["x.zarr", "No space left on device"]),
        (MemoryError(), ["out of memory"]),
        (ImportError("no pyarrow here"), ["no pyarrow here"]),
    ],
)
def test_errors_of_the_system_are_one_line(monkeypatch, error, words):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("altrelu_dist.data.describe", fail)
    line = refuses("info", "data.zarr")
    assert all(word in line for word in words)
    assert "Traceback" not in line
