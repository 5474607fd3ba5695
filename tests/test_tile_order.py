"""The order of the tiles: each turn has all of them once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altrelu_dist.training.tile_order import tile_of_step


@given(seed=st.integers(0, 2**63 - 1), n_tiles=st.integers(1, 600))
def test_each_turn_has_every_tile_once(seed, n_tiles):
    turns = 3
    order = [tile_of_step(seed, step, n_tiles) for step in range(turns * n_tiles)]
    for turn in np.reshape(order, (turns, n_tiles)):
        assert sorted(turn) == list(range(n_tiles))


@pytest.mark.parametrize("n_tiles", [7, 300])
def test_turns_and_seeds_have_orders_of_their_own(n_tiles):
    def order(seed, turn):
        return tuple(tile_of_step(seed, turn * n_tiles + k, n_tiles) for k in range(n_tiles))

    turns = [order(seed, turn) for seed in (0, 1) for turn in range(40)]
    assert len(set(turns)) == len(turns) if n_tiles > 20 else len(set(turns)) > 70


def test_a_step_may_be_asked_for_at_any_time():
    """As a run does that goes on from a checkpoint."""
    steps = np.random.default_rng(0).permutation(2000)
    found = {step: tile_of_step(5, int(step), 9) for step in steps}
    assert [found[step] for step in range(2000)] == [tile_of_step(5, k, 9) for k in range(2000)]
