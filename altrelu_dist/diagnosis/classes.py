"""Predicted classes against true ones: what rows add to the confusion and to calibrations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.diagnosis.counting import unseen_levels, used_of
from altrelu_dist.diagnosis.figures import Calibration, Confusion
from altrelu_dist.logistic import chosen, probabilities
from altrelu_dist.moments.rows import Additive, Floats, Rows

if TYPE_CHECKING:
    from altrelu_dist.network import Network

__all__ = ["CompareClasses", "comparison_of_classes"]

_PROBABILITY_BINS = 10
_CLASSES = 12  # of which the confusion is shown, the most frequent in the sample
_CURVES = 4  # of which the calibration is shown


def comparison_of_classes(network: Network, sample: Rows) -> CompareClasses:
    """The comparison that tells apart the classes that are frequent in a sample of the rows."""
    assert network.classes is not None
    n = len(network.classes)
    counts = np.bincount(sample.y[:, 0].astype(np.intp), minlength=n)
    frequent = np.argsort(-counts, kind="stable")
    curves = np.array([1]) if n == 2 else np.sort(frequent[:_CURVES])
    return CompareClasses(network, np.sort(frequent[:_CLASSES]), curves, n)


@dataclass(frozen=True)
class CompareClasses:
    """Count rows by their true class and the predicted one, and by predicted probability."""

    network: Network
    shown: NDArray[np.intp]  # the classes of the confusion, in their order
    curves: NDArray[np.intp]  # those of the calibration
    n_classes: int

    def __call__(self, rows: Rows) -> _ClassSums:
        """What some rows add."""
        weight, used = used_of(rows)
        code = rows.y[used, 0].astype(np.intp)
        logits = self.network.predict(rows.X[used])
        n = len(self.shown)
        place = np.full(self.n_classes + 1, n)
        place[self.shown] = np.arange(n)
        known = (code >= 0) & (code < self.n_classes)
        true = place[np.where(known, code, self.n_classes)]
        pairs = true * (n + 1) + place[chosen(logits)]
        confusion = np.bincount(pairs, weight, (n + 1) ** 2).astype(np.float64)
        p = probabilities(logits)[known]
        edges, sums = _probability_edges(), np.empty((3, len(self.curves), _PROBABILITY_BINS))
        for i, k in enumerate(self.curves):
            w = weight[known]
            for j, of in enumerate((w, w * p[:, k], w * (code[known] == k))):
                sums[j, i] = np.histogram(p[:, k], edges, weights=of)[0]
        unseen = unseen_levels(self.network, rows)
        return _ClassSums(confusion.reshape(n + 1, n + 1), sums[0], sums[1], sums[2], unseen)

    def confusion(self, sums: _ClassSums) -> Confusion:
        """The confusion, without what there is none of."""
        weight = sums.confusion
        labels = self.network.classes or ()
        names = (*(str(labels[k]) for k in self.shown), "others")
        rows, columns = ([*range(len(self.shown))] for _ in range(2))
        if weight[-1].any():
            rows.append(len(self.shown))
        if weight[:, -1].any():
            columns.append(len(self.shown))
        return Confusion(
            tuple(names[i] for i in rows),
            tuple(names[i] for i in columns),
            weight[np.ix_(rows, columns)],
        )

    def calibrations(self, sums: _ClassSums) -> tuple[Calibration, ...]:
        """The calibration of each class."""
        labels = self.network.classes or ()
        found = []
        for i, k in enumerate(self.curves):
            there = sums.weight[i] > 0
            total = np.where(there, sums.weight[i], math.nan)
            found.append(
                Calibration(
                    str(labels[k]),
                    _probability_edges(),
                    sums.weight[i],
                    sums.probability[i] / total,
                    sums.share[i] / total,
                )
            )
        return tuple(found)


@dataclass(frozen=True)
class _ClassSums(Additive):
    confusion: Floats  # (classes shown and others, the same)
    weight: Floats  # (curves, bins)
    probability: Floats
    share: Floats
    unseen: NDArray[np.int64]


def _probability_edges() -> Floats:
    return np.linspace(0.0, 1.0, _PROBABILITY_BINS + 1)
