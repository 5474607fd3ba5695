"""Critical point of the output layer: ridge regression on the hidden features."""

from __future__ import annotations

import numpy as np

from altrelu_dist.moments.loss import HiddenGram
from altrelu_dist.moments.rows import Floats
from altrelu_dist.solvers.linalg import Factor

__all__ = ["output_squares", "removal_costs", "solve_output"]


def solve_output(moments: HiddenGram, ridge: float) -> Floats:
    """Output weights, with the output bias as the last row, where the gradient in them is zero.

    Minimises ``sum_i |y_i - V' h_i - c|^2 + ridge |V|^2``; the bias is not penalised.

    Parameters
    ----------
    moments : HiddenGram
    ridge : float
        Already times the number of rows.

    Returns
    -------
    ndarray of shape (h + 1, q)
    """
    return Factor(_ridged(moments.gram, ridge)).solve(moments.cross)


def output_squares(moments: HiddenGram, output: Floats) -> float:
    """Sum of squares of an output layer, (h + 1, q), on those hidden features."""
    fitted = np.einsum("jt,jk,kt->", output, moments.gram, output)
    crossed = np.einsum("jt,jt->", output, moments.cross)
    return max(0.0, float(moments.squares.sum() - 2 * crossed + fitted))


def removal_costs(moments: HiddenGram, output: Floats, ridge: float) -> Floats:
    """What the sum of squares rises by when a neuron goes and the others are refitted, (h,).

    For neuron j with output weights ``v_j`` it is ``|v_j|^2 / (C^-1)_jj``, C the Gram matrix.
    """
    n = moments.gram.shape[0]
    inverse = np.diagonal(Factor(_ridged(moments.gram, ridge)).solve(np.eye(n)))[:-1]
    power = np.einsum("jt,jt->j", output[:-1], output[:-1])
    costs: Floats = np.divide(power, inverse, out=np.zeros_like(power), where=inverse > 0)
    return costs


def _ridged(gram: Floats, ridge: float) -> Floats:
    if ridge == 0:
        return gram
    out = gram.copy()
    np.einsum("jj->j", out)[:-1] += ridge
    return out
