"""Scores of a network, one pass over the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.class_metrics import RankCounts
from altrelu_dist.errors import DataError
from altrelu_dist.frames import given_again
from altrelu_dist.inputs import engine_of, on_client
from altrelu_dist.losses import Huber, Loss, Quantile, loss_of_network
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Floats, Rows
from altrelu_dist.moments.summary import Columns, columns_of, summarise
from altrelu_dist.prediction import check_interval, intervals_about, of_targets, own_losses

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.network import Network

__all__ = ["TargetScore", "evaluate"]

_MOST_VALUES = 1 << 17  # of all targets together, that are told apart for the best constants
_LEAST_VALUES = 1 << 10


@dataclass(frozen=True)
class TargetScore:
    """How well one target is predicted.

    Parameters
    ----------
    target : str
    mse, rmse, mae : float
        Mean squared error, its root, and mean absolute error, in units of the target.
    r2 : float
        Share of the variance that is explained; NaN for a target that does not vary.
    mean_loss : float, optional
        Of a network of another loss than the square, the mean of that: the Huber loss, the pinball
        loss of its level, or the Poisson deviance, which is NaN where a target is negative.
    d2 : float, optional
        Share of the loss of the best constant for these rows that the predictions take off; NaN
        for a target that does not vary.
    share_below : float, optional
        Of a quantile, the share of targets at or below it.
    coverage : float, optional
        Share of targets within the interval of a level that was asked for.
    rows : int
        That were scored: those of a positive weight.
    """

    target: str
    mse: float
    rmse: float
    mae: float
    r2: float
    mean_loss: float | None = None
    d2: float | None = None
    share_below: float | None = None
    coverage: float | None = None
    rows: int = 0


@dataclass(frozen=True)
class _Errors:
    rows: int
    targets: Columns
    squares: Floats  # (q,)
    absolute: Floats  # (q,)
    losses: Floats  # (q,), of the network's own loss
    below: Floats  # (q,), weight of targets at or below their prediction
    inside: Floats  # (q,), and within their interval
    # Of a loss, of each column of y: the weight of each value, and times the value.
    values: tuple[RankCounts, ...]

    def merge(self, other: _Errors) -> _Errors:
        return _Errors(
            self.rows + other.rows,
            self.targets.merge(other.targets),
            self.squares + other.squares,
            self.absolute + other.absolute,
            self.losses + other.losses,
            self.below + other.below,
            self.inside + other.inside,
            tuple(a.merge(b) for a, b in zip(self.values, other.values, strict=True)),
        )


@dataclass(frozen=True)
class _Statistic:
    network: Network
    level: float | None = None

    def __call__(self, rows: Rows) -> _Errors:
        given = y = rows.y.astype(np.float64)
        if y.shape[1] == 1:  # of which there may be several quantiles
            y = np.repeat(y, max(1, len(self.network.quantiles)), axis=1)
        if y.shape[1] != self.network.n_targets:
            raise DataError(
                f"the network predicts {self.network.n_targets} targets, y has {y.shape[1]}"
            )
        weight = rows.weights
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise DataError("sample_weight holds values that are negative or not finite")
        seen = weight > 0  # whatever is missing in others
        loss = loss_of_network(self.network.info)
        losses = inside = np.zeros(y.shape[1])
        values: tuple[RankCounts, ...] = ()
        with np.errstate(over="ignore", invalid="ignore"):  # looked for when all is added up
            out = self.network.predict(rows.X)
            predicted = of_targets(self.network, out)
            error = y - predicted
            error[~seen] = 0.0
            squares, absolute = weight @ error**2, weight @ np.abs(error)
            if loss is not None:
                losses = weight[seen] @ own_losses(self.network, loss, out[seen], y[seen])
                values = tuple(_values_of(column, weight, given.shape[1]) for column in given.T)
        if self.level is not None:
            bounds = intervals_about(self.network, predicted, self.level)
            inside = weight @ ((bounds[..., 0] <= y) & (y <= bounds[..., 1]))
        below = weight @ (y <= predicted)
        columns = columns_of(y, weight, rows.start)
        n = int(np.count_nonzero(seen))
        return _Errors(n, columns, squares, absolute, losses, below, inside, values)


def _values_of(y: Floats, weight: Floats, n_targets: int) -> RankCounts:
    """The values of a target that count, each with its weight."""
    seen = (weight > 0) & np.isfinite(y)
    y, weight = y[seen], weight[seen]
    return RankCounts.of(y, weight, weight * y, max(_LEAST_VALUES, _MOST_VALUES // n_targets))


def _least(loss: Loss, values: RankCounts, target: int) -> float:
    """The sum of the losses of the best constant, of a target with these values."""
    weight = values.inside
    y = (values.outside / weight)[:, None]
    if isinstance(loss, Quantile):
        loss = Quantile(loss.levels[target : target + 1] or loss.levels[:1])
    elif isinstance(loss, Huber):
        loss = Huber(loss.delta[target : target + 1] or loss.delta[:1])
    return float(weight @ loss.value(loss.constant(y, weight), y)[:, 0])


def evaluate(
    network: Network,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    client: Client | None = None,
    *,
    level: float | None = None,
) -> list[TargetScore]:
    """Score a network on some rows, block by block.

    Parameters
    ----------
    network : Network
    X : array-like of shape (n_rows, n_features)
        As :meth:`AltReLURegressor.fit` takes it.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Of several quantiles the one target that they are of.
    sample_weight : array-like of shape (n_rows,), optional
    client : distributed.Client, optional
        By default the current one, for Dask and Zarr data.
    level : float, optional
        Of intervals, whose coverage is measured: of a network that has
        :meth:`AltReLURegressor.predict_interval`.

    Returns
    -------
    list of TargetScore
        One a target, or of several quantiles one a level.

    Raises
    ------
    ParameterError
        If the network has no intervals of the level.
    DataError
        If the network is of classes, the shapes or the names of the columns do not fit, a value is
        not finite, or every weight is zero.
    ClusterError
        If the client cannot be waited for, or does not have what was persisted of the data.
    """
    if network.classes is not None:
        raise DataError("the network predicts classes, not numbers; use evaluate_classes")
    if level is not None:
        check_interval(network, level, "level")
    features = given_again(X, "X", network.columns, network.feature_names)
    with on_client(client, X=X, y=y, sample_weight=sample_weight) as client:
        engine = engine_of(features.values, y, sample_weight, client)
        bare = replace(network, hidden_gram=None)  # which is large, and goes to the workers
        errors = engine.reduce(_Statistic(bare, level), "scores")
    total = errors.targets.weight
    if not total > 0:
        raise DataError("every sample weight is zero: there is nothing to score")
    if errors.targets.bad.any() or not np.isfinite(errors.squares).all():
        summary = engine.reduce(summarise, "summary")
        gaps = False if network.encoder is None else network.encoder.lacking
        names_of = network.feature_names, network.target_names
        check_summary(summary, *names_of, gaps=gaps, kinds=network.columns)
        raise DataError("the network's errors on these rows are too large to be squared")
    names = network.target_names or tuple(f"y{t}" for t in range(network.n_targets))
    loss, scores = loss_of_network(network.info), []
    for t, name in enumerate(names):
        mse = float(errors.squares[t]) / total
        variance = float(errors.targets.variance[t])
        mean_loss = d2 = None
        if loss is not None:
            mean_loss = float(errors.losses[t]) / total
            least = _least(loss, errors.values[min(t, len(errors.values) - 1)], t)
            d2 = 1 - float(errors.losses[t]) / least if variance > 0 and least > 0 else math.nan
        scores.append(
            TargetScore(
                target=name,
                mse=mse,
                rmse=math.sqrt(mse),
                mae=float(errors.absolute[t]) / total,
                r2=1 - mse / variance if variance > 0 else math.nan,
                mean_loss=mean_loss,
                d2=d2,
                share_below=float(errors.below[t]) / total if network.quantiles else None,
                coverage=None if level is None else float(errors.inside[t]) / total,
                rows=errors.rows,
            )
        )
    return scores
