"""The packed Gram matrix under a pattern by its definition: soonest for few neurons and columns."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Array, Floats

__all__ = ["MOST_COLUMNS", "explicit_moments", "is_small"]

# Columns of the design, and of the data, up to which one Gram matrix of all is the shortest call,
# in float32 and in float64.
MOST_COLUMNS = 96
_MOST = {np.dtype(np.float32): (MOST_COLUMNS, 24), np.dtype(np.float64): (72, 16)}
# Columns of the data, and those for each neuron, up to which short loops over the columns of a row
# would take longer than the product.
_FEW, _FEW_A_NEURON = 12, 4


def is_small(x: Array, h: int) -> bool:
    """Whether the moments of those rows and h neurons are soonest formed this way."""
    p = x.shape[1]
    most, most_of_data = _MOST[x.dtype]
    return bool(0 < h * p <= most and p <= most_of_data)


def explicit_moments(x: Array, y: Array, slopes: Array) -> tuple[Floats, Floats]:
    """M, packed, and N from all products of slopes and columns; as `PatternGram` has them.

    Parameters
    ----------
    x : array of shape (n, p)
    y : array of shape (n, q)
    slopes : array of shape (n, h)
    """
    (n, p), h = x.shape, slopes.shape[1]
    targets = np.concatenate([y, x[:, -1:]], axis=1)
    if p <= min(_FEW, _FEW_A_NEURON * h):
        along = np.ascontiguousarray(slopes.T)[:, None] * np.ascontiguousarray(x.T)
        design = along.reshape(h * p, n).T
    else:
        design = (slopes[:, :, None] * x[:, None, :]).reshape(n, h * p)
    M = (design.T @ design).ravel()[_packed_places(h, p)].astype(np.float64)
    return M, (design.T @ targets).astype(np.float64).reshape(h, p, -1)


@lru_cache(maxsize=8)
def _packed_places(h: int, p: int) -> NDArray[np.intp]:
    """Where the entries of the packed matrix are in the full one."""
    (j, k), (u, v) = np.triu_indices(h), np.triu_indices(p)
    return (j[:, None] * p + u) * (h * p) + k[:, None] * p + v
