"""Insertion and removal of neurons, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from altrelu_dist.engine import LocalEngine
from altrelu_dist.moments.loss import activate
from altrelu_dist.moments.rows import Additive, Block, Floats, Weights
from altrelu_dist.solvers.linalg import Factor
from altrelu_dist.solvers.output_layer import Removal
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.progress import OutOfTimeError

__all__ = ["CandidateMoments", "draw_hinges", "insert", "insertion_order", "remove"]

_CANDIDATES = 512
_ROWS_FOR_CANDIDATES = 4  # tiles


@dataclass(frozen=True)
class CandidateGram(Additive):
    """Products of candidate features with one another, the present features and the residual."""

    gram: Floats  # (m, m)
    present: Floats  # (h + 1, m)
    residual: Floats  # (m, q)
    present_gram: Floats  # (h + 1, h + 1)
    present_residual: Floats  # (h + 1, q)


@dataclass(frozen=True)
class CandidateMoments:
    """What decides which candidates lower the loss most."""

    candidates: Floats  # (p, m)
    weights: Weights
    slope: float = 0.0

    def __call__(self, block: Block) -> CandidateGram:
        """Contribute one block."""
        x, y = block
        features = activate(x @ self.candidates.astype(x.dtype), self.slope)
        present = np.empty((x.shape[0], self.weights.n_hidden + 1), dtype=x.dtype)
        present[:, :-1] = activate(x @ self.weights.W.astype(x.dtype), self.slope)
        present[:, -1] = x[:, -1]
        residual = y - present @ self.weights.output.astype(x.dtype)
        wide = present.astype(np.float64)
        return CandidateGram(
            (features.T @ features).astype(np.float64),
            (present.T @ features).astype(np.float64),
            (features.T @ residual).astype(np.float64),
            wide.T @ wide,
            wide.T @ residual,
        )


def draw_hinges(
    engine: LocalEngine, weights: Weights, slope: float, count: int, rng: np.random.Generator
) -> Floats:
    """Hinges through pairs of rows, one of them drawn by its squared residual; (p, count).

    The direction is from one row to the other, the kink half way between.
    """
    xs, squares = [], []
    for x, y in engine.leading(_ROWS_FOR_CANDIDATES).tiles:
        residual = activate(x @ weights.W.astype(x.dtype), slope) @ weights.V.astype(x.dtype)
        residual += x[:, -1:] * weights.c.astype(x.dtype) - y
        xs.append(x)
        squares.append(np.einsum("iq,iq->i", residual, residual, dtype=np.float64))
    rows = np.concatenate(xs).astype(np.float64)
    chance = np.concatenate(squares)
    usable = rows[:, -1] > 0
    rows, chance = rows[usable] / rows[usable, -1:], chance[usable]
    total = chance.sum()
    chance = chance / total if total > 0 else np.full(chance.size, 1 / chance.size)
    first = rows[rng.choice(rows.shape[0], size=count, p=chance)]
    second = rows[rng.integers(rows.shape[0], size=count)]
    direction = (first - second)[:, :-1]
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    same = length[:, 0] == 0
    direction[same] = rng.standard_normal((int(same.sum()), direction.shape[1]))
    length[same] = np.linalg.norm(direction[same], axis=1, keepdims=True)
    direction /= np.where(length > 0, length, 1)
    middle = (first + second)[:, :-1] / 2
    return np.vstack([direction.T, -np.einsum("ij,ij->i", direction, middle)])


def insertion_order(
    moments: CandidateGram, count: int, enough: Callable[[], bool] = lambda: False
) -> list[int]:
    """The candidates that lower the sum of squares most, one after the other.

    The gain of a candidate f is ``|f_o' r|^2 / f_o' f_o``, f_o = f with the present features
    projected out; a chosen one is projected out of the others before the next is chosen. No more
    are chosen once there are ``enough``.
    """
    factor = Factor(moments.present_gram)
    white = factor.whiten(moments.present)
    gram = moments.gram - white.T @ white
    residual = moments.residual - white.T @ factor.whiten(moments.present_residual)
    floor = 1e-5 * np.diagonal(moments.gram)
    count = min(count, gram.shape[0])
    power = np.diagonal(gram).copy()
    factor_columns = np.empty((gram.shape[0], count))  # of a Cholesky factor with pivoting
    chosen: list[int] = []
    for done in range(count):
        gain = np.einsum("mq,mq->m", residual, residual)
        gain = np.divide(gain, power, out=np.zeros_like(gain), where=power > floor)
        gain[chosen] = 0
        best = int(np.argmax(gain))
        if not gain[best] > 0 or enough():
            break
        chosen.append(best)
        column = gram[:, best] - factor_columns[:, :done] @ factor_columns[best, :done]
        root = np.sqrt(column[best])
        factor_columns[:, done] = column / root
        residual = residual - np.outer(column / root, residual[best] / root)
        power -= (column / root) ** 2
    return chosen


def insert(objective: Objective, weights: Weights, count: int, rng: np.random.Generator) -> Weights:
    """Add up to ``count`` neurons, with output weights of zero until the next refit.

    Where the run has to end before they are compared they are the first that were drawn.
    """
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    drawn = draw_hinges(engine, weights, objective.slope, max(_CANDIDATES, 4 * count), rng)
    part = engine.leading(_ROWS_FOR_CANDIDATES)
    compared = monitor.in_time(CandidateMoments(drawn, weights, objective.slope))
    try:
        moments = part.reduce(compared, "candidates")
    except OutOfTimeError:
        chosen = drawn[:, :count]
    else:
        monitor.visited(part.n_rows, whole=False)
        chosen = drawn[:, insertion_order(moments, count, lambda: monitor.stopped)]
    return Weights(
        np.hstack([weights.W, chosen]),
        np.vstack([weights.V, np.zeros((chosen.shape[1], weights.c.size))]),
        weights.c,
    )


def remove(objective: Objective, weights: Weights, count: int) -> Weights:
    """Drop ``count`` neurons, the cheapest first, the output layer refitted after each.

    Fewer where the run has to end.
    """
    moments = objective.hidden_moments(weights.W)
    left = Removal(moments, objective.ridge)
    for _ in range(count):
        if objective.monitor.stopped:
            break
        left.drop(int(np.argmin(left.costs())))
    return weights.pick(left.neurons).with_output(left.output)
