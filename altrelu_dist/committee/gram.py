"""The Gram matrix of a committee's hidden features, for folding in further rows."""

from __future__ import annotations

import numpy as np

from altrelu_dist.committee.tiles import Encoding
from altrelu_dist.moments.rows import Floats, Rows, Scaler
from altrelu_dist.network import Network
from altrelu_dist.threads import one_blas_thread

__all__ = ["GRAM_ROWS", "hidden_gram"]

GRAM_ROWS = 16_384  # that stand for all rows
_TILE = 2048


def hidden_gram(
    network: Network, rows: Rows, scaler: Scaler, weight: float, ridge: float
) -> Floats:
    """Gram matrix of the hidden features and a one: of some rows, scaled to all of them.

    With a ridge: there are often more neurons than rows, and few further rows would otherwise move
    the output layer far in directions that these rows do not determine.

    Parameters
    ----------
    network : Network
        With an encoder.
    rows : Rows
        In random order; at most the first `GRAM_ROWS` are taken.
    scaler : Scaler
        Of the row weights.
    weight : float
        Of all rows.
    ridge : float
        In parts of the mean square of a hidden feature.

    Returns
    -------
    ndarray of shape (n_hidden + 1, n_hidden + 1)
    """
    assert network.encoder is not None
    encoding = Encoding(network.encoder, scaler)
    few = rows.part(0, min(GRAM_ROWS, len(rows.X)))
    W = np.vstack([network.hidden_weights, network.hidden_bias]).astype(np.float32)
    slope = np.float32(network.negative_slope)
    gram = np.zeros((W.shape[1] + 1,) * 2)
    seen = 0.0
    with one_blas_thread():
        for start in range(0, len(few.X), _TILE):
            x = encoding(few.part(start, min(start + _TILE, len(few.X)))).x
            hidden = x @ W
            features = np.hstack([np.maximum(hidden, slope * hidden), x[:, -1:]])
            gram += features.T @ features
            seen += float(np.vdot(x[:, -1], x[:, -1]))
    inner = np.einsum("ii->i", gram)[:-1]
    inner += ridge * inner.mean()
    return gram * (weight / seen)
