"""A small network that learns what a committee predicts: distillation (Bucila et al., KDD 2006).

What a committee predicts has far less noise than the targets, and it can be asked about rows that
nobody has measured. A network of few neurons is trained on these predictions, for the rows in
memory and for others that take some of their columns from another row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.engine import LocalEngine
from altrelu_dist.moments.rows import Floats, Rows
from altrelu_dist.network import Network
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.trainer import Parameters, train

__all__ = ["ROWS", "distilled", "held_out"]

_HELD_OUT = 8  # every such row is kept to measure how well the small network follows
ROWS = 16_384  # to train on; where there are fewer, the others are mixed from them
_MIXED = 0.2  # part of the columns that a mixed row has from another row


def distilled(
    network: Network,
    rows: Rows,
    parameters: Parameters,
    monitor: Monitor,
    weight_sum: float,
) -> Network:
    """A network of at most ``parameters.max_size`` neurons that follows another one.

    Parameters
    ----------
    network : Network
        With an encoder, whose columns the small one takes too.
    rows : Rows
        Raw, in random order, numbered from 0.
    parameters : Parameters
        Of the committee.
    monitor : Monitor
        Of the training of the small network.
    weight_sum : float
        Of all rows, to which its Gram matrix is scaled.

    Returns
    -------
    Network
        Its ``info`` says how many neurons it follows (``distilled_from``) and how well
        (``fidelity``: R2 of its predictions for rows that it was not trained on, against those of
        the other); the expected error is greater by the difference.
    """
    assert network.encoder is not None
    assert parameters.max_size is not None
    free = replace(network, target_range=None)
    predicted = free.predict(rows.X)
    weight = rows.weights
    test = held_out(len(rows.X))
    X = rows.X[~test]
    mixed = _mixed(X, max(0, ROWS - len(X)), parameters.seed)
    columns = network.encoder.transform(np.concatenate([X, mixed]), np.float32)
    targets = np.concatenate([predicted[~test], free.predict(mixed)])
    own = np.concatenate([weight[~test], np.full(len(mixed), weight.mean())])
    asked = replace(
        parameters, method="kronecker", n_hidden=parameters.max_size, max_size=None, max_iter=1
    )
    engine = LocalEngine.of(Rows(0, columns, targets, own))
    trained = train(engine, asked, monitor, np.dtype(np.float32))
    hidden, bias, output, output_bias = trained.scaler.to_raw(trained.weights)
    small = replace(
        free,
        hidden_weights=hidden,
        hidden_bias=bias,
        output_weights=output,
        output_bias=output_bias,
    )
    missed = np.average((small.predict(rows.X[test]) - predicted[test]) ** 2, 0, weight[test])
    around = _variance(rows.y.astype(np.float64), weight)
    spread = _variance(predicted, weight)
    varies = around > 0
    loss = np.mean(missed[varies] / around[varies]) if varies.any() else 0.0
    info = network.info | {
        "distilled_from": network.n_hidden,
        "fidelity": float(1 - missed.sum() / spread.sum()) if spread.sum() > 0 else 1.0,
        "expected_mse": network.info["expected_mse"] + float(missed.mean()),
        "expected_r2": network.info["expected_r2"] - float(loss),
    }
    gram = trained.hidden_gram
    if gram is not None:
        gram = gram * (weight_sum / gram[-1, -1])
    return replace(small, info=info, hidden_gram=gram, target_range=network.target_range)


def held_out(n_rows: int) -> NDArray[np.bool_]:
    """Which rows the small network is not trained on."""
    mask: NDArray[np.bool_] = np.arange(n_rows) % _HELD_OUT == 0
    return mask


def _mixed(X: NDArray[np.generic], n_rows: int, seed: int) -> NDArray[np.generic]:
    """Rows that take some of their columns from another one."""
    rng = np.random.default_rng([seed, 3])
    first, second = rng.integers(len(X), size=(2, n_rows))
    swapped = rng.random((n_rows, X.shape[1])) < _MIXED
    mixed: NDArray[np.generic] = np.where(swapped, X[second], X[first])
    return mixed


def _variance(values: Floats, weight: Floats) -> Floats:
    """Weighted variance of each column."""
    centred = values - np.average(values, axis=0, weights=weight)
    variance: Floats = np.average(centred**2, axis=0, weights=weight)
    return variance
