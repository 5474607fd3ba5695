"""Encoded columns that are ramps: linear in a raw column between two ends, constant beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.block import ColumnBlock
from altrelu_dist.encoding.pieces import PieceColumns
from altrelu_dist.encoding.standard import CLIP, StandardColumns
from altrelu_dist.moments.rows import Floats

__all__ = ["RAMPS", "Ramps", "ramps_of"]


@dataclass(frozen=True)
class Ramps:
    """``(clip((x[source] - begin) / length, low, high) - center) * factor``, NaN staying NaN.

    In exactly these operations, so that every target rounds as `Encoder.transform` does.

    Parameters
    ----------
    source : ndarray of int of shape (n_columns,)
        Number of the raw column of each.
    begin, length, center : ndarray of shape (n_columns,)
    low, high, factor : float
    """

    source: NDArray[np.intp]
    begin: Floats
    length: Floats
    center: Floats
    low: float
    high: float
    factor: float


def _of_standard(block: StandardColumns) -> Ramps:
    no_center = np.zeros(block.n_columns)
    return Ramps(block.columns, block.center, block.scale, no_center, -CLIP, CLIP, 1.0)


def _of_pieces(block: PieceColumns) -> Ramps:
    return Ramps(*block.intervals, block.center, 0.0, 1.0, block.factor)


# The kinds of encoded columns that are ramps.
RAMPS: Mapping[type[ColumnBlock], Callable[[Any], Ramps]] = {
    StandardColumns: _of_standard,
    PieceColumns: _of_pieces,
}


def ramps_of(block: ColumnBlock) -> Ramps:
    """A block of one of the kinds in `RAMPS`."""
    return RAMPS[type(block)](block)
