"""Several fits at the same time: each as it is alone, and one that ends leaves the others be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from clusters import Processes, until
from distributed import Client, LocalCluster
from processes import start, wait_for
from test_same_bits import CASES, digest, expected, in_chunks, model_and_rows, rows

import altrelu_dist
from altrelu_dist import AltReLURegressor, estimators
from altrelu_dist.engine import DaskEngine
from altrelu_dist.network import Network

pytestmark = pytest.mark.cluster

FITS = [case for case in CASES if "held" not in case]
ENDLESS = ("--hidden", 24, "--max-time", 120, "--quiet")


def n_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


def assert_nothing_runs(client):
    until(lambda: not client.run_on_scheduler(n_tasks), "the scheduler has no task", 30)
    until(lambda: not any(client.processing().values()), "no worker has one", 30)


# --- from threads -----------------------------------------------------------------------------


@pytest.fixture
def alone():
    """The digests of the fits, each made alone."""
    return {case: expected(case) for case in FITS}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.usefixtures("small_samples")
def test_from_threads(alone, process_client, named):
    """Of one client, named or found; and one more in memory beside them."""

    def fit(case):
        model, arrays = model_and_rows(case, 2500)
        return digest(model.set_params(client=process_client if named else None).fit(*arrays))

    def fit_here():
        model, arrays = model_and_rows("search")
        return digest(model.fit(*arrays))

    with ThreadPoolExecutor(5) as pool:
        here = pool.submit(fit_here)
        found = dict(zip(FITS, pool.map(fit, FITS), strict=True))
    assert found == alone
    assert here.result() == alone["search"]
    assert_nothing_runs(process_client)


@pytest.mark.usefixtures("small_samples")
def test_one_that_fails_or_is_stopped_leaves_the_others_be(alone, process_client):
    class MyError(Exception):
        pass

    def fails(progress):
        if progress.passes == 3:
            raise MyError

    kept = []  # the errors, and with them the frames of what was cut off

    def fit(case):
        model, arrays = model_and_rows(case, 2500, client=process_client)
        if case.startswith("damped"):
            model.set_params(callback=fails)
        if case == "search":
            model.set_params(callback=lambda progress: progress.iteration >= 2)
        try:
            return digest(model.fit(*arrays))
        except MyError as error:
            kept.append(error)
            return "failed"

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(FITS, pool.map(fit, FITS), strict=True))
    others = [case for case in FITS if not case.startswith("damped") and case != "search"]
    failing = [case for case in FITS if case.startswith("damped")]
    assert [case for case in FITS if found[case] == "failed"] == failing
    assert {case: found[case] for case in others} == {case: alone[case] for case in others}
    kept.clear()
    assert_nothing_runs(process_client)


@pytest.mark.usefixtures("small_samples")
def test_what_an_interrupted_pass_began_is_not_gone_on_with(process_client):
    """Even where the error is kept, as an interactive session does."""
    X, y, _ = in_chunks(rows(), 1000)
    on = DaskEngine(X, y, client=process_client)

    def interrupt():
        until(lambda: any(process_client.processing().values()), "a task runs")
        os.kill(os.getpid(), signal.SIGINT)

    beside = threading.Thread(target=interrupt)
    beside.start()  # waits for the first task
    with pytest.raises(KeyboardInterrupt) as kept:
        on.reduce(takes_long, "long")
    beside.join()
    assert kept.value.__traceback__ is not None
    assert_nothing_runs(process_client)


def takes_long(_):
    time.sleep(0.5)
    return Nothing()


class Nothing:
    def merge(self, other):
        return other


@pytest.mark.usefixtures("small_samples")
def test_the_client_that_is_named_does_all_of_it():
    """Where another one is the current one, nothing goes to that, not even the lengths of parts."""
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    X, *_ = rows()
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=4)
    frame = frame[frame["a"] > -9]  # of which the lengths are not known
    targets = frame["a"] + frame["b"]
    with (
        LocalCluster(n_workers=1, **options) as ours,
        LocalCluster(n_workers=1, **options) as others,
        Client(ours) as client,
        Client(others) as current,
    ):
        assert Client.current() is current
        model = AltReLURegressor(3, method="damped", max_iter=2, random_state=0, client=client)
        in_a_thread = threading.Thread(target=model.fit, args=(frame, targets))
        in_a_thread.start()
        in_a_thread.join()
        assert model.n_passes_ > 2
        score = model.score(frame, targets)
        assert score > 0.5
        assert ours.scheduler.transition_counter > 0
        assert others.scheduler.transition_counter == 0


# --- from processes ---------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a store of three chunks."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12_000, 4)).astype("float32")
    np.savez("data.npz", X=X, y=np.abs(X[:, 0]) - X[:, 1] * X[:, 2])
    altrelu_dist.convert("data.npz", "data.zarr", chunk_bytes=1 << 16)
    return tmp_path


def weights_in(path):
    network = Network.load(path)
    return b"".join(
        getattr(network, name).tobytes()
        for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
    )


def trains(out, *more, seed=0, options=("--hidden", 4, "--max-iter", 1)):
    return start("train", "data.zarr", *options, "--seed", seed, "--out", out, *more)


def ended(process, code=0):
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    return said


def test_from_processes_and_one_is_killed_and_one_interrupted(here):
    seeds = range(3)
    for seed in seeds:
        ended(trains(f"alone{seed}.zarr", "--workers", 0, seed=seed))
    with Processes(here, 2) as cluster:
        there = ("--scheduler", cluster.client.scheduler.address)
        kept = ("--checkpoint", "run", "--checkpoint-interval", 0)
        killed = trains("killed.zarr", *there, *kept, options=ENDLESS)
        stopped = trains("stopped.zarr", *there, options=ENDLESS[:-1])
        wait_for(stopped, " grow ")
        until(lambda: any(Path("run").glob("checkpoint-*2.bin")), "the other is at it too")
        others = [trains(f"m{seed}.zarr", *there, seed=seed) for seed in seeds]
        wait_for(others[0], "summary")
        killed.kill()
        for times in range(2):
            os.kill(stopped.pid, signal.SIGINT)
            if not times:
                wait_for(stopped, "stopping at the end")
        killed.communicate(timeout=60)
        ended(stopped, 130)
        for process in others:
            ended(process)
        assert_nothing_runs(cluster.client)
        assert len(cluster.client.run(os.getpid)) == 2
    for seed in seeds:
        assert weights_in(f"m{seed}.zarr") == weights_in(f"alone{seed}.zarr")
    assert len({weights_in(f"m{seed}.zarr") for seed in seeds}) == 3
    assert not Path("killed.zarr").exists()
    assert not Path("stopped.zarr").exists()


LONG = ("--hidden", 16, "--max-time", 5, "--workers", 0)


def test_two_that_write_to_the_same_place(here):
    both = [trains("m.zarr", seed=seed, options=LONG) for seed in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], said
    loser = said[codes.index(1)].splitlines()[-1]
    assert "m.zarr: exists already" in loser or "m.zarr: was created meanwhile" in loser
    elsewhere = loser.partition("the network is in ")[2]
    assert Path(elsewhere).parent.resolve() == here
    assert weights_in("m.zarr") != weights_in(elsewhere)
    left = {path.name for path in here.iterdir()} - {"data.npz", "data.zarr"}
    assert left == {"m.zarr", Path(elsewhere).name}


def test_two_that_replace_the_same(here):
    ended(trains("m.zarr", "--workers", 0))
    old = weights_in("m.zarr")
    both = [trains("m.zarr", "--overwrite", seed=1 + i, options=LONG) for i in range(2)]
    for process in both:
        ended(process)
    assert weights_in("m.zarr") != old
    assert {path.name for path in here.iterdir()} == {"data.npz", "data.zarr", "m.zarr"}


def test_two_on_the_same_checkpoint(here):
    ended(trains("alone.zarr", "--workers", 0))
    kept = ("--checkpoint", "run", "--checkpoint-interval", 0, "--workers", 0)
    first = trains("m.zarr", *kept)
    until(lambda: any(Path("run").glob("checkpoint-*")), "it is at it")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        for second in (trains("n.zarr", *kept), start("train", "--resume", "run")):
            line = ended(second, 1).splitlines()[-1]
            assert f"run: is in use by another run (process {first.pid} on " in line
    finally:
        first.kill()
        first.communicate(timeout=60)
    assert (here / "run" / "lock").exists()  # a dead one's does not hold
    ended(start("train", "--resume", "run", "--workers", 0))
    assert weights_in("m.zarr") == weights_in("alone.zarr")
    assert not Path("n.zarr").exists()
    assert not (here / "run" / "lock").exists()


def test_of_four_that_begin_in_the_same_folder_one_gets_it(here):
    kept = ("--checkpoint", "run", "--workers", 0)
    runs = [
        trains(f"m{i}.zarr", *kept, options=("--hidden", 16, "--max-time", 5)) for i in range(4)
    ]
    said = [process.communicate(timeout=120)[1] for process in runs]
    codes = [process.returncode for process in runs]
    assert sorted(codes) == [0, 1, 1, 1], said
    for code, words in zip(codes, said, strict=True):
        assert code == 0 or "run: is in use by another run" in words.splitlines()[-1]
    assert len(list(here.glob("m*.zarr"))) == 1


# Modules of a package that each take a moment to import, by threads that all begin about now.
IMPORTS = """
import random, sys, threading, time
from importlib.machinery import PathFinder

import altrelu_dist.estimators.base

class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not name.startswith("altrelu_dist.planning"):
            return spec
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (time.sleep(0.002), run(module))
        return spec

def one(delay):
    time.sleep(delay)
    try:
        exec(sys.argv[1])
    except ImportError as error:
        errors.append(error)

sys.meta_path.insert(0, Slow)
sys.setswitchinterval(1e-5)
delays, errors = random.Random(0), []
for _ in range(60):
    for name in [name for name in sys.modules if name.startswith("altrelu_dist.planning")]:
        del sys.modules[name]
    vars(altrelu_dist).pop("planning", None)
    threads = [threading.Thread(target=one, args=(0.003 * k * delays.random(),)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert "altrelu_dist.planning.refusals" in sys.modules
assert not errors, errors
"""


def test_threads_of_a_new_process_import_side_by_side():
    """Jobs that begin at once in a worker do: what they import late is as base.py imports it."""
    source = Path(estimators.base.__file__).read_text()
    statements = re.findall(r"^ +(from altrelu_dist\.planning\S* import .+)$", source, re.M)
    assert statements
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, "\n".join(statements)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
