"""Rows of a robot arm: as many as asked, the same for every method, with a floor that is known.

The arm lies in a plane and has 16 links of equal length. The inputs are the angles of its joints,
uniform within 80 degrees to both sides and scaled to variance 1. The target is the distance of the
hand from the shoulder, standardised, plus normal noise. The target has variance 1; `NOISE` of it is
noise, so no network has a lower loss on new rows. A block of rows depends on the seed and its
number alone, so any process can make any block. Blocks from `NEW_ROWS` on are for testing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINKS, NOISE = 16, 0.01
BLOCK = 1 << 16  # rows
NEW_ROWS = 1 << 30  # number of the first block for testing
_LARGEST_ANGLE = np.deg2rad(80)

Rows = tuple[np.ndarray, np.ndarray]  # float32, (rows, 16) and (rows, 1)


def block(number: int, rows: int = BLOCK, seed: int = 0) -> Rows:
    """The first rows of one block."""
    angles, noise = _angles(number, seed)
    mean, deviation = _scale()
    distance = (reach(angles) - mean) / deviation
    y = np.sqrt(1 - NOISE) * distance + np.sqrt(NOISE) * noise
    X = angles / np.float32(_LARGEST_ANGLE / np.sqrt(3))
    return X[:rows], y[:rows, None].astype(np.float32)


def reach(angles: np.ndarray) -> np.ndarray:
    """Distance from shoulder to hand, in lengths of the whole arm, of angles (rows, links)."""
    direction = np.cumsum(angles, axis=1)
    return np.hypot(np.cos(direction).mean(axis=1), np.sin(direction).mean(axis=1))


def blocks(rows: int, *, first: int = 0, seed: int = 0) -> Iterator[Rows]:
    """So many rows, from this block on, block by block."""
    for at in range(0, rows, BLOCK):
        yield block(first + at // BLOCK, min(BLOCK, rows - at), seed)


def in_memory(rows: int, *, first: int = 0, seed: int = 0) -> Rows:
    """The same in two arrays."""
    X, y = np.empty((rows, LINKS), np.float32), np.empty((rows, 1), np.float32)
    at = 0
    for X_part, y_part in blocks(rows, first=first, seed=seed):
        X[at : at + len(X_part)], y[at : at + len(y_part)] = X_part, y_part
        at += len(X_part)
    return X, y


def store(path: Path, rows: int, *, seed: int = 0) -> Path:
    """The same as a Zarr group of arrays X and y; one that is there already is not made again."""
    import zarr

    if path.exists():
        return path
    making = path.with_suffix(".part")
    group = zarr.open_group(making, mode="w")
    X, y = (
        group.create_array(
            name, shape=(rows, width), chunks=(BLOCK, width), dtype="float32", compressors=None
        )
        for name, width in (("X", LINKS), ("y", 1))
    )
    for number, (X_part, y_part) in enumerate(blocks(rows, seed=seed)):
        at = number * BLOCK
        X[at : at + len(X_part)], y[at : at + len(y_part)] = X_part, y_part
    return making.rename(path)


@lru_cache
def floor(rows: int, *, first: int = 0, seed: int = 0) -> float:
    """Mean square of the noise of these rows: the loss of a network that equals the arm."""
    squares = 0.0
    for at in range(0, rows, BLOCK):
        _, noise = _angles(first + at // BLOCK, seed)
        squares += float(np.square(noise[: rows - at]).sum())
    return NOISE * squares / rows


def _angles(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles (float32) and noise of variance 1 (float64) of a whole block."""
    random = np.random.default_rng([seed, number])
    angles = (random.random((BLOCK, LINKS), np.float32) * 2 - 1) * np.float32(_LARGEST_ANGLE)
    return angles, random.standard_normal(BLOCK)


@lru_cache
def _scale() -> tuple[float, float]:
    """Mean and deviation of the distance, from blocks of their own."""
    found = np.concatenate([reach(_angles(2 * NEW_ROWS + i, 0)[0]) for i in range(4)])
    return float(found.mean(dtype=np.float64)), float(found.std(dtype=np.float64))
