"""Prediction intervals: their coverage, what they are saved with, and where there are none."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from oracles import same

from altrelu_dist import AltReLURegressor, Network
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.intervals import ResidualQuantiles


def made(n, seed=0):
    """A curved truth whose errors grow with it, and lean to one side."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    mean = np.abs(X[:, 0]) + 0.5 * X[:, 1]
    return X, mean + 0.2 * (0.5 + np.abs(mean)) * (rng.exponential(1, n) - 1)


def quick(n_hidden=None, **parameters):
    usual = {"random_state": 0, "max_iter": 1}
    if n_hidden is not None:
        usual |= {"method": "damped", "max_iter": 8, "early_stopping": True}
    return AltReLURegressor(n_hidden, **(usual | parameters))


def covered(interval, y):
    return float(np.mean((interval[..., 0] <= y) & (y <= interval[..., 1])))


# --- residuals --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [19, 99])
def test_the_chance_of_a_new_row_is_the_level_whatever_the_number_of_residuals(n):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(800):
        known = ResidualQuantiles.of(np.zeros((n, 1)), rng.exponential(1, (n, 1)), np.ones(n))
        found.append(covered(known.interval(np.zeros((50, 1)), 0.8)[:, 0], rng.exponential(1, 50)))
    assert np.mean(found) == pytest.approx(0.8, abs=0.012)


def test_a_row_of_weight_three_is_three_rows():
    rng = np.random.default_rng(1)
    f, y = rng.standard_normal((2, 4000, 1))
    weight = rng.integers(0, 4, 4000).astype(float)
    one = ResidualQuantiles.of(f, y, weight)
    again = np.repeat(np.arange(4000), weight.astype(int))
    other = ResidualQuantiles.of(f[again], y[again], np.ones(len(again)))
    at = np.linspace(-2, 2, 9)[:, None]
    np.testing.assert_allclose(one.interval(at, 0.9), other.interval(at, 0.9), atol=0.03)


def test_the_interval_is_wider_where_residuals_are():
    rng = np.random.default_rng(2)
    f = rng.uniform(0, 1, (5000, 1))
    known = ResidualQuantiles.of(f, f + f * rng.standard_normal(f.shape), np.ones(5000))
    narrow, wide = np.diff(known.interval(np.array([[0.2], [0.9]]), 0.9))[:, 0, 0]
    assert wide / narrow == pytest.approx(4.5, rel=0.15)


@pytest.mark.parametrize("f", [np.zeros((30, 1)), np.repeat([[0.0], [1.0]], 200, axis=0)])
def test_predictions_that_are_equal_and_residuals_that_are_zero(f):
    known = ResidualQuantiles.of(f, f, np.ones(len(f)))
    assert same(known.interval(f, 0.5), np.stack([f, f], axis=2))


def test_a_row_of_next_to_no_weight_breaks_nothing():
    f = np.zeros((3, 1))
    known = ResidualQuantiles.of(f, np.array([[0.0], [0.0], [1.0]]), np.array([1.0, 3.0, 1e-300]))
    assert np.isfinite(known.interval(f, 0.1)).all()


# --- of a model -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_hidden", [None, 8])
@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_new_rows_are_covered_as_often_as_the_level_says(n_hidden, loss):
    X, y = made(5000)
    train, new = slice(1500), slice(1500, None)
    share = {"validation_fraction": 0.4} if n_hidden else {}
    model = quick(n_hidden, loss=loss, **share).fit(X[train], y[train])
    for level in (0.5, 0.9):
        interval = model.predict_interval(X[new], level)
        assert interval.shape == (3500, 2)
        assert covered(interval, y[new]) == pytest.approx(level, abs=0.05)
        below, above = y[new] < interval[:, 0], y[new] > interval[:, 1]
        assert abs(below.mean() - above.mean()) < 0.05


def test_a_network_that_follows_another_covers_too():
    X, y = made(3000)
    train, new = slice(800), slice(800, None)
    model = quick(max_size=12).fit(X[train], y[train])
    assert "distilled_from" in model.network_.info
    assert covered(model.predict_interval(X[new]), y[new]) == pytest.approx(0.9, abs=0.06)


def test_intervals_of_means_of_counts_are_not_negative():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((1500, 2))
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    model = quick(loss="poisson").fit(X[:500], y[:500])
    interval = model.predict_interval(X[500:])
    assert (interval >= 0).all()
    assert covered(interval, y[500:]) > 0.87


def test_several_targets_chunks_and_files(tmp_path):
    X, y = made(100)
    model = quick().fit(X, np.stack([y, 10 * y[::-1]], axis=1))
    interval = model.predict_interval(X)
    assert interval.shape == (100, 2, 2)
    lazy = model.predict_interval(da.from_array(X, chunks=(30, 2)))
    assert lazy.shape == (100, 2, 2)
    np.testing.assert_allclose(lazy.compute(), interval, rtol=1e-12)
    model.save(tmp_path / "model.zarr")
    assert same(AltReLURegressor.load(tmp_path / "model.zarr").predict_interval(X), interval)


def test_there_is_no_interval_without_residuals():
    X, y = made(100)
    plain = quick(4, early_stopping=False).fit(X, y)
    model = quick().fit(X, y)
    model.predict_interval(X)
    model.partial_fit(X, y)
    for each in (plain, model):
        with pytest.raises(DataError, match="no residuals"):
            each.predict_interval(X)
    model = quick().fit(X, y)
    with pytest.raises(ParameterError, match=r"enough for at most 0\.98"):
        model.predict_interval(X, 0.999)
    for level in (0, 1, True, "high"):
        with pytest.raises(ParameterError, match="above 0 and below 1"):
            model.predict_interval(X, level)
    with pytest.raises(ParameterError, match="predicts quantiles"):
        quick(loss="quantile").fit(X, y).predict_interval(X)


def test_a_file_whose_residuals_do_not_fit_is_damaged(tmp_path):
    X, y = made(60)
    network = quick().fit(X, y).network_
    with pytest.raises(ParameterError, match="residuals have the shapes"):
        replace(network, residuals=replace(network.residuals, quantiles=np.zeros((4, 2))))
    network.save(tmp_path / "model.zarr")
    import shutil

    shutil.rmtree(tmp_path / "model.zarr" / "residual_quantiles")
    with pytest.raises(ModelFileError, match="damaged"):
        Network.load(tmp_path / "model.zarr")
