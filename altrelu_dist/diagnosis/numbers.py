"""Predicted numbers against true ones: what rows add to the densities of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.diagnosis.counting import (
    BINS,
    MARGIN,
    TAILS,
    counted,
    even_edges,
    range_of,
    unseen_levels,
    used_of,
    whole_edges,
)
from altrelu_dist.diagnosis.figures import Density, Histogram, Residuals
from altrelu_dist.moments.rows import Floats, Rows
from altrelu_dist.prediction import of_targets

if TYPE_CHECKING:
    from altrelu_dist.network import Network

__all__ = ["CompareNumbers", "comparison_of_numbers"]


def comparison_of_numbers(network: Network, sample: Rows, most: int) -> CompareNumbers:
    """The comparison of the first targets, in intervals that suit a sample of the rows."""
    p = of_targets(network, network.predict(sample.X))
    edges = []
    for t in range(min(most, network.n_targets)):
        y = sample.y[:, t].astype(np.float64)
        span = range_of(y, p[:, t])
        whole = bool((y == np.round(y)).all())
        of_true = whole_edges(span) if whole else even_edges(span, BINS)
        of_predicted = even_edges((of_true[0], of_true[-1]), BINS)
        reach = float(np.quantile(np.abs(y - p[:, t]), TAILS[1])) * (1 + MARGIN)
        of_residual = even_edges((-reach, reach), BINS - 1)
        edges.append(_Edges(of_true, of_predicted, of_residual))
    return CompareNumbers(network, tuple(edges))


class _Edges(NamedTuple):
    true: Floats
    predicted: Floats
    residual: Floats


@dataclass(frozen=True)
class CompareNumbers:
    """Count rows by the true values, predictions and residuals of each target."""

    network: Network
    edges: tuple[_Edges, ...]

    def __call__(self, rows: Rows) -> _NumberSums:
        """What some rows add."""
        weight, used = used_of(rows)
        y = rows.y[used].astype(np.float64)
        p = of_targets(self.network, self.network.predict(rows.X[used]))
        predicted, residual, against = [], [], []
        for t, (of_true, of_predicted, of_residual) in enumerate(self.edges):
            r = y[:, t] - p[:, t]
            predicted.append(counted((y[:, t], p[:, t]), (of_true, of_predicted), weight))
            residual.append(counted((r,), (of_residual,), weight))
            against.append(counted((p[:, t], r), (of_predicted, of_residual), weight))
        return _NumberSums(
            tuple(predicted),
            np.array(residual),
            np.array(against),
            float(weight.sum()),
            unseen_levels(self.network, rows),
        )

    def residuals(self, sums: _NumberSums, t: int, name: str) -> Residuals:
        """Those of one target, from the sums over all rows."""
        of_true, of_predicted, of_residual = self.edges[t]
        predicted, residual, against = sums.predicted[t], sums.residual[t], sums.against[t]
        beyond = [max(0.0, sums.total - float(a.sum())) for a in (predicted, residual, against)]
        return Residuals(
            name,
            Density(of_true, of_predicted, predicted, beyond[0]),
            Histogram(of_residual, residual, beyond[1]),
            Density(of_predicted, of_residual, against, beyond[2]),
        )


@dataclass(frozen=True)
class _NumberSums:
    predicted: tuple[Floats, ...]
    residual: Floats
    against: Floats
    total: float
    unseen: NDArray[np.int64]

    def merge(self, other: _NumberSums) -> _NumberSums:
        pairs = zip(self.predicted, other.predicted, strict=True)
        return _NumberSums(
            tuple(one + two for one, two in pairs),
            self.residual + other.residual,
            self.against + other.against,
            self.total + other.total,
            self.unseen + other.unseen,
        )
