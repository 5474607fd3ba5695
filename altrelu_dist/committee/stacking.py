"""Weights of groups by what their members say of rows that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from altrelu_dist.moments.rows import Floats

__all__ = ["Stack", "combined", "stacked"]


class Stack(NamedTuple):
    """The groups that are kept, and the weight of each for each target."""

    kept: list[int]
    weights: Floats  # (groups kept, q), not negative
    loss: float  # sum of squares


def stacked(predicted: Sequence[Floats], y: Floats, costs: Sequence[bool], most: int) -> Stack:
    """Non-negative least squares over out-of-fold predictions, with few groups.

    Groups leave one by one, always the one without which the loss rises least, until no more than
    ``most`` of those that cost neurons are left, and each left is worth more than the standard
    error of its worth.

    Parameters
    ----------
    predicted : sequence of ndarray of shape (n, q)
        Out-of-fold predictions of each group.
    y : ndarray of shape (n, q)
        Targets; rows of both multiplied by the root of the row's weight.
    costs : sequence of bool
        Which groups count.
    most : int
        Of these.
    """
    # An orthogonal factor leaves all the sums of squares as they are: n rows become a few.
    reduced = [
        np.asarray(np.linalg.qr(np.column_stack([*(p[:, t] for p in predicted), y[:, t]]), "r"))
        for t in range(y.shape[1])
    ]
    kept = list(range(len(predicted)))
    full = _weights(reduced, kept)
    kept = [group for group in kept if full.weights[group].any()] or kept[:1]
    before = _squares(predicted, y, _weights(reduced, kept))
    while len(kept) > 1:
        trials = [_weights(reduced, [g for g in kept if g != group]) for group in kept]
        trial = min(trials, key=lambda found: found.loss)
        rise = _squares(predicted, y, trial) - before
        error = float(np.std(rise) * np.sqrt(len(rise)))
        if sum(costs[group] for group in kept) <= most and rise.sum() > error:
            break
        kept = trial.kept
    return _weights(reduced, kept)


def _weights(reduced: list[Floats], kept: list[int]) -> Stack:
    solved = [nnls(R[:, kept], R[:, -1]) for R in reduced]
    weights = np.stack([weight for weight, _ in solved], axis=1)
    return Stack(kept, weights, float(sum(norm**2 for _, norm in solved)))


def _squares(predicted: Sequence[Floats], y: Floats, stack: Stack) -> Floats:
    residual = combined(predicted, stack) - y
    squares: Floats = np.einsum("nq,nq->n", residual, residual)
    return squares


def combined(predicted: Sequence[Floats], stack: Stack) -> Floats:
    """The weighted sum of what groups say, (n, q)."""
    total: Floats = sum(
        predicted[group] * weight for group, weight in zip(stack.kept, stack.weights, strict=True)
    )
    return total
