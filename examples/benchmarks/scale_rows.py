"""Rows that tasks make, and what a pass computes. Workers import it: it stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from scale_sizes import BLOCK_BYTES

from altrelu_dist.engine import TILE
from altrelu_dist.moments import LossAndGradient, PatternMoments, Rows, Scaler, Weights

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Prepared:
    """A statistic of raw rows, which it standardises."""

    scaler: Scaler
    statistic: Callable[[Any], Any]

    def __call__(self, rows: Rows) -> Any:
        return self.statistic(self.scaler(rows))


def unit_scaler(d: int) -> Scaler:
    """The rows here have mean zero and variance one already; that does not make it cheaper."""
    return Scaler(np.dtype(np.float32), np.zeros(d), np.ones(d), np.zeros(1), 1.0, 1.0)


def statistics(d: int, h: int) -> dict[str, Callable[[Any], Any]]:
    rng = np.random.default_rng([d, h])
    W = rng.standard_normal((d + 1, h))
    network = Weights(W, rng.standard_normal((h, 1)), np.zeros(1))
    return {"loss and gradient": LossAndGradient(network), "Gram": PatternMoments(W)}


def random_block(block_id: tuple[int, int], rows: tuple[int, ...], columns: int) -> np.ndarray:
    """Normal numbers that depend on the block's number alone."""
    rng = np.random.default_rng([block_id[0], columns])
    return rng.standard_normal((rows[block_id[0]], columns), dtype=np.float32)


def generated(n: int, d: int, block_bytes: int = BLOCK_BYTES) -> tuple[da.Array, da.Array]:
    """Rows that every task makes itself."""
    each = TILE
    while 2 * each * 4 * d <= block_bytes:  # as `altrelu convert` cuts rows
        each *= 2
    rows = tuple(min(each, n - at) for at in range(0, n, each))
    X, y = (
        da.map_blocks(
            random_block,
            rows=rows,
            columns=columns,
            chunks=(rows, (columns,)),
            dtype=np.float32,
            meta=np.empty((0, 0), np.float32),
        )
        for columns in (d, 1)
    )
    return X, y
