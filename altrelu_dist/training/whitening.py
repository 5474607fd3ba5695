"""Coordinates of the hidden layer in which the inputs are uncorrelated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from altrelu_dist.moments.rows import Additive, Block, Floats
from altrelu_dist.training.objective import Objective

__all__ = ["Whitening"]

_TIMED = 1024  # columns of a part of it, from which the time to factor a larger matrix is known
_FLOOR = 1e-3  # of the mean variance: directions without variance are not blown up


@dataclass(frozen=True)
class _InputGram(Additive):
    gram: Floats  # (p, p)


def _input_moments(block: Block) -> _InputGram:
    return _InputGram((block.x.T @ block.x).astype(np.float64))


@dataclass(frozen=True)
class Whitening:
    """A linear map of each neuron's weights, ``U = R W`` with ``R' R`` the inputs' Gram matrix.

    A neuron's features ``x' w`` are ``(R^-T x)' u``: a descent in U sees uncorrelated inputs of
    equal variance, so its steps do not waste iterations on finding out how they are correlated.
    """

    into: Floats  # (p, p), R
    out: Floats  # (p, p), its inverse

    @classmethod
    def of(cls, objective: Objective) -> Self:
        """The map for the rows of an objective; one pass over them.

        Raises
        ------
        OutOfTimeError
            If the run has to end before it is there.
        """
        gram = replace(objective, interruptible=True).reduce(_input_moments, "input-gram").gram
        p = gram.shape[0]
        np.einsum("ii->i", gram)[:] += _FLOOR * np.trace(gram) / p
        gram /= objective.weight_sum
        if p > _TIMED:
            part = gram[:_TIMED, :_TIMED]
            objective.monitor.clock.give_up_before(lambda: _factor(part), (p / _TIMED) ** 3)
        return cls(*_factor(gram))


def _factor(gram: Floats) -> tuple[Floats, Floats]:
    into = cholesky(gram)
    return into, solve_triangular(into, np.eye(len(into)))
