"""Rows with much noise, and how many iterations each method makes of them."""

from __future__ import annotations

import numpy as np

__all__ = ["METHODS", "noisy"]

METHODS = {"search": 2, "kronecker": 1, "damped": 15, "alternating": 5}


def noisy(rng, n=600, d=4):
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, 0]) + 0.5 * X[:, 1] + rng.standard_normal(n)
