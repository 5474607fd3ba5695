"""One look at the distribution of every column: its distinct values, or else its quantiles.

A column keeps its distinct values and their weights while there are at most `CAPACITY`. Beyond, it
keeps the values at the ranks ``(k + 1/2) W / CAPACITY`` of its total weight W, each with the weight
``W / CAPACITY``. That moves the rank of any value by at most ``W / (2 CAPACITY)``, and merging adds
up the errors of both sides. So after a binary tree over T tiles a rank is off by at most
``(1 + ceil(log2 T)) / (2 CAPACITY)`` of the weight: .63 % for 4,096 tiles (17 million rows), if
all compressions err to the same side. They do not: .15 % at most on the columns that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Floats, Rows

__all__ = ["CAPACITY", "COLUMNS_AT_ONCE", "ColumnSketch", "sketch_columns"]

CAPACITY = 1024
COLUMNS_AT_ONCE = 64  # bounds the temporary arrays, and keeps them in the cache


@dataclass(frozen=True)
class ColumnSketch:
    """Distribution and moments of some columns over a range of rows.

    Rows of weight zero and values that are not finite do not count, but for how many are missing.
    The columns are the first axis of every array. Of the others, ``values`` and ``weights`` have as
    many as the column with the most needs; the rest of a row is filled with infinity and zero.

    Parameters
    ----------
    values : ndarray of shape (n_columns, n_kept)
        Increasing; at most `CAPACITY` of a column.
    weights : ndarray of shape (n_columns, n_kept)
        Weight of each value.
    exact : ndarray of bool of shape (n_columns,)
        Whether the values are all distinct values of the column, with their own weights.
    total, mean, squares : ndarray of shape (n_columns,)
        Weight, mean, and weighted sum of squared deviations from it, of all values that count.
    low, high : ndarray of shape (n_columns,)
        Range; infinity and minus infinity where no value counts.
    missing : ndarray of shape (n_columns,)
        Weight of the rows whose value is NaN.
    """

    values: Floats
    weights: Floats
    exact: NDArray[np.bool_]
    total: Floats
    mean: Floats
    squares: Floats
    low: Floats
    high: Floats
    missing: Floats

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return int(self.total.shape[0])

    @property
    def counts(self) -> NDArray[np.intp]:
        """Number of values kept of each column."""
        counts: NDArray[np.intp] = np.count_nonzero(self.weights, axis=1)
        return counts

    @property
    def deviation(self) -> Floats:
        """Standard deviation of each column, exactly zero for one that does not vary."""
        deviation = np.sqrt(self.squares / np.where(self.total > 0, self.total, 1.0))
        # What is left of a constant after rounding is not a spread.
        rounding = 8 * np.finfo(np.float64).eps * np.maximum(abs(self.low), abs(self.high))
        varies = (self.high > self.low) & (deviation > rounding) & np.isfinite(deviation)
        return np.where(varies, deviation, 0.0)

    def points(self, column: int) -> tuple[Floats, Floats]:
        """Values and weights kept of one column, without what only fills the arrays."""
        kept = int(np.count_nonzero(self.weights[column]))
        return self.values[column, :kept], self.weights[column, :kept]

    def quantiles(self, column: int, shares: Floats) -> Floats:
        """Least values below or at which these shares of the weight lie; 0 and 1 give the range."""
        values, weights = self.points(column)
        ranks = np.cumsum(weights)
        # A share that is a rank but for its rounding is that rank.
        wanted = shares * ranks[-1] * (1 - 4 * np.finfo(np.float64).eps)
        found = values[np.minimum(np.searchsorted(ranks, wanted), len(values) - 1)]
        found = np.where(shares <= 0, self.low[column], found)
        quantiles: Floats = np.where(shares >= 1, self.high[column], found)
        return quantiles

    def merge(self, other: ColumnSketch) -> ColumnSketch:
        """Both ranges together."""
        parts = [
            _merged(self._some(at), other._some(at))
            for at in range(0, self.n_columns, COLUMNS_AT_ONCE)
        ]
        return _joined(parts, self)

    def _some(self, at: int) -> ColumnSketch:
        """The next few columns."""
        here = slice(at, at + COLUMNS_AT_ONCE)
        return ColumnSketch(**{f.name: getattr(self, f.name)[here] for f in fields(self)})


def sketch_columns(rows: Rows) -> ColumnSketch:
    """Contribute the columns of X of some rows.

    Parameters
    ----------
    rows : Rows
        Weights that are negative or not finite count as zero: `check_summary` refuses them.

    Returns
    -------
    ColumnSketch
    """
    X, weight = rows.X, None if rows.weight is None else rows.weight.astype(np.float64)
    if weight is not None:
        seen = (weight > 0) & np.isfinite(weight)
        if not seen.all():
            X, weight = X[seen], weight[seen]
    parts = [
        _of_columns(X[:, at : at + COLUMNS_AT_ONCE], weight)
        for at in range(0, X.shape[1], COLUMNS_AT_ONCE)
    ]
    return _joined(parts, None)


def _of_columns(X: NDArray[np.generic], weight: Floats | None) -> ColumnSketch:
    """Some columns, of rows that count."""
    # -0 and 0 are one value; added to a new array, for the rows may be the caller's own.
    columns = np.ascontiguousarray(X.T, dtype=np.float64) + 0.0
    finite = np.isfinite(columns)
    if not finite.all():
        parts = [
            _of_finite(values[None, fine], None if weight is None else weight[fine])
            for values, fine in zip(columns, finite, strict=True)
        ]
        gaps = np.isnan(columns)
        missing = gaps.sum(axis=1) if weight is None else gaps @ weight
        return replace(_joined(parts, None), missing=missing.astype(np.float64))
    return _of_finite(columns, weight)


def _of_finite(columns: Floats, weight: Floats | None) -> ColumnSketch:
    """Columns (d, n) in which every value counts."""
    d, n = columns.shape
    if not n:
        nothing = np.zeros(d)
        none = np.zeros((d, 0))
        whole = np.ones(d, dtype=bool)
        far = np.full(d, np.inf)
        return ColumnSketch(none, none, whole, nothing, nothing, nothing, far, -far, nothing)
    with np.errstate(over="ignore", invalid="ignore"):  # squares: the summary refuses such columns
        if weight is None:
            total = float(n)
            mean = columns.sum(axis=1) / n
            squares = ((columns - mean[:, None]) ** 2).sum(axis=1)
        else:
            total = float(weight.sum())
            mean = columns @ weight / total
            squares = ((columns - mean[:, None]) ** 2) @ weight
    if weight is None:
        values = np.sort(columns, axis=1)
        kept = _of_equal_weights(values)
    else:
        order = np.argsort(columns, axis=1)
        values = np.take_along_axis(columns, order, axis=1)
        # The weights of equal values are added up in the order of their rows on every machine.
        ties = (values[:, 1:] == values[:, :-1]).any(axis=1)
        order[ties] = np.argsort(columns[ties], axis=1, kind="stable")
        kept = _kept(values, weight[order])
    low, high = values[:, 0].copy(), values[:, -1].copy()
    return ColumnSketch(*kept, np.full(d, total), mean, squares, low, high, np.zeros(d))


def _of_equal_weights(values: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """As `_kept`, of sorted values (d, n) that weigh one each: the ranks are places."""
    n = values.shape[1]
    many = np.count_nonzero(values[:, 1:] != values[:, :-1], axis=1) >= CAPACITY
    # In whole numbers what `_kept` compares: the first rank above (k + 1/2) n / CAPACITY, or at it.
    number = np.arange(CAPACITY)
    places, rest = np.divmod((2 * number + 1) * n, 2 * CAPACITY)
    places -= (rest == 0) & (number % 2 == 1)
    if many.all():
        return *_distinct(values[:, places], n / CAPACITY), ~many
    few = _distinct(values[~many], 1.0)
    if not many.any():
        return *few, ~many
    taken = _distinct(values[many][:, places], n / CAPACITY)
    width = max(few[0].shape[1], taken[0].shape[1])
    kept, weights = np.full((len(values), width), np.inf), np.zeros((len(values), width))
    for part, rows in ((few, ~many), (taken, many)):
        kept[rows, : part[0].shape[1]], weights[rows, : part[1].shape[1]] = part
    return kept, weights, ~many


def _widened(values: Floats, width: int, fill: float) -> Floats:
    """Filled up to some width."""
    more = width - values.shape[1]
    return np.pad(values, ((0, 0), (0, more)), constant_values=fill) if more else values


def _merged(one: ColumnSketch, other: ColumnSketch) -> ColumnSketch:
    """Some columns of both ranges."""
    values = np.hstack([one.values, other.values])
    order = np.argsort(values, axis=1, kind="stable")  # of two runs: they are only merged
    order += (values.shape[1] * np.arange(len(values)))[:, None]
    weights = np.hstack([one.weights, other.weights])
    values, weights = values.ravel()[order], weights.ravel()[order]
    values, weights, exact = _kept(values, weights)
    total = one.total + other.total
    share = other.total / np.where(total > 0, total, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        gap = other.mean - one.mean
        mean = one.mean + share * gap
        squares = one.squares + other.squares + gap**2 * (one.total * share)
    return ColumnSketch(
        values,
        weights,
        exact & one.exact & other.exact,
        total,
        mean,
        squares,
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
        one.missing + other.missing,
    )


def _kept(values: Floats, weights: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Distinct values with their weights, at most `CAPACITY` a column, and whether that is all.

    The values (d, m) are sorted; what only fills the array comes last.
    """
    values, weights = _distinct(values, weights)
    many = np.count_nonzero(weights, axis=1) > CAPACITY
    if many.any():
        ranks = np.cumsum(weights, axis=1)
        share = np.where(many, ranks[:, -1] / CAPACITY, 1.0)
        # How many of the ranks (k + 1/2) share are below that of each value. Those at it count by
        # turns (half to even): all or none of them would move all ranks to the same side.
        ranks /= share[:, None]
        below = np.rint(ranks, out=ranks)
        steps = below.copy()
        steps[:, 1:] -= below[:, :-1]
        if not many.all():
            steps[~many] = weights[~many]
        counted = steps > 0
        counts = np.count_nonzero(counted, axis=1)
        at = np.flatnonzero(counted)
        values, weights = _rows(
            values.ravel()[at], steps.ravel()[at] * np.repeat(share, counts), counts
        )
    return values, weights, ~many


def _distinct(values: Floats, weights: Floats | float) -> tuple[Floats, Floats]:
    """Distinct values of sorted ones (d, m), and their summed weights."""
    last = np.ones(values.shape, dtype=bool)  # of equal values
    np.not_equal(values[:, 1:], values[:, :-1], out=last[:, :-1])
    if last.all():
        return values, np.full(values.shape, weights) if isinstance(weights, float) else weights
    ends = np.flatnonzero(last)
    if isinstance(weights, float):
        sums = np.diff(ends, prepend=-1) * weights
    else:
        starts = np.append(0, ends[:-1] + 1)
        sums = np.add.reduceat(weights.ravel(), starts)
    kept = values.ravel()[ends]
    real = kept < np.inf
    last &= values < np.inf
    return _rows(kept[real], sums[real], np.count_nonzero(last, axis=1))


def _rows(values: Floats, weights: Floats, counts: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Arrays (d, m) of values and weights of which each column has so many."""
    width = int(counts.max(initial=0))
    if counts.min(initial=width) == width:
        return values.reshape(len(counts), width), weights.reshape(len(counts), width)
    place = np.arange(width) < counts[:, None]
    wide, heavy = np.full(place.shape, np.inf), np.zeros(place.shape)
    wide[place], heavy[place] = values, weights
    return wide, heavy


def _joined(parts: list[ColumnSketch], empty: ColumnSketch | None) -> ColumnSketch:
    """Columns side by side."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _of_finite(np.zeros((0, 0)), None) if empty is None else empty
    width = max(part.values.shape[1] for part in parts)

    def wide(name: str, fill: float) -> Floats:
        return np.vstack([_widened(getattr(part, name), width, fill) for part in parts])

    ends = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(ColumnSketch)[2:]
    }
    return ColumnSketch(wide("values", np.inf), wide("weights", 0.0), **ends)
