"""Several hosts on one machine: network namespaces, each with a cable to a switch of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from clusters import HERE, HOME, until
from forks import DASK, ONE_THREAD, Forked


class Host:
    """A namespace with an address, and a cable from its `eth0` to a port of the switch."""

    def __init__(self, number, switch, name):
        self.name, self.address = name, f"10.213.8.{number + 2}"
        self._port = f"port{number}"
        self._ends = {"host": (name, "eth0"), "switch": (switch, self._port)}

    def connect(self):
        switch, _ = self._ends["switch"]
        cable = ("type", "veth", "peer", "name", "eth0", "netns", self.name)
        _run("ip", "netns", "add", self.name)
        _run("ip", "-n", switch, "link", "add", self._port, *cable)
        _run("ip", "-n", switch, "link", "set", self._port, "master", "br0", "up")
        _run("ip", "-n", self.name, "link", "set", "lo", "up")
        _run("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _run("ip", "-n", self.name, "link", "set", "eth0", "up")

    def cut(self, end):
        """Take the cable out of the switch, or the host's own interface down."""
        name, device = self._ends[end]
        _run("ip", "-n", name, "link", "set", device, "down")

    def mend(self, end):
        name, device = self._ends[end]
        _run("ip", "-n", name, "link", "set", device, "up")

    def limit(self, rate, delay=None):
        """Let no more than a rate through, and that late, in either direction."""
        for name, device in self._ends.values():
            add = ("tc", "-n", name, "qdisc", "add", "dev", device)
            _run(
                *add, "root", "handle", "1:", "tbf", "rate", rate, "burst", "32kb", "latency", "1s"
            )
            if delay is not None:
                _run(*add, "parent", "1:1", "handle", "2:", "netem", "delay", delay)

    @property
    def held_back(self):
        """How often a packet had to wait for the limit, in either direction."""
        counts = []
        for name, device in self._ends.values():
            said = _run("tc", "-n", name, "-s", "-j", "qdisc", "show", "dev", device)
            counts += [q["overlimits"] for q in json.loads(said) if q["kind"] == "tbf"]
        return counts

    @property
    def bytes(self):
        """What has come in through the cable and gone out, as `ip -s link` counts it."""
        name, device = self._ends["host"]
        stats = json.loads(_run("ip", "-n", name, "-s", "-j", "link", "show", "dev", device))
        return tuple(stats[0]["stats64"][way]["bytes"] for way in ("rx", "tx"))


class Network:
    """Hosts that reach each other, and nothing else; all is gone after the block.

    The switch is a bridge in a namespace of its own, so that this machine's interfaces and
    addresses stay as they are.

    Parameters
    ----------
    count : int
        Of the hosts.
    """

    def __init__(self, count):
        self._prefix = f"altrelu-{os.getpid()}-"
        self._switch = f"{self._prefix}switch"
        self.hosts = [Host(i, self._switch, f"{self._prefix}host{i}") for i in range(count)]

    def __enter__(self):
        if os.geteuid() != 0:
            pytest.skip("only root makes network namespaces")
        if not (shutil.which("ip") and shutil.which("tc")):
            pytest.skip("there is no ip or no tc (Debian: iproute2)")
        _remove_what_was_left()
        try:
            _run("ip", "netns", "add", self._switch)
            _run("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", "br0", "up")
            for host in self.hosts:
                host.connect()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no network of namespaces can be made here: {error.stderr}")
        return self

    def __exit__(self, *_):
        for name in [*(host.name for host in self.hosts), self._switch]:
            _remove(name)

    @property
    def delays(self):
        """Whether the kernel can delay packets."""
        add = ("tc", "-n", self._switch, "qdisc", "add", "dev", "br0", "root", "netem")
        with contextlib.suppress(subprocess.CalledProcessError):
            _run(*add, "delay", "1ms")
            _run("tc", "-n", self._switch, "qdisc", "del", "dev", "br0", "root")
            return True
        return False


def _remove_what_was_left():
    """By tests that were killed: their processes too."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split()[0] if line.split() else ""
        owner = name.split("-")[1] if name.startswith("altrelu-") and name.count("-") == 2 else ""
        if owner.isdigit() and not _runs(owner):
            for pid in _run("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _remove(name)


def _runs(pid):
    """Whether there is such a process, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def _remove(name):
    with contextlib.suppress(subprocess.CalledProcessError):
        _run("ip", "netns", "del", name)


def _run(*command):
    """Run a command; what it says."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


class ClusterOnHosts:
    """A scheduler on the first host and a worker on each of the others; all end with the block.

    Parameters
    ----------
    hosts : list of Host
    folder : Path
        That all hosts share; for logs too.
    """

    def __init__(self, hosts, folder):
        self.hosts, self.folder = hosts, folder
        self.file = folder / "scheduler.json"
        self._processes = {}

    def __enter__(self):
        try:
            self._start("scheduler", self.hosts[0], "scheduler", "--port", "8786")
            until(self.file.exists, "the scheduler's file")
            for number, host in enumerate(self.hosts[1:], start=1):
                self._start(
                    *(f"worker-{number}", host, "worker", "--name", f"worker-{number}"),
                    *("--nthreads", "1", "--memory-limit", "1GiB", "--no-nanny"),
                    *("--local-directory", str(self.folder)),
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def _start(self, name, host, *command):
        where = ("--host", host.address, "--no-dashboard", "--scheduler-file", str(self.file))
        with (self.folder / f"{name}.log").open("w") as log:
            self._processes[name] = Forked(
                *(DASK, [*command, *where]),
                env=_environment(), cwd=self.folder, log=log, namespace=host.name,
            )  # fmt: skip


class Conversation:
    """A Python process on a host, which says one JSON object a line and waits for an answer.

    Parameters
    ----------
    host : Host
    script : Path
    limit : float
        Seconds after which it is killed.
    """

    def __init__(self, host, script, limit):
        self._process = Forked(script, [], env=_environment(), stdin=True, namespace=host.name)
        self._end = threading.Timer(limit, self._process.kill)
        self._end.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def __iter__(self):
        """What it says, until it ends; it is told to go on after each line."""
        for line in self._process.stdout:
            yield json.loads(line)
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write("\n")
                self._process.stdin.flush()
        assert self._process.wait(30) == 0, self._process.stderr.read()


def _environment():
    paths = os.pathsep.join(filter(None, [HERE, HOME, os.environ.get("PYTHONPATH", "")]))
    return os.environ | ONE_THREAD | {"PYTHONPATH": paths}
