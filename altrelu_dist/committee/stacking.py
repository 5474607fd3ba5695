"""Weights of groups by what their members say of rows that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from altrelu_dist.losses import Loss, positive
from altrelu_dist.moments.rows import Floats

__all__ = ["Stack", "combined", "stacked", "stacked_by_loss"]

_MOST_STEPS, _HALVINGS = 50, 12
_ENOUGH = 1e-6  # of the loss: a step that takes less off it is the last one


class Stack(NamedTuple):
    """The groups that are kept, and the weight of each for each target."""

    kept: list[int]
    weights: Floats  # (groups kept, q), not negative
    loss: float  # sum of squares, or of losses
    shift: Floats | None = None  # (q,) what is added to outputs; only of another loss than squares


def stacked(predicted: Sequence[Floats], y: Floats, costs: Sequence[bool], most: int) -> Stack:
    """Non-negative least squares over out-of-fold predictions, with few groups.

    Groups leave one by one, always the one without which the loss rises least, until no more than
    ``most`` of those that cost neurons are left, and each left is worth more than the standard
    error of its worth. Where those that cost none lose no more than the standard error of that
    loss without all the others, these leave at once.

    Parameters
    ----------
    predicted : sequence of ndarray of shape (n, q)
        Out-of-fold predictions of each group.
    y : ndarray of shape (n, q)
        Targets; rows of both multiplied by the root of the row's weight.
    costs : sequence of bool
        Which groups cost neurons.
    most : int
        Groups of these that are kept.
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

    def rise(stack: Stack) -> tuple[float, float]:
        """Of the loss, and its standard error."""
        each = _squares(predicted, y, stack) - before
        return float(each.sum()), float(np.std(each) * np.sqrt(len(each)))

    free = [group for group, cost in enumerate(costs) if not cost]
    if free:
        risen, error = rise(_weights(reduced, free))
        if risen <= error:
            kept = free
    while len(kept) > 1:
        trials = [_weights(reduced, [g for g in kept if g != group]) for group in kept]
        trial = min(trials, key=lambda found: found.loss)
        risen, error = rise(trial)
        if sum(costs[group] for group in kept) <= most and risen > error:
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


def stacked_by_loss(
    predicted: Sequence[Floats],
    y: Floats,
    root: Floats,
    costs: Sequence[bool],
    most: int,
    loss: Loss,
) -> Stack:
    """Non-negative weights of least loss, by reweighted non-negative least squares.

    Groups leave as in `stacked`, by the parabolas about the best weights of all of them. A shift
    follows where it lowers the loss: with it as many rows lie below a quantile as its level says.

    Parameters
    ----------
    predicted : sequence of ndarray of shape (n, q)
    y : ndarray of shape (n, q)
    root : ndarray of shape (n,)
        Roots of the rows' weights, which both are multiplied by.
    costs : sequence of bool
    most : int
    loss : Loss
    """

    def total(stack: Stack) -> float:
        return loss.total(combined(predicted, stack), root[:, None], y)

    def parabolas(stack: Stack) -> tuple[list[Floats], Floats]:
        divisor = positive(root[:, None])
        f = combined(predicted, stack) / divisor
        gradient, curvature = loss.derivatives(f, y / divisor)
        own = np.sqrt(curvature)
        return [each * own for each in predicted], (f - gradient / curvature) * root[:, None] * own

    def descended(kept: list[int], weights: Floats) -> Stack:
        stack = Stack(kept, weights, np.inf)
        stack = stack._replace(loss=total(stack))
        for _ in range(_MOST_STEPS):
            rows, z = parabolas(stack)
            reduced = [
                np.asarray(np.linalg.qr(np.column_stack([*(p[:, t] for p in rows), z[:, t]]), "r"))
                for t in range(y.shape[1])
            ]
            step = _weights(reduced, kept).weights - stack.weights
            for halving in range(_HALVINGS):
                trial = stack._replace(weights=stack.weights + step / 2**halving)
                trial = trial._replace(loss=total(trial))
                if trial.loss < stack.loss:
                    break
            else:
                break
            before, stack = stack.loss, trial
            if not trial.loss < (1 - _ENOUGH) * before:
                break
        return stack

    every = list(range(len(predicted)))
    alone = [total(Stack([group], np.ones((1, y.shape[1])), 0.0)) for group in every]
    weights = np.zeros((len(every), y.shape[1]))
    weights[int(np.argmin(alone))] = 1.0
    full = descended(every, weights)
    kept = stacked(*parabolas(full), costs, most).kept
    best = min(kept, key=alone.__getitem__)
    chosen = np.array(kept)[:, None] == best
    stack = descended(kept, np.repeat(chosen.astype(float), y.shape[1], axis=1))
    divisor = positive(root[:, None])
    said = combined(predicted, stack)
    shift = loss.shift(said / divisor, y / divisor, root**2)
    shifted = loss.total(said + shift * root[:, None], root[:, None], y)
    return stack._replace(loss=shifted, shift=shift) if shifted < stack.loss else stack
