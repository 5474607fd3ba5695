"""Any value for any parameter, and any word on the command line: a result, or one clear error."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor
from altrelu_dist.cli import cluster
from altrelu_dist.cli.app import app
from altrelu_dist.data import convert
from altrelu_dist.errors import AltReLUError, ParameterError
from altrelu_dist.jobs.folder import JobFolder, JobSpec, JobStatus
from altrelu_dist.runs.training import TrainOptions

# --- the estimator ----------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 2))
Y = np.abs(X[:, 0]) - X[:, 1]

# What is for the user to choose, or a file's name.
FREE = {"client", "callback", "checkpoint", "resume"}
NAMES = sorted(AltReLURegressor().get_params().keys() - FREE)
USUAL = {
    "n_hidden": 3,
    "method": "alternating",
    "max_iter": 2,
    "random_state": 0,
    "callback": lambda progress: progress.seconds > 0.2,  # whatever max_iter and max_time are
}

ODD = st.sampled_from(
    [
        *(None, True, False, "", "search", "three", b"3", "3", 3j, (), [1], {}, {"a": 1}, object()),
        *(math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308, 10**30, -(10**30), Fraction(1, 3)),
        *(np.float32(0.5), np.int8(3), np.uint64(2**64 - 1), np.bool_(True), np.array(3), X, print),
        *(np.random.default_rng(0), np.random.RandomState(0), np.datetime64("NaT"), int, ...),
    ]
)
VALUES = ODD | st.integers(-3, 6) | st.floats(-2, 2) | st.text(max_size=3)


def refusal(model, rows, kinds):
    """Fit, and what is wrong with that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)  # five rows need no three neurons
            model.fit(*rows)
    except kinds as error:
        return error
    return None


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=2))
def test_an_estimator_fits_or_names_the_parameter(changes):
    model = AltReLURegressor(**USUAL | changes)
    error = refusal(model, (X, Y), ParameterError)
    if error is None:
        assert np.isfinite(model.predict(X)).all()
        assert model.score(X, Y) > -0.01  # never worse than the mean
    else:
        named = [*changes, *(["neurons"] if "n_hidden" in changes else [])]
        assert any(name in str(error) for name in named), error
        assert not hasattr(model, "network_")


@settings(max_examples=200)
@given(features=ODD, target=ODD, weight=st.none() | ODD)
def test_an_estimator_fits_no_other_thing_than_rows(features, target, weight):
    for rows in ((features, target, weight), (X, target, weight), (X, Y, weight)):
        model = AltReLURegressor(**USUAL)
        error = refusal(model, rows, (AltReLUError, ValueError, TypeError))
        if error is None:
            assert np.isfinite(model.predict(rows[0])).all()
        else:
            assert str(error)


# --- the command line -------------------------------------------------------------------------

OPTIONS = {
    name: sorted(option for parameter in command.params for option in parameter.opts)
    for name, command in typer.main.get_command(app).commands.items()
}
# Enough for a command to get far; what is drawn comes behind it, and the last word counts.
BEGINNINGS = {
    "convert": "rows.csv new.zarr --target y",
    "info": "rows.zarr",
    "plan": "rows.zarr --hidden 3",
    "train": "rows.zarr --hidden 3 --out new.zarr --method alternating --max-iter 2 --max-time 3",
    "evaluate": "model.zarr rows.zarr",
    "predict": "model.zarr rows.zarr --out new.npy",
    "report": "model.zarr rows.zarr --out new.html",
    "export": "model.zarr --to numpy --out new.py",
    "submit": "rows.zarr --hidden 3 --out new.zarr",
    "jobs": "",
    "status": "model.zarr",
    "logs": "model.zarr",
    "cancel": "model.zarr",
    "take-up": "model.zarr",
    "fetch": "model.zarr new.zarr",
    "forget": "model.zarr",
}
assert BEGINNINGS.keys() | {"demo"} == OPTIONS.keys()  # the demo takes minutes, and no data
TEXT = """
    rows.csv rows.zarr model.zarr checkpoint empty text.txt . .. gone new.zarr new.csv new.npy
    new.parquet new no/such/new.zarr ~ ~nobody/x * [ - -- %s {} $HOME \x1b[31m \udc80 \u20ac a,b
    s3:// s3://x/y memory://x file:// ftp: :// http://[ http://127.0.0.1:1/x.zarr 127.0.0.1:1
    tcp://127.0.0.1:1 tls://127.0.0.1:1 tcp://127.0.0.1:x tcp:// x:// 1:1:1 y a search damped mean
    float32 int8 object 300MiB 1MiB 1e99GiB -1GiB 0 1 2 0.5 1e400 -1 -0.5 nan inf -inf 1e-400 1_000
    0x10 1,5 9999999999999999999999999999999999999999
"""
WORDS = st.sampled_from([*TEXT.split(), "", " ", "a\nb", 999 * "x"])


def command_lines(name):
    option = st.tuples(st.sampled_from(OPTIONS[name]), WORDS).map(list)
    more = st.lists(option | WORDS.map(lambda word: [word]), min_size=1, max_size=3)
    beginning = st.sampled_from([BEGINNINGS[name].split(), BEGINNINGS[name].split(), []])
    return st.tuples(beginning, more).map(
        lambda drawn: [name, *drawn[0], *(word for words in drawn[1] for word in words)]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with what the words are about."""
    here = tmp_path_factory.mktemp("here")
    table = np.column_stack([X, Y])
    np.savetxt(here / "rows.csv", table, delimiter=",", header="a,b,y", comments="")
    convert(here / "rows.csv", here / "rows.zarr", target="y")
    model = AltReLURegressor(2, method="alternating", max_iter=2, checkpoint=here / "checkpoint")
    model.fit(X, Y)
    model.save(here / "model.zarr")
    options = TrainOptions("rows.zarr", 2, "model.zarr")
    job = JobFolder(here / "model.zarr")
    job.create(JobSpec("0123abcd", options, "me", time.time(), "0"))
    job.write_status(JobStatus("finished", updated=time.time(), result={"out": "model.zarr"}))
    (here / "empty").mkdir()
    (here / "text.txt").write_text("no data")
    return here


def contents(folder):
    names = ("rows.csv", "rows.zarr", "model.zarr", "text.txt")
    files = (file for name in names for file in (folder / name, *(folder / name).rglob("*")))
    return {file: file.read_bytes() for file in files if file.is_file()}


COMMANDS = st.sampled_from(sorted(BEGINNINGS)).flatmap(command_lines)


@settings(max_examples=30)
@given(arguments=COMMANDS)
def test_a_command_works_or_says_in_one_line_why_not(arguments, folder):
    assert_works_or_says_why_not(arguments, folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=300)
@given(arguments=COMMANDS)
def test_many_commands_work_or_say_in_one_line_why_not(arguments, folder):
    assert_works_or_says_why_not(arguments, folder)


def assert_works_or_says_why_not(arguments, folder):
    with tempfile.TemporaryDirectory() as other, pytest.MonkeyPatch.context() as patch:
        here = Path(other) / "here"
        shutil.copytree(folder, here)
        before = contents(here)
        patch.chdir(here)
        patch.setenv("HOME", other)
        patch.setattr(cluster, "CONNECT_SECONDS", 1.0)
        began = time.monotonic()
        result = CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments)
        seconds = time.monotonic() - began
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code in (0, 1, 2)
        assert seconds < 30
        if "--overwrite" not in arguments:
            assert contents(here) == before
        assert not [file for file in here.iterdir() if file.name.startswith(".")]
    if result.exit_code:
        assert result.stdout == ""
        line = result.stderr.splitlines()[-1]
        assert line.strip()
        assert line.isprintable()
        assert "Traceback" not in result.stderr
        assert "error: unexpected" not in line
