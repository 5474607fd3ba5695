"""How a network's predictions compare with the truth over all rows, and what they depend on.

Two passes over the rows in memory that does not grow with them: one draws a random sample, one adds
up densities. The sample gives the edges of the densities, importance and partial dependence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.class_metrics import ClassScore, evaluate_classes
from altrelu_dist.dependence import Dependence, Importance, importance_of, partial_dependence
from altrelu_dist.encoding.raw import UNSEEN
from altrelu_dist.errors import DataError, MissingTargetsError
from altrelu_dist.frames import given_again
from altrelu_dist.inputs import engine_of, on_client
from altrelu_dist.logistic import chosen, probabilities
from altrelu_dist.losses import Repeated
from altrelu_dist.metrics import TargetScore, evaluate
from altrelu_dist.moments.rows import Additive, Floats, Rows, rows_with_target
from altrelu_dist.moments.sample import Sample
from altrelu_dist.prediction import of_targets

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.network import Network

__all__ = ["Calibration", "Confusion", "Density", "Diagnosis", "Histogram", "Residuals", "diagnose"]

SAMPLE = 2_000  # rows that importance is measured on
_DEPENDENCE_ROWS = 500
_DEPENDENCES = 6  # columns whose partial dependence is shown
_BINS = 40
_PROBABILITY_BINS = 10
_CLASSES = 12  # of which the confusion is shown, the most frequent in the sample
_CURVES = 4  # of which the calibration is shown
_TAILS = (0.0025, 0.9975)  # quantiles of the sample between which densities are shown, and beyond
_MARGIN = 0.05


@dataclass(frozen=True)
class Histogram:
    """Weight of the rows in each interval of one quantity.

    Parameters
    ----------
    edges : ndarray of shape (n + 1,)
    weight : ndarray of shape (n,)
    beyond : float
        Weight of the rows outside of all intervals.
    """

    edges: Floats
    weight: Floats
    beyond: float


@dataclass(frozen=True)
class Density:
    """Weight of the rows in each cell of two quantities.

    Parameters
    ----------
    x_edges : ndarray of shape (n + 1,)
    y_edges : ndarray of shape (m + 1,)
    weight : ndarray of shape (n, m)
    beyond : float
        Weight of the rows outside of all cells.
    """

    x_edges: Floats
    y_edges: Floats
    weight: Floats
    beyond: float

    @classmethod
    def of(cls, x: Floats, y: Floats, bins: int = _BINS) -> Density:
        """Of true values and predictions in memory, on the same range."""
        edges = _edges(_range(x, y), bins)
        weight, *_ = np.histogram2d(x, y, bins=(edges, edges))
        return cls(edges, edges, weight, float(len(x) - weight.sum()))


@dataclass(frozen=True)
class Residuals:
    """Predictions of one target against the truth, over all rows.

    Parameters
    ----------
    target : str
    predicted : Density
        Of true values (x) and predictions (y).
    residual : Histogram
        Of the true value less the prediction.
    against : Density
        Of predictions (x) and residuals (y).
    """

    target: str
    predicted: Density
    residual: Histogram
    against: Density


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities of one class against its share.

    Parameters
    ----------
    label : str
    edges : ndarray of shape (n + 1,)
        Of the predicted probability.
    weight, probability, share : ndarray of shape (n,)
        Weight of the rows in each interval, their mean probability, and the share of the class;
        NaN where there are no rows.
    """

    label: str
    edges: Floats
    weight: Floats
    probability: Floats
    share: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of share and probability over the rows."""
        total = float(self.weight.sum())
        return float(np.nansum(self.weight * np.abs(self.share - self.probability))) / total


@dataclass(frozen=True)
class Confusion:
    """Weight of the rows of each class by the predicted class.

    Parameters
    ----------
    true, predicted : tuple of str
        The classes that are told apart; ``"others"`` are all that are not.
    weight : ndarray of shape (len(true), len(predicted))
    """

    true: tuple[str, ...]
    predicted: tuple[str, ...]
    weight: Floats


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` finds.

    Parameters
    ----------
    scores : list of TargetScore, or ClassScore
    rows : int
        That were scored.
    sampled : int
        Rows of the random sample.
    residuals : tuple of Residuals
        One a target, or a quantile, of the first ones; empty of classes.
    calibrations : tuple of Calibration
        Of the second of two classes; of more of the most frequent ones. Empty of numbers.
    confusion : Confusion, optional
        Of classes.
    importances : tuple of Importance
        One of each target in `residuals`, or one of classes.
    dependences : tuple of tuple of Dependence
        Of the most important columns of each `importances`.
    missing_targets : dict of str to int
        Rows that were left out for want of a target, by its name.
    unseen : ndarray of shape (n_features,)
        Values of each column of levels that the network does not know.
    """

    scores: list[TargetScore] | ClassScore
    rows: int
    sampled: int
    residuals: tuple[Residuals, ...]
    calibrations: tuple[Calibration, ...]
    confusion: Confusion | None
    importances: tuple[Importance, ...]
    dependences: tuple[tuple[Dependence, ...], ...]
    missing_targets: dict[str, int]
    unseen: NDArray[np.int64]


def diagnose(
    network: Network,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    classes: Sequence[Any] | None = None,
    client: Client | None = None,
    random_state: int = 0,
    most_targets: int = 8,
) -> Diagnosis:
    """Compare a network's predictions with the truth, in three passes of bounded memory.

    Scores and densities are over all rows. Importance is measured on a random sample of 2,000 rows,
    partial dependence on 500 of them. Rows without a target are left out.

    Parameters
    ----------
    network : Network
    X : array-like of shape (n_rows, n_features)
        As :meth:`AltReLURegressor.fit` takes it.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Of classes their places in `classes`; of several quantiles the one target that they are of.
    sample_weight : array-like of shape (n_rows,), optional
    classes : sequence of labels, optional
        As `evaluate_classes` takes them.
    client : distributed.Client, optional
        By default the current one, for Dask and Zarr data.
    random_state : int, default 0
        Of the sample and the permutations.
    most_targets : int, default 8
        Targets of which more than the scores is wanted.

    Returns
    -------
    Diagnosis

    Raises
    ------
    DataError
        As `evaluate` and `evaluate_classes`.
    ClusterError
        If the client cannot be waited for, or does not have what was persisted of the data.
    """
    X = given_again(X, "X", network.columns, network.feature_names).values
    bare = replace(network, hidden_gram=None)  # which is large, and goes to the workers
    missing: dict[str, int] = {}
    scores: list[TargetScore] | ClassScore
    with on_client(client, X=X, y=y, sample_weight=sample_weight) as client:
        engine = engine_of(X, y, sample_weight, client)
        if network.classes is not None:
            scores = evaluate_classes(network, X, y, sample_weight, classes=classes, client=client)
            engine = engine.prepared(rows_with_target)
        else:
            try:
                scores = evaluate(network, X, y, sample_weight, client=client)
            except MissingTargetsError as error:
                missing = error.counts
                y, sample_weight = _known(y, sample_weight)
                scores = evaluate(network, X, y, sample_weight, client=client)
                engine = engine_of(X, y, sample_weight, client)
            if len(network.quantiles) > 1:
                engine = engine.prepared(Repeated(len(network.quantiles)))
        known = None if network.classes is None else len(network.classes)
        sample = engine.reduce(_Draw(SAMPLE, random_state, known), "sample").sample.shuffled()
        if not len(sample.X):
            raise DataError("no row of the data is of a class that the network knows")
        residuals: tuple[Residuals, ...] = ()
        calibrations: tuple[Calibration, ...] = ()
        confusion = None
        if known is None:
            numbers = _of_numbers(bare, sample, most_targets)
            sums = engine.reduce(numbers, "densities")
            names = network.target_names or tuple(f"y{t}" for t in range(network.n_targets))
            residuals = tuple(
                numbers.residuals(sums, t, name) for t, name in enumerate(names[:most_targets])
            )
            unseen = sums.unseen
        else:
            labels = _of_classes(bare, sample)
            counts = engine.reduce(labels, "densities")
            calibrations, confusion = labels.calibrations(counts), labels.confusion(counts)
            unseen = counts.unseen
    importances = importance_of(bare, sample, seed=random_state)[:most_targets]
    few = sample.part(0, min(_DEPENDENCE_ROWS, len(sample.X)))
    tops = [each.order[:_DEPENDENCES].tolist() for each in importances]
    found = {
        column: each
        for column in sorted({column for top in tops for column in top})
        for each in partial_dependence(bare, few, [column])
    }
    return Diagnosis(
        scores,
        scores[0].rows if isinstance(scores, list) else scores.rows,
        len(sample.X),
        residuals,
        calibrations,
        confusion,
        tuple(importances),
        tuple(tuple(found[c] for c in top if c in found) for top in tops),
        missing,
        unseen,
    )


def _known(y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Targets and weights as `DataSet.known_targets`, of whatever holds them."""
    import dask.array as da

    from altrelu_dist.frames import given
    from altrelu_dist.inputs import is_lazy, lazy_array

    y = given(y, "y", numbers=True).values
    y = lazy_array(y, "y") if is_lazy(y) else np.asarray(y)
    y = y[:, None] if y.ndim == 1 else y
    xp = da if isinstance(y, da.Array) else np
    lost = xp.isnan(y).any(axis=1)
    if sample_weight is None:
        weight = xp.where(lost, 0.0, 1.0)
    else:
        own = given(sample_weight, "sample_weight", numbers=True).values
        own = lazy_array(own, "sample_weight") if is_lazy(own) else np.asarray(own)
        weight = xp.where(lost, 0.0, own.ravel())
    return xp.where(lost[:, None], 0.0, y), weight


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


@dataclass(frozen=True)
class _Draw:
    """So many rows with weight, each as likely as any other, in whatever chunks they come."""

    most: int
    seed: int
    n_classes: int | None

    def __call__(self, rows: Rows) -> _Few:
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


class _Edges(NamedTuple):
    true: Floats
    predicted: Floats
    residual: Floats


@dataclass(frozen=True)
class _CompareNumbers:
    network: Network
    edges: tuple[_Edges, ...]

    def __call__(self, rows: Rows) -> _NumberSums:
        weight, used = _used(rows)
        y = rows.y[used].astype(np.float64)
        p = of_targets(self.network, self.network.predict(rows.X[used]))
        predicted, residual, against = [], [], []
        for t, (of_true, of_predicted, of_residual) in enumerate(self.edges):
            r = y[:, t] - p[:, t]
            predicted.append(_count((y[:, t], p[:, t]), (of_true, of_predicted), weight))
            residual.append(_count((r,), (of_residual,), weight))
            against.append(_count((p[:, t], r), (of_predicted, of_residual), weight))
        return _NumberSums(
            tuple(predicted),
            np.array(residual),
            np.array(against),
            float(weight.sum()),
            _unseen(self.network, rows),
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


def _of_numbers(network: Network, sample: Rows, most: int) -> _CompareNumbers:
    p = of_targets(network, network.predict(sample.X))
    edges = []
    for t in range(min(most, network.n_targets)):
        y = sample.y[:, t].astype(np.float64)
        span = _range(y, p[:, t])
        whole = bool((y == np.round(y)).all())
        of_true = _whole_edges(span) if whole else _edges(span, _BINS)
        of_predicted = _edges((of_true[0], of_true[-1]), _BINS)
        reach = float(np.quantile(np.abs(y - p[:, t]), _TAILS[1])) * (1 + _MARGIN)
        of_residual = _edges((-reach, reach), _BINS - 1)
        edges.append(_Edges(of_true, of_predicted, of_residual))
    return _CompareNumbers(network, tuple(edges))


@dataclass(frozen=True)
class _ClassSums(Additive):
    confusion: Floats  # (classes shown and others, the same)
    weight: Floats  # (curves, bins)
    probability: Floats
    share: Floats
    unseen: NDArray[np.int64]


@dataclass(frozen=True)
class _CompareClasses:
    network: Network
    shown: NDArray[np.intp]  # the classes of the confusion, in their order
    curves: NDArray[np.intp]  # those of the calibration
    n_classes: int

    def __call__(self, rows: Rows) -> _ClassSums:
        weight, used = _used(rows)
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
        unseen = _unseen(self.network, rows)
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


def _of_classes(network: Network, sample: Rows) -> _CompareClasses:
    assert network.classes is not None
    n = len(network.classes)
    counts = np.bincount(sample.y[:, 0].astype(np.intp), minlength=n)
    frequent = np.argsort(-counts, kind="stable")
    curves = np.array([1]) if n == 2 else np.sort(frequent[:_CURVES])
    return _CompareClasses(network, np.sort(frequent[:_CLASSES]), curves, n)


def _used(rows: Rows) -> tuple[Floats, NDArray[np.intp]]:
    """The weights that are not zero, and whose they are."""
    if rows.weight is None:
        return np.ones(len(rows.X)), np.arange(len(rows.X))
    weight = rows.weight.astype(np.float64)
    used = np.flatnonzero(weight > 0)
    return weight[used], used


def _unseen(network: Network, rows: Rows) -> NDArray[np.int64]:
    counts = np.zeros(network.n_features, dtype=np.int64)
    for i, column in enumerate(network.columns or ()):
        if column.kind == "levels":
            counts[i] = np.count_nonzero(rows.X[:, i] == UNSEEN)
    return counts


def _count(values: Sequence[Floats], edges: Sequence[Floats], weight: Floats) -> Floats:
    counted: Floats = np.histogramdd(np.stack(values, axis=1), bins=[*edges], weights=weight)[0]
    return counted


def _range(x: Floats, y: Floats) -> tuple[float, float]:
    """The range of two quantities without their tails, and a margin."""
    ends = np.array([np.quantile(values, _TAILS) for values in (x, y)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    margin = _MARGIN * (high - low)
    return low - margin, high + margin


def _edges(span: tuple[float, float], bins: int) -> Floats:
    low, high = span
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        room = max(0.5, 1e-6 * abs(low))
        low, high = low - room, high + room
    return np.linspace(low, high, bins + 1)


def _whole_edges(span: tuple[float, float]) -> Floats:
    """Between whole numbers, as many to each interval."""
    low, high = math.floor(span[0]), math.ceil(span[1])
    width = max(1, math.ceil((high - low + 1) / _BINS))
    count = math.ceil((high - low + 1) / width)
    return low - 0.5 + width * np.arange(count + 1, dtype=np.float64)


def _probability_edges() -> Floats:
    return np.linspace(0.0, 1.0, _PROBABILITY_BINS + 1)
