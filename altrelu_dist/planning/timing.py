"""What kernels are timed on: a made-up problem as wide as the one at hand, or nearly so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from altrelu_dist.engine import TILE
from altrelu_dist.moments.rows import Block, Rows, Weights
from altrelu_dist.moments.summary import summarise
from altrelu_dist.planning.arithmetic import multiply_adds
from altrelu_dist.planning.calls import Shape

__all__ = ["Bench", "Cost", "base_of", "step_and_row", "timed", "timed_steps"]

_LEAST_ROWS = 64
_MOST_WORK = 4e8  # multiply-adds of one run of what is timed: larger ones are timed in part
# Of larger problems a smaller one is timed, and its seconds are extrapolated by multiply-adds.
_NEURONS, _COLUMNS, _TARGETS = 256, 256, 64
_LEAST_SECONDS = 0.03

State = TypeVar("State")


class Cost(NamedTuple):
    """Seconds of a kernel on one thread: of each row, or of each run of a dense step.

    They are those of a problem of ``p`` columns, ``q`` targets and ``h`` neurons, of which ``base``
    stays as it is when the neurons are others; what is left grows as the multiply-adds do. Where
    it is ``constant``, it stays when the columns are others too.
    """

    p: int
    q: int
    h: int
    seconds: float
    base: float = 0.0
    constant: bool = False


class Bench:
    """A problem of one tile of random numbers.

    Parameters
    ----------
    shape : Shape
        Of the problem at hand.
    rng : Generator
    """

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        self.shape, self.rng = shape, rng
        self.p, self.q = min(shape.p, _COLUMNS), min(shape.q, _TARGETS)
        self.h = min(shape.h, _NEURONS)
        X = rng.standard_normal((TILE, self.p - 1)).astype(shape.dtype)
        self.raw = Rows(0, X, rng.standard_normal((TILE, self.q)).astype(shape.dtype))
        self.scaler = summarise(self.raw).scaler(shape.dtype)
        self.tile: Block = self.scaler(self.raw)

    def network(self, h: int, p: int | None = None) -> Weights:
        """Random weights of so many neurons, for all columns or for fewer."""
        p = p or self.p
        W = self.rng.standard_normal((p, h)) / np.sqrt(p)
        return Weights(W, self.rng.standard_normal((h, self.q)), np.zeros(self.q))

    def part(self, rows: int) -> Block:
        """The first rows of the tile."""
        return Block(self.tile.x[:rows], self.tile.y[:rows])

    def affordable(self, kernel: str, h: int) -> Block:
        """As many rows as a kernel passes over in a short time."""
        each = multiply_adds(kernel, self.p, self.q, h)
        return self.part(int(np.clip(_MOST_WORK / each, _LEAST_ROWS, TILE)))

    def of_rows(self, run: Callable[[], Any]) -> Cost:
        """Of what passes over a whole tile and knows no neurons."""
        return Cost(self.p, self.q, 1, timed(run) / TILE)


def timed(run: Callable[[], Any], clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds of one run by a clock, that of this thread's own work: the median of a few runs."""
    found: list[float] = []
    while len(found) < 2 or (sum(found) < _LEAST_SECONDS and len(found) < 25):
        begun = clock()
        run()
        found.append(clock() - begun)
    return float(np.median(found[1:]))


def timed_steps(step: Callable[[State], State], state: State, renewal: int) -> float:
    """Seconds of a Kronecker-factored step, with its share of the looks at the curvature."""

    def run() -> None:
        nonlocal state
        for _ in range(renewal):
            state = step(state)

    return timed(run) / renewal


def step_and_row(seconds: Callable[[int], float], few: int, rows: int) -> tuple[float, float]:
    """Seconds of a step on few rows, and what each further row adds to it."""
    fewer, more = seconds(few), seconds(rows)
    return fewer, max(more - fewer, 0.0) / (rows - few)


def base_of(part: float, whole: float, share: float) -> float:
    """Seconds that do not grow with the work, from those of a share of it and of the whole."""
    if share >= 1:
        return whole
    return float(np.clip((part - share * whole) / (1 - share), 0.0, whole))
