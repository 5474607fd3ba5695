"""The same data, parameters and seed give the same network to the last bit, wherever it is made.

On one type of CPU and with one BLAS. Every run is held against the one in process, on rows in
memory, by a digest of all of its network's numbers and of its history but for seconds and memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import cache

import dask.array as da
import numpy as np
import pytest
from clusters import local_cluster
from conftest import FEW_ROWS
from distributed import Client
from processes import environment

from altrelu_dist import AltReLURegressor, inputs
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.engine import TILE
from altrelu_dist.training import schedule

ROWS = 3 * TILE + 1234
NAMES = ("hidden_weights", "hidden_bias", "output_weights", "output_bias", "hidden_gram")
TIMES = {"seconds", "peak_memory"}

# What is trained; "held": all rows are held by the process that trains, once they were read.
CASES = {
    "search": {"method": "search", "max_iter": 2},
    "search, float64, weighted": {
        "method": "search", "max_iter": 1, "dtype": "f8", "weights": True,
    },
    "search, held": {"method": "search", "max_iter": 1, "held": True},
    "search, stopping early": {"method": "search", "max_iter": 2, "early_stopping": True},
    "damped": {"method": "damped", "max_iter": 8},
    "damped, float64, stopping early": {
        "method": "damped", "max_iter": 8, "dtype": "f8", "early_stopping": True,
    },
    "kronecker": {"method": "kronecker", "max_iter": 1},
    "alternating": {"method": "alternating", "max_iter": 5},
    "alternating, float64, weighted": {
        "method": "alternating", "max_iter": 5, "dtype": "f8", "weights": True,
    },
}  # fmt: skip


@contextlib.contextmanager
def few_rows_held():
    """As if the data were larger than what the process that trains may hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "ROWS", FEW_ROWS)
        yield


@cache
def rows(dtype="f4", weights=False):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((ROWS, 3))
    y = np.stack([np.abs(X[:, 0]) - X[:, 1] * X[:, 2], X[:, 2]], axis=1)
    weight = rng.random(ROWS) * (rng.random(ROWS) < 0.9) if weights else None
    return X.astype(dtype), y.astype(dtype), weight


def in_chunks(arrays, chunk):
    """The rows on Dask, in chunks of so many; 0: in ragged ones, some of a single row."""
    chunks = (1, 1, TILE - 1, 2 * TILE, ROWS - 3 * TILE - 1) if chunk == 0 else chunk
    return tuple(
        None if each is None else da.from_array(each, chunks=(chunks, *each.shape[1:]))
        for each in arrays
    )


def model_and_rows(case, chunk=None, **more):
    options = {**CASES[case], **more}
    options.pop("held", None)
    arrays = rows(options.pop("dtype", "f4"), options.pop("weights", False))
    if chunk is not None:
        arrays = in_chunks(arrays, chunk)
    return AltReLURegressor(4, random_state=0, **options), arrays


def fitted(case, chunk=None, **more):
    model, arrays = model_and_rows(case, chunk, **more)
    with contextlib.nullcontext() if "held" in CASES[case] else few_rows_held():
        return model.fit(*arrays)


def digest(model):
    """Of all numbers of a network, and of how the run came to it."""
    made = hashlib.sha256()
    for name in NAMES:
        array = getattr(model.network_, name)
        made.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    history = [{k: v for k, v in e.items() if k not in TIMES} for e in model.history_]
    made.update(json.dumps([history, model.stop_reason_, model.n_passes_]).encode())
    return made.hexdigest()


@cache
def expected(case):
    return digest(fitted(case))


@pytest.fixture(params=["streamed", "cached"])
def kept(request, monkeypatch):
    """Whether the cluster keeps the rows, or reads them each pass."""
    monkeypatch.setattr(inputs, "_CACHED_SHARE", {"streamed": 0.0, "cached": 1.0}[request.param])
    return request.param


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in (ROWS, 2500))]
)
def test_on_dask_without_a_client(case, chunk, dask_passes):
    assert digest(fitted(case, chunk)) == expected(case)
    assert len(dask_passes) >= 2


# --- clusters ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2, 4])
def threads(request):
    """A cluster of so many workers in threads of this process."""
    with Client(
        n_workers=request.param,
        threads_per_worker=2,
        processes=False,
        dashboard_address="127.0.0.1:0",
    ) as client:
        yield client


@pytest.fixture(scope="module", params=[1, 2, 4])
def processes(request):
    """A cluster of so many worker processes."""
    with local_cluster(request.param) as client:
        yield client


SOME = ("search, float64, weighted", "damped, float64, stopping early", "alternating")
NOT_HELD = [case for case in CASES if "held" not in case]


def assert_the_same_there(client, kept, dask_passes, cases):
    for case in cases:
        assert digest(fitted(case, 2500, client=client)) == expected(case), (case, kept)
        assert "summary" in dask_passes, case
        dask_passes.clear()


@pytest.mark.cluster
def test_on_workers_in_threads(threads, kept, dask_passes):
    assert_the_same_there(threads, kept, dask_passes, SOME)


@pytest.mark.cluster
def test_on_worker_processes(processes, kept, dask_passes):
    pids = processes.run(os.getpid)
    assert_the_same_there(processes, kept, dask_passes, NOT_HELD if len(pids) == 2 else SOME)
    assert len(pids) == len(set(pids.values()))


@pytest.mark.cluster
@pytest.mark.parametrize("chunk", [ROWS, 1000, 0])
def test_on_worker_processes_where_all_rows_are_held(process_client, kept, chunk):
    del kept
    case = "search, held"
    assert digest(fitted(case, chunk, client=process_client)) == expected(case)


@pytest.mark.cluster
@pytest.mark.parametrize("case", ["search", "damped", "alternating"])
def test_after_a_worker_died(case, kept, process_client):
    del kept
    killed = []

    def kill_one(progress):
        if progress.passes == 3 and not killed:
            killed.extend(process_client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    model = fitted(case, 2500, client=process_client, callback=kill_one)
    assert killed
    assert digest(model) == expected(case)


# --- resumed ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Some of the checkpoints of one run, by case: each is what a run that died there leaves."""
    made = {}

    def of(case):
        if case not in made:
            folder = tmp_path_factory.mktemp("run")
            copies = []
            save = CheckpointStore.save

            def keeping(self, tree):
                save(self, tree)
                copies.append(folder.with_name(f"{folder.name}-{len(copies)}"))
                beside = shutil.ignore_patterns(".*.partial")  # of the lock, at its next beat
                shutil.copytree(folder / "run", copies[-1], ignore=beside)
                (copies[-1] / "lock").unlink()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(CheckpointStore, "save", keeping)
                fitted(case, checkpoint=folder / "run", checkpoint_interval=0)
            made[case] = copies
        return made[case]

    return of


def resumed(case, folder, at, chunk=None, **more):
    shutil.copytree(folder, at)
    return digest(fitted(case, chunk, checkpoint=at, resume=True, **more))


def longer(cases):
    """The same cases; those of the search are slow."""
    slow = {"marks": pytest.mark.slow}
    return [pytest.param(case, **(slow if "search" in case else {})) for case in cases]


@pytest.mark.parametrize("case", longer(CASES))
def test_resumed_from_several_checkpoints(case, checkpoints, tmp_path):
    made = checkpoints(case)
    assert len(made) >= 4
    picked = made[1 :: max(1, len(made) // 3)]
    for i, folder in enumerate(picked):  # in turns in process and on Dask
        at = tmp_path / f"run-{i}"
        assert resumed(case, folder, at, (None, 3000)[i % 2]) == expected(case), folder


@pytest.mark.cluster
@pytest.mark.parametrize("case", ["search", "damped", "alternating"])
def test_resumed_on_a_cluster(case, checkpoints, process_client, kept, tmp_path):
    del kept
    made = checkpoints(case)
    folder = made[len(made) // 2]
    assert resumed(case, folder, tmp_path / "run", 777, client=process_client) == expected(case)


# --- what is made of a network ----------------------------------------------------------------


@pytest.mark.parametrize("chunk", [ROWS, 777])
def test_predictions(chunk):
    X, _, _ = rows()
    model = fitted("search")
    on_dask = model.predict(da.from_array(X, chunks=(chunk, -1)))
    np.testing.assert_array_equal(on_dask.compute(), model.predict(X))


@pytest.mark.parametrize("case", longer(["search", "damped, float64, stopping early"]))
def test_a_warm_start_and_folding(case):
    def went_on(chunk):
        model = fitted(case, chunk, warm_start=True)
        arrays = rows(CASES[case].get("dtype", "f4"))
        with few_rows_held():
            model.fit(*(arrays if chunk is None else in_chunks(arrays, chunk)))
        more = tuple(None if each is None else each[: 2 * TILE + 99] for each in arrays)
        if chunk is not None:
            more = tuple(e if e is None else da.from_array(e, chunks=(chunk, -1)) for e in more)
        return digest(model.partial_fit(*more))

    alone = went_on(None)
    assert alone != expected(case)
    for chunk in (ROWS, 2500):
        assert went_on(chunk) == alone


SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, {here!r})
import test_same_bits as tests
for case in ("search", "alternating, float64, weighted"):
    model = tests.fitted(case)
    print(tests.digest(model))
    print(tests.hashlib.sha256(model.predict(tests.rows()[0]).tobytes()).hexdigest())
    print(tests.digest(tests.fitted(case, 2500)))
"""


@pytest.mark.cluster
def test_whatever_the_threads_of_blas():
    said = set()
    for count in ("1", "2"):
        with_threads = {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
        code = SCRIPT.format(here=os.path.dirname(__file__))
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True,
            env=environment() | with_threads,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.split()) == 6
        said.add(done.stdout)
    assert len(said) == 1
    assert said.pop().split()[0] == expected("search")
