"""Symmetric positive semidefinite systems that may be singular or badly scaled."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.linalg.lapack import dpotri

from altrelu_dist.moments.rows import Floats

__all__ = ["Factor"]

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
            try:
                self._factor = cholesky(scaled, lower=True, check_finite=False), True
            except np.linalg.LinAlgError:
                # What is left of a column after cancellation need not obey Cauchy and Schwarz.
                np.clip(scaled, -1, 1, out=scaled)
                jitter *= 10
                if not jitter < 1e6:
                    raise
                continue
            break

    def solve(self, b: Floats) -> Floats:
        """Solve ``A x = b``; ``b`` of shape (n,) or (n, m)."""
        scale = self._scale if b.ndim == 1 else self._scale[:, None]
        x: Floats = scale * cho_solve(self._factor, scale * b, check_finite=False)
        return x

    def inverse(self) -> Floats:
        """``A^-1``, with zeros in the rows and columns that are zero in A.

        As the product of the factor's inverse with itself it is, unlike solutions column by column,
        the inverse of one matrix near A: parts of it can be eliminated where A is nearly singular.
        """
        lower, _ = dpotri(self._factor[0], lower=1)  # the other triangle is zero, as the factor's
        inverse: Floats = lower + lower.T
        np.einsum("ii->i", inverse)[:] /= 2
        inverse *= self._scale
        inverse *= self._scale[:, None]
        return inverse

    def whiten(self, b: Floats) -> Floats:
        """``L^-1 b`` with ``A = L L'``, so that ``b' A^-1 b`` is a plain product."""
        from scipy.linalg import solve_triangular

        w: Floats = solve_triangular(
            self._factor[0], self._scale[:, None] * b, lower=True, check_finite=False
        )
        return w
