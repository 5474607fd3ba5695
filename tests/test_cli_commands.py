"""The `altrelu` command in this process: help, what each command says, and errors in one line."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
from commands import QUICK, frame, passes, refuses, run, snapshot
from typer.testing import CliRunner

from altrelu_dist.cli.app import app
from altrelu_dist.estimators import AltReLURegressor
from altrelu_dist.network import Network
from altrelu_dist.runs.output import number


@pytest.fixture(autouse=True)
def here(trained_folder):
    return trained_folder


COMMANDS = ("convert", "info", "train", "evaluate", "predict", "report", "export", "demo")


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


def test_the_demo_leaves_a_folder_that_is_not_its_own(here):
    before = snapshot(here)
    assert "earlier demo" in refuses("demo", "--out", here)
    assert snapshot(here) == before


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
