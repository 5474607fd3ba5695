"""Rows of unlike columns, and the sketch of them."""

from __future__ import annotations

import numpy as np

from altrelu_dist.encoding import sketch_columns
from altrelu_dist.moments import Rows

__all__ = ["mixed", "sketch_of"]


def sketch_of(X, weight=None):
    """All rows as one tile."""
    return sketch_columns(Rows(0, X, X[:, :1], weight))


def mixed(rng, n):
    """Columns: continuous, of levels, constant, of two levels, heavy-tailed, mostly zero."""
    return np.column_stack(
        [
            rng.standard_normal(n),
            rng.integers(0, 7, n),
            np.full(n, 3.5),
            rng.integers(0, 2, n),
            rng.standard_cauchy(n),
            rng.exponential(size=n) * (rng.random(n) < 0.1),
        ]
    ).astype(float)
