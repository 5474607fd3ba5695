"""A test part: random rows of every block, held out before the training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from altrelu_dist.errors import ParameterError

if TYPE_CHECKING:
    from altrelu_dist.data import DataSet

__all__ = ["split_rows"]


def split_rows(data: DataSet, fraction: float, seed: int) -> tuple[DataSet, DataSet]:
    """Split off random rows of every block for a test.

    Parameters
    ----------
    data : DataSet
    fraction : float
        Share of the rows that is held out, between 0 and 1.
    seed : int

    Returns
    -------
    train, test : DataSet
    """
    from dask_ml.model_selection import train_test_split

    if not 0 < fraction < 1:
        raise ParameterError(
            f"is {fraction}; expected a number above 0 and below 1", parameter="test_fraction"
        )
    rows = _whole_blocks(data.X.chunks[0], least=int(2 / min(fraction, 1 - fraction)) + 1)
    if len(rows) == 1 and rows[0] * min(fraction, 1 - fraction) < 1:
        raise ParameterError(
            f"is {fraction}; {rows[0]} rows are too few to split so", parameter="test_fraction"
        )
    arrays = [a for a in (data.X, data.y, data.sample_weight) if a is not None]
    arrays = [array.rechunk({0: rows}) for array in arrays]
    halves = train_test_split(*arrays, test_size=fraction, random_state=seed, shuffle=True)
    train, test = (
        replace(
            data,
            X=part[0],
            y=part[1],
            sample_weight=None if data.sample_weight is None else part[2],
        )
        for part in (halves[0::2], halves[1::2])
    )
    return train, test


def _whole_blocks(chunks: tuple[int, ...], least: int) -> tuple[int, ...]:
    """The row blocks, those too small to be split joined to their neighbours."""
    joined: list[int] = []
    for rows in chunks:
        if joined and (rows < least or joined[-1] < least):
            joined[-1] += rows
        else:
            joined.append(rows)
    return tuple(joined)
