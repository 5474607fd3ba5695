"""The Dask cluster of a command: one of its own on this machine, or one that exists."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altrelu_dist.errors import ClusterError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, LocalCluster

    from altrelu_dist.cli.output import Output

__all__ = ["ClusterChoice", "connect"]

CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_LEAST_MEMORY = 256 << 20  # what a worker holds before it has read a row

# Ctrl-C in a terminal reaches every process of the group: the workers are to go on, because it is
# the trainer that decides when to stop.
_DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
# What a task raises comes back to us and is said once; Dask would log its traceback before.
_SILENT = "import logging; logging.getLogger('distributed').setLevel(logging.CRITICAL)"


@dataclass(frozen=True)
class ClusterChoice:
    """Which cluster a command works on; None leaves a size to Dask."""

    scheduler: str | None = None
    workers: int | None = None
    threads: int | None = None
    memory: str | None = None

    def __post_init__(self) -> None:
        if self.scheduler is not None and self._local:
            raise ParameterError("give either --scheduler or --workers, --threads, --memory")

    @property
    def _local(self) -> bool:
        return (self.workers, self.threads, self.memory) != (None, None, None)

    @property
    def address(self) -> str | None:
        """A scheduler to connect to, from the command or from Dask's own configuration."""
        import dask

        if self._local:
            return None
        address: str | None = self.scheduler or dask.config.get("scheduler-address", None)
        return address

    @property
    def memory_limit(self) -> int | str:
        """Bytes a worker, or Dask's word for its share of the machine."""
        from dask.utils import parse_bytes

        if self.memory is None:
            return "auto"
        try:
            limit = int(parse_bytes(self.memory))
        except ValueError as error:
            raise ParameterError(
                f"--memory {self.memory}: not a size; write for example 800MiB or 2GiB"
            ) from error
        if limit < _LEAST_MEMORY:
            raise ParameterError(
                f"--memory {self.memory}: a worker needs at least {_LEAST_MEMORY >> 20}MiB"
            )
        return limit


@contextmanager
def connect(
    choice: ClusterChoice, output: Output, *, in_process: bool = False
) -> Iterator[Client | None]:
    """Connect to a cluster that has this package, and close what was opened.

    Parameters
    ----------
    choice : ClusterChoice
    output : Output
    in_process : bool, default False
        Start no cluster of our own: yield None where none is named.

    Raises
    ------
    ClusterError
        If nothing answers, nothing works there, or a process lacks this package or has another
        version of it.
    """
    address = choice.address
    if address is None and (in_process or choice.workers == 0):
        yield None
        return
    from altrelu_dist.cluster_errors import explained

    opened = _local(choice, output) if address is None else _remote(address, output)
    with explained(), opened as client:
        yield client


@contextmanager
def _remote(address: str, output: Output) -> Iterator[Client]:
    with output.doing(f"connecting to {address}"):
        client = _connect(address)
    try:
        yield client
    finally:  # a scheduler that has gone is not waited for
        client.close(timeout=_CLOSE_SECONDS)


@contextmanager
def _local(choice: ClusterChoice, output: Output) -> Iterator[Client]:
    limit = choice.memory_limit
    debug = logging.getLogger("altrelu_dist").isEnabledFor(logging.DEBUG)
    from distributed import Client, LocalCluster

    with output.doing("starting workers"):
        try:
            cluster = LocalCluster(
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                n_workers=choice.workers,
                threads_per_worker=choice.threads,
                memory_limit=limit,
                silence_logs=logging.WARNING if debug else logging.CRITICAL,
                preload=[_DEAF_TO_CTRL_C] if debug else [_DEAF_TO_CTRL_C, _SILENT],
            )
        except (RuntimeError, OSError) as error:
            raise ClusterError(f"the workers cannot be started: {error}") from error
    with cluster, Client(cluster) as client:
        workers = cluster.workers
        output.note(
            f"{len(workers)} worker{'' if len(workers) == 1 else 's'} on this machine, "
            f"dashboard {cluster.dashboard_link}"
        )
        try:
            yield client
        except KeyboardInterrupt:
            _kill_workers(cluster)
            raise


def _kill_workers(cluster: LocalCluster) -> None:
    """End running tasks now; closing the cluster would first wait for them."""
    for name in ("asyncio", "distributed"):  # which would tell of what was cut off
        logging.getLogger(name).setLevel(logging.CRITICAL)

    async def kill() -> None:
        closing = [nanny.close(timeout=0) for nanny in cluster.workers.values()]
        await asyncio.gather(*closing, return_exceptions=True)

    cluster.sync(kill)


def _connect(address: str) -> Client:
    from distributed import Client

    kind = _kind_of_server(address)
    if kind != "Scheduler":
        raise ClusterError(f"{address} is a Dask {kind}, not a scheduler")
    client = Client(address, timeout=CONNECT_SECONDS, set_as_default=True)
    try:
        _check_workers(client, address)
    except BaseException:
        client.close()
        raise
    return client


def _kind_of_server(address: str) -> str:
    """Ask who is there: the client's own time-out does not end a handshake that hangs."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> str:
        arguments = Security().get_connection_args("client")
        async with rpc(address, connection_args=arguments) as server:
            identity = await server.identity()
        return str(identity["type"])

    try:
        return asyncio.run(asyncio.wait_for(ask(), CONNECT_SECONDS))
    except TimeoutError as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS:.0f} s: "
            "is it running (dask scheduler), and can this machine reach it?"
        ) from error
    except (ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ClusterError(f"cannot connect to {address}: {reason}") from error


def _check_workers(client: Client, address: str) -> None:
    """See to it that every process of the cluster has this version of this package."""
    from altrelu_dist import __version__

    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"the scheduler at {address} has no workers: start some (dask worker {address})"
        ) from error

    def version() -> str | None:  # nested, so that it travels by value: it may not be there
        try:
            import altrelu_dist
        except ImportError:
            return None
        return altrelu_dist.__version__

    found: dict[str, Any] = {"scheduler": client.run_on_scheduler(version)}
    for worker, answer in client.run(version, on_error="return").items():
        found[f"worker {worker}"] = answer
    for name, answer in found.items():
        if answer == __version__:
            continue
        what = "has no altrelu-dist" if answer is None else f"has altrelu-dist {answer}"
        if isinstance(answer, BaseException):
            what = f"cannot import altrelu-dist: {answer}"
        raise ClusterError(f"{name} of {address} {what}: install altrelu-dist {__version__} there")
