"""Converting: missing values, outputs that exist or cannot be written, interrupts, memory."""

from __future__ import annotations

import errno
import os
import resource
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from altrelu_dist import AltReLURegressor
from altrelu_dist.data import convert, open_dataset
from altrelu_dist.data.missing import Cleaner, column_means
from altrelu_dist.data.source import Block
from altrelu_dist.data.zarr_writer import StoreWriter, rows_per_chunk
from altrelu_dist.errors import DataError, ExistsError, ParameterError

NAN, INF = np.nan, np.inf
HOLES = pd.DataFrame(
    {
        "a": [1.0, NAN, 3.0, INF, 5.0, 9.0],
        "b": [1.0, 2.0, 3.0, 4.0, NAN, 9.0],
        "y": [1.0, 2.0, 3.0, 4.0, 5.0, NAN],
    }
)


@pytest.fixture
def holes(tmp_path):
    HOLES.to_parquet(tmp_path / "holes.parquet")
    return tmp_path / "holes.parquet"


@pytest.fixture
def whole(tmp_path):
    np.savez(tmp_path / "whole.npz", X=np.arange(20_000.0).reshape(10_000, 2), y=np.ones(10_000))
    return tmp_path / "whole.npz"


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_missing_values_are_counted_and_refused(holes, tmp_path):
    with pytest.raises(DataError) as caught:
        convert(holes, tmp_path / "a.zarr", target="y", missing="error")
    assert str(caught.value) == (
        f"{holes}: missing or infinite values in 4 of 6 rows, the first in row 1 (counted from 0): "
        "a (2, 1 infinite), b (1), y (1); leave such rows out with drop_missing=True, or fill "
        "features with impute='mean'"
    )
    with pytest.raises(DataError, match=r"in 1 of 6 rows.*row 3 .*: a \(1 infinite\);"):
        convert(holes, tmp_path / "a.zarr", target="y")
    assert os.listdir(tmp_path) == ["holes.parquet"]


def test_missing_targets_are_never_filled(holes, tmp_path):
    summary = convert(holes, tmp_path / "a.zarr", target="y", impute="mean")
    assert (summary.rows, summary.dropped, summary.filled) == (5, 1, 3)
    with pytest.raises(DataError, match=r"in 1 of 6 rows, the first in row 5 .*: y \(1\); leave"):
        convert(holes, tmp_path / "b.zarr", target="y", impute="mean", missing="error")


def test_rows_with_missing_values_are_dropped(holes, tmp_path):
    summary = convert(holes, tmp_path / "a.zarr", target="y", drop_missing=True)
    assert (summary.rows, summary.dropped, summary.filled) == (2, 4, 0)
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.zarr").X.compute(), [[1, 1], [3, 3]])


def test_features_are_filled_and_rows_without_a_target_dropped(holes, tmp_path):
    summary = convert(holes, tmp_path / "a.zarr", target="y", drop_missing=True, impute="mean")
    assert (summary.rows, summary.dropped, summary.filled) == (5, 1, 3)
    stored = open_dataset(tmp_path / "a.zarr")
    expected = [[1, 1], [3, 2], [3, 3], [3, 4], [5, 2.5]]
    np.testing.assert_array_equal(stored.X.compute(), expected)
    np.testing.assert_array_equal(stored.y.compute()[:, 0], [1, 2, 3, 4, 5])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    share=st.sampled_from((0.0, 0.1, 0.6)),
    drop=st.booleans(),
    fill=st.booleans(),
    seed=st.integers(0, 999),
)
def test_cleaning_block_by_block_equals_pandas(rows, columns, cuts, share, drop, fill, seed):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, columns + 1))
    table[rng.random(table.shape) < share] = rng.choice([NAN, INF])
    frame = pd.DataFrame(table).replace([INF, -INF], NAN)
    features = frame.iloc[:, :-1]
    names = tuple(f"c{i}" for i in range(columns))
    edges = [0, *sorted(cut for cut in cuts if cut < rows), rows]
    blocks = [
        Block(table[low:high, :-1], table[low:high, -1:], None, NAN)
        for low, high in pairwise(edges)
    ]
    means = None
    if fill:
        expected_means = features[frame.iloc[:, -1].notna()].mean()
        if expected_means.isna().any():
            with pytest.raises(DataError, match="no values at all"):
                column_means("x", names, None, blocks)
            return
        means = column_means("x", names, None, blocks)
        np.testing.assert_allclose(means, expected_means, atol=1e-14)
        frame.iloc[:, :-1] = features.fillna(pd.Series(means))
    double = np.dtype("f8")
    cleaner = Cleaner("x", (*names, "y"), (double, double, None), drop=drop, means=means)
    if drop or not frame.isna().any(axis=None):
        got = [np.hstack([block.X, block.y]) for block in cleaner.clean(blocks)]
        left = frame.dropna()
        np.testing.assert_array_equal(np.vstack([np.empty((0, columns + 1)), *got]), left)
        assert cleaner.dropped == rows - len(left)
    else:
        bad = frame.isna().any(axis=1)
        with pytest.raises(DataError, match=f"in {bad.sum()} of {rows} rows.* row {bad.argmax()} "):
            list(cleaner.clean(blocks))


def test_nothing_left(tmp_path):
    pd.DataFrame({"a": [NAN, NAN], "y": [1.0, 2.0]}).to_csv(tmp_path / "a.csv", index=False)
    for options, pattern in (
        ({"drop_missing": True}, "no rows left: something is missing in every row"),
        ({"impute": "mean"}, "no values at all in a: leave such columns out"),
    ):
        with pytest.raises(DataError, match=pattern):
            convert(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", **options)
    assert os.listdir(tmp_path) == ["a.csv"]


def test_negative_weights_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(3), y=np.ones(3), sample_weight=[1, 0, -1])
    with pytest.raises(DataError, match="weight in row 2 is negative"):
        convert(tmp_path / "a.npz", tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("columns", "target", "dtype", "expected"),
    [
        ("float32", "float64", None, ("float32", "float64")),
        ("int16", "bool", None, ("float32", "float32")),
        ("int32", "float32", None, ("float64", "float32")),
        ("float64", "float64", "float32", ("float32", "float32")),
        ("uint8", "int8", "float64", ("float64", "float64")),
    ],
)
def test_dtypes_that_are_stored(columns, target, dtype, expected, tmp_path):
    frame = pd.DataFrame({"a": np.arange(3).astype(columns), "y": np.arange(3).astype(target)})
    frame.to_parquet(tmp_path / "a.parquet")
    summary = convert(tmp_path / "a.parquet", tmp_path / "a.zarr", target="y", dtype=dtype)
    stored = open_dataset(tmp_path / "a.zarr")
    assert (stored.X.dtype, stored.y.dtype) == expected
    assert summary.dtype == expected[0]
    np.testing.assert_array_equal(stored.X.compute()[:, 0], [0, 1, 2])


def test_values_too_large_for_float32(tmp_path):
    np.savez(tmp_path / "a.npz", X=[[1.0], [1e300]], y=np.ones(2))
    with pytest.raises(DataError, match="too large for float32; use dtype='float64'"):
        convert(tmp_path / "a.npz", tmp_path / "a.zarr", dtype="float32")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"impute": "median"}, "impute is 'median'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"chunk_bytes": 0}, "chunk_bytes is 0"),
    ],
)
def test_parameters_that_cannot_be(options, pattern, whole, tmp_path):
    with pytest.raises(ParameterError, match=pattern):
        convert(whole, tmp_path / "a.zarr", **options)
    with pytest.raises(ParameterError, match=r"must end in \.zarr"):
        convert(whole, tmp_path / "a.parquet")


def test_an_existing_store_is_replaced_only_when_told(whole, tmp_path):
    convert(whole, tmp_path / "a.zarr")
    before = files_in(tmp_path)
    with pytest.raises(ExistsError, match=r"a\.zarr: exists already"):
        convert(tmp_path / "none.csv", tmp_path / "a.zarr")  # refused before the source is opened
    assert files_in(tmp_path) == before
    np.savez(whole, X=np.eye(2), y=np.ones(2))
    convert(whole, tmp_path / "a.zarr", overwrite=True)
    assert open_dataset(tmp_path / "a.zarr").X.shape == (2, 2)
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", "whole.npz"]


def test_a_folder_that_is_no_store_is_never_replaced(whole, tmp_path):
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr/one.jpg").touch()
    with pytest.raises(ExistsError, match="not an altrelu-dataset"):
        convert(whole, tmp_path / "photos.zarr", overwrite=True)
    assert (tmp_path / "photos.zarr/one.jpg").exists()


def test_a_store_of_something_else_is_never_replaced(whole, tmp_path):
    AltReLURegressor(1, method="damped").fit(np.eye(9), np.arange(9.0)).save(tmp_path / "m.zarr")
    zarr.save_array(str(tmp_path / "theirs.zarr"), np.arange(3))
    for name in ("m.zarr", "theirs.zarr"):
        with pytest.raises(ExistsError, match="not an altrelu-dataset"):
            convert(whole, tmp_path / name, overwrite=True)
    assert AltReLURegressor.load(tmp_path / "m.zarr").n_hidden == 1
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "theirs.zarr")[...], np.arange(3))


def test_a_link_to_a_store_stays_a_link(whole, tmp_path):
    convert(whole, tmp_path / "a.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    np.savez(whole, X=np.eye(2), y=np.ones(2))
    convert(whole, tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    assert open_dataset(tmp_path / "a.zarr").X.shape == (2, 2)


@pytest.mark.parametrize(
    ("destination", "pattern"),
    [
        ("none/a.zarr", "the folder .*none does not exist"),
        ("whole.npz/a.zarr", "does not exist"),
        ("gone://bucket/a.zarr", "cannot be written: Protocol not known: gone"),
    ],
)
def test_a_destination_that_cannot_be(destination, pattern, whole, tmp_path):
    place = destination if "://" in destination else tmp_path / destination
    with pytest.raises(DataError, match=pattern):
        convert(whole, place)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody can write")
def test_a_file_system_that_refuses(whole):
    with pytest.raises(DataError, match="cannot be written"):
        convert(whole, "/proc/self/a.zarr")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, DataError])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupt_leaves_everything_as_it_was(error, after, whole, tmp_path):
    convert(whole, tmp_path / "a.zarr")
    before = files_in(tmp_path)
    calls = []

    def progress(rows, fraction):
        calls.append((rows, fraction))
        if len(calls) > after:
            raise error("stop")

    for name in ("a.zarr", "new.zarr"):
        calls.clear()
        with pytest.raises(error, match="stop"):
            convert(whole, tmp_path / name, overwrite=True, progress=progress)
        assert files_in(tmp_path) == before
        assert sorted(os.listdir(tmp_path)) == ["a.zarr", "whole.npz"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    X = np.random.default_rng(0).normal(size=(50_000, 4))
    np.savez(tmp_path / "a.npz", X=X, y=X[:, 0])
    np.savez(tmp_path / "b.npz", X=np.eye(2), y=np.ones(2))
    convert(tmp_path / "b.npz", tmp_path / "a.zarr")
    before = files_in(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # a real failing write, for root too
    try:
        with pytest.raises(DataError, match=r"a\.zarr: the disk is full; what was written is re"):
            convert(tmp_path / "a.npz", tmp_path / "a.zarr", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_in(tmp_path) == before
    assert len(os.listdir(tmp_path)) == 3


def test_a_full_disk_at_the_last_write(whole, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StoreWriter, "finish", full)
    with pytest.raises(DataError, match="the disk is full"):
        convert(whole, tmp_path / "a.zarr")
    assert os.listdir(tmp_path) == ["whole.npz"]


@pytest.mark.parametrize("passes", [1, 2])
def test_progress_goes_from_nothing_to_all(passes, tmp_path):
    X = np.random.default_rng(0).normal(size=(30_000, 2))
    frame = pd.DataFrame(X, columns=["a", "y"])
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    np.savez(tmp_path / "a.npz", X=X, y=X[:, 0])
    for name in ("a.parquet", "a.csv.gz", "a.npz"):
        seen = []
        convert(
            tmp_path / name,
            tmp_path / "a.zarr",
            target=None if name == "a.npz" else "y",
            overwrite=True,
            impute="mean" if passes == 2 else None,
            chunk_bytes=1,
            progress=lambda *now, seen=seen: seen.append(now),
        )
        fractions = [fraction for _, fraction in seen]
        assert fractions == sorted(fractions)
        assert fractions[-1] == pytest.approx(1.0)
        assert seen[-1][0] == 30_000
        assert len(seen) > passes


@given(columns=st.integers(1, 5000), rows=st.integers(0, 10**12), size=st.integers(1, 2**34))
def test_chunk_rows_are_a_power_of_two_from_4096(columns, rows, size):
    per_chunk = rows_per_chunk(columns, np.dtype("f4"), size, rows)
    assert per_chunk >= 4096
    assert per_chunk & (per_chunk - 1) == 0
    if per_chunk > 4096:
        assert 4 * columns * per_chunk <= size
        assert rows / per_chunk >= 8


@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_blocks_of_any_length_become_whole_chunks(sizes, tmp_path_factory):
    path = tmp_path_factory.mktemp("writer") / "a.zarr"
    rows = np.arange(sum(sizes), dtype="f8")[:, np.newaxis]
    writer = StoreWriter(path, ("a",), (), (np.dtype("f8"), None, None), 4096, named=True)
    edges = np.cumsum([0, *sizes])
    for low, high in pairwise(edges):
        writer.append(Block(rows[low:high], None, None, NAN))
    writer.finish()
    stored = zarr.open_array(path, path="X", mode="r")
    np.testing.assert_array_equal(stored[...], rows)
    assert stored.nchunks == stored.nchunks_initialized == -(-len(rows) // 4096)
