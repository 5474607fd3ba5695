"""Kronecker-factored descents, step by step: what ends them, and tiles that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from altrelu_dist.moments.rows import Block, Weights
from altrelu_dist.training.kronecker import LOOK, SETTINGS, Descent


def descent_of(*tiles, steps=3 * LOOK, alpha=0.0):
    p = tiles[0].x.shape[1]
    inverse = np.eye(p, dtype=np.float32)
    return Descent(list(tiles), inverse, 1.0, alpha, 0.0, SETTINGS, 0.1, steps, 0)


def tile(x, y):
    rows = np.column_stack([x, np.ones_like(x)]).astype(np.float32)
    return Block(rows, np.asarray(y, np.float32)[:, None])


def ended(descent, weights):
    state = descent.init(weights)
    while not descent.done(state):
        state = descent.step(state)
    return state


def test_a_descent_takes_all_its_steps():
    x = np.linspace(-1, 1, 40)
    begin = Weights(np.array([[1.0], [0.2]]), np.array([[0.5]]), np.zeros(1))
    assert ended(descent_of(tile(x, np.abs(x)), steps=130), begin).taken == 130


def test_a_descent_of_what_is_no_number_ends_at_the_next_look():
    x = np.linspace(-1, 1, 40)
    begin = Weights(np.array([[1.0], [0.2]]), np.array([[0.5]]), np.zeros(1))
    descent = descent_of(tile(x, np.abs(x)))
    lost = begin.balanced().astype(np.float32)
    weights = Weights(lost.W, lost.V, np.float32([np.nan]))
    state = descent.init(begin)._replace(weights=weights, taken=1)
    with np.errstate(invalid="ignore"):
        while not descent.done(state):
            state = descent.step(state)
    assert state.taken == LOOK


@pytest.mark.parametrize("alpha", [0.0, 1e-4])
@pytest.mark.parametrize("bend", [1.5, 2.6])
def test_a_tile_without_active_neurons_leads_to_no_step(alpha, bend):
    """Its curvature is zero, and the inverse of what is known stays so until it is renewed."""
    rng = np.random.default_rng(0)
    quiet = tile(np.full(60, -1.0), np.zeros(60))
    x = rng.uniform(-1, 3, 60)
    loud = tile(x, np.maximum(x - 1, 0))
    begin = Weights(np.array([[1.0], [-bend]]), np.array([[0.5]]), np.zeros(1))
    for tiles in ([quiet, loud], [loud, quiet], [quiet, quiet, loud]):
        weights = ended(descent_of(*tiles, alpha=alpha), begin).weights
        assert weights.is_finite()
        assert max(np.abs(weights.W).max(), np.abs(weights.V).max()) < 100
