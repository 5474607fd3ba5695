"""Samples of rows and their distinct rows: the same over any chunks, and drawn evenly."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import same

from altrelu_dist.engine import TILE, DaskEngine, LocalEngine
from altrelu_dist.moments import Rows, Sampler, distinct


def sample_of(n, chunk, probability, seed, dtype="float64"):
    X = np.arange(n, dtype=dtype)[:, None]
    weight = X[:, :1] + 1
    if chunk is None:
        engine = LocalEngine.of(Rows(0, X, -X, weight[:, 0]))
    else:
        engine = DaskEngine(*(da.from_array(a, chunks=(chunk, -1)) for a in (X, -X, weight)))
    return engine.reduce(Sampler(probability, seed), "sample")


@pytest.mark.parametrize("chunk", [20_000, TILE, 1111])
def test_the_sample_is_the_same_over_any_chunks(chunk):
    alone, there = sample_of(20_000, None, 0.1, 3), sample_of(20_000, chunk, 0.1, 3)
    assert all(same(*parts) for parts in zip(alone.drawn(), there.drawn(), strict=True))
    assert same(alone.shuffled().X, there.shuffled().X)


@pytest.mark.parametrize("probability", [0.01, 0.3, 1.0])
def test_the_sample_has_about_the_right_size_everywhere(probability):
    n = 40_000
    rows = sample_of(n, None, probability, 1).shuffled()
    numbers = rows.X[:, 0].astype(int)
    spread = np.sqrt(n * probability * (1 - probability))
    assert abs(numbers.size - n * probability) <= 5 * spread
    assert np.unique(numbers).size == numbers.size
    for part in np.histogram(numbers, bins=8, range=(0, n))[0]:
        assert abs(part - n / 8 * probability) <= 5 * spread / np.sqrt(8)
    # Each drawn row keeps its target and its weight.
    assert same(rows.y, -rows.X)
    assert same(rows.weight, rows.X[:, 0] + 1)


def test_every_leading_part_of_a_sample_is_a_random_sample():
    rows = sample_of(40_000, None, 0.5, 1).shuffled()
    first = rows.X[:1000, 0]
    # Its mean is within five standard errors of that of all rows.
    assert abs(first.mean() - 20_000) < 5 * 40_000 / np.sqrt(12 * 1000)
    assert np.any(np.diff(first) < 0)
    smaller = sample_of(40_000, None, 0.2, 1).shuffled()
    assert same(smaller.X, rows.X[: len(smaller.X)])


def test_seeds_draw_different_rows():
    a, b = (sample_of(10_000, None, 0.1, seed).drawn().X for seed in (1, 2))
    assert np.intersect1d(a, b).size < 0.2 * a.size


def test_rows_without_weight_are_not_drawn():
    n = 10_000
    X = np.arange(n, dtype=float)[:, None]
    weight = (X[:, 0] % 4 == 0).astype(float)
    drawn = LocalEngine.of(Rows(0, X, X, weight)).reduce(Sampler(0.5, 0), "sample").drawn()
    assert drawn.weight.min() > 0
    assert abs(len(drawn.X) - 1250) < 5 * np.sqrt(625)


few_values = st.integers(-1, 1).map(float)


@given(
    table=hnp.arrays(float, st.tuples(st.integers(1, 30), st.just(3)), elements=few_values),
    weights=st.lists(st.integers(0, 3), min_size=30, max_size=30),
    dtype=st.sampled_from(["float64", "float32", "int64"]),
    seed=st.integers(0, 9),
)
def test_distinct_depends_on_the_set_of_rows_alone(table, weights, dtype, seed):
    weight = np.array(weights[: len(table)], dtype=float)
    assume(weight.any())
    X, y = table[:, :2].astype(dtype), table[:, 2:]
    base = distinct(Rows(0, X, y, weight), seed)
    order = np.random.default_rng(seed).permutation(len(X))
    times = weight.astype(int)
    for other in (
        Rows(0, X[order], y[order], weight[order]),
        Rows(0, np.repeat(X, times, axis=0), np.repeat(y, times, axis=0)),
        Rows(0, X[weight > 0], y[weight > 0], weight[weight > 0]),
        Rows(0, np.asfortranarray(X), y, weight),
    ):
        assert all(same(a, b) for a, b in zip(base, distinct(other, seed), strict=True))
    kept = {(*a, *b) for a, b in zip(base.X.tolist(), base.y.tolist(), strict=True)}
    used = weight > 0
    there = {(*a, *b) for a, b in zip(X[used].tolist(), y[used].tolist(), strict=True)}
    assert kept == there
    assert len(base.X) == len(kept)
    total = len(base.X) if base.weight is None else base.weight.sum()
    assert total == weight.sum()


def test_distinct_knows_one_zero_and_all_the_targets():
    X = np.array([[0.0], [-0.0], [0.0]])
    y = np.array([[1.0], [1.0], [2.0]])
    rows = distinct(Rows(0, X, y), 0)
    assert sorted(zip(rows.y[:, 0].tolist(), rows.weight.tolist(), strict=True)) == [
        (1.0, 2.0),
        (2.0, 1.0),
    ]


def test_distinct_shuffles():
    X = np.arange(1000.0)[:, None]
    rows = distinct(Rows(0, X, X), 0)
    assert rows.weight is None
    assert abs(np.corrcoef(rows.X[:, 0], np.arange(1000))[0, 1]) < 0.2
    assert not same(rows.X, distinct(Rows(0, X, X), 1).X)
    assert sorted(rows.X[:, 0]) == X[:, 0].tolist()
