"""Early stopping: rows that are held out, and the network that has the least loss on them.

Which rows are held out depends on their numbers and the seed alone, not on chunks or workers. In
training they have a weight of zero, which every statistic knows how to leave out. The networks
compared are those that a descent passes through every few iterations, and those it ends in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.errors import DataError
from altrelu_dist.moments.loss import activate
from altrelu_dist.moments.rows import Additive, Block, Both, Rows, Scaler, Weights
from altrelu_dist.moments.sample import Sample, Sampler
from altrelu_dist.training.best import Best

__all__ = ["DrawBoth", "HeldOut", "OfTraining", "Validation"]

T = TypeVar("T")

_MOST_ROWS = 65_536  # held out: more would cost time and say no more
_PATIENCE = 6  # iterations: two rounds of the search's three sizes of a cycle
_AGAIN = 0.5  # times the work done until the least loss is done once more before the run ends


@dataclass(frozen=True)
class HeldOut:
    """Which rows are held out: a share of each tile, at random."""

    share: float
    seed: int
    one_tile: bool = False  # whether that is all the data: some row is then held out, and not all

    @classmethod
    def of(cls, fraction: float, n_rows: int, seed: int) -> HeldOut:
        """A fraction of all rows, or as many as are of use."""
        return cls(min(fraction, _MOST_ROWS / n_rows), seed, n_rows <= TILE)

    def mask(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows of a tile are held out."""
        n = len(rows.X)
        rng = np.random.default_rng([self.seed, rows.start, 1])
        held = np.zeros(n, dtype=bool)
        order = rng.permutation(n)
        count = int(self.share * n + rng.random())
        if self.one_tile:
            count = min(max(count, 1), n - 1)
        held[order[:count]] = True
        return held

    def training(self, rows: Rows) -> Rows:
        """A tile with no weight on the rows that are held out."""
        weight = np.ones(len(rows.X)) if rows.weight is None else rows.weight
        return rows._replace(weight=np.where(self.mask(rows), weight.dtype.type(0), weight))

    def validation(self, rows: Rows) -> Sample:
        """The rows of a tile that are held out."""
        take = np.flatnonzero(self.mask(rows))
        weight = None if rows.weight is None else rows.weight[take]
        return Sample(rows.X[take], rows.y[take], weight, np.zeros(take.size))


@dataclass(frozen=True)
class OfTraining(Generic[T]):
    """A statistic of the training rows of a tile."""

    held_out: HeldOut
    statistic: Callable[[Rows], T]

    def __call__(self, rows: Rows) -> T:
        """Contribute one tile."""
        return self.statistic(self.held_out.training(rows))


@dataclass(frozen=True)
class DrawBoth:
    """A sample of the training rows and the held-out rows, in one pass."""

    held_out: HeldOut
    sampler: Sampler

    def __call__(self, rows: Rows) -> Both[Sample, Sample]:
        """Contribute one tile."""
        return Both(self.sampler(self.held_out.training(rows)), self.held_out.validation(rows))


@dataclass(frozen=True)
class Squares(Additive):
    """Sum of squared residuals over some rows."""

    total: float


@dataclass(frozen=True)
class SquaredResiduals:
    """Sum over rows of ``|f(x) - y|^2``."""

    weights: Weights
    slope: float

    def __call__(self, block: Block) -> Squares:
        """Contribute one block."""
        x, y = block
        residual = activate(x @ self.weights.W.astype(x.dtype), self.slope)
        residual = residual @ self.weights.V.astype(x.dtype)
        residual += x[:, -1:] * self.weights.c.astype(x.dtype)
        residual -= y
        return Squares(float(np.einsum("iq,iq->", residual, residual, dtype=np.float64)))


class Validation:
    """The held-out rows, and the best network on them so far.

    Parameters
    ----------
    drawn : Rows
        The rows that are held out, as they are stored.
    scaler : Scaler
        Of the training rows.
    slope : float
        Negative slope of the activation.
    start : Weights
        What is returned if no network is better: the mean of the targets.

    Raises
    ------
    DataError
        If no row, or none with weight, is held out.
    """

    def __init__(self, drawn: Rows, scaler: Scaler, slope: float, start: Weights) -> None:
        weighted = len(drawn.X) if drawn.weight is None else np.count_nonzero(drawn.weight)
        if weighted == 0:
            raise DataError(
                "early stopping: no row with weight is held out for validation; raise "
                "validation_fraction, or train without early stopping"
            )
        self.rows = drawn
        self._engine = LocalEngine.of(drawn).prepared(scaler)
        self._weight_sum = sum(float(np.vdot(x[:, -1], x[:, -1])) for x, _ in self._engine.tiles)
        self._slope = slope
        self._most = start.n_hidden  # a cycle has more neurons than were asked for
        self.best = Best(start, self.loss(start))
        self._patience = _PATIENCE
        self._rows_then = self._rows_now = 0

    def loss(self, weights: Weights) -> float:
        """Mean square over the held-out rows, in standardised units."""
        squares = self._engine.reduce(SquaredResiduals(weights, self._slope), "validation")
        return squares.total / self._weight_sum

    def validate(self, weights: Weights, rows: int, *, whole: bool) -> None:
        """Compare a network with the best.

        Parameters
        ----------
        weights : Weights
        rows : int
            Rows visited so far, the measure of the work done.
        whole : bool
            Whether this iteration counts towards the end of the run.
        """
        loss = self.loss(weights)
        self._rows_now = rows
        before = self.best
        if weights.n_hidden <= self._most:
            self.best = before.updated(weights, loss)
        if self.best is not before:
            self._patience, self._rows_then = _PATIENCE, rows
        elif whole:
            self._patience -= 1

    def state(self) -> dict[str, Any]:
        """The best network so far, and how long it has been the best."""
        return {
            "best": self.best.weights,
            "least": self.best.loss,
            "patience": self._patience,
            "then": self._rows_then,
            "now": self._rows_now,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best = Best(state["best"], state["least"])
        self._patience = state["patience"]
        self._rows_then, self._rows_now = state["then"], state["now"]

    @property
    def stagnates(self) -> bool:
        """Whether the validation loss has stopped improving."""
        waited = self._rows_now - self._rows_then
        return self._patience <= 0 and waited >= _AGAIN * self._rows_then
