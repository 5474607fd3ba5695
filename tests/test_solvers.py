"""The small dense systems against orthogonal factorisations of the explicit design matrices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles import (
    design,
    features,
    hidden_ridge,
    least_squares,
    output_ridge,
    pattern,
    penalty,
    random_block,
    random_weights,
    residual,
    squares,
)

from altrelu_dist.moments import (
    Block,
    HiddenGram,
    HiddenMoments,
    KinkMoments,
    LossAndGradient,
    PatternMoments,
    Weights,
)
from altrelu_dist.solvers import (
    LevenbergMarquardtSystem,
    Removal,
    output_squares,
    solve_hidden,
    solve_output,
)
from altrelu_dist.solvers.linalg import Factor, damped_inverse
from altrelu_dist.training.neurons import (
    CandidateMoments,
    CandidateProducts,
    Projected,
    insertion_order,
)

PROBLEMS = {
    "seed": st.integers(0, 50),
    "q": st.integers(1, 3),
    "ridge": st.sampled_from([0.0, 1e-3, 5.0]),
    "slope": st.sampled_from([0.0, 0.1]),
    "weighted": st.booleans(),
}


def problem(seed, q, weighted, n=300, d=3, h=4):
    rng = np.random.default_rng(seed)
    return random_block(rng, n, d, q, weighted=weighted), random_weights(rng, d + 1, h, q)


# Positive semidefinite systems


@given(seed=st.integers(0, 50), n=st.integers(1, 12), decades=st.integers(0, 12))
def test_factor_solves_systems_of_any_scale(seed, n, decades):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((2 * n + 3, n))
    A = A.T @ A
    scale = 10.0 ** rng.uniform(-decades, decades, n)
    expected = rng.standard_normal((n, 2)) / scale[:, None]
    A = A * scale * scale[:, None]
    b = A @ expected
    factor = Factor(A)
    assert factor.solve(b) * scale[:, None] == pytest.approx(
        expected * scale[:, None], rel=1e-6, abs=1e-8
    )
    assert factor.solve(b[:, 0]) == pytest.approx(factor.solve(b)[:, 0], rel=1e-9)
    white = factor.whiten(b)
    assert white.T @ white == pytest.approx(b.T @ expected, rel=1e-6, abs=1e-8)


@given(seed=st.integers(0, 50), n=st.integers(2, 10), rank=st.integers(1, 10))
def test_factor_solves_consistent_singular_systems(seed, n, rank):
    assume(rank < n)
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((rank, n))
    A = A.T @ A
    x = rng.standard_normal(n)
    found = Factor(A).solve(A @ x)
    assert np.isfinite(found).all()
    assert A @ found == pytest.approx(A @ x, rel=1e-5, abs=1e-5)


def test_factor_gives_zero_where_rows_are_zero():
    A = np.diag([4.0, 0.0, 2.0])
    assert Factor(A).solve(np.array([4.0, 5.0, 6.0])) == pytest.approx([1, 0, 3])
    assert not Factor(np.zeros((2, 2))).solve(np.ones((2, 3))).any()
    assert not Factor(np.zeros((2, 2))).whiten(np.ones((2, 3))).any()


def test_factor_finds_a_solution_whatever_rounding_made_of_the_matrix():
    A = np.array([[1e-20, 1.0, 0.0], [1.0, 4.0, 3.0], [0.0, 3.0, 2.0]])  # not semidefinite
    assert np.isfinite(Factor(A).solve(np.ones(3))).all()


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_factor_solves_the_empty_system(shape):
    assert Factor(np.zeros((0, 0))).solve(np.zeros(shape)).shape == shape
    assert Factor(np.zeros((0, 0))).inverse().shape == (0, 0)


@given(seed=st.integers(0, 50), n=st.integers(1, 12), damping=st.sampled_from([0.01, 0.1, 1.0]))
def test_the_damped_inverse_is_that_of_the_dense_sum(seed, n, damping):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((rng.integers(1, 2 * n + 1), n)) * 10.0 ** rng.uniform(-3, 3)
    gram = A.T @ A
    before = gram.copy()
    found = damped_inverse(gram, damping)
    expected = np.linalg.inv(gram + damping * np.trace(gram) / n * np.eye(n))
    assert found.dtype == np.float32
    assert np.array_equal(found, found.T)
    assert np.array_equal(gram, before)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("places", [[0, 0], [1, 1], [2, 1]])
def test_the_damped_inverse_of_what_is_not_finite_is_no_number(bad, places):
    gram = np.eye(3)
    gram[places[0], places[1]] = gram[places[1], places[0]] = bad
    assert np.isnan(damped_inverse(gram, 0.1)).all()


def test_the_damped_inverse_of_what_is_not_semidefinite_is_no_number():
    assert np.isnan(damped_inverse(np.array([[1.0, 5.0], [5.0, 1.0]]), 0.1)).all()


def test_the_damped_inverse_of_nothing_known_takes_no_step():
    assert not damped_inverse(np.zeros((3, 3)), 0.1).any()


def test_factor_reads_one_triangle_and_leaves_the_matrix():
    A = np.array([[4.0, np.nan], [1.0, 3.0]])
    Factor(A)
    whole = np.array([[4.0, 1.0], [1.0, 3.0]])
    before = whole.copy()
    factor = Factor(whole)
    assert np.array_equal(whole, before)
    assert factor.solve(whole @ [1.0, 2.0]) == pytest.approx([1, 2])


# The output layer


@given(**PROBLEMS)
def test_output_layer_is_ridge_regression_on_the_hidden_features(seed, q, ridge, slope, weighted):
    block, weights = problem(seed, q, weighted)
    moments = HiddenMoments(weights.W, slope)(block)
    output = solve_output(moments, ridge)
    H = features(block.x, weights.W, slope)
    expected = least_squares(H, block.y, output_ridge(4, ridge))
    assert output == pytest.approx(expected, rel=1e-7, abs=1e-8)
    refitted = weights.with_output(output)
    assert output_squares(moments, output) == pytest.approx(squares(block, refitted, slope))
    # The gradient of the objective in that layer is zero to rounding.
    sums = LossAndGradient(refitted, slope)(block)
    size = np.abs(moments.cross).max()
    assert np.abs(sums.V + 2 * ridge * output[:-1]).max() <= 1e-10 * size
    assert np.abs(sums.c).max() <= 1e-10 * size


@given(**PROBLEMS)
def test_removal_cost_is_what_refitting_without_the_neuron_costs(seed, q, ridge, slope, weighted):
    block, weights = problem(seed, q, weighted)
    moments = HiddenMoments(weights.W, slope)(block)
    costs = Removal(moments, ridge).costs()

    def objective(neurons):
        H = features(block.x, weights.W[:, neurons], slope)
        ridges = output_ridge(len(neurons), ridge)
        output = least_squares(H, block.y, ridges)
        return ((H @ output - block.y) ** 2).sum() + (ridges @ output**2).sum()

    everyone = np.arange(4)
    for j in everyone:
        rise = objective(np.delete(everyone, j)) - objective(everyone)
        assert costs[j] == pytest.approx(rise, rel=1e-6, abs=1e-6)


def test_a_neuron_that_does_nothing_costs_nothing():
    block, weights = problem(0, 2, False)
    W = weights.W.copy()
    W[:, 1] = 0  # dead
    W[:, 3] = 2 * W[:, 2]  # twice the same hinge
    moments = HiddenMoments(W)(block)
    costs = Removal(moments, 0.0).costs()
    assert costs[1] == 0
    assert costs[2:] == pytest.approx([0, 0], abs=1e-6 * costs[0])
    assert costs[0] > 0


@given(
    seed=st.integers(0, 50),
    ridge=st.sampled_from([0.0, 1e-3]),
    apart=st.sampled_from([0.0, 1e-3, 1e-2]),
)
def test_neurons_go_in_the_order_of_what_refitting_without_each_costs(seed, ridge, apart):
    block, weights = problem(seed, 2, False, h=9)
    W = weights.W.copy()
    W[:, 8] = 0  # dead
    W[:, 4:8] = W[:, :4] * [1, 2, 1, 0.5] + apart * W[:, 4:8]  # nearly copies
    moments = HiddenMoments(W)(block)
    scale = (block.y**2).sum()

    def objective(neurons):
        H = features(block.x, W[:, neurons], 0.0)
        ridges = output_ridge(len(neurons), ridge)
        output = least_squares(H, block.y, ridges)
        return ((H @ output - block.y) ** 2).sum() + (ridges @ output**2).sum()

    left = Removal(moments, ridge)
    while left.neurons.size:
        least = min(objective(np.delete(left.neurons, j)) for j in range(left.neurons.size))
        expected = least - objective(left.neurons)
        costs = left.costs()
        assert costs.min() == pytest.approx(expected, rel=1e-3, abs=1e-7 * scale)
        left.drop(int(np.argmin(costs)))
        assert objective(left.neurons) <= least + 1e-7 * scale
        H = features(block.x, W[:, left.neurons], 0.0)
        ridges = output_ridge(left.neurons.size, ridge)
        found = ((H @ left.output - block.y) ** 2).sum() + (ridges @ left.output**2).sum()
        assert found == pytest.approx(objective(left.neurons), rel=1e-5)


@given(seed=st.integers(0, 50), decades=st.floats(0, 9))
def test_neurons_that_went_leave_what_a_new_factorisation_finds(seed, decades):
    block, weights = problem(seed, 2, False, h=12)
    W = weights.W.copy()
    W[:, 6:] = W[:, :6] + 10**-decades * W[:, 6:]
    moments = HiddenMoments(W)(block)
    left = Removal(moments, 1e-6)
    while left.neurons.size:
        some = np.append(left.neurons, 12)
        others = HiddenGram(moments.gram[np.ix_(some, some)], moments.cross[some], moments.squares)
        costs = Removal(others, 1e-6).costs()
        assert left.costs() == pytest.approx(costs, rel=1e-3, abs=1e-7 * (block.y**2).sum())
        left.drop(int(np.argmin(left.costs())))


# The hidden layer


@given(**PROBLEMS)
def test_hidden_layer_is_least_squares_under_the_pattern(seed, q, ridge, slope, weighted):
    block, weights = problem(seed, q, weighted)
    (p, h), V = weights.W.shape, weights.V
    W = solve_hidden(PatternMoments(weights.W, slope)(block), weights, ridge)
    S = design(block.x, weights.W, slope)
    # One row a row and target; a column for each hidden weight.
    A = np.concatenate([S * np.repeat(V[:, t], p) for t in range(q)])
    b = np.concatenate([block.y[:, t] - weights.c[t] * block.x[:, -1] for t in range(q)])
    expected = least_squares(A, b, hidden_ridge(h, p, ridge))
    fitted = A @ expected
    assert A @ W.T.ravel() == pytest.approx(fitted, rel=1e-5, abs=1e-6)
    # Biases of neurons that are active everywhere may be exchanged for each other.
    penalised = hidden_ridge(h, p, ridge) > 0
    assert W.T.ravel()[penalised] == pytest.approx(expected[penalised], rel=1e-6, abs=1e-7)


# Both layers at once


def jacobian(block, weights, slope):
    """Of the fitted values under the frozen pattern, in W (by neuron) and then V and c by target.

    One row a target and row.
    """
    (p, h), q = weights.W.shape, weights.c.size
    S = design(block.x, weights.W, slope)
    H = features(block.x, weights.W, slope)
    n = S.shape[0]
    rows = []
    for t in range(q):
        out = np.zeros((n, h * p + q * (h + 1)))
        out[:, : h * p] = S * np.repeat(weights.V[:, t], p)
        start = h * p + t * (h + 1)
        out[:, start : start + h + 1] = H
        rows.append(out)
    return np.concatenate(rows)


def unknowns(W, output):
    return np.concatenate([W.T.ravel(), output.T.ravel()])


def all_ridges(h, p, q, ridge):
    return np.concatenate([hidden_ridge(h, p, ridge), np.tile(output_ridge(h, ridge), q)])


def system(block, weights, slope, ridge, kinks=None):
    p, h = weights.W.shape
    ones = float((block.x[:, -1] ** 2).sum())
    moments = PatternMoments(weights.W, slope)(block)
    kinks = np.zeros((h, p, p)) if kinks is None else kinks
    return LevenbergMarquardtSystem(moments, weights, kinks, ones, ridge)


def positive(kinks):
    values, vectors = np.linalg.eigh(kinks)
    return vectors @ (np.maximum(values, 0)[:, :, None] * vectors.transpose(0, 2, 1))


@given(**PROBLEMS)
def test_the_undamped_step_is_the_joint_least_squares_step(seed, q, ridge, slope, weighted):
    block, weights = problem(seed, q, weighted)
    p, h = weights.W.shape
    gradient = LossAndGradient(weights, slope)(block)
    step = system(block, weights, slope, ridge).step(gradient, 0.0)
    J = jacobian(block, weights, slope)
    r = residual(block, weights, slope).T.ravel()
    ridges = all_ridges(h, p, q, ridge)
    now = unknowns(weights.W, weights.output)
    rows = np.vstack([J, np.diag(np.sqrt(ridges))])
    expected = least_squares(rows, -np.concatenate([r, np.sqrt(ridges) * now]))
    found = unknowns(step.W, step.output)
    # Unique are the fit and what the ridge is on: without one a neuron may be rescaled between its
    # layers, and the bias of a neuron that is active everywhere is exchanged for the output's.
    penalised = ridges > 0
    assert found[penalised] == pytest.approx(expected[penalised], rel=1e-5, abs=1e-6)
    scale = np.abs(r).max()
    assert J @ found == pytest.approx(J @ expected, rel=1e-4, abs=1e-4 * scale)


@given(**PROBLEMS, damping=st.sampled_from([0.0, 1e-3, 1.0, 100.0]), kinky=st.booleans())
def test_the_foreseen_decrease_is_that_of_the_model(
    seed, q, ridge, slope, weighted, damping, kinky
):
    block, weights = problem(seed, q, weighted)
    p, h = weights.W.shape
    kinks = KinkMoments(weights, 0.3, slope)(block).blocks if kinky else np.zeros((h, p, p))
    gradient = LossAndGradient(weights, slope)(block)
    step = system(block, weights, slope, ridge, kinks).step(gradient, damping)
    J = jacobian(block, weights, slope)
    r = residual(block, weights, slope).T.ravel()
    ridges = all_ridges(h, p, q, ridge)
    curvature = positive(kinks)

    def model(change):
        at = unknowns(weights.W, weights.output) + change
        by_neuron = change[: h * p].reshape(h, p)
        bent = np.einsum("ju,juv,jv->", by_neuron, curvature, by_neuron)
        return ((r + J @ change) ** 2).sum() + ridges @ at**2 + bent

    change = unknowns(step.W, step.output)
    decrease = model(np.zeros_like(change)) - model(change)
    assert step.predicted_decrease == pytest.approx(decrease, rel=1e-6, abs=1e-6 * (r @ r))
    assert step.predicted_decrease >= 0
    # Under damping it is the minimiser of the model plus the damping's own terms.
    diagonal = (J**2).sum(axis=0) + ridges
    diagonal[: h * p] += np.einsum("juu->ju", curvature).ravel()
    diagonal[h * p :] = 0

    def damped(change):
        return model(change) + damping * (diagonal @ change**2)

    least = damped(change)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1):
        for _ in range(5):
            other = change + size * rng.standard_normal(change.size)
            assert damped(other) >= least - 1e-7 * (r @ r)


def test_more_damping_is_a_smaller_step():
    block, weights = problem(1, 2, False)
    gradient = LossAndGradient(weights)(block)
    made = system(block, weights, 0.0, 0.0)
    sizes = [np.linalg.norm(made.step(gradient, 10.0**k).W) for k in range(-3, 9, 2)]
    assert all(a > b for a, b in pairwise(sizes))
    # With the hidden layer held fast what is left is the refit of the output layer.
    step = made.step(gradient, 1e14)
    refit = solve_output(HiddenMoments(weights.W)(block), 0.0)
    assert weights.output + step.output == pytest.approx(refit, rel=1e-6, abs=1e-6)


def degenerate(name):
    """A block and weights of which some system is singular."""
    rng = np.random.default_rng(3)
    block, weights = random_block(rng, 60, 4, 2), random_weights(rng, 5, 5, 2)
    x, W = block.x.copy(), weights.W.copy()
    if name == "duplicate columns":
        x[:, 1] = x[:, 0]
    elif name == "zero column":
        x[:, 2] = 0
    elif name == "constant column":
        x[:, 2] = 1
    elif name == "collinear columns":
        x[:, 3] = x[:, 0] - 2 * x[:, 1] + 1e-9
    elif name == "dead neurons":
        W[:-1, :3] = 0
        W[-1, :3] = -1
    elif name == "zero neurons":
        W[:, :2] = 0
    elif name == "all dead":
        W[:-1], W[-1] = 0, -1
    elif name == "duplicate neurons":
        W[:, 1] = 3 * W[:, 0]
        W[:, 2] = -W[:, 0]
    elif name == "linear neurons":
        W[-1] = 1e3
    elif name == "fewer rows than columns":
        x, block = x[:3], Block(x[:3], block.y[:3])
    elif name == "one row":
        x, block = x[:1], Block(x[:1], block.y[:1])
    elif name == "no output weights":
        weights = Weights(W, 0 * weights.V, weights.c)
    elif name == "scales apart":
        W *= 10.0 ** np.array([-9, -4, 0, 4, 9])
    elif name == "one target":
        block = Block(block.x, block.y * [1, 0])
    return Block(x, block.y), Weights(W, weights.V, weights.c)


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize(
    "name",
    [
        "duplicate columns",
        "zero column",
        "constant column",
        "collinear columns",
        "dead neurons",
        "zero neurons",
        "all dead",
        "duplicate neurons",
        "linear neurons",
        "fewer rows than columns",
        "one row",
        "no output weights",
        "scales apart",
        "one target",
    ],
)
def test_singular_systems_have_finite_solutions_that_fit(name, slope):
    block, weights = degenerate(name)
    scale = float((block.y**2).sum())
    hidden = HiddenMoments(weights.W, slope)(block)
    output = solve_output(hidden, 0.0)
    assert np.isfinite(output).all()
    H = features(block.x, weights.W, slope)
    best = ((H @ least_squares(H, block.y) - block.y) ** 2).sum()
    refitted = weights.with_output(output)
    assert squares(block, refitted, slope) <= best + 1e-5 * scale
    assert (Removal(hidden, 0.0).costs() >= 0).all()
    moments = PatternMoments(weights.W, slope)(block)
    W = solve_hidden(moments, refitted, 0.0)
    assert np.isfinite(W).all()
    frozen = (pattern(block.x @ weights.W, slope) * (block.x @ W)) @ refitted.V
    frozen += block.x[:, -1:] * refitted.c
    now = squares(block, refitted, slope)
    assert ((frozen - block.y) ** 2).sum() <= now + 1e-5 * scale
    gradient = LossAndGradient(refitted, slope)(block)
    kinks = KinkMoments(refitted, 0.1, slope)(block).blocks
    for damping in (0.0, 1e-3, 1e6):
        step = system(block, refitted, slope, 0.0, kinks).step(gradient, damping)
        assert np.isfinite(step.W).all()
        assert np.isfinite(step.output).all()
        assert np.isfinite(step.predicted_decrease)


# Insertion


def brute_force_gains(block, weights, candidates, slope):
    """What refitting the output layer with each candidate beside the present neurons brings."""
    H = features(block.x, weights.W, slope)
    before = ((H @ least_squares(H, block.y) - block.y) ** 2).sum()
    gains = []
    for k in range(candidates.shape[1]):
        more = np.hstack([H, features(block.x, candidates[:, [k]], slope)[:, :1]])
        gains.append(before - ((more @ least_squares(more, block.y) - block.y) ** 2).sum())
    return np.array(gains)


def compared(block, candidates, weights, slope=0.0):
    sums = CandidateMoments(candidates, weights, slope)(block)
    return Projected.of(sums), CandidateProducts(candidates, slope)(block).gram


INSERTIONS = {
    "seed": st.integers(0, 30),
    "q": st.integers(1, 3),
    "h": st.integers(0, 4),
    "slope": st.sampled_from([0.0, 0.1]),
    "weighted": st.booleans(),
}


@given(**INSERTIONS)
def test_each_candidates_gain_is_what_refitting_with_it_brings(seed, q, h, slope, weighted):
    rng = np.random.default_rng(seed)
    block = random_block(rng, 200, 3, q, weighted=weighted)
    weights = random_weights(rng, 4, h, q)
    candidates = rng.standard_normal((4, 12))
    present = Weights(weights.W, np.zeros((h, q)), np.zeros(q))
    projected, _ = compared(block, candidates, weights, slope)
    expected = brute_force_gains(block, present, candidates, slope)
    np.testing.assert_allclose(projected.gains(), expected, rtol=1e-6, atol=1e-9)
    some = np.array([7, 2])
    np.testing.assert_array_equal(projected.pick(some).gains(), projected.gains()[some])


@given(**INSERTIONS)
def test_insertion_takes_the_best_candidates_one_after_the_other(seed, q, h, slope, weighted):
    rng = np.random.default_rng(seed)
    block = random_block(rng, 200, 3, q, weighted=weighted)
    weights = random_weights(rng, 4, h, q)
    refit = solve_output(HiddenMoments(weights.W, slope)(block), 0.0)
    candidates = rng.standard_normal((4, 12))
    for given_weights in (weights, weights.with_output(refit)):
        moments = compared(block, candidates, given_weights, slope)
        order = insertion_order(*moments, 3)
        assert len(set(order)) == 3
        asked = iter([False, False, True])
        assert insertion_order(*moments, 3, lambda asked=asked: next(asked)) == order[:2]
        W = weights.W
        for chosen in order:
            now = Weights(W, np.zeros((W.shape[1], q)), np.zeros(q))
            gains = brute_force_gains(block, now, candidates, slope)
            assert gains[chosen] >= gains.max() * (1 - 1e-6)
            W = np.hstack([W, candidates[:, [chosen]]])


def test_insertion_takes_no_candidate_that_adds_nothing(rng):
    block, weights = problem(0, 1, False)
    dead = np.array([[0.0], [0.0], [0.0], [-1.0]])
    copies = 2 * weights.W
    candidates = np.hstack([dead, copies, np.array([[0.0], [0.0], [0.0], [1.0]])])
    assert insertion_order(*compared(block, candidates, weights), 6) == []
    fresh = random_weights(rng, 4, 1).W
    moments = compared(block, np.hstack([candidates, fresh, fresh]), weights)
    assert len(insertion_order(*moments, 8)) == 1


def test_the_objective_falls_by_a_full_alternation(rng):
    """Each of the two steps is the minimiser of its frozen problem."""
    block, weights = problem(7, 1, False)
    ridge = 1e-2
    weights = weights.with_output(solve_output(HiddenMoments(weights.W)(block), ridge))
    W = solve_hidden(PatternMoments(weights.W)(block), weights, ridge)
    S = pattern(block.x @ weights.W, 0.0)

    def frozen(W):
        fitted = (S * (block.x @ W)) @ weights.V + block.x[:, -1:] * weights.c
        return ((fitted - block.y) ** 2).sum() + ridge * penalty(Weights(W, weights.V, weights.c))

    least = frozen(W)
    assert least <= frozen(weights.W)
    for _ in range(20):
        assert frozen(W + 1e-2 * rng.standard_normal(W.shape)) >= least
