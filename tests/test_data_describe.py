"""`describe` against pandas, on threads and on a cluster, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altrelu_dist.data import convert, describe

NAN, INF = np.nan, np.inf


def assert_describes(columns, frame):
    """Compare with pandas, column by column."""
    for column in columns:
        values = frame[column.name].to_numpy(float)
        finite = values[np.isfinite(values)]
        assert column.missing == np.isnan(values).sum()
        assert column.infinite == np.isinf(values).sum()
        if not finite.size:
            assert all(map(math.isnan, (column.minimum, column.mean, column.maximum)))
            assert column.constant
            continue
        assert (column.minimum, column.maximum) == (finite.min(), finite.max())
        assert column.mean == pytest.approx(finite.mean(), rel=1e-12, abs=1e-12)
        assert column.constant == (len(set(finite)) == 1)


@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 4),
    group=st.integers(1, 10),
    share=st.sampled_from((0.0, 0.2, 1.0)),
    seed=st.integers(0, 99),
)
def test_every_column_is_described(rows, columns, group, share, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, size=(rows, columns)).astype(float)
    values[rng.random(values.shape) < share] = rng.choice([NAN, INF, -INF])
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(columns)])
    frame = frame.assign(y=rng.normal(size=rows), w=1.0)
    path = tmp_path_factory.mktemp("describe") / "a.parquet"
    frame.to_parquet(path, row_group_size=group)
    found = describe(path, target="y", weight="w")
    assert (found.rows, found.n_features, found.n_targets) == (rows, columns, 1)
    assert [c.role for c in found.columns] == ["feature"] * columns + ["target", "weight"]
    assert [c.name for c in found.columns] == [*frame.columns]
    assert_describes(found.columns, frame)


def test_integers_bools_and_one_value(tmp_path):
    X = np.array([[True, False], [True, True]])
    np.savez(tmp_path / "a.npz", X=X, y=np.array([3, 3], "int8"))
    a, b, y = describe(tmp_path / "a.npz").columns
    assert (a.minimum, a.mean, a.maximum, a.constant) == (1, 1, 1, True)
    assert (b.minimum, b.mean, b.maximum, b.constant) == (0, 0.5, 1, False)
    assert (y.mean, y.constant) == (3, True)


def test_sizes_of_a_store(tmp_path):
    X = np.random.default_rng(0).normal(size=(40_000, 3)).astype("f4")
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", X[:, 0])
    summary = convert(tmp_path / "X.npy", tmp_path / "a.zarr")
    found = describe(tmp_path / "a.zarr")
    assert (found.n_chunks, found.chunk_rows, found.dtype) == (10, 4096, "float32")
    assert (summary.n_chunks, summary.chunk_rows, summary.dtype) == (10, 4096, "float32")
    assert found.bytes_in_memory == 40_000 * 4 * 4
    assert found.bytes_on_disk == summary.bytes_on_disk
    files = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()]
    assert found.bytes_on_disk == sum(path.stat().st_size for path in files)
    pair = describe(tmp_path / "X.npy")
    assert pair.bytes_on_disk == sum((tmp_path / n).stat().st_size for n in ("X.npy", "y.npy"))
    assert_describes(found.columns[:3], pd.DataFrame(X, columns=["x0", "x1", "x2"]))


@pytest.mark.cluster
def test_on_a_cluster_of_processes(tmp_path):
    from clusters import local_cluster

    X = np.random.default_rng(0).normal(size=(20_000, 2))
    np.savez(tmp_path / "a.npz", X=X, y=X[:, 0])
    convert(tmp_path / "a.npz", tmp_path / "a.zarr")
    expected = describe(tmp_path / "a.zarr")
    with local_cluster(1):
        assert describe(tmp_path / "a.zarr") == expected
