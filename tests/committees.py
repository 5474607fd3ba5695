"""Rows for a committee, a quick one, and its networks compared."""

from __future__ import annotations

import numpy as np

from altrelu_dist import AltReLURegressor

__all__ = ["ARRAYS", "made", "quick", "same_network"]

ARRAYS = ("hidden_weights", "hidden_bias", "output_weights", "output_bias", "hidden_gram")


def made(n=200, d=3, q=1, noise=0.1, seed=0):
    """Rows of a curved truth; targets of one axis where there is one."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    columns = [np.abs(X[:, t % d]) + 0.5 * X[:, -1] for t in range(q)]
    y = np.stack(columns, axis=1) + noise * rng.standard_normal((n, q))
    return X, y[:, 0] if q == 1 else y


def quick(**options):
    return AltReLURegressor(**{"random_state": 0, "max_iter": 1} | options)


def same_network(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.encoder == other.encoder
    assert all(one.info[name] == other.info[name] for name in ("expected_r2", "groups"))
    np.testing.assert_array_equal(one.target_range, other.target_range)
