"""Curvature of the kinks: what a frozen activation pattern cannot know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.loss import activate
from altrelu_dist.moments.rows import Additive, Block, Floats, Weights

__all__ = ["KinkBlocks", "KinkMoments"]


@dataclass(frozen=True)
class KinkBlocks(Additive):
    """One (p, p) block of curvature a neuron."""

    blocks: Floats  # (h, p, p)


@dataclass(frozen=True)
class KinkMoments:
    """Second derivative of half the loss across each neuron's kink, smoothed by a hat.

    The derivative of the pattern is a delta at ``z = 0``; it is replaced by a hat of half-width
    ``width`` in units of the neuron's norm. Only the rows of that thin band contribute.
    """

    weights: Weights
    width: float
    slope: float = 0.0
    neurons: NDArray[np.intp] | None = None  # of which the blocks are wanted; all by default

    def __call__(self, block: Block) -> KinkBlocks:
        """Contribute one block."""
        x, y = block
        dtype = x.dtype
        W, V = self.weights.W.astype(dtype), self.weights.V.astype(dtype)
        p, h = W.shape
        z = x @ W
        band = self.width * np.linalg.norm(W, axis=0)
        root = x[:, -1]  # sqrt(weight): z carries it, the band must not
        distance = np.abs(z)
        near = (distance < band * root[:, None]) & (root[:, None] > 0)
        residual = activate(z, self.slope) @ V
        residual += x[:, -1:] * self.weights.c.astype(dtype)
        residual -= y
        wanted = np.arange(h) if self.neurons is None else self.neurons
        out = np.zeros((len(wanted), p, p))
        for at, j in enumerate(wanted):
            rows = np.flatnonzero(near[:, j])
            hat = (1 - distance[rows, j] / (band[j] * root[rows])) / band[j]
            curve = (residual[rows] @ V[j]) * hat / root[rows]
            out[at] = (x[rows] * curve[:, None]).T @ x[rows]
        return KinkBlocks((1 - self.slope) * out)
