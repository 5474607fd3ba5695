"""The notebooks run, and what their text says of the figures holds."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    names = runpy.run_path(str(NOTEBOOKS / name), run_name="__main__")
    assert plt.get_fignums()
    plt.close("all")
    return names


def critical(X, output_step, hidden_step, pattern_of, loss):
    """The hidden step ends where no small move lowers the loss with the pattern held."""
    W = np.random.default_rng(0).normal(size=(X.shape[1] + 1, 8))
    output, pattern = output_step(X, W), pattern_of(X, W)
    best = hidden_step(X, output, pattern)
    for seed in range(5):
        move = 1e-3 * np.random.default_rng(seed).normal(size=W.shape)
        assert loss(X, best + move, output, pattern) > loss(X, best, output, pattern)


@pytest.mark.slow
def test_the_papers_story(monkeypatch):
    names = run("1_paper.py", monkeypatch)
    true, promised = np.array(names["true"]), np.array(names["promised"])
    assert (promised <= true * (1 + 1e-9)).all()  # a least-squares solution is no worse
    assert (np.diff(true) > 0).any()  # without step control the true loss rises
    assert true.min() > 1.2 * promised.min()  # it stalls
    parts = ("X", "output_step", "hidden_step", "pattern_of", "loss")
    critical(**{part: names[part] for part in parts})
    deep = {method: model.history_[-1]["loss"] for method, model in names["fits"].items()}
    assert max(deep["kronecker"], deep["search"]) < 0.5 * deep["alternating"]
    new = {
        one: names[one].score(names["X_test"], names["y_test"]) for one in ("plain", "committee")
    }
    assert new["committee"] > max(0.3, new["plain"])


@pytest.mark.slow
def test_a_million_rows_in_its_quick_form(monkeypatch):
    monkeypatch.setenv("ROWS", "70_000")
    names = run("2_million_rows.py", monkeypatch)
    assert names["X"].shape == (70_000, 64)
    assert names["last"]["loss"] < 1.1 * names["NOISE"] ** 2
    assert len(names["watch"].grown) > 5
