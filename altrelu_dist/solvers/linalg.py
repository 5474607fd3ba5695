"""Symmetric positive semidefinite systems that may be singular or badly scaled."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from altrelu_dist.moments.rows import Array, Floats

__all__ = ["Factor", "damped_inverse"]

_FIRST_JITTER = 1e-13


class Factor:
    """Cholesky factor of a positive semidefinite matrix, scaled to a unit diagonal.

    Rows and columns that are zero (dead neurons, constant columns) get a solution of zero. A
    matrix that is singular to rounding gets the least multiple of the identity, in the scaled
    matrix, that makes it definite: its null space then takes no part in the solution.

    Parameters
    ----------
    A : ndarray of shape (n, n)
        Symmetric; only its lower triangle is read.
    """

    def __init__(self, A: Floats) -> None:
        diagonal = np.diagonal(A).copy()
        alive = diagonal > np.finfo(np.float64).tiny
        self._scale = np.where(alive, 1 / np.sqrt(np.where(alive, diagonal, 1.0)), 0.0)
        scaled = A * self._scale
        scaled *= self._scale[:, None]
        jitter = _FIRST_JITTER
        while True:
            np.fill_diagonal(scaled, 1 + jitter)
            self._factor, failed = dpotrf(scaled, lower=1)
            if not failed:
                break
            # What is left of a column after cancellation need not obey Cauchy and Schwarz.
            np.clip(scaled, -1, 1, out=scaled)
            jitter *= 10
            if not jitter < 1e6:
                raise np.linalg.LinAlgError("the matrix is not definite, whatever is added")

    def solve(self, b: Floats) -> Floats:
        """Solve ``A x = b``; ``b`` of shape (n,) or (n, m)."""
        if not b.size:
            return np.zeros_like(b)
        scale = self._scale if b.ndim == 1 else self._scale[:, None]
        x, _ = dpotrs(self._factor, scale * b, lower=1)
        x *= scale
        return np.asarray(x)

    def inverse(self) -> Floats:
        """``A^-1``, with zeros in the rows and columns that are zero in A.

        As the product of the factor's inverse with itself it is, unlike solutions column by column,
        the inverse of one matrix near A: parts of it can be eliminated where A is nearly singular.
        """
        if not self._scale.size:
            return np.zeros((0, 0))
        lower, _ = dpotri(self._factor, lower=1)  # the other triangle is zero, as the factor's
        inverse: Floats = lower + lower.T
        np.einsum("ii->i", inverse)[:] /= 2
        inverse *= self._scale
        inverse *= self._scale[:, None]
        return inverse

    def whiten(self, b: Floats) -> Floats:
        """``L^-1 b`` with ``A = L L'``, so that ``b' A^-1 b`` is a plain product."""
        from scipy.linalg import solve_triangular

        w: Floats = solve_triangular(
            self._factor, self._scale[:, None] * b, lower=True, check_finite=False
        )
        return w


def damped_inverse(gram: Floats, damping: float) -> Array:
    """``(gram + damping * mean(diag(gram)) I)^-1`` of a positive semidefinite matrix, in float32.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
    damping : float
        So large that the sum is definite to rounding.

    Returns
    -------
    ndarray of shape (n, n)
        Zeros if the matrix is zero: nothing is known, and no step is to be taken. NaN if the matrix
        has values that are not finite.
    """
    size, mean = len(gram), gram.diagonal().mean()
    if mean <= np.finfo(np.float32).tiny:
        return np.zeros(gram.shape, np.float32)
    damped = gram.copy()
    damped.ravel()[:: size + 1] += damping * mean
    factor, failed = dpotrf(damped.T, lower=1, overwrite_a=1)
    if failed or not np.isfinite(mean):
        return np.full(gram.shape, np.nan, np.float32)
    lower, _ = dpotri(factor, lower=1, overwrite_c=1)
    inverse: Array = lower.astype(np.float32, order="C")
    inverse += inverse.T  # the other triangle was zero
    inverse.ravel()[:: size + 1] /= 2
    return inverse
