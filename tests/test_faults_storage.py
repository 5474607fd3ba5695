"""Storage that fails, is slow, full, or gives other data than before."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from oracles import same

import altrelu_dist
from altrelu_dist import AltReLURegressor, inputs, open_dataset
from altrelu_dist.data import retrying, zarr_rows
from altrelu_dist.errors import DataError
from altrelu_dist.moments import Rows

ROWS = 30_000


@pytest.fixture
def store(tmp_path):
    """A store of eight chunks, the targets' apart from the features'."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 3)).astype("float32")
    np.savez(tmp_path / "data.npz", X=X, y=np.abs(X[:, 0]) - X[:, 1] * X[:, 2])
    altrelu_dist.convert(tmp_path / "data.npz", tmp_path / "data.zarr", chunk_bytes=1 << 16)
    return tmp_path / "data.zarr"


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(retrying, "_PAUSES", (0.01,) * 4)


def fitted(store, **options):
    data = open_dataset(store)
    options = {"n_hidden": 4, "random_state": 0, "max_iter": 3} | options
    return AltReLURegressor(**options).fit(data.X, data.y)


def failing(monkeypatch, times, error):
    """Let reading the first rows fail so often; the attempts that were made."""
    read, attempts = zarr_rows.read_rows, []
    lock = threading.Lock()

    def fails(array, start, stop):
        with lock:
            if start == 0:
                attempts.append(array.path)
                if len(attempts) <= times:
                    raise error
        return read(array, start, stop)

    monkeypatch.setattr(zarr_rows, "read_rows", fails)
    return attempts


class ServerError(Exception):
    """As clients of HTTP raise it."""

    status = 503


PASSING = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    ConnectionResetError("reset by peer"),
    TimeoutError("timed out"),
    ServerError("Service Unavailable"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
@pytest.mark.usefixtures("quick_retries", "small_samples")
def test_a_chunk_that_cannot_be_read_at_first(error, store, monkeypatch, caplog):
    expected = fitted(store, max_iter=1)
    failing(monkeypatch, 4, error)
    with dask.config.set(scheduler="sync"):
        model = fitted(store, max_iter=1)
    assert same(model.network_.hidden_weights, expected.network_.hidden_weights)
    said = [record.message for record in caplog.records if "trying again" in record.message]
    assert len(said) == 4
    assert all("rows 0 to 4095" in text for text in said)


@pytest.mark.usefixtures("quick_retries")
def test_a_chunk_that_can_never_be_read_is_named(store, monkeypatch):
    attempts = failing(monkeypatch, 10**6, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(DataError, match=r"data\.zarr: array .*, rows 0 to 4095: .*Input/output"):
        fitted(store)
    assert 5 <= len(attempts) <= 15  # of X and y


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("checksum"), OSError("no number")]
)
def test_what_will_not_pass_is_not_tried_again(error, store, monkeypatch):
    monkeypatch.setattr(retrying.time, "sleep", None)  # must not be called
    failing(monkeypatch, 10**6, error)
    with pytest.raises(DataError, match="rows 0 to 4095"):
        fitted(store)


@pytest.mark.usefixtures("small_samples")
def test_slow_storage_changes_no_bit(store, monkeypatch):
    expected = fitted(store)
    read = zarr_rows.read_rows

    def late(array, start, stop):
        time.sleep(0.02 * (start // 4096 % 3))
        return read(array, start, stop)

    monkeypatch.setattr(zarr_rows, "read_rows", late)
    model = fitted(store)
    assert same(model.network_.hidden_weights, expected.network_.hidden_weights)


@pytest.mark.parametrize(("array", "column"), [("X", 1), ("y", 0)])
@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("search", "sample"),
        ("search", "layers"),
        ("damped", "sample"),
        ("damped", "layers"),
        ("alternating", "alternating"),
    ],
)
@pytest.mark.usefixtures("small_samples")
def test_data_that_turns_nan_during_a_run(method, array, column, stage, store, monkeypatch):
    """In a chunk with a valid checksum, of the package's own store, which is read each pass."""
    monkeypatch.setattr(inputs, "SMALL", 0)
    spoiled = []

    def spoil(progress):
        if progress.stage == stage and not spoiled:
            spoiled.append(progress)
            values = zarr.open_array(store, path=array, mode="r+")
            values[9000:9001, column] = np.nan

    model = AltReLURegressor(4, method=method, random_state=0, max_iter=3, callback=spoil)
    data = open_dataset(store)
    with pytest.raises(DataError, match="rows 8192 to 12287"):
        model.fit(data.X, data.y)
    assert spoiled
    assert not hasattr(model, "network_")


def test_infinities_of_both_signs_are_no_sum_that_is_a_warning():
    X = np.array([[np.inf], [-np.inf]])
    with pytest.raises(DataError, match="X has values that are not finite in rows 40 to 41"):
        Rows(40, X, np.zeros((2, 1))).check_finite()


SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from altrelu_dist import AltReLURegressor
from altrelu_dist.checkpoints.store import CheckpointStore

folder, filler = Path(sys.argv[1]) / "run", Path(sys.argv[1]) / "filler"
X = np.random.default_rng(0).standard_normal((3000, 3))
y = np.abs(X[:, 0]) * X[:, 1]
seen = []

def follow(progress):
    if progress.stage == "grow" and progress.iteration > 2 and not seen:
        seen.append(CheckpointStore(folder).load() is not None)
        try:
            with filler.open("wb") as file:
                while True:
                    file.write(bytes(512))
                    file.flush()
        except OSError:
            pass
    elif progress.stage == "cycle" and len(seen) == 1:
        # What was there before the disk was full is whole.
        seen.append(CheckpointStore(folder).load() is not None)
        filler.unlink()

options = {"n_hidden": 5, "random_state": 0, "max_iter": 2}
kept = {"checkpoint": folder, "checkpoint_interval": 0}
model = AltReLURegressor(**options, **kept, callback=follow).fit(X, y)
assert seen == [True, True], seen
expected = AltReLURegressor(**options).fit(X, y)
again = AltReLURegressor(**options, **kept, resume=True).fit(X, y)
for one in (model, again):
    assert (one.network_.hidden_weights == expected.network_.hidden_weights).all()
assert not any(path.name.endswith(".partial") for path in folder.iterdir())
"""


@pytest.mark.cluster
def test_a_disk_that_is_full_for_a_while(tmp_path):
    """A real one: the run goes on, says so once, and keeps its checkpoints when there is room."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        home = str(Path(altrelu_dist.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path],
            env=os.environ | {"PYTHONPATH": home},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        (said,) = done.stderr.splitlines()
        assert "no checkpoint could be written: No space left on device; the run goes on" in said
    finally:
        subprocess.run(["umount", tmp_path], check=True)
