"""The pieces of the search: quasi-Newton steps, hinges, neurons that come and go."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import centred, objective_over, penalty, random_block, squares

from altrelu_dist.moments import Weights
from altrelu_dist.training.neurons import draw_hinges, insert, remove
from altrelu_dist.training.quasi_newton import quasi_newton
from altrelu_dist.training.whitening import Whitening


def test_quasi_newton_never_ends_above_its_start(rng):
    block = centred(random_block(rng, 200, 3, 2))
    for alpha in (0.0, 0.1):
        objective = objective_over(block, alpha=alpha)
        whitening = Whitening.of(objective)
        start = Weights(rng.standard_normal((4, 5)), np.zeros((5, 2)), np.zeros(2))
        refitted, value = objective.refit_output(start)
        for iterations in (1, 5, 60):
            weights, loss = quasi_newton(objective, start, iterations, whitening=whitening)
            assert loss <= value
            exact = squares(block, weights, 0.0) / objective.weight_sum + alpha * penalty(weights)
            assert loss == pytest.approx(exact, rel=1e-7)
            assert weights.n_hidden == refitted.n_hidden


def test_whitening_makes_the_inputs_uncorrelated(rng):
    block = random_block(rng, 500, 4, weighted=True)
    mixed = block._replace(x=block.x @ (np.eye(5) + 0.9 * rng.standard_normal((5, 5))))
    objective = objective_over(mixed)
    whitening = Whitening.of(objective)
    assert whitening.into @ whitening.out == pytest.approx(np.eye(5), abs=1e-10)
    white = mixed.x @ whitening.out
    gram = white.T @ white / objective.weight_sum
    # But for the floor under directions of little variance, which are left smaller than one.
    values = np.linalg.eigvalsh(gram)
    assert values.max() <= 1 + 1e-9
    variances = np.linalg.eigvalsh(mixed.x.T @ mixed.x / objective.weight_sum)
    floor = 1e-3 * variances.mean()
    assert values == pytest.approx(variances / (variances + floor), rel=1e-6)


def test_hinges_go_through_the_middle_of_two_rows(rng):
    block = random_block(rng, 12, 3, weighted=True)
    objective = objective_over(block)
    none = Weights(np.zeros((4, 0)), np.zeros((0, 1)), np.zeros(1))
    hinges = draw_hinges(objective.engine, none, 0.0, 40, rng)
    assert hinges.shape == (4, 40)
    assert np.linalg.norm(hinges[:-1], axis=0) == pytest.approx(np.ones(40))
    used = block.x[:, -1] > 0
    points = block.x[used, :-1] / block.x[used, -1:]
    first, second = np.triu_indices(len(points), 1)
    middles = np.hstack([(points[first] + points[second]) / 2, np.ones((first.size, 1))])
    ways = points[first] - points[second]
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    for hinge in hinges.T:
        through = np.abs(middles @ hinge) < 1e-9
        along = np.abs(np.abs(ways @ hinge[:-1]) - 1) < 1e-9
        same_row = np.abs(points @ hinge[:-1] + hinge[-1]) < 1e-9
        assert (through & along).any() or same_row.any()


def test_a_neuron_that_is_rounding_gets_no_output(rng):
    block = random_block(rng, 20, 3)
    furthest = block.x[:, :-1] @ (direction := rng.standard_normal(3))
    seen = np.append(direction, 0.5 - np.max(furthest))  # active at one row
    unseen = np.append(direction, 1e-15 - np.max(furthest))  # the same, but for its rounding
    objective = objective_over(block)
    for scale in (1e-8, 1.0, 1e8):
        W = scale * np.stack([seen, unseen], axis=1)
        weights, loss = objective.refit_output(Weights(W, np.zeros((2, 1)), np.zeros(1)))
        assert abs(weights.V[0, 0]) > 0
        assert weights.V[1, 0] == 0
        exact = squares(block, weights, 0.0) / objective.weight_sum
        assert loss == pytest.approx(exact, rel=1e-12)


def test_inserting_lowers_the_loss_and_removing_raises_it_least(rng):
    block = centred(random_block(rng, 300, 3))
    objective = objective_over(block)
    none = Weights(np.zeros((4, 0)), np.zeros((0, 1)), np.zeros(1))
    last = np.inf
    weights = none
    for _ in range(4):
        weights, loss = objective.refit_output(insert(objective, weights, 2, rng))
        assert loss < last
        last = loss
    assert weights.n_hidden == 8
    removed = remove(objective, weights, 1)
    losses = [objective.refit_output(weights.pick(np.delete(np.arange(8), j)))[1] for j in range(8)]
    loss = squares(block, removed, 0.0) / objective.weight_sum
    assert loss == pytest.approx(min(losses), rel=1e-9)
    assert remove(objective, weights, 8).n_hidden == 0
