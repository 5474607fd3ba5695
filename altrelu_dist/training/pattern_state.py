"""The moments of the current activation pattern, brought up to date as the pattern changes."""

from __future__ import annotations

from altrelu_dist.moments.pattern import WIDE, PatternDelta, PatternGram, PatternMoments
from altrelu_dist.moments.rows import Floats
from altrelu_dist.training.objective import Objective

__all__ = ["PatternState"]

_REBUILD_AFTER = 8  # updates, so that rounding does not build up
_MANY_FLIPS = 0.04  # of all signs: above it a rebuild costs no more than an update


class PatternState:
    """Keeps M and N of the last hidden layer it was asked for.

    Where few signs flipped since then it adds their change, else it rebuilds.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._W: Floats | None = None
        self._moments: PatternGram | None = None
        self._updates = 0
        self._calm = False

    def at(self, W: Floats) -> PatternGram:
        """M and N under the pattern of a hidden layer; one pass."""
        objective = self._objective
        worn = not self._calm or self._updates >= _REBUILD_AFTER or W.shape[0] > WIDE
        if self._moments is None or self._W is None or worn:
            self._moments = objective.reduce(PatternMoments(W, objective.slope), "pattern-gram")
            # How far a pattern moves is only known by moving it: the next one is an update.
            self._calm, self._updates = True, 0
        else:
            change = objective.reduce(PatternDelta(self._W, W, objective.slope), "pattern-delta")
            self._moments = change.applied_to(self._moments)
            self._calm = change.flips <= _MANY_FLIPS * objective.engine.n_rows * W.shape[1]
            self._updates += 1
        self._W = W
        return self._moments
