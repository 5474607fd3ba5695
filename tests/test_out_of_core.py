"""Four gibibytes of rows, trained by workers that may hold one each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

ROWS, FEATURES, BLOCK = 1 << 25, 32, 1 << 17  # 4 GiB of float32 in blocks of 16 MiB
GIB = 1 << 30


@pytest.fixture
def store(tmp_path):
    if shutil.disk_usage(tmp_path).free < 8 * GIB:
        pytest.skip("needs 8 GiB of free disk")
    path = tmp_path / "large.zarr"
    group = zarr.open_group(path, mode="w")
    options = {"dtype": "float32", "compressors": None}
    X = group.create_array("X", shape=(ROWS, FEATURES), chunks=(BLOCK, FEATURES), **options)
    y = group.create_array("y", shape=(ROWS,), chunks=(BLOCK,), **options)
    for start in range(0, ROWS, BLOCK):
        rng = np.random.default_rng(start)
        x = rng.standard_normal((BLOCK, FEATURES), dtype=np.float32)
        X[start : start + BLOCK] = x
        y[start : start + BLOCK] = np.abs(x[:, 0]) - np.abs(x[:, 1] - x[:, 2]) + x[:, 3]
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_workers_hold_a_few_blocks(store, tmp_path, capsys):
    command = [sys.executable, "-m", "altrelu_dist", "train", str(store), "--hidden", "8"]
    command += ["--out", str(tmp_path / "model.zarr"), "--workers", "2", "--threads", "1"]
    command += ["--memory", "1GiB", "--max-iter", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n4 GiB, 1 GiB a worker: R2 {record['r2']:.4f}, {record['passes']} passes, "
            f"{record['seconds']:.0f} s, memory {record['memory']}"
        )
    assert record["rows"] == ROWS
    assert record["r2"] > 0.99
    assert record["passes"] <= 15
    assert all(worker < 0.6 * GIB for worker in record["memory"]["workers"])
    for said in ("paused", "Restarting", "spill"):
        assert said not in done.stderr
