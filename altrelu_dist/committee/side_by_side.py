"""Descents that go on side by side: in threads of this process, or on the workers of a cluster.

Each descent is a computation by itself, so where it is made, and how often it is looked at, changes
no bit of what it leads to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from altrelu_dist.committee.members import Group, GroupDescent, GroupState
from altrelu_dist.errors import CheckpointError
from altrelu_dist.threads import n_threads, one_blas_thread
from altrelu_dist.training.driver import Report

__all__ = ["Here", "Place", "SideBySide", "SideState", "advanced", "released"]

_SLICE = 0.4  # seconds between two looks at the clock and the checkpoint


class Place(Protocol):
    """Where descents are made."""

    def advance(
        self, descents: Sequence[GroupDescent], states: Sequence[GroupState]
    ) -> list[GroupState]:
        """Let each of some descents go on for a while, by one step at least."""

    def release(self) -> None:
        """Let the rows go."""


@contextmanager
def released(place: Place) -> Iterator[None]:
    """Let a place's rows go at the end."""
    try:
        yield
    finally:
        place.release()


class Here:
    """In this process, on as many threads as it may use."""

    def advance(
        self, descents: Sequence[GroupDescent], states: Sequence[GroupState]
    ) -> list[GroupState]:
        """Let each of some descents go on for a while, by one step at least."""
        threads = min(n_threads(), len(descents))
        each = [_SLICE * threads / len(descents)] * len(descents)
        if threads == 1:
            return list(map(advanced, descents, states, each))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(advanced, descents, states, each))

    def release(self) -> None:
        """There is nothing to let go."""


def advanced(descent: GroupDescent, state: GroupState, seconds: float) -> GroupState:
    """The state after some seconds, or at the end; one BLAS thread takes the steps."""
    end = time.perf_counter() + seconds
    # Members may diverge: that is seen later.
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        while not descent.done(state):
            state = descent.step(state)
            if time.perf_counter() >= end:
                break
    return state


class SideState(NamedTuple):
    """Where each descent is."""

    states: tuple[GroupState, ...]
    taken: int  # slices of time
    turns: int = 0  # of kinds over all tiles that the last slice ended


@dataclass(frozen=True)
class SideBySide:
    """Some descents, each for a slice of time, until all are done.

    Parameters
    ----------
    descents : sequence of GroupDescent
    place : Place
    """

    descents: Sequence[GroupDescent]
    place: Place

    def init(self, groups: Sequence[Group]) -> SideState:
        """Begin each at some weights."""
        begun = [each.init(group) for each, group in zip(self.descents, groups, strict=True)]
        return SideState(tuple(begun), 0)

    def done(self, state: SideState) -> bool:
        """Whether all are."""
        return not self._going(state)

    def step(self, state: SideState) -> SideState:
        """Let all that are not done go on."""
        going, states = self._going(state), list(state.states)
        moved = self.place.advance([self.descents[k] for k in going], [states[k] for k in going])
        turns = 0
        for k, after in zip(going, moved, strict=True):
            if self.descents[k].first == 0:  # the others of its kind turn with it
                tiles = len(self.descents[k].tiles.starts) - 1
                turns += after.taken // tiles - states[k].taken // tiles
            states[k] = after
        return SideState(tuple(states), state.taken + 1, turns)

    def report(self, state: SideState) -> Report:
        """The rows of the turns over all tiles; the callback hears of each slice."""
        rows = state.turns * self.descents[0].tiles.starts[-1]
        return Report(rows=rows, passes=state.turns, tell=state.taken > 0)

    def save(self, state: SideState) -> dict[str, Any]:
        """What a checkpoint holds of a state."""
        states = zip(self.descents, state.states, strict=True)
        return {"states": [descent.save(each) for descent, each in states], "taken": state.taken}

    def restore(self, saved: Mapping[str, Any]) -> SideState:
        """The state of a checkpoint."""
        if len(saved["states"]) != len(self.descents):
            raise CheckpointError(
                f"the checkpoint has {len(saved['states'])} groups of members in a round of "
                f"{len(self.descents)} now: an older version wrote it; begin anew"
            )
        states = zip(self.descents, saved["states"], strict=True)
        return SideState(tuple(each.restore(one) for each, one in states), saved["taken"])

    def _going(self, state: SideState) -> list[int]:
        states = zip(self.descents, state.states, strict=True)
        return [k for k, (descent, each) in enumerate(states) if not descent.done(each)]
