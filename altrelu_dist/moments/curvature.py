"""Kronecker factors of the Gauss-Newton matrices of both layers, from one block of rows."""

from __future__ import annotations

import numpy as np

from altrelu_dist.moments.rows import Array, Block, Floats, Weights

__all__ = ["kronecker_factors"]


def kronecker_factors(
    block: Block, weights: Weights, features: Array, slopes: Array
) -> tuple[Floats, Floats]:
    """Gram matrices of the hidden layer and of the output layer, sums over the rows.

    The Gauss-Newton matrix of the hidden layer is ``sum_i (V S_i)(V S_i)' (x) x_i x_i'`` with
    ``S_i`` the slopes of row i. With rows and slopes taken to be independent it is the Kronecker
    product of the rows' Gram matrix and of ``V V' o S'S``, which is returned first. That of the
    output layer is the Gram matrix of the hidden features and the one, and exact.

    Returns
    -------
    hidden : ndarray of shape (h, h)
    output : ndarray of shape (h + 1, h + 1)
    """
    root = block.x[:, -1:]  # of the row's weight
    weighted = slopes * root
    coactive = (weighted.T @ weighted).astype(np.float64)
    V = weights.V.astype(np.float64)
    with_one = np.hstack([features, root])
    return (V @ V.T) * coactive, (with_one.T @ with_one).astype(np.float64)
