"""What the demo compares with: predicting the mean and least squares, both as networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from altrelu_dist.network import Network

if TYPE_CHECKING:
    from altrelu_dist.data import DataSet

__all__ = ["linear_baselines"]

Floats = npt.NDArray[np.float64]


def linear_baselines(data: DataSet) -> tuple[Network, Network]:
    """Mean and ordinary least squares, from one pass over the rows.

    Parameters
    ----------
    data : DataSet

    Returns
    -------
    mean, least_squares : Network
        As networks, so that they are scored like any other: a linear function is the difference
        of two rectified ones.
    """
    import dask.array as da

    d, q = data.X.shape[1], data.y.shape[1]  # type: ignore[union-attr]
    size = 1 + d + q
    blocks = da.map_blocks(
        _products, data.X, data.y, dtype=float, chunks=((size,) * data.X.numblocks[0], (size,))
    )
    total = blocks.compute().reshape(-1, size, size).sum(axis=0)
    centre = total[0, 1:] / total[0, 0]
    covariance = total[1:, 1:] / total[0, 0] - np.outer(centre, centre)
    scale = np.sqrt(np.maximum(np.diag(covariance)[:d], 1e-12))
    inside = covariance[:d, :d] / np.outer(scale, scale)
    # Columns may be collinear (one of each kind): the least of all solutions.
    slopes = np.linalg.pinv(inside, rcond=1e-9, hermitian=True) @ (
        covariance[:d, d:] / scale[:, None]
    )
    slopes /= scale[:, None]
    offset = centre[d:] - centre[:d] @ slopes
    return _affine(np.zeros_like(slopes), centre[d:]), _affine(slopes, offset)


def _products(X: Any, y: Any) -> Floats:
    rows = np.column_stack([np.ones(len(X)), X, y]).astype(np.float64)
    return rows.T @ rows


def _affine(slopes: Floats, offset: Floats) -> Network:
    identity = np.eye(slopes.shape[1])
    return Network(
        hidden_weights=np.hstack([slopes, -slopes]),
        hidden_bias=np.zeros(2 * slopes.shape[1]),
        output_weights=np.vstack([identity, -identity]),
        output_bias=offset,
    )
