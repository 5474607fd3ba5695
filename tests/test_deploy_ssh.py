"""The files of deploy/ssh with a real sshd on loopback, which is two hosts by its addresses."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from clusters import until
from processes import HOME, environment, passes, run

import altrelu_dist
from altrelu_dist.network import Network

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DEPLOY = Path(HOME) / "deploy" / "ssh"
HOSTS = ("127.0.0.1", "127.0.0.2")
QUICK = ("--hidden", 3, "--max-iter", 1, "--seed", 5)
_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
ListenAddress 127.0.0.2
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/mine.pub
AuthenticationMethods publickey
AllowUsers {user}
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PermitUserRC no
SetEnv {settings}
"""
_SSH = """\
Host *
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    IdentitiesOnly yes
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Hosts:
    """An sshd with its own keys; it, and all that was started through it, ends with the block."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.config = folder / "dask"
        self._daemon = self._made = None

    def __enter__(self):
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None or shutil.which("ssh") is None:
            pytest.skip("needs OpenSSH (openssh-server, openssh-client)")
        for name in ("host", "mine", "other"):
            key = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
            subprocess.run(key, check=True, timeout=30)
        self.know("host")
        self._settings()
        mine = environment()
        settings = {name: mine[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
        settings["DASK_CONFIG"] = str(self.config)
        quoted = " ".join(f'"{name}={value}"' for name, value in settings.items())
        (self.folder / "sshd_config").write_text(
            _SSHD.format(
                port=self.port, folder=self.folder, user=getpass.getuser(), settings=quoted
            )
        )
        (self.folder / "ssh_config").write_text(_SSH.format(folder=self.folder))
        separation = Path("/run/sshd")  # without which root's sshd does not start
        if os.getuid() == 0 and not separation.exists():
            separation.mkdir(mode=0o755)
            self._made = separation
        with (self.folder / "sshd.log").open("w") as log:
            self._daemon = subprocess.Popen(
                [program, "-D", "-e", "-f", self.folder / "sshd_config"], stdout=log, stderr=log
            )
        try:
            until(self._answers, "sshd", 30)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in [*psutil.Process(self._daemon.pid).children(recursive=True), *self.dask()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._daemon.kill()
        self._daemon.wait(30)
        if self._made is not None:
            self._made.rmdir()

    @property
    def environment(self):
        """Of whoever uses them."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        hosts = self.folder / "hosts.txt"
        hosts.write_text("# two\n" + "".join(f"{host} # here\n" for host in HOSTS))
        return environment() | {
            "PATH": path,
            "DASK_CONFIG": str(self.config),
            "ALTRELU_HOSTS": str(hosts),
            "ALTRELU_SSH": f"ssh -F {self.folder}/ssh_config",
        }

    def know(self, name):
        """Write down which key the hosts are to have."""
        kind, key, *_ = (self.folder / f"{name}.pub").read_text().split()
        lines = [f"[{host}]:{self.port} {kind} {key}\n" for host in HOSTS]
        (self.folder / "known_hosts").write_text("".join(lines))

    def start(self, port):
        """Run start.sh."""
        command = [
            *(DEPLOY / "start.sh", "--scheduler-port", port, "--nthreads", 1),
            *("--ssh-port", self.port, "--ssh-private-key", self.folder / "mine"),
            *("--ssh-username", getpass.getuser(), "--memory-limit", "1GiB"),
            *("--local-directory", self.folder),
        ]
        log = self.folder / "start.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env=self.environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        return process, log

    def dask(self):
        """The processes that were started through the sshd: they were given its settings."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                given = process.environ()
                if given.get("DASK_CONFIG") == str(self.config) and "SSH_CONNECTION" in given:
                    found.append(process)
        return found

    def _settings(self):
        """deploy/ssh/tls.yaml with a certificate as README.md makes it."""
        self.config.mkdir()
        text = (DEPLOY / "tls.yaml").read_text()
        assert text.count("/home/me/dask-tls") == 7
        (self.config / "tls.yaml").write_text(text.replace("/home/me/dask-tls", str(self.config)))
        (line,) = [
            line for line in (DEPLOY / "README.md").read_text().splitlines() if "openssl" in line
        ]
        subprocess.run(line, shell=True, check=True, cwd=self.config, capture_output=True)

    def _answers(self):
        with contextlib.suppress(OSError), socket.create_connection((HOSTS[1], self.port), 5):
            return True


@pytest.fixture
def hosts(tmp_path):
    with Hosts(tmp_path) as there:
        yield there


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5_000, 4))
    y = np.maximum(X[:, 0], 0) * 3 + np.sin(3 * X[:, 1]) + rng.normal(size=5_000)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    altrelu_dist.convert(tmp_path / "data.npz", tmp_path / "data.zarr", chunk_bytes=1 << 14)
    return tmp_path / "data.zarr"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_trains_on_hosts_that_ssh_reaches_and_leaves_nothing_there(
    hosts, store, tmp_path, monkeypatch, number
):
    port = free_port()
    process, log = hosts.start(port)
    try:
        until(
            lambda: process.poll() is not None or log.read_text().count("Registered to:") == 2,
            "two workers",
            120,
        )
        assert process.poll() is None, log.read_text()
        monkeypatch.setenv("DASK_CONFIG", str(hosts.config))
        address = f"tls://127.0.0.1:{port}"
        there = tmp_path / "there.zarr"
        done = passes("train", store, *QUICK, "--out", there, "--scheduler", address, "--json")
        assert len(json.loads(done.stdout)["memory"]["workers"]) == 2
        # Who has no certificate is not let in.
        monkeypatch.delenv("DASK_CONFIG")
        refused = run("train", store, *QUICK, "--out", "no.zarr", "--scheduler", address)
        assert refused.returncode == 1
        assert "takes certificates" in refused.stderr
        started = hosts.dask()
        assert len(started) >= 5  # a scheduler, two nannies, two workers
        process.send_signal(number)
        process.wait(60)
        _, left = psutil.wait_procs(started, timeout=120)
        assert not left, [one.cmdline() for one in left]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    if number == signal.SIGINT:
        assert "Remote processes have been terminated" in log.read_text()
    here = tmp_path / "here.zarr"
    passes("train", store, *QUICK, "--out", here, "--workers", 0)
    found, expected = Network.load(there), Network.load(here)
    for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_host_with_another_key_is_refused(hosts):
    hosts.know("other")
    process, log = hosts.start(free_port())
    assert process.wait(60) == 1
    assert "127.0.0.1: cannot be reached by ssh" in log.read_text()
    assert "Host key verification failed" in log.read_text()
    assert hosts.dask() == []


@pytest.fixture
def asked(tmp_path):
    """Runs start.sh with options and an ssh that writes down how it was called and fails."""
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\nexit 255\n')
    (tmp_path / "ssh").chmod(0o755)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def start(*options, first=()):
        done = subprocess.run(
            [DEPLOY / "start.sh", *options], capture_output=True, text=True, timeout=60,
            env=environment(*first) | {"PATH": path, "ALTRELU_SSH": str(tmp_path / "ssh")},
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        called = tmp_path / "asked"
        return done.stderr, called.read_text() if called.exists() else ""

    return start


@pytest.mark.parametrize(
    "options",
    [
        ("--ssh-port", "22022", "--ssh-username", "me", "--ssh-private-key", "/a=b"),
        ("--ssh-port=22022", "--ssh-username=me", "--ssh-private-key=/a=b"),
    ],
)
def test_ssh_asks_with_the_options_in_either_form(asked, options):
    error, called = asked(*options, "--nthreads", "4")
    assert "10.0.0.1: cannot be reached by ssh" in error
    assert "-p 22022 -l me -i /a=b 10.0.0.1 " in called


@pytest.mark.parametrize("options", [("--nthreads", "4", "--ssh-port"), ("--ssh-port=",)])
def test_an_option_without_its_value_is_told(asked, options):
    assert asked(*options) == ("start.sh: --ssh-port wants a value\n", "")


def test_without_paramiko_nothing_is_tried(asked, tmp_path):
    (tmp_path / "paramiko.py").write_text("raise ImportError")
    error, called = asked(first=(tmp_path,))
    assert "pip install paramiko" in error
    assert called == ""
