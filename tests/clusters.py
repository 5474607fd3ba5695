"""A Dask cluster of real processes on loopback, in which each can be stopped and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, WorkerPlugin
from forks import DASK, ONE_THREAD, Forked, dask_workers

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


@contextlib.contextmanager
def local_cluster(n_workers, threads_per_worker=1, **options):
    """A client of so many worker processes on loopback."""
    options |= {"n_workers": n_workers, "threads_per_worker": threads_per_worker}
    with (
        dask_workers(),
        LocalCluster(host="127.0.0.1", dashboard_address="127.0.0.1:0", **options) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(n_workers, timeout=60)
        yield client


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
    memory : str
        The limit of a worker.
    host : Namespace, optional
        Another host that they run on.
    """

    def __init__(self, folder, workers=2, settings=None, *, nanny=False, memory="0", host=None):
        self.folder, self._settings, self._nanny = folder, settings or {}, nanny
        self._memory, self._host = memory, host
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
            if workers:
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
        env = os.environ | ONE_THREAD | {"PYTHONPATH": paths} | self._settings | (settings or {})
        host = "127.0.0.1" if self._host is None else self._host.address
        words = (what, "--host", host, "--no-dashboard", "--scheduler-file", file, *arguments)
        with (self.folder / f"{what}-{self._started}.log").open("w") as log:
            name = None if self._host is None else self._host.name
            return Forked(DASK, words, env=env, cwd=self.folder, log=log, namespace=name)


class Namespace:
    """A network namespace, which is to this machine as another host; it is gone after the block."""

    address, _here = "10.213.7.2", "10.213.7.1"
    name = "altrelu-test"

    def __enter__(self):
        self.__exit__()  # what a test that was killed left behind
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", "altrelu0", "type", "veth", "peer", "altrelu1", "netns", self.name)
            for name, address, of in self._sides():
                _ip("addr", "add", f"{address}/30", "dev", name, of=of)
                _ip("link", "set", name, "up", of=of)
            _ip("link", "set", "lo", "up", of=self.name)
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            pytest.skip(f"no network namespace can be made here: {error}")
        return self

    def __exit__(self, *_):
        for what in (("link", "del", "altrelu0"), ("netns", "del", self.name)):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                _ip(*what)

    def cut(self):
        """Let no packet arrive, in either direction, and no error be told."""
        (here, _, _), (there, _, of) = self._sides()
        wrong = ("lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev")
        _ip("neigh", "replace", self.address, *wrong, here)
        _ip("neigh", "replace", self._here, *wrong, there, of=of)

    def mend(self):
        """Let packets arrive again."""
        (here, _, _), (there, _, of) = self._sides()
        _ip("neigh", "del", self.address, "dev", here)
        _ip("neigh", "del", self._here, "dev", there, of=of)

    def _sides(self):
        return ("altrelu0", self._here, None), ("altrelu1", self.address, self.name)


def _ip(*arguments, of=None):
    """Run `ip`, in a namespace where one is named."""
    where = () if of is None else ("-n", of)
    subprocess.run(["ip", *where, *arguments], check=True, capture_output=True, timeout=30)


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
