"""Losses against dense float64 arithmetic, and gradients that are zero where they are to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasty_rows import NASTY, nasty
from oracles import (
    activate,
    dense_alternation,
    design,
    engine_over,
    features,
    objective_over,
    pattern,
    penalty,
    random_block,
    random_weights,
    residual,
    squares,
)
from scipy.optimize import minimize

from altrelu_dist import AltReLURegressor
from altrelu_dist.moments import HiddenMoments, PatternMoments, Rows, Weights, summarise
from altrelu_dist.solvers import solve_hidden, solve_output
from altrelu_dist.training import damped
from altrelu_dist.training.alternating import alternate, random_directions
from altrelu_dist.training.damped import descend

# --- the same steps, dense ------------------------------------------------------------------------


def dense_kinks(block, weights, slope):
    """The positive part of the curvature of each neuron's kink, by its definition; (h, p, p)."""
    root = block.x[:, -1]
    rows = root > 0
    x, root = block.x[rows], root[rows]
    plain = x / root[:, None]
    width = damped.KINK_WIDTH * np.linalg.norm(weights.W, axis=0)
    error = residual(block, weights, slope)[rows] / root[:, None]
    blocks = []
    for j, band in enumerate(width):
        hat = np.maximum(0, 1 - np.abs(plain @ weights.W[:, j]) / band) / band if band else 0
        curve = (1 - slope) * (error @ weights.V[j]) * hat
        values, vectors = np.linalg.eigh((x * np.reshape(curve, (-1, 1))).T @ x)
        blocks.append(vectors * np.maximum(values, 0) @ vectors.T)
    return blocks


def dense_step(block, weights, damping, ridge, slope):
    """The damped step of both layers under the frozen pattern, as one system of all unknowns."""
    (p, h), q = weights.W.shape, weights.c.size
    hidden = design(block.x, weights.W, slope)
    F = features(block.x, weights.W, slope)
    size = h * p + (h + 1) * q
    A, b = np.zeros((size, size)), np.zeros(size)
    for t in range(q):
        J = np.zeros((len(F), size))
        J[:, : h * p] = hidden * np.repeat(weights.V[:, t], p)
        J[:, h * p + t :: q] = F
        A += J.T @ J
        b -= J.T @ residual(block, weights, slope)[:, t]
    penalised = np.zeros(size)
    penalised[: h * p] = np.tile(np.append(np.ones(p - 1), 0.0), h)
    penalised[h * p :] = np.repeat(np.append(np.ones(h), 0.0), q)
    A[np.diag_indices(size)] += ridge * penalised
    b -= ridge * penalised * np.concatenate([weights.W.T.ravel(), weights.output.ravel()])
    for j, block_of in enumerate(dense_kinks(block, weights, slope)):
        here = slice(j * p, (j + 1) * p)
        A[here, here] += block_of
    undamped = A.copy()
    A[np.diag_indices(h * p)] *= 1 + damping
    scale = np.sqrt(np.maximum(np.diag(A), 1e-300))
    step = np.linalg.lstsq(A / np.outer(scale, scale), b / scale, rcond=1e-13)[0] / scale
    foreseen = 2 * b @ step - step @ undamped @ step
    return step[: h * p].reshape(h, p).T, step[h * p :].reshape(h + 1, q), foreseen


def dense_descend(block, weights, steps, alpha, slope):
    """Nielsen's damping around it; the losses of the accepted steps."""
    ones = float((block.x[:, -1] ** 2).sum())

    def value(of):
        return squares(block, of, slope) / ones + alpha * penalty(of)

    weights = weights.balanced()
    loss, damping, growth = value(weights), damped._FIRST_DAMPING, 2.0
    losses = [loss]
    for _ in range(steps):
        if damping > damped._MOST_DAMPING:
            break
        W, output, foreseen = dense_step(block, weights, damping, alpha * ones, slope)
        trial = Weights(weights.W + W, weights.V + output[:-1], weights.c + output[-1]).balanced()
        trial_loss = value(trial)
        gain = (loss - trial_loss) * ones / foreseen if foreseen > 0 else -1.0
        if np.isfinite(trial_loss) and trial_loss < loss:
            weights, loss = trial, trial_loss
            damping *= max(1 / 3, 1 - (2 * min(gain, 1.0) - 1) ** 3)
            growth = 2.0
            losses.append(loss)
        else:
            damping *= growth
            growth *= 2
        if len(losses) > 5 and losses[-6] - loss <= 1e-4 * loss:
            break
    return loss


def standardised(name):
    X, y, more = nasty(name)
    weight = None if "weight" not in more else np.asarray(more["weight"], float)
    rows = Rows(0, np.asarray(X, float), np.asarray(y, float).reshape(len(X), -1), weight)
    return summarise(rows).scaler(np.dtype(float))(rows), more


VARIES = [name for name in NASTY if name not in ("constant target", "one distinct row")]


@pytest.mark.parametrize("name", VARIES)
@pytest.mark.parametrize("steps", [1, 3, 12])
def test_damped_steps_reach_what_the_same_steps_reach_dense(name, steps):
    block, more = standardised(name)
    alpha, slope = more.get("alpha", 0.0), more.get("slope", 0.0)
    rng = np.random.default_rng(3)
    objective = objective_over(block, alpha=alpha, slope=slope)
    start = random_weights(rng, block.x.shape[1], 3, block.y.shape[1])
    start, _ = objective.refit_output(start)
    found = descend(objective, objective, start, steps, rng).loss
    with np.errstate(over="ignore"):
        expected = dense_descend(block, start, steps, alpha, slope)
    rounding = 1e-14 * float((block.y**2).sum()) / objective.weight_sum
    assert found <= expected * (1 + 1e-6) + rounding


@pytest.mark.parametrize("name", VARIES)
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_alternating_reaches_what_the_same_iterations_reach_dense(name, iterations):
    block, more = standardised(name)
    alpha, slope = more.get("alpha", 0.0), more.get("slope", 0.0)
    W = random_directions(block.x.shape[1], 3, np.random.default_rng(3))
    _, losses, clear = dense_alternation(block, W, alpha, slope, iterations)
    objective = objective_over(block, alpha=alpha, slope=slope)
    loss = alternate(objective, W, (block.y**2).sum(axis=0), iterations).loss
    # Where several hidden layers are as good, the next pattern is that of the one that was taken.
    same_steps = losses if clear else losses[:1]
    rounding = 1e-14 * float((block.y**2).sum()) / objective.weight_sum
    assert loss <= min(same_steps) * (1 + 1e-6) + rounding


# --- gradients that are zero ----------------------------------------------------------------------


@st.composite
def problems(draw):
    """Rows, a network and a ridge: deficient in rank, weighted, of several targets."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d, q = draw(st.integers(2, 60)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    block = random_block(rng, n, d, q, weighted=draw(st.booleans()))
    if d > 1 and draw(st.booleans()):
        block.x[:, 1] = -2 * block.x[:, 0]
    weights = random_weights(rng, d + 1, draw(st.integers(1, 6)), q)
    return (
        block,
        weights,
        draw(st.sampled_from([0.0, 1e-6, 0.1, 10.0])),
        draw(st.sampled_from([0, 0.2])),
    )


@given(problems())
def test_the_gradient_of_the_output_layer_is_zero_at_its_critical_point(problem):
    block, weights, ridge, slope = problem
    moments = engine_over(block).reduce(HiddenMoments(weights.W, slope), "gram")
    output = solve_output(moments, ridge)
    F = features(block.x, weights.W, slope)
    penalised = np.append(np.full(weights.n_hidden, ridge), 0.0)[:, None] * output
    gradient = F.T @ (F @ output - block.y) + penalised
    scale = np.linalg.norm(F) * (np.linalg.norm(F @ output) + np.linalg.norm(block.y))
    assert np.abs(gradient).max() <= 1e-9 * (scale + np.abs(penalised).max()) + 1e-300


@given(problems())
def test_the_gradient_of_the_hidden_layer_is_zero_at_its_critical_point(problem):
    """Under the pattern that it was solved for."""
    block, weights, ridge, slope = problem
    h = weights.n_hidden
    moments = engine_over(block).reduce(PatternMoments(weights.W, slope), "gram")
    W = solve_hidden(moments, weights, ridge)
    S = pattern(block.x @ weights.W, slope)
    error = (S * (block.x @ W)) @ weights.V + block.x[:, -1:] * weights.c - block.y
    penalised = ridge * np.vstack([W[:-1], np.zeros(h)])
    gradient = block.x.T @ (S * (error @ weights.V.T)) + penalised
    terms = np.abs(block.x).T @ (
        S * (np.abs(block.x) @ np.abs(W)) @ np.abs(weights.V @ weights.V.T)
    )
    scale = terms.max() + np.abs(block.x.T @ (S * (block.y @ weights.V.T))).max()
    assert np.abs(gradient).max() <= 1e-8 * (scale + np.abs(penalised).max()) + 1e-300


def loss_and_gradient(flat, block, shape, alpha):
    """Of both layers, in float64; at a kink that of the side where the neuron is off."""
    p, h, q = shape
    W, V = flat[: p * h].reshape(p, h), flat[p * h : (p + q) * h].reshape(h, q)
    weights = Weights(W, V, flat[(p + q) * h :])
    n = len(block.x)
    error = residual(block, weights, 0.0)
    F = activate(block.x @ W, 0.0)
    off = np.zeros((1, h))
    in_W = 2 * block.x.T @ (pattern(block.x @ W, 0.0) * (error @ V.T)) / n
    in_W += 2 * alpha * np.vstack([W[:-1], off])
    in_V = 2 * F.T @ error / n + 2 * alpha * V
    in_c = 2 * error.sum(axis=0) / n
    loss = squares(block, weights, 0.0) / n + alpha * penalty(weights)
    return loss, np.concatenate([in_W.ravel(), in_V.ravel(), in_c])


@pytest.mark.parametrize(("method", "gain"), [("damped", 1e-3), ("search", 1e-4)])
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
@pytest.mark.parametrize("seed", range(2))
def test_a_descent_from_where_a_run_ends_finds_next_to_nothing(method, gain, alpha, seed):
    """L-BFGS in float64 takes off less than this share of the loss.

    The gradient is one of one side: where rows lie on a neuron's kink it need not be zero at a
    minimum.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((800, 4))
    y = np.abs(X[:, 0]) * X[:, 1] + np.sin(2 * X[:, 2]) + 0.3 * rng.standard_normal(800)
    model = AltReLURegressor(8, method=method, alpha=alpha, random_state=seed).fit(X, y)
    rows = Rows(0, X, y[:, None])
    scaler = summarise(rows).scaler(np.dtype(float))
    block = scaler(rows)
    network = model.network_
    weights = scaler.from_raw(
        network.hidden_weights, network.hidden_bias, network.output_weights, network.output_bias
    ).balanced()
    flat = np.concatenate([weights.W.ravel(), weights.V.ravel(), weights.c])
    shape = (*weights.W.shape, 1)
    loss, gradient = loss_and_gradient(flat, block, shape, alpha)
    found = minimize(
        loss_and_gradient, flat, (block, shape, alpha), "L-BFGS-B", jac=True,
        options={"maxiter": 500, "maxfun": 1000, "maxcor": 50, "ftol": 0, "gtol": 0},
    )  # fmt: skip
    assert found.fun >= (1 - gain) * loss
    assert np.linalg.norm(gradient) <= 0.02
