"""Columns by how much they matter to members: what the features of each are multiplied by.

Where few of many columns matter, members that see all of them alike learn noise from the others. A
member's outputs change with feature j of a row by ``sum_k W_jk s_k V_k``, s the slopes of its
neurons there. The mean square of that over rows is ``(W G W')_jj`` with ``G = V V' o S'S / n``, the
curvature of a Kronecker-factored step. What a column's features change the outputs by is the sum of
these, each times the feature's variance. Its root is the column's factor.

Weighing columns by gradients of what was learnt so far follows Radhakrishnan, Beaglehole, Pandit
and Belkin, "Mechanism for feature learning in neural networks and backpropagation-free machine
learning models", Science 383 (2024), who use kernels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.committee.members import Group
from altrelu_dist.moments.rows import Array, Floats

__all__ = ["factors"]


def factors(x: Array, group: Group, sources: NDArray[np.intp], slope: float, floor: float) -> Array:
    """One factor for all features of a column; the sum of the variances stays about what it was.

    Parameters
    ----------
    x : ndarray of shape (n, m + 1)
        Encoded rows, the root of the row's weight last.
    group : Group
        Members of such rows.
    sources : ndarray of int of shape (m,)
        Which column each feature is of.
    slope : float
        Negative slope of the activation.
    floor : float
        Added to the factors, so that no column is lost.

    Returns
    -------
    ndarray of shape (m,)
        Of float32; ones, and the floor, where the outputs are constant.
    """
    W, V, _ = group
    members, h, _ = V.shape
    root = x[:, -1:]
    weight = max(float(np.vdot(root, root)), float(np.finfo(np.float32).tiny))
    variance: Floats = np.einsum("nm,nm->m", x[:, :-1], x[:, :-1], dtype=np.float64) / weight
    changed = np.zeros(len(W) - 1)
    for member in range(members):
        into = W[:, member * h : (member + 1) * h]
        slopes = np.where(x @ into > 0, 1, slope) * root
        curvature = (slopes.T @ slopes) / weight * (V[member] @ V[member].T)
        changed += np.einsum("mh,hk,mk->m", into[:-1], curvature, into[:-1], optimize=True)
    of_columns = np.bincount(sources, changed * variance)
    found = np.sqrt(np.maximum(of_columns, 0))[sources]
    total = float(found**2 @ variance)
    scaled = found * np.sqrt(variance.sum() / total) if total > 0 else np.ones_like(found)
    return (scaled + floor).astype(np.float32)
