"""What a block contributes, against the definitions: Gram matrices, gradients, kinks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from oracles import (
    design,
    engine_over,
    features,
    objective_over,
    pattern,
    random_block,
    random_weights,
    residual,
    same,
    squares,
)

from altrelu_dist.engine import TILE
from altrelu_dist.moments import (
    Block,
    HiddenMoments,
    KinkMoments,
    LossAndGradient,
    PatternDelta,
    PatternMoments,
    Weights,
    packed_size,
)
from altrelu_dist.moments.loss import SquaredLoss, backward, forward, parts_of
from altrelu_dist.moments.pattern import WIDE
from altrelu_dist.training.pattern_state import PatternState

SLOPES = st.sampled_from([0.0, 0.1, 0.9])
SHAPES = {
    "n": st.integers(1, 700),  # below and above the rows that a kernel takes at once
    "d": st.integers(1, 5),
    "h": st.integers(1, 5),
    "q": st.integers(1, 3),
    "slope": SLOPES,
    "dtype": st.sampled_from(["float32", "float64"]),
    "weighted": st.booleans(),
}


def tolerance(dtype, n):
    return (3e-5 if dtype == "float32" else 1e-11) * max(n, 10)


def assert_close(found, expected, size):
    np.testing.assert_allclose(found.M, expected.M, rtol=0, atol=size)
    np.testing.assert_allclose(found.N, expected.N, rtol=0, atol=size)


def problem(n, d, h, q, dtype, weighted):
    rng = np.random.default_rng([n, d, h, q])
    block = random_block(rng, n, d, q, dtype=dtype, weighted=weighted)
    # Weights that float32 holds exactly: the pattern is then the same in either precision but
    # for a row within rounding of a kink.
    weights = random_weights(rng, d + 1, h, q)
    weights = Weights(
        *(part.astype("float32").astype(float) for part in (weights.W, weights.V, weights.c))
    )
    wide = Block(*(part.astype(float) for part in block))
    z = wide.x @ weights.W
    away = np.abs(z) > 1e-4 * wide.x[:, -1:]
    assume(bool((away | (wide.x[:, -1:] == 0)).all()))
    return block, wide, weights


@given(**SHAPES)
@example(n=512, d=3, h=4, q=1, slope=0.0, dtype="float32", weighted=False)
def test_packed_gram_is_the_explicit_one(n, d, h, q, slope, dtype, weighted):
    block, wide, weights = problem(n, d, h, q, dtype, weighted)
    moments = PatternMoments(weights.W, slope)(block)
    S = design(wide.x, weights.W, slope)
    close = {"abs": tolerance(dtype, n), "rel": 1e-4 if dtype == "float32" else 1e-10}
    p = d + 1
    assert moments.M.size == packed_size(h, p)
    assert moments.M.dtype == moments.N.dtype == np.float64
    assert (moments.n_hidden, moments.n_columns) == (h, p)
    full = (S.T @ S).reshape(h, p, h, p)
    assert moments.full() == pytest.approx(S.T @ S, **close)
    assert moments.pair(h - 1, 0) == pytest.approx(full[h - 1, :, 0], **close)
    factor = weights.V @ weights.V.T
    assert moments.full(factor) == pytest.approx(
        (factor[:, None, :, None] * full).reshape(h * p, h * p), **close
    )
    with_targets = S.T @ np.hstack([wide.y, wide.x[:, -1:]])
    assert moments.N.reshape(h * p, q + 1) == pytest.approx(with_targets, **close)


# By the design; sorted by class, in one span and in several, groups full and not; by pair.
@pytest.mark.parametrize(("h", "p"), [(4, 16), (13, 6), (11, 25), (2, 66), (3, WIDE + 3)])
@pytest.mark.parametrize("n", [1, 300, TILE])
@pytest.mark.parametrize(("slope", "dtype"), [(0.0, "float64"), (0.1, "float64"), (0.1, "float32")])
def test_every_way_to_the_packed_gram_is_the_explicit_one(rng, h, p, n, slope, dtype):
    if h * p > 150 and n == TILE:
        n = 700
    block = random_block(rng, n, p - 1, 2, weighted=True, dtype=dtype)
    weights = random_weights(rng, p, h, 2)
    moments = PatternMoments(weights.W, slope)(block)
    S = pattern(block.x @ weights.W.astype(dtype), slope).astype(dtype).astype(float)
    x, y = (part.astype(float) for part in block)
    S = (S[:, :, None] * x[:, None, :]).reshape(n, -1)
    close = {"rtol": 0, "atol": tolerance(dtype, n)}
    np.testing.assert_allclose(moments.full(), S.T @ S, **close)
    with_targets = S.T @ np.hstack([y, x[:, -1:]])
    np.testing.assert_allclose(moments.N.reshape(with_targets.shape), with_targets, **close)


@pytest.mark.parametrize("always", [False, True])
def test_packed_gram_of_neurons_that_are_all_on_or_all_off(rng, always):
    block = random_block(rng, 600, 12)
    W = np.zeros((13, 7))
    W[-1] = 1 if always else -1
    moments = PatternMoments(W)(block)
    for j, k in ((0, 0), (2, 6)):
        assert moments.pair(j, k) == pytest.approx(always * (block.x.T @ block.x), abs=1e-9)


@pytest.mark.parametrize(("h", "p"), [(13, 6), (11, 25), (3, 70)])
def test_delta_over_several_spans_is_the_difference_of_two_rebuilds(rng, h, p):
    block = random_block(rng, 900, p - 1, 2, weighted=True)
    old = random_weights(rng, p, h).W
    new = old + 0.05 * rng.standard_normal(old.shape)
    before, after = (PatternMoments(W, 0.1)(block) for W in (old, new))
    assert_close(PatternDelta(old, new, 0.1)(block).applied_to(before), after, 1e-9)


@given(**SHAPES)
def test_hidden_gram_from_the_moments_is_the_direct_one(n, d, h, q, slope, dtype, weighted):
    block, wide, weights = problem(n, d, h, q, dtype, weighted)
    H = features(wide.x, weights.W, slope)
    close = {"abs": tolerance(dtype, n), "rel": 1e-4 if dtype == "float32" else 1e-10}
    direct = HiddenMoments(weights.W, slope)(block)
    assert direct.gram == pytest.approx(H.T @ H, **close)
    assert direct.cross == pytest.approx(H.T @ wide.y, **close)
    assert direct.squares == pytest.approx((wide.y**2).sum(axis=0), **close)
    moments = PatternMoments(weights.W, slope)(block)
    E = moments.with_features(weights.W)
    assert pytest.approx(design(wide.x, weights.W, slope).T @ H, **close) == E
    gram = moments.hidden_gram(weights.W, E, direct.gram[-1, -1])
    assert gram == pytest.approx(direct.gram, **close)
    assert same(gram, gram.T)
    cross = moments.hidden_cross(weights.W, direct.cross[-1])
    assert cross == pytest.approx(direct.cross, **close)


@given(**SHAPES, size=st.sampled_from([0.0, 1e-3, 0.1, 3.0]))
def test_delta_is_the_difference_of_two_rebuilds(n, d, h, q, slope, dtype, weighted, size):
    block, _, weights = problem(n, d, h, q, dtype, weighted)
    rng = np.random.default_rng(n)
    moved = weights.W + size * rng.standard_normal(weights.W.shape)
    before, after = (PatternMoments(W, slope)(block) for W in (weights.W, moved))
    change = PatternDelta(weights.W, moved, slope)(block)
    updated = change.applied_to(before)
    assert_close(updated, after, tolerance(dtype, n))
    signs = [block.x @ W.astype(block.x.dtype) > 0 for W in (weights.W, moved)]
    assert change.flips == np.count_nonzero(signs[0] != signs[1])
    if size == 0:
        assert not change.M.any()
        assert not change.N.any()


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("step", [1e-3, 0.05, 2.0])
def test_pattern_state_follows_a_path(rng, slope, step):
    block = random_block(rng, 600, 3, 2, weighted=True)
    objective = objective_over(block, slope=slope)
    state = None
    W = random_weights(rng, 4, 5).W
    for at in range(25):
        state = PatternState.at(W, objective, state)
        rebuilt = PatternMoments(W, slope)(block)
        assert_close(state.moments, rebuilt, 1e-9)
        assert objective.monitor.counts.passes == at + 1
        W = W + step * rng.standard_normal(W.shape)


@given(**SHAPES)
def test_loss_is_the_sum_of_squares(n, d, h, q, slope, dtype, weighted):
    block, wide, weights = problem(n, d, h, q, dtype, weighted)
    sums = LossAndGradient(weights, slope)(block)
    close = {"abs": tolerance(dtype, n), "rel": 1e-4 if dtype == "float32" else 1e-10}
    by_target = (residual(wide, weights, slope) ** 2).sum(axis=0)
    assert sums.squares == pytest.approx(by_target, **close)
    assert all(part.dtype == np.float64 for part in (sums.squares, sums.W, sums.V, sums.c))
    assert SquaredLoss(weights, slope)(block).squares == pytest.approx(by_target, **close)


@pytest.mark.parametrize("q", [1, 2])
def test_the_gradient_of_a_wide_network_adds_up_over_parts_of_the_rows(rng, q):
    block, weights = random_block(rng, 700, 2, q, weighted=True), random_weights(rng, 3, 1100, q)
    assert len(list(parts_of(block, 1100))) == 3
    sums = LossAndGradient(weights, 0.1)(block)
    whole = backward(block, weights, *forward(block, weights, 0.1))
    for name in ("W", "V", "c"):
        assert getattr(sums, name) == pytest.approx(2 * getattr(whole, name), rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("q", [1, 3])
def test_gradient_by_finite_differences(rng, q, weighted, slope):
    block = random_block(rng, 200, 3, q, weighted=weighted)
    weights = random_weights(rng, 4, 5, q)
    sums = LossAndGradient(weights, slope)(block)
    step = 1e-6

    def numeric(part):
        out = np.empty_like(getattr(weights, part))
        for index in np.ndindex(out.shape):
            values = []
            for sign in (1, -1):
                parts = {name: getattr(weights, name).copy() for name in ("W", "V", "c")}
                parts[part][index] += sign * step
                values.append(squares(block, Weights(**parts), slope))
            out[index] = (values[0] - values[1]) / (2 * step)
        return out

    for part in ("W", "V", "c"):
        assert getattr(sums, part) == pytest.approx(numeric(part), rel=1e-5, abs=1e-3), part


def test_gradient_in_float32_is_that_in_float64(rng):
    block = random_block(rng, 500, 4, 2, weighted=True)
    weights = random_weights(rng, 5, 6, 2)
    wide = LossAndGradient(weights)(block)
    narrow = LossAndGradient(weights)(Block(*(part.astype("float32") for part in block)))
    for part in ("squares", "W", "V", "c"):
        scale = np.abs(getattr(wide, part)).max()
        assert getattr(narrow, part) == pytest.approx(getattr(wide, part), abs=1e-4 * scale)


@pytest.mark.parametrize(
    "statistic",
    [
        lambda w: LossAndGradient(w, 0.1),
        lambda w: HiddenMoments(w.W, 0.1),
        lambda w: PatternMoments(w.W, 0.1),
        lambda w: PatternDelta(w.W, w.W + 0.1, 0.1),
        lambda w: KinkMoments(w, 0.5, 0.1),
    ],
)
def test_weights_are_repeated_rows(rng, statistic):
    times = rng.integers(0, 4, 150)
    rows = random_block(rng, 150, 3, 2)
    root = np.sqrt(times)[:, None]
    weighted = Block(rows.x * root, rows.y * root)
    repeated = Block(np.repeat(rows.x, times, axis=0), np.repeat(rows.y, times, axis=0))
    made = statistic(random_weights(rng, 4, 5, 2))
    a, b = made(weighted), made(repeated)
    for name in a.__dataclass_fields__:
        if name != "flips":  # of rows, not of weights
            value = getattr(a, name)
            assert value == pytest.approx(getattr(b, name), rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_kink_blocks_are_the_smoothed_curvature(rng, q, slope, weighted):
    width, (n, d, h) = 0.3, (300, 3, 4)
    block = random_block(rng, n, d, q, weighted=weighted)
    weights = random_weights(rng, d + 1, h, q)
    expected = np.zeros((h, d + 1, d + 1))
    for x, y in zip(*block, strict=True):
        weight = x[-1] ** 2
        if weight == 0:
            continue
        x, y = x / x[-1], y / x[-1]
        z = weights.W.T @ x
        error = np.where(z > 0, z, slope * z) @ weights.V + weights.c - y
        for j in range(h):
            half = width * np.linalg.norm(weights.W[:, j])
            hat = max(0.0, 1 - abs(z[j]) / half) / half
            expected[j] += weight * (1 - slope) * hat * (error @ weights.V[j]) * np.outer(x, x)
    found = KinkMoments(weights, width, slope)(block).blocks
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    some = np.array([2, 0])
    assert KinkMoments(weights, width, slope, some)(block).blocks == pytest.approx(found[some])


def test_kink_blocks_are_the_derivative_that_a_frozen_pattern_lacks(rng):
    """Along a direction they give the mean rise of the gradient beyond Gauss and Newton's."""
    n, slope = 40_000, 0.0
    block = random_block(rng, n, 2, 1)
    weights = random_weights(rng, 3, 1)
    width = 0.05
    kinks = KinkMoments(weights, width, slope)(block).blocks[0]
    step = 0.3 * width * np.linalg.norm(weights.W) * np.array([0.0, 0.0, 1.0])

    def moved(sign):
        return Weights(weights.W + sign * step[:, None], weights.V, weights.c)

    gradients = [LossAndGradient(moved(sign), slope)(block).W[:, 0] / 2 for sign in (1, -1)]
    rise = (gradients[0] - gradients[1])[2] / 2
    # Mean over the way of the Gauss-Newton matrix; what is left is the kinks'.
    frozen = np.mean(
        [
            weights.V[0, 0] ** 2 * PatternMoments(moved(share).W, slope)(block).pair(0, 0)[2] @ step
            for share in np.linspace(-1, 1, 41)
        ]
    )
    assert rise - frozen == pytest.approx(kinks[2] @ step, rel=0.1)


def test_dead_neurons_contribute_nothing_and_warn_of_nothing(rng):
    block = random_block(rng, 100, 3, 2, weighted=True)
    weights = random_weights(rng, 4, 4, 2)
    W = weights.W.copy()
    W[:, 1] = 0
    W[:, 2] = [0, 0, 0, -1]
    weights = Weights(W, weights.V, weights.c)
    moments = PatternMoments(W)(block)
    assert not moments.pair(1, 1).any()
    assert not moments.pair(2, 0).any()
    assert np.isfinite(KinkMoments(weights, 0.1)(block).blocks).all()
    assert not LossAndGradient(weights)(block).W[:, 1:3].any()
    none = Weights(np.zeros((4, 0)), np.zeros((0, 2)), weights.c)
    assert LossAndGradient(none)(block).squares == pytest.approx(
        ((block.x[:, -1:] * none.c - block.y) ** 2).sum(axis=0)
    )
    assert HiddenMoments(none.W)(block).gram.shape == (1, 1)


def test_tiles_add_up_to_the_whole(rng):
    block = random_block(rng, 2 * TILE + 100, 2, 1)
    weights = random_weights(rng, 3, 2)
    for statistic in (LossAndGradient(weights), PatternMoments(weights.W)):
        one, many = statistic(block), engine_over(block).reduce(statistic, "any")
        for name in one.__dataclass_fields__:
            value = getattr(many, name)
            assert value == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-8)
