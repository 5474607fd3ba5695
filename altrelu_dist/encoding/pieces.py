"""Piecewise-linear encoding: a column as how far it has come through each interval between knots.

With the knots ``e_0 < ... < e_k`` of a column, its features are ``clip((x - e_i) / (e_{i+1} - e_i),
0, 1)``: a function that is linear between the knots is a linear function of them (Gorishniy,
Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from altrelu_dist.encoding.block import LEAST_SCALE, Arrays, column_numbers, finite, positive
from altrelu_dist.encoding.sketch import ColumnSketch
from altrelu_dist.errors import ModelFileError
from altrelu_dist.moments.rows import Floats

__all__ = ["PieceColumns"]

_LEAST_KNOTS = 3  # two would repeat the standardised column


@dataclass(frozen=True, eq=False)
class PieceColumns:
    """Piecewise-linear features, centred, all multiplied by one factor.

    Parameters
    ----------
    columns : ndarray of int of shape (n_encoded,)
        The raw columns that have features.
    n_knots : ndarray of int of shape (n_encoded,)
        Number of knots of each, at least 3.
    knots : ndarray of shape (sum of n_knots,)
        Their knots, one column after the other; those of one column increase.
    center : ndarray of shape (n_columns,)
        Mean of each feature.
    factor : float
    """

    columns: NDArray[np.intp]
    n_knots: NDArray[np.intp]
    knots: Floats
    center: Floats
    factor: float

    @classmethod
    def learn(
        cls, sketch: ColumnSketch, intervals: int, variance: float, numbers: NDArray[np.bool_]
    ) -> PieceColumns:
        """Knots at the levels of a column with few, else at quantiles.

        Parameters
        ----------
        sketch : ColumnSketch
        intervals : int
            Most intervals of a column.
        variance : float
            What the variances of all features are to sum to.
        numbers : ndarray of bool of shape (n_features,)
            Which columns are numbers.
        """
        varying = np.flatnonzero((sketch.deviation > 0) & numbers)
        every = {int(column): _knots(sketch, int(column), intervals) for column in varying}
        chosen = {column: knots for column, knots in every.items() if len(knots) >= _LEAST_KNOTS}
        return cls._of_knots(sketch, chosen, variance)

    @classmethod
    def of_values(
        cls, sketch: ColumnSketch, columns: Sequence[int], most: int, variance: float
    ) -> PieceColumns:
        """Knots at the most frequent values of some columns.

        Parameters
        ----------
        sketch : ColumnSketch
        columns : sequence of int
            With at least 3 values each, all of which the sketch has.
        most : int
            Features, at most, of all columns together: each has its most frequent values, and none
            has fewer than another, unless it has no more. Where they are too many for that, those
            with the fewest values have features.
        variance : float
            What the variances of all features are to sum to.
        """
        fewest = np.argsort(sketch.counts[list(columns)], kind="stable")
        columns = sorted(columns[at] for at in fewest[: most // (_LEAST_KNOTS - 1)])
        counts = sketch.counts[columns]
        each = int(counts.max(initial=_LEAST_KNOTS))
        while each > _LEAST_KNOTS and (np.minimum(counts, each) - 1).sum() > most:
            each -= 1
        chosen = {}
        for column in columns:
            values, weights = sketch.points(column)
            frequent = np.argsort(-weights, kind="stable")[:each]
            chosen[column] = values[np.sort(frequent)]
        return cls._of_knots(sketch, chosen, variance)

    @classmethod
    def _of_knots(
        cls, sketch: ColumnSketch, chosen: dict[int, Floats], variance: float
    ) -> PieceColumns:
        centers = []
        spread = 0.0
        for column, knots in chosen.items():
            values, weights = sketch.points(column)
            features = _features(values[:, None], knots[:-1], np.diff(knots))
            mean = np.average(features, axis=0, weights=weights)
            centers.append(mean)
            spread += float(np.average((features - mean) ** 2, axis=0, weights=weights).sum())
        fits = spread > 0 and variance > 0
        return cls(
            columns=np.array(list(chosen), dtype=np.intp),
            n_knots=np.array([len(knots) for knots in chosen.values()], dtype=np.intp),
            knots=np.concatenate([*chosen.values(), np.zeros(0)]),
            center=np.concatenate([*centers, np.zeros(0)]),
            factor=float(np.sqrt(variance / spread)) if fits else 1.0,
        )

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""
        return len(self.center)

    @property
    def sources(self) -> NDArray[np.intp]:
        """Raw column of each feature."""
        return self.intervals[0]

    @cached_property
    def intervals(self) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Raw column, begin and length of the interval of each feature."""
        lengths = np.diff(self.knots)
        inside = np.ones(len(lengths), dtype=bool)
        inside[np.cumsum(self.n_knots)[:-1] - 1] = False  # from one column to the next
        source = np.repeat(self.columns, self.n_knots - 1)
        return source, self.knots[:-1][inside], lengths[inside]

    def encode(self, X: Floats) -> Floats:
        """The encoded columns of raw rows."""
        source, begin, length = self.intervals
        out = _features(X[:, source], begin, length)
        out -= self.center
        out *= self.factor
        return out

    def of_columns(self, chosen: NDArray[np.bool_]) -> PieceColumns:
        """Those of some raw columns."""
        own = chosen[self.columns]
        return PieceColumns(
            self.columns[own],
            self.n_knots[own],
            self.knots[np.repeat(own, self.n_knots)],
            self.center[chosen[self.sources]],
            self.factor,
        )

    def linear_between(self) -> dict[int, Floats]:
        """The knots of each raw column."""
        own = np.split(self.knots, np.cumsum(self.n_knots))[:-1]
        return dict(zip(self.columns.tolist(), own, strict=True))

    def hats(self) -> csr_array:
        """What the encoded columns are multiplied by to become hats, standardised.

        The hat of a knot is 1 there, 0 at the others, and linear between: the difference of two
        features. That of the first knot of a column follows from the others, and is left out. Those
        of rare values are less than standardised.

        Returns
        -------
        csr_array of shape (n_columns, n_columns)
        """
        last = self._last
        place = np.arange(self.n_columns)
        inner = place[~last]
        factors = 1 / (self.factor * self.hat_scale)
        values = np.concatenate([factors, -factors[inner]])
        rows, columns = np.concatenate([place, inner + 1]), np.concatenate([place, inner])
        return csr_array((values, (rows, columns)), shape=(self.n_columns,) * 2)

    @property
    def hat_share(self) -> Floats:
        """Mean of each hat."""
        share: Floats = self.center - np.where(self._last, 0.0, np.append(self.center[1:], 0.0))
        return share

    @property
    def hat_scale(self) -> Floats:
        """What each hat is divided by."""
        share = self.hat_share
        scale: Floats = np.sqrt(np.clip(share * (1 - share), 0, None))
        return np.maximum(scale, LEAST_SCALE)

    @property
    def _last(self) -> NDArray[np.bool_]:
        """Which features are the last of their column."""
        last = np.zeros(self.n_columns, dtype=bool)
        last[np.cumsum(self.n_knots - 1) - 1] = True
        return last

    def names_out(self, feature_names: Sequence[str]) -> list[str]:
        """The column and the interval, as in ``"age 37.5 to 42"``."""
        source, begin, _ = self.intervals
        ends = np.delete(self.knots, np.cumsum(self.n_knots) - self.n_knots)
        return [
            f"{feature_names[column]} {_short(low)} to {_short(high)}"
            for column, low, high in zip(source, begin, ends, strict=True)
        ]

    def to_arrays(self) -> dict[str, Floats]:
        """All that there is to it."""
        return {
            "columns": self.columns.astype(np.float64),
            "knot_counts": self.n_knots.astype(np.float64),
            "knots": self.knots,
            "center": self.center,
            "factor": np.array([self.factor]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, n_features: int) -> PieceColumns:
        """Undo `to_arrays`."""
        columns = column_numbers(arrays, "columns", n_features)
        found = finite(arrays, "knot_counts", len(columns))
        stored = np.size(arrays.get("knots", ()))
        counts = np.clip(found, 0, stored + 1).astype(np.intp)
        if not np.array_equal(counts, found) or (counts < _LEAST_KNOTS).any():
            raise ModelFileError(
                f"the encoder's 'knot_counts' are not whole numbers from {_LEAST_KNOTS}"
            )
        knots = finite(arrays, "knots", int(counts.sum()))
        center = finite(arrays, "center", int(counts.sum()) - len(columns))
        factor = float(positive(arrays, "factor", 1)[0])
        block = cls(columns, counts, knots, center, factor)
        if not (block.intervals[2] > 0).all():
            raise ModelFileError("the encoder's 'knots' do not increase")
        return block


def _knots(sketch: ColumnSketch, column: int, intervals: int) -> Floats:
    """The knots of one column."""
    values, _ = sketch.points(column)
    if sketch.exact[column] and len(values) <= intervals + 1:
        return values
    return np.unique(sketch.quantiles(column, np.linspace(0, 1, intervals + 1)))


def _features(x: Floats, begin: Floats, length: Floats) -> Floats:
    """How far each value has come through the intervals, from 0 to 1."""
    with np.errstate(over="ignore"):  # far beyond a tiny interval
        out: Floats = x - begin
        out /= length
    return np.clip(out, 0.0, 1.0, out=out)


def _short(value: float) -> str:
    """The shortest text of a number that is not that of another."""
    text = repr(float(value))
    return text.removesuffix(".0")
