"""What the processes of a run hold: measured, foreseen, refused, and not growing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import dask.array as da
import numpy as np
import psutil
import pytest
from clusters import Processes, until
from distributed import Client, LocalCluster

from altrelu_dist import AltReLURegressor, inputs, memory, plan
from altrelu_dist.data import open_dataset
from altrelu_dist.engine import DaskEngine
from altrelu_dist.errors import ParameterError
from altrelu_dist.memory import PeakMemory, measure
from altrelu_dist.planning.calls import Shape
from altrelu_dist.planning.memory import Blocks, resident, solver_bytes, worker_bytes

MIB = 1 << 20


def data(n=20_000, d=4, chunk=5000):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    y = np.abs(X[:, 0]) - X[:, 1] * X[:, -1]
    return da.from_array(X, chunks=(chunk, -1)), da.from_array(y, chunks=chunk)


def peak_of(pid):
    """The oracle: what the kernel says."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def fitted(X, y, **options):
    defaults = {"n_hidden": 4, "method": "alternating", "max_iter": 3, "random_state": 0}
    return AltReLURegressor(**defaults | options).fit(X, y)


@pytest.mark.cluster
@pytest.mark.usefixtures("small_samples")
def test_every_process_is_in_the_history(process_client):
    pids = sorted(process_client.run(os.getpid).values())
    before = [peak_of(pid) for pid in pids]
    model = fitted(*data(), client=process_client)
    found = model.peak_memory_
    assert sorted(int(name.rpartition(":")[2]) for name in found.workers) == pids
    for pid, least in zip(pids, before, strict=True):
        (peak,) = (p for name, p in found.workers.items() if name.endswith(f":{pid}"))
        assert least <= peak <= peak_of(pid)
    assert 0 <= peak_of(os.getpid()) - found.client < 64 * MIB
    assert found.scheduler == 0  # it is in this process
    told = [entry["peak_memory"] for entry in model.history_]
    assert told == sorted(told)
    assert told[-1] == found.total == found.client + sum(found.workers.values())


def test_in_process_it_is_this_process(tmp_path):
    model = fitted(*(np.asarray(each) for each in data(2000)))
    assert (model.peak_memory_.scheduler, model.peak_memory_.workers) == (0, {})
    assert model.history_[-1]["peak_memory"] == model.peak_memory_.client > 50 * MIB
    model.save(tmp_path / "model.zarr")
    assert AltReLURegressor.load(tmp_path / "model.zarr").peak_memory_ == model.peak_memory_


def test_workers_that_are_threads_are_no_processes(thread_client):
    found = measure(thread_client)
    assert (found.scheduler, found.workers) == (0, {})


@pytest.mark.cluster
@pytest.mark.usefixtures("small_samples")
def test_who_came_and_went_counts_too(tmp_path):
    with Processes(tmp_path, 2) as cluster:
        first = cluster.client.run(os.getpid)

        def replace_one(progress):
            if progress.passes == 3 and len(cluster.workers) == 2:
                cluster.add()
                cluster.client.wait_for_workers(3, timeout=60)
                next(iter(cluster.workers.values())).kill()

        model = fitted(*data(), client=cluster.client, callback=replace_one)
        pids = {*first.values(), *cluster.client.run(os.getpid).values()}
        scheduler = cluster.client.run_on_scheduler(os.getpid)
        assert abs(model.peak_memory_.scheduler - peak_of(scheduler)) < 32 * MIB
    assert {int(name.rpartition(":")[2]) for name in model.peak_memory_.workers} == pids
    assert len(pids) == 3


@pytest.mark.cluster
def test_who_does_not_answer_is_as_it_was_known(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PATIENCE", 1.0)
    with Processes(tmp_path, 2) as cluster:
        before = measure(cluster.client)
        assert len(before.workers) == 2
        hangs, _ = cluster.workers.values()
        os.kill(hangs.pid, signal.SIGSTOP)
        begun = time.monotonic()
        assert measure(cluster.client, before).workers == before.workers
        assert time.monotonic() - begun < 10
        os.kill(hangs.pid, signal.SIGKILL)
        os.kill(cluster.scheduler.pid, signal.SIGKILL)
        cluster.scheduler.wait(30)
        known = PeakMemory(1, 2, {"a:1": 3})
        after = measure(cluster.client, known)
        assert (after.scheduler, after.workers) == (2, {"a:1": 3})
        assert after.client > 50 * MIB


# --- foreseen and refused ---------------------------------------------------------------------


@pytest.mark.cluster
def test_what_a_worker_cannot_hold_is_refused_before_the_first_pass(monkeypatch):
    monkeypatch.setattr(DaskEngine, "reduce", lambda *_: pytest.fail("a pass was made"))
    X = da.zeros((400_000, 60), chunks=(400_000, 60))
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "memory_limit": "700MiB"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster,
        Client(cluster) as client,
    ):
        for more in ({"client": client}, {}):
            with pytest.raises(ParameterError) as refused:
                AltReLURegressor(4, **more).fit(X, X[:, 0])
        assert "a worker needs" in str(refused.value)
        assert "700 MiB" in str(refused.value)
        assert "store the data in chunks of at most" in str(refused.value)
        until(lambda: not client.run_on_scheduler(n_tasks), "nothing is left there")


def n_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


SHAPES = {  # and how the rows are kept; by hand, both ways
    ("search", 200_000, 32, 8, 50_000, 1): ["streamed"],
    ("search", 200_000, 8, 32, 20_000, 2): ["cached"],
    ("damped", 100_000, 60, 16, 50_000, 1): ["streamed", "cached"],
    ("alternating", 60_000, 12, 16, 20_000, 1): ["cached"],
    ("alternating", 60_000, 24, 32, 20_000, 2): ["streamed"],
}


@pytest.mark.slow
@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize(
    ("method", "n", "d", "h", "chunk", "threads", "kept"),
    [
        pytest.param(*shape, kept, marks=[] if kept in tier else pytest.mark.by_hand)
        for shape, tier in SHAPES.items()
        for kept in ("streamed", "cached")
    ],
)
def test_no_process_holds_more_than_was_foreseen(
    method, n, d, h, chunk, threads, kept, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(inputs, "_CACHED_SHARE", {"streamed": 0.0, "cached": 1.0}[kept])
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.abs(X[:, 0]) - X[:, 1] * X[:, -1])
    stored = open_dataset(tmp_path / "X.npy")
    rows = [each.rechunk((chunk, -1)) for each in (stored.X, stored.y)]
    shape = Shape(n, d, 1, h, np.dtype("f4"))
    blocks = Blocks(-(-n // chunk), chunk, 4 * (d + 1))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of this process is what it holds now
    before = resident()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=threads, memory_limit="4GiB",
            host="127.0.0.1", dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        model = fitted(*rows, n_hidden=h, method=method, max_iter=2, client=client)
    foreseen = worker_bytes(shape, blocks, method, 2, threads, cached=kept == "cached")
    held = max(model.peak_memory_.workers.values())
    solver = solver_bytes(shape, blocks, method, before, 1)
    with capsys.disabled():
        print(
            f"\n{method} {n} x {d}, {h} neurons, {threads} threads, {kept}: a worker held "
            f"{held / MIB:.0f} of {foreseen / MIB:.0f} MiB foreseen, this process "
            f"{model.peak_memory_.client / MIB:.0f} of {solver / MIB:.0f}"
        )
    assert 0.3 * foreseen < held < foreseen
    assert model.peak_memory_.client < max(solver, before + 64 * MIB)


def test_the_plan_refuses_with_the_same_words():
    with pytest.raises(ParameterError, match=r"a worker needs .* of its 300 MiB"):
        plan(rows=1e6, features=1000, n_hidden=16, workers=1, threads=2, memory=300 * MIB)


# --- growth -----------------------------------------------------------------------------------

PASSES = (200, 600)
MAY_GROW = {"client": 8 * MIB, "workers": 8 * MIB, "scheduler": 16 * MIB}


@pytest.mark.slow
@pytest.mark.usefixtures("small_samples")
def test_hundreds_of_passes_hold_what_the_first_two_hundred_do(tmp_path, capsys):
    """But for what Dask notes of tasks that it has forgotten: some kilobytes a pass."""
    with Processes(tmp_path, 2) as cluster:
        pids = {
            "client": [os.getpid()],
            "workers": [*cluster.client.run(os.getpid).values()],
            "scheduler": [cluster.client.run_on_scheduler(os.getpid)],
        }
        held = {}

        def look(progress):
            if progress.passes in PASSES and progress.passes not in held:
                held[progress.passes] = {
                    name: [psutil.Process(pid).memory_info().rss for pid in those]
                    for name, those in pids.items()
                }

        rows = data(chunk=10_000)  # a block for each worker
        model = fitted(*rows, max_iter=PASSES[1], client=cluster.client, callback=look)
        assert model.n_passes_ >= PASSES[1]
        until(lambda: not cluster.client.run_on_scheduler(n_tasks), "no task is left")
        assert cluster.client.run_on_scheduler(n_spans) <= 4
        assert not any(cluster.client.run(n_kept).values())
        assert not cluster.client.futures
    for name, may in MAY_GROW.items():
        grew = [now - then for then, now in zip(*(held[p][name] for p in PASSES), strict=True)]
        with capsys.disabled():
            print(f"\n{name}: {[f'{g / MIB:.1f} MiB' for g in grew]} more than at pass {PASSES[0]}")
        assert max(grew) < may, name


def n_spans(dask_scheduler):
    return len(dask_scheduler.extensions["spans"].spans)


def n_kept(dask_worker):
    return len(dask_worker.data)
