"""How fast data are read: a few blocks of the data at hand, or of a store of random numbers."""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from altrelu_dist.planning.calls import Shape

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.data import DataSet

__all__ = ["reading_rate", "reading_rate_of_noise"]

_SECONDS = 0.25
_LEAST_ROWS, _MOST_ROWS = 64, 1 << 16  # of the store that stands for data which are not here


def reading_rate(data: DataSet) -> float:
    """Bytes a second of one reader, from blocks all over the data."""
    arrays = [a for a in (data.X, data.y, data.sample_weight) if a is not None]
    blocks = data.X.numblocks[0]
    order = np.unique(np.linspace(0, blocks - 1, 9).astype(int)).tolist()
    _read_block(arrays, order[0])  # what is loaded at the first read is not the data's
    count, begun = 0, time.perf_counter()
    for block in order[1:] or order:
        count += _read_block(arrays, block)
        if time.perf_counter() - begun > _SECONDS:
            break
    return count / (time.perf_counter() - begun)


def _read_block(arrays: list[da.Array], block: int) -> int:
    from dask.base import compute

    found = compute(*(array.blocks[block] for array in arrays), scheduler="synchronous")
    return sum(int(part.nbytes) for part in found)


def reading_rate_of_noise(shape: Shape, rng: np.random.Generator) -> float:
    """Bytes a second of one reader, from a small store that is written for it."""
    from altrelu_dist.data import convert, open_dataset

    rows = (8 << 20) // ((shape.d + shape.q) * shape.dtype.itemsize)
    rows = max(_LEAST_ROWS, min(_MOST_ROWS, rows))
    with TemporaryDirectory(prefix="altrelu-plan-") as folder:
        X = rng.standard_normal((rows, shape.d)).astype(shape.dtype)
        y = rng.standard_normal((rows, shape.q)).astype(shape.dtype)
        np.savez(f"{folder}/random.npz", X=X, y=y)
        convert(f"{folder}/random.npz", f"{folder}/random.zarr")
        return reading_rate(open_dataset(f"{folder}/random.zarr"))
