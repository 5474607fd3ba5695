"""Scores, against scikit-learn's, and what they refuse."""

from __future__ import annotations

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from altrelu_dist import evaluate
from altrelu_dist.engine import TILE
from altrelu_dist.errors import DataError
from altrelu_dist.network import Network


def random_network(rng, d=3, q=2, **more):
    return Network(
        rng.standard_normal((d, 4)),
        rng.standard_normal(4),
        rng.standard_normal((4, q)),
        rng.standard_normal(q),
        **more,
    )


@pytest.fixture
def data(rng):
    n = TILE + 300
    X = rng.standard_normal((n, 3))
    return X, rng.standard_normal((n, 2)) + 1e4, rng.uniform(0, 2, n)


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_scikit_learns(rng, data, weighted):
    X, y, weight = data
    network = random_network(rng, target_names=("a", "b"))
    weight = weight if weighted else None
    scores = evaluate(network, X, y, weight)
    predicted = network.predict(X)
    assert [score.target for score in scores] == ["a", "b"]
    for t, score in enumerate(scores):
        args = (y[:, t], predicted[:, t])
        assert score.mse == pytest.approx(mean_squared_error(*args, sample_weight=weight))
        assert score.rmse == pytest.approx(np.sqrt(score.mse))
        assert score.mae == pytest.approx(mean_absolute_error(*args, sample_weight=weight))
        assert score.r2 == pytest.approx(r2_score(*args, sample_weight=weight))


def test_scores_are_the_same_bits_wherever_the_rows_are(rng, data, tmp_path, thread_client):
    X, y, weight = data
    network = random_network(rng)
    expected = evaluate(network, X, y, weight)
    chunked = [da.from_array(part, chunks=900) for part in (y, weight)]
    columns = da.from_array(X, chunks=(1500, 2))
    assert evaluate(network, columns, *chunked) == expected
    assert evaluate(network, X, *chunked) == expected
    assert evaluate(network, columns, y, weight, client=thread_client) == expected
    stored = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(1000, 3))
    assert evaluate(network, stored, y, weight) == expected
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=3)
    assert evaluate(network, frame, y, weight) == expected
    assert evaluate(network, np.asfortranarray(X), np.asfortranarray(y), weight) == expected


def test_a_flat_target_and_one_that_does_not_vary(rng):
    network = random_network(rng, q=1)
    X = rng.standard_normal((50, 3))
    (score,) = evaluate(network, X, np.full(50, 3.0))
    assert np.isnan(score.r2)
    assert score.target == "y0"
    assert score.mse == pytest.approx(((network.predict(X) - 3) ** 2).mean())
    (perfect,) = evaluate(network, X, network.predict(X)[:, 0])
    assert (perfect.mse, perfect.rmse, perfect.mae, perfect.r2) == (0, 0, 0, 1)


def test_what_does_not_fit_is_refused(rng, data):
    X, y, weight = data
    network = random_network(rng)
    lazy = da.from_array(X, chunks=1000)
    for rows in (X, lazy):
        with pytest.raises(DataError, match="takes 3 features"):
            evaluate(network, rows[:, :2], y)
        with pytest.raises(DataError, match="predicts 2 targets, y has 1"):
            evaluate(network, rows, y[:, 0])
        with pytest.raises(DataError, match=f"X has {len(X)} rows, y has 10"):
            evaluate(network, rows, y[:10])
        with pytest.raises(DataError, match=f"X has {len(X)} rows, sample_weight has 7"):
            evaluate(network, rows, y, weight[:7])
        longer = np.append(weight, 1.0)
        with pytest.raises(DataError, match="sample_weight has"):
            evaluate(network, rows, y, longer)
        with pytest.raises(DataError, match="negative"):
            evaluate(network, rows, y, -weight)
        with pytest.raises(DataError, match="every sample weight is zero"):
            evaluate(network, rows, y, 0 * weight)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(rng, data, value):
    X, y, _ = data
    network = random_network(rng)
    y = y.copy()
    y[17, 1] = value
    with pytest.raises(DataError, match=r"y contains NaN or infinity: 1 values.*row 17"):
        evaluate(network, X, y)
    X = X.copy()
    X[3, 0] = value
    with pytest.raises(DataError, match=r"X contains NaN or infinity: 1 values.*row 3"):
        evaluate(network, X, data[1])
