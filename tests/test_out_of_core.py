"""Eight gibibytes of rows, trained by workers that may hold half of one each."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from altrelu_dist import AltReLURegressor, open_dataset
from altrelu_dist.planning.calls import Shape
from altrelu_dist.planning.memory import Blocks, worker_bytes

ROWS, FEATURES, BLOCK = 1 << 26, 32, 1 << 17  # 8 GiB of float32 in blocks of 16 MiB
WRITTEN = 16  # blocks; the others are the same files under other names
MIB = 1 << 20


@pytest.fixture
def store(tmp_path):
    if shutil.disk_usage(tmp_path).free < 1 << 30:
        pytest.skip("needs 1 GiB of free disk")
    path = tmp_path / "large.zarr"
    group = zarr.open_group(path, mode="w")
    options = {"dtype": "float32", "compressors": None}
    X = group.create_array("X", shape=(ROWS, FEATURES), chunks=(BLOCK, FEATURES), **options)
    y = group.create_array("y", shape=(ROWS,), chunks=(BLOCK,), **options)
    for number in range(WRITTEN):
        rows = slice(number * BLOCK, (number + 1) * BLOCK)
        x = np.random.default_rng(number).standard_normal((BLOCK, FEATURES), dtype=np.float32)
        X[rows] = x
        y[rows] = np.abs(x[:, 0]) - np.abs(x[:, 1] - x[:, 2]) + x[:, 3]
    for number in range(WRITTEN, ROWS // BLOCK):
        for name in ("X/c/{}/0", "y/c/{}"):
            (path / name.format(number)).parent.mkdir(exist_ok=True)
            os.link(path / name.format(number % WRITTEN), path / name.format(number))
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_workers_hold_a_few_blocks(store, tmp_path, capsys):
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    options |= {"local_directory": str(tmp_path), "memory_limit": "640MiB"}
    data = open_dataset(store)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        before = client.run(os.getpid)
        model = AltReLURegressor(8, max_iter=1, random_state=0, client=client)
        model.fit(data.X, data.y)
        assert client.run(os.getpid) == before  # none died
        assert not any(client.run(spilled).values())
        events = client.run_on_scheduler(events_of_workers)
        assert ("worker-status-change", "paused") not in events
        assert [action for action, _ in events].count("add-worker") == 2
    peaks = [*model.peak_memory_.workers.values()]
    shape = Shape(ROWS, FEATURES, 1, 8, np.dtype("f4"))
    blocks = Blocks(ROWS // BLOCK, BLOCK, 4 * (FEATURES + 1))
    foreseen = worker_bytes(shape, blocks, "search", 2, 1, cached=False)
    last = model.history_[-1]
    with capsys.disabled():
        print(
            f"\n8 GiB, 640 MiB a worker: loss {last['loss']:.2g} of "
            f"{model.history_[0]['loss']:.2g}, "
            f"{model.n_passes_} passes, {last['seconds']:.0f} s, workers held "
            f"{[f'{peak / MIB:.0f} MiB' for peak in peaks]} of {foreseen / MIB:.0f} foreseen, "
            f"this process {model.peak_memory_.client / MIB:.0f} MiB"
        )
    assert last["loss"] < 0.01 * model.history_[0]["loss"]
    assert len(peaks) == 2
    assert max(peaks) < foreseen < 640 * MIB


def spilled(dask_worker):
    """What was ever written to disk for lack of memory."""
    return {k: v for k, v in dask_worker.data.cumulative_metrics.items() if "disk-write" in k}


def events_of_workers(dask_scheduler):
    return [
        (event.get("action"), event.get("status"))
        for address in dask_scheduler.workers
        for _, event in dask_scheduler.get_events(address)
    ]
