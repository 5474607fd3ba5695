#!/usr/bin/env python3
"""A cluster on this machine that stays: for several runs, notebooks and jobs.

python cluster.py                        # a worker a core, the memory shared
python cluster.py --workers 2 --threads 2 --memory 4GiB
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys

import dask
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT

LEAST = parse_bytes("512MiB")  # that a worker can do anything with
SHARE = 0.75  # of the machine's memory for workers: the rest is the trainer's and the system's


def count(text: str) -> int:
    """Read a number of workers or threads."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def size(text: str) -> int:
    """Read an amount of memory."""
    try:
        number = parse_bytes(text)
    except OverflowError as error:
        raise ValueError from error
    if number < 1:
        raise ValueError
    return number


def port(text: str) -> int:
    """Read a port; 0 is any that is free."""
    if (number := int(text)) not in range(65536):
        raise ValueError
    return number


def main() -> None:
    """Start it, print its address, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=count, help="default: one a core, if they fit")
    parser.add_argument("--threads", type=count, default=1, help="of each worker")
    parser.add_argument("--memory", type=size, help="of each worker; default: its share")
    parser.add_argument("--port", type=port, default=8786)
    chosen = parser.parse_args()
    try:
        socket.create_server(("127.0.0.1", chosen.port)).close()
    except OSError as error:
        sys.exit(f"--port {chosen.port}: {os.strerror(error.errno or 0)}")
    usable = SHARE * MEMORY_LIMIT
    cores = max(1, CPU_COUNT // chosen.threads)
    workers = chosen.workers or max(1, min(cores, int(usable / LEAST)))
    memory = chosen.memory or int(usable / workers)
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
