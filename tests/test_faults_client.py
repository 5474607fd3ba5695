"""The one that trains goes away, or its network does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import dask
import numpy as np
import psutil
import pytest
from clusters import Namespace, Processes, until
from distributed.comm import CommClosedError
from oracles import same
from processes import start

import altrelu_dist
from altrelu_dist import AltReLURegressor, open_dataset
from altrelu_dist.errors import ClusterError

pytestmark = pytest.mark.cluster

ROWS = 250_000  # more than are held in one place
OPTIONS = {"n_hidden": 4, "random_state": 0, "method": "alternating", "max_iter": 6}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 4)).astype("float32")
    np.savez(folder / "data.npz", X=X, y=np.abs(X[:, 0]) - X[:, 1] * X[:, 2])
    altrelu_dist.convert(folder / "data.npz", folder / "data.zarr")
    return folder / "data.zarr"


@pytest.fixture(scope="module")
def undisturbed(store):
    return fitted(store)


def fitted(store, **options):
    data = open_dataset(store)
    return AltReLURegressor(**OPTIONS | options).fit(data.X, data.y)


def assert_same_network(model, expected):
    for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert same(getattr(model.network_, name), getattr(expected.network_, name))


@contextlib.contextmanager
def training(folder, store, *arguments):
    """An `altrelu train` that goes on for minutes, in the middle of it; it is killed at the end."""
    with start(
        *("train", store, "--hidden", 8, "--method", "alternating", "--max-iter", 100_000),
        *("--out", folder / "m.zarr", *arguments),
    ) as process:
        try:
            assert any(" alternating " in line for line in process.stderr)
            yield process
        finally:
            process.kill()


def test_nothing_is_left_of_a_client_that_was_killed(store, tmp_path):
    """On a cluster that goes on."""
    with Processes(tmp_path, 2, memory="1GiB") as cluster:

        def tasks():
            return cluster.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

        with training(tmp_path, store, "--scheduler", cluster.client.scheduler.address):
            until(tasks, "the tasks of a pass")
        until(lambda: tasks() == 0, "the scheduler forgets its tasks", 10)
        assert not (tmp_path / "m.zarr").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".m")] == []


def test_workers_of_its_own_end_with_a_command_that_was_killed(store, tmp_path):
    with training(tmp_path, store, "--workers", "2") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_a_network_that_is_cut_for_twenty_seconds(store, tmp_path, undisturbed):
    """Between client and scheduler: every packet is lost, and nobody is told."""
    with Namespace() as host, Processes(tmp_path, 2, host=host) as cluster:
        cuts = []

        def cut(progress):
            if progress.stage == "alternating" and progress.iteration > 2 and not cuts:
                cuts.append(time.monotonic())
                host.cut()
                threading.Timer(20, host.mend).start()

        model = fitted(store, client=cluster.client, callback=cut)
        assert time.monotonic() - cuts[0] > 20
        assert_same_network(model, undisturbed)


def test_a_network_that_stays_cut_is_an_error_and_another_cluster_goes_on(
    store, tmp_path, undisturbed
):
    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with (
        dask.config.set({"distributed.comm.timeouts.tcp": "12s"}),  # 30 s by default
        Namespace() as host,
        Processes(tmp_path / "one", 1, host=host) as cluster,
    ):
        cuts = []

        def cut(progress):
            if progress.stage == "alternating" and progress.iteration > 2 and not cuts:
                cuts.append(time.monotonic())
                host.cut()

        with pytest.raises(ClusterError, match="the connection to the scheduler is lost"):
            fitted(store, client=cluster.client, callback=cut, **kept)
        assert time.monotonic() - cuts[0] < 60
        host.mend()
    with Processes(tmp_path / "two", 1) as cluster:
        model = fitted(store, client=cluster.client, resume=True, **kept)
    assert_same_network(model, undisturbed)


def test_a_client_that_closes_as_it_submits_is_an_error(store, tmp_path):
    """Dask drops what is submitted in that moment, and would wait for it for ever."""

    class Ended:
        def send(self, _):
            raise CommClosedError

    with Processes(tmp_path, 1) as cluster:
        client, link = cluster.client, cluster.client.scheduler_comm

        def close(progress):
            if progress.stage == "alternating":
                client.status, client.scheduler_comm = "closing", Ended()

        with pytest.raises(ClusterError, match="the connection to the scheduler is lost"):
            fitted(store, client=client, callback=close)
        client.status, client.scheduler_comm = "running", link


def test_a_scheduler_that_stands_still_for_a_while(store, tmp_path, undisturbed):
    with Processes(tmp_path, 2) as cluster:
        stopped = []

        def stop(progress):
            if progress.stage == "alternating" and not stopped:
                stopped.append(cluster.scheduler.pid)
                os.kill(stopped[0], signal.SIGSTOP)
                threading.Timer(5, os.kill, (stopped[0], signal.SIGCONT)).start()

        model = fitted(store, client=cluster.client, callback=stop)
        assert stopped
        assert_same_network(model, undisturbed)
