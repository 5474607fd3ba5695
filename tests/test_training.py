"""The three methods: the paper's to the letter; what each promises of its losses and its end."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import (
    design,
    features,
    hidden_ridge,
    least_squares,
    objective_over,
    output_ridge,
    penalty,
    random_block,
    same,
    squares,
)
from sklearn.exceptions import ConvergenceWarning

from altrelu_dist import AltReLURegressor
from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.inputs import local_rows
from altrelu_dist.moments import Block, Rows, Weights, summarise
from altrelu_dist.training import METHODS as ALL_METHODS
from altrelu_dist.training import Monitor, Parameters, train
from altrelu_dist.training.alternating import alternate, random_directions
from altrelu_dist.training.damped import descend
from altrelu_dist.training.neurons import draw_hinges, insert, remove
from altrelu_dist.training.quasi_newton import quasi_newton
from altrelu_dist.training.schedule import SEARCH
from altrelu_dist.training.search import TOLD
from altrelu_dist.training.whitening import Whitening

METHODS = [name for name in ALL_METHODS if name != "committee"]  # of one plain network
QUICK = {"search": 1, "kronecker": 1, "damped": 20, "alternating": 5}


# The paper's alternation


def dense_alternation(block, W, alpha, slope, iterations):
    """Output layer, then hidden layer under the fixed pattern, each by dense least squares.

    The networks, their objectives, and whether every system had one solution.
    """
    p, h = W.shape
    ones = float((block.x[:, -1] ** 2).sum())
    ridge = alpha * ones
    path, losses, clear = [], [], True
    for iteration in range(iterations + 1):
        output = least_squares(features(block.x, W, slope), block.y, output_ridge(h, ridge))
        weights = Weights(W, output[:-1], output[-1])
        path.append(weights)
        losses.append(squares(block, weights, slope) / ones + alpha * penalty(weights))
        if iteration < iterations:
            S = design(block.x, W, slope)
            # Where several solutions are as good the next pattern depends on the choice.
            clear = clear and well_posed(S, weights, ridge)
            A = np.concatenate([S * np.repeat(v, p) for v in weights.V.T])
            b = np.concatenate(
                [y - c * block.x[:, -1] for y, c in zip(block.y.T, weights.c, strict=True)]
            )
            W = least_squares(A, b, hidden_ridge(h, p, ridge)).reshape(h, p).T
    return path, losses, clear


def well_posed(S, weights, ridge):
    """Whether the hidden layer has one solution, not least in its free biases."""
    (p, h), V = weights.W.shape, weights.V
    gram = (S.T @ S) * np.kron(V @ V.T, np.ones((p, p))) + np.diag(hidden_ridge(h, p, ridge))
    return np.diagonal(gram).min() > 0 and np.linalg.cond(gram) < 1e8


def centred(block):
    """The block with targets of a weighted mean of zero, as training has them."""
    one = block.x[:, -1]
    return Block(block.x, block.y - np.outer(one, one @ block.y / (one @ one)))


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


# What every method promises


def run(method, X, y, *, weight=None, h=6, alpha=0.0, slope=0.0, seed=0, most=None, **monitoring):
    """Train on data in memory; what came out, and the monitor of the run."""
    monitor = Monitor(**monitoring)
    limit = QUICK[method] if most is None else most
    rows = local_rows(X, y, weight)
    dtype = np.dtype("float32" if X.dtype == np.float32 else "float64")
    trained = train(
        LocalEngine.of(rows), Parameters(h, method, alpha, slope, limit, seed), monitor, dtype
    )
    return trained, monitor


def recomputed(trained, X, y, weight=None, alpha=0.0, slope=0.0):
    """The objective of a trained network, in standardised units, by its definition."""
    scaler = trained.scaler
    x = np.hstack([(X.astype(float) - scaler.center) / scaler.scale, np.ones((len(X), 1))])
    target = (y.reshape(len(X), -1) - scaler.target_center) / scaler.target_scale
    fitted = features(x, trained.weights.W, slope) @ trained.weights.output
    error = np.average(((fitted - target) ** 2).sum(axis=1), weights=weight)
    return error + alpha * penalty(trained.weights)


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


# Nasty data


def nasty(name):
    rng = np.random.default_rng(11)
    n = 60
    X = rng.standard_normal((n, 4))
    y = np.abs(X[:, 0]) - X[:, 1] + 0.1 * rng.standard_normal(n)
    more = {}
    if name == "fewer rows than columns":
        X, y = rng.standard_normal((5, 12)), rng.standard_normal(5)
    elif name == "two rows":
        X, y = X[:2], y[:2]
    elif name == "one distinct row":
        X, y = np.repeat(X[:1], n, axis=0), np.repeat(y[:1], n)
    elif name == "one distinct row of X":
        X = np.repeat(X[:1], n, axis=0)
    elif name == "two distinct rows":
        X, y = np.repeat(X[:2], 30, axis=0), np.repeat(y[:2], 30)
    elif name == "duplicate columns":
        X = np.hstack([X, X, -2 * X])
    elif name == "constant columns":
        X = np.hstack([np.full((n, 1), 7.1), X, np.zeros((n, 1)), np.full((n, 1), -1e8)])
    elif name == "constant target":
        y = np.full(n, 3.3)
    elif name == "nearly constant target":
        y = 1e6 + 1e-6 * y
    elif name == "columns 1e9 apart":
        X = X * [1e-9, 1, 1e9, 1e18]
    elif name == "tiny columns":
        X = X * 1e-140
    elif name == "offset 1e8":
        X, y = X + 1e8, y + 1e8
    elif name == "dead column":
        X[:, 0] = 0
        X[3, 0] = 1
    elif name == "indicators":
        X = (X > 1.5).astype(float)
    elif name == "more targets than rows":
        X, y = X[:6], rng.standard_normal((6, 9))
    elif name == "more targets than neurons":
        y = rng.standard_normal((n, 9))
    elif name == "one target of two is constant":
        y = np.stack([y, np.full(n, 4.0)], axis=1)
    elif name == "targets 1e9 apart":
        y = np.stack([y, 1e9 * X[:, 2]], axis=1)
    elif name == "leaky":
        more["slope"] = 0.5
    elif name == "ridge":
        more["alpha"] = 10.0
    elif name == "integers":
        X = (10 * X).astype("int32")
    elif name == "unsigned":
        X = (10 * np.abs(X)).astype("uint8")
    elif name == "bool":
        X = X > 0
    elif name == "float32":
        X, y = X.astype("float32"), y.astype("float32")
    elif name == "float32 with an offset":
        X, y = (X + 1e5).astype("float32"), (y + 1e5).astype("float32")
    elif name == "big weights and zeros":
        more["weight"] = 1e12 * rng.random(n) * (rng.random(n) < 0.5)
    elif name == "tiny weights":
        more["weight"] = np.full(n, 1e-200)
    elif name == "one weight rules":
        more["weight"] = np.append(1e15, np.ones(n - 1))
    elif name == "one row has weight":
        more["weight"] = np.append(1.0, np.zeros(n - 1))
    elif name == "outlier":
        X[0], y[0] = 1e12, -1e12
    elif name == "heavy tails":
        X, y = rng.standard_cauchy((n, 4)) ** 3, rng.standard_cauchy(n) ** 3
    elif name == "weights 1e24 apart":
        more["weight"] = 10.0 ** rng.uniform(-12, 12, n)
    elif name == "columns 1e12 apart":
        X = X * [1e-6, 1, 1e6, 1]
    elif name == "float16":
        X, y = X.astype("float16"), y.astype("float16")
    elif name == "denormals":
        X = X * 1e-310
    elif name == "denormal targets":
        y = y * 1e-310
    elif name == "rows on kinks":
        X = rng.integers(-1, 2, (n, 4)).astype(float)  # pairs of rows, and so hinges, go through 0
    elif name == "step":
        y = (X[:, 0] > 0).astype(float)
    elif name == "exact fit":
        y = np.maximum(X[:, 0], 0)
    elif name == "linear":
        y = X @ [1, 2, 3, 4.0]
    else:
        raise AssertionError(name)
    return X, y, more


NASTY = [
    "fewer rows than columns",
    "two rows",
    "one distinct row",
    "one distinct row of X",
    "two distinct rows",
    "duplicate columns",
    "constant columns",
    "constant target",
    "nearly constant target",
    "columns 1e9 apart",
    "tiny columns",
    "offset 1e8",
    "dead column",
    "indicators",
    "more targets than rows",
    "more targets than neurons",
    "one target of two is constant",
    "targets 1e9 apart",
    "leaky",
    "ridge",
    "integers",
    "unsigned",
    "bool",
    "float32",
    "float32 with an offset",
    "big weights and zeros",
    "tiny weights",
    "one weight rules",
    "one row has weight",
    "outlier",
    "heavy tails",
    "weights 1e24 apart",
    "columns 1e12 apart",
    "float16",
    "denormals",
    "denormal targets",
    "rows on kinks",
    "step",
    "exact fit",
    "linear",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NASTY)
def test_nasty_data_gives_a_network_no_worse_than_the_mean(name, method):
    X, y, more = nasty(name)
    model = AltReLURegressor(
        5,
        method=method,
        negative_slope=more.get("slope", 0.0),
        alpha=more.get("alpha", 0.0),
        max_iter=QUICK[method],
        random_state=0,
    )
    weight = more.get("weight")
    predicted = model.fit(X, y, sample_weight=weight).predict(X)
    assert predicted.shape == y.shape
    assert np.isfinite(predicted).all()
    for part in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert np.isfinite(getattr(model.network_, part)).all()
    wide = y.astype(float)
    mean = np.average(wide, axis=0, weights=weight)

    def squared(error):
        return np.average(error**2, axis=0, weights=weight).sum()

    rounding = (1e-7 * np.abs(wide).max()) ** 2
    found, variance = squared(predicted - wide), squared(wide - mean)
    assert found <= variance * (1 + 1e-6) + rounding
    if not model.alpha:
        told = model.history_[-1]["loss"] * predicted.size / len(X)
        assert found == pytest.approx(told, rel=0, abs=1e-6 * variance + rounding)
    losses = np.array([entry["loss"] for entry in model.history_])
    assert (np.diff(losses) <= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NASTY)
def test_the_output_layer_is_the_dense_least_squares_of_its_hidden_layer(name, method):
    X, y, more = nasty(name)
    if "alpha" in more or X.dtype in (np.float32, np.float16):
        pytest.skip("a ridge, or rounding of float32")
    weight = more.get("weight", np.ones(len(X)))
    model = AltReLURegressor(
        5,
        method=method,
        negative_slope=more.get("slope", 0.0),
        max_iter=QUICK[method],
        random_state=0,
    )
    network = model.fit(X, y, sample_weight=weight).network_
    targets = y.reshape(len(X), -1).astype(float)
    root = np.sqrt(weight / weight.max())[:, None]
    mean = np.average(targets, axis=0, weights=weight)
    features = np.hstack([network.hidden_features(X), np.ones((len(X), 1))]) * root
    features /= np.maximum(np.linalg.norm(features, axis=0), 1e-300)
    aim = root * (targets - mean)
    # Directions that a Gram matrix in float64 cannot tell from none are left out.
    dense = features @ np.linalg.lstsq(features, aim, rcond=1e-7)[0] - aim
    found = root * (network.predict(X) - targets)
    rounding = (1e-7 * np.abs(root * targets).max()) ** 2
    assert np.vdot(found, found) <= np.vdot(dense, dense) * (1 + 1e-6) + rounding


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["exact fit", "linear", "columns 1e9 apart", "offset 1e8"])
def test_what_can_be_fitted_is_fitted(name, method):
    X, y, _ = nasty(name)
    model = AltReLURegressor(8, method=method, random_state=0, max_iter=2 * QUICK[method])
    least = 0.8 if method == "alternating" else 0.98
    assert model.fit(X, y).score(X, y) > least


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


# Stopping


class Stop:
    """A callback that asks to stop once it was asked so many times."""

    def __init__(self, after, stage=None):
        self.after, self.stage = after, stage
        self.seen = []
        self.asked = None

    def __call__(self, progress):
        self.seen.append(progress)
        enough = len(self.seen) > self.after
        if enough and (self.stage is None or progress.stage == self.stage):
            self.asked = self.asked or len(self.seen)
            return True
        return None


def wavy(n=400, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.sin(3 * X[:, 0]) + np.abs(X[:, 1]) + 0.2 * rng.standard_normal(n)


@pytest.mark.parametrize("after", [0, 1, 2, 5, 20, 100])
@pytest.mark.parametrize("method", METHODS)
def test_a_callback_stops_the_run_and_a_usable_network_stays(method, after):
    X, y = wavy()
    stop = Stop(after)
    model = AltReLURegressor(6, method=method, random_state=0, callback=stop)
    model.fit(X, y)
    if stop.asked is None:  # it was through before
        assert model.stop_reason_ == "converged"
        return
    assert model.stop_reason_ == "interrupted"
    assert len(stop.seen) <= stop.asked + 8  # the current step may tell of its end
    assert np.isfinite(model.predict(X)).all()
    mse = ((model.predict(X) - y) ** 2).mean()
    assert mse <= y.var() * (1 + 1e-9)
    assert mse == pytest.approx(model.history_[-1]["loss"], rel=1e-6)
    assert model.n_iter_ == len(model.history_) >= 1


@pytest.mark.parametrize("part", [0.5, pytest.param(0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [4500, 9000])
def test_a_stop_in_any_stage_leaves_the_network_that_the_history_tells(
    method, n, part, small_samples
):
    """With rows held in memory, and with samples of rows that are not."""
    del small_samples
    X, y = wavy(n, 2)
    most = QUICK[method]
    stages = []
    model = AltReLURegressor(2, method=method, random_state=0, max_iter=most)
    model.set_params(callback=lambda progress: stages.append(progress.stage)).fit(X, y)
    for stage in dict.fromkeys(stages):
        stop = Stop(stages.index(stage) + int(part * stages.count(stage)), stage)
        model.set_params(callback=stop).fit(X, y)
        if stop.asked is None:
            continue
        assert model.stop_reason_ == "interrupted"
        mse = ((model.predict(X) - y) ** 2).mean()
        assert mse <= y.var() * (1 + 1e-9), stage
        assert mse == pytest.approx(model.history_[-1]["loss"], rel=1e-6), stage


def test_a_stop_while_the_network_grows_on_some_of_the_rows():
    X, y = wavy(5 * TILE, 2)
    y = y + np.linspace(-2, 2, len(y))  # nothing to do with X
    stop = Stop(5, "grow")
    model = AltReLURegressor(4, random_state=0, callback=stop).fit(X, y)
    assert stop.asked is not None
    mse = ((model.predict(X) - y) ** 2).mean()
    assert mse <= y.var() * (1 + 1e-9)
    assert mse == pytest.approx(model.history_[-1]["loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["search", "damped"])
def test_max_time_ends_the_run(method):
    X, y = wavy(3 * TILE, 8)
    begun = time.perf_counter()
    model = AltReLURegressor(32, method=method, random_state=0, max_time=0.3).fit(X, y)
    assert model.stop_reason_ == "max_time"
    assert time.perf_counter() - begun < 5  # one step on a busy machine
    assert ((model.predict(X) - y) ** 2).mean() <= y.var()


def test_no_time_at_all_gives_the_mean():
    X, y = wavy()
    for method in METHODS:
        with pytest.warns(ConvergenceWarning, match="a single pass over the data takes"):
            model = AltReLURegressor(4, method=method, max_time=0).fit(X, y)
        assert model.stop_reason_ == "max_time"
        assert model.predict(X) == pytest.approx(np.full(len(y), y.mean()))


@pytest.mark.parametrize(
    ("method", "stage"), [("alternating", "alternating"), ("damped", "layers")]
)
def test_max_iter_bounds_the_iterations(method, stage):
    X, y = wavy()
    for most in (1, 3):
        model = AltReLURegressor(6, method=method, random_state=0, max_iter=most).fit(X, y)
        made = [entry for entry in model.history_ if entry["stage"] == stage]
        assert len(made) <= most + 2  # where it started, each iteration, the last refit


def test_max_iter_bounds_the_cycles_of_the_search():
    X, y = wavy()
    for most in (1, 2):
        model = AltReLURegressor(4, random_state=0, max_iter=most).fit(X, y)
        assert sum(entry["stage"] == "cycle" for entry in model.history_) == most


@pytest.mark.parametrize("method", METHODS)
def test_progress_and_history_tell_the_run(method):
    X, y = wavy()
    seen = []
    model = AltReLURegressor(
        6, method=method, random_state=0, max_iter=QUICK[method], callback=seen.append
    ).fit(X, y)
    history = model.history_
    assert [entry["iteration"] for entry in history] == list(range(1, len(history) + 1))
    fields = ("stage", "iteration", "loss", "sample_loss", "passes", "rows", "seconds", "fraction")
    for entry in history:
        assert set(fields) <= set(entry)
    for told in (seen, [type(seen[0])(*(e[f] for f in fields)) for e in history]):
        for name in ("iteration", "passes", "rows", "seconds"):
            values = [getattr(progress, name) for progress in told]
            assert values == sorted(values), name
        for progress in told:
            assert np.isnan(progress.fraction) or 0 <= progress.fraction <= 1
    # A last refit that lowers nothing is no iteration.
    assert history[-1]["passes"] <= model.n_passes_ <= history[-1]["passes"] + 1
    assert history[-1]["rows"] >= (model.n_passes_ - 2) * len(X)
    assert history[0]["loss"] == pytest.approx(y.var())  # predicting the mean is where it starts


def test_the_loss_that_is_told_falls_within_a_descent_and_is_never_below_the_networks():
    X, y = wavy()
    told = []
    model = AltReLURegressor(6, random_state=0, max_iter=2, callback=told.append).fit(X, y)
    losses = np.array([p.loss for p in told if np.isfinite(p.loss)])
    assert (np.diff(losses) <= 0).all()
    assert len(set(losses)) > 2 * len({entry["loss"] for entry in model.history_})
    mse = np.mean((model.predict(X) - y) ** 2)
    assert losses[-1] == pytest.approx(mse, rel=1e-5)


# The pieces of the search


def test_quasi_newton_never_ends_above_its_start(rng):
    block = centred(random_block(rng, 200, 3, 2))
    for alpha in (0.0, 0.1):
        objective = objective_over(block, alpha=alpha)
        whitening = Whitening.of(objective)
        start = Weights(rng.standard_normal((4, 5)), np.zeros((5, 2)), np.zeros(2))
        refitted, value = objective.refit_output(start)
        for iterations in (1, 5, 60):
            weights, loss = quasi_newton(objective, start, iterations, whitening=whitening)
            assert loss <= value
            exact = squares(block, weights, 0.0) / objective.weight_sum + alpha * penalty(weights)
            assert loss == pytest.approx(exact, rel=1e-7)
            assert weights.n_hidden == refitted.n_hidden


def test_whitening_makes_the_inputs_uncorrelated(rng):
    block = random_block(rng, 500, 4, weighted=True)
    mixed = block._replace(x=block.x @ (np.eye(5) + 0.9 * rng.standard_normal((5, 5))))
    objective = objective_over(mixed)
    whitening = Whitening.of(objective)
    assert whitening.into @ whitening.out == pytest.approx(np.eye(5), abs=1e-10)
    white = mixed.x @ whitening.out
    gram = white.T @ white / objective.weight_sum
    # But for the floor under directions of little variance, which are left smaller than one.
    values = np.linalg.eigvalsh(gram)
    assert values.max() <= 1 + 1e-9
    variances = np.linalg.eigvalsh(mixed.x.T @ mixed.x / objective.weight_sum)
    floor = 1e-3 * variances.mean()
    assert values == pytest.approx(variances / (variances + floor), rel=1e-6)


def test_hinges_go_through_the_middle_of_two_rows(rng):
    block = random_block(rng, 12, 3, weighted=True)
    objective = objective_over(block)
    none = Weights(np.zeros((4, 0)), np.zeros((0, 1)), np.zeros(1))
    hinges = draw_hinges(objective.engine, none, 0.0, 40, rng)
    assert hinges.shape == (4, 40)
    assert np.linalg.norm(hinges[:-1], axis=0) == pytest.approx(np.ones(40))
    used = block.x[:, -1] > 0
    points = block.x[used, :-1] / block.x[used, -1:]
    first, second = np.triu_indices(len(points), 1)
    middles = np.hstack([(points[first] + points[second]) / 2, np.ones((first.size, 1))])
    ways = points[first] - points[second]
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    for hinge in hinges.T:
        through = np.abs(middles @ hinge) < 1e-9
        along = np.abs(np.abs(ways @ hinge[:-1]) - 1) < 1e-9
        same_row = np.abs(points @ hinge[:-1] + hinge[-1]) < 1e-9
        assert (through & along).any() or same_row.any()


def test_a_neuron_that_is_rounding_gets_no_output(rng):
    block = random_block(rng, 20, 3)
    furthest = block.x[:, :-1] @ (direction := rng.standard_normal(3))
    seen = np.append(direction, 0.5 - np.max(furthest))  # active at one row
    unseen = np.append(direction, 1e-15 - np.max(furthest))  # the same, but for its rounding
    objective = objective_over(block)
    for scale in (1e-8, 1.0, 1e8):
        W = scale * np.stack([seen, unseen], axis=1)
        weights, loss = objective.refit_output(Weights(W, np.zeros((2, 1)), np.zeros(1)))
        assert abs(weights.V[0, 0]) > 0
        assert weights.V[1, 0] == 0
        exact = squares(block, weights, 0.0) / objective.weight_sum
        assert loss == pytest.approx(exact, rel=1e-12)


def test_inserting_lowers_the_loss_and_removing_raises_it_least(rng):
    block = centred(random_block(rng, 300, 3))
    objective = objective_over(block)
    none = Weights(np.zeros((4, 0)), np.zeros((0, 1)), np.zeros(1))
    last = np.inf
    weights = none
    for _ in range(4):
        weights, loss = objective.refit_output(insert(objective, weights, 2, rng))
        assert loss < last
        last = loss
    assert weights.n_hidden == 8
    removed = remove(objective, weights, 1)
    losses = [objective.refit_output(weights.pick(np.delete(np.arange(8), j)))[1] for j in range(8)]
    loss = squares(block, removed, 0.0) / objective.weight_sum
    assert loss == pytest.approx(min(losses), rel=1e-9)
    assert remove(objective, weights, 8).n_hidden == 0


def test_a_sample_of_rows_without_weight_is_no_sample():
    rng = np.random.default_rng(0)
    n = 120_000
    X = rng.standard_normal((n, 2))
    weight = np.zeros(n)
    weight[[5, 700, 70_000]] = 1, 2, 3
    trained, _ = run("search", X, X[:, 0], weight=weight, h=3)
    assert recomputed(trained, X, X[:, 0], weight) < 1e-6


# Bad data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    X[7, 1] = X[20, 2] = X[21, 2] = value
    with pytest.raises(DataError) as caught:
        run("damped", X, y)
    text = str(caught.value)
    assert "3 values" in text
    assert "column 1 (1)" in text
    assert "column 2 (2)" in text
    assert "first in row 7" in text
    y[3, 1] = value
    with pytest.raises(DataError, match=r"y contains.*column 1 \(1\).*row 3"):
        run("damped", np.nan_to_num(X, posinf=0, neginf=0), y)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf, 0.0])
def test_weights_that_cannot_be_are_refused(weight):
    X, y = wavy(20)
    with pytest.raises(DataError, match="weight"):
        run("damped", X, y, weight=np.full(20, weight))


@pytest.mark.parametrize("size", [1e200, 1e308])
def test_values_too_large_to_square_are_refused(size):
    X, y = wavy(50)
    with pytest.raises(DataError, match="too large"):
        run("damped", np.where(X > 1, size, X), y)
    with pytest.raises(DataError, match="too large"):
        run("damped", X, np.where(y > 1, size, y))


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
