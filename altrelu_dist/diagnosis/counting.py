"""Counting rows in intervals: which rows count, and where the intervals of a quantity end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.raw import UNSEEN
from altrelu_dist.moments.rows import Floats, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from altrelu_dist.network import Network

__all__ = [
    "BINS",
    "MARGIN",
    "TAILS",
    "counted",
    "even_edges",
    "range_of",
    "unseen_levels",
    "used_of",
    "whole_edges",
]

BINS = 40
TAILS = (0.0025, 0.9975)  # quantiles of the sample between which densities are shown, and beyond
MARGIN = 0.05


def used_of(rows: Rows) -> tuple[Floats, NDArray[np.intp]]:
    """The weights that are not zero, and whose they are."""
    if rows.weight is None:
        return np.ones(len(rows.X)), np.arange(len(rows.X))
    weight = rows.weight.astype(np.float64)
    used = np.flatnonzero(weight > 0)
    return weight[used], used


def unseen_levels(network: Network, rows: Rows) -> NDArray[np.int64]:
    """How many values of each column are levels that the network does not know."""
    counts = np.zeros(network.n_features, dtype=np.int64)
    for i, column in enumerate(network.columns or ()):
        if column.kind == "levels":
            counts[i] = np.count_nonzero(rows.X[:, i] == UNSEEN)
    return counts


def counted(values: Sequence[Floats], edges: Sequence[Floats], weight: Floats) -> Floats:
    """Weight of the rows in each cell of some quantities."""
    found: Floats = np.histogramdd(np.stack(values, axis=1), bins=[*edges], weights=weight)[0]
    return found


def range_of(x: Floats, y: Floats) -> tuple[float, float]:
    """The range of two quantities without their tails, and a margin."""
    ends = np.array([np.quantile(values, TAILS) for values in (x, y)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    margin = MARGIN * (high - low)
    return low - margin, high + margin


def even_edges(span: tuple[float, float], bins: int) -> Floats:
    """Edges of intervals of one length, also about a quantity that does not vary."""
    low, high = span
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        room = max(0.5, 1e-6 * abs(low))
        low, high = low - room, high + room
    return np.linspace(low, high, bins + 1)


def whole_edges(span: tuple[float, float]) -> Floats:
    """Edges between whole numbers, as many to each interval."""
    low, high = math.floor(span[0]), math.ceil(span[1])
    width = max(1, math.ceil((high - low + 1) / BINS))
    count = math.ceil((high - low + 1) / width)
    return low - 0.5 + width * np.arange(count + 1, dtype=np.float64)
