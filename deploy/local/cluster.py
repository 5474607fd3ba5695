#!/usr/bin/env python3
"""A cluster on this machine that stays: for several runs, notebooks and jobs.

python cluster.py                        # a worker a core, the memory shared
python cluster.py --workers 2 --threads 2 --memory 4GiB
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

import dask
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT

LEAST = parse_bytes("512MiB")  # that a worker can do anything with
SHARE = 0.75  # of the machine's memory for workers: the rest is the trainer's and the system's


def main() -> None:
    """Start it, print its address, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=0, help="default: one a core, if they fit")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--memory", help="of each worker; default: its share of the machine")
    parser.add_argument("--port", type=int, default=8786)
    chosen = parser.parse_args()
    usable = SHARE * MEMORY_LIMIT
    cores = max(1, CPU_COUNT // chosen.threads)
    workers = chosen.workers or max(1, min(cores, int(usable / LEAST)))
    memory = parse_bytes(chosen.memory) if chosen.memory else int(usable / workers)
    if workers * memory > MEMORY_LIMIT:
        sys.exit(
            f"{workers} workers of {format_bytes(memory)} do not fit in "
            f"{format_bytes(MEMORY_LIMIT)}: fewer --workers, or less --memory"
        )
    # For the workers, whose tasks run side by side already.
    os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    # A worker that gives no sign of life for so long is done without.
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "60s"}),
        LocalCluster(
            host="127.0.0.1",  # nobody else can reach it
            scheduler_port=chosen.port,
            dashboard_address="127.0.0.1:0",
            n_workers=workers,
            threads_per_worker=chosen.threads,
            memory_limit=memory,
        ) as cluster,
    ):
        print(  # noqa: T201
            f"{workers} workers, {chosen.threads} threads and {format_bytes(memory)} each\n"
            f"dashboard {cluster.dashboard_link}\n"
            f"export DASK_SCHEDULER_ADDRESS={cluster.scheduler_address}",
            flush=True,
        )
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
