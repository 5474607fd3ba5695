"""Terminals, pipes and disks that do not take what the command writes: its work is done."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from processes import ALTRELU, environment

from altrelu_dist import Network

HOLDS = """
import sys
from altrelu_dist.cli.streams import reader_has_left, streams_that_hold
with streams_that_hold():
    for number in range(200):
        print("r\\u00e9sultat", number, flush=number == 0)
        print("n\\u00f6te", number, file=sys.stderr)
    sys.stdout.flush()
    left = reader_has_left()
    with open(sys.argv[1], "x") as file:
        file.write(f"done {left}")
        fine = file.fileno() > 2
    assert fine
    sys.exit(3)
"""
RESULT = "".join(f"résultat {number}\n" for number in range(200))
NOTES = "".join(f"nöte {number}\n" for number in range(200))


def run_in_shell(code, redirected, *arguments, **more):
    """A Python program whose streams a shell redirects."""
    command = ["bash", "-o", "pipefail", "-c", f'"$@" {redirected}', "bash", *code, *arguments]
    return subprocess.run(
        list(map(str, command)), env=environment() | {"PYTHONIOENCODING": "utf-8"} | more,
        capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("redirected", "stdout", "stderr", "left"),
    [
        ("", RESULT, NOTES, False),
        (">&-", "", NOTES, False),
        ("2>&-", RESULT, "", False),
        ("<&- >&- 2>&-", "", "", False),
        ("2>/dev/full", RESULT, "", False),
        (">/dev/full 2>/dev/full", "", "", False),
        ("2> >(true) >&2", "", "", True),
        (
            ">/dev/full", "",
            f"{NOTES}stdout: No space left on device; what was to go there:\n{RESULT}", False,
        ),
    ],
)  # fmt: skip
def test_no_stream_ends_the_work(redirected, stdout, stderr, left, tmp_path):
    program = [sys.executable, "-c", HOLDS]
    if left:  # the reader is gone before the first line
        program = ["bash", "-c", 'sleep 0.3; exec "$@"', "bash", *program]
    done = run_in_shell(program, redirected, tmp_path / "out")
    assert done.returncode == 3
    assert (done.stdout.decode(), done.stderr.decode()) == (stdout, stderr)
    assert (tmp_path / "out").read_text() == f"done {left}"


def test_what_a_terminal_cannot_show_is_replaced(tmp_path):
    done = run_in_shell(
        [sys.executable, "-c", HOLDS], "", tmp_path / "out", PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 3
    assert done.stdout.decode("ascii") == RESULT.replace("é", "?")
    assert done.stderr.decode("ascii").startswith("n\\xf6te 0")


@pytest.fixture
def table(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 3))
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header="ä,b,y", comments="")
    return tmp_path / "t.csv"


@pytest.mark.cluster
@pytest.mark.parametrize("redirected", [">&- 2>&-", "2>&1 | true"])
def test_a_run_is_saved_whoever_listens(redirected, table):
    out = table.with_name("m.zarr")
    options = ["--target", "y", "--hidden", 2, "--method", "damped", "--max-iter", 1]
    train = [*ALTRELU, "train", table, *options, "--workers", 0, "--out", out]
    done = run_in_shell(train, redirected)
    assert done.returncode == 0, done.stderr
    assert Network.load(out).feature_names == ("ä", "b")


def test_an_ascii_terminal_gets_the_result(table):
    done = run_in_shell(
        [*ALTRELU, "info", table, "--target", "y"], "", PYTHONIOENCODING="ascii", LANG="C"
    )
    assert done.returncode == 0, done.stderr
    assert "| ?      | feature |" in done.stdout.decode("ascii")


def test_an_error_keeps_its_code_where_nobody_listens(tmp_path):
    done = run_in_shell([*ALTRELU, "info", tmp_path / "nö.csv"], "2>&-")
    assert done.returncode == 1
    assert os.listdir(tmp_path) == []
