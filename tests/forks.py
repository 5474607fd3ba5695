"""Processes that begin at once: forked from one that has imported Dask and this package.

An import of scikit-learn and Dask takes longer than most of what the tests run. The processes are
as real as others: each has its own memory, signals and files, and can be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import types
from multiprocessing.connection import Connection
from unittest.mock import patch

import dask
from distributed import utils

COMMAND = "altrelu_dist.cli:main"
DASK = "dask.__main__:main"
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = [
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "dask.__main__",
    "dask.dataframe",
    "zarr",
    "altrelu_dist.estimators",
    "altrelu_dist.jobs",
    *(f"altrelu_dist.cli.{name}" for name in ("app", "train", "convert", "evaluate", "predict")),
]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def ready():
    """Have the process run from which others are forked."""
    CONTEXT.set_forkserver_preload(IMPORTED)
    utils._forkserver_preload_set = True  # Dask would have fewer modules imported
    with patch.dict(os.environ, ONE_THREAD):
        for name in [name for name in os.environ if name.startswith("DASK_")]:
            del os.environ[name]  # each process has settings of its own
        multiprocessing.forkserver.ensure_running()


def dask_workers():
    """Have the workers of a `LocalCluster` begin as forks, within the block."""
    ready()
    return dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})


class Forked:
    """A program's process, used as that of `subprocess.Popen`.

    Parameters
    ----------
    main : str
        The function that is the program, ``"module:name"``, or a script's path.
    arguments : sequence
        After the program's name.
    env : mapping
        Of the process; it has no other variables.
    cwd : path, optional
    log : file, optional
        For all that it says; without, `stdout` and `stderr` are read by who started it.
    stdin : bool
        Whether who started it writes to it; without, it reads nothing.
    namespace : str, optional
        Of a network, by the name that `ip netns` knows.
    """

    def __init__(self, main, arguments, *, env, cwd=None, log=None, stdin=False, namespace=None):
        ready()
        self.args = [str(main), *map(str, arguments)]
        self.stdin = self.stdout = self.stderr = read = None
        if stdin:
            read, write = CONTEXT.Pipe(duplex=False)
            self.stdin = os.fdopen(os.dup(write.fileno()), "w")
            write.close()
        if log is None:
            readers, ends = zip(*(CONTEXT.Pipe(duplex=False) for _ in range(2)), strict=True)
            self.stdout, self.stderr = (os.fdopen(os.dup(one.fileno())) for one in readers)
            for one in readers:
                one.close()
        else:
            ends = [Connection(os.dup(log.fileno()), readable=False) for _ in range(2)]
        ends = [read, *ends]
        given = (self.args, dict(env), str(cwd or os.getcwd()), namespace, ends)
        self._process = CONTEXT.Process(target=_run, args=given)
        self._process.start()
        for end in filter(None, ends):
            end.close()
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.kill()
        self.wait()
        self._close()

    def _close(self):
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for its end; what it said on both streams since they were read last."""
        ends = None if timeout is None else time.monotonic() + timeout
        said = {}

        def read(stream):
            said[stream] = stream.read()

        threads = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for stream in (self.stdout, self.stderr)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if ends is None else max(0.0, ends - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if ends is None else max(1.0, ends - time.monotonic()))
        self._close()
        return said[self.stdout], said[self.stderr]

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def _run(arguments, environment, folder, namespace, ends):
    """Be the program, in a session of its own."""
    os.setsid()
    # No child of pytest's, but a program of its own.
    sys.modules["__main__"] = types.ModuleType("__main__")
    multiprocessing.process._parent_process = None
    for number, end in enumerate(ends):
        if end is not None:
            os.dup2(end.fileno(), number)
            end.close()
    if ends[0] is not None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process is there
    if namespace is not None:
        _enter(namespace)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dask.config.paths[:] = dask.config._get_paths()
    dask.config.refresh()
    sys.argv = arguments
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    try:
        if arguments[0].endswith(".py"):
            sys.path.insert(0, os.path.dirname(arguments[0]))
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            module, _, name = arguments[0].partition(":")
            getattr(importlib.import_module(module), name)()
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _enter(namespace):
    """Go to the network of a namespace (`os.setns` is of Python 3.12)."""
    with open(f"/run/netns/{namespace}") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), f"namespace {namespace} cannot be entered")
