"""Damage in the metadata of several arrays of a store at once: one line, and nothing logged."""

from __future__ import annotations

import gc
import json
import logging

import numpy as np
import pytest
import zarr

from altrelu_dist import convert, open_dataset
from altrelu_dist.errors import DataError


@pytest.fixture(params=["own", "others, format 3", "others, format 2"])
def store(request, tmp_path, rng):
    X, y, path = rng.random((20, 3)), rng.random(20), tmp_path / "data.zarr"
    if request.param == "own":
        np.savez(tmp_path / "data.npz", X=X, y=y)
        convert(tmp_path / "data.npz", path)
    else:
        group = zarr.open_group(path, mode="w", zarr_format=int(request.param[-1]))
        group.create_array("X", data=X)
        group.create_array("y", data=y)
    return path


@pytest.mark.parametrize("key", ["shape", "data_type", "dtype", "chunk_grid", "codecs", "chunks"])
def test_several_damaged_arrays_are_one_line(store, key, caplog):
    files = [file for name in ("zarr.json", ".zarray") for file in store.glob(f"*/{name}")]
    told = {file: json.loads(file.read_text()) for file in files}
    told = {file: metadata for file, metadata in told.items() if key in metadata}
    if not told:
        pytest.skip("no file of this format has it")
    for value in ("nonsense", None, 3, [[]], {}):
        for file, metadata in told.items():
            file.write_text(json.dumps(metadata | {key: value}))
        with caplog.at_level(logging.DEBUG), pytest.raises(DataError, match=r"data\.zarr"):
            open_dataset(store)
    gc.collect()  # asyncio logs the errors of tasks that nobody looked at when it collects them
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_else_lies_in_a_store_is_passed_over(store):
    (store / "notes.txt").write_text("mine")
    (store / "folder").mkdir()
    assert open_dataset(store).X.shape == (20, 3)
