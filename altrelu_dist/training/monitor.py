"""The parts that accompany a run: clock, counts, history, best network, validation, journal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.memory import PeakMemory, measure
from altrelu_dist.training.best import Best, better
from altrelu_dist.training.clock import Clock
from altrelu_dist.training.counts import Counts
from altrelu_dist.training.history import History
from altrelu_dist.training.progress import Callback, Progress
from altrelu_dist.training.stopping import Stopping

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.moments.rows import Scaler, Weights
    from altrelu_dist.training.validation import Validation

__all__ = ["Monitor"]


class Monitor:
    """The parts of one run, and what several of them do together.

    Attributes ``journal``, ``stopping``, ``clock``, ``counts``, ``history``, ``best`` and, once the
    rows are known, ``validation`` and ``scaler``.

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
        self.stopping = Stopping()
        self.clock = Clock(self.stopping, self.journal, max_time, begun)
        self.counts = Counts()
        self.history = History()
        self.best: Best | None = None
        self.memory = PeakMemory()
        self.validation: Validation | None = None
        self.scaler: Scaler | None = None
        self._callback = callback
        self._client = client
        self.journal.stops_with(lambda: self.stopped and self.stopping.reason != "early_stopping")
        self.journal.attach("counts", self)
        self.journal.attach("history", self.history, with_steps=False)

    @property
    def stopped(self) -> bool:
        """Whether the run has to end here."""
        return self.clock.stopped

    def interrupt(self) -> None:
        """Ask for an end, from anywhere, a signal handler too."""
        self.stopping.request("interrupted")

    def begin_stage(self, stage: str) -> None:
        """Begin a stage."""
        if stage != self.counts.stage and not self.journal.replaying:
            self.memory = measure(self._client, self.memory)
        self.counts.stage = stage
        self.counts.sample_loss = math.nan
        self.notify()

    def notify(self) -> None:
        """Tell the callback how far the run is."""
        if self._callback is None or self.journal.replaying:
            return
        if self._callback(self._now()):
            self.interrupt()

    def validate(self, weights: Weights, *, whole: bool) -> None:
        """Validate a network on the way, before the iteration it ends is recorded.

        ``whole`` says that it ends one and was trained on all the training rows: only those count
        towards an end of the run because the validation loss no longer falls.
        """
        if self.validation is None:
            return
        self.validation.validate(weights, self.counts.rows, whole=whole)
        self.counts.validation_loss = self.validation.best.loss * self.counts.unit
        if self.validation.stagnates:
            self.stopping.request("early_stopping")

    def update_best(self, weights: Weights, n_rows: int, loss: float) -> None:
        """Keep a network if it is the best so far: over more rows, or better over as many."""
        self.best = better(self.best, weights, loss, n_rows)

    def best_weights(self) -> Weights | None:
        """The network that the run would end with now, from any thread; None if there is none."""
        if self.validation is not None:
            return self.validation.best.weights
        return None if self.best is None else self.best.weights

    def record(
        self, *, loss: float = math.nan, sample_loss: float = math.nan, **details: Any
    ) -> None:
        """Record an iteration; losses in standardised units.

        ``loss`` is that of a network over all rows: the least so far is what is recorded, because
        that network is the one that is kept.
        """
        if not math.isnan(loss):
            self.counts.update_loss(loss)
        self.counts.sample_loss = sample_loss * self.counts.unit
        entry = asdict(self._now())
        entry["iteration"] = len(self.history) + 1
        entry["peak_memory"] = measure(None, self.memory).total
        self.history.append(entry | details)
        self.notify()

    def end(self) -> None:
        """Measure once more what the run held."""
        self.memory = measure(self._client, self.memory)
        self.history[-1]["peak_memory"] = self.memory.total

    def state(self) -> dict[str, Any]:
        """What was counted so far, for a checkpoint."""
        # Only what the data decided: the clock and the user do not end a run that goes on.
        ended = self.stopping.reason == "early_stopping"
        return self.counts.state() | {"seconds": self.clock.seconds, "ended": ended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what was counted; the clock goes on too."""
        self.counts.restore(state)
        self.clock.restore(state["seconds"])
        if state["ended"]:
            self.stopping.request("early_stopping")

    def _now(self) -> Progress:
        counts = self.counts
        return Progress(
            stage=counts.stage,
            iteration=len(self.history),
            loss=counts.loss,
            sample_loss=counts.sample_loss,
            passes=counts.passes,
            rows=counts.rows,
            seconds=self.clock.seconds,
            fraction=counts.fraction,
            validation_loss=counts.validation_loss,
        )
