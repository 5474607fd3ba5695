"""What a run tells while it goes on, what it keeps, and what makes it stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import isfunction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.engine import OutOfTimeError
from altrelu_dist.memory import PeakMemory, measure
from altrelu_dist.moments.rows import Block, Rows

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.moments.rows import Scaler, Weights
    from altrelu_dist.training.validation import Validation

__all__ = ["Callback", "Monitor", "OutOfTimeError", "Outcome", "Progress", "last_doubling"]

T = TypeVar("T")

_TRIED = 8  # of the first tile such a part is timed, to know how long the tile will take
_COUNTS = ("stage", "passes", "rows", "fraction", "loss", "sample_loss", "validation_loss")


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Parameters
    ----------
    stage : str
        ``"summary"``, ``"sample"``, ``"warm"``, ``"grow"``, ``"cycle"``, ``"settle"``,
        ``"rounds"``, ``"layers"`` or ``"alternating"``.
    iteration : int
        Recorded iterations so far.
    loss : float
        Least objective over all rows so far, in squared units of the targets; NaN until known.
    sample_loss : float
        The same over the sample that is being searched; NaN in other stages.
    passes : int
        Passes over all rows so far.
    rows : int
        Rows visited so far, those of the sample included each time.
    seconds : float
        Time since the start.
    fraction : float
        Share of the expected work that is done, from 0 to 1; NaN if unknown.
    validation_loss : float
        Least mean square over the held-out rows so far, in squared units of the targets; NaN
        without early stopping.
    """

    stage: str
    iteration: int
    loss: float
    sample_loss: float
    passes: int
    rows: int
    seconds: float
    fraction: float
    validation_loss: float = math.nan


Callback = Callable[[Progress], "bool | None"]


class Outcome(NamedTuple):
    """What a method ends with."""

    weights: Weights
    loss: float  # objective over the rows of the last level
    ran_out: bool  # of the iterations that it was given


class Best(NamedTuple):
    """A network on the way: what there is to end with, were the run to end now."""

    weights: Weights
    n_rows: int
    loss: float  # objective over so many rows


class Monitor:
    """Counts, records and decides about stopping; one for a run.

    Parameters
    ----------
    callback : callable, optional
        Gets a `Progress` often; a true return stops the run at the end of the current step.
    max_time : float, optional
        Seconds after which the run stops at the end of the current step.
    journal : Journal, optional
        Of the steps of the run: what they ended in, where it goes on with one that was cut off.
    client : distributed.Client, optional
        Of the cluster that takes part: its processes' memory is measured at each stage.
    begun : float, optional
        When the run began, by `time.perf_counter`; by default now.
    """

    def __init__(
        self,
        callback: Callback | None = None,
        max_time: float | None = None,
        journal: Journal | None = None,
        client: Client | None = None,
        begun: float | None = None,
    ) -> None:
        self.journal = Journal() if journal is None else journal
        self.journal.stops_with(lambda: self.stopped and self.reason != "early_stopping")
        self.journal.attach("counts", self)
        self.journal.attach("history", _History(self), with_steps=False)
        self._client = client
        self.memory = PeakMemory()
        self._start = time.perf_counter() if begun is None else begun
        self._tile_seconds: dict[Any, float] = {}  # by statistic: what its last tile took
        self._callback = callback
        self._max_time = math.inf if max_time is None else max_time
        self.history: list[dict[str, Any]] = []
        self.reason: str | None = None
        self.stage = "summary"
        self.passes = 0
        self.rows = 0
        self._fraction = math.nan
        self.unit = 1.0  # of the loss, in squared units of the targets
        self.loss = math.nan
        self.sample_loss = math.nan
        self.validation_loss = math.nan
        self.validation: Validation | None = None
        self.best: Best | None = None
        self.scaler: Scaler | None = None
        self.pass_seconds = 0.0  # of the first pass over all rows
        self.reserve = 0.0  # seconds that the last passes of a run will take

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    @property
    def fraction(self) -> float:
        """Share of the expected work that is done; it never falls."""
        return self._fraction

    @fraction.setter
    def fraction(self, share: float) -> None:
        self._fraction = share if math.isnan(self._fraction) else max(self._fraction, share)

    @property
    def stopped(self) -> bool:
        """Whether the run has to end here."""
        return self.ends_within(0.0)

    def ends_within(self, seconds: float) -> bool:
        """Whether the run has to end before so many seconds pass: then it ends here.

        Asked before what takes that long and cannot be cut short.
        """
        if self.journal.replaying:  # what is known is given at once
            return False
        # At most half of the time is kept back: a network that was trained a little is better
        # than one that was not, in too much time either way.
        kept = min(self.reserve, self._max_time / 2)
        late = self.seconds + seconds + kept >= self._max_time
        if self.reason is None and late:
            self.reason = "max_time"
        return self.reason is not None

    @property
    def seconds_left(self) -> float:
        """Time until the last passes of the run have to begin; inf without a limit."""
        return max(0.0, self._max_time - min(self.reserve, self._max_time / 2) - self.seconds)

    def interrupt(self) -> None:
        """Ask for an end, from anywhere, a signal handler too."""
        self.reason = self.reason or "interrupted"

    def in_time(self, statistic: Callable[[Any], T]) -> Callable[[Any], T]:
        """The same statistic of a tile, but where the run has to end an `OutOfTimeError`.

        It has to where another tile would take too long, as the last one took. How long the first
        one will take is known from a part of it.
        """
        kind = statistic if isfunction(statistic) else type(statistic)

        def timed(block: Any) -> T:
            if kind not in self._tile_seconds and self.limited and isinstance(block, Rows | Block):
                part = _first_rows(block)
                self.give_up_before(lambda: statistic(part), _TRIED)
            if self.ends_within(self._tile_seconds.get(kind, 0.0)):
                raise OutOfTimeError
            begun = self.seconds
            contribution = statistic(block)
            self._tile_seconds[kind] = self.seconds - begun
            return contribution

        return timed

    @property
    def limited(self) -> bool:
        """Whether there is a time at which the run has to end."""
        return math.isfinite(self._max_time)

    def give_up_before(self, part: Callable[[], object], times: float) -> None:
        """Raise an `OutOfTimeError` where there is no time left for ``times`` as much as a part.

        The part is made to be timed, where there is a limit at all.
        """
        begun = self.seconds
        if self.limited and not self.journal.replaying:
            part()
        if self.ends_within(times * (self.seconds - begun)):
            raise OutOfTimeError

    @property
    def has_network(self) -> bool:
        """Whether an iteration has ended, beside the one that notes the loss of the mean."""
        return len(self.history) > 1

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        if stage != self.stage and not self.journal.replaying:
            self.memory = measure(self._client, self.memory)
        self.stage = stage
        self.sample_loss = math.nan
        self.tick()

    def visited(self, rows: int, *, whole: bool) -> None:
        """Count a pass over a sample, or over the whole data."""
        self.rows += rows
        self.passes += whole

    def tick(self) -> None:
        """Tell how far it is."""
        if self._callback is None or self.journal.replaying:
            return
        if self._callback(self._now()) and self.reason is None:
            self.reason = "interrupted"

    def saw(self, weights: Weights, *, whole: bool) -> None:
        """Take note of a network on the way, before the iteration it ends is recorded.

        ``whole`` says that it ends one and was trained on all the training rows: only those count
        towards an end of the run because the validation loss no longer falls.
        """
        if self.validation is None:
            return
        self.validation.saw(weights, self.rows, whole=whole)
        self.validation_loss = self.validation.least * self.unit
        if self.validation.stagnates and self.reason is None:
            self.reason = "early_stopping"

    def holds(self, weights: Weights, n_rows: int, loss: float) -> None:
        """Take note of a network and its loss over some of the rows: the more rows, the better."""
        best = self.best
        if not math.isfinite(loss):
            return
        if best is None or (n_rows, -loss) > (best.n_rows, -best.loss):
            self.best = Best(weights, n_rows, loss)

    def so_far(self) -> Weights | None:
        """The network that the run would end with now, from any thread; None if there is none."""
        if self.validation is not None:
            return self.validation.best
        return None if self.best is None else self.best.weights

    def met(self, loss: float) -> None:
        """Take note of the loss over all rows, in standardised units, of a network to end with."""
        loss *= self.unit
        self.loss = loss if math.isnan(self.loss) else min(self.loss, loss)

    def record(
        self, *, loss: float = math.nan, sample_loss: float = math.nan, **details: Any
    ) -> None:
        """Note an iteration; losses in standardised units.

        ``loss`` is that of a network over all rows: the least so far is what is noted, because
        that network is the one that is kept.
        """
        if not math.isnan(loss):
            self.met(loss)
        self.sample_loss = sample_loss * self.unit
        entry = asdict(self._now())
        entry["iteration"] = len(self.history) + 1
        entry["peak_memory"] = measure(None, self.memory).total
        self.history.append(entry | details)
        self.tick()

    def end(self) -> None:
        """Measure once more what the run held."""
        self.memory = measure(self._client, self.memory)
        self.history[-1]["peak_memory"] = self.memory.total

    def state(self) -> dict[str, Any]:
        """What was counted so far."""
        ended = self.reason == "early_stopping"  # by what was found, not by the clock or the user
        counts = {name: getattr(self, name) for name in _COUNTS}
        return counts | {"seconds": self.seconds, "ended": ended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what was counted; the clock goes on too."""
        for name in _COUNTS:
            setattr(self, name, state[name])
        self._start = time.perf_counter() - state["seconds"]
        if state["ended"] and self.reason is None:
            self.reason = "early_stopping"

    def _now(self) -> Progress:
        return Progress(
            stage=self.stage,
            iteration=len(self.history),
            loss=self.loss,
            sample_loss=self.sample_loss,
            passes=self.passes,
            rows=self.rows,
            seconds=self.seconds,
            fraction=self.fraction,
            validation_loss=self.validation_loss,
        )


def _first_rows(block: Rows | Block) -> Rows | Block:
    rows = -(-len(block.y) // _TRIED)
    if isinstance(block, Rows):
        return block.part(block.start, block.start + rows)
    return Block(block.x[:rows], block.y[:rows])


class _History:
    """The history of a run, as what is kept of it."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def state(self) -> list[dict[str, Any]]:
        return list(self._monitor.history)

    def restore(self, state: list[dict[str, Any]]) -> None:
        self._monitor.history[:] = state


def last_doubling(history: Sequence[Mapping[str, Any]]) -> float:
    """Share of the loss that the second half of a run's time took off it; NaN if unknown.

    Losses over the same rows are compared, and what they fell by is multiplied up. Where the run
    went on over more rows the comparison starts anew: what the same network has there is no gain.
    Unknown is the share where half way the network was still growing over ever more rows.

    Parameters
    ----------
    history : sequence of dict
        As a run records it.
    """
    if not history:
        return math.nan
    half = history[-1]["seconds"] / 2
    left = 1.0
    for before, entry in pairwise(history):
        if entry["seconds"] <= half:
            continue
        if "loss_rows" not in before:  # no network yet
            return math.nan
        if before["loss_rows"] == entry["loss_rows"]:
            was, now = _compared(before), _compared(entry)
            left *= min(1.0, now / was) if was > 0 else 1.0
        elif entry["stage"] == "grow":
            return math.nan
    return 1.0 - left if len(history) > 1 else math.nan


def _compared(entry: Mapping[str, Any]) -> float:
    """The loss over the rows that the iteration worked on."""
    sample: float = entry["sample_loss"]
    return float(entry["loss"]) if math.isnan(sample) else sample
