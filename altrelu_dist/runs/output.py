"""Where a command's words go: progress and notes to stderr, the result to stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.table import Table

from altrelu_dist.addresses import values_without_secrets, without_secrets

if TYPE_CHECKING:
    from altrelu_dist.memory import PeakMemory

__all__ = [
    "Output",
    "bytes_text",
    "memory_text",
    "number",
    "plain",
    "seconds_text",
    "table",
]

_BETWEEN_LINES = 10.0  # seconds, where nothing can be redrawn


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def _stdout() -> Console:
    width = None if sys.stdout.isatty() else 160  # a pipe has no width: nothing is to be cut
    return Console(highlight=False, markup=False, width=width)


@dataclass(frozen=True)
class Output:
    """The two streams of one command.

    Parameters
    ----------
    quiet : bool
        Nothing but errors, warnings and, with ``as_json``, the result.
    as_json : bool
        The result is one JSON object instead of text.
    """

    quiet: bool = False
    as_json: bool = False
    progress: Console = field(default_factory=_stderr)

    @property
    def live(self) -> bool:
        """Whether a display that redraws itself can be shown."""
        return self.progress.is_terminal and not self.quiet

    def note(self, text: str) -> None:
        """Say what goes on."""
        if not self.quiet:
            self.progress.print(without_secrets(text))

    def warn(self, text: str) -> None:
        """Say what must be known even when quiet."""
        self.progress.print(without_secrets(text))

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Say what goes on for as long as it does."""
        if self.live:
            with self.progress.status(without_secrets(text)):
                yield
        else:
            self.note(text)
            yield

    @contextmanager
    def bar(self, text: str) -> Iterator[Callable[[float], None]]:
        """Show how much of some work is done; yields a function that takes the share, 0 to 1."""
        if self.live:
            with Progress(
                *Progress.get_default_columns(), console=self.progress, transient=True
            ) as shown:
                task = shown.add_task(without_secrets(text), total=1.0)
                yield lambda share: shown.update(
                    task, completed=share, total=None if math.isnan(share) else 1.0
                )
            return
        self.note(text)
        due = time.monotonic() + _BETWEEN_LINES

        def say(share: float) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _BETWEEN_LINES
                self.note(text if math.isnan(share) else f"{text} {share:.0%}")

        yield say

    def result(self, record: Mapping[str, Any], *text: RenderableType) -> None:
        """Print the result: the record as JSON, or the text."""
        if self.as_json:
            print(json.dumps(values_without_secrets(plain(record)), allow_nan=False))  # noqa: T201
        elif not self.quiet:
            console = _stdout()
            for part in text:
                if isinstance(part, str):  # not cut into lines: commands are copied from it
                    console.print(without_secrets(part), soft_wrap=True)
                else:
                    console.print(part)


def plain(value: Any) -> Any:
    """JSON's own types; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(*columns: str, words: int = 1) -> Table:
    """A table whose first columns are words and whose other columns are numbers."""
    made = Table()
    for index, name in enumerate(columns):
        made.add_column(name, justify="left" if index < words else "right", overflow="fold")
    return made


def number(value: float) -> str:
    """Four significant digits, thousands kept whole."""
    if not math.isfinite(value):
        return "?"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def seconds_text(seconds: float) -> str:
    """A duration as a person says it: 8.3 s, 2:05, 1:02:05."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bytes_text(count: float) -> str:
    """A size in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "MiB", "KiB") else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"


def memory_text(peak: PeakMemory) -> str:
    """What the processes of a run held at their peak."""
    if not peak.scheduler and not peak.workers:
        return bytes_text(peak.client)
    parts = [f"this process {bytes_text(peak.client)}"]
    if peak.scheduler:
        parts.append(f"scheduler {bytes_text(peak.scheduler)}")
    if peak.workers:
        parts.append(f"workers {', '.join(map(bytes_text, peak.workers.values()))}")
    return f"{bytes_text(peak.total)} ({'; '.join(parts)})"
