"""Rows, blocks and weights: cutting and joining, standardising and folding it back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import activate, features, penalty, random_weights, same

from altrelu_dist.moments import HiddenGram, Rows, Scaler, Weights, summarise
from altrelu_dist.network import Network

DTYPES = ("float64", "float32", "float16", "int64", "uint8", "bool")


def random_rows(rng, n, d, q, dtype="float64", weighted=False):
    X = (rng.standard_normal((n, d)) * 3).astype(dtype)
    y = rng.standard_normal((n, q))
    weight = rng.uniform(0.1, 2, n) if weighted else None
    return Rows(0, X, y, weight)


@given(
    n=st.integers(2, 60),
    at=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    weighted=st.booleans(),
)
def test_parts_that_follow_each_other_are_the_whole(n, at, weighted):
    rows = random_rows(np.random.default_rng(n), n, 3, 2, weighted=weighted)._replace(start=7)
    cuts = sorted({7 + min(a, n) for a in at} | {7, 7 + n})
    parts = [rows.part(start, stop) for start, stop in pairwise(cuts)]
    whole = parts[0]
    for part in parts[1:]:
        assert part.start == whole.stop
        whole = whole.followed_by(part)
    assert whole.start == rows.start
    assert whole.stop == rows.stop
    assert all(same(a, b) for a, b in zip(whole, rows, strict=True))


@given(
    n=st.integers(2, 200),
    d=st.integers(1, 5),
    q=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    weighted=st.booleans(),
    offset=st.sampled_from([0.0, -3.0, 1e6]),
)
def test_blocks_are_standardised_by_the_weighted_moments(n, d, q, dtype, weighted, offset):
    rows = random_rows(np.random.default_rng(n), n, d, q, dtype, weighted)
    if np.dtype(dtype).kind == "f" and dtype != "float16":
        rows = rows._replace(X=rows.X + rows.X.dtype.type(offset))
    x, y = summarise(rows).scaler(np.dtype("float64"))(rows)
    weight = np.ones(n) if rows.weight is None else rows.weight
    wide = rows.X.astype(np.float64)
    assert x[:, -1] ** 2 == pytest.approx(weight / weight.mean())
    # A block's rows carry the roots of their weights, so plain sums are weighted ones.
    varies = np.ptp(wide, axis=0) > 0
    assert x[:, :-1].T @ x[:, -1] == pytest.approx(np.zeros(d), abs=1e-7 * n)
    spread = np.einsum("iu,iu->u", x[:, :-1], x[:, :-1]) / n
    assert spread[varies] == pytest.approx(np.ones(varies.sum()), rel=1e-7)
    assert np.abs(x[:, :-1][:, ~varies]).max(initial=0) <= 1e-7
    assert y.T @ x[:, -1] == pytest.approx(np.zeros(q), abs=1e-9 * n)
    assert (y**2).sum() / n == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_have_the_dtype_that_is_asked_for_and_are_contiguous(rng, dtype):
    for order in "CF":
        rows = random_rows(rng, 30, 4, 2, weighted=True)
        rows = rows._replace(X=np.asarray(rows.X, order=order), y=np.asarray(rows.y, order=order))
        block = summarise(rows).scaler(np.dtype(dtype))(rows)
        for part in block:
            assert part.dtype == dtype
            assert part.flags.c_contiguous


@given(
    seed=st.integers(0, 99),
    slope=st.sampled_from([0.0, 0.2]),
    q=st.integers(1, 3),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_the_raw_network_predicts_what_the_standardised_one_does(seed, slope, q, offset):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 50, 4, q)
    rows = rows._replace(X=rows.X * [1e-6, 1, 1e6, 0] + offset, y=rows.y * 7 - 3)
    scaler = summarise(rows).scaler(np.dtype("float64"))
    weights = random_weights(rng, 5, 6, q)
    raw = Network(*scaler.to_raw(weights), negative_slope=slope).predict(rows.X)
    standard = features(scaler(rows).x, weights.W, slope) @ weights.output
    expected = standard * scaler.target_scale + scaler.target_center
    # Weights of the first column are 1e6 times larger: an offset costs as many digits.
    assert raw == pytest.approx(expected, rel=1e-9, abs=1e-9 if offset == 0 else 1e-3)


@given(seed=st.integers(0, 99), slope=st.sampled_from([0.0, 0.3]), dead=st.integers(0, 3))
def test_balancing_keeps_the_function_and_lowers_the_ridge(seed, slope, dead):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, 4, 5, 2)
    W, V = weights.W * 10.0 ** rng.integers(-8, 8, 5), weights.V.copy()
    if dead in (1, 3):
        W[:, 0] = 0
    if dead in (2, 3):
        V[1] = 0
    weights = Weights(W, V, weights.c)
    balanced = weights.balanced()
    x = np.append(rng.standard_normal((40, 3)), np.ones((40, 1)), axis=1)
    before = activate(x @ W, slope) @ V
    assert activate(x @ balanced.W, slope) @ balanced.V == pytest.approx(
        before, rel=1e-9, abs=1e-12 * np.abs(before).max()
    )
    assert penalty(balanced) <= penalty(weights) * (1 + 1e-12)
    alive = (np.abs(W[:-1]).max(axis=0) > 0) & (np.abs(V).max(axis=1) > 0)
    into = np.linalg.norm(balanced.W[:-1], axis=0)
    out = np.linalg.norm(balanced.V, axis=1)
    assert into[alive] == pytest.approx(out[alive])
    assert balanced.is_finite()


def test_weights_pick_and_take_an_output_layer(rng):
    weights = random_weights(rng, 4, 5, 2)
    picked = weights.pick(np.array([3, 1]))
    assert same(picked.W, weights.W[:, [3, 1]])
    assert same(picked.V, weights.V[[3, 1]])
    assert same(weights.with_output(weights.output), weights)
    assert not Weights(weights.W * np.inf, weights.V, weights.c).is_finite()


def test_contributions_add_field_by_field(rng):
    a, b = (
        HiddenGram(rng.random((2, 2)), rng.random((2, 1)), np.array(rng.random(1)))
        for _ in range(2)
    )
    total = a.merge(b)
    assert same(total.gram, a.gram + b.gram)
    assert same(total.cross, a.cross + b.cross)
    assert same(total.squares, a.squares + b.squares)


@given(
    n=st.integers(1, 700),
    d=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float64"]),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]),
    offset=st.sampled_from([0.0, 1.0, 1e5]),
)
def test_standardising_loses_no_digits(n, d, dtype, size, offset):
    rng = np.random.default_rng([n, d])
    X = ((rng.standard_normal((n, d)) + offset) * size).astype(dtype)
    center = np.full(d, offset * size) * (1 + 1e-9)
    scale = np.full(d, size)
    constant = d > 1
    if constant:
        scale[0] = np.inf
    scaler = Scaler(np.dtype(dtype), center, scale, np.zeros(1), 1.0, 1.0)
    x, _ = scaler(Rows(0, X, np.zeros((n, 1))))
    wide = X.astype(np.longdouble)
    expected = ((wide - center) / scale).astype(np.float64)
    close = 4 * float(np.finfo(dtype).eps)
    assert x[:, constant:-1] == pytest.approx(expected[:, constant:], rel=close, abs=close)
    assert (x[:, -1] == 1).all()
    if constant:
        assert (x[:, 0] == 0).all()
    parts = [scaler(Rows(at, X[at : at + 1], np.zeros((1, 1)))).x for at in range(min(n, 9))]
    assert same(np.concatenate(parts), x[:9])
