"""The loss that a run reports is that of the network it returns, however the run ends."""

from __future__ import annotations

import numpy as np
import pytest

from altrelu_dist import AltReLURegressor

PARAMETERS = {
    "search": {"max_iter": 4},
    "kronecker": {"max_iter": 1},
    "damped": {"max_iter": 8},
    "alternating": {"max_iter": 6},
}


def rows_of(seed, n, d=5):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.normal(size=n)


def loss_of(model, X, y):
    residual = y - model.network_.predict(X)[:, 0]
    return np.mean(residual**2)


@pytest.mark.parametrize("method", PARAMETERS)
@pytest.mark.parametrize("seed", range(4))
def test_of_a_run_that_ends_by_itself(method, seed):
    X, y = rows_of(seed, 500)
    model = AltReLURegressor(6, method=method, random_state=seed, **PARAMETERS[method]).fit(X, y)
    assert model.history_[-1]["loss"] == pytest.approx(loss_of(model, X, y), rel=1e-9)


@pytest.mark.parametrize("calls", [5, 20, 60, 150, 250, 300])
def test_of_a_run_that_is_stopped_anywhere(calls):
    X, y = rows_of(1, 500)
    told = []

    def stop(progress):
        told.append(progress.loss)
        return len(told) >= calls

    model = AltReLURegressor(6, random_state=1, callback=stop).fit(X, y)
    assert len(told) >= calls, "the run ended before it was stopped"
    assert model.stop_reason_ == "interrupted"
    assert model.history_[-1]["loss"] == pytest.approx(loss_of(model, X, y), rel=1e-9)


@pytest.mark.usefixtures("small_samples")
def test_of_a_search_on_some_of_the_rows():
    X, y = rows_of(2, 50_000)
    model = AltReLURegressor(6, random_state=2, max_iter=3).fit(X, y)
    assert len({entry["loss_rows"] for entry in model.history_ if "loss_rows" in entry}) > 1
    assert model.history_[-1]["loss"] == pytest.approx(loss_of(model, X, y), rel=1e-9)
