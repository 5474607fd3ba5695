"""The time that a run has: what it took, what is left, and what there is no time to begin."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from typing import TYPE_CHECKING, Any, TypeVar

from altrelu_dist.engine import OutOfTimeError
from altrelu_dist.moments.rows import Block, Rows

if TYPE_CHECKING:
    from altrelu_dist.checkpoints.journal import Journal
    from altrelu_dist.training.stopping import Stopping

__all__ = ["Clock"]

T = TypeVar("T")

_ASIDE = 0.1  # of the time allowed, at most, for a last pass over all rows
_TRIED = 8  # of the first tile such a part is timed, to know how long the tile will take


class Clock:
    """Time of one run; it ends the run when the limit is reached.

    Parameters
    ----------
    stopping : Stopping
        Gets the reason ``"max_time"``, and may hold another one.
    journal : Journal
        While it replays known steps no time is short.
    max_time : float, optional
        Seconds after which the run stops at the end of the current step.
    begun : float, optional
        When the run began, by `time.perf_counter`; by default now.
    """

    def __init__(
        self,
        stopping: Stopping,
        journal: Journal,
        max_time: float | None = None,
        begun: float | None = None,
    ) -> None:
        self._stopping = stopping
        self._journal = journal
        self._max_time = math.inf if max_time is None else max_time
        self._tile_seconds: dict[Any, float] = {}  # by statistic: what its last tile took
        self.begun = time.perf_counter() if begun is None else begun
        self.first_pass_seconds = 0.0
        self.final_pass_seconds = 0.0  # that the last passes of the run will take
        self.final_pass_fits = True  # False: it would take too great a part of the time
        self.closing_seconds = 0.0  # that the run takes after them
        self.blocking_seconds = 0.0  # that the last computation took which nothing can cut short

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.begun

    def restore(self, seconds: float) -> None:
        """Go on where a run was cut off after so many seconds."""
        self.begun = time.perf_counter() - seconds

    @property
    def limited(self) -> bool:
        """Whether there is a time at which the run has to end."""
        return math.isfinite(self._max_time)

    @property
    def seconds_left(self) -> float:
        """Time until the last passes of the run have to begin; inf without a limit."""
        return max(0.0, self._max_time - self._kept - self.seconds)

    @property
    def _kept(self) -> float:
        """Time kept back for the end of the run, but at most half of all.

        A network that was trained a little is better than one that was not, in too much time
        either way.
        """
        return min(self.final_pass_seconds + self.closing_seconds, self._max_time / 2)

    def foresee_final_pass(self, seconds: float) -> None:
        """Keep back the time of a last pass over all rows, or do without one that is too long."""
        self.final_pass_fits = seconds <= _ASIDE * self._max_time
        self.final_pass_seconds = seconds if self.final_pass_fits else 0.0

    @property
    def seconds_to_the_end(self) -> float:
        """Time until the run has to have ended; inf without a limit."""
        return max(0.0, self._max_time - self.seconds)

    def keep_share(self, share: float) -> None:
        """Keep a share of the time allowed for what comes after the passes."""
        if self.limited:
            self.final_pass_seconds = share * self._max_time

    @property
    def stopped(self) -> bool:
        """Whether the run has to end here."""
        return self.ends_within(0.0)

    def ends_within(self, seconds: float) -> bool:
        """Whether the run has to end before so many seconds pass: then it ends here.

        Asked before what takes that long and cannot be cut short.
        """
        if self._journal.replaying:  # what is known is given at once
            return False
        if self.seconds + seconds + self._kept >= self._max_time:
            self._stopping.request("max_time")
        return self._stopping.reason is not None

    def require(self, seconds: float = 0.0) -> None:
        """Raise an `OutOfTimeError` if the run has to end before so many seconds pass."""
        if self.ends_within(seconds):
            raise OutOfTimeError

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """Time a computation that nothing can cut short.

        Raises
        ------
        OutOfTimeError
            Before it, if it would take too long, measured by the last one; after it, if the run has
            to end.
        """
        self.require(self.blocking_seconds)
        begun = self.seconds
        yield
        self.blocking_seconds = self.seconds - begun
        self.require()

    def in_time(self, statistic: Callable[[Any], T]) -> Callable[[Any], T]:
        """The same statistic of a tile, which raises an `OutOfTimeError` if the run has to end.

        It has to if another tile would take too long, measured by the last one. How long the
        first one will take is known from a part of it.
        """
        kind = statistic if isfunction(statistic) else type(statistic)

        def timed(block: Any) -> T:
            if kind not in self._tile_seconds and self.limited and isinstance(block, Rows | Block):
                part = _first_rows(block)
                self.give_up_before(lambda: statistic(part), _TRIED)
            self.require(self._tile_seconds.get(kind, 0.0))
            begun = self.seconds
            contribution = statistic(block)
            self._tile_seconds[kind] = self.seconds - begun
            return contribution

        return timed

    def paced(self, items: Iterable[T]) -> Iterator[T]:
        """Items to deal with one by one, as long as there is time for another one.

        Raises
        ------
        OutOfTimeError
            If there is none, measured by the last one.
        """
        took = 0.0
        for item in items:
            self.require(took)
            begun = self.seconds
            yield item
            took = self.seconds - begun

    def give_up_before(self, part: Callable[[], object], times: float) -> None:
        """Raise an `OutOfTimeError` if there is no time left for ``times`` as much as a part.

        The part is made to be timed, and only if the time is limited at all.
        """
        begun = self.seconds
        if self.limited and not self._journal.replaying:
            part()
        self.require(times * (self.seconds - begun))


def _first_rows(block: Rows | Block) -> Rows | Block:
    rows = -(-len(block.y) // _TRIED)
    if isinstance(block, Rows):
        return block.part(block.start, block.start + rows)
    return Block(block.x[:rows], block.y[:rows])
