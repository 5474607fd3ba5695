"""Scores of a network, one pass over the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.errors import DataError
from altrelu_dist.frames import given_again
from altrelu_dist.inputs import engine_of, on_client
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Floats, Rows
from altrelu_dist.moments.summary import Columns, columns_of, summarise
from altrelu_dist.prediction import of_targets

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.network import Network

__all__ = ["TargetScore", "evaluate"]


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
    """

    target: str
    mse: float
    rmse: float
    mae: float
    r2: float


@dataclass(frozen=True)
class _Errors:
    targets: Columns
    squares: Floats  # (q,)
    absolute: Floats  # (q,)

    def merge(self, other: _Errors) -> _Errors:
        return _Errors(
            self.targets.merge(other.targets),
            self.squares + other.squares,
            self.absolute + other.absolute,
        )


@dataclass(frozen=True)
class _Statistic:
    network: Network

    def __call__(self, rows: Rows) -> _Errors:
        y = rows.y.astype(np.float64)
        if y.shape[1] != self.network.n_targets:
            raise DataError(
                f"the network predicts {self.network.n_targets} targets, y has {y.shape[1]}"
            )
        weight = np.ones(y.shape[0]) if rows.weight is None else rows.weight.astype(np.float64)
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise DataError("sample_weight holds values that are negative or not finite")
        with np.errstate(over="ignore", invalid="ignore"):  # looked for when all is added up
            error = y - of_targets(self.network, self.network.predict(rows.X))
            error[weight == 0] = 0.0  # whatever is missing there
            squares, absolute = weight @ error**2, weight @ np.abs(error)
        return _Errors(columns_of(y, weight, rows.start), squares, absolute)


def evaluate(
    network: Network, X: Any, y: Any, sample_weight: Any = None, client: Client | None = None
) -> list[TargetScore]:
    """Score a network on some rows, block by block.

    Parameters
    ----------
    network : Network
    X : array-like of shape (n_rows, n_features)
        As :meth:`AltReLURegressor.fit` takes it.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
    sample_weight : array-like of shape (n_rows,), optional
    client : distributed.Client, optional
        By default the current one, for Dask and Zarr data.

    Returns
    -------
    list of TargetScore
        One a target.

    Raises
    ------
    DataError
        If the shapes or the names of the columns do not fit, a value is not finite, or every
        weight is zero.
    ClusterError
        If the client cannot be waited for, or does not have what was persisted of the data.
    """
    features = given_again(X, "X", network.columns, network.feature_names)
    with on_client(client, X=X, y=y, sample_weight=sample_weight) as client:
        engine = engine_of(features.values, y, sample_weight, client)
        bare = replace(network, hidden_gram=None)  # which is large, and goes to the workers
        errors = engine.reduce(_Statistic(bare), "scores")
    total = errors.targets.weight
    if not total > 0:
        raise DataError("every sample weight is zero: there is nothing to score")
    if errors.targets.bad.any() or not np.isfinite(errors.squares).all():
        summary = engine.reduce(summarise, "summary")
        gaps = False if network.encoder is None else network.encoder.lacking
        check_summary(summary, network.feature_names, network.target_names, gaps=gaps)
        raise DataError("the network's errors on these rows are too large to be squared")
    names = network.target_names or tuple(f"y{t}" for t in range(network.n_targets))
    scores = []
    for t, name in enumerate(names):
        mse = float(errors.squares[t]) / total
        variance = float(errors.targets.variance[t])
        scores.append(
            TargetScore(
                target=name,
                mse=mse,
                rmse=math.sqrt(mse),
                mae=float(errors.absolute[t]) / total,
                r2=1 - mse / variance if variance > 0 else math.nan,
            )
        )
    return scores
