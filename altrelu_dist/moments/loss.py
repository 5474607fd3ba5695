"""Loss, gradient and the Gram matrix of the hidden features: the cheap passes, 2 n h p each way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altrelu_dist.moments.rows import Additive, Array, Block, Floats, Weights

__all__ = ["HiddenGram", "HiddenMoments", "LossAndGradient", "LossGradient", "activate"]


def activate(z: Array, slope: float) -> Array:
    """The activation ``max(z, slope * z)``, in place where it can be."""
    if slope:
        return np.maximum(z, z * z.dtype.type(slope), out=z)
    return np.maximum(z, 0, out=z)


@dataclass(frozen=True)
class LossGradient(Additive):
    """Sum of squares and its gradient in every weight, both halved in no place."""

    squares: Floats  # (q,)
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
        x, y = block
        dtype = x.dtype
        W, V = self.weights.W.astype(dtype), self.weights.V.astype(dtype)
        hidden = x @ W
        # The slopes as numbers: NumPy multiplies them much faster than it takes a maximum with
        # a constant, and the gradient needs them as well.
        slopes = (hidden > 0).astype(dtype)
        if self.slope:
            slopes *= dtype.type(1 - self.slope)
            slopes += dtype.type(self.slope)
        hidden *= slopes
        residual = hidden @ V
        residual += x[:, -1:] * self.weights.c.astype(dtype)
        residual -= y
        squares = np.einsum("iq,iq->q", residual, residual, dtype=np.float64)
        into_c = x[:, -1] @ residual
        if V.shape[1] == 1:
            # Both gradients follow from the rows, each times its residual, under the pattern.
            back = (x * residual).T @ slopes
            into_V = np.einsum("pj,pj->j", back, W)[:, None]
            into_W = back * V.T
        else:
            into_V = hidden.T @ residual
            slopes *= residual @ V.T
            into_W = x.T @ slopes
        return LossGradient(
            squares, *(2.0 * part.astype(np.float64) for part in (into_W, into_V, into_c))
        )


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
        features[:, :-1] = activate(x @ self.W.astype(x.dtype), self.slope)
        features[:, -1] = x[:, -1]
        targets = y.astype(np.float64)
        return HiddenGram(
            features.T @ features, features.T @ targets, np.einsum("iq,iq->q", targets, targets)
        )
