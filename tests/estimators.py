"""A quick estimator, rows for it, and networks compared."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import same

from altrelu_dist import AltReLURegressor

__all__ = ["assert_same", "quick", "smooth_rows"]


def quick(n_hidden=4, **parameters):
    """A regressor of few neurons and steps."""
    return AltReLURegressor(
        n_hidden, **({"method": "damped", "max_iter": 10, "random_state": 0} | parameters)
    )


def smooth_rows(rng):
    """Features and a target that depends on them."""
    X = rng.standard_normal((200, 3))
    return X, np.abs(X[:, 0]) - X[:, 1] + 0.1 * rng.standard_normal(200)


def assert_same(model, in_process, X):
    """Both have the same network and predictions."""
    a, b = model.network_, in_process.network_
    for part in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert same(getattr(a, part), getattr(b, part))
    expected = in_process.predict(X)
    assert model.predict(X) == pytest.approx(expected, rel=1e-12)
    assert expected.shape == (200,)
