"""The random sample that a diagnosis takes of all rows, in one pass over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altrelu_dist.moments.rows import Rows
from altrelu_dist.moments.sample import Sample

__all__ = ["Draw"]


@dataclass(frozen=True)
class Draw:
    """So many rows with weight, each as likely as any other, in whatever chunks they come."""

    most: int
    seed: int
    n_classes: int | None

    def __call__(self, rows: Rows) -> _Few:
        """Those of some rows that have the least draws."""
        draw = np.random.default_rng([self.seed, rows.start]).random(len(rows.X))
        there = np.ones(len(draw), dtype=bool)
        if rows.weight is not None:
            there &= rows.weight.astype(np.float64) > 0
        if self.n_classes is not None:
            code = rows.y[:, 0].astype(np.float64)
            there &= (code >= 0) & (code < self.n_classes)
        take = np.flatnonzero(there)
        weight = None if rows.weight is None else rows.weight[take]
        return _cut(Sample(rows.X[take], rows.y[take], weight, draw[take]), self.most)


@dataclass(frozen=True)
class _Few:
    """The rows of the least draws."""

    sample: Sample
    most: int

    def merge(self, other: _Few) -> _Few:
        return _cut(self.sample.merge(other.sample), self.most)


def _cut(sample: Sample, most: int) -> _Few:
    X, y, weight, draw = sample.drawn()
    if len(draw) <= most:
        return _Few(sample, most)
    take = np.sort(np.argsort(draw, kind="stable")[:most])
    weight = None if weight is None else weight[take]
    return _Few(Sample(X[take], y[take], weight, draw[take]), most)
