"""Scores of a network of classes, one pass over the rows in memory that does not grow with them."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from altrelu_dist.data.source import listed
from altrelu_dist.errors import DataError
from altrelu_dist.frames import given_again
from altrelu_dist.inputs import engine_of, on_client
from altrelu_dist.logistic import chosen, log_loss
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Floats, Rows, rows_with_target
from altrelu_dist.moments.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from altrelu_dist.network import Network

__all__ = ["ClassScore", "RankCounts", "evaluate_classes"]

_MOST_KEYS = 1 << 17  # of all classes together
_LEAST_KEYS = 1 << 10
_BITS = 64


@dataclass(frozen=True)
class ClassScore:
    """How well classes are predicted.

    Parameters
    ----------
    target : str
    rows : int
        That have a class, and a positive weight.
    accuracy : float
        Share of the weight of rows whose class is predicted. One that the network does not know
        never is.
    log_loss : float
        Mean of minus the logarithm of the probability of the class, over rows of known classes.
    auc : float
        Area under the ROC curve of the second of two classes. Of more classes the mean of those of
        each class against all others. NaN where the rows are of one class.
    missing : int
        Rows without a class, which do not count.
    unknown : dict of str to int
        Rows of each class that the network does not know.
    """

    target: str
    rows: int
    accuracy: float
    log_loss: float
    auc: float
    missing: int
    unknown: dict[str, int]


@dataclass(frozen=True)
class RankCounts:
    """The weight of the rows in a class, and of those that are not, by their score.

    It is exact up to `most` different scores. Where there are more, the last bits of all are left
    out, as few as are needed: the result is the same in whatever order rows come.

    Parameters
    ----------
    keys : ndarray of shape (n,)
        Scores as integers of the same order, sorted, without their last `shift` bits.
    inside, outside : ndarray of shape (n,)
    shift : int
    most : int
    """

    keys: NDArray[np.int64]
    inside: Floats
    outside: Floats
    shift: int
    most: int

    @classmethod
    def of(cls, score: Floats, inside: Floats, outside: Floats, most: int) -> RankCounts:
        """Of some rows."""
        bits = (score + 0.0).view(np.int64)  # -0.0 is 0.0
        keys = np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)
        return cls(keys, inside, outside, 0, most)._summed()

    def merge(self, other: RankCounts) -> RankCounts:
        """Of both together."""
        shift = max(self.shift, other.shift)
        keys = [each.keys >> (shift - each.shift) for each in (self, other)]
        inside = np.concatenate([self.inside, other.inside])
        outside = np.concatenate([self.outside, other.outside])
        return RankCounts(np.concatenate(keys), inside, outside, shift, self.most)._summed()

    def _summed(self) -> RankCounts:
        """Each key once, and no more of them than there may be."""
        keys, places = np.unique(self.keys, return_inverse=True)

        def fits(more: int) -> bool:
            return int(np.count_nonzero(np.diff(keys >> more))) < self.most

        more = bisect_left(range(_BITS), True, key=fits)
        if more:
            keys, again = np.unique(keys >> more, return_inverse=True)
            places = again[places]
        inside, outside = (
            np.bincount(places, of, len(keys)).astype(np.float64)
            for of in (self.inside, self.outside)
        )
        return RankCounts(keys, inside, outside, self.shift + more, self.most)

    @property
    def area(self) -> float:
        """Under the ROC curve; rows of equal scores count half."""
        pairs = float(self.inside.sum()) * float(self.outside.sum())
        if not pairs > 0:
            return math.nan
        below = np.cumsum(self.outside) - self.outside / 2
        return float(self.inside @ below) / pairs


@dataclass(frozen=True)
class _Found:
    weight: float
    right: float
    known_weight: float
    loss: float
    rows: int
    missing: int
    unknown: NDArray[np.int64]  # (further classes + 1,): the last of those without a name
    ranks: tuple[RankCounts, ...]

    def merge(self, other: _Found) -> _Found:
        return _Found(
            self.weight + other.weight,
            self.right + other.right,
            self.known_weight + other.known_weight,
            self.loss + other.loss,
            self.rows + other.rows,
            self.missing + other.missing,
            self.unknown + other.unknown,
            tuple(a.merge(b) for a, b in zip(self.ranks, other.ranks, strict=True)),
        )


@dataclass(frozen=True)
class _Statistic:
    network: Network
    n_classes: int
    n_further: int

    def __call__(self, rows: Rows) -> _Found:
        number = rows.y[:, 0].astype(np.float64)
        weight = rows.weights
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise DataError("sample_weight holds values that are negative or not finite")
        lost = np.isnan(number)
        code = np.where(lost, -1, number).astype(np.intp)
        known = ~lost & (code >= 0) & (code < self.n_classes)
        further = code[~lost & ~known] - self.n_classes
        named = np.where(further < 0, self.n_further, further)
        weight = np.where(lost, 0.0, weight)
        of_known = np.where(known, weight, 0.0)
        logits = self.network.predict(rows.X)
        logits[weight == 0] = 0.0  # whatever is missing there
        single = self.n_classes == 2
        inside = code[:, None] == np.arange(1 if single else 0, self.n_classes)
        most = max(_LEAST_KEYS, _MOST_KEYS // self.n_classes)
        scores = logits if single else _against_others(logits)
        return _Found(
            float(weight.sum()),
            float(weight @ (known & (chosen(logits) == code))),
            float(of_known.sum()),
            float(of_known @ log_loss(logits, inside.astype(np.float64))),
            int(np.count_nonzero(~lost & (weight > 0))),
            int(np.count_nonzero(lost)),
            np.bincount(named, minlength=self.n_further + 1),
            tuple(
                RankCounts.of(scores[:, k], of_known * own, of_known * ~own, most)
                for k, own in enumerate(inside.T)
            ),
        )


def _against_others(logits: Floats) -> Floats:
    """The logit of the probability of each class."""
    out = np.empty_like(logits)
    for k in range(logits.shape[1]):
        out[:, k] = logits[:, k] - logsumexp(np.delete(logits, k, axis=1), axis=1)
    return out


def evaluate_classes(
    network: Network,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    classes: Sequence[Any] | None = None,
    client: Client | None = None,
) -> ClassScore:
    """Score a network of classes on some rows, block by block.

    Parameters
    ----------
    network : Network
        Of an `AltReLUClassifier`.
    X : array-like of shape (n_rows, n_features)
        As :meth:`AltReLUClassifier.fit` takes it.
    y : array-like of shape (n_rows,) or (n_rows, 1)
        The places of the classes in `classes`; NaN where there is none.
    sample_weight : array-like of shape (n_rows,), optional
    classes : sequence of labels, optional
        Those of the network, and others after them, as a `DataSet` has them that was opened with
        the network's; by default there are no others.
    client : distributed.Client, optional
        By default the current one, for Dask and Zarr data.

    Returns
    -------
    ClassScore

    Raises
    ------
    DataError
        If the network is not of classes, the columns do not fit, a value is not finite, no weight
        is positive, or no row is of a class that the network knows.
    ClusterError
        If the client cannot be waited for, or does not have what was persisted of the data.
    """
    known = network.classes
    if known is None:
        raise DataError("the network predicts numbers, not classes; use evaluate")
    further = [str(label) for label in (classes or known)[len(known) :]]
    features = given_again(X, "X", network.columns, network.feature_names)
    with on_client(client, X=X, y=y, sample_weight=sample_weight) as client:
        engine = engine_of(features.values, y, sample_weight, client)
        bare = replace(network, hidden_gram=None)  # which is large, and goes to the workers
        found = engine.reduce(_Statistic(bare, len(known), len(further)), "scores")
    if not found.weight > 0:
        raise DataError("no row has a class and a positive weight: there is nothing to score")
    if not math.isfinite(found.loss):
        summary = engine.prepared(rows_with_target).reduce(summarise, "summary")
        gaps = False if network.encoder is None else network.encoder.lacking
        check_summary(summary, network.feature_names, None, gaps=gaps, kinds=network.columns)
        raise DataError("the network's outputs on these rows are too large to be scored")
    unknown = dict(zip([*further, "others"], found.unknown.tolist(), strict=True))
    unknown = {name: count for name, count in unknown.items() if count}
    if not found.known_weight > 0:
        there = listed([f"{name} ({count:,})" for name, count in unknown.items()])
        raise DataError(
            f"no row is of a class that the network knows: it knows {listed(known)}; found {there}"
        )
    areas = [ranks.area for ranks in found.ranks]
    areas = [area for area in areas if not math.isnan(area)]
    return ClassScore(
        target=(network.target_columns or ("y",))[0],
        rows=found.rows,
        accuracy=found.right / found.weight,
        log_loss=found.loss / found.known_weight,
        auc=sum(areas) / len(areas) if areas else math.nan,
        missing=found.missing,
        unknown=unknown,
    )
