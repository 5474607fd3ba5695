"""Workers, seconds, memory and tables. Workers import it: it stays light."""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, LocalCluster

from altrelu_dist.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Row = dict[str, Any]


@contextmanager
def processes(workers: int) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(imported)
        yield client


def imported() -> None:
    """Import in a worker what its first task would: that is no pass's time."""
    with one_blas_thread():
        np.ones((2, 2)) @ np.ones((2, 2))


def peak_memory() -> int:
    """Most bytes that this process has held in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, not that of the parent before it started this one
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tasks_run(dask_scheduler: Any) -> int:
    """Tasks that this scheduler has seen to their end."""
    return sum(prefix.state_counts["memory"] for prefix in dask_scheduler.task_prefixes.values())


def seconds_of(task: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def in_turns(
    tasks: dict[str, Callable[[], Any]],
    repeats: int,
    before: Callable[[], Any] | None = None,
) -> dict[str, float]:
    """Least seconds of each task; ``before`` is called, off the clock, before every run."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            if before is not None:
                before()
            found[name].append(seconds_of(task))
    return {name: min(seconds) for name, seconds in found.items()}


def product_rate() -> float:
    """Multiply-adds a second of one thread."""
    a = np.ones((512, 512), dtype=np.float32)
    with one_blas_thread():
        return 512**3 / min(seconds_of(lambda: a @ a) for _ in range(5))


def table(title: str, rows: list[Row], results: Row) -> None:
    results[title] = rows
    print(f"\n### {title}\n\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(shown, row.values())) + " |")
    print(f"\nLoad average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.", flush=True)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
