"""Peak resident memory of every process that took part."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altrelu_dist.cli.output import bytes_text

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["PeakMemory", "measure"]


@dataclass(frozen=True)
class PeakMemory:
    """Peaks in bytes, each over the life of its process.

    Parameters
    ----------
    client : int
        This process; of a cluster of its own it holds the scheduler too.
    scheduler : int
        A scheduler in another process, else 0.
    workers : tuple of int
    """

    client: int
    scheduler: int = 0
    workers: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """The sum of all peaks, which the peak of the sum cannot pass."""
        return self.client + self.scheduler + sum(self.workers)

    def record(self) -> dict[str, Any]:
        """The breakdown, for JSON."""
        return {
            "client": self.client,
            "scheduler": self.scheduler,
            "workers": list(self.workers),
        }

    def __str__(self) -> str:
        if not self.scheduler and not self.workers:
            return bytes_text(self.client)
        parts = [f"this process {bytes_text(self.client)}"]
        if self.scheduler:
            parts.append(f"scheduler {bytes_text(self.scheduler)}")
        if self.workers:
            parts.append(f"workers {', '.join(map(bytes_text, self.workers))}")
        return f"{bytes_text(self.total)} ({'; '.join(parts)})"


def measure(client: Client | None) -> PeakMemory:
    """Ask every process for its peak."""
    own = _peak()
    if client is None:
        return PeakMemory(own)
    workers = client.run(_peak, on_error="ignore")
    scheduler = 0 if client.cluster is not None else client.run_on_scheduler(_peak)
    return PeakMemory(own, int(scheduler), tuple(int(peak) for peak in workers.values()))


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
