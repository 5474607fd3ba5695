"""A Dask cluster of real processes on loopback, in which each can be stopped and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from distributed import Client, WorkerPlugin

import altrelu_dist

HOME = str(Path(altrelu_dist.__file__).parents[1])
HERE = str(Path(__file__).parent)


def until(condition, what, seconds=60.0):
    """Wait for a condition, and give what it gives."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Processes:
    """A `dask scheduler` and `dask worker` processes; all end with the block.

    Parameters
    ----------
    folder : Path
        For their logs and scratch files.
    workers : int
    settings : dict, optional
        Environment variables, of Dask's configuration.
    nanny : bool
        Whether a worker that dies is started again.
    """

    def __init__(self, folder, workers=2, settings=None, *, nanny=False, memory="0"):
        self.folder, self._settings, self._nanny = folder, settings or {}, nanny
        self._memory = memory
        self._started = 0
        self.workers = {}  # by name
        self.client = None
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self.scheduler = self._start("scheduler", "--port", "0")
            file = self.folder / "scheduler.json"
            until(file.exists, "the scheduler's file")
            for _ in range(workers):
                self.add()
            self.client = Client(scheduler_file=str(file), timeout=60)
            self.client.wait_for_workers(workers, timeout=60)
            stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.client is not None:
            self.client.close(timeout=5)
        for process in [*self.workers.values(), self.scheduler]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def add(self, **settings):
        """Start another worker; its process."""
        name = f"worker-{self._started}"
        self._started += 1
        nanny = [] if self._nanny else ["--no-nanny"]
        self.workers[name] = self._start(
            *("worker", "--nthreads", "1", "--name", name, "--memory-limit", self._memory),
            *("--local-directory", str(self.folder)),
            *nanny,
            settings=settings,
        )
        return self.workers[name]

    def _start(self, what, *arguments, settings=None):
        file = str(self.folder / "scheduler.json")
        paths = os.pathsep.join([HERE, HOME, os.environ.get("PYTHONPATH", "")])
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (self.folder / f"{what}-{self._started}.log").open("w") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "dask", what, "--host", "127.0.0.1"),
                    *("--no-dashboard", "--scheduler-file", file, *arguments),
                ],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env=os.environ | one | {"PYTHONPATH": paths} | self._settings | (settings or {}),
            )  # fmt: skip


class Trap(WorkerPlugin):
    """Sends a signal to the first worker on which a task comes to a state; it is sprung once.

    Parameters
    ----------
    folder : Path
        Where the trap is set: one worker takes its file away, and with it the others' chance.
    word : str
        In the key of the task.
    number : int
        The signal.
    state : str
        ``"executing"``: the worker is hit in the middle of the task; ``"memory"``: when it holds
        the result.
    """

    def __init__(self, folder, word, number, state="executing"):
        self.name = f"trap-{word}-{state}"
        self.file, self.word, self.number, self.state = folder / self.name, word, number, state
        self.file.touch()

    @property
    def sprung(self):
        """The process that was hit; None if none was yet."""
        taken = self.file.with_suffix(".sprung")
        return int(taken.read_text() or 0) if taken.exists() else None

    def transition(self, key, start, finish, **_):
        del start
        if finish != self.state or self.word not in str(key):
            return
        taken = self.file.with_suffix(".sprung")
        try:
            self.file.rename(taken)
        except FileNotFoundError:
            return
        taken.write_text(str(os.getpid()))
        os.kill(os.getpid(), self.number)
