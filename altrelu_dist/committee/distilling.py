"""A small network that learns what a committee says: distillation (Bucila et al., KDD 2006).

What a committee says of a row has far less noise than the row's target. A network of few neurons,
trained on it by Kronecker-factored descents, keeps most of the committee's accuracy; the same
network trained on the targets fits their noise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from altrelu_dist.engine import LocalEngine
from altrelu_dist.moments.rows import Rows, Scaler
from altrelu_dist.network import Network
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.trainer import Parameters, train

__all__ = ["distilled"]

_HELD_OUT = 8  # every such row is kept to measure how well the small network follows


def distilled(
    network: Network, rows: Rows, parameters: Parameters, max_time: float | None
) -> Network:
    """A network of ``parameters.max_size`` neurons that follows another one.

    Parameters
    ----------
    network : Network
        With an encoder, whose columns the small one takes too.
    rows : Rows
        Raw, in random order, numbered from 0.
    parameters : Parameters
        Of the committee.
    max_time : float, optional
        Seconds.

    Returns
    -------
    Network
        Its ``info`` says how many neurons it follows (``distilled_from``) and how well
        (``fidelity``: R2 of what it says of rows it was not trained on, against what the other
        says); what is expected on new rows is less by the difference.
    """
    assert network.encoder is not None
    assert parameters.max_size is not None
    columns = network.encoder.transform(rows.X, np.float32)
    said = replace(network, target_range=None).predict(rows.X)
    test = np.arange(len(rows.X)) % _HELD_OUT == 0
    weight = np.ones(len(rows.X)) if rows.weight is None else rows.weight.astype(np.float64)
    engine = LocalEngine.of(Rows(0, columns[~test], said[~test], weight[~test]))
    asked = replace(
        parameters, method="kronecker", n_hidden=parameters.max_size, max_size=None, max_iter=1
    )
    trained = train(engine, asked, Monitor(max_time=max_time), np.dtype(np.float32))
    scaler: Scaler = trained.scaler
    hidden, bias, output, output_bias = scaler.to_raw(trained.weights)
    small = replace(
        network,
        hidden_weights=hidden,
        hidden_bias=bias,
        output_weights=output,
        output_bias=output_bias,
        hidden_gram=None,
    )
    follows = replace(small, target_range=None).predict(rows.X[test])
    mean = np.average(said, axis=0, weights=weight)
    missed = float(np.average(((follows - said[test]) ** 2).sum(axis=1), weights=weight[test]))
    spread = float(np.average(((said - mean) ** 2).sum(axis=1), weights=weight))
    y = rows.y.astype(np.float64)
    centred = y - np.average(y, axis=0, weights=weight)
    around = np.average((centred**2).sum(axis=1), weights=weight)
    gram = trained.hidden_gram
    info = network.info | {
        "distilled_from": network.n_hidden,
        "fidelity": 1 - missed / spread if spread > 0 else 1.0,
        "expected_mse": network.info["expected_mse"] + missed,
        "expected_r2": network.info["expected_r2"] - missed / float(around),
    }
    assert network.hidden_gram is not None
    if gram is not None:
        gram = gram * (network.hidden_gram[-1, -1] / gram[-1, -1])
    return replace(small, info=info, hidden_gram=gram)
