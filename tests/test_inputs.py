"""Whatever holds the rows, the engine passes over the same ones; what cannot be is refused."""

from __future__ import annotations

from dataclasses import dataclass

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from distributed import get_worker
from hypothesis import given
from hypothesis import strategies as st
from oracles import same

from altrelu_dist import inputs
from altrelu_dist.cluster_errors import workers_of
from altrelu_dist.engine import DaskEngine, LocalEngine
from altrelu_dist.errors import ClusterError, DataError
from altrelu_dist.inputs import current_client, engine_of, is_lazy, kept, lazy_array, local_rows
from altrelu_dist.moments import Sampler

N = 50


@pytest.fixture
def data(rng):
    return rng.standard_normal((N, 3)), rng.standard_normal((N, 2)), rng.random(N) + 0.1


def collected(engine):
    """All rows of an engine, in order: a sample of every one of them."""
    return engine.reduce(Sampler(1.0, 0), "all").drawn()[:3]


def assert_holds(engine, X, y, weight=None):
    y = y[:, None] if y.ndim == 1 else y
    for found, expected in zip(collected(engine), (X, y, weight), strict=True):
        assert found is expected is None or np.array_equal(found, expected)
    assert engine.n_rows == len(X)


def test_data_in_memory_stays_in_process(data):
    engine = engine_of(*data)
    assert isinstance(engine, LocalEngine)
    assert_holds(engine, *data)
    X, y, weight = data
    assert_holds(engine_of(X.tolist(), y[:, 0].tolist(), weight.tolist()), X, y[:, 0], weight)
    frame = pd.DataFrame(X)
    assert_holds(engine_of(frame, pd.Series(y[:, 1]), weight[:, None]), X, y[:, 1], weight)


@given(
    rows=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    y_chunk=st.integers(1, 60),
    weight_chunk=st.integers(1, 60),
    columns=st.sampled_from([(3,), (1, 2), (1, 1, 1)]),
    weighted=st.booleans(),
)
def test_chunks_that_do_not_line_up_are_rechunked(rows, y_chunk, weight_chunk, columns, weighted):
    n = sum(rows)
    if n == 0:
        return
    rng = np.random.default_rng(n)
    X, y, weight = rng.standard_normal((n, 3)), rng.standard_normal(n), rng.random(n) + 0.1
    engine = engine_of(
        da.from_array(X, chunks=(tuple(rows), columns)),
        da.from_array(y, chunks=y_chunk),
        da.from_array(weight, chunks=weight_chunk) if weighted else None,
    )
    assert isinstance(engine, DaskEngine)
    assert_holds(engine, X, y, weight if weighted else None)


def test_every_kind_of_lazy_rows(data, tmp_path):
    X, y, weight = data
    lazy = da.from_array(y, chunks=(17, 1))
    store = zarr.open_group(tmp_path / "x.zarr", mode="w")
    for name, values in (("X", X), ("y", y), ("w", weight)):
        store.create_array(name, data=values, chunks=(16, 2)[: values.ndim])
    assert is_lazy(store["X"])
    assert_holds(engine_of(store["X"], store["y"], store["w"]), *data)
    assert_holds(engine_of(store["X"], lazy, weight), *data)
    frame = pd.DataFrame(np.hstack([X, y]), columns=list("abcde"))
    frames = dd.from_pandas(frame, npartitions=4)
    assert is_lazy(frames)
    assert_holds(engine_of(frames[["a", "b", "c"]], frames[["d", "e"]], weight), *data)
    assert_holds(engine_of(frames[["a", "b", "c"]], frames["e"]), X, y[:, 1])
    # Chunks of unknown size, from a filter.
    some = frames[frames["a"] > 0]
    here = frame[frame["a"] > 0]
    unknown = some[["a", "b"]].to_dask_array()
    assert np.isnan(unknown.shape[0])
    assert_holds(
        engine_of(unknown, some["d"].to_dask_array()),
        here[["a", "b"]].to_numpy(),
        here["d"].to_numpy(),
    )
    assert_holds(engine_of(X, lazy), X, y)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64", "bool", "float16"])
def test_the_dtype_of_the_rows_is_kept_until_a_block_is_made(data, dtype):
    X, y, _ = data
    X = (10 * X).astype(dtype)
    for engine in (engine_of(X, y), engine_of(da.from_array(X, chunks=20), y)):
        assert collected(engine)[0].dtype == dtype


def test_rows_that_differ_are_refused(data):
    X, y, weight = data
    lazy = da.from_array(X, chunks=10)
    for rows in (X, lazy):
        with pytest.raises(DataError, match="X has 50 rows, y has 49: they must be equal"):
            engine_of(rows, y[:-1])
        with pytest.raises(DataError, match="X has 50 rows, sample_weight has 3"):
            engine_of(rows, y, weight[:3])
    frames = dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=3)
    with pytest.raises(DataError, match="X has 50 rows, y has 20"):
        engine_of(frames, y[:20])


def test_shapes_that_cannot_be_are_refused(data):
    X, y, weight = data
    for make in (np.asarray, da.asarray):
        with pytest.raises(DataError, match="0 sample"):
            engine_of(make(X[:0]), make(y[:0]))
        with pytest.raises(DataError, match="0 feature"):
            engine_of(make(X[:, :0]), make(y))
        with pytest.raises(DataError, match="y has 3 dimensions"):
            engine_of(make(X), make(y[:, :, None]))
        with pytest.raises(DataError, match="sample_weight has 2 columns"):
            engine_of(make(X), make(y), make(np.stack([weight, weight], axis=1)))
        with pytest.raises(DataError, match="sample_weight has 0 dimensions"):
            engine_of(make(X), make(y), np.float64(2))


def test_what_is_not_numbers_is_refused(data):
    X, y, _ = data
    text = np.full(N, "tall")
    for make in (np.asarray, lambda a: da.from_array(np.asarray(a), chunks=-1)):
        with pytest.raises(DataError, match=r"y holds <U4, not numbers; encode"):
            engine_of(make(X), make(text))
        with pytest.raises(DataError, match="X holds object, not numbers"):
            engine_of(make(X.astype(object)), make(y))
        with pytest.raises(DataError, match="X holds complex128"):
            engine_of(make(X.astype(complex)), make(y))
    frame = pd.DataFrame({"a": y[:, 0], "b": text})
    with pytest.raises(DataError, match="not numbers"):
        engine_of(dd.from_pandas(frame, npartitions=2), y)
    with pytest.raises(DataError, match=r"X is a builtins\.dict; expected a NumPy, Dask"):
        lazy_array({}, "X")


def test_sparse_rows_are_refused_with_what_to_do(data):
    X, y, _ = data
    rows = scipy.sparse.csr_matrix(X)
    lazy = da.from_array(X, chunks=10).map_blocks(scipy.sparse.csr_matrix)
    for sparse, target in ((rows, y), (rows, da.from_array(y)), (lazy, y)):
        with pytest.raises(DataError, match=r"X is (a )?sparse.*dense.*toarray\(\)"):
            engine_of(sparse, target)


def test_local_rows_are_views_of_the_data(data):
    X, y, weight = data
    rows = local_rows(X, y, weight)
    assert rows.start == 0
    assert np.shares_memory(rows.X, X)
    assert np.shares_memory(rows.y, y)
    assert same(rows.weight, weight)


# Clients


def test_no_client_is_found_where_there_is_none():
    assert current_client() is None


def test_the_current_client_is_found_for_lazy_data_alone(data, thread_client):
    X, y, weight = data
    assert current_client() is thread_client
    lazy = da.from_array(X, chunks=10)
    assert isinstance(engine_of(X, y, weight), LocalEngine)
    for engine in (engine_of(lazy, y, weight), engine_of(X, y, weight, client=thread_client)):
        assert engine.reduce(where, "where").on_a_worker
        assert_holds(engine, *data)


def test_a_scheduler_of_this_process_is_used_as_dask_uses_it(data, thread_client):
    """Dask's configuration comes before its current client; a client that is given before both."""
    X, y, _ = data
    lazy = da.from_array(X, chunks=10)
    with dask.config.set(scheduler="sync"):
        assert current_client() is None
        assert not engine_of(lazy, y).reduce(where, "where").on_a_worker
        assert engine_of(lazy, y, client=thread_client).reduce(where, "where").on_a_worker


@dataclass(frozen=True)
class Place:
    on_a_worker: bool

    def merge(self, other):
        return Place(self.on_a_worker and other.on_a_worker)


def where(_):
    try:
        return Place(get_worker() is not None)
    except ValueError:
        return Place(False)


class Reads:
    """An array of which the reads are counted, those of its copies too."""

    count = 0

    def __init__(self, values):
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        Reads.count += 1
        return self.values[key]


@pytest.mark.parametrize(("share", "times"), [(0.4, 1), (0.0, 3)])
def test_what_fits_in_the_cluster_is_read_once(data, thread_client, monkeypatch, share, times):
    X, y, _ = data
    monkeypatch.setattr(inputs, "_CACHED_SHARE", share)
    lazy = da.from_array(Reads(X), chunks=(25, 3), name="counted", asarray=False)
    Reads.count = 0
    engine = kept(engine_of(lazy, y, client=thread_client))
    for _ in range(3):
        engine.reduce(Sampler(1.0, 0), "all")
    assert Reads.count == 2 * times


@pytest.mark.parametrize("kinds", [("bool", "float32"), ("bool", "int64"), ("Float64", "Int64")])
def test_a_frame_of_several_kinds_of_numbers_is_taken(rng, kinds):
    columns = {
        "a": pd.Series((rng.random(N) > 0.5).astype(int)).astype(kinds[0]),
        "b": pd.Series(np.arange(N)).astype(kinds[1]),
    }
    frame = pd.DataFrame(columns)
    taken = lazy_array(dd.from_pandas(frame, npartitions=3), "X")
    assert taken.dtype.kind in "fi"
    assert np.array_equal(taken.compute(), frame.astype(float).to_numpy())


def test_missing_values_of_a_frame_are_nan():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [0.5, 1.5, 2.5]})
    taken = lazy_array(dd.from_pandas(frame, npartitions=1), "X").compute()
    assert np.isnan(taken).tolist() == [[False, False], [True, False], [False, False]]


def test_a_zarr_array_is_read_by_whole_shards_and_rows(tmp_path):
    small = zarr.create_array(
        tmp_path / "small.zarr", shape=(1000, 4), chunks=(10, 2), shards=(500, 4), dtype="f8"
    )
    assert lazy_array(small, "X").chunks == ((1000,), (4,))
    large = zarr.create_array(
        tmp_path / "large.zarr", shape=(10**7, 4), chunks=(1000, 4), shards=(50_000, 4), dtype="f8"
    )
    rows, columns = lazy_array(large, "X").chunks
    assert columns == (4,)
    assert rows[0] == 500_000


def test_a_client_that_is_closed_is_refused(data):
    class Closed:
        status = "closed"

    with pytest.raises(ClusterError, match="client is closed"):
        engine_of(*data, client=Closed())


def test_a_scheduler_that_is_gone_is_told_of_in_one_line():
    """Dask's client then knows of no workers, not even that there are none."""

    class Closed:
        status = "closed"

        def scheduler_info(self, n_workers):
            del n_workers
            return {}

    with pytest.raises(ClusterError, match="connection to the scheduler is lost"):
        workers_of(Closed())
