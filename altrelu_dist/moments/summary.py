"""One look at all rows: means, variances, ranges, and whatever is not a finite number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.rows import Floats, Rows, Scaler

__all__ = ["Columns", "Summary", "columns_of", "summarise"]


# Squares of huge values overflow: the variance is then not finite, which the caller finds.
_overflow = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True)
class Columns:
    """Weighted moments and range of some columns over a range of rows."""

    weight: float
    mean: Floats
    squares: Floats  # weighted sum of squared deviations from the mean
    low: Floats
    high: Floats
    bad: Floats  # number of values that are not finite
    first_bad: Floats  # row of the first of them, inf where there is none
    infinite: Floats  # number of values that are infinite
    first_infinite: Floats  # row of the first of them, inf where there is none

    @_overflow
    def merge(self, other: Columns) -> Columns:
        """Both ranges together (Chan, Golub and LeVeque's update)."""
        weight = self.weight + other.weight
        share = other.weight / weight if weight > 0 else 0.0
        gap = other.mean - self.mean
        return Columns(
            weight=weight,
            mean=self.mean + share * gap,
            squares=self.squares + other.squares + gap**2 * (self.weight * share),
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            bad=self.bad + other.bad,
            first_bad=np.minimum(self.first_bad, other.first_bad),
            infinite=self.infinite + other.infinite,
            first_infinite=np.minimum(self.first_infinite, other.first_infinite),
        )

    @property
    def variance(self) -> Floats:
        """Weighted variance of each column, exactly zero for a constant one."""
        variance = self.squares / max(self.weight, np.finfo(np.float64).tiny)
        # What is left of a constant after rounding is not a spread.
        rounding = 8 * np.finfo(np.float64).eps * np.maximum(abs(self.low), abs(self.high))
        constant = (self.high == self.low) | (np.sqrt(variance) <= rounding)
        return np.where(constant, 0.0, variance)


@dataclass(frozen=True)
class Summary:
    """The columns of X and of y, and the rows' weights."""

    rows: int
    weighted: int  # rows whose weight is not zero
    without_target: int  # rows of which some target is not finite
    features: Columns
    targets: Columns
    low_weight: float
    bad_weights: int

    def merge(self, other: Summary) -> Summary:
        """Both ranges together."""
        return Summary(
            self.rows + other.rows,
            self.weighted + other.weighted,
            self.without_target + other.without_target,
            self.features.merge(other.features),
            self.targets.merge(other.targets),
            min(self.low_weight, other.low_weight),
            self.bad_weights + other.bad_weights,
        )

    def scaler(self, dtype: np.dtype[np.floating]) -> Scaler:
        """The standardising map that these moments give."""
        scale = np.sqrt(self.features.variance)
        target_scale = float(np.sqrt(self.targets.variance.sum()))
        return Scaler(
            dtype=dtype,
            center=self.features.mean,
            scale=np.where(scale > 0, scale, np.inf),
            target_center=self.targets.mean,
            target_scale=target_scale if target_scale > 0 else 1.0,
            weight_scale=self.features.weight / self.rows,
        )


def summarise(rows: Rows) -> Summary:
    """Contribute some rows to the summary."""
    n = rows.X.shape[0]
    weight = rows.weights
    fine = np.isfinite(weight)
    usable = np.where(fine, weight, 0.0)
    return Summary(
        rows=n,
        weighted=int(np.count_nonzero(usable)),
        without_target=n - int(np.isfinite(rows.y.astype(np.float64)).all(axis=1).sum()),
        features=columns_of(rows.X, usable, rows.start),
        targets=columns_of(rows.y, usable, rows.start),
        low_weight=float(np.min(usable, initial=np.inf)),
        bad_weights=int(n - fine.sum()),
    )


@_overflow
def columns_of(columns: NDArray[Any], weight: Floats, start: int) -> Columns:
    """Contribute some rows of finite weights."""
    # In one order in memory, because sums over another would round otherwise.
    values: Floats = columns.astype(np.float64, order="C")
    finite = np.isfinite(values)
    bad = infinite = ~finite
    if bad.any():
        infinite = np.isinf(values)
        values = np.where(finite, values, 0.0)
    total = float(weight.sum())
    mean = weight @ values / total if total > 0 else np.zeros(values.shape[1])
    # Rows of no weight say nothing about the range either.
    seen = values if (weight > 0).all() else values[weight > 0]
    return Columns(
        weight=total,
        mean=mean,
        squares=weight @ (values - mean) ** 2,
        low=seen.min(axis=0, initial=np.inf),
        high=seen.max(axis=0, initial=-np.inf),
        bad=bad.sum(axis=0).astype(np.float64),
        first_bad=_first(bad, start),
        infinite=infinite.sum(axis=0).astype(np.float64),
        first_infinite=_first(infinite, start),
    )


def _first(found: NDArray[np.bool_], start: int) -> Floats:
    """Row of the first true value of each column, inf where there is none."""
    return np.where(found.any(axis=0), start + found.argmax(axis=0), np.inf)
