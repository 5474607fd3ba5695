"""The commands, called in this process, and a folder with what most of them need."""

from __future__ import annotations

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from altrelu_dist.cli.app import app

__all__ = ["QUICK", "frame", "make_folder", "passes", "refuses", "run", "snapshot"]

QUICK = ("--workers", 0, "--method", "alternating", "--max-iter", 2)


def run(*arguments):
    """Run a command; the exit code is the test's business, a traceback never is."""
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def passes(*arguments):
    """Run a command that succeeds."""
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
    """A table of three features and a target."""
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["a", "b", "c"])
    made["target"] = np.maximum(made["a"], 0) * 3 + made["b"] + rng.normal(size=rows) / 10
    return made


def make_folder(folder):
    """Write a table, a store of it and a network trained on it."""
    frame().to_parquet(folder / "data.parquet", index=False)
    passes("convert", folder / "data.parquet", folder / "data.zarr", "--target", "target")
    passes("train", folder / "data.zarr", "--hidden", 3, "--out", folder / "model.zarr", *QUICK)


def snapshot(path):
    """Every file of a folder, or a file, with its bytes."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {file: file.read_bytes() for file in files}
