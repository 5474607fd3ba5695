"""What every method of one plain network promises: its loss, its seed, its rows, their scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles import features, objective_over, same
from plain_networks import METHODS, QUICK, recomputed, run

from altrelu_dist import AltReLURegressor
from altrelu_dist.moments import Block, Rows, Weights, summarise
from altrelu_dist.training.damped import descend
from altrelu_dist.training.neurons import insert
from altrelu_dist.training.schedule import SEARCH
from altrelu_dist.training.search import TOLD


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.05, 0.5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("q", [1, 3])
def test_the_loss_never_rises_and_is_that_of_the_network(method, alpha, q):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((300, 3))
        y = np.abs(X) @ rng.standard_normal((3, q)) + 0.3 * rng.standard_normal((300, q))
        weight = rng.uniform(0, 2, 300)
        slope = 0.1 * seed
        trained, monitor = run(method, X, y, weight=weight, alpha=alpha, slope=slope, seed=seed)
        losses = np.array([entry["loss"] for entry in monitor.history])
        assert np.isfinite(losses).all()
        assert (np.diff(losses) <= 0).all()
        found = recomputed(trained, X, y, weight, alpha, slope) * monitor.counts.unit
        assert found == pytest.approx(losses[-1], rel=1e-6)
        assert found <= monitor.counts.unit * (1 + 1e-9)


@pytest.mark.parametrize("method", ["search", "damped"])
def test_the_loss_over_all_rows_is_that_of_the_network_found_on_a_sample(method, small_samples):
    del small_samples
    rng = np.random.default_rng(0)
    n = 20_000
    X = rng.standard_normal((n, 2)).astype("float32")
    y = (np.abs(X[:, 0]) - X[:, 1] + 0.1 * rng.standard_normal(n)).astype("float32")
    trained, monitor = run(method, X, y, h=3, most=1 if method == "search" else 5)
    stages = [entry["stage"] for entry in monitor.history]
    assert stages[-1] == "layers"
    last = monitor.history[-1]
    assert recomputed(trained, X, y) * monitor.counts.unit == pytest.approx(last["loss"], rel=1e-5)
    sampled = [entry for entry in monitor.history if np.isfinite(entry["sample_loss"])]
    assert sampled
    # The search itself passes over all rows only to tell what it has found so far.
    assert all(entry["passes"] <= 2 + TOLD for entry in sampled)
    assert monitor.counts.passes <= 15
    losses = [entry["loss"] for entry in monitor.history]
    assert (np.diff(losses) <= 0).all()


def test_search_is_at_least_as_good_as_the_neurons_it_can_find(rng):
    """Data that a network of this size fits exactly is fitted."""
    X = rng.standard_normal((400, 2))
    y = np.abs(X[:, 0]) + 2 * np.maximum(X[:, 1] - 0.5, 0)
    model = AltReLURegressor(6, random_state=0, max_iter=6).fit(X, y)
    assert model.score(X, y) > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_an_int_seed_repeats_the_run_and_another_does_not(method, rng):
    X = rng.standard_normal((200, 3))
    y = np.abs(X[:, 0]) + rng.standard_normal(200)

    def network(seed):
        model = AltReLURegressor(5, method=method, random_state=seed, max_iter=QUICK[method])
        return model.fit(X, y).network_

    assert same(network(3), network(3))
    assert same(network(np.random.RandomState(3)), network(np.random.RandomState(3)))
    assert not same(network(3), network(4))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_and_the_repeats_of_rows_do_not_matter(method, rng):
    X = rng.standard_normal((150, 3))
    y = np.abs(X[:, 0]) + rng.standard_normal(150)
    times = rng.integers(0, 4, 150)
    model = AltReLURegressor(3, method=method, random_state=0, max_iter=QUICK[method])

    def network(X, y, weight=None):
        return model.fit(X, y, sample_weight=weight).network_

    order = rng.permutation(150)
    assert same(network(X, y), network(X[order], y[order]))
    repeated = np.repeat(np.arange(150), times)
    assert same(network(X, y, times), network(X[repeated], y[repeated]))
    assert same(network(X, y, times), network(X[order], y[order], times[order]))
    # The size of all weights together says nothing either, but on what further rows will count.
    once, fourfold = network(X, y, times), network(X, y, 4 * times)
    assert same(once, replace(fourfold, hidden_gram=fourfold.hidden_gram / 4))


def test_a_sample_of_rows_without_weight_is_no_sample():
    rng = np.random.default_rng(0)
    n = 120_000
    X = rng.standard_normal((n, 2))
    weight = np.zeros(n)
    weight[[5, 700, 70_000]] = 1, 2, 3
    trained, _ = run("search", X, X[:, 0], weight=weight, h=3)
    assert recomputed(trained, X, X[:, 0], weight) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_no_neuron_may_be_worth_anything(method):
    X = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    y = np.array([0.0, 1.0, 0.0, 1.0])
    model = AltReLURegressor(4, method=method, random_state=0).fit(X, y)
    assert np.allclose(model.predict(X), 0.5)


def test_a_search_ends_where_only_the_rounding_of_the_rows_is_left():
    rng = np.random.default_rng(3)
    X = (10 * rng.standard_normal((250, 60))).astype(np.float32)
    y = rng.standard_normal(250)  # fewer rows than weights: the network passes through all of them
    history = AltReLURegressor(16, random_state=0).fit(X, y).history_
    assert history[-1]["loss"] < 1e-11 * np.var(y)
    assert sum(entry["stage"] == "cycle" for entry in history) < SEARCH.most_cycles


# Scale


@pytest.mark.parametrize("method", METHODS)
def test_scaling_by_powers_of_two_changes_no_bit(method, rng):
    X = rng.standard_normal((200, 4))
    y = np.abs(X[:, 0]) - X[:, 1] + 0.1 * rng.standard_normal(200)
    model = AltReLURegressor(5, method=method, random_state=0, max_iter=QUICK[method])
    plain = model.fit(X, y).predict(X)
    columns = 2.0 ** np.array([30, -30, 5, 0])
    assert same(model.fit(X * columns, y).predict(X * columns), plain)
    assert same(model.fit(X, y * 2.0**40).predict(X), plain * 2.0**40)


def test_shifted_and_scaled_features_give_the_same_predictions(rng):
    X = rng.standard_normal((300, 3))
    y = np.abs(X[:, 0]) - X[:, 1]
    model = AltReLURegressor(5, method="damped", random_state=0, max_iter=8)
    moved = X * [3e3, 0.1, -7] + [1e5, -3, 11]

    def path(X):
        # The seed draws rows, and rounding could change their order: start from the same ones.
        rows = Rows(0, X, y[:, None])
        scaler = summarise(rows).scaler(np.dtype(float))
        block = scaler(rows)
        x = block.x * np.sign([3e3, 0.1, -7, 1]) if X is moved else block.x
        objective = objective_over(Block(x, block.y))
        none = Weights(np.zeros((4, 0)), np.zeros((0, 1)), np.zeros(1))
        generator = np.random.default_rng(0)
        start, _ = objective.refit_output(insert(objective, none, 5, generator))
        weights, loss, _ = descend(objective, objective, start, 8, generator)
        return features(x, weights.W, 0.0) @ weights.output, loss

    (plain, loss), (shifted, shifted_loss) = path(X), path(moved)
    assert shifted_loss == pytest.approx(loss, rel=1e-6)
    assert shifted == pytest.approx(plain, rel=1e-5, abs=1e-5)
    assert model.fit(moved, y).score(moved, y) > 0.9
