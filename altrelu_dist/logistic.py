"""Outputs that were trained by least squares as logits: the link of a classifier.

Least squares on indicators of the classes gives scores that order the rows well, but are no
probabilities. The link is ``logits = scores @ matrix + bias``: the matrix is a multiple of the
identity, or, where a penalty on what it has beside that is finite, any. Newton's steps (iteratively
reweighted least squares) fit it to the logistic loss of scores of rows that were not trained on.
It folds into the output layer. With two classes there is one score, that of the second class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax

from altrelu_dist.moments.rows import Floats
from altrelu_dist.network import Network
from altrelu_dist.solvers.linalg import Factor

__all__ = [
    "Judged",
    "Link",
    "chosen",
    "chosen_penalty",
    "fit_link",
    "log_loss",
    "out_of_fold",
    "prior",
    "probabilities",
]

_RIDGE = (
    1e-4  # of the slopes of standardised scores: it bounds them where scores separate the classes
)
_BIAS_RIDGE = 1e-9  # bounds the bias of a class without weight, and that of all classes together
_LEAST_SHARE = 1e-9  # of a class, where its logit would be infinite
_PENALTIES = (np.inf, 1e-3, 1e-4, 1e-5, 1e-6)
_MOST_FREE = 16  # classes: more have a multiple of the identity
_CHOOSING_ROWS = 16_384
_MOST_STEPS = 100
_HALVINGS = 40
_ENOUGH = 1e-12  # of the loss: a step that would take less off it is not taken


class Judged(NamedTuple):
    """Scores of rows, and what they should say."""

    scores: Floats  # (n, q)
    indicators: Floats  # (n, q): one where the row is of the class
    weight: Floats  # (n,)

    def only(self, rows: NDArray[np.bool_]) -> Judged:
        """Some of the rows."""
        return Judged(self.scores[rows], self.indicators[rows], self.weight[rows])


class Link(NamedTuple):
    """What makes logits of scores."""

    matrix: Floats  # (q, q)
    bias: Floats  # (q,)

    def __call__(self, scores: Floats) -> Floats:
        """Logits of some scores, (n, q)."""
        logits: Floats = scores @ self.matrix + self.bias
        return logits

    def folded(self, network: Network) -> Network:
        """The network whose outputs are the logits of its outputs."""
        return replace(
            network,
            output_weights=network.output_weights @ self.matrix,
            output_bias=self(network.output_bias),
            target_range=None,
            hidden_gram=None,
        )


def probabilities(logits: Floats) -> Floats:
    """Of every class, (n, K), from one logit (K = 2) or K of them."""
    if logits.shape[1] > 1:
        out: Floats = softmax(logits, axis=1)
        return out
    return np.hstack([expit(-logits), expit(logits)])


def log_loss(logits: Floats, indicators: Floats) -> Floats:
    """Of each row, (n,)."""
    every = logits
    if logits.shape[1] == 1:
        every = np.hstack([np.zeros_like(logits), logits])
    loss: Floats = logsumexp(every, axis=1) - (indicators * logits).sum(axis=1)
    return loss


def chosen(logits: Floats) -> NDArray[np.intp]:
    """The number of the most probable class of each row."""
    if logits.shape[1] == 1:
        return np.asarray(logits[:, 0] > 0).astype(np.intp)
    return np.asarray(logits.argmax(axis=1))


def prior(shares: Floats) -> Floats:
    """The logits of the shares of the classes, (q,)."""
    shares = np.clip(shares, _LEAST_SHARE, 1 - _LEAST_SHARE)
    logits: Floats = np.log(shares)
    return logits - np.log1p(-shares) if len(shares) == 1 else logits


def fit_link(judged: Judged, penalty: float = np.inf, path: list[float] | None = None) -> Link:
    """The link of least penalised logistic loss; the loss falls with every step.

    Parameters
    ----------
    judged : Judged
        Some weight must be positive.
    penalty : float, default infinity
        Of the squares of the matrix beside a multiple of the identity, against the mean loss.
    path : list, optional
        Gets the penalised loss before each step, and that of the link.
    """
    weight = judged.weight / judged.weight.sum()
    Y = judged.indicators
    center = weight @ judged.scores
    s = judged.scores - center
    q = s.shape[1]
    free = q > 1 and np.isfinite(penalty)
    derivatives = _of_matrix if free else _of_scale
    # The slopes come first: one, or the matrix row by row.
    ridge = np.diag(np.append(np.full(q * q if free else 1, _RIDGE), np.full(q, _BIAS_RIDGE)))
    if free:
        identity = np.eye(q).ravel()
        ridge[: q * q, : q * q] += penalty * (np.eye(q * q) - np.outer(identity, identity) / q)

    def link(theta: Floats) -> Link:
        return Link(theta[:-q].reshape(q, q) if free else theta[0] * np.eye(q), theta[-q:])

    def loss(theta: Floats) -> float:
        return float(weight @ log_loss(link(theta)(s), Y) + 0.5 * theta @ ridge @ theta)

    theta = np.append(np.zeros(len(ridge) - q), prior(weight @ Y))
    before = loss(theta)
    path = [] if path is None else path
    path.append(before)
    for _ in range(_MOST_STEPS):
        gradient, hessian = derivatives(link(theta)(s), s, Y, weight)
        gradient += ridge @ theta
        step = Factor(hessian + ridge).solve(gradient)
        if gradient @ step <= _ENOUGH * before:  # about twice what the step takes off the loss
            break
        for _ in range(_HALVINGS):
            after = loss(theta - step)
            if after < before:
                break
            step = step / 2
        else:
            break
        theta = theta - step
        path.append(after)
        before = after
    matrix, bias = link(theta)
    return Link(matrix, bias - center @ matrix)


def chosen_penalty(judged: Judged, n_folds: int) -> float:
    """The penalty under which the links of the other folds are best for each fold."""
    q = judged.scores.shape[1]
    if not 1 < q <= _MOST_FREE:
        return np.inf
    few = judged.only(np.arange(len(judged.scores)) < _CHOOSING_ROWS)
    losses = [
        few.weight @ log_loss(out_of_fold(few, n_folds, penalty), few.indicators)
        for penalty in _PENALTIES
    ]
    return _PENALTIES[int(np.argmin(losses))]


def out_of_fold(judged: Judged, n_folds: int, penalty: float) -> Floats:
    """The logits of each row by the link of the other folds; row i is of fold ``i % n_folds``."""
    logits = np.empty_like(judged.scores)
    fold = np.arange(len(logits)) % n_folds
    for each in range(n_folds):
        own = fold == each
        if own.any():
            logits[own] = fit_link(judged.only(~own), penalty)(judged.scores[own])
    return logits


def _of_scale(logits: Floats, s: Floats, Y: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Gradient and Hessian of the mean loss in the scale and the biases, (1 + q,)."""
    q = logits.shape[1]
    p = probabilities(logits)[:, -q:]  # of two classes that of the second
    wp = weight[:, None] * p
    ws = wp * s
    own = (p * s).sum(axis=1)  # of each row, the mean score over its classes
    residual = weight[:, None] * (p - Y)
    gradient = np.append((residual * s).sum(), residual.sum(axis=0))
    hessian = np.empty((1 + q, 1 + q))
    hessian[0, 0] = (ws * s).sum() - weight @ own**2
    hessian[0, 1:] = hessian[1:, 0] = ws.sum(axis=0) - wp.T @ own
    hessian[1:, 1:] = np.diag(wp.sum(axis=0)) - p.T @ wp
    return gradient, hessian


def _of_matrix(logits: Floats, s: Floats, Y: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Gradient and Hessian of the mean loss in the matrix, row by row, and the biases."""
    q = logits.shape[1]
    u = np.hstack([s, np.ones((len(s), 1))])
    p = probabilities(logits)
    gradient = u.T @ (weight[:, None] * (p - Y))
    hessian = np.empty((q + 1, q, q + 1, q))
    for k in range(q):
        for other in range(k, q):
            curvature = weight * p[:, k] * (float(k == other) - p[:, other])
            block = u.T @ (curvature[:, None] * u)
            hessian[:, k, :, other] = hessian[:, other, :, k] = block
    return gradient.ravel(), hessian.reshape(gradient.size, gradient.size)
