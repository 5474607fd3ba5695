"""Critical point of the hidden layer under a fixed activation pattern: one linear system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altrelu_dist.moments.loss import LossGradient
from altrelu_dist.moments.pattern import PatternGram
from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.linalg import Factor

__all__ = ["LayerStep", "LevenbergMarquardtSystem", "solve_hidden"]


def solve_hidden(moments: PatternGram, weights: Weights, ridge: float) -> Floats:
    """Hidden weights where the gradient in them is zero, the pattern and the output layer fixed.

    Minimises ``sum_i |y_i - c - sum_j v_j s_ij (x_i . w_j)|^2 + ridge |W|^2``, biases not
    penalised: ``((V V') o M + ridge D) w = sum_t v_t o (N_t - c_t N_1)``, o by pairs of neurons.

    Parameters
    ----------
    moments : PatternGram
    weights : Weights
        Only its output layer is used.
    ridge : float
        Already times the number of rows.

    Returns
    -------
    ndarray of shape (p, h)
    """
    h, p = moments.n_hidden, moments.n_columns
    A = moments.full(weights.V @ weights.V.T)
    diagonal = np.einsum("ii->i", A).reshape(h, p)
    diagonal[:, :-1] += ridge
    targets = moments.N[:, :, :-1] - moments.N[:, :, -1:] * weights.c
    right = np.einsum("juq,jq->ju", targets, weights.V)
    return Factor(A).solve(right.ravel()).reshape(h, p).T


@dataclass(frozen=True)
class LayerStep:
    """A change of both layers and the decrease of the objective that the system foresees."""

    W: Floats
    output: Floats
    predicted_decrease: float


class LevenbergMarquardtSystem:
    """The hidden-layer system with the output layer eliminated, for any damping.

    The unknowns are changes of both layers under the frozen pattern. Eliminating those of the
    output layer leaves ``(V V') o (M - E C^-1 E')`` for the hidden layer, E the products of
    ``s_j x_u`` with the hidden features, C their Gram matrix. To it are added the positive part of
    the curvature of the kinks (each neuron's block with its negative eigenvalues at zero), the
    ridge, and the damping times the diagonal (Levenberg and Marquardt's).

    Parameters
    ----------
    moments : PatternGram
        Under the pattern of ``weights``.
    weights : Weights
    kinks : ndarray of shape (h, p, p)
    weight_sum : float
        Sum of the row weights.
    ridge : float
        Already times ``weight_sum``.
    """

    def __init__(
        self, moments: PatternGram, weights: Weights, kinks: Floats, weight_sum: float, ridge: float
    ) -> None:
        h, p = moments.n_hidden, moments.n_columns
        self._shape = (h, p)
        self._weights = weights
        self._ridge = ridge
        self._E = moments.with_features(weights.W)
        gram = moments.hidden_gram(weights.W, self._E, weight_sum)
        np.einsum("jj->j", gram)[:-1] += ridge
        self._output = Factor(gram)
        factor = weights.V @ weights.V.T
        A = moments.full(factor)
        np.einsum("juju->ju", A.reshape(h, p, h, p))[:, :-1] += ridge
        for j in range(h):
            here = slice(j * p, (j + 1) * p)
            A[here, here] += _positive_part(kinks[j])
        self._diagonal = np.diagonal(A).copy()
        white = self._output.whiten(self._E.T)
        eliminated = (white.T @ white).reshape(h, p, h, p)
        eliminated *= factor[:, None, :, None]
        A -= eliminated.reshape(h * p, h * p)
        self._A = A

    def step(self, gradient: LossGradient, damping: float) -> LayerStep:
        """Solve for the step from where the sum of squares has this gradient.

        Parameters
        ----------
        gradient : LossGradient
            Of the sum of squares, in the neurons of this system.
        damping : float
        """
        h, p = self._shape
        W, V = self._weights.W, self._weights.V
        in_W = (gradient.W / 2).T.copy()
        in_W[:, :-1] += self._ridge * W[:-1].T
        in_output = np.vstack([gradient.V / 2 + self._ridge * V, gradient.c / 2])
        moved = self._output.solve(in_output)  # (h + 1, q), the change of the output layer alone
        right = in_W - np.einsum("juk,kt,jt->ju", self._E.reshape(h, p, h + 1), moved, V)
        damped = self._A.copy()
        np.einsum("ii->i", damped)[:] += damping * self._diagonal
        change = -Factor(damped).solve(right.ravel())
        by_neuron = change.reshape(h, p)
        through = np.einsum("juk,ju,jt->kt", self._E.reshape(h, p, h + 1), by_neuron, V)
        output = -moved - self._output.solve(through)
        slope = 2 * (np.vdot(in_W, by_neuron) + np.vdot(in_output, output))
        # At the minimiser of the damped model the decrease is half the slope plus the damping's.
        extra = damping * float(change @ (self._diagonal * change))
        return LayerStep(by_neuron.T.copy(), output, float(-slope / 2 + extra))


def _positive_part(block: Floats) -> Floats:
    if not block.any():
        return block
    values, vectors = np.linalg.eigh(block)
    positive: Floats = (vectors * np.maximum(values, 0)) @ vectors.T
    return positive
