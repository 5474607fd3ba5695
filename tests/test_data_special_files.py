"""FIFOs, sockets, devices and standard input, which are no files, are refused at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from data_files import rows_of_numbers, write

from altrelu_dist import AltReLURegressor, describe, open_dataset
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.errors import CheckpointError, DataError, ModelFileError
from altrelu_dist.network import Network


@pytest.fixture
def frame(rng):
    return rows_of_numbers(rng)


def make_fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def make_socket(path):
    path.unlink(missing_ok=True)
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def make_device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


NAMES = ("f.csv", "f.csv.gz", "f.tsv", "f.jsonl", "f.parquet", "f.feather", "f.npz", "X.npy")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_special_files_are_refused_at_once(make, frame, tmp_path):
    what = {"make_fifo": "named pipe", "make_socket": "socket", "make_device": "device"}
    pattern = rf"is a {what[make.__name__]}.*, expected a file"
    for name in NAMES:
        make(tmp_path / name)
        for address in (tmp_path / name, f"simplecache::{tmp_path / name}", tmp_path / "[Xf].*"):
            with pytest.raises(DataError, match=pattern):
                open_dataset(address, target=None if name == "X.npy" else "y")
        (tmp_path / name).unlink()
    for name in ("a.zip", "a.tar"):
        make(tmp_path / name)
        with pytest.raises(DataError, match=pattern):
            open_dataset(f"{name[2:]}://t.csv::{tmp_path / name}", target="y")
        (tmp_path / name).unlink()
    write(frame, tmp_path / "p1.parquet")
    make(tmp_path / "p2.parquet")
    with pytest.raises(DataError, match=pattern):
        describe(tmp_path, target="y")
    np.save(tmp_path / "X.npy", np.ones((3, 2)))
    make(tmp_path / "y.npy")
    with pytest.raises(DataError, match=pattern):
        open_dataset(tmp_path / "X.npy")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_special_files_in_stores_are_refused(make, compressors, zarr_format, tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    for name, shape in (("X", (40, 2)), ("y", (40,))):
        kept = {"chunks": (10, *shape[1:]), "compressors": compressors}
        group.create_array(name, data=np.ones(shape), **kept)
    chunk = tmp_path / "a.zarr/X" / ("c/2/0" if zarr_format == 3 else "2.0")
    assert chunk.exists()
    data = open_dataset(tmp_path / "a.zarr")
    make(chunk)
    for read in (data.X, open_dataset(tmp_path / "a.zarr").X):
        with pytest.raises(DataError, match=f"{chunk}: is a .*, expected a file"):
            read.compute()
    with pytest.raises(DataError, match="expected a file"):
        AltReLURegressor(2).fit(zarr.open_array(tmp_path / "a.zarr", path="X"), np.ones(40))
    metadata = sorted(
        path for path in (tmp_path / "a.zarr").rglob("*") if path.name[0] in "z." and path.is_file()
    )
    assert len(metadata) >= 3
    for path in metadata:
        kept = path.read_bytes()
        make(path)
        with pytest.raises(DataError, match=f"{path}: is a .*, expected a file"):
            open_dataset(tmp_path / "a.zarr")
        path.unlink()
        path.write_bytes(kept)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_special_files_in_networks_and_checkpoints_are_refused(make, tmp_path, rng):
    X = rng.normal(size=(60, 2))
    model = AltReLURegressor(2, method="alternating", max_iter=2, random_state=0)
    model.set_params(checkpoint=tmp_path / "run").fit(X, X[:, 0])
    model.save(tmp_path / "m.zarr")
    for path in [path for path in (tmp_path / "m.zarr").rglob("*") if path.is_file()]:
        kept = path.read_bytes()
        make(path)
        with pytest.raises(ModelFileError, match=f"{path}: is a .*, expected a file"):
            Network.load(tmp_path / "m.zarr")
        path.unlink()
        path.write_bytes(kept)
    assert Network.load(tmp_path / "m.zarr").n_features == 2
    make(tmp_path / "n.zarr")
    with pytest.raises(ModelFileError, match="expected a file"):
        Network.load(tmp_path / "n.zarr")
    newest = max((tmp_path / "run").glob("*.bin"))
    make(newest)
    with pytest.raises(CheckpointError, match=r"expected a file|not a regular file"):
        CheckpointStore(tmp_path / "run").load()
    newest.unlink()
    make(tmp_path / "run/lock")
    with (
        pytest.raises(CheckpointError, match=r"expected a file|not a regular file"),
        CheckpointStore(tmp_path / "run").owned(),
    ):
        pass


def test_standard_input_is_refused(frame):
    command = [str(Path(sys.executable).with_name("altrelu")), "info", "/dev/stdin"]
    done = subprocess.run(
        command, input=frame.to_csv(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: /dev/stdin: is a named pipe")
