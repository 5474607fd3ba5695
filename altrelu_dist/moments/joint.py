"""Packed Gram matrices of the rows where two neurons are both active, for all pairs of neurons.

With ``b_ij`` in {0, 1}, ``B[(j, k), (u, v)] = sum_i b_ij b_ik x_iu x_iv`` for j <= k and u <= v. As
one product of two thin matrices that takes ``n h (h + 1) / 2 p (p + 1) / 2`` multiply-adds. Since b
is binary, a quarter of them does, a form of the method of the four Russians: sort the rows by the
pattern of a few neurons j, sum ``b_ik x_iu x_iv`` over each of the classes of equal rows, and add
up for each j the classes in which it is active. Every row then counts once for all those neurons.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Array, Floats

__all__ = ["column_products", "joint_grams", "spans"]

# Columns, and those for each neuron, above which one Gram matrix a pair of neurons keeps the core
# busy, while the products of columns would cost as much as what is done with them.
_WIDE, _WIDE_A_NEURON = 64, 2.5
# Rows of a class that keep its product efficient, and neurons whose classes are told apart.
_ROWS_IN_CLASS = 128
_MOST_TOGETHER = 5
# Products of columns formed at once: with the rows of a class they fit the core's own cache.
_PRODUCTS_AT_ONCE = 250


def joint_grams(x: Array, active: NDArray[np.bool_]) -> Floats:
    """Sum over rows of ``b_j b_k x_u x_v``, (h (h + 1) / 2, p (p + 1) / 2).

    Parameters
    ----------
    x : array of shape (n, p)
    active : bool array of shape (n, h)
    """
    p, h = x.shape[1], active.shape[1]
    if h == 0:
        return np.zeros((0, p * (p + 1) // 2))
    if p > min(max(_WIDE, h), _WIDE_A_NEURON * h):
        return _by_pair(x, active)
    return _by_class(x, active)


def _by_pair(x: Array, active: NDArray[np.bool_]) -> Floats:
    p, h = x.shape[1], active.shape[1]
    upper = np.ravel_multi_index(np.triu_indices(p), (p, p))
    B = np.empty((h * (h + 1) // 2, upper.size))
    at = 0
    for j in range(h):
        rows = np.flatnonzero(active[:, j])
        own, others = x[rows], active[rows, j:]
        for k in range(h - j):
            part = own[others[:, k]]
            B[at] = (part.T @ part).ravel()[upper]
            at += 1
    return B


def _by_class(x: Array, active: NDArray[np.bool_]) -> Floats:
    (n, p), h = x.shape, active.shape[1]
    together = _together(n, h)
    groups = [_classes(active[:, j : j + together]) for j in range(0, h, together)]
    pattern = active.astype(x.dtype)
    n_pairs = p * (p + 1) // 2
    B = np.empty((h * (h + 1) // 2, n_pairs))
    width = spans(n_pairs)[0].stop
    products = np.empty(n * width, dtype=x.dtype)
    sums = np.empty((1 << together) * h * width, dtype=x.dtype)
    for span in spans(n_pairs):
        part = products[: n * (span.stop - span.start)].reshape(n, -1)
        column_products(x, span.start, part)
        at = 0
        for first, (order, ends) in zip(range(0, h, together), groups, strict=True):
            size = min(together, h - first)
            shape = (1 << size, h - first, part.shape[1])
            by_class = sums[: math.prod(shape)].reshape(shape)
            others = pattern.take(order, axis=0)[:, first:]
            for c in range(1, 1 << size):
                rows = slice(ends[c - 1], ends[c])
                np.matmul(others[rows].T, part.take(order[rows], axis=0), out=by_class[c])
            # Class 0, of no neuron, is left out.
            member = (np.arange(1, 1 << size) >> np.arange(size)[:, None]) & 1
            found = member.astype(x.dtype) @ by_class[1:].reshape((1 << size) - 1, -1)
            for i, block in enumerate(found.reshape(size, h - first, -1)):
                B[at : at + h - first - i, span] = block[i:]
                at += h - first - i
    return B


def _together(n: int, h: int) -> int:
    """Neurons by whose pattern the rows are sorted at once."""
    return max(1, min(h, _MOST_TOGETHER, (n // _ROWS_IN_CLASS).bit_length() - 1))


def _classes(active: NDArray[np.bool_]) -> tuple[NDArray[np.intp], list[int]]:
    """Rows sorted by the number whose bits are a row's pattern, and where each number ends."""
    size = active.shape[1]
    code = active @ (1 << np.arange(size)).astype(np.uint8)
    order = np.argsort(code, kind="stable")
    return order, np.cumsum(np.bincount(code, minlength=1 << size)).tolist()


def spans(n_pairs: int) -> list[slice]:
    """Parts of the packed triangle of columns that are dealt with at once, about equal."""
    width = -(-n_pairs // -(-n_pairs // _PRODUCTS_AT_ONCE))
    return [slice(low, min(low + width, n_pairs)) for low in range(0, n_pairs, width)]


def column_products(x: Array, low: int, out: Array) -> None:
    """Products of the pairs of columns from number ``low`` of the packed triangle on."""
    p = x.shape[1]
    high = low + out.shape[1]
    start = 0
    for u in range(p):
        stop = start + p - u
        a, b = max(low, start), min(high, stop)
        if a < b:
            columns = x[:, u + a - start : u + b - start]
            np.multiply(x[:, u, None], columns, out=out[:, a - low : b - low])
        start = stop
