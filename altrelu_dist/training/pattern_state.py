"""The moments of the current activation pattern, brought up to date as the pattern changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from altrelu_dist.moments.pattern import (
    WIDE,
    PatternChange,
    PatternDelta,
    PatternGram,
    PatternMoments,
)
from altrelu_dist.moments.rows import Block, Floats, Together
from altrelu_dist.training.objective import Objective

__all__ = ["PatternState"]

T = TypeVar("T", bound=Any)

_Found = PatternGram | PatternChange

_REBUILD_AFTER = 8  # updates, so that rounding does not build up
_MANY_FLIPS = 0.04  # of all signs: above it a rebuild costs no more than an update
_MOST_KEPT = 2**27  # bytes of moments in a checkpoint; larger ones are made again


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

    @property
    def rebuilt(self) -> bool:
        """Whether the moments it has are not those of an earlier pattern and what changed."""
        return self._updates == 0

    @property
    def rebuilds(self) -> bool:
        """Whether the next moments will be such, whatever the pattern."""
        return self._moments is None or self._worn

    def state(self) -> dict[str, Any] | None:
        """The moments it has, for a checkpoint; None if it has none, or ones too large for that."""
        if self._moments is None or self._moments.M.nbytes > _MOST_KEPT:
            return None
        kept = {"W": self._W, "M": self._moments.M, "N": self._moments.N}
        return kept | {"updates": self._updates, "calm": self._calm}

    def restore(self, state: Mapping[str, Any] | None) -> PatternGram | None:
        """Have the moments of a state, where there is one, and give them."""
        if state is None:
            return None
        self._W, self._moments = state["W"], PatternGram(state["M"], state["N"])
        self._updates, self._calm = state["updates"], state["calm"]
        return self._moments

    @property
    def _worn(self) -> bool:
        wide = self._W is not None and self._W.shape[0] > WIDE
        return not self._calm or self._updates >= _REBUILD_AFTER or wide

    def at(self, W: Floats) -> PatternGram:
        """M and N under the pattern of a hidden layer; one pass."""
        statistic, name = self._statistic(W)
        return self._updated(W, self._objective.reduce(statistic, name))

    def at_with(self, W: Floats, other: Callable[[Block], T]) -> tuple[PatternGram, T]:
        """The same, and in the same pass another statistic."""
        statistic, name = self._statistic(W)
        both = self._objective.reduce(Together(statistic, other), name)
        return self._updated(W, both.first), both.second

    def _statistic(self, W: Floats) -> tuple[Callable[[Block], _Found], str]:
        slope = self._objective.slope
        if self._W is None or self.rebuilds:
            return PatternMoments(W, slope), "pattern-gram"
        return PatternDelta(self._W, W, slope), "pattern-delta"

    def _updated(self, W: Floats, found: _Found) -> PatternGram:
        if isinstance(found, PatternGram):
            # How far a pattern moves is only known by moving it: the next one is an update.
            self._moments, self._calm, self._updates = found, True, 0
        else:
            assert self._moments is not None
            self._moments = found.applied_to(self._moments)
            signs = self._objective.engine.n_rows * W.shape[1]
            self._calm = found.flips <= _MANY_FLIPS * signs
            self._updates += 1
        self._W = W
        return self._moments
