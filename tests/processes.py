"""Processes as a user starts them, to be killed: the command, schedulers, workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import trustme
from forks import COMMAND, DASK, ONE_THREAD, Forked
from typer.testing import CliRunner

import altrelu_dist
from altrelu_dist.cli.app import app

ALTRELU = [sys.executable, "-c", "from altrelu_dist.cli import main; main()"]
HOME = str(Path(altrelu_dist.__file__).parents[1])


def environment(*first):
    """The environment of a process that finds this package, after the folders named first."""
    paths = [*map(str, first), HOME, os.environ.get("PYTHONPATH", "")]
    return os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start(*arguments):
    """Start a command; it is killed with its workers by its process group."""
    return Forked(COMMAND, arguments, env=environment())


def run(*arguments, timeout=240):
    with start(*arguments) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert "Traceback" not in stderr, stderr
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def passes(*arguments, timeout=240):
    done = run(*arguments, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done


def quickly(*arguments, code=0):
    """Run a command in this process: where only the cluster has to be real."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def wait_for(process, word):
    """Read what a process says until the word comes."""
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


@contextlib.contextmanager
def dask_process(folder, *arguments, first=()):
    """A `dask scheduler` or `dask worker` process."""
    with (folder / f"{arguments[0]}.log").open("w") as log:
        process = (
            subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                stdout=log, stderr=log, cwd=folder, env=environment(*first),
            )
            if first  # with modules that are to be found before all others
            else Forked(DASK, arguments, env=environment(), cwd=folder, log=log)
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def dask_cluster(folder, first=(), tls=()):
    """The address of a scheduler with one worker; modules in `first` come first in the worker."""
    file = folder / "scheduler.json"
    local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file), *tls]
    worker = ["worker", *local, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
    secure = ["--protocol", "tls"] if tls else []
    with dask_process(folder, "scheduler", "--port", "0", *secure, *local) as scheduler:
        for _ in range(600):
            if file.exists():
                break
            assert scheduler.poll() is None
            time.sleep(0.1)
        with dask_process(folder, *worker, first=first):
            yield json.loads(file.read_text())["address"]


def certificates(folder, name):
    """The options that name a new authority's certificate, and one signed by it with its key."""
    authority = trustme.CA()
    signed = authority.issue_cert("127.0.0.1")
    ca, cert, key = (str(folder / f"{name}-{part}.pem") for part in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)
    signed.cert_chain_pems[0].write_to_path(cert)
    signed.private_key_pem.write_to_path(key)
    return ["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key]


def listening(process):
    """The addresses at which a process and its children listen."""
    family = {process.pid, *(child.pid for child in psutil.Process(process.pid).children(True))}
    return {
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in family
    }


def scheduler_at(address):
    """The process that listens there."""
    port = int(address.rpartition(":")[2])
    return next(
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    )


def slow_reads(folder):
    """Where a module lies with which each read of a worker takes a tenth of a second."""
    slow = folder / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import time\n"
        "def patch():\n"
        "    from altrelu_dist.data import zarr_rows\n"
        "    read = zarr_rows.ZarrRows.read\n"
        "    def late(self, *a):\n"
        "        time.sleep(0.1)\n"
        "        return read(self, *a)\n"
        "    zarr_rows.ZarrRows.read = late\n"
        "import threading\n"
        "threading.Timer(0.0, patch).start()\n"
    )
    return (slow,)
