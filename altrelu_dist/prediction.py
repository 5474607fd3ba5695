"""Predictions over Dask blocks: lazy, one BLAS thread a task."""

from __future__ import annotations

import numbers
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.intervals import ResidualQuantiles
from altrelu_dist.losses import Loss
from altrelu_dist.moments.rows import Rows
from altrelu_dist.threads import one_blas_thread

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.network import Floats, Network

__all__ = [
    "check_interval", "intervals", "intervals_about", "of_targets", "own_losses",
    "predict_blocks", "residuals_of",
]  # fmt: skip


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


def own_losses(network: Network, loss: Loss, outputs: Floats, y: Floats) -> Floats:
    """The loss that a network was trained with, of each row and target (n, q), from its outputs."""
    f = of_targets(network, outputs) if network.quantiles else outputs
    return np.asarray(loss.value(f, y), dtype=np.float64)


def residuals_of(network: Network, rows: Rows) -> ResidualQuantiles:
    """The residuals of a network on rows that it was not trained on."""
    predicted = of_targets(network, network.predict(rows.X))
    return ResidualQuantiles.of(predicted, rows.y.astype(np.float64), rows.weights)


def intervals(network: Network, outputs: Any, level: float) -> Any:
    """Intervals about what a network says of some rows.

    Parameters
    ----------
    network : Network
        With residuals.
    outputs : ndarray or dask.array.Array of shape (n_rows, n_targets)
    level : float

    Returns
    -------
    ndarray or dask.array.Array of shape (n_rows, n_targets, 2)
    """
    if not isinstance(outputs, np.ndarray):
        return outputs.map_blocks(
            partial(intervals, replace(network, hidden_gram=None), level=level),
            dtype=np.float64,
            new_axis=2,
            chunks=(*outputs.chunks, (2,)),
            meta=np.empty((0, 0, 0)),
        )
    return intervals_about(network, of_targets(network, outputs), level)


def intervals_about(network: Network, predicted: Floats, level: float) -> Floats:
    """Intervals about predictions (n, q) of a network that has residuals: (n, q, 2)."""
    assert network.residuals is not None
    out = network.residuals.interval(predicted, level)
    return np.maximum(out, 0) if network.info.get("link") == "log" else out


def check_interval(network: Network, level: Any, parameter: str) -> None:
    """Refuse a level of intervals that a network cannot give.

    Raises
    ------
    ParameterError
        If the level is none, or needs more residuals than there are, or the network is of
        classes or of quantiles.
    DataError
        If the network has no residuals.
    """
    real = not isinstance(level, bool) and isinstance(level, numbers.Real)
    if not real or not 0 < float(level) < 1:
        raise ParameterError(
            f"is {level!r}; expected a number above 0 and below 1", parameter=parameter
        )
    if network.classes is not None or network.quantiles:
        found = "classes; take their probabilities"
        if network.quantiles:
            found = "quantiles, which are the ends of intervals"
        raise ParameterError(
            f"is for networks that predict means, and this one predicts {found}",
            parameter=parameter,
        )
    residuals = network.residuals
    if residuals is None:
        raise DataError(
            "the network has no residuals of rows that it was not trained on, and an interval "
            "needs them: train a committee, or a plain network with early stopping or validation "
            "rows of your own, without partial_fit"
        )
    if float(level) > residuals.most():
        raise ParameterError(
            f"is {float(level):g}, and {len(residuals.quantiles)} residuals are enough for at most "
            f"{residuals.most():.4g}",
            parameter=parameter,
        )


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
    from dask import delayed

    # Without the Gram matrix, which is large. As a task of its own it comes to a worker once, and
    # so do the tables that it makes there.
    there = delayed(replace(network, hidden_gram=None), pure=True, traverse=False)
    predicted: da.Array = X.map_blocks(
        _predict_block,
        network=there,
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
