"""Loss, gradient and the Gram matrix of the hidden features: the cheap passes, 2 n h p each way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Additive, Array, Block, Floats, Weights

__all__ = [
    "HiddenGram",
    "HiddenMoments",
    "LossAndGradient",
    "LossGradient",
    "SquaredLoss",
    "Squares",
    "activate",
    "backward",
    "forward",
    "parts_of",
]

_PART = 2**18  # hidden features at once: the system takes larger arrays back after each use


def activate(z: Array, slope: float) -> Array:
    """The activation ``max(z, slope * z)``, in place where it can be."""
    if slope:
        return np.maximum(z, z * z.dtype.type(slope), out=z)
    return np.maximum(z, 0, out=z)


def parts_of(block: Block, n_hidden: int) -> Iterator[Block]:
    """The rows in parts, so that the hidden features of each are small."""
    rows = max(256, _PART // max(1, n_hidden))
    for start in range(0, len(block.x), rows):
        yield Block(block.x[start : start + rows], block.y[start : start + rows])


@dataclass(frozen=True)
class Squares(Additive):
    """Sum of squared residuals."""

    squares: Floats  # (q,)


@dataclass(frozen=True)
class SquaredLoss:
    """Sum over rows of ``|f(x) - y|^2``, without the gradient."""

    weights: Weights
    slope: float = 0.0

    def __call__(self, block: Block) -> Squares:
        """Contribute one block."""
        x, y = block
        weights = self.weights.astype(x.dtype)
        residual = activate(x @ weights.W, self.slope) @ weights.V
        residual += x[:, -1:] * weights.c
        residual -= y
        return Squares(_squares(residual))


@dataclass(frozen=True)
class LossGradient(Squares):
    """Sum of squared residuals and its gradient in every weight, without a factor 1/2."""

    W: Floats  # (p, h)
    V: Floats  # (h, q)
    c: Floats  # (q,)


@dataclass(frozen=True)
class LossAndGradient:
    """Sum over rows of ``|f(x) - y|^2`` and its gradient."""

    weights: Weights
    slope: float = 0.0

    def __call__(self, block: Block) -> LossGradient:
        """Contribute one block."""
        weights = self.weights.astype(block.x.dtype)
        first, *others = (self._part(part, weights) for part in parts_of(block, weights.n_hidden))
        for other in others:
            first = first.merge(other)
        return first

    def _part(self, block: Block, weights: Weights) -> LossGradient:
        features, slopes, residual = forward(block, weights, self.slope)
        squares = _squares(residual)
        into = backward(block, weights, features, slopes, residual)
        return LossGradient(
            squares, *(2.0 * part.astype(np.float64) for part in (into.W, into.V, into.c))
        )


def _squares(residual: Array) -> Floats:
    squares: Floats = np.einsum("iq,iq->q", residual, residual, dtype=np.float64)
    return squares


def forward(block: Block, weights: Weights, slope: float) -> tuple[Array, Array, Array]:
    """Hidden features (n, h), slopes of the activation (n, h) and residuals (n, q) of a block.

    ``weights`` are in the dtype of the block.
    """
    x, y = block
    dtype = x.dtype
    features = x @ weights.W
    # The slopes as numbers: NumPy multiplies them much faster than it takes a maximum with
    # a constant, and the gradient needs them as well.
    slopes = (features > 0).astype(dtype)
    if slope:
        slopes *= dtype.type(1 - slope)
        slopes += dtype.type(slope)
    features *= slopes
    residual = features @ weights.V
    residual += x[:, -1:] * weights.c
    residual -= y
    return features, slopes, residual


def backward(
    block: Block, weights: Weights, features: Array, slopes: Array, residual: Array
) -> Weights:
    """Gradient of half the sum of squares in every weight; overwrites ``slopes``."""
    x = block.x
    into_c = x[:, -1] @ residual
    if weights.V.shape[1] == 1:
        # Both gradients follow from the rows, each times its residual, under the pattern.
        back = (x * residual).T @ slopes
        into_V = (back * weights.W).sum(axis=0)[:, None]
        return Weights(back * weights.V.T, into_V, into_c)
    into_V = features.T @ residual
    slopes *= residual @ weights.V.T
    return Weights(x.T @ slopes, into_V, into_c)


@dataclass(frozen=True)
class HiddenGram(Additive):
    """What the output layer's least squares need."""

    gram: Floats  # (h + 1, h + 1), of the hidden features and the one
    cross: Floats  # (h + 1, q), with the targets
    squares: Floats  # (q,), of the targets


@dataclass(frozen=True)
class HiddenMoments:
    """Gram matrix of the hidden features (and the one), and their products with the targets."""

    W: Floats
    slope: float = 0.0

    def __call__(self, block: Block) -> HiddenGram:
        """Contribute one block."""
        x, y = block
        # In float64 whatever the data are: near-duplicate neurons make this Gram matrix nearly
        # singular, and products rounded to float32 would drown its small eigenvalues.
        features = np.empty((x.shape[0], self.W.shape[1] + 1))
        z = x @ self.W.astype(x.dtype)
        rounding = _rounding(z, len(self.W)) if not self.slope else None
        features[:, :-1] = activate(z, self.slope)
        if rounding is not None:
            features[:, :-1][:, rounding] = 0.0
        features[:, -1] = x[:, -1]
        targets = y.astype(np.float64)
        return HiddenGram(
            features.T @ features, features.T @ targets, np.einsum("iq,iq->q", targets, targets)
        )


def _rounding(z: Array, n_columns: int) -> NDArray[np.bool_]:
    """Which neurons are positive by no more than the rounding of such sums, (h,).

    All rows are on the side of their hinge where it is zero, some of them exactly at its kink.
    """
    least = 2 * np.finfo(z.dtype).eps * np.sqrt(n_columns) * -z.min(axis=0)
    high: Array = z.max(axis=0)
    rounding: NDArray[np.bool_] = (high > 0) & (high <= least)
    return rounding
