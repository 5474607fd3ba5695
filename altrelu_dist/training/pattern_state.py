"""The moments of the current activation pattern, brought up to date as the pattern changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

__all__ = ["MANY_FLIPS", "REBUILD_AFTER", "PatternState"]

T = TypeVar("T", bound=Any)

_Found = PatternGram | PatternChange

REBUILD_AFTER = 8  # updates, so that rounding does not build up
MANY_FLIPS = 0.04  # of all signs: above it a rebuild costs no more than an update
_MOST_KEPT = 2**27  # bytes of moments in a checkpoint; larger ones are made again


@dataclass(frozen=True)
class PatternState:
    """M and N under the pattern of a hidden layer; `at` and `at_with` give those of another one.

    Where few signs flipped since then they add the change, else they rebuild.

    Parameters
    ----------
    W : ndarray of shape (p, h)
    moments : PatternGram
    updates : int
        Since the moments were rebuilt.
    calm : bool
        Whether few signs flipped at the last update.
    """

    W: Floats
    moments: PatternGram
    updates: int = 0
    calm: bool = True

    @staticmethod
    def at(W: Floats, objective: Objective, before: PatternState | None = None) -> PatternState:
        """M and N under the pattern of a hidden layer; one pass."""
        statistic, name = _statistic(W, objective, before)
        return _updated(W, objective, before, objective.reduce(statistic, name))

    @staticmethod
    def at_with(
        W: Floats,
        objective: Objective,
        other: Callable[[Block], T],
        before: PatternState | None = None,
    ) -> tuple[PatternState, T]:
        """The same, and in the same pass another statistic."""
        statistic, name = _statistic(W, objective, before)
        both = objective.reduce(Together(statistic, other), name)
        return _updated(W, objective, before, both.first), both.second

    @property
    def rebuilt(self) -> bool:
        """Whether the moments are not those of an earlier pattern and what changed."""
        return self.updates == 0

    @property
    def worn(self) -> bool:
        """Whether the next moments are rebuilt, whatever their pattern."""
        return not self.calm or self.updates >= REBUILD_AFTER or self.W.shape[0] > WIDE

    def saved(self) -> dict[str, Any] | None:
        """What a checkpoint holds of it; None if the moments are too large for one."""
        if self.moments.M.nbytes > _MOST_KEPT:
            return None
        kept = {"W": self.W, "M": self.moments.M, "N": self.moments.N}
        return kept | {"updates": self.updates, "calm": self.calm}

    @staticmethod
    def restored(saved: Mapping[str, Any] | None) -> PatternState | None:
        """That of a checkpoint, where it holds one."""
        if saved is None:
            return None
        moments = PatternGram(saved["M"], saved["N"])
        return PatternState(saved["W"], moments, saved["updates"], saved["calm"])


def _statistic(
    W: Floats, objective: Objective, before: PatternState | None
) -> tuple[Callable[[Block], _Found], str]:
    if before is None or before.worn:
        return PatternMoments(W, objective.slope), "pattern-gram"
    return PatternDelta(before.W, W, objective.slope), "pattern-delta"


def _updated(
    W: Floats, objective: Objective, before: PatternState | None, found: _Found
) -> PatternState:
    if isinstance(found, PatternGram):
        # How far a pattern moves is only known by moving it: the next one is an update.
        return PatternState(W, found)
    assert before is not None
    signs = objective.engine.n_rows * W.shape[1]
    calm = bool(found.flips <= MANY_FLIPS * signs)
    return PatternState(W, found.applied_to(before.moments), before.updates + 1, calm)
