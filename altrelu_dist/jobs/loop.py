"""The training loop of a job, in a task of the cluster: another worker takes it up if one dies."""

from __future__ import annotations

import io
import math
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, RenderableType

from altrelu_dist.addresses import without_secrets
from altrelu_dist.checkpoints.store import CheckpointStore, InUseError
from altrelu_dist.cluster_errors import explained
from altrelu_dist.data.retrying import patiently
from altrelu_dist.errors import AltReLUError, ClusterError, JobError, Remedy
from altrelu_dist.interrupts import Interrupts
from altrelu_dist.jobs.folder import JobFolder, JobSpec
from altrelu_dist.network import Network
from altrelu_dist.runs.output import Output, plain
from altrelu_dist.runs.progress import Lines, Watch
from altrelu_dist.runs.training import Prepared, prepared

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.training.progress import Progress

__all__ = ["start", "tasks_of"]

_BEAT = 2.0  # seconds between two looks at what is asked, and reports of how far it is
_BEST = 20.0  # seconds between two times that the best network so far is kept
_PATIENCE = 150.0  # seconds for the lock of an owner that died elsewhere to lapse
_TRIES = 60
_KEY = "job"  # in the network's info
_FORGOTTEN = "forgotten"
_LOOP = "altrelu-job-"  # what the keys of loops begin with


def start(folder: JobFolder, id_: str, client: Client, attempts: int = 0) -> None:
    """Begin the loop of a job; its task is nobody's, so that it stays when this client goes.

    Parameters
    ----------
    folder : JobFolder
    id_ : str
        The job's.
    client : distributed.Client
    attempts : int, default 0
        How often it was begun before.
    """
    from distributed import fire_and_forget

    # Dask does not count the memory of a loop: two go to two workers, where there are so many.
    running = client.processing()
    without = [worker for worker, keys in running.items() if not any(map(_is_loop, keys))]
    begun = client.submit(
        _run,
        folder.address,
        id_,
        attempts,
        key=f"{_LOOP}{id_}-{attempts}",  # a new one each time it is begun anew
        pure=False,
        workers=without or None,
        allow_other_workers=bool(without),
    )
    fire_and_forget(begun)


def tasks_of(id_: str, client: Client) -> tuple[str, dict[str, str]]:
    """Dask's name of the scheduler, and the states of a job's tasks there by their keys.

    Parameters
    ----------
    id_ : str
        The job's.
    client : distributed.Client
    """
    begins = f"{_LOOP}{id_}-"

    def found(dask_scheduler: Any = None) -> tuple[str, dict[str, str]]:  # nested: it travels whole
        states = {str(key): str(task.state) for key, task in dask_scheduler.tasks.items()}
        return dask_scheduler.id, {k: v for k, v in states.items() if k.startswith(begins)}

    answer: tuple[str, dict[str, str]] = client.run_on_scheduler(found)
    return answer


def _is_loop(key: object) -> bool:
    return isinstance(key, str) and key.startswith(_LOOP)


def _run(address: str, id_: str, attempts: int) -> None:
    """Run the job of a folder, or go on with it; a task of Dask.

    It leaves the pool of its worker, which goes on with other tasks beside it. The loop has a
    thread of its own: what a task's thread submits, Dask puts before all that clients submit, and
    their runs would have what jobs leave.
    """
    from distributed import get_client, get_worker, secede

    worker = str(get_worker().address)
    client = get_client()
    secede()
    folder = JobFolder(address, id_)
    if not patiently(lambda: folder.is_current):  # forgotten before it began
        return
    loop = patiently(lambda: _Loop(folder, client, worker))
    if loop.has_come_on(attempts):
        loop.start_anew()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="altrelu-job") as alone:
        alone.submit(loop.run).result()


class _Watch(Watch):
    """Ends a run that is nobody's any more, and has it save nothing."""

    abandoned = ""

    def __call__(self, progress: Progress) -> bool:
        if self.abandoned:
            raise JobError(f"the job was {self.abandoned}: nothing is saved")
        return super().__call__(progress)


class _Loop:
    def __init__(self, folder: JobFolder, client: Client, worker: str) -> None:
        self._folder, self._client = folder, client
        self._spec = folder.spec()
        self._before = before = folder.status()
        self._log = _Log.after(folder.log())
        self._logged = -1
        self._status = replace(
            before,
            state="running",
            worker=worker,
            attempts=before.attempts + 1,
            resumed_from=CheckpointStore(self._folder.checkpoint).newest,
            started=before.started or time.time(),
            error="",
        )
        self._watch = _Watch(Interrupts(), self._spec.options.max_time, Lines(self._log))
        self._kept: Network | None = None
        self._ready: Prepared | None = None

    def has_come_on(self, attempts: int) -> bool:
        """Whether the worker that had this task has died, and the run came on before it did."""
        before, now = self._before, self._status
        return before.attempts > attempts and now.resumed_from > before.resumed_from

    def start_anew(self) -> None:
        """Go on in a new task: Dask gives one up after so many deaths, whatever was done between.

        A run that dies without coming on is given up as Dask is set to.
        """
        start(self._folder, self._spec.id, self._client, self._before.attempts)

    def run(self) -> None:
        """Run to an end, which the folder tells of."""
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        beat.start()
        state, error = "finished", ""
        remedies: tuple[Remedy, ...] = ()
        try:
            with explained(self._client):
                if self._train():
                    state = "cancelled"
        except AltReLUError as failure:
            state = "lost" if isinstance(failure, ClusterError) else "failed"
            error = str(JobError(failure.finding, parameter=failure.parameter))
            remedies = failure.remedies
        except Exception as failure:  # noqa: BLE001 - whatever it is, somebody wants to know
            state, error = "failed", f"{type(failure).__name__}: {' '.join(str(failure).split())}"
            self._log.warn(traceback.format_exc())
        finally:
            ended.set()
            beat.join()
        if error:
            self._log.warn(f"{state}: {error}")
        for result in self._log.results:
            self._status = replace(self._status, result=dict(result))
        names = [remedy.name for remedy in remedies]
        self._status = replace(self._status, state=state, error=error, remedies=names)
        for _ in range(_TRIES):  # storage may be away for a while
            try:
                self._report()
                if self._watch.abandoned == _FORGOTTEN:  # and what it wrote since then
                    self._folder.remove()
            except (OSError, AltReLUError):
                time.sleep(_BEAT)
            else:
                break

    def _train(self) -> bool:
        """Train; whether the job was asked to stop."""
        options = replace(self._spec.options, checkpoint=self._folder.checkpoint)
        resume = self._status.resumed_from > 0
        if _is_ours(options.out, self._spec):  # it was saved, and not yet told of
            options = replace(options, overwrite=True)
        if self._status.attempts > 1:
            self._log.note(f"taken up by {self._status.worker}")
        ready = prepared(options, resume=resume)
        ready.info[_KEY] = self._spec.id
        self._ready = ready
        self._log.note(ready.about)
        ends = time.monotonic() + _PATIENCE
        while True:
            try:
                return bool(ready.run(self._log, self._client, self._watching))
            except InUseError:
                if time.monotonic() > ends:
                    raise
                time.sleep(_BEAT)

    @contextmanager
    def _watching(self) -> Iterator[Watch]:
        yield self._watch

    def _beat(self, ended: threading.Event) -> None:
        """Tell how far the run is, and ask it to stop, for as long as it goes on."""
        due, pause = 0.0, 0.0
        while not ended.wait(pause):
            pause = _BEAT
            with suppress(OSError, AltReLUError):  # storage may be away for a while
                if self._folder.asked_to_stop:
                    self._watch.interrupts.requested = True
                self._report()
                if self._watch.abandoned:
                    continue
                if time.monotonic() > due and self._keep_best():
                    due = time.monotonic() + _BEST

    def _report(self) -> None:
        """Tell how far it is, unless this process was taken for dead and the job is another's."""
        if not self._folder.is_current:
            self._watch.abandoned = _FORGOTTEN
        elif self._folder.status().attempts > self._status.attempts:
            self._watch.abandoned = "taken up by another worker"
        if self._watch.abandoned:
            return
        now: Progress | None = self._watch.last
        status = replace(self._status, updated=time.time())
        if now is not None:
            left = self._watch.left
            status = replace(
                status,
                stage=now.stage,
                iteration=now.iteration,
                passes=now.passes,
                loss=_finite(now.loss),
                fraction=_finite(now.fraction),
                seconds=self._watch.elapsed,
                expected_end=time.time() + left
                if math.isfinite(left) and not status.ended
                else None,
            )
        self._status = status
        self._folder.write_status(status)
        if self._log.text.tell() != self._logged:
            self._logged = self._log.text.tell()
            self._folder.write_log(self._log.text.getvalue())

    def _keep_best(self) -> bool:
        """Keep what the run would end with now; whether there is anything."""
        network = None if self._ready is None else self._ready.model.network_so_far()
        if network is None:
            return False
        kept = self._kept
        layers = ("hidden_weights", "output_weights")
        if kept is None or not all(
            np.array_equal(getattr(kept, layer), getattr(network, layer)) for layer in layers
        ):
            network.save(self._folder.best, overwrite=True)
            self._kept = network
        return True


@dataclass(frozen=True)
class _Log(Output):
    """What a run says, as text, and its result."""

    text: io.StringIO = field(default_factory=io.StringIO)
    results: list[Mapping[str, Any]] = field(default_factory=list)

    @classmethod
    def after(cls, before: str) -> _Log:
        text = io.StringIO()
        text.write(before)
        return cls(progress=Console(file=text, width=160, highlight=False), text=text)

    def result(self, record: Mapping[str, Any], *text: RenderableType) -> None:
        self.results.append(plain(record))
        for part in text:
            self.progress.print(without_secrets(part) if isinstance(part, str) else part)


def _is_ours(out: str, spec: JobSpec) -> bool:
    """Whether the network at an address is the one that this job wrote before."""
    try:
        return Network.load(out).info.get(_KEY) == spec.id
    except AltReLUError:
        return False


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
