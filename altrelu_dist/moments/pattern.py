"""The moments under a fixed activation pattern: packed Gram, its delta update, its unpacking.

With ``s_ij`` the slope of the activation of neuron j at row i and ``x_i`` the row with its one,

    M[(j, u), (k, v)] = sum_i s_ij s_ik x_iu x_iv        N[(j, u), t] = sum_i s_ij x_iu (y_i, 1)_t

M is symmetric in j, k and in u, v on their own, so it is kept as one matrix of h (h + 1) / 2 by
p (p + 1) / 2 numbers, and a block contributes one product of two thin matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Additive, Array, Block, Floats

__all__ = [
    "WIDE",
    "PatternChange",
    "PatternDelta",
    "PatternGram",
    "PatternMoments",
    "packed_size",
    "pairs",
]

# Rows whose products of pairs are formed at once: they then stay near the core.
_ROWS_AT_ONCE = 512
# Columns above which the products of pairs of them would not: then each pair of neurons has its
# own product of the rows where both are active.
WIDE = 128


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

    def hidden_gram(self, W: Floats, with_features: Floats, ones: float) -> Floats:
        """Gram matrix of the hidden features and the one, (h + 1, h + 1)."""
        h, p = self.n_hidden, self.n_columns
        out = np.empty((h + 1, h + 1))
        out[:h] = np.einsum("juk,uj->jk", with_features.reshape(h, p, h + 1), W)
        out[:h, :h] = (out[:h, :h] + out[:h, :h].T) / 2
        out[h, :h] = out[:h, h]
        out[h, h] = ones
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
        p, h = self.W.shape
        M = np.zeros((h * (h + 1) // 2, p * (p + 1) // 2), dtype=x.dtype)
        N = np.zeros((h, p * (y.shape[1] + 1)), dtype=x.dtype)
        W = self.W.astype(x.dtype)
        if p > WIDE:
            pattern = _pattern(x @ W, self.slope)
            N += pattern.T @ _with_targets(x, y)
            return PatternGram(_pair_by_pair(x, pattern), _unfold(N, p))
        for start in range(0, x.shape[0], _ROWS_AT_ONCE):
            part = x[start : start + _ROWS_AT_ONCE]
            # Neurons and columns come first here: products of pairs are then of contiguous rows.
            columns = np.ascontiguousarray(part.T)
            pattern = _pattern(W.T @ columns, self.slope)
            M += _products(pattern) @ _products(columns).T
            N += pattern @ _with_targets(part, y[start : start + _ROWS_AT_ONCE])
        return PatternGram(M.astype(np.float64), _unfold(N, p))


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
        p, h = self.new.shape
        before = _pattern(x @ self.old.astype(x.dtype), self.slope)
        after = _pattern(x @ self.new.astype(x.dtype), self.slope)
        change, both = after - before, after + before
        N = change.T @ _with_targets(x, y)
        flipped = np.flatnonzero(change.any(axis=1))
        upper = np.triu_indices(p)
        squares = x[flipped][:, upper[0]] * x[flipped][:, upper[1]]
        change, both = change[flipped], both[flipped]
        D = np.empty((h, h, squares.shape[1]), dtype=x.dtype)
        for j in range(h):
            rows = np.flatnonzero(change[:, j])
            D[j] = (both[rows] * change[rows, j, None]).T @ squares[rows]
        first, second = np.triu_indices(h)
        M = D[first, second].astype(np.float64)
        M += D[second, first]
        M /= 2
        return PatternChange(M, _unfold(N, p), int(np.count_nonzero(change)))


def _pattern(z: Array, slope: float) -> Array:
    """Slope of the activation at ``z``: one where it is positive, ``slope`` elsewhere."""
    positive = z > 0
    if slope:
        return np.where(positive, z.dtype.type(1), z.dtype.type(slope))
    return positive.astype(z.dtype)


def _products(a: Array) -> Array:
    """Products of all pairs of rows of ``a``, in the order of the packed triangle."""
    n = a.shape[0]
    out = np.empty((n * (n + 1) // 2, a.shape[1]), dtype=a.dtype)
    at = 0
    for i in range(n):
        np.multiply(a[i], a[i:], out=out[at : at + n - i])
        at += n - i
    return out


def _pair_by_pair(x: Array, pattern: Array) -> Floats:
    h, p = pattern.shape[1], x.shape[1]
    upper = np.triu_indices(p)
    M = np.empty((h * (h + 1) // 2, upper[0].size))
    for at, (j, k) in enumerate(zip(*np.triu_indices(h), strict=True)):
        slopes = pattern[:, j] * pattern[:, k]
        rows = np.flatnonzero(slopes)
        part = x[rows]
        M[at] = ((part * slopes[rows, None]).T @ part)[upper]
    return M


def _with_targets(x: Array, y: Array) -> Array:
    """Products of the columns with the targets and with the one, (n, p (q + 1))."""
    both = np.concatenate([y, x[:, -1:]], axis=1)
    products: Array = x[:, :, None] * both[:, None, :]
    return products.reshape(x.shape[0], -1)


def _unfold(N: Array, p: int) -> Floats:
    return N.astype(np.float64).reshape(N.shape[0], p, N.shape[1] // p)
