"""What deploy/ describes, started here: its commands and environments, as processes on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import botocore.session
import numpy as np
from forks import COMMAND, DASK, Forked

import altrelu_dist
from altrelu_dist import convert
from altrelu_dist.network import Network

HOME = Path(altrelu_dist.__file__).parents[1]
DEPLOY = HOME / "deploy"
DOCKER = DEPLOY / "docker"
PROGRAMS = Path(sys.executable).parent
IMAGE = "altrelu-dist:0.1.0"
FORKED = {"altrelu": COMMAND, "dask": DASK}


def program(name):
    """The path of a program that came with the packages of the tests."""
    path = shutil.which(name, path=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    assert path, f"{name} is not installed"
    return path


def image_environment():
    """What the image's ENV sets, but for the search path."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    [line] = [line for line in text.splitlines() if line.startswith("ENV ")]
    settings = dict(word.split("=", 1) for word in line.split()[1:])
    del settings["PATH"]
    return settings


def renamed(text, names):
    """A text with other names in it, the longest first, in one go: no name is changed twice."""
    words = sorted(map(re.escape, names), key=len, reverse=True)
    return re.sub("|".join(words), lambda found: names[found[0]], text) if words else text


def on_loopback(command):
    """A command, whose container has an address of its own, on that of nobody else here."""
    return [*command, "--host", "127.0.0.1"] if command[0] == "dask" else list(command)


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Host:
    """A machine for containers: starts their commands as processes, which end with the block.

    Parameters
    ----------
    folder : Path
        For logs.
    names : mapping
        What stands for what in commands and environments: addresses and paths of the containers,
        and those of here.
    """

    def __init__(self, folder, names):
        self.folder = folder
        self._names = names
        self._started = []
        self.processes = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def here(self, text):
        """The same text, with the names of here."""
        return renamed(text, self._names)

    def start(self, name, command, environment):
        """Start a container's command, with its environment and no other; a log is kept."""
        path = os.pathsep.join([str(PROGRAMS), str(DOCKER), "/usr/bin", "/bin"])
        # Of this machine's settings only those that say which kernels its processor can run.
        kept = {name: os.environ[name] for name in os.environ if name.startswith("OPENBLAS_CORE")}
        given = {name: self.here(value) for name, value in environment.items()}
        env = kept | given | {"PATH": path, "PYTHONPATH": str(HOME)}
        program, *words = map(self.here, command)
        with (self.folder / f"{name}.log").open("w") as log:
            if program in FORKED and "DASK_CONFIG" not in env:  # a file that Dask reads on import
                process = Forked(FORKED[program], words, env=env, cwd=self.folder, log=log)
            else:
                process = subprocess.Popen(
                    [program, *words], stdout=log, stderr=subprocess.STDOUT,
                    cwd=self.folder, env=env, start_new_session=True,
                )  # fmt: skip
        self._started.append(process)
        self.processes[name] = process
        return process

    def run(self, name, command, environment, code=0, seconds=180):
        """Run a command to its end; what it said."""
        found = self.start(name, command, environment).wait(seconds)
        said = self.said(name)
        assert found == code, said
        assert "Traceback" not in said, said
        return said

    def said(self, name):
        return (self.folder / f"{name}.log").read_text()

    def until_says(self, name, word, seconds=60):
        """Wait until a process has said a word."""
        ends = time.monotonic() + seconds
        while word not in self.said(name):
            assert self.processes[name].poll() is None, self.said(name)
            assert time.monotonic() < ends, self.said(name)
            time.sleep(0.05)

    def until_passes(self, name, command, environment, seconds=60):
        """Run a check as its container's runtime does, until it passes."""
        ends = time.monotonic() + seconds
        check = f"{name}-check"
        while self.start(check, command, environment).wait(30) != 0:
            assert self.processes[name].poll() is None, self.said(name)
            assert time.monotonic() < ends, self.said(name) + self.said(check)


def answers(url, seconds=30):
    """Wait until an address answers; its status."""
    ends = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            assert time.monotonic() < ends, f"nothing at {url}"
            time.sleep(0.1)


@contextlib.contextmanager
def s3_server(folder):
    """An S3 server that lets in one user alone; where it is and who that is, as variables."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with (folder / "s3.log").open("w") as log:
        server = subprocess.Popen(
            [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"},  # the three below
        )  # fmt: skip
    try:
        assert answers(f"{url}/moto-api/") == 200
        iam = botocore.session.get_session().create_client(
            "iam", region_name="us-east-1", endpoint_url=url,
            aws_access_key_id="nobody", aws_secret_access_key="nothing",
        )  # fmt: skip
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam.create_user(UserName="tests")
        iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="tests")["AccessKey"]
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    finally:
        server.kill()
        server.wait(30)


def write_data(folder, rows=3000):
    """A converted store in three chunks, on which a run goes on for seconds; its path."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 3))
    np.savez(folder / "data.npz", X=X, y=np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2])
    convert(folder / "data.npz", folder / "data.zarr", chunk_bytes=X.nbytes // 3)
    return folder / "data.zarr"


def weights(path):
    """All numbers of a saved network, as bytes."""
    network = Network.load(path)
    names = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
    return [getattr(network, name).tobytes() for name in names]


def trained_here(data, folder, *options):
    """The numbers of the network that `altrelu train` makes of the data in one process."""
    out = folder / "here.zarr"
    with Host(folder, {}) as host:
        host.run(
            "here",
            ["altrelu", "train", str(data), *options, "--out", str(out), "--workers", "0"],
            image_environment() | {"HOME": str(folder), "NUMBA_CACHE_DIR": str(folder)},
        )
    return weights(out)
