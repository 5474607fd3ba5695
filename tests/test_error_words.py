"""Errors speak of Python's parameters where Python is used, and of options where the command is."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import altrelu_dist
from altrelu_dist import AltReLURegressor, convert, evaluate, open_dataset
from altrelu_dist.cli import words
from altrelu_dist.cli.app import app
from altrelu_dist.errors import AltReLUError, DataError, ParameterError, Remedy
from altrelu_dist.runs.split import split_rows
from altrelu_dist.runs.training import TrainOptions, prepared

PACKAGE = Path(altrelu_dist.__file__).parent
OPTION = re.compile(r"--[a-z]|\baltrelu [a-z]")
TABLE = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [4.0, 3, 1, 2], "y": [0.0, 1, 0, 1]})
QUICK = ("--hidden", "2", "--workers", "0", "--method", "damped", "--max-iter", "1")
TRAIN = ("train", "t.csv", "--target", "y", "--out", "m.zarr", *QUICK)


def texts_of(path):
    """String constants of a module, but its docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield str(node.value)


def test_the_library_knows_no_options():
    modules = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "cli" not in path.parents]
    assert len(modules) > 50
    assert [text for path in modules for text in texts_of(path) if OPTION.search(text)] == []


def test_the_command_has_words_for_all_that_can_be_done():
    assert words._REMEDIES.keys() == {*Remedy}
    commands = get_command(app).commands.values()
    options = {option for each in commands for one in each.params for option in one.opts}
    told = " ".join(words._REMEDIES.values())
    named = {*re.findall(r"--[a-z][a-z-]*", told), *words._OPTIONS.values()}
    assert named
    assert named <= options
    of_library = " ".join(remedy.value for remedy in Remedy)
    assert not OPTION.search(of_library)
    assert {*re.findall(r"altrelu ([a-z-]+)", told)} <= {*get_command(app).commands}


def test_every_parameter_of_a_run_has_its_option():
    training = get_command(app).commands["train"]
    options = {option for one in training.params for option in one.opts}
    of_python = {*AltReLURegressor().get_params()} - {"callback", "client", "verbose"}
    assert {words._option(name) for name in of_python} <= options
    run = {*TrainOptions.__dataclass_fields__} - {"store"}
    assert {words._option(name) for name in run} <= options


# --- both ways --------------------------------------------------------------------------------


def _fit(**odd):
    return lambda: AltReLURegressor(2, max_iter=1).fit(TABLE[["a", "b"]].assign(**odd), TABLE["y"])


def _prepared(**options):
    return lambda: prepared(TrainOptions("t.csv", 2, "m.zarr", target=["y"], **options))


BOTH = {
    "an infinity in X": (
        {"b": [np.inf, 1, 2, 3]},
        lambda: AltReLURegressor(2, max_iter=1).fit(
            TABLE[["a", "b"]].assign(b=[np.inf, 1, 2, 3]), TABLE["y"]
        ),
        ["b (1)", "drop these rows", "SimpleImputer"],
        TRAIN,
        ["b (1)", "altrelu convert --drop-missing", "--impute mean"],
    ),
    "infinity in y": (
        {"y": [0, 1, np.inf, 1]},
        lambda: AltReLURegressor(2, max_iter=1).fit(
            open_dataset("t.csv", target="y").X, open_dataset("t.csv", target="y").y
        ),
        ["y contains NaN", "drop these rows"],
        TRAIN,
        ["y contains NaN", "altrelu convert --drop-missing"],
    ),
    "NaN to convert": (
        {"b": [np.nan, 1, 2, 3]},
        lambda: convert("t.csv", "t.zarr", target="y", missing="error"),
        ["b (1)", "drop_missing=True", "impute='mean'"],
        ("convert", "t.csv", "t.zarr", "--target", "y", "--missing", "error"),
        ["b (1)", "--drop-missing", "--impute mean"],
    ),
    "no target": (
        {},
        lambda: open_dataset("t.csv"),
        ["columns: a, b, y", "target=NAME"],
        (*TRAIN[:2], *TRAIN[4:]),
        ["columns: a, b, y", "--target NAME"],
    ),
    "text": (
        {"b": "red"},
        lambda: open_dataset("t.csv", target="y", categories="error"),
        ["b (text: 'red' in row 0)", "OneHotEncoder"],
        (*TRAIN, "--categories", "error"),
        ["b (text: 'red' in row 0)", "encode such columns as numbers"],
    ),
    "an output that is there": (
        {},
        lambda: convert("t.csv", "there.zarr", target="y"),
        ["there.zarr: exists already", "overwrite=True"],
        ("convert", "t.csv", "there.zarr", "--target", "y"),
        ["there.zarr: exists already", "--overwrite"],
    ),
    "a store without a target": (
        {},
        lambda: open_dataset("there.zarr"),
        ["there.zarr: was converted without a target", "target=NAME"],
        ("train", "there.zarr", *TRAIN[4:]),
        ["there.zarr: was converted without a target", "--target NAME"],
    ),
    "a parameter": (
        {},
        lambda: AltReLURegressor(2, alpha=1e300).fit(TABLE[["a"]], TABLE["y"]),
        ["alpha is 1e+300; expected"],
        (*TRAIN, "--ridge", "1e300"),
        ["--ridge is 1e+300; expected"],
    ),
    "a parameter of a run": (
        {},
        _prepared(test_fraction=2.0),
        ["test_fraction is 2.0; expected"],
        (*TRAIN, "--test-fraction", "2"),
        ["--test-fraction is 2.0; expected"],
    ),
    "two parameters": (
        {},
        _prepared(validation_fraction=0.5),
        ["validation_fraction is for early stopping"],
        (*TRAIN, "--validation-fraction", "0.5"),
        ["--validation-fraction is for early stopping"],
    ),
}


@pytest.mark.parametrize("case", BOTH)
def test_each_side_is_told_in_its_own_words(case, tmp_path, monkeypatch):
    odd, in_python, told, command, said = BOTH[case]
    monkeypatch.chdir(tmp_path)
    TABLE.assign(**odd).to_csv("t.csv", index=False)
    TABLE.to_csv("good.csv", index=False)
    convert("good.csv", "there.zarr")
    with pytest.raises((AltReLUError, ValueError)) as caught:
        in_python()
    line = str(caught.value)
    assert all(text in line for text in told), line
    assert not OPTION.search(line), line
    result = CliRunner().invoke(app, [*command])
    assert result.exit_code == 1, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert all(text in line for text in said), line
    assert not re.search(r"sklearn|=True|=NAME|\w+='", line), line


def test_scores_of_a_target_with_holes_say_what_to_do():
    model = AltReLURegressor(2, max_iter=1, method="damped").fit(TABLE[["a", "b"]], TABLE["y"])
    with pytest.raises(DataError, match=r"y contains NaN.*the first in row 2; drop these rows$"):
        evaluate(model.network_, TABLE[["a", "b"]].to_numpy(), [0, 1, np.nan, 1])


def test_split_in_python_names_the_parameter(tmp_path):
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ParameterError, match=r"^test_fraction is 7"):
        split_rows(open_dataset(tmp_path / "t.csv", target="y"), 7, seed=0)


def test_errors_cross_processes_whole():
    error = DataError("is 3", Remedy.TARGET, Remedy.OVERWRITE, parameter="alpha")
    there = pickle.loads(pickle.dumps(error))
    assert (
        str(there)
        == str(error)
        == ("alpha is 3; name it with target=NAME, or use overwrite=True to replace it")
    )
    assert (
        words.said(there)
        == "--ridge is 3; name it with --target NAME, or use --overwrite to replace it"
    )
    assert (there.finding, there.parameter) == ("is 3", "alpha")
    assert str(DataError("x" * 5000, Remedy.TARGET)).endswith("...; name it with target=NAME")
