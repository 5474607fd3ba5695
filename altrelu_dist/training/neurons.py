"""Insertion and removal of neurons, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.engine import TILE, LocalEngine, OutOfTimeError
from altrelu_dist.moments.loss import activate
from altrelu_dist.moments.rows import Additive, Block, Floats, Weights
from altrelu_dist.solvers.linalg import Factor
from altrelu_dist.solvers.output_layer import Removal
from altrelu_dist.training.objective import Objective

__all__ = [
    "CANDIDATES",
    "CANDIDATE_TILES",
    "CandidateMoments",
    "CandidateProducts",
    "Projected",
    "draw_hinges",
    "insert",
    "insertion_order",
    "n_compared",
    "no_neurons",
    "remove",
    "resized",
    "started",
]

CANDIDATES = 512  # that are drawn at least, of which few neurons are chosen
_COMPARED = 128  # of them with one another
CANDIDATE_TILES = 4  # whose rows the candidates are drawn from and compared on


@dataclass(frozen=True)
class CandidateSums(Additive):
    """Products of candidate features with themselves, the present features and the residual."""

    power: Floats  # (m,)
    present: Floats  # (h + 1, m)
    residual: Floats  # (m, q)
    present_gram: Floats  # (h + 1, h + 1)
    present_residual: Floats  # (h + 1, q)


@dataclass(frozen=True)
class CandidateMoments:
    """What decides which candidates lower the loss most, each by itself."""

    candidates: Floats  # (p, m)
    weights: Weights
    slope: float = 0.0

    def __call__(self, block: Block) -> CandidateSums:
        """Contribute one block."""
        x, y = block
        features = activate(x @ self.candidates.astype(x.dtype), self.slope)
        present = np.empty((x.shape[0], self.weights.n_hidden + 1), dtype=x.dtype)
        present[:, :-1] = activate(x @ self.weights.W.astype(x.dtype), self.slope)
        present[:, -1] = x[:, -1]
        residual = y - present @ self.weights.output.astype(x.dtype)
        wide = present.astype(np.float64)
        return CandidateSums(
            np.einsum("im,im->m", features, features).astype(np.float64),
            (present.T @ features).astype(np.float64),
            (features.T @ residual).astype(np.float64),
            wide.T @ wide,
            wide.T @ residual,
        )


@dataclass(frozen=True)
class CandidateGram(Additive):
    """Products of candidate features with one another."""

    gram: Floats  # (m, m)


@dataclass(frozen=True)
class CandidateProducts:
    """What decides which candidates lower the loss most together."""

    candidates: Floats  # (p, m)
    slope: float = 0.0

    def __call__(self, block: Block) -> CandidateGram:
        """Contribute one block."""
        features = activate(block.x @ self.candidates.astype(block.x.dtype), self.slope)
        return CandidateGram((features.T @ features).astype(np.float64))


def draw_hinges(
    engine: LocalEngine, weights: Weights, slope: float, count: int, rng: np.random.Generator
) -> Floats:
    """Hinges through pairs of rows, one of them drawn by its squared residual; (p, count).

    The direction is from one row to the other, the kink half way between.
    """
    tiles, squares = engine.leading(CANDIDATE_TILES).tiles, []
    for x, y in tiles:
        residual = activate(x @ weights.W.astype(x.dtype), slope) @ weights.V.astype(x.dtype)
        residual += x[:, -1:] * weights.c.astype(x.dtype) - y
        squares.append(np.einsum("iq,iq->i", residual, residual, dtype=np.float64))
    usable = np.flatnonzero(np.concatenate([x[:, -1] for x, _ in tiles]) > 0)
    chance = np.concatenate(squares)[usable]
    total = chance.sum()
    chance = chance / total if total > 0 else np.full(chance.size, 1 / chance.size)
    first = _rows_at(tiles, usable[rng.choice(usable.size, size=count, p=chance)])
    second = _rows_at(tiles, usable[rng.integers(usable.size, size=count)])
    direction = (first - second)[:, :-1]
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    same = length[:, 0] == 0
    direction[same] = rng.standard_normal((int(same.sum()), direction.shape[1]))
    length[same] = np.linalg.norm(direction[same], axis=1, keepdims=True)
    direction /= np.where(length > 0, length, 1)
    middle = (first + second)[:, :-1] / 2
    return np.vstack([direction.T, -np.einsum("ij,ij->i", direction, middle)])


def _rows_at(tiles: list[Block], numbers: NDArray[np.intp]) -> Floats:
    """Some rows, without their weights."""
    tile, place = np.divmod(numbers, TILE)
    rows = np.empty((numbers.size, tiles[0].x.shape[1]))
    for index in np.unique(tile):
        here = tile == index
        rows[here] = tiles[index].x[place[here]]
    return rows / rows[:, -1:]


class Projected(NamedTuple):
    """Candidates with the present features projected out."""

    present: Floats  # (h + 1, m), whitened
    residual: Floats  # (m, q)
    power: Floats  # (m,)
    floor: Floats  # (m,), of the power: what is less is rounding

    @classmethod
    def of(cls, sums: CandidateSums) -> Self:
        """From the products of the candidates."""
        factor = Factor(sums.present_gram)
        white = factor.whiten(sums.present)
        residual = sums.residual - white.T @ factor.whiten(sums.present_residual)
        power = sums.power - np.einsum("hm,hm->m", white, white)
        return cls(white, residual, power, 1e-5 * sums.power)

    def gains(self) -> Floats:
        """What each of them takes off the sum of squares: ``|f' r|^2 / f' f``."""
        square = np.einsum("mq,mq->m", self.residual, self.residual)
        gains: Floats = np.zeros_like(square)
        np.divide(square, self.power, out=gains, where=self.power > self.floor)
        return gains

    def pick(self, some: NDArray[np.intp]) -> Projected:
        """Only some of the candidates."""
        return Projected(
            self.present[:, some], self.residual[some], self.power[some], self.floor[some]
        )

    def without(self, column: Floats, best: int) -> Projected:
        """One of them projected out as well, ``column`` its products with all of them."""
        along = column / np.sqrt(column[best])
        residual = self.residual - np.outer(along, self.residual[best] / np.sqrt(column[best]))
        return self._replace(residual=residual, power=self.power - along**2)


def insertion_order(
    candidates: Projected, gram: Floats, count: int, enough: Callable[[], bool] = lambda: False
) -> list[int]:
    """The candidates that lower the sum of squares most, one after the other.

    A chosen one is projected out of the others before the next is chosen. No more are chosen once
    there are ``enough``.
    """
    gram = gram - candidates.present.T @ candidates.present
    count = min(count, gram.shape[0])
    factor = np.empty((gram.shape[0], count))  # columns of a Cholesky factor with pivoting
    chosen: list[int] = []
    for done in range(count):
        gain = candidates.gains()
        gain[chosen] = 0
        best = int(np.argmax(gain))
        if not gain[best] > 0 or enough():
            break
        chosen.append(best)
        column = gram[:, best] - factor[:, :done] @ factor[best, :done]
        factor[:, done] = column / np.sqrt(column[best])
        candidates = candidates.without(column, best)
    return chosen


def n_compared(count: int) -> int:
    """How many of the candidates are compared with one another when ``count`` are inserted."""
    return max(_COMPARED, 2 * count)


def insert(objective: Objective, weights: Weights, count: int, rng: np.random.Generator) -> Weights:
    """Add up to ``count`` neurons, with output weights of zero until the next refit.

    Where the run has to end before they are compared they are the first that were drawn.
    """
    engine = objective.engine
    assert isinstance(engine, LocalEngine)
    drawn = draw_hinges(engine, weights, objective.slope, max(CANDIDATES, 4 * count), rng)
    part = engine.leading(CANDIDATE_TILES)
    try:
        chosen = drawn[:, _best(part, drawn, weights, objective, count)]
    except OutOfTimeError:
        chosen = drawn[:, :count]
    return Weights(
        np.hstack([weights.W, chosen]),
        np.vstack([weights.V, np.zeros((chosen.shape[1], weights.c.size))]),
        weights.c,
    )


def _best(
    part: LocalEngine, drawn: Floats, weights: Weights, objective: Objective, count: int
) -> NDArray[np.intp]:
    """Which of the candidates to insert: the best of those that are good each by itself."""
    monitor, slope = objective.monitor, objective.slope
    sums = part.reduce(CandidateMoments(drawn, weights, slope), "candidates", monitor.clock)
    monitor.counts.count_rows(part.n_rows, whole=False)
    candidates = Projected.of(sums)
    some = np.argsort(-candidates.gains(), kind="stable")[: n_compared(count)]
    gram = part.reduce(CandidateProducts(drawn[:, some], slope), "candidates", monitor.clock).gram
    monitor.counts.count_rows(part.n_rows, whole=False)
    order = insertion_order(candidates.pick(some), gram, count, lambda: monitor.stopped)
    return some[order]


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


def resized(
    objective: Objective, weights: Weights, n_hidden: int, rng: np.random.Generator
) -> Weights:
    """As many neurons as are wanted: those that do nothing go first, then the cheapest."""
    sizes = np.linalg.norm(weights.W, axis=0) * np.linalg.norm(weights.V, axis=1)
    weights = weights.pick(np.flatnonzero(sizes > 0))
    if weights.n_hidden < n_hidden:
        return insert(objective, weights, n_hidden - weights.n_hidden, rng)
    if weights.n_hidden > n_hidden:
        weights = remove(objective, weights, weights.n_hidden - n_hidden)
    return weights.pick(np.arange(min(n_hidden, weights.n_hidden)))


def no_neurons(objective: Objective) -> Weights:
    """A network of an output bias alone, which is zero."""
    p, q = objective.columns
    return Weights(np.zeros((p, 0)), np.zeros((0, q)), np.zeros(q))


def started(
    objective: Objective, start: Weights | None, n_hidden: int, rng: np.random.Generator
) -> tuple[Weights, float]:
    """Begin with all neurons inserted at once, or a network to go on from resized; and the loss.

    The output layer is at its critical point.
    """
    begin = no_neurons(objective) if start is None else start
    return objective.refit_output(resized(objective, begin, n_hidden, rng))
