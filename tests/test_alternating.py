"""The paper's alternation, iteration by iteration, against dense least squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import centred, dense_alternation, features, objective_over, random_block
from plain_networks import recomputed, run

from altrelu_dist import AltReLURegressor
from altrelu_dist.errors import ParameterError
from altrelu_dist.moments import Block
from altrelu_dist.training import Monitor
from altrelu_dist.training.alternating import alternate, random_directions


@given(
    seed=st.integers(0, 20),
    q=st.integers(1, 3),
    slope=st.sampled_from([0.0, 0.1]),
    alpha=st.sampled_from([1e-6, 1e-3]),
    weighted=st.booleans(),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])
def test_alternating_is_the_papers_iteration_by_iteration(seed, q, slope, alpha, weighted):
    rng = np.random.default_rng(seed)
    block = centred(random_block(rng, 150, 3, q, weighted=weighted))
    W = random_directions(4, 4, rng)
    path, losses, clear = dense_alternation(block, W, alpha, slope, 6)
    assume(clear)
    for iterations in (0, 1, 2, 4, 6):
        monitor = Monitor()
        objective = objective_over(block, alpha=alpha, slope=slope, monitor=monitor)
        best, loss, _ = alternate(objective, W, (block.y**2).sum(axis=0), iterations)
        found = [entry["current_loss"] for entry in monitor.history]
        assert found == pytest.approx(losses[: iterations + 1], rel=1e-7)
        at = int(np.argmin(losses[: iterations + 1]))
        assert loss == pytest.approx(losses[at], rel=1e-7)
        for part in ("W", "V", "c"):
            expected = getattr(path[at], part)
            size = np.abs(expected).max()
            assert getattr(best, part) == pytest.approx(expected, rel=1e-5, abs=1e-6 * size)
        # A pass an iteration, which brings the true loss of the last along.
        assert monitor.counts.passes <= iterations + 2


def test_alternating_from_raw_data_is_the_papers_on_standardised_data(rng):
    n, seed, alpha = 200, 5, 1e-3
    X = rng.standard_normal((n, 3)) * [1e-3, 1, 1e3] + [0, 5, -1e4]
    y = np.stack([np.abs(X[:, 1] - 5), X[:, 0] * 1e3 - 2], axis=1)
    weight = rng.uniform(0.5, 2, n)
    model = AltReLURegressor(
        4, method="alternating", alpha=alpha, max_iter=5, random_state=seed
    ).fit(X, y, sample_weight=weight)

    def standard(values):
        mean = np.average(values, axis=0, weights=weight)
        variance = np.average((values - mean) ** 2, axis=0, weights=weight)
        return mean, variance

    (x_mean, x_var), (y_mean, y_var) = standard(X), standard(y)
    root = np.sqrt(weight / weight.mean())[:, None]
    x = np.hstack([(X - x_mean) / np.sqrt(x_var), np.ones((n, 1))])
    scale = np.sqrt(y_var.sum())
    block = Block(x * root, (y - y_mean) / scale * root)
    W = random_directions(4, 4, np.random.default_rng(seed))
    path, losses, clear = dense_alternation(block, W, alpha, 0.0, 5)
    assert clear
    unit = scale**2 / 2
    found = [entry["current_loss"] for entry in model.history_[1:]]
    assert found == pytest.approx([loss * unit for loss in losses], rel=1e-6)
    least = path[int(np.argmin(losses))]
    expected = features(x, least.W, 0.0) @ least.output * scale + y_mean
    assert model.predict(X) == pytest.approx(expected, rel=1e-5, abs=1e-5 * scale)


def test_alternating_keeps_the_best_of_a_loss_that_rises():
    risen = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((200, 4))
        y = np.abs(X[:, 0]) * X[:, 1]
        model = AltReLURegressor(6, method="alternating", random_state=seed).fit(X, y)
        losses = np.array([entry["current_loss"] for entry in model.history_[1:]])
        assert len(losses) == 31
        risen += bool((np.diff(losses) > 0).any())
        mse = float(((model.predict(X) - y) ** 2).mean())
        assert mse == pytest.approx(losses.min(), rel=1e-6)
    assert risen  # else this test shows nothing


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_alternating_that_diverges_keeps_a_network_as_good_as_it_says(alpha, dtype):
    """More weights than rows, and biases that nothing holds: they grow without end."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 6))
    y = X[:, 0] + 0.5 * rng.standard_normal(100)
    X, y = X.astype(dtype), y.astype(dtype)
    for seed in range(2):
        trained, monitor = run("alternating", X, y, h=40, alpha=alpha, seed=seed, most=30)
        found = recomputed(trained, X, y, alpha=alpha) * monitor.counts.unit
        # Where weights grow without end, what float32 says of a loss is no closer than this.
        rel = 5e-3 if dtype == "float32" else 1e-3
        assert found == pytest.approx(monitor.history[-1]["loss"], rel=rel)
        assert found <= monitor.history[1]["loss"] * (1 + 1e-6)


def test_alternating_refuses_a_system_that_memory_cannot_hold(rng):
    X, y = rng.standard_normal((50, 100)), rng.standard_normal(50)
    with pytest.raises(ParameterError, match="use search or fewer neurons"):
        AltReLURegressor(200, method="alternating").fit(X, y)
