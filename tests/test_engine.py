"""One pass over all rows gives the same bits however the rows are cut and wherever tasks run."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest
from clusters import until
from dask.callbacks import Callback
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import random_weights, same
from threadpoolctl import threadpool_info, threadpool_limits

from altrelu_dist import Network, engine, threads
from altrelu_dist.engine import TILE, DaskEngine, LocalEngine
from altrelu_dist.errors import DataError
from altrelu_dist.inputs import engine_of
from altrelu_dist.moments import (
    HiddenMoments,
    KinkMoments,
    LossAndGradient,
    PatternDelta,
    PatternMoments,
    Rows,
    Sampler,
    Scaler,
    summarise,
)
from altrelu_dist.moments.loss import SquaredLoss
from altrelu_dist.prediction import predict_blocks


@dataclass(frozen=True)
class Story:
    """Tells which rows were merged with which, and in what order."""

    text: str

    def merge(self, other):
        return Story(f"({self.text} {other.text})")


def tell(rows):
    assert rows.X[:, 0].tolist() == list(range(rows.start, rows.stop))
    assert rows.y[:, 0].tolist() == [-i for i in range(rows.start, rows.stop)]
    assert rows.weight is None or rows.weight.tolist() == rows.X[:, 0].tolist()
    return Story(f"{rows.start}-{rows.stop}")


def story_of(n, tile):
    """The tree over tiles by its definition: the largest complete subtree, then the rest."""

    def tree(tiles):
        if len(tiles) == 1:
            return tiles[0]
        half = 1 << (len(tiles) - 1).bit_length() - 1
        return f"({tree(tiles[:half])} {tree(tiles[half:])})"

    return tree([f"{at}-{min(at + tile, n)}" for at in range(0, n, tile)])


@st.composite
def chunkings(draw, most=120, least=1):
    """Chunk sizes: ragged, tiny, or as large as the data."""
    sizes = st.one_of(st.integers(least, 5), st.integers(least, 40), st.just(8), st.just(16))
    chunks = draw(st.lists(sizes, min_size=1, max_size=12))
    while sum(chunks) > most:
        chunks.pop()
    return tuple(chunks) if sum(chunks) else (1,)


SMALL = 8


@contextmanager
def small_tiles():
    """Tiles of a few rows, so that small data has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "TILE", SMALL)
        yield


def numbered(chunks, weighted=False):
    numbers = np.arange(sum(chunks), dtype=float)
    X, y = numbers[:, None], -numbers[:, None]
    rows = Rows(0, X, y, numbers if weighted else None)
    parts = (X, y, numbers[:, None])[: 3 if weighted else 2]
    arrays = [da.from_array(part, chunks=(chunks, (1,))) for part in parts]
    return rows, arrays


@given(chunks=chunkings(), weighted=st.booleans())
@example(chunks=(7,), weighted=False)
@example(chunks=(8,), weighted=False)
@example(chunks=(9,), weighted=False)
@example(chunks=(1,) * 100, weighted=True)
@example(chunks=(64,), weighted=False)
@example(chunks=(4, 64, 4), weighted=False)
def test_the_tree_belongs_to_the_row_numbers(chunks, weighted):
    rows, arrays = numbered(chunks, weighted)
    expected = story_of(sum(chunks), SMALL)
    with small_tiles(), dask.config.set(scheduler="sync"):
        assert LocalEngine.of(rows).reduce(tell, "story").text == expected
        assert DaskEngine(*arrays).reduce(tell, "story").text == expected


@pytest.mark.parametrize("n", [1, TILE - 1, TILE, TILE + 1, 3 * TILE, 5 * TILE + 17])
def test_rows_below_at_and_above_a_tile(n):
    for chunks in ((n,), (n // 2, n - n // 2), (1, n - 1)):
        kept = tuple(size for size in chunks if size)
        rows, arrays = numbered(kept)
        assert LocalEngine.of(rows).reduce(tell, "story").text == story_of(n, TILE)
        assert DaskEngine(*arrays).reduce(tell, "story").text == story_of(n, TILE)


def statistics(rng, p, q, slope):
    weights = random_weights(rng, p, 3, q)
    moved = weights.W + 0.1 * rng.standard_normal(weights.W.shape)
    return (
        LossAndGradient(weights, slope),
        SquaredLoss(weights, slope),
        HiddenMoments(weights.W, slope),
        PatternMoments(weights.W, slope),
        PatternDelta(weights.W, moved, slope),
        KinkMoments(weights, 0.3, slope),
    )


@given(
    chunks=chunkings(),
    d=st.integers(1, 4),
    q=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "float64", "int16", "bool"]),
    order=st.sampled_from("CF"),
    weighted=st.booleans(),
    slope=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=20)
def test_every_statistic_gives_the_same_bits(chunks, d, q, dtype, order, weighted, slope):
    n = sum(chunks)
    rng = np.random.default_rng(n + d)
    X = np.asarray((rng.standard_normal((n, d)) * 3).astype(dtype), order=order)
    y = np.asarray(rng.standard_normal((n, q)), order=order)
    weight = rng.random(n) * (rng.random(n) < 0.8) + 1e-3 if weighted else None
    arrays = [da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks, -1))]
    if weight is not None:
        arrays.append(da.from_array(weight[:, None], chunks=(chunks, -1)))
    on_dask = DaskEngine(*arrays)
    with small_tiles(), dask.config.set(scheduler="sync"):
        local = LocalEngine.of(Rows(0, X, y, weight))
        drawn = [engine.reduce(Sampler(0.5, 3), "s").drawn() for engine in (local, on_dask)]
        assert same(*drawn)
        summary = local.reduce(summarise, "summary")
        assert same(summary, on_dask.reduce(summarise, "summary"))
        scaler = summary.scaler(np.dtype(np.float32 if dtype == "float32" else np.float64))
        local, on_dask = local.prepared(scaler), on_dask.prepared(scaler)
        for statistic in statistics(rng, d + 1, q, slope):
            name = type(statistic).__name__
            assert same(local.reduce(statistic, name), on_dask.reduce(statistic, name)), name


@pytest.fixture(scope="module")
def real_rows():
    """Some tiles of real size."""
    rng = np.random.default_rng(1)
    n = 3 * TILE + 1234
    return rng.standard_normal((n, 4)).astype("float32"), rng.standard_normal((n, 2))


@pytest.fixture(scope="module")
def in_process(real_rows):
    """What the statistics give in process, on one thread."""
    X, y = real_rows
    local = LocalEngine.of(Rows(0, X, y))
    return [local.reduce(statistic, "any") for statistic in raw_statistics()]


def raw_statistics():
    scaler = Scaler(np.dtype("float32"), np.zeros(4), np.ones(4), np.zeros(2), 1.0, 1.0)
    rng = np.random.default_rng(2)
    return [summarise, *(Prepared(scaler, s) for s in statistics(rng, 5, 2, 0.0))]


@dataclass(frozen=True)
class Prepared:
    scaler: object
    statistic: object

    def __call__(self, rows):
        return self.statistic(self.scaler(rows))


def assert_same_as(in_process, on):
    for expected, statistic in zip(in_process, raw_statistics(), strict=True):
        assert same(expected, on.reduce(statistic, "any"))


@pytest.mark.parametrize("count", [2, 3])
def test_threads_in_process_give_the_same_bits(monkeypatch, real_rows, in_process, count):
    X, y = real_rows
    monkeypatch.setattr(engine, "n_threads", lambda: count)
    assert_same_as(in_process, LocalEngine.of(Rows(0, X, y)))


@pytest.mark.parametrize("chunk", [20_000, TILE, 1000, 7777])
def test_dask_threads_give_the_same_bits(real_rows, in_process, chunk):
    X, y = (da.from_array(part, chunks=(chunk, -1)) for part in real_rows)
    assert_same_as(in_process, DaskEngine(X, y))


def test_workers_in_threads_give_the_same_bits(real_rows, in_process, thread_client):
    X, y = (da.from_array(part, chunks=(3000, -1)) for part in real_rows)
    assert_same_as(in_process, DaskEngine(X, y, client=thread_client))


def test_a_client_that_is_given_takes_data_in_memory(real_rows, in_process, thread_client):
    on = engine_of(*real_rows, client=thread_client)
    assert isinstance(on, DaskEngine)
    assert_same_as(in_process, on)


@pytest.mark.parametrize("blocks", [1, 8, 40])
def test_a_pass_is_a_few_tasks_a_block(blocks):
    keys = []
    _, arrays = numbered((100,) * blocks)
    on = DaskEngine(*arrays)
    with Callback(pretask=lambda key, *_: keys.append(key)):
        on.reduce(tell, "some-name")
    # Reading and using a block are one task, what it was read from are two more in all; merging
    # adds one in eight blocks, and so on.
    assert len(keys) <= 1.5 * blocks + 8
    assert any("some-name" in str(key) for key in keys)


class Reads:
    """An array that notes which rows were read."""

    def __init__(self, values):
        self.values, self.seen = values, []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        self.seen.append((key[0].start, key[0].stop))
        return self.values[key]


def test_a_pass_reads_every_block_once():
    rows, _ = numbered((100,) * 7)
    X, y = Reads(rows.X), Reads(rows.y)
    on = DaskEngine(
        da.from_array(X, chunks=(100, 1), name="X", asarray=False),
        da.from_array(y, chunks=(100, 1), name="y", asarray=False),
    )
    X.seen.clear()
    y.seen.clear()
    for _ in range(2):
        on.reduce(tell, "story")
    expected = sorted(2 * [(at, at + 100) for at in range(0, 700, 100)])
    assert sorted(X.seen) == expected
    assert sorted(y.seen) == expected


def test_leading_tiles_are_the_first_rows():
    rows, _ = numbered((30,))
    with small_tiles():
        whole = LocalEngine.of(rows)
        assert whole.leading(2).reduce(tell, "story").text == story_of(16, SMALL)
        assert whole.leading(2).n_rows == 16
        assert whole.leading(9).n_rows == 30
        assert whole.leading(9).reduce(tell, "story").text == story_of(30, SMALL)


def test_an_error_in_a_task_is_raised_as_it_is(thread_client):
    def fail(rows):
        raise ValueError(f"{rows.X.shape[0]} rows")

    _, arrays = numbered((10, 10))
    for on in (DaskEngine(*arrays), DaskEngine(*arrays, client=thread_client)):
        with pytest.raises(ValueError, match=r"^20 rows$"):
            on.reduce(fail, "failing")


def blas_threads():
    threads._controller()  # that both libraries are there
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_tasks_have_one_blas_thread_until_the_last_one_leaves():
    until(lambda: threads._users == 0, "tasks beside those that failed end")
    before = blas_threads()
    allowed = threads.n_threads()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with threads.one_blas_thread():
            inside.set()
            leave.wait(10)

    beside = threading.Thread(target=other)
    with threads.one_blas_thread():
        beside.start()
        assert inside.wait(10)
        assert set(blas_threads()) == {1}
        assert threads.n_threads() == allowed
    assert set(blas_threads()) == {1}
    leave.set()
    beside.join()
    assert threads._users == 0
    assert blas_threads() == before


def test_one_blas_thread_whoever_set_it_before():
    """A thread that lives on, and set a limit once, does not keep the others from theirs."""
    before = blas_threads()
    with threadpool_limits(1, user_api="blas"):
        pass
    seen = []

    def other():
        with threads.one_blas_thread():
            seen.extend(blas_threads())

    beside = threading.Thread(target=other)
    beside.start()
    beside.join()
    assert set(seen) == {1}
    assert blas_threads() == before


def test_tasks_see_one_blas_thread(real_rows):
    @dataclass(frozen=True)
    class Most:
        count: int

        def merge(self, other):
            return Most(max(self.count, other.count))

    X, y = real_rows
    for on in (
        LocalEngine.of(Rows(0, X, y)),
        DaskEngine(da.from_array(X, chunks=(5000, -1)), da.from_array(y, chunks=(5000, -1))),
    ):
        assert on.reduce(lambda _: Most(max(blas_threads())), "threads").count == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_handed_on_do_not_keep_their_block(weighted):
    columns = [np.arange(3.0 * TILE)[:, None] for _ in range(3 if weighted else 2)]
    tiles = engine._Tiles(lambda rows: Story(str(rows.start)), None, 4 * TILE)
    info = {0: {"array-location": [(10, 10 + 3 * TILE)]}}
    items = engine._block_partial(*columns, tiles=tiles, block_info=info)
    ends = [item.rows for item in items if isinstance(item, engine._Open)]
    assert [len(rows.X) for rows in ends] == [TILE - 10, 10]
    for rows in ends:
        held = [part for part in rows[1:] if part is not None]
        assert len(held) == len(columns)
        assert not any(np.shares_memory(*pair) for pair in zip(held, columns, strict=True))


def test_few_contributions_wait_to_be_merged(monkeypatch):
    monkeypatch.setattr(engine, "n_threads", lambda: 2)
    lock, made, merged = threading.Lock(), [], []

    class Counted:
        def __init__(self):
            with lock:
                made.append(1)
                assert len(made) - len(merged) <= 2 * 2 + 2 + 6  # ahead, at work, and in the tree

        def merge(self, other):
            del other
            with lock:
                merged.append(1)
            return self

    LocalEngine(list(range(64)), 64 * TILE).reduce(lambda _tile: Counted(), "count")
    assert (len(made), len(merged)) == (64, 63)


@pytest.mark.parametrize("wrong", ["X", "y"])
def test_blocks_that_are_not_what_their_chunks_say_are_refused(wrong):
    def shorter(block):
        return block[:-3]

    parts = {name: da.ones((200, 2), chunks=(100, 2)) for name in ("X", "y")}
    parts[wrong] = parts[wrong].map_blocks(shorter, chunks=parts[wrong].chunks)
    with pytest.raises(DataError, match=f"a block of {wrong} has 97 rows .* chunks say 100"):
        DaskEngine(parts["X"], parts["y"]).reduce(summarise, "summary")


def test_predictions_of_blocks_have_one_blas_thread(monkeypatch):
    found = []

    def noting(self, rows):
        found.append(blas_threads())
        return np.zeros((len(rows), self.n_targets))

    monkeypatch.setattr(Network, "predict", noting)
    network = Network(np.ones((2, 1)), np.ones(1), np.ones((1, 1)), np.ones(1))
    predict_blocks(network, da.ones((20, 2), chunks=(5, 2))).compute(scheduler="threads")
    assert len(found) >= 4
    assert all(count <= 1 for counts in found for count in counts)
