"""Whatever format rows come in, opening and converting them gives the NumPy original."""

from __future__ import annotations

import gzip
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from altrelu_dist.data import convert, open_dataset
from altrelu_dist.errors import DataError, ParameterError

NARROW = ("float32", "float16", "bool", "uint8", "int16")
FORMATS = ("parquet", "csv", "csv.gz", "npz", "packed npz", "npy", "zarr 2", "zarr 3", "parts")


def stored_dtype(dtype):
    return np.dtype("float32" if dtype in NARROW else "float64")


def frame_of(X, y):
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    return frame.assign(target=y)


def write(folder, kind, X, y, chunk):
    """Write (X, y) in some format; give the address and the name of the target."""
    if kind == "parquet":
        frame_of(X, y).to_parquet(folder / "rows.parquet", row_group_size=chunk)
        return folder / "rows.parquet", "target"
    if kind == "parts":
        (folder / "parts").mkdir()
        for i, start in enumerate(range(0, len(X), max(chunk, len(X) // 11 + 1))):
            rows = slice(start, start + max(chunk, len(X) // 11 + 1))
            frame_of(X[rows], y[rows]).to_parquet(folder / f"parts/part-{i}.parquet")
        (folder / "parts/_SUCCESS").touch()
        return folder / "parts", "target"
    if kind in ("csv", "csv.gz"):
        frame_of(X, y).to_csv(folder / f"rows.{kind}", index=False)
        return folder / f"rows.{kind}", "target"
    if kind in ("npz", "packed npz"):
        save = np.savez if kind == "npz" else np.savez_compressed
        save(folder / "rows.npz", X=np.asfortranarray(X) if chunk % 2 else X, y=y)
        return folder / "rows.npz", None
    if kind == "npy":
        np.save(folder / "train_X.npy", np.asfortranarray(X) if chunk % 2 else X)
        np.save(folder / "train_y.npy", y)
        return folder / "train_X.npy", None
    group = zarr.open_group(folder / "rows.zarr", mode="w", zarr_format=int(kind[-1]))
    chunks = {"X": (chunk, 1 + chunk % X.shape[1]), "y": (1 + chunk // 2,)}
    for name, values in (("X", X), ("y", y)):
        made = group.create_array(name, shape=values.shape, chunks=chunks[name], dtype=values.dtype)
        made[...] = values
    return folder / "rows.zarr", None


def assert_same(dataset, X, y):
    assert dataset.y.chunks == (dataset.X.chunks[0], (1,))
    assert dataset.X.numblocks[1] == 1
    np.testing.assert_array_equal(dataset.X.compute(scheduler="sync"), X, strict=False)
    np.testing.assert_array_equal(dataset.y.compute(scheduler="sync"), y.reshape(len(y), 1))


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=6, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 5),
    chunk=st.integers(1, 70),
    dtype=st.sampled_from(("float64", "float32", "int64", "bool", "uint8", "float16")),
    seed=st.integers(0, 99),
)
@example(rows=4096, columns=2, chunk=999, dtype="float64", seed=0)
@example(rows=4097, columns=1, chunk=4097, dtype="float64", seed=1)
def test_every_format_gives_the_numpy_original(kind, rows, columns, chunk, dtype, seed):
    if "csv" in kind and dtype in ("float32", "float16", "uint8"):
        dtype = "float64"  # text has no narrow types
    if rows > 1000:
        chunk = max(chunk, 500)
    rng = np.random.default_rng(seed)
    X = (100 * rng.normal(size=(rows, columns))).clip(0, 200).astype(dtype)
    y = rng.normal(size=rows)
    with tempfile.TemporaryDirectory() as name:
        source, target = write(Path(name), kind, X, y, chunk)
        assert_same(open_dataset(source, target=target), X, y)
        summary = convert(source, Path(name) / "out.zarr", target=target)
        assert (summary.rows, summary.n_features, summary.n_targets) == (rows, columns, 1)
        stored = open_dataset(Path(name) / "out.zarr")
        assert_same(stored, X, y)
        assert stored.X.dtype == stored_dtype(dtype)
        assert stored.y.dtype == np.float64
        if target:
            assert stored.target_names == ("target",)
            assert stored.feature_names == tuple(f"c{i}" for i in range(columns))
        else:
            assert stored.feature_names is None


def test_readers_cross_to_other_processes(tmp_path):
    X, y = np.arange(30.0).reshape(10, 3), np.arange(10.0)
    for kind in FORMATS:
        (tmp_path / kind).mkdir()
        source, target = write(tmp_path / kind, kind, X, y, 4)
        dataset = pickle.loads(pickle.dumps(open_dataset(source, target=target)))
        assert_same(dataset, X, y)


def test_slicing_a_dask_array_reads_the_right_rows(tmp_path):
    X = np.arange(60.0).reshape(20, 3)
    for kind in (*FORMATS, "own"):
        (tmp_path / kind).mkdir()
        if kind == "own":
            source, target = tmp_path / "own/a.zarr", None
            convert(tmp_path / "npz/rows.npz", source)
        else:
            source, target = write(tmp_path / kind, kind, X, X[:, 0], 6)
        lazy = open_dataset(source, target=target).X
        for index in (slice(3, 17), slice(5, 6), slice(1, 19, 4), 7, -1, slice(4, 4)):
            np.testing.assert_array_equal(lazy[index].compute(scheduler="sync"), X[index])
        np.testing.assert_array_equal(lazy[2:9, 1].compute(scheduler="sync"), X[2:9, 1])


def test_store_has_whole_chunks_with_checksums(tmp_path):
    X = np.ones((20_000, 3), "float32")
    np.savez(tmp_path / "a.npz", X=X, y=X[:, 0])
    summary = convert(tmp_path / "a.npz", tmp_path / "a.zarr")
    assert (summary.chunk_rows, summary.n_chunks) == (4096, 5)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group["X"].chunks == (4096, 3)
    assert group["y"].chunks == (4096, 1)
    assert np.isinf(group["X"].fill_value)  # as no value is
    assert np.isnan(group["y"].fill_value)
    names = [codec.to_dict()["name"] for codec in group["X"].metadata.codecs]
    assert names == ["bytes", "zstd", "crc32c"]
    attributes = dict(group.attrs)
    assert len(attributes.pop("metadata_checksum")) == 64
    assert attributes == {
        "format": "altrelu-dataset",
        "format_version": 3,
        "rows": 20_000,
        "feature_names": None,
        "target_names": ["y"],
    }


def test_converting_a_converted_store_changes_nothing(tmp_path):
    frame = frame_of(np.arange(12.0).reshape(6, 2), np.arange(6.0)).assign(w=1.5)
    frame.to_parquet(tmp_path / "a.parquet")
    convert(tmp_path / "a.parquet", tmp_path / "a.zarr", target="target", weight="w")
    convert(tmp_path / "a.zarr", tmp_path / "a.zarr", overwrite=True)
    stored = open_dataset(tmp_path / "a.zarr", target="target")
    assert stored.feature_names == ("c0", "c1")
    assert stored.target_names == ("target",)
    np.testing.assert_array_equal(stored.sample_weight.compute(), np.full(6, 1.5))
    np.testing.assert_array_equal(stored.X.compute(), frame[["c0", "c1"]])


def test_several_targets_weights_and_column_order(tmp_path):
    frame = pd.DataFrame({"b": [1.0, 2], "w": [1, 2], "a": [3.0, 4], "c": [True, False]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    dataset = open_dataset(tmp_path / "a.csv", target=["c", "b"], weight="w")
    assert dataset.target_names == ("c", "b")
    assert dataset.feature_names == ("a",)
    np.testing.assert_array_equal(dataset.y.compute(), [[1, 1], [0, 2]])
    np.testing.assert_array_equal(dataset.sample_weight.compute(), [1, 2])
    with pytest.raises(ParameterError, match="named twice"):
        open_dataset(tmp_path / "a.csv", target="b", weight="b")


def test_weights_and_several_targets_of_arrays(tmp_path):
    y = np.arange(8).reshape(4, 2)
    np.savez(tmp_path / "a.npz", X=np.eye(4), other=y, sample_weight=np.arange(4))
    dataset = open_dataset(tmp_path / "a.npz", target="other")
    assert dataset.target_names == ("y0", "y1")
    np.testing.assert_array_equal(dataset.y.compute(), y)
    np.testing.assert_array_equal(dataset.sample_weight.compute(), np.arange(4))
    convert(tmp_path / "a.npz", tmp_path / "a.zarr", target="other")
    stored = open_dataset(tmp_path / "a.zarr")
    np.testing.assert_array_equal(stored.y.compute(), y)
    np.testing.assert_array_equal(stored.sample_weight.compute(), np.arange(4))


def test_data_without_a_target_is_enough_to_predict(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(3))
    zarr.save_array(tmp_path / "bare.zarr", np.eye(3))
    pd.DataFrame(np.eye(3)).to_csv(tmp_path / "a.csv", index=False)
    for name in ("a.npz", "bare.zarr", "a.csv"):
        dataset = open_dataset(tmp_path / name, require_target=False)
        assert dataset.y is None
        assert dataset.target_names == ()
        np.testing.assert_array_equal(dataset.X.compute(), np.eye(3))
        with pytest.raises(DataError, match="target"):
            open_dataset(tmp_path / name)
        convert(tmp_path / name, tmp_path / "out.zarr", overwrite=True)
        assert open_dataset(tmp_path / "out.zarr", require_target=False).y is None
        with pytest.raises(DataError, match="converted without a target"):
            open_dataset(tmp_path / "out.zarr")


def test_parts_are_put_together_in_natural_order(tmp_path):
    for i in range(12):
        pd.DataFrame({"a": [float(i)], "y": [1.0]}).to_csv(tmp_path / f"p-{i}.csv", index=False)
    (tmp_path / "README.md").write_text("not data")
    pd.DataFrame({"a": [], "y": []}).to_csv(tmp_path / "p-12.csv", index=False)
    for address in (tmp_path, f"{tmp_path}/p-*.csv", f"{tmp_path}/p-[0-9]*.csv"):
        dataset = open_dataset(address, target="y")
        np.testing.assert_array_equal(dataset.X[:, 0].compute(), np.arange(12.0))
    pair = tmp_path / "pair"
    pair.mkdir()
    np.save(pair / "X.npy", np.eye(2))
    np.save(pair / "y.npy", np.ones(2))
    np.save(tmp_path / "labels.npy", np.zeros(2))
    np.testing.assert_array_equal(open_dataset(pair).y.compute(), np.ones((2, 1)))
    named = open_dataset(pair / "X.npy", target=str(tmp_path / "labels.npy"))
    np.testing.assert_array_equal(named.y.compute(), np.zeros((2, 1)))


def test_csv_as_people_write_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbf;"a b"; y;flag;d\r\n0; 1.5;2;True;\r\n\r\n'
        b'1;"3";4;False;?\r\n2;NA;6;True;1e400'
    )
    dataset = open_dataset(path, target="y")
    assert dataset.feature_names == ("a b", "flag", "d")
    nan = np.nan
    expected = [[1.5, 1, nan], [3, 0, nan], [nan, 1, np.inf]]
    np.testing.assert_array_equal(dataset.X.compute(), expected)
    np.testing.assert_array_equal(dataset.y.compute(), [[2], [4], [6]])


def test_csv_in_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("altrelu_dist.data.lines.READ_BYTES", 1000)
    X = np.random.default_rng(0).normal(size=(500, 3))
    frame_of(X, X[:, 0]).to_csv(tmp_path / "a.csv", index=False)
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text.replace("\n", "\r\n\r\n"))
    dataset = open_dataset(tmp_path / "a.csv", target="target")
    assert dataset.X.numblocks[0] > 20
    assert_same(dataset, X, X[:, 0])
    convert(tmp_path / "a.csv", tmp_path / "a.zarr", target="target")
    assert_same(open_dataset(tmp_path / "a.zarr"), X, X[:, 0])


def test_parquet_types(tmp_path):
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 3], "Int64"),
            "flag": pd.array([True, False, None], "boolean"),
            "code": pd.Categorical([5, 7, 5]),
            "a.b": np.array([1, 2, 3], "float32"),
        },
        index=[4, 5, 9],
    )
    frame.to_parquet(tmp_path / "a.parquet")
    dataset = open_dataset(tmp_path / "a.parquet", require_target=False)
    assert dataset.feature_names == ("nullable", "flag", "code", "a.b")
    nan = np.nan
    expected = [[1, 1, 5, 1], [nan, 0, 7, 2], [3, nan, 5, 3]]
    np.testing.assert_array_equal(dataset.X.compute(), expected)


def test_large_row_groups_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("altrelu_dist.data.parquet_files.READ_BYTES", 800)
    X = np.random.default_rng(0).normal(size=(300, 2))
    frame_of(X, X[:, 0]).to_parquet(tmp_path / "a.parquet", row_group_size=230)
    dataset = open_dataset(tmp_path / "a.parquet", target="target")
    assert max(dataset.X.chunks[0]) <= 200
    assert_same(dataset, X, X[:, 0])


def test_big_endian_and_empty_parts(tmp_path):
    np.savez(tmp_path / "p1.npz", X=np.eye(2, dtype=">f4"), y=np.arange(2, dtype=">i8"))
    np.savez(tmp_path / "p2.npz", X=np.zeros((0, 2), "f4"), y=np.zeros(0))
    np.savez(tmp_path / "p3.npz", X=np.ones((1, 2), "f8"), y=np.ones(1))
    dataset = open_dataset(f"{tmp_path}/p*.npz")
    assert dataset.X.dtype == np.float64
    np.testing.assert_array_equal(dataset.X.compute(), [[1, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(dataset.y.compute(), [[0], [1], [1]])


def test_sharded_store(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    X = np.arange(200.0).reshape(100, 2)
    for name, values in (("X", X), ("y", X[:, :1])):
        made = group.create_array(
            name,
            shape=values.shape,
            chunks=(5, values.shape[1]),
            shards=(20, values.shape[1]),
            dtype="f8",
        )
        made[...] = values
    assert_same(open_dataset(tmp_path / "a.zarr"), X, X[:, 0])


def test_packed_data_too_large_for_one_piece_is_to_be_converted(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(400, 4))
    np.savez_compressed(tmp_path / "a.npz", X=X, y=X[:, 0])
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        frame_of(X, X[:, 0]).to_csv(file, index=False)
    for module, name in (("numpy_files", "a.npz"), ("lines", "a.csv.gz")):
        target = "target" if "csv" in name else None
        monkeypatch.setattr(f"altrelu_dist.data.{module}.PIECE_BYTES", 10_000)
        with pytest.raises(DataError, match=r"altrelu_dist\.convert"):
            open_dataset(tmp_path / name, target=target)
        convert(tmp_path / name, tmp_path / "out.zarr", target=target, overwrite=True)
        assert_same(open_dataset(tmp_path / "out.zarr"), X, X[:, 0])
