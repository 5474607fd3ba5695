"""Running a method step by step: the driver saves, records, and stops when the run has to end.

A method is `init`, then `step` until `done`, over one state that never changes in place. That state
is what a checkpoint holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from altrelu_dist.engine import OutOfTimeError
from altrelu_dist.moments.rows import Weights
from altrelu_dist.training.monitor import Monitor

__all__ = ["Method", "Recorder", "Report", "record", "run"]

B = TypeVar("B", contravariant=True)
S = TypeVar("S", bound="HasSteps")


class HasSteps(Protocol):
    """A state that counts the steps that led to it."""

    @property
    def taken(self) -> int:
        """Steps so far."""


class Report(NamedTuple):
    """What there is to record of a step."""

    weights: Weights | None = None  # where it led to; None: nothing is recorded
    loss: float | None = None  # there; None if unknown: the network is validated, and no iteration
    fraction: float = math.nan  # of all steps that is done; NaN if unknown
    rows: int = 0  # that were visited without a pass of the engine
    passes: int = 1  # in which these were
    details: Mapping[str, Any] = {}  # of the iteration
    tell: bool = False  # whether the callback hears of it where no weights are recorded


class Recorder(Protocol):
    """What is told of the steps: an `Objective`, or what stands for one."""

    @property
    def monitor(self) -> Monitor:
        """Of the run."""

    @property
    def whole(self) -> bool:
        """Whether the rows are the whole data and not a sample of it."""

    def record(self, loss: float, weights: Weights, **details: Any) -> None:
        """Note an iteration."""


class Method(Protocol[B, S]):
    """A method of descent; its steps may raise an `OutOfTimeError`."""

    def init(self, begin: B) -> S:
        """The state to begin with."""

    def step(self, state: S) -> S:
        """The next state."""

    def done(self, state: S) -> bool:
        """Whether no step is left."""

    def report(self, state: S) -> Report:
        """What to record of the step that led to a state."""

    def save(self, state: S) -> Mapping[str, Any] | None:
        """What a checkpoint holds of a state; None if it is too large for one."""

    def restore(self, saved: Mapping[str, Any]) -> S:
        """The state of a checkpoint."""


def run(method: Method[B, S], begin: B, objective: Recorder, save_every: int = 1) -> S:
    """Run a method until it is done or the run has to end; the last state.

    Parameters
    ----------
    method : Method
    begin : object
        What the method begins with, if it does not go on from a checkpoint.
    objective : Recorder
        Its monitor says when to stop, and its journal holds the checkpoint.
    save_every : int
        Steps between two save points.
    """
    monitor = objective.monitor
    journal, clock = monitor.journal, monitor.clock
    clock.blocking_seconds = 0.0
    saved = journal.restore_point()
    if saved is None:
        state = method.init(begin)
        record(method.report(state), objective)
    else:
        state = method.restore(saved)
    while True:
        stopping = clock.ends_within(clock.blocking_seconds)
        if stopping or state.taken % save_every == 0:
            point = method.save(state)
            if point is not None:
                journal.save_point(partial(dict, point), stopping=stopping)
        if stopping or method.done(state):
            return state
        try:
            state = method.step(state)
        except OutOfTimeError:
            return state  # its save point is the one above: the step may have drawn random numbers
        record(method.report(state), objective)


def record(report: Report, objective: Recorder) -> None:
    """Record a step; the callback of the run hears of it."""
    monitor = objective.monitor
    if report.rows:
        monitor.counts.count_rows(report.rows, whole=objective.whole, passes=report.passes)
    monitor.counts.fraction = report.fraction
    if report.weights is None:
        if report.tell:
            monitor.notify()
        return
    if report.loss is None:
        monitor.validate(report.weights, whole=False)
        monitor.notify()
    else:
        objective.record(report.loss, report.weights, **report.details)
