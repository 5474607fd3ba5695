"""Predictions over Dask blocks: lazy, one BLAS thread a task."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.threads import one_blas_thread

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.network import Floats, Network

__all__ = ["predict_blocks"]


def predict_blocks(network: Network, X: da.Array) -> da.Array:
    """The predictions of a network, block by block when they are computed.

    Parameters
    ----------
    network : Network
    X : dask.array.Array of shape (n_rows, n_features), in one block of columns

    Returns
    -------
    dask.array.Array of shape (n_rows, n_targets)
    """
    predicted: da.Array = X.map_blocks(
        _predict_block,
        network=replace(network, hidden_gram=None),  # which is large, and goes to the workers
        dtype=np.float64,
        chunks=(X.chunks[0], (network.n_targets,)),
        meta=np.empty((0, 0)),
        token="predict",
    )
    return predicted


def _predict_block(rows: Any, network: Network) -> Floats:
    # Blocks are predicted side by side, and not every scheduler has told BLAS so.
    with one_blas_thread():
        return network.predict(rows)
