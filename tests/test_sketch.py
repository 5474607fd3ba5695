"""The sketch of columns: values and ranks of all rows in one pass, over any tiles and chunks."""

from __future__ import annotations

import dataclasses

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import same
from sketched_rows import mixed, sketch_of
from test_engine import chunkings, small_tiles

from altrelu_dist.encoding import CAPACITY, Encoder, sketch_columns
from altrelu_dist.engine import DaskEngine, LocalEngine
from altrelu_dist.moments import Rows


def in_the_tree(X, weight=None):
    rows = Rows(0, X, X[:, :1], weight)
    with small_tiles():
        return LocalEngine.of(rows).reduce(sketch_columns, "sketch")


@given(n=st.integers(1, 200), seed=st.integers(0, 99), weighted=st.booleans())
def test_few_distinct_values_are_kept_exactly_whatever_the_tiles(n, seed, weighted):
    rng = np.random.default_rng(seed)
    X = mixed(rng, n)
    weight = rng.integers(0, 4, n).astype(float) if weighted else None
    one, tree = sketch_of(X, weight), in_the_tree(X, weight)
    assert one.exact.all()
    assert tree.exact.all()
    for column in range(X.shape[1]):
        counted = np.ones(n) if weight is None else weight
        values = np.unique(X[counted > 0, column])
        expected = [counted[X[:, column] == value].sum() for value in values]
        for found in (one, tree):
            assert found.points(column)[0].tolist() == values.tolist()
            assert found.points(column)[1].tolist() == expected


@given(seed=st.integers(0, 99), n=st.sampled_from([40, 2500]))
def test_weights_are_repeated_rows(seed, n):
    rng = np.random.default_rng(seed)
    X, weight = mixed(rng, n), rng.integers(0, 3, n)
    weighted, repeated = sketch_of(X, weight), sketch_of(np.repeat(X, weight, axis=0))
    assert same(weighted.values, repeated.values)
    assert same(weighted.exact, repeated.exact)
    for name in ("weights", "total", "mean", "squares", "low", "high"):
        expected = getattr(repeated, name)
        assert getattr(weighted, name) == pytest.approx(expected, rel=1e-10, abs=1e-10), name


@pytest.mark.parametrize("kind", ["as it comes", "sorted", "alternating", "levels", "weighted"])
def test_ranks_are_within_the_bound(kind, monkeypatch):
    n, tile = 1 << 20, 512
    rng = np.random.default_rng(0)
    x = rng.standard_normal(n)
    if kind == "sorted":
        x.sort()
    elif kind == "alternating":
        x = np.sort(x).reshape(2, -1).T.ravel()
    elif kind == "levels":
        x = np.floor(x * 700)
    weight = rng.exponential(size=n) if kind == "weighted" else None
    monkeypatch.setattr("altrelu_dist.engine.TILE", tile)
    rows = Rows(0, x[:, None], x[:, None], weight)
    found = LocalEngine.of(rows).reduce(sketch_columns, "sketch")  # 2,048 tiles
    assert not found.exact[0]
    values, weights = found.points(0)
    assert len(values) <= CAPACITY
    order = np.argsort(x)
    ranks = np.cumsum(np.ones(n) if weight is None else weight[order])
    true = ranks[np.searchsorted(x[order], values, side="right") - 1] / ranks[-1]
    # Between two kept values nothing is known: the rank is off most just below the next.
    below = np.append(ranks, 0.0)[np.searchsorted(x[order], values) - 1] / ranks[-1]
    estimated = np.cumsum(weights) / weights.sum()
    worst = max(np.abs(true - estimated).max(), np.abs(below - np.append(0, estimated[:-1])).max())
    levels = 1 + int(np.ceil(np.log2(n / tile)))
    assert worst <= levels / (2 * CAPACITY)
    assert worst <= 0.005
    assert weights.sum() == pytest.approx(ranks[-1])


def test_values_that_are_not_finite_do_not_count():
    X = np.column_stack([np.arange(6.0), np.array([np.nan, 1, -np.inf, 2, np.inf, 2])])
    found = sketch_of(X)
    assert found.total.tolist() == [6, 3]
    assert found.points(1)[0].tolist() == [1, 2]
    assert found.points(1)[1].tolist() == [1, 2]
    assert (found.low[1], found.high[1]) == (1, 2)
    assert found.missing.tolist() == [0, 1]
    merged = found.merge(sketch_of(np.full((3, 2), np.nan)))
    assert merged.missing.tolist() == [3, 4]
    assert same(dataclasses.replace(merged, missing=found.missing), found)


@given(chunks=chunkings(most=120), weighted=st.booleans(), order=st.sampled_from("CF"))
def test_chunks_do_not_matter(chunks, weighted, order):
    n = sum(chunks)
    rng = np.random.default_rng(n)
    X = np.asarray(mixed(rng, n), order=order)
    weight = rng.random(n) if weighted else None
    arrays = [da.from_array(a, chunks=(chunks, -1)) for a in (X, X[:, :1])]
    if weighted:
        arrays.append(da.from_array(weight[:, None], chunks=(chunks, -1)))
    with small_tiles():
        here = LocalEngine.of(Rows(0, X, X[:, :1], weight)).reduce(sketch_columns, "sketch")
        there = DaskEngine(*arrays).reduce(sketch_columns, "sketch")
    assert same(here, there)
    assert Encoder.learn(here) == Encoder.learn(there)


def test_many_columns_are_those_of_each_alone(rng):
    X = np.hstack([rng.standard_normal((1500, 40)), rng.integers(0, 9, (1500, 40))])
    found = sketch_of(X).merge(sketch_of(X + 0.25))
    for column in (0, 39, 40, 63, 64, 79):
        alone = sketch_of(X[:, [column]]).merge(sketch_of(X[:, [column]] + 0.25))
        for one, other in zip(found.points(column), alone.points(0), strict=True):
            assert one.tolist() == other.tolist()
