"""Folding further rows into the output layer of a network, without the rows of before.

Under a hidden layer that stays, the Gram matrix of the hidden features is all that the rows of
before have to say: the output layer was at its critical point over them, so that their residual
is orthogonal to the features, but for the ridge. It adds up over rows (recursive least squares).
Of a committee it is an assumption: its weights are others, and a ridge in the Gram matrix pulls
towards them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from altrelu_dist.engine import Engine
from altrelu_dist.errors import DataError
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Additive, Floats, Rows, Together
from altrelu_dist.moments.summary import summarise
from altrelu_dist.network import Network
from altrelu_dist.solvers.linalg import Factor
from altrelu_dist.threads import one_blas_thread

__all__ = ["folded"]


@dataclass(frozen=True)
class _Sums(Additive):
    """What rows say of the output layer."""

    gram: Floats  # (h + 1, h + 1), of the hidden features and the one
    residual: Floats  # (h + 1, q), with the residual of the network
    bad_weights: int


@dataclass(frozen=True)
class _Moments:
    """Of raw rows, under a network."""

    network: Network

    def __call__(self, rows: Rows) -> _Sums:
        """Contribute some rows."""
        h, n = self.network.n_hidden, rows.X.shape[0]
        features = np.ones((n, h + 1))
        features[:, :-1] = self.network.hidden_features(rows.X)
        fitted = features[:, :-1] @ self.network.output_weights + self.network.output_bias
        residual = rows.y.astype(np.float64) - fitted
        weighted = features
        bad = 0
        if rows.weight is not None:
            weight = rows.weight.astype(np.float64)
            bad = int(np.count_nonzero(~(weight >= 0) | np.isinf(weight)))
            weighted = features * weight[:, None]
        with np.errstate(over="ignore", invalid="ignore"):  # looked for when all is added up
            return _Sums(weighted.T @ features, weighted.T @ residual, bad)


@dataclass(frozen=True)
class _Range:
    """Least and greatest value of each target."""

    low: Floats  # (q,)
    high: Floats  # (q,)

    def merge(self, other: _Range) -> _Range:
        """Both ranges of rows together."""
        return _Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def _range_of(rows: Rows) -> _Range:
    """Contribute some rows; those of weight zero do not count."""
    y = rows.y.astype(np.float64)
    if rows.weight is not None:
        y = y[rows.weight.astype(np.float64) > 0]
    return _Range(y.min(axis=0, initial=np.inf), y.max(axis=0, initial=-np.inf))


def folded(network: Network, engine: Engine, alpha: float) -> Network:
    """The network with its output layer at the critical point over the rows of before and more.

    The encoder stays as it is, as the hidden layer does. A range of targets grows by those of the
    further rows, which are training rows as those of before.

    Parameters
    ----------
    network : Network
        With the Gram matrix of its hidden features over the rows of before.
    engine : Engine
        Of more rows, raw.
    alpha : float
        The ridge, relative to the sum of the row weights.

    Raises
    ------
    DataError
        If a value is not finite, or a weight negative.
    """
    with one_blas_thread():
        moments = _Moments(replace(network, hidden_gram=None))  # that of before stays here
        both = engine.reduce(Together(moments, _range_of), "fold")
        more = both.first
        if more.bad_weights:
            raise DataError(
                "sample_weight holds values that are negative or not finite; remove them"
            )
        if not (np.isfinite(more.gram).all() and np.isfinite(more.residual).all()):
            summary = engine.reduce(summarise, "summary")
            gaps = False if network.encoder is None else network.encoder.lacking
            names = network.feature_names, network.target_names
            check_summary(summary, *names, gaps=gaps, kinds=network.columns)
            raise DataError("X or y holds values that are too large to be squared; rescale them")
        gram = more.gram if network.hidden_gram is None else network.hidden_gram + more.gram
        ridge = np.append(np.full(network.n_hidden, alpha), 0.0)
        output = np.vstack([network.output_weights, network.output_bias])
        downhill = more.residual - (ridge * more.gram[-1, -1])[:, None] * output
        output += Factor(gram + np.diag(ridge * gram[-1, -1])).solve(downhill)
    span = network.target_range
    if span is not None:
        low, high = np.minimum(span[0], both.second.low), np.maximum(span[1], both.second.high)
        span = np.vstack([low, high])
    return replace(
        network,
        output_weights=output[:-1],
        output_bias=output[-1],
        hidden_gram=gram,
        target_range=span,
        residuals=None,  # they were those of another output layer
    )
