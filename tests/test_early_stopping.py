"""Early stopping: the rows held out, the network that they choose, and how many neurons it has."""

from __future__ import annotations

import math
import warnings

import dask.array as da
import numpy as np
import pytest
from noisy_rows import METHODS, noisy
from oracles import same
from sklearn.exceptions import ConvergenceWarning

from altrelu_dist import AltReLURegressor
from altrelu_dist.engine import TILE
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.moments import Rows, Weights
from altrelu_dist.moments.rows import Scaler
from altrelu_dist.training.best import Best
from altrelu_dist.training.validation import HeldOut, Validation


def held_out_rows(n, fraction, seed):
    held, nothing = HeldOut.of(fraction, n, seed), np.empty((n, 0))
    whole = Rows(0, nothing, nothing)
    tiles = [whole.part(i, min(i + TILE, n)) for i in range(0, n, TILE)]
    return np.concatenate([held.mask(tile) for tile in tiles])


def test_a_share_of_the_rows_is_held_out():
    n = 3 * TILE + 100
    held = held_out_rows(n, 0.1, seed=1)
    assert held.sum() == pytest.approx(0.1 * n, abs=4)
    assert (held != held_out_rows(n, 0.1, seed=2)).any()
    assert held_out_rows(20, 0.1, seed=0).sum() == 2
    many = HeldOut.of(0.1, 10**9, 0)
    assert many.share * 10**9 == pytest.approx(65_536)


@pytest.mark.parametrize("method", METHODS)
def test_held_out_rows_are_not_trained_on(method, rng):
    X, y = noisy(rng)
    held = held_out_rows(len(X), 0.25, seed=3)
    parameters = {"method": method, "max_iter": METHODS[method], "random_state": 3}
    stopping = {"early_stopping": True, "validation_fraction": 0.25}
    one = AltReLURegressor(6, **parameters, **stopping).fit(X, y)
    other = y.copy()
    other[held] = other[held] + 1e-9 * rng.standard_normal(held.sum())
    two = AltReLURegressor(6, **parameters, **stopping).fit(X, other)
    losses = [e["loss"] for e in one.history_]
    assert losses == [e["loss"] for e in two.history_], "the training saw the rows held out"
    # The network that is kept has the least loss on them that the history tells.
    kept = np.mean((one.predict(X[held]) - y[held]) ** 2)
    told = one.history_[-1]["validation_loss"]
    assert kept == pytest.approx(told)
    assert told <= min(e["validation_loss"] for e in one.history_[1:])
    assert told < np.var(y[held]) * 1.1


@pytest.mark.parametrize(
    ("method", "weighted"),
    [
        # `test_same_bits.py` has the search without weights among the quick tests.
        pytest.param("search", False, marks=pytest.mark.slow),
        ("search", True),
        *((method, weighted) for method in list(METHODS)[1:] for weighted in (False, True)),
    ],
)
def test_the_same_bits_on_dask_and_whatever_the_chunks(method, weighted, rng, small_samples):
    del small_samples  # so that all three stages of a run over more rows than fit are passed
    X, y = noisy(rng, n=4 * TILE + 77)
    weight = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    models = []
    for chunk in (len(X), 1999):
        lazy = [None if a is None else da.from_array(a, chunks=(chunk, -1)[: a.ndim])
                for a in (X, y, weight)]  # fmt: skip
        model = AltReLURegressor(4, method=method, max_iter=2, early_stopping=True, random_state=1)
        models.append(model.fit(lazy[0], lazy[1], lazy[2]))
    assert math.isfinite(models[0].history_[-1]["validation_loss"])
    for model in models[1:]:
        for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
            assert same(getattr(model.network_, name), getattr(models[0].network_, name))
    held = held_out_rows(len(X), 0.1, seed=1)
    share = None if weight is None else weight[held]
    kept = np.average((models[0].predict(X[held]) - y[held]) ** 2, weights=share)
    assert kept == pytest.approx(models[0].history_[-1]["validation_loss"])


def test_it_stops_and_generalises_where_the_network_is_too_large(rng):
    X, y = noisy(rng, n=300, d=8)
    new_X, new_y = noisy(rng, n=3000, d=8)
    scores = {}
    for stopping in (False, True):
        model = AltReLURegressor(24, early_stopping=stopping, random_state=0, max_iter=2)
        scores[stopping] = model.fit(X, y).score(new_X, new_y)
    assert model.stop_reason_ in ("early_stopping", "max_iter")
    assert model.network_.n_hidden < 24
    assert scores[True] > max(0, scores[False]) + 0.1


def test_noise_leaves_the_mean(rng):
    X, y = rng.standard_normal((60, 5)), rng.standard_normal(60)
    model = AltReLURegressor(8, early_stopping=True, validation_fraction=0.5, random_state=0)
    model.fit(X, y)
    held = held_out_rows(60, 0.5, seed=0)
    assert np.mean((model.predict(X[held]) - y[held]) ** 2) <= np.mean(
        (y[~held].mean() - y[held]) ** 2
    ) + 1e-12  # fmt: skip


def test_early_stopping_on_rows_without_weight_says_so(rng):
    X, y = noisy(rng, n=20)
    weight = np.where(held_out_rows(20, 0.1, seed=0), 0.0, 1.0)
    with pytest.raises(DataError, match="no row with weight is held out"):
        AltReLURegressor(2, early_stopping=True, random_state=0).fit(X, y, weight)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "half", None, math.nan])
def test_a_fraction_that_cannot_be_is_named(fraction, rng):
    model = AltReLURegressor(2, early_stopping=True, validation_fraction=fraction)
    with pytest.raises(ParameterError, match="validation_fraction"):
        model.fit(*noisy(rng))


def test_only_iterations_over_all_rows_count_towards_the_end(rng):
    X, y = noisy(rng)
    scaler = Scaler(np.dtype(float), np.zeros(4), np.ones(4), np.zeros(1), 1.0, 1.0)
    start = Weights(np.zeros((5, 2)), np.zeros((2, 1)), np.zeros(1))
    bad = Weights(start.W, start.V, np.array([9.0]))
    good = Weights(start.W, start.V, np.array([y.mean()]))
    validation = Validation(Rows(0, X, y[:, None]), scaler, 0.0, start)
    assert validation.best.loss == pytest.approx(np.mean(y**2))
    validation.validate(good, 100, whole=False)
    assert validation.best.weights is good
    assert validation.best.loss == pytest.approx(np.var(y))
    for _ in range(20):
        validation.validate(bad, 1000, whole=False)
    assert not validation.stagnates
    for rows in range(101, 107):
        validation.validate(bad, rows, whole=True)
    assert not validation.stagnates, "six iterations, but next to no work"
    validation.validate(bad, 150, whole=True)
    assert validation.stagnates
    large = Weights(np.zeros((5, 3)), np.zeros((3, 1)), np.array([y.mean()]) + 1e-9)
    validation.best = Best(good)
    validation.validate(large, 160, whole=True)
    assert validation.best.weights is good, "more neurons than were asked for"


def test_a_network_that_few_rows_led_to_is_counted_once(rng, small_samples, monkeypatch):
    del small_samples
    counted = []
    validate = Validation.validate

    def noting(self, weights, rows, *, whole):
        counted.append(whole)
        validate(self, weights, rows, whole=whole)

    monkeypatch.setattr(Validation, "validate", noting)
    X, y = noisy(rng, n=30_000)
    model = AltReLURegressor(3, early_stopping=True, random_state=0, max_iter=2).fit(X, y)
    made = model.history_[1:]
    sampled = [entry for entry in made if entry["loss_rows"] < len(X)]
    cycles = [entry["loss"] for entry in sampled if entry["stage"] == "cycle"]
    assert cycles
    assert all(loss < model.history_[0]["loss"] for loss in cycles), "over all rows, too"
    assert sum(counted) == len(made) - len(sampled)


@pytest.mark.parametrize(("n", "fraction"), [(2, 0.1), (5, 0.1), (3, 0.99), (10, 0.01)])
@pytest.mark.parametrize("seed", range(5))
def test_few_rows_leave_some_to_train_on_and_some_to_validate(n, fraction, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, 2)), rng.standard_normal(n)
    model = AltReLURegressor(
        2, early_stopping=True, validation_fraction=fraction, random_state=seed
    ).fit(X, y)
    assert np.isfinite(model.predict(X)).all()


# Fewer neurons than asked for


def test_fewer_neurons_than_asked_for_are_warned_of(rng):
    X = rng.integers(2, size=(200, 2)).astype(float)  # four different rows
    with pytest.warns(ConvergenceWarning, match=r"has \d+ of 50 neurons: no further one") as told:
        model = AltReLURegressor(50, random_state=0).fit(X, X[:, 0])
    assert told[0].filename == __file__
    sizes = abs(model.network_.hidden_weights).sum(0) * abs(model.network_.output_weights).sum(1)
    assert f"has {np.count_nonzero(sizes)} of 50" in str(told[0].message)
    with pytest.warns(ConvergenceWarning, match="has 0 of 3 neurons: no further one"):
        AltReLURegressor(3).fit(X, np.ones(200))


@pytest.mark.parametrize("stopping", [False, True])
def test_all_neurons_and_those_that_early_stopping_chose_are_not(stopping, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AltReLURegressor(4, early_stopping=stopping, random_state=0, max_iter=1).fit(*noisy(rng))
