"""What a training run shows: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from altrelu_dist.interrupts import STOPPING, Interrupts, catch_interrupts, say_stopping
from altrelu_dist.runs.output import Output, number, seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from altrelu_dist.training.progress import Progress

__all__ = ["Lines", "Watch", "watch"]

_RATE_WINDOW = 5.0  # seconds over which rows a second are measured
_KNOWN = 0.02  # of the work, after which the speed of a stage is known
_HELD, _HELD_SECONDS = 1.5, 5.0  # an estimate that is above the time shown by more is not held
_SOON, _LATE = 2.0, 60.0  # least and most seconds between two plain lines


class Watch:
    """Follows one training run; given to the trainer as its callback.

    Parameters
    ----------
    interrupts : Interrupts
        A requested stop is handed to the trainer.
    max_time : float, optional
        Seconds after which the trainer will stop.
    on_change : callable, optional
        Called with this object at each report of the trainer.
    """

    def __init__(
        self,
        interrupts: Interrupts,
        max_time: float | None = None,
        on_change: Callable[[Watch], None] | None = None,
    ) -> None:
        self.interrupts = interrupts
        self.last: Progress | None = None
        self._at = time.monotonic()
        self._max_time = math.inf if max_time is None else max_time
        self._on_change = on_change
        self._visits: deque[tuple[float, int]] = deque()
        self._stage, self._begun = "", (math.nan, math.nan)  # its first seconds and fraction
        self._left = math.nan
        self._least = math.inf  # of the times left that were shown

    def __call__(self, progress: Progress) -> bool:
        """Take a report; true asks the trainer to stop."""
        shown = self.left
        if not math.isnan(shown):
            self._least = min(self._least, shown)
        self.last, self._at = progress, time.monotonic()
        self._visits.append((progress.seconds, progress.rows))
        while len(self._visits) > 2 and self._visits[1][0] < progress.seconds - _RATE_WINDOW:
            self._visits.popleft()
        self._left = self._sound(progress)
        if self._on_change is not None:
            self._on_change(self)
        return self.interrupts.requested

    @property
    def elapsed(self) -> float:
        """Seconds since the training began."""
        return 0.0 if self.last is None else self.last.seconds + time.monotonic() - self._at

    @property
    def left(self) -> float:
        """Expected seconds to the end; NaN if unknown. It never climbs."""
        if self.last is None:
            return self._max_time if math.isfinite(self._max_time) else math.nan
        left = self._left - (time.monotonic() - self._at)
        return left if math.isnan(left) else max(0.0, left)

    def _sound(self, progress: Progress) -> float:
        """The seconds left as they may be shown: no more than before; NaN if that is too little."""
        left = min(self._estimate(progress), self._max_time - progress.seconds)
        if not math.isfinite(left) or left > _HELD * self._least + _HELD_SECONDS:
            return math.nan
        return max(0.0, min(left, self._least))

    def _estimate(self, progress: Progress) -> float:
        """The work left at the speed of this stage, infinite if that is not known."""
        seconds, fraction = progress.seconds, progress.fraction
        if progress.stage != self._stage or math.isnan(self._begun[1]):
            self._stage, self._begun = progress.stage, (seconds, fraction)
        gained = fraction - self._begun[1]
        if not gained >= _KNOWN:
            return math.inf
        return (1 - fraction) * (seconds - self._begun[0]) / gained

    @property
    def rows_a_second(self) -> float:
        """Row visits a second, of late."""
        if len(self._visits) < 2:
            return math.nan
        (start, before), (end, after) = self._visits[0], self._visits[-1]
        return (after - before) / (end - start) if end > start else math.nan

    def facts(self) -> list[str]:
        """What there is to say, without the times."""
        now = self.last
        if now is None:
            return []
        facts = [f"iteration {now.iteration}", f"loss {number(now.loss)}"]
        if math.isfinite(now.sample_loss):
            facts.append(f"on sample {number(now.sample_loss)}")
        if math.isfinite(now.validation_loss):
            facts.append(f"on validation {number(now.validation_loss)}")
        return [*facts, f"passes {now.passes}", f"{_rate(self.rows_a_second)} rows/s"]


def _rate(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return "?" if math.isnan(value) else f"{value:.0f}"


class _Display:
    """The live display: a bar with the times, and a line of facts below it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._spinner = Spinner("dots")

    def __rich__(self) -> RenderableType:
        watch = self._watch
        stage = "starting" if watch.last is None else watch.last.stage
        fraction = math.nan if watch.last is None else watch.last.fraction
        known = math.isfinite(fraction)
        bar = ProgressBar(
            total=1.0 if known else None, completed=fraction if known else 0, width=24
        )
        left = watch.left
        ahead = f", about {seconds_text(left)} left" if math.isfinite(left) else ""
        head = Table.grid(padding=(0, 1))
        head.add_row(
            self._spinner,
            Text(stage, style="bold"),
            bar,
            Text(f"{seconds_text(watch.elapsed)} elapsed{ahead}"),
        )
        lines: list[RenderableType] = [head, Text("  " + "   ".join(watch.facts()))]
        if watch.interrupts.requested:
            lines.append(Text("  " + STOPPING, style="yellow"))
        return Group(*lines)


class Lines:
    """Plain lines: one at each new stage, and between them ever more rarely."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._stage = ""
        self._next = 0.0

    def __call__(self, watch: Watch) -> None:
        """Take a report."""
        now = watch.last
        assert now is not None
        if now.stage == self._stage and now.seconds < self._next:
            return
        self._stage = now.stage
        self._next = now.seconds + min(max(_SOON, now.seconds / 10), _LATE)
        left = watch.left
        ahead = [f"about {seconds_text(left)} left"] if math.isfinite(left) else []
        parts = [seconds_text(now.seconds), now.stage, *watch.facts(), *ahead]
        self._output.note("  ".join(parts))


@contextmanager
def watch(output: Output, max_time: float | None = None) -> Iterator[Watch]:
    """Show a training run and catch Ctrl-C and SIGTERM for as long as the block runs.

    Parameters
    ----------
    output : Output
    max_time : float, optional
        Seconds after which the trainer will stop.

    Yields
    ------
    Watch
        The callback for the trainer.
    """
    if output.live:
        with catch_interrupts(lambda _number: None, exiting=True) as interrupts:
            follower = Watch(interrupts, max_time)
            display = Live(
                get_renderable=_Display(follower).__rich__,
                console=output.progress,
                refresh_per_second=5,
                transient=True,
            )
            with display:
                yield follower
        return

    with catch_interrupts(say_stopping, exiting=True) as interrupts:
        yield Watch(interrupts, max_time, None if output.quiet else Lines(output))
