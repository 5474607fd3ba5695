"""Weights of groups: lines, which cost no neurons, are enough within their standard error."""

from __future__ import annotations

import numpy as np
import pytest

from altrelu_dist.committee.stacking import stacked


@pytest.mark.parametrize(("bend", "lines_alone"), [(0.0, True), (1.0, False)])
def test_networks_are_kept_where_they_are_worth_more_than_their_error(
    bend: float, lines_alone: bool
) -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 60, 1))
    y = x + bend * np.abs(x) + 0.3 * noise
    line = x + bend * np.abs(x).mean()
    # Two networks that follow the truth, and by chance a little of the noise.
    networks = [x + bend * np.abs(x) + 0.02 * noise + 0.1 * rng.standard_normal((60, 1))] * 2
    found = stacked([line, *networks], y, [False, True, True], most=1)
    assert (found.kept == [0]) == lines_alone
    assert sum(group > 0 for group in found.kept) <= 1
