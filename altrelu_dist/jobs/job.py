"""A job, from the outside: submit, look at, cancel, take up, fetch, forget."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Self

from altrelu_dist.addresses import has_secret
from altrelu_dist.errors import AltReLUError, ClusterError, JobError, ModelFileError, ParameterError
from altrelu_dist.exposure import warn_of_exposure
from altrelu_dist.inputs import current_client
from altrelu_dist.jobs import registry
from altrelu_dist.jobs.folder import (
    JobFolder,
    JobSpec,
    JobStatus,
    check_apart_from_jobs,
    folder_of,
)
from altrelu_dist.jobs.loop import start, tasks_of
from altrelu_dist.model_file import load_model
from altrelu_dist.runs.training import TrainOptions, absolute, prepared
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor

__all__ = ["Job", "jobs", "submit", "submit_options"]

_LOOK = 1.0  # seconds between two looks at a job that is waited for


class Job:
    """A training run in a cluster, by its id, from any process.

    Parameters
    ----------
    id : str
        As `submit` gave it; or the address of its output, which finds a job that neither the
        scheduler nor this user's machine knows.
    client : distributed.Client, optional
        Of its cluster; by default the current one, if there is one. What a job is and has found is
        in storage: only to cancel one that has not begun, and to take one up again, it is needed.

    Raises
    ------
    JobError
        If there is no such job.
    """

    def __init__(self, id: str, client: Client | None = None) -> None:
        self._client = client or current_client()
        known = registry.known(self._client)
        address = known.get(id)
        if address is None:
            if "/" not in id and not os.path.exists(folder_of(id)):
                raise JobError(
                    f"{id}: no such job is known to this scheduler or on this machine, and none "
                    f"writes to an output of this name"
                )
            address = absolute(id)
        self._folder = JobFolder(address)
        self._spec = self._folder.spec()
        self.id = self._spec.id
        if id in known and id != self.id:
            raise JobError(f"{id}: is forgotten; the job that writes to {self.out} is {self.id}")
        if known.get(self.id) is None:
            registry.remember(self.id, self._folder.address, None)

    @classmethod
    def _new(cls, spec: JobSpec, client: Client) -> Self:
        folder = JobFolder(spec.options.out)
        scheduler_id, _ = tasks_of(spec.id, client)
        folder.create(spec, client.scheduler.address, scheduler_id)
        try:
            start(folder, spec.id, client)
        except BaseException:
            folder.remove()
            raise
        registry.remember(spec.id, folder.address, client)
        return cls(spec.id, client)

    def __repr__(self) -> str:
        return f"<Job {self.id}: {self.status().state}, {self.out}>"

    @property
    def out(self) -> str:
        """Where its network goes."""
        return self._spec.options.out

    @property
    def by(self) -> str:
        """Who submitted it."""
        return self._spec.by

    @property
    def submitted(self) -> float:
        """When, in seconds since 1970."""
        return self._spec.submitted

    def status(self) -> JobStatus:
        """How far it is."""
        return self._folder.status()

    def log(self) -> str:
        """What it has said so far."""
        return self._folder.log()

    def follow(self, timeout: float | None = None) -> Iterator[JobStatus]:
        """Its status whenever that changes, until it has ended or is lost.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which it is no longer waited for.

        Raises
        ------
        TimeoutError
        """
        ends = None if timeout is None else time.monotonic() + timeout
        before: JobStatus | None = None
        while True:
            status = self.status()
            if status != before:
                yield status
            if status.ended or status.state == "lost":
                return
            before = status
            if ends is not None and time.monotonic() > ends:
                raise TimeoutError(f"job {self.id} is still {status.state}")
            time.sleep(_LOOK)

    def result(self, timeout: float | None = None) -> AltReLURegressor | AltReLUClassifier:
        """Wait for its end, and load what it has trained.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which it is no longer waited for.

        Returns
        -------
        AltReLURegressor or AltReLUClassifier
            Of a job that was cancelled, the best network that it had found.

        Raises
        ------
        JobError
            If it failed or is lost.
        TimeoutError
        """
        *_, last = self.follow(timeout)
        if last.state in ("failed", "lost"):
            failure = last.failure
            raise JobError(f"job {self.id} {_IS[last.state]}: {failure.finding}", *failure.remedies)
        if "out" not in last.result:
            raise JobError(
                f"job {self.id} was cancelled before it saved; fetch has the best network so far, "
                "if it had found one"
            )
        return load_model(last.result["out"])

    def cancel(self) -> None:
        """Have it end at its next step; the best network so far is saved at its output.

        One without a sign of life stays ``"lost"`` for as long as it may be alive, and ends should
        it go on.
        """
        status = self.status()
        if status.ended:
            return
        self._folder.ask_to_stop()
        if status.state == "running":
            return
        if self._client is not None:
            _, tasks = tasks_of(self.id, self._client)
            waiting = [key for key, state in tasks.items() if state in _NOT_BEGUN]
            self._client.cancel(waiting, force=True)
        if status.state == "queued" or not self._doubt(status):
            self._folder.write_status(replace(status, state="cancelled", updated=time.time()))

    def _doubt(self, status: JobStatus) -> str:
        """Why a job without a sign of life may be alive, and what to do; empty if it is not."""
        gone = f"take it up on another cluster, or remove {self._folder.address}"
        if self._client is None:
            return (
                "only its scheduler knows whether its task is still there: connect to that one; "
                f"if it is gone for good, {gone}"
            )
        scheduler_id, tasks = tasks_of(self.id, self._client)
        if not _DONE.issuperset(tasks.values()):
            where = f" (last seen at {status.worker})" if status.worker else ""
            return (
                f"its scheduler still has its task; its worker{where} may only be frozen or cut "
                "off: end that worker, and cancel the job"
            )
        address = self._client.scheduler.address
        if status.scheduler_id not in ("", scheduler_id) and status.scheduler != address:
            return (
                f"it was given to the scheduler at {status.scheduler}: connect to that one; if it "
                f"is gone for good, {gone}"
            )
        return ""

    def resume(self) -> None:
        """Take a job up again that failed, was lost or cancelled: on this client's cluster.

        Raises
        ------
        JobError
            If it is running, or has finished.
        ClusterError
            If there is no client.
        """
        status = self.status()
        if status.state in ("queued", "running", "finished"):
            raise JobError(f"job {self.id} is {status.state}: there is nothing to take up")
        if self._client is None:
            raise ClusterError("a job is taken up by a cluster, and no Dask client is there")
        self._folder.do_not_stop()
        scheduler_id, _ = tasks_of(self.id, self._client)
        again = replace(
            status,
            state="queued",
            updated=time.time(),
            error="",
            remedies=[],
            scheduler=self._client.scheduler.address,
            scheduler_id=scheduler_id,
        )
        self._folder.write_status(again)
        start(self._folder, self.id, self._client, status.attempts)
        registry.remember(self.id, self._folder.address, self._client)

    def fetch(self, destination: str | os.PathLike[str], *, overwrite: bool = False) -> bool:
        """Copy its network, or the best so far where it has none: half a minute old at most.

        Parameters
        ----------
        destination : path
            On this machine, or any address that fsspec knows.
        overwrite : bool, default False

        Returns
        -------
        bool
            Whether it is the network that it ended with.

        Raises
        ------
        JobError
            If it has found none yet.
        ExistsError, DataError
            As `Network.save`.
        """
        from altrelu_dist.network import Network

        result = self.status().result
        problem: ModelFileError | None = None
        for final, address in ((True, result.get("out")), (False, self._folder.best)):
            if address is None:
                continue
            try:
                network = Network.load(address)
            except ModelFileError as error:  # somebody moved it, say
                problem = problem or error
                continue
            network.save(destination, overwrite=overwrite)
            return final
        raise JobError(f"job {self.id} has no network yet: {problem}") from problem

    def forget(self) -> None:
        """Remove what is kept of it: its log, status and checkpoints, not its output.

        Raises
        ------
        JobError
            If it is running; or gives no sign of life, and its scheduler is not known or still has
            its task: then it may go on.
        """
        status = self.status()
        if status.state in ("queued", "running"):
            raise JobError(f"job {self.id} is {status.state}: cancel it first")
        if status.state == "lost" and (doubt := self._doubt(status)):
            raise JobError(f"job {self.id} gives no sign of life, but may be alive: {doubt}")
        self._folder.remove()
        registry.forget(self.id, self._client)


# States of a task at Dask's scheduler.
_NOT_BEGUN = {"waiting", "queued", "no-worker"}
_DONE = {"released", "memory", "erred", "forgotten"}
_IS = {"failed": "failed", "lost": "is lost"}


def submit(
    data: str | os.PathLike[str],
    n_hidden: int | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    client: Client | None = None,
    **options: Any,
) -> Job:
    """Train in a cluster, and return at once: the run goes on whatever becomes of this process.

    Parameters
    ----------
    data : path
        As `open_dataset`; where all workers see it.
    n_hidden : int, optional
        Of one plain network; by default a committee is trained, as by `AltReLURegressor`.
    out : path
        Where the network goes; where all workers see it. What is kept of the job is beside it.
    client : distributed.Client, optional
        Of the cluster; by default the current one.
    **options
        As those of ``altrelu train``: ``method``, ``max_size``, ``target``, ``classes``,
        ``weight``, ``seed``, ``test_fraction``, ``early_stopping``, ``max_iter``, ``max_time``,
        ``overwrite``, ...

    Returns
    -------
    Job

    Raises
    ------
    ClusterError
        If there is no client.
    ParameterError, DataError, ExistsError
        If something is wrong with the parameters, the data or the output; or another job writes
        there.
    """
    client = client or current_client()
    if client is None:
        raise ClusterError("a job is submitted to a cluster, and no Dask client is there")
    known = {field.name for field in fields(TrainOptions)}
    if unknown := sorted(options.keys() - known):
        raise ParameterError(f"{unknown[0]}: no such option; there are {', '.join(sorted(known))}")
    if out is None:
        raise ParameterError("is missing; say where the network goes", parameter="out")
    wanted = TrainOptions(os.fspath(data), n_hidden, os.fspath(out), **options)
    return submit_options(wanted, client)


def submit_options(options: TrainOptions, client: Client) -> Job:
    """The same, of the options of the command."""
    options = options.from_anywhere()
    if options.checkpoint is not None:
        raise ParameterError("checkpoint: a job has its own, beside its output")
    for address in filter(None, (options.store, options.out, options.warm_start)):
        if has_secret(address):
            raise ParameterError(
                f"{address}: holds a secret, which everybody in the cluster would see; give it to "
                "the workers by their environment or fsspec's configuration"
            )
    check_apart_from_jobs(options.out, options.warm_start)
    prepared(options)
    warn_of_exposure(client)
    spec = JobSpec(
        id=secrets.token_hex(4),
        options=options,
        by=f"{_user()}@{socket.gethostname()}",
        submitted=time.time(),
        version=__version__,
    )
    return Job._new(spec, client)


def jobs(client: Client | None = None) -> list[Job]:
    """All jobs that the scheduler or this user's machine knows of, the oldest first."""
    client = client or current_client()
    found = []
    for address in dict.fromkeys(registry.known(client).values()):
        try:
            found.append(Job(address, client))
        except AltReLUError:  # its folder is gone
            continue
    return sorted(found, key=lambda job: job.submitted)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
