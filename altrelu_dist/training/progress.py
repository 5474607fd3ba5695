"""What a run tells while it goes on, what it keeps, and what makes it stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Callback", "Monitor", "Progress"]


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Parameters
    ----------
    stage : str
        ``"summary"``, ``"sample"``, ``"grow"``, ``"cycle"``, ``"widen"``, ``"layers"`` or
        ``"alternating"``.
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
    """

    stage: str
    iteration: int
    loss: float
    sample_loss: float
    passes: int
    rows: int
    seconds: float
    fraction: float


Callback = Callable[[Progress], "bool | None"]


class Monitor:
    """Counts, records and decides about stopping; one for a run.

    Parameters
    ----------
    callback : callable, optional
        Gets a `Progress` often; a true return stops the run at the end of the current step.
    max_time : float, optional
        Seconds after which the run stops at the end of the current step.
    """

    def __init__(self, callback: Callback | None = None, max_time: float | None = None) -> None:
        self._start = time.perf_counter()
        self._callback = callback
        self._max_time = math.inf if max_time is None else max_time
        self.history: list[dict[str, Any]] = []
        self.reason: str | None = None
        self.ran_out = False  # of the iterations it was given
        self.stage = "summary"
        self.passes = 0
        self.rows = 0
        self.fraction = math.nan
        self.unit = 1.0  # of the loss, in squared units of the targets
        self.loss = math.nan
        self.sample_loss = math.nan

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    @property
    def stopped(self) -> bool:
        """Whether the run has to end here."""
        if self.reason is None and self.seconds >= self._max_time:
            self.reason = "max_time"
        return self.reason is not None

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self.stage = stage
        self.sample_loss = math.nan
        self.tick()

    def visited(self, rows: int, *, whole: bool) -> None:
        """Count a pass over a sample, or over the whole data."""
        self.rows += rows
        self.passes += whole

    def tick(self) -> None:
        """Tell how far it is."""
        if self._callback is not None and self._callback(self._now()) and self.reason is None:
            self.reason = "interrupted"

    def record(
        self, *, loss: float = math.nan, sample_loss: float = math.nan, **details: Any
    ) -> None:
        """Note an iteration; losses in standardised units.

        ``loss`` is that of a network over all rows: the least so far is what is noted, because
        that network is the one that is kept.
        """
        if not math.isnan(loss):
            self.loss = (
                loss * self.unit if math.isnan(self.loss) else min(self.loss, loss * self.unit)
            )
        self.sample_loss = sample_loss * self.unit
        entry = asdict(self._now())
        entry["iteration"] = len(self.history) + 1
        self.history.append(entry | details)
        self.tick()

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
        )
