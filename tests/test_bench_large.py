"""`large.py`: the rows of the arm are what they say, losses are of these rows, runs are kept."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def bench(name: str) -> ModuleType:
    return importlib.import_module(name)


def cell(method: str, **changes: Any) -> dict[str, Any]:
    made = {"method": method, "where": "memory", "threads": 1, "rows": 4000, "hidden": 3}
    return made | {"seconds": 0.5, "setting": [], "seed": 0, "memory": "1GiB"} | changes


def test_arm_is_an_arm_and_its_noise_the_floor() -> None:
    """A line in the hand's distance, from complex numbers, leaves the noise and nothing else."""
    arm = bench("arm")
    X, y = arm.in_memory(100_000)
    assert X.shape == (100_000, 16)
    assert X.dtype == y.dtype == np.float32
    np.testing.assert_allclose(X.std(axis=0), 1, rtol=0.01)
    assert np.abs(X).max() <= np.sqrt(3) + 1e-6
    assert y.var() == pytest.approx(1, rel=0.02)
    angles = X.astype(np.float64) * np.deg2rad(80) / np.sqrt(3)
    hand = np.exp(1j * np.cumsum(angles, axis=1)).mean(axis=1)
    line = np.column_stack([np.abs(hand), np.ones(len(X))])
    left = y[:, 0] - line @ np.linalg.lstsq(line, y[:, 0], rcond=None)[0]
    assert np.mean(left**2) == pytest.approx(arm.floor(100_000), rel=1e-3)
    assert arm.floor(100_000) == pytest.approx(arm.NOISE, rel=0.02)


def test_any_part_of_the_rows_is_the_same(tmp_path: Path) -> None:
    import zarr

    arm = bench("arm")
    X, y = arm.in_memory(70_000)
    path = arm.store(tmp_path / "arm.zarr", 70_000)
    made = path.stat().st_mtime_ns
    group: Any = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["X"][:], X)
    np.testing.assert_array_equal(group["y"][:], y)
    np.testing.assert_array_equal(arm.block(1, 50)[0], X[arm.BLOCK : arm.BLOCK + 50])
    assert arm.store(path, 70_000).stat().st_mtime_ns == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["arm.zarr"]
    for others in (arm.in_memory(50, first=arm.NEW_ROWS), arm.in_memory(50, seed=1)):
        assert not (others[0] == X[:50]).any()


def test_rows_of_a_probe() -> None:
    """Losses of a constant are the variance of y; rows trained on come from the whole data."""
    arm, large = bench("arm"), bench("large")
    probe = large.Probe(5000, 0)
    _, y = arm.in_memory(5000)
    losses = probe.losses(lambda X: np.full((len(X), 1), 0.5, np.float32))
    assert losses[0] == pytest.approx(np.mean((0.5 - y) ** 2), rel=1e-4)
    assert losses[1] == pytest.approx(1.25, rel=0.01)
    X, _ = large.Probe(32 * arm.BLOCK, 0).trained
    assert len(X) == large.PROBE
    np.testing.assert_array_equal(X[-1], arm.block(31)[0][large.PROBE // large.PARTS - 1])


@pytest.mark.parametrize("method", ["damped", "adam", "xgboost"])
def test_cells(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method in ("adam", "xgboost"):
        pytest.importorskip("torch" if method == "adam" else "xgboost")
    large, arm = bench("large"), bench("arm")
    monkeypatch.setattr(large, "PROBE", 4000)
    setting = {"damped": [], "adam": [1e-2, 256], "xgboost": [0.3, 3]}[method]
    seconds = None if method == "damped" else 0.5
    done = large.run_cell(cell(method, setting=setting, seconds=seconds))
    seconds, trained, new = zip(*done["trace"], strict=True)
    assert list(seconds) == sorted(seconds)
    assert method == "damped" or seconds[-1] >= 0.5
    assert (done["mse"], done["new"]) == (trained[-1], new[-1])
    assert arm.NOISE / 2 < done["mse"] < done["new"] < 1
    assert trained[-1] <= trained[0]


def test_networks_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken when due and where they are others; losses over all rows where they are told."""
    from altrelu_dist import Network, Progress

    cells = bench("cells")
    now = 0.0
    monkeypatch.setattr(cells.time, "perf_counter", lambda: now)
    networks = [
        Network(np.ones((2, 3)), np.ones(3), np.full((3, 1), v), np.ones(1)) for v in (1.0, 2.0)
    ]

    class Model:
        def set_params(self, **_: Any) -> Model:
            return self

        def network_so_far(self) -> Network | None:
            return None if now < 3 else networks[now > 4]

    snapshots = cells.Snapshots(growth=1.5, first=1.0)
    now = 1.0
    snapshots.start(Model())
    for now, loss in ((2.0, np.nan), (3.5, 0.5), (3.6, 0.5), (4.5, 0.4), (4.75, 0.4), (9.0, 0.3)):
        snapshots(Progress("grow", 1, loss, np.nan, 1, 1, now, 0.5))
    assert snapshots.losses == [(2.5, 0.5), (3.5, 0.4), (8.0, 0.3)]
    # At 3.6 none is due; at 9 it is the one of before.
    assert snapshots.networks == [(2.5, networks[0]), (3.75, networks[1])]


def test_cell_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run from a store: the same network."""
    large, arm = bench("large"), bench("arm")
    monkeypatch.setattr(large, "PROBE", 4000)
    path = arm.store(tmp_path / "arm.zarr", 4000)
    held = large.run_cell(cell("alternating", seconds=None))
    streamed = large.run_cell(cell("alternating", seconds=None, where="store", store=str(path)))
    assert held["mse"] == streamed["mse"]


def test_plan() -> None:
    large = bench("large")
    arguments = ["--rows", "1e6", "--hidden", "8", "16", "--seconds", "5", "20", "--to-the-end"]
    cells = large.plan(large.parse([*arguments, "--where", "memory", "workers-2"]))
    keys = [bench("cells").key(one, large.KEYS) for one in cells]
    assert len(set(keys)) == len(keys)
    counts = {m: [c for c in cells if c["method"] == m] for m in ("search", "adam", "xgboost")}
    # Two widths; two limits and none; two places, which have one and two threads.
    assert len(counts["search"]) == 2 * 3 * 2
    assert len(counts["adam"]) == 2 * 2 * 2 * 6
    assert len(counts["xgboost"]) == 2 * 2
    assert {c["seconds"] for c in counts["xgboost"]} == {20}
    assert [large.by_cpu(c) for c in counts["search"][:2]] == [True, False]


def test_table() -> None:
    large = bench("large")
    rows = {"rows": 1000, "hidden": 8, "seconds": 4.0}
    trace = [[1.0, 0.5, 0.6], [2.0, 0.2, 0.3], [4.0, 0.1, 0.2]]
    results = [
        cell("search", **rows) | {"mse": 0.1, "new": 0.2, "trace": trace},
        cell("adam", **rows, setting=[1e-2, 256]) | {"mse": 0.4, "new": 0.5, "trace": trace},
        cell("adam", **rows, setting=[1e-3, 256]) | {"mse": 0.2, "new": 0.3, "trace": trace},
        cell("xgboost", **rows | {"hidden": None, "seconds": 9.0}, setting=[0.3, 6])
        | {"mse": 0.01, "new": 0.02, "trace": [[3.0, 0.2, 0.4], [9.0, 0.01, 0.02]]},
    ]
    assert large.report(results).splitlines()[4] == (
        "| 1,000 | 8 | 1 | 4 | .1000 / .2000; 0.500 of Adam's | .2000 / .3000 (0.001, 256) "
        "| .2000 / .4000 (0.3, 6) |"
    )


@pytest.mark.parametrize(("losses", "said"), [((0.5, 0.1), "2.00 times sooner"), ((0.5,), "never")])
def test_two_workers_against_one(losses: tuple[float, ...], said: str) -> None:
    large = bench("large")
    one = cell("search", where="workers-1") | {"mse": 0.2, "trace": [[4, 0.3, 1], [8, 0.2, 1]]}
    two = cell("search", where="workers-2", threads=2)
    two |= {"mse": losses[-1], "trace": [[2.0 * i + 2, loss, 1] for i, loss in enumerate(losses)]}
    (line,) = large.together([one, two])
    assert line.endswith(f"{said}.")


@pytest.mark.slow
def test_results_are_kept(tmp_path: Path) -> None:
    """As a command: a run, its table and picture; the same once more runs nothing."""
    results = tmp_path / "r.jsonl"
    command = [sys.executable, str(BENCHMARKS / "large.py"), "--quick", "--methods", "alternating"]
    command += ["--results", str(results)]
    printed = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        printed.append(done.stdout)
    (kept,) = map(json.loads, results.read_text().splitlines())
    assert kept["mse"] < 1
    assert "1/1 alternating" in printed[0]
    assert "1/1" not in printed[1]
    assert printed[0].endswith(printed[1])
    assert results.with_suffix(".md").read_text() in printed[1]
    assert (tmp_path / "arm-20000-4.png").stat().st_size > 5000
    assert os.listdir(tmp_path).count("r.jsonl") == 1
