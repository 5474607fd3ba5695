"""In which order the steps of a descent take the tiles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["tile_of_step"]

# Tiles whose order is drawn at once: making a generator takes as long as a small step.
_AT_ONCE = 256


def tile_of_step(seed: int, step: int, n_tiles: int) -> int:
    """All tiles once in random order, then all of them again in another one, and so on."""
    if n_tiles == 1:
        return 0
    turns = max(1, _AT_ONCE // n_tiles)
    draw, place = divmod(step, turns * n_tiles)
    return int(_orders(seed, draw, turns, n_tiles)[place])


@lru_cache(maxsize=16)
def _orders(seed: int, draw: int, turns: int, n_tiles: int) -> NDArray[np.intp]:
    """The orders of some turns over all tiles, one after the other."""
    numbers = np.broadcast_to(np.arange(n_tiles), (turns, n_tiles))
    return np.random.default_rng([seed, draw]).permuted(numbers, axis=1).ravel()
