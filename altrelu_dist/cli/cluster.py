"""The Dask cluster of a command: one of its own on this machine, or one that exists."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altrelu_dist.errors import ClusterError, ParameterError
from altrelu_dist.exposure import exposure
from altrelu_dist.interrupts import Terminated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, LocalCluster
    from distributed.security import Security

    from altrelu_dist.runs.output import Output

__all__ = ["ClusterChoice", "TlsFiles", "connect"]

CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_SILENT_SECONDS = 60.0  # without a sign of life, after which others do what a worker was to do
_LEAST_MEMORY = 256 << 20  # what a worker holds before it has read a row

_LARGE_GRAPH = "100MB"  # a wide network, which goes to the workers as it is, has up to about 40

# Ctrl-C in a terminal, and a batch system's SIGTERM, reach every process of the group: the workers
# are to go on, because it is the trainer that decides when to stop.
_DEAF = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)]"
# What a task raises comes back to us and is said once; Dask would log its traceback before.
_SILENT = "import logging; logging.getLogger('distributed').setLevel(logging.CRITICAL)"


@dataclass(frozen=True)
class TlsFiles:
    """The certificates of a client, given on the command line; or none, and Dask's settings hold.

    Parameters
    ----------
    ca_file, cert, key : str, optional
        All of them, or none.

    Raises
    ------
    ParameterError
        If some are missing, or a file cannot be read.
    """

    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        files = {"--tls-ca-file": self.ca_file, "--tls-cert": self.cert, "--tls-key": self.key}
        missing = [option for option, file in files.items() if file is None]
        if missing and self.given:
            raise ParameterError(
                f"TLS takes --tls-ca-file, --tls-cert and --tls-key together: "
                f"{' and '.join(missing)} not given"
            )
        for option, file in files.items():
            if file is not None and not os.access(file, os.R_OK):
                raise ParameterError(f"{option} {file}: there is no such file that can be read")

    @property
    def given(self) -> bool:
        """Whether any is."""
        return (self.ca_file, self.cert, self.key) != (None, None, None)

    def security(self) -> Security:
        """As Dask takes it.

        Raises
        ------
        ParameterError
            If the files are not a certificate and its key.
        """
        from distributed.security import Security

        if not self.given:
            return Security()
        security = Security(
            tls_ca_file=self.ca_file,
            tls_client_cert=self.cert,
            tls_client_key=self.key,
            require_encryption=True,
        )
        try:
            security.get_connection_args("client")
        except (ssl.SSLError, OSError) as error:
            raise ParameterError(
                f"--tls-ca-file {self.ca_file}, --tls-cert {self.cert}, --tls-key {self.key}: "
                f"not certificates and the key of the second, in PEM ({error})"
            ) from error
        return security


@dataclass(frozen=True)
class ClusterChoice:
    """Which cluster a command works on; None leaves a size to Dask."""

    scheduler: str | None = None
    workers: int | None = None
    threads: int | None = None
    memory: str | None = None
    tls: TlsFiles = TlsFiles()

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.sized:
            raise ParameterError("give either --scheduler or --workers, --threads, --memory")
        if self.tls.given and not (self.address or "").startswith("tls://"):
            raise ParameterError(
                f"--tls-ca-file, --tls-cert and --tls-key are for a scheduler at a tls:// address, "
                f"{f'found {self.address}' if self.address else 'and none is named: --scheduler'}"
            )

    @property
    def sized(self) -> bool:
        """Whether workers of this machine are asked for."""
        return (self.workers, self.threads, self.memory) != (None, None, None)

    @property
    def address(self) -> str | None:
        """A scheduler to connect to, from the command or from Dask's own configuration."""
        import dask

        if self.sized:
            return None
        address: str | None = self.scheduler or dask.config.get("scheduler-address", None)
        return address or None

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
    choice: ClusterChoice, output: Output, *, in_process: bool = False, to_work: bool = True
) -> Iterator[Client | None]:
    """Connect to a cluster that has this package, and close what was opened.

    Parameters
    ----------
    choice : ClusterChoice
    output : Output
    in_process : bool, default False
        Start no cluster of our own: yield None where none is named.
    to_work : bool, default True
        Whether it is to do something, and not only to be asked.

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
    import dask
    import distributed.config  # noqa: F401 - its import sets the level that is set here

    # Dask logs a traceback, as information, where a connection that closes had something to send.
    logger = logging.getLogger("distributed")
    if logger.level == logging.INFO and not _debugging():  # its default
        logger.setLevel(logging.WARNING)
    from altrelu_dist.cli.profiles import tell_workers
    from altrelu_dist.cluster_errors import explained

    opened = _local(choice, output) if address is None else _remote(address, choice.tls, output)
    quiet = {"distributed.admin.large-graph-warning-threshold": _LARGE_GRAPH}
    with explained(), dask.config.set(quiet), opened as client:
        if to_work:
            if address is not None:
                _check_workers(client, address)
            tell_workers(client)
        yield client


@contextmanager
def _remote(address: str, tls: TlsFiles, output: Output) -> Iterator[Client]:
    security = tls.security()
    with output.doing(f"connecting to {address}"):
        client = _connect(address, security)
    if warning := exposure(client.scheduler.address):
        output.warn(warning)
    try:
        yield client
    finally:  # a scheduler that has gone is not waited for
        client.close(timeout=_CLOSE_SECONDS)


@contextmanager
def _local(choice: ClusterChoice, output: Output) -> Iterator[Client]:
    limit = choice.memory_limit
    _check_room(choice.workers or 1)
    debug = _debugging()
    import dask
    from distributed import Client, LocalCluster

    given_up = {"distributed.scheduler.worker-ttl": f"{_SILENT_SECONDS:.0f}s"}
    with output.doing("starting workers"), dask.config.set(given_up):
        try:
            cluster = LocalCluster(
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                n_workers=choice.workers,
                threads_per_worker=choice.threads,
                memory_limit=limit,
                silence_logs=logging.WARNING if debug else logging.CRITICAL,
                preload=[_DEAF] if debug else [_DEAF, _SILENT],
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
        except (KeyboardInterrupt, Terminated):
            _kill_workers(cluster)
            raise


def _debugging() -> bool:
    """Whether log messages are to be shown."""
    return logging.getLogger("altrelu_dist").isEnabledFor(logging.DEBUG)


def _check_room(workers: int) -> None:
    """Refuse more workers than this machine can hold: it would hang in starting them."""
    from altrelu_dist.planning import machine_memory

    memory = machine_memory()
    most = max(1, memory // _LEAST_MEMORY)
    if workers > most:
        raise ParameterError(
            f"--workers {workers}: at most {most} fit in the {memory / (1 << 30):.1f} GiB of this "
            f"machine, since each needs {_LEAST_MEMORY >> 20} MiB"
        )


def _kill_workers(cluster: LocalCluster) -> None:
    """End running tasks now; closing the cluster would first wait for them."""
    for name in ("asyncio", "distributed"):  # which would tell of what was cut off
        logging.getLogger(name).setLevel(logging.CRITICAL)

    async def kill() -> None:
        closing = [nanny.close(timeout=0) for nanny in cluster.workers.values()]
        await asyncio.gather(*closing, return_exceptions=True)

    cluster.sync(kill)


def _connect(address: str, security: Security) -> Client:
    from distributed import Client

    kind = _kind_of_server(address, security)
    if kind != "Scheduler":
        raise ClusterError(f"{address} is a Dask {kind}, not a scheduler")
    return Client(address, timeout=CONNECT_SECONDS, set_as_default=True, security=security)


def _kind_of_server(address: str, security: Security) -> str:
    """Ask who is there: the client's own time-out does not end a handshake that hangs."""
    from distributed.comm import CommClosedError
    from distributed.core import rpc

    arguments = security.get_connection_args("client")
    if address.startswith("tls://") and arguments.get("ssl_context") is None:
        raise ClusterError(
            f"{address} takes certificates: give --tls-ca-file, --tls-cert and --tls-key, or set "
            "distributed.comm.tls in Dask's configuration"
        )

    async def ask() -> str:
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
    except CommClosedError as error:
        raise ClusterError(
            f"{address} ended the connection: a scheduler with TLS is at tls://, one without at "
            "tcp://, and with TLS each side's certificate is to be signed by the other's authority"
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
