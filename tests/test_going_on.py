"""Going on from a network: warm starts, and further rows folded in."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from altrelu_dist import AltReLURegressor
from altrelu_dist.errors import CheckpointError, DataError, ParameterError


def _data(n: int = 900, d: int = 4, q: int = 1, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * [1, 10, 0.1, 3][:d] + [5, -100, 0, 2][:d]
    Z = (X - X.mean(0)) / X.std(0)
    y = np.abs(Z @ rng.standard_normal((d, 3))) @ rng.standard_normal((3, q))
    y = 1000 + 7 * (y + 0.3 * rng.standard_normal((n, q)))
    return X, y[:, 0] if q == 1 else y


def _mse(model: AltReLURegressor, X: Any, y: Any) -> float:
    return float(np.mean((np.asarray(model.predict(X)) - y) ** 2))


@pytest.fixture(scope="module")
def fitted() -> AltReLURegressor:
    X, y = _data()
    return AltReLURegressor(6, max_iter=1, random_state=0).fit(X, y)


def _warm(fitted: AltReLURegressor, **parameters: Any) -> AltReLURegressor:
    model = AltReLURegressor(**(fitted.get_params() | {"warm_start": True} | parameters))
    model.network_, model.n_features_in_ = fitted.network_, fitted.n_features_in_
    return model


@pytest.mark.parametrize("method", ["search", "kronecker", "damped", "alternating"])
@pytest.mark.parametrize("n_hidden", [6, 8])
def test_a_warm_start_never_ends_above_the_network_it_begins_with(
    fitted: AltReLURegressor, method: str, n_hidden: int
) -> None:
    for seed in (0, 1):  # the same data, and other
        X, y = _data(seed=seed)
        model = _warm(fitted, method=method, n_hidden=n_hidden).fit(X, y)
        known = min(_mse(fitted, X, y), np.var(y))
        assert model.history_[1]["loss"] == pytest.approx(known, rel=1e-6)
        assert _mse(model, X, y) <= _mse(fitted, X, y) * (1 + 1e-9)
        assert model.network_.n_hidden == n_hidden


def test_a_warm_start_goes_on_rather_than_from_the_beginning(fitted: AltReLURegressor) -> None:
    X, y = _data()
    again = AltReLURegressor(6, max_iter=1, random_state=0).fit(X, y)
    on = _warm(fitted, n_hidden=8).fit(X, y)
    assert "grow" in {entry["stage"] for entry in again.history_}
    assert "grow" not in {entry["stage"] for entry in on.history_}
    assert _mse(on, X, y) < _mse(fitted, X, y)


def test_a_start_with_more_neurons_is_pruned(fitted: AltReLURegressor) -> None:
    X, y = _data()
    model = _warm(fitted, n_hidden=3).fit(X, y)
    assert model.network_.n_hidden == 3
    assert _mse(model, X, y) < 0.5 * np.var(y)


def test_a_warm_start_without_a_network_is_a_fit() -> None:
    X, y = _data(300)
    cold = AltReLURegressor(3, max_iter=1, random_state=0).fit(X, y)
    warm = AltReLURegressor(3, max_iter=1, random_state=0, warm_start=True).fit(X, y)
    np.testing.assert_array_equal(warm.predict(X), cold.predict(X))


def test_a_warm_start_has_the_same_bits_on_dask(fitted: AltReLURegressor) -> None:
    X, y = _data(seed=3)
    here = _warm(fitted).fit(X, y)
    lazy = _warm(fitted).fit(da.from_array(X, chunks=(130, -1)), da.from_array(y, chunks=170))
    np.testing.assert_array_equal(lazy.network_.hidden_weights, here.network_.hidden_weights)
    np.testing.assert_array_equal(lazy.network_.output_weights, here.network_.output_weights)


def test_a_warm_start_names_what_does_not_fit(fitted: AltReLURegressor) -> None:
    X, y = _data()
    with pytest.raises(DataError, match=r"X has 3 columns, the network .* from 4"):
        _warm(fitted).fit(X[:, :3], y)
    with pytest.raises(DataError, match=r"y has 2 columns, the network .* from 1"):
        _warm(fitted).fit(X, np.column_stack([y, y]))
    with pytest.raises(ParameterError, match=r"negative_slope is 0.1"):
        _warm(fitted, negative_slope=0.1).fit(X, y)
    named = AltReLURegressor(2, max_iter=1, random_state=0).fit(X, y, feature_names=list("abcd"))
    named.set_params(warm_start=True)
    with pytest.raises(DataError, match=r"column 1 of X is 'c', .* knows it as 'b'"):
        named.fit(X, y, feature_names=list("acbd"))
    assert named.network_.feature_names == tuple("abcd")


def test_a_checkpoint_is_of_one_start(fitted: AltReLURegressor, tmp_path: Any) -> None:
    X, y = _data()
    whole = _warm(fitted).fit(X, y)
    stopped = _warm(fitted, checkpoint=tmp_path / "c", callback=lambda now: now.iteration > 1)
    stopped.fit(X, y)
    resumed = _warm(fitted, checkpoint=tmp_path / "c", resume=True).fit(X, y)
    np.testing.assert_array_equal(resumed.predict(X), whole.predict(X))
    with pytest.raises(CheckpointError, match="warm_start"):
        AltReLURegressor(**resumed.get_params()).fit(X, y)


@given(
    cuts=st.lists(st.integers(1, 899), max_size=4, unique=True),
    q=st.integers(1, 2),
    alpha=st.sampled_from([0.0, 1e-3]),
    weighted=st.booleans(),
    lazy=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_blocks_folded_in_are_the_least_squares_over_all_rows(
    cuts: list[int], q: int, alpha: float, weighted: bool, lazy: bool
) -> None:
    X, y = _data(q=q)
    weight = np.random.default_rng(5).uniform(0.1, 3, y.shape[0]) if weighted else None
    first, y_first = _data(200, q=q, seed=9)
    model = AltReLURegressor(4, method="damped", max_iter=3, alpha=alpha, random_state=0)
    model.fit(first, y_first)
    edges = [0, *sorted(cuts), 900]
    for low, high in pairwise(edges):
        rows = X[low:high]
        model.partial_fit(
            da.from_array(rows, chunks=(64, -1)) if lazy else rows,
            y[low:high],
            None if weight is None else weight[low:high],
        )
    every_x, every_y = np.vstack([first, X]), np.concatenate([y_first, y])
    every_weight = np.concatenate([np.ones(200), np.ones(900) if weight is None else weight])
    features = model.network_.hidden_features(every_x)
    reference = Ridge(alpha * every_weight.sum(), solver="cholesky")
    reference.fit(features, every_y, sample_weight=every_weight)
    expected = reference.predict(features)
    found = model.predict(every_x)
    assert np.abs(found - expected).max() < 1e-6 * np.std(expected)


def test_the_first_partial_fit_is_a_fit() -> None:
    X, y = _data(300)
    fit = AltReLURegressor(3, max_iter=1, random_state=0).fit(X, y)
    partial = AltReLURegressor(3, max_iter=1, random_state=0).partial_fit(X, y)
    np.testing.assert_array_equal(partial.predict(X), fit.predict(X))


def test_rows_are_folded_into_a_model_that_was_loaded(
    fitted: AltReLURegressor, tmp_path: Any
) -> None:
    X, y = _data(400, seed=4)
    fitted.save(tmp_path / "m.zarr")
    loaded = AltReLURegressor.load(tmp_path / "m.zarr").partial_fit(X, y)
    model = _warm(fitted)
    model._flat = fitted._flat
    np.testing.assert_array_equal(loaded.predict(X), model.partial_fit(X, y).predict(X))
    assert _mse(loaded, X, y) < _mse(fitted, X, y)


def test_what_cannot_be_folded_in_leaves_the_network_as_it_was(fitted: AltReLURegressor) -> None:
    X, y = _data()
    model = _warm(fitted)
    model._flat = fitted._flat
    holes = X.copy()
    holes[3, 1] = np.nan
    with pytest.raises(DataError, match=r"X contains NaN.*column 1 \(1\).*row 3"):
        model.partial_fit(holes, y)
    with pytest.raises(DataError, match="NaN"):
        model.partial_fit(da.from_array(X, chunks=(100, -1)), np.where(y > y[3], y, np.nan))
    with pytest.raises(DataError, match="negative"):
        model.partial_fit(X, y, -np.ones(900))
    with pytest.raises(DataError, match=r"y has the shape \(n_samples, 2\)"):
        model.partial_fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="3 features"):
        model.partial_fit(X[:, :3], y)
    assert model.network_ is fitted.network_
    assert model._flat
