"""Difficult rows: a network that is no worse than the mean, or an error that names them."""

from __future__ import annotations

import numpy as np
import pytest
from nasty_rows import NASTY, nasty
from plain_networks import METHODS, QUICK, run, wavy

from altrelu_dist import AltReLURegressor
from altrelu_dist.errors import DataError


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


# Refused


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
