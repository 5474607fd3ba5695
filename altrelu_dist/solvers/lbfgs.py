"""Limited-memory BFGS: the inverse Hessian from the last steps and the changes of the gradient.

SciPy's spends several times the time of our passes over a few thousand rows on what is not a pass:
it keeps the machinery of its bounds. Here a step costs two products with the pairs that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.linalg.blas import dtrsv

from altrelu_dist.moments.rows import Floats

__all__ = ["State", "minimise", "room_for"]

# Of the line search of Lewis and Overton (Mathematical Programming 141, 2013), for functions with
# kinks: enough decrease, and a slope that is no longer as steep.
_DECREASE, _CURVATURE = 1e-4, 0.9
_MOST_TRIALS = 20
_LEAST_CURVATURE = 2.2e-16  # s'y over y'y: pairs with less are not kept

Function = Callable[[Floats], tuple[float, Floats]]


class State:
    """Where a descent is, and what it knows of the curvature.

    Parameters
    ----------
    x : ndarray of shape (n,)
    value : float
    gradient : ndarray of shape (n,)
    memory : int
        How many pairs of steps and changes of the gradient are kept.
    iteration : int
        How many were made.
    """

    def __init__(
        self, x: Floats, value: float, gradient: Floats, memory: int, iteration: int = 0
    ) -> None:
        self.x, self.value, self.gradient, self.iteration = x, value, gradient, iteration
        self.pairs = _Pairs(memory, x.size)

    def kept(self) -> dict[str, Any]:
        """All of it, as numbers and arrays."""
        return {
            "x": self.x,
            "value": self.value,
            "gradient": self.gradient,
            "iteration": self.iteration,
            "pairs": self.pairs.kept(),
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any], memory: int) -> State:
        """The same again."""
        state = cls(kept["x"], kept["value"], kept["gradient"], memory, kept["iteration"])
        state.pairs.take(kept["pairs"])
        return state


def minimise(
    fun: Function,
    start: Floats | State,
    most: int,
    memory: int,
    after_step: Callable[[State], bool],
) -> tuple[Floats, float]:
    """Descend from ``start``; where it ends, and the value there.

    Parameters
    ----------
    fun : callable
        Value and gradient.
    start : ndarray of shape (n,), or State
        A point, or where another descent was.
    most : int
        Iterations, at most, those included that led to a state.
    memory : int
        How many pairs of steps and changes of the gradient are kept.
    after_step : callable
        Told of the state after each iteration; a true return ends the descent.
    """
    state = start if isinstance(start, State) else State(start, *fun(start), memory)
    while state.iteration < most:
        x, value, gradient, pairs = state.x, state.value, state.gradient, state.pairs
        state.iteration += 1
        direction = pairs.direction(gradient)
        slope = float(gradient @ direction)
        first = 1.0
        if not pairs.count:
            norm = float(np.linalg.norm(gradient))
            first = 1 / norm if norm > 0 else 0.0
        found = _line_search(fun, x, value, direction, slope, first) if slope < 0 else None
        if found is None:
            if not pairs.count:
                break
            state.pairs = _Pairs(memory, x.size)
            continue
        step, state.value, state.gradient = found
        pairs.add(step, state.gradient - gradient)
        state.x = x + step
        if after_step(state):
            break
    return state.x, state.value


def room_for(memory: int) -> int:
    """The rows that there are for pairs: a quarter more, so that they are seldom moved."""
    return memory + memory // 4 + 1


def _line_search(
    fun: Function, x: Floats, value: float, direction: Floats, slope: float, first: float
) -> tuple[Floats, float, Floats] | None:
    """A step with less value and less slope, the value and the gradient there; None: there is none.

    Where the search has to give up, the best step with enough decrease.
    """
    low, high = 0.0, np.inf
    best: tuple[Floats, float, Floats] | None = None
    length = first
    for _ in range(_MOST_TRIALS):
        step = length * direction
        there, gradient = fun(x + step)
        if not there <= value + _DECREASE * length * slope:
            high = length
        else:
            if best is None or there < best[1]:
                best = step, there, gradient
            if float(gradient @ direction) >= _CURVATURE * slope:
                return step, there, gradient
            low = length
        length = 2 * low if high == np.inf else (low + high) / 2
    return best


class _Pairs:
    """Steps and changes of the gradient; the last few count.

    The inverse Hessian in the compact form of Byrd, Nocedal and Schnabel (Mathematical Programming
    63, 1994). Rows are appended, and moved to the front when there is no room left.
    """

    def __init__(self, memory: int, size: int) -> None:
        room = room_for(memory)
        self._memory = memory
        self._first = self._end = 0
        self._steps = np.empty((room, size))
        self._changes = np.empty((room, size))
        self._products = np.zeros((room, room))  # of steps with changes, on and above the diagonal
        self._gram = np.zeros((room, room))  # of changes

    @property
    def count(self) -> int:
        """How many pairs there are."""
        return self._end - self._first

    def add(self, step: Floats, change: Floats) -> None:
        """Keep a pair, unless it says nothing."""
        product, square = float(step @ change), float(change @ change)
        if not product > _LEAST_CURVATURE * square:
            return
        if self._end == len(self._steps):
            self._to_front()
        end = self._end
        kept = slice(self._first, end)
        self._steps[end], self._changes[end] = step, change
        self._products[kept, end] = self._steps[kept] @ change
        self._gram[kept, end] = self._gram[end, kept] = self._changes[kept] @ change
        self._products[end, end], self._gram[end, end] = product, square
        self._end += 1
        self._first = max(self._first, self._end - self._memory)

    def direction(self, gradient: Floats) -> Floats:
        """Minus the inverse Hessian times the gradient."""
        if not self.count:
            return -gradient
        kept = slice(self._first, self._end)
        steps, changes = self._steps[kept], self._changes[kept]
        R, gram = self._products[kept, kept], self._gram[kept, kept]
        scale = R[-1, -1] / gram[-1, -1]
        u = dtrsv(R, steps @ gradient)
        v = R.diagonal() * u + scale * (gram @ u - changes @ gradient)
        downhill: Floats = (scale * u) @ changes
        downhill -= dtrsv(R, v, trans=1) @ steps
        downhill -= scale * gradient
        return downhill

    def kept(self) -> dict[str, Floats]:
        """The pairs that count, and their products: copies, since those here are written over."""
        kept = slice(self._first, self._end)
        return {
            "steps": self._steps[kept].copy(),
            "changes": self._changes[kept].copy(),
            "products": self._products[kept, kept].copy(),
            "gram": self._gram[kept, kept].copy(),
        }

    def take(self, kept: Mapping[str, Floats]) -> None:
        """Have these pairs, and no others."""
        self._first, self._end = 0, len(kept["steps"])
        front = slice(0, self._end)
        self._steps[front], self._changes[front] = kept["steps"], kept["changes"]
        self._products[front, front], self._gram[front, front] = kept["products"], kept["gram"]

    def _to_front(self) -> None:
        kept, front = slice(self._first, self._end), slice(0, self.count)
        for rows in (self._steps, self._changes):
            rows[front] = rows[kept]
        for square in (self._products, self._gram):
            square[front, front] = square[kept, kept].copy()
        self._first, self._end = 0, self.count
