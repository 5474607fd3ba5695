"""Critical point of the output layer: ridge regression on the hidden features."""

from __future__ import annotations

import numpy as np

from altrelu_dist.moments.loss import HiddenGram
from altrelu_dist.moments.rows import Floats
from altrelu_dist.solvers.linalg import Factor

__all__ = ["Removal", "output_squares", "solve_output"]

_DIGITS_LOST = 1e-10  # of the inverse: with half of the digits that are left costs are compared


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


def _ridged(gram: Floats, ridge: float) -> Floats:
    if ridge == 0:
        return gram
    out = gram.copy()
    np.einsum("jj->j", out)[:-1] += ridge
    return out


class Removal:
    """The output layer as neurons are dropped one by one and the others refitted.

    With C the Gram matrix and ``v_j`` the output weights, dropping neuron j raises the objective by
    ``|v_j|^2 / (C^-1)_jj``, and eliminates it from the inverse, a Cholesky factor with pivoting of
    which is kept: ``O(h)`` a neuron and neuron dropped before. Where that would lose the digits of
    a neuron, since it was nearly a copy of one that went, what is left of C is factorised anew.

    Parameters
    ----------
    moments : HiddenGram
    ridge : float
        Already times the number of rows.
    """

    def __init__(self, moments: HiddenGram, ridge: float) -> None:
        self._gram = _ridged(moments.gram, ridge)
        self._cross = moments.cross
        self.neurons = np.arange(moments.gram.shape[0] - 1)  # those that are left
        self._factorise()

    def _factorise(self) -> None:
        some = np.append(self.neurons, self._gram.shape[0] - 1)
        factor = Factor(self._gram[np.ix_(some, some)])
        self._inverse = factor.inverse()
        self._output = factor.solve(self._cross[some])
        self._places = np.arange(self.neurons.size)  # in these matrices, of those that are left
        self._diagonal = np.diagonal(self._inverse).copy()
        self._at_first = self._diagonal.copy()
        self._columns = np.empty(self._inverse.shape, order="F")
        self._done = 0

    @property
    def output(self) -> Floats:
        """Output weights of the neurons that are left and the bias, (h + 1, q)."""
        some = np.append(self.neurons, self._gram.shape[0] - 1)
        return Factor(self._gram[np.ix_(some, some)]).solve(self._cross[some])

    def costs(self) -> Floats:
        """What the objective rises by when each of the neurons that are left goes, (h,)."""
        output, inverse = self._output[self._places], self._diagonal[self._places]
        power = np.einsum("jt,jt->j", output, output)
        costs: Floats = np.divide(power, inverse, out=np.zeros_like(power), where=inverse > 0)
        return costs

    def drop(self, which: int) -> None:
        """Drop one of those that are left."""
        at = int(self._places[which])
        self.neurons = np.delete(self.neurons, which)
        self._places = np.delete(self._places, which)
        if not self._diagonal[at] > 0:
            return  # it was dead, and is no part of the others' output
        before = self._columns[:, : self._done]
        column = self._inverse[:, at] - before @ before[at]
        self._output -= np.outer(column, self._output[at] / column[at])
        column /= np.sqrt(column[at])
        self._columns[:, self._done] = column
        self._done += 1
        self._diagonal -= column**2
        here = self._places
        if (self._diagonal[here] < _DIGITS_LOST * self._at_first[here]).any():
            self._factorise()
