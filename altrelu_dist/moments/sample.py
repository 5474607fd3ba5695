"""A random sample of all rows, the same rows however they are chunked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Floats, Rows

__all__ = ["Sample", "Sampler", "distinct"]


class _Drawn(NamedTuple):
    """Rows, each with its draw."""

    X: NDArray[Any]
    y: NDArray[Any]
    weight: NDArray[Any] | None
    draw: Floats


class Sample:
    """Rows drawn from a range, each with its draw.

    The rows of merged ranges are copied together once, when they are asked for.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    y : ndarray of shape (n, q)
    weight : ndarray of shape (n,), or None
    draw : ndarray of shape (n,)
    """

    def __init__(
        self, X: NDArray[Any], y: NDArray[Any], weight: NDArray[Any] | None, draw: Floats
    ) -> None:
        self._parts = [_Drawn(X, y, weight, draw)]

    def merge(self, other: Sample) -> Sample:
        """The draws of both ranges."""
        both = Sample(*self._parts[0])
        both._parts = self._parts + other._parts
        return both

    def drawn(self) -> _Drawn:
        """X, y, weight and draw of all rows."""
        if len(self._parts) > 1:
            X, y, weights, draw = zip(*self._parts, strict=True)
            weight = None if weights[0] is None else np.concatenate(weights)
            joined = _Drawn(np.concatenate(X), np.concatenate(y), weight, np.concatenate(draw))
            self._parts = [joined]
        return self._parts[0]

    def __getstate__(self) -> dict[str, list[_Drawn]]:
        """What is sent to another process."""
        return {"_parts": [self.drawn()]}

    def shuffled(self) -> Rows:
        """The rows in the order of their draws: every leading part is itself a random sample."""
        X, y, weight, draw = self.drawn()
        order = np.argsort(draw, kind="stable")
        return Rows(0, X[order], y[order], None if weight is None else weight[order])


@dataclass(frozen=True)
class Sampler:
    """Draw each row with the same probability, but none without weight.

    The draws belong to the number of a tile's first row, not to a chunk or a worker. Samples of
    the same seed whose draws do not overlap have no row in common.
    """

    probability: float
    seed: int
    gaps: bool = False  # whether features may be missing
    least: float = 0.0  # of the draws

    def __call__(self, rows: Rows) -> Sample:
        """The drawn rows of one tile."""
        rows.check_finite(gaps=self.gaps)
        draw = np.random.default_rng([self.seed, rows.start]).random(len(rows.X))
        drawn = (draw >= self.least) & (draw < self.least + self.probability)
        if rows.weight is not None:
            drawn &= rows.weight.astype(np.float64) > 0
        take = np.flatnonzero(drawn)
        weight = None if rows.weight is None else rows.weight[take]
        return Sample(rows.X[take], rows.y[take], weight, draw[take])


def distinct(rows: Rows, seed: int) -> Rows:
    """The distinct rows in an order of their own, shuffled, each with its weight summed.

    It makes what follows depend on the set of rows alone: repeated rows are weights, rows without
    weight are not there, and the order in which rows come does not matter.
    """
    weight = rows.weights
    seen = np.flatnonzero(weight > 0)
    X = np.ascontiguousarray(rows.X[seen])
    y = np.ascontiguousarray(rows.y[seen])
    keys = np.concatenate([_bytes(X), _bytes(y)], axis=1)
    keys = keys.view(np.dtype((np.void, keys.shape[1]))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    total = np.bincount(group, weights=weight[seen])
    order = np.random.default_rng(seed).permutation(first.size)
    kept = first[order]
    return Rows(0, X[kept], y[kept], None if (total == 1).all() else total[order])


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype not in (np.float32, np.float64):  # in the order of the numbers as float64
        values = values.astype(np.float64)
    values = values + values.dtype.type(0)  # of the two zeros, one
    gaps = np.isnan(values)
    if gaps.any():
        values[gaps] = np.nan  # of the many NaNs, one
    return np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)
