"""Trains on workers that are SLURM jobs of their own, submitted by dask-jobqueue.

    python jobqueue.py /shared/flights.zarr --out /shared/flights-model.zarr --hidden 64 --jobs 8

The scheduler and the trainer run in this process, which is to stay while the jobs come and go: a
worker whose job has ended is submitted anew. Started again, it goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dask.distributed import Client, Security
from dask_jobqueue import SLURMCluster
from distributed.utils import get_ip_interface

from altrelu_dist import AltReLURegressor, open_dataset
from altrelu_dist.errors import AltReLUError

_AGAIN = 10.0  # seconds between two looks at whether workers are missing


def main() -> None:
    """Train with the options of the command line."""
    options = _options()
    # dask-jobqueue, imported, lets Ctrl-C end the process at once; the trainer is to stop softly.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Dask logs a traceback, as information, where a connection that closes had something to send.
    logger = logging.getLogger("distributed")
    if logger.level == logging.INFO:  # its default
        logger.setLevel(logging.WARNING)
    run = (options.run or options.out.with_name(f"{options.out.stem}-run")).absolute()
    checkpoint = run / "checkpoint"
    begun = any(checkpoint.glob("checkpoint-*"))
    if options.out.exists() and not begun:
        raise SystemExit(f"{options.out} exists: name another one")
    data = open_dataset(options.data.absolute())
    run.mkdir(parents=True, exist_ok=True)
    with _cluster(options, run) as cluster, Client(cluster) as client:
        _say(f"scheduler at {cluster.scheduler_address}, waiting for a worker")
        client.wait_for_workers(1, timeout=options.patience)
        model = AltReLURegressor(
            n_hidden=options.hidden,
            random_state=options.seed,
            checkpoint=checkpoint,
            resume=begun,
            client=client,
            verbose=1,
        )
        model.fit(
            data.X,
            data.y,
            data.sample_weight,
            feature_names=data.feature_names,
            target_names=data.target_names,
        )
        model.save(options.out, overwrite=begun)
        _say(f"{model.stop_reason_} after {model.n_passes_} passes, saved: {options.out}")
    if model.stop_reason_ == "interrupted":
        raise SystemExit(130)


@contextmanager
def _cluster(options: argparse.Namespace, run: Path) -> Iterator[SLURMCluster]:
    """As many jobs as are asked for, from the first to the last moment."""
    seconds = 60 * options.minutes
    cluster = SLURMCluster(
        cores=options.cores,
        processes=1,
        memory=options.memory,
        walltime=str(options.minutes),
        queue=options.queue,
        account=options.account,
        interface=options.interface,
        job_name="altrelu-worker",
        log_directory=str(run / "workers"),
        # Other users of the cluster reach these ports too: certificates of this run alone.
        security=Security.temporary(),
        shared_temp_directory=str(run),
        # Workers leave in good order before SLURM ends them, and not all at once.
        worker_extra_args=[
            *("--lifetime", f"{0.85 * seconds:.0f}s"),
            *("--lifetime-stagger", f"{0.1 * seconds:.0f}s"),
            "--no-dashboard",
        ],
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )
    ended = threading.Event()

    def keep() -> None:
        while True:
            cluster.scale(jobs=options.jobs)  # submits those that are missing
            if ended.wait(_AGAIN):
                return

    keeper = threading.Thread(target=keep, daemon=True)
    with cluster:
        keeper.start()
        try:
            yield cluster
        finally:
            ended.set()
            keeper.join()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def interface(name: str) -> str:
    """Read the name of a network interface of this machine."""
    try:
        get_ip_interface(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", type=Path, help="a Zarr set that every node can read")
    add("--out", type=Path, required=True, help="where the network goes")
    add("--hidden", type=int, default=64, help="number of hidden neurons (64)")
    add("--seed", type=int, default=0, help="seed of everything random (0)")
    add("--run", type=Path, help="folder for checkpoint and logs, on a shared disk (beside --out)")
    add("--jobs", type=int, default=3, help="workers, each a job (3)")
    add("--cores", type=int, default=4, help="of a worker (4)")
    add("--memory", default="8GiB", help="of a worker (8GiB)")
    add("--minutes", type=int, default=60, help="time limit of a job (60)")
    add("--queue", help="partition of the jobs")
    add("--account", help="account that pays for the jobs")
    add("--interface", type=interface, help="network interface between the nodes, for example ib0")
    add("--patience", type=float, default=3600.0, help="seconds for the first worker (3600)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (AltReLUError, OSError) as error:
        sys.exit(f"error: {error}")
