"""Predictions over Dask blocks: lazy, one BLAS thread a task."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.threads import one_blas_thread

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.network import Floats, Network

__all__ = ["of_targets", "predict_blocks"]


def of_targets(network: Network, outputs: Any) -> Any:
    """What the outputs of a network say of the targets.

    Parameters
    ----------
    network : Network
    outputs : ndarray or dask.array.Array of shape (n_rows, n_targets)
        As :meth:`Network.predict` gives them.

    Returns
    -------
    ndarray or dask.array.Array of shape (n_rows, n_targets)
        Means, where outputs are their logarithms; quantiles of several levels sorted, so that they
        do not cross [1]_. All others are as they were.

    References
    ----------
    .. [1] V. Chernozhukov, I. Fernandez-Val and A. Galichon, "Quantile and Probability Curves
       Without Crossing", Econometrica 2010, 78(3), 1093-1125.
    """
    if network.info.get("link") == "log":
        return np.exp(outputs)
    if len(network.info.get("quantiles", ())) < 2:
        return outputs
    if isinstance(outputs, np.ndarray):
        return np.sort(outputs, axis=1)
    return outputs.map_blocks(np.sort, axis=1, dtype=np.float64)


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
