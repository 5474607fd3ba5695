"""deploy/local: a cluster of one machine from one command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client

import altrelu_dist
from altrelu_dist import AltReLURegressor

SCRIPT = Path(altrelu_dist.__file__).parents[1] / "deploy/local/cluster.py"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_trains_on_loopback_with_one_blas_thread_and_leaves_nothing(number):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 3))
    y = np.abs(X[:, 0]) - X[:, 1]
    options = {"n_hidden": 4, "method": "alternating", "max_iter": 2, "random_state": 0}
    expected = AltReLURegressor(**options).fit(X, y)
    with start("--workers", "2", "--memory", "600MiB") as process:
        try:
            said = [process.stdout.readline() for _ in range(3)]
            assert said[0] == "2 workers, 1 threads and 600.00 MiB each\n"
            address = said[2].strip().partition("=")[2]
            with Client(address, timeout=60) as client:
                threads = client.run(lambda: os.environ["OPENBLAS_NUM_THREADS"])
                assert list(threads.values()) == ["1", "1"]
                found = AltReLURegressor(**options, client=client).fit(X, y)
                children = psutil.Process(process.pid).children(recursive=True)
                listening = [
                    connection.laddr.ip
                    for one in (psutil.Process(process.pid), *children)
                    for connection in one.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                ]
            assert listening
            assert set(listening) == {"127.0.0.1"}
            np.testing.assert_array_equal(
                found.network_.hidden_weights, expected.network_.hidden_weights
            )
            process.send_signal(number)
            process.wait(60)
        finally:
            process.kill()
    assert process.returncode == 0
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not alive


def test_workers_that_do_not_fit_are_refused():
    with start("--workers", "3", "--memory", "1TiB") as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "3 workers of 1.00 TiB do not fit in" in error


@pytest.mark.parametrize(
    "given",
    [("--workers", "-2"), ("--threads", "0"), ("--memory", "lots"), ("--port", "70000")],
)
def test_numbers_that_make_no_sense_are_refused(given):
    with start(*given) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"argument {given[0]}: invalid" in error
    assert "Traceback" not in error


def test_a_port_in_use_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with start("--port", port) as process:
            _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error == f"--port {port}: Address already in use\n"
