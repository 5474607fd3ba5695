"""The moments under a fixed activation pattern: packed Gram, its delta update, its unpacking.

With ``s_ij`` the slope of the activation of neuron j at row i and ``x_i`` the row with its one,

    M[(j, u), (k, v)] = sum_i s_ij s_ik x_iu x_iv        N[(j, u), t] = sum_i s_ij x_iu (y_i, 1)_t

M is symmetric in j, k and in u, v on their own, so it is kept as one matrix of h (h + 1) / 2 by
p (p + 1) / 2 numbers. `joint` has its sums for slopes of zero and one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.explicit import explicit_moments, is_small
from altrelu_dist.moments.joint import column_products, joint_grams, spans
from altrelu_dist.moments.rows import Additive, Array, Block, Floats

__all__ = [
    "MOST_FLIPPED",
    "WIDE",
    "PatternChange",
    "PatternDelta",
    "PatternGram",
    "PatternMoments",
    "packed_size",
    "pairs",
]

# Columns above which a pattern's moments are rebuilt rather than updated.
WIDE = 128
# Share of the signs of a block above which two rebuilds are sooner, and smaller, than an update.
MOST_FLIPPED = 0.1


def packed_size(n_hidden: int, n_columns: int) -> int:
    """Number of entries of the packed M."""
    return (n_hidden * (n_hidden + 1) // 2) * (n_columns * (n_columns + 1) // 2)


@lru_cache(maxsize=64)
def pairs(n: int) -> NDArray[np.intp]:
    """Position of the pair (i, j), in either order, in the packed upper triangle; (n, n)."""
    upper = np.triu_indices(n)
    index = np.empty((n, n), dtype=np.intp)
    index[upper] = np.arange(upper[0].size)
    index.T[upper] = index[upper]
    index.setflags(write=False)
    return index


@dataclass(frozen=True)
class PatternGram(Additive):
    """M, packed, and N of some rows."""

    M: Floats  # (h (h + 1) / 2, p (p + 1) / 2)
    N: Floats  # (h, p, q + 1), the last column with the one

    @property
    def n_hidden(self) -> int:
        """Number of hidden neurons."""
        return int(self.N.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of columns, the one included."""
        return int(self.N.shape[1])

    def pair(self, j: int, k: int) -> Floats:
        """The (p, p) block of two neurons."""
        block: Floats = self.M[pairs(self.n_hidden)[j, k]][pairs(self.n_columns)]
        return block

    def full(self, factor: Floats | None = None) -> Floats:
        """M as an (h p, h p) matrix, neuron by neuron, each pair times ``factor[j, k]``."""
        h, p = self.n_hidden, self.n_columns
        out = np.empty((h, p, h, p))
        columns = pairs(p)
        for j, row in enumerate(pairs(h)):
            block = self.M[row][:, columns]  # (h, p, p)
            if factor is not None:
                block *= factor[j][:, None, None]
            out[j] = block.transpose(1, 0, 2)
        return out.reshape(h * p, h * p)

    def with_features(self, W: Floats) -> Floats:
        """Products of ``s_j x_u`` with the hidden features and the one, (h p, h + 1)."""
        h, p = self.n_hidden, self.n_columns
        out = np.empty((h, p, h + 1))
        columns = pairs(p)
        for j, row in enumerate(pairs(h)):
            out[j, :, :h] = np.einsum("kuv,vk->uk", self.M[row][:, columns], W)
        out[:, :, h] = self.N[:, :, -1]
        return out.reshape(h * p, h + 1)

    def hidden_gram(self, W: Floats, with_features: Floats, weight_sum: float) -> Floats:
        """Gram matrix of the hidden features and the one, (h + 1, h + 1)."""
        h, p = self.n_hidden, self.n_columns
        out = np.empty((h + 1, h + 1))
        out[:h] = np.einsum("juk,uj->jk", with_features.reshape(h, p, h + 1), W)
        out[:h, :h] = (out[:h, :h] + out[:h, :h].T) / 2
        out[h, :h] = out[:h, h]
        out[h, h] = weight_sum
        return out

    def hidden_cross(self, W: Floats, target_sums: Floats) -> Floats:
        """Products of the hidden features and the one with the targets, (h + 1, q)."""
        return np.vstack([np.einsum("juq,uj->jq", self.N[:, :, :-1], W), target_sums])


@dataclass(frozen=True)
class PatternChange(Additive):
    """What is added to a `PatternGram` when signs flip, and how many of them did."""

    M: Floats
    N: Floats
    flips: int

    def applied_to(self, moments: PatternGram) -> PatternGram:
        """The moments under the new pattern."""
        return PatternGram(moments.M + self.M, moments.N + self.N)


@dataclass(frozen=True)
class PatternMoments:
    """M and N under the pattern of a hidden layer."""

    W: Floats
    slope: float = 0.0

    def __call__(self, block: Block) -> PatternGram:
        """Contribute one block."""
        x, y = block
        active = x @ self.W.astype(x.dtype) > 0
        if is_small(x, active.shape[1]):
            return PatternGram(*explicit_moments(x, y, _slopes(active, self.slope, x)))
        M = joint_grams(x, active)
        if self.slope:
            _blend(M, x, active.shape[1], self.slope)
        return PatternGram(M, _with_targets(_slopes(active, self.slope, x), x, y))


@dataclass(frozen=True)
class PatternDelta:
    """Change of M and N from the pattern of one hidden layer to that of another.

    With ``d = s_new - s_old``, ``s_new s_new' - s_old s_old' = (d e' + e d') / 2`` where
    ``e = s_new + s_old``, and d is zero but for the few rows whose sign changed: one thin product
    a neuron, over those rows alone.
    """

    old: Floats
    new: Floats
    slope: float = 0.0

    def __call__(self, block: Block) -> PatternChange:
        """Contribute one block."""
        x, y = block
        before, after = (x @ W.astype(x.dtype) > 0 for W in (self.old, self.new))
        flipped = before != after
        flips = int(np.count_nonzero(flipped))
        if flips > MOST_FLIPPED * flipped.size:
            there, here = (PatternMoments(W, self.slope)(block) for W in (self.new, self.old))
            return PatternChange(there.M - here.M, there.N - here.N, flips)
        some = np.flatnonzero(flipped.any(axis=1))
        x, y = x[some], y[some]
        before, after, flipped = before[some], after[some], flipped[some]
        old, new = (_slopes(active, self.slope, x) for active in (before, after))
        change = new - old
        p, h = self.new.shape
        M = np.empty((h * (h + 1) // 2, p * (p + 1) // 2))
        neurons, rows = np.nonzero(flipped.T)
        ends = np.searchsorted(neurons, np.arange(h + 1))
        x_rows = x[rows]
        both = (old + new)[rows] * (change[rows, neurons, None] / 2)
        for span in spans(M.shape[1]):
            products = np.empty((rows.size, span.stop - span.start), dtype=x.dtype)
            column_products(x_rows, span.start, products)
            D = np.empty((h, h, products.shape[1]), dtype=x.dtype)
            for j in range(h):
                own = slice(ends[j], ends[j + 1])
                np.matmul(both[own].T, products[own], out=D[j])
            at = 0
            for j in range(h):
                np.add(D[j, j:], D[j:, j], out=M[at : at + h - j, span])
                at += h - j
        return PatternChange(M, _with_targets(change, x, y), flips)


def _slopes(active: NDArray[np.bool_], slope: float, x: Array) -> Array:
    """Slope of the activation: one where it is active, ``slope`` elsewhere, as precise as x."""
    if slope:
        return np.where(active, x.dtype.type(1), x.dtype.type(slope))
    return active.astype(x.dtype)


def _blend(M: Floats, x: Array, h: int, slope: float) -> None:
    """From sums where slopes are zero or one to those where they are ``slope`` or one, in place.

    With ``s = a + (1 - a) b``, ``s_j s_k = a^2 + a (1 - a) (b_j + b_k) + (1 - a)^2 b_j b_k``.
    """
    all_rows = (x.T @ x)[np.triu_indices(x.shape[1])].astype(np.float64)
    single = M[pairs(h).diagonal()] * (slope * (1 - slope))
    M *= (1 - slope) ** 2
    at = 0
    for j in range(h):
        M[at : at + h - j] += single[j:]
        M[at : at + h - j] += single[j] + slope**2 * all_rows
        at += h - j


def _with_targets(slopes: Array, x: Array, y: Array) -> Floats:
    """N: products of slopes and columns with the targets and with the one, (h, p, q + 1)."""
    fewer = slopes.shape[1] < x.shape[1]  # those are multiplied with the targets
    N = np.empty((slopes.shape[1], x.shape[1], y.shape[1] + 1))
    for t, target in enumerate((*y.T, x[:, -1])):
        each = target[:, None]
        N[:, :, t] = (slopes * each).T @ x if fewer else slopes.T @ (x * each)
    return N
