"""Peak resident memory of every process that takes part in a run."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["PeakMemory", "measure"]

_PATIENCE = (
    5.0  # seconds for the processes of a cluster to answer: one that hangs is not waited for
)


@dataclass(frozen=True)
class PeakMemory:
    """Peaks in bytes, each over the life of its process: what it did before a run counts too.

    Attributes
    ----------
    client : int
        The process that trains; of a cluster of its own it holds the scheduler, and workers that
        are threads, too.
    scheduler : int
        A scheduler in another process, else 0.
    workers : dict
        By machine and number of the process: those that were there whenever it was measured, so
        also those that joined, died or were started again in between.
    """

    client: int = 0
    scheduler: int = 0
    workers: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The sum of all peaks, which the peak of the sum cannot pass."""
        return self.client + self.scheduler + sum(self.workers.values())

    def record(self) -> dict[str, Any]:
        """The breakdown, for JSON."""
        return {
            "client": self.client,
            "scheduler": self.scheduler,
            "workers": list(self.workers.values()),
        }


def measure(client: Client | None, known: PeakMemory | None = None) -> PeakMemory:
    """Ask every process for its peak; who does not answer is as it was known.

    Parameters
    ----------
    client : distributed.Client, optional
        Without one this process is all.
    known : PeakMemory, optional
        What was measured before.
    """
    known = PeakMemory() if known is None else known
    here, own = _process()
    if client is None:
        return PeakMemory(own, known.scheduler, known.workers)
    try:
        (there, scheduler), found = client.sync(_ask, client)
    except Exception:  # noqa: BLE001 - a run does not end for what a cluster does not tell
        return PeakMemory(own, known.scheduler, known.workers)
    if there == here:
        scheduler = 0
    workers = {name: peak for name, peak in found.values() if name not in (here, there)}
    return PeakMemory(own, scheduler, {**known.workers, **workers})


async def _ask(client: Client) -> tuple[Any, Any]:
    asked = asyncio.gather(
        client.run_on_scheduler(_process), client.run(_process, on_error="ignore")
    )
    scheduler, workers = await asyncio.wait_for(asked, _PATIENCE)
    return scheduler, workers


def _process() -> tuple[str, int]:
    """Which process this is, and its peak."""
    return f"{socket.gethostname()}:{os.getpid()}", _peak()


def _peak() -> int:
    try:
        # Not getrusage: a started process inherits the peak of the one that started it.
        with open("/proc/self/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
