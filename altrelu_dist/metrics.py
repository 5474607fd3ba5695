"""Scores of a network, one pass over the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.inputs import engine_of
from altrelu_dist.moments.rows import Floats, Rows
from altrelu_dist.moments.summary import Columns, columns_of

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
        weight = np.ones(y.shape[0]) if rows.weight is None else rows.weight.astype(np.float64)
        error = y - self.network.predict(rows.X)
        return _Errors(columns_of(y, weight, rows.start), weight @ error**2, weight @ np.abs(error))


def evaluate(
    network: Network, X: Any, y: Any, sample_weight: Any = None, client: Client | None = None
) -> list[TargetScore]:
    """Score a network on some rows, block by block.

    Parameters
    ----------
    network : Network
    X : array-like of shape (n_rows, n_features)
        NumPy, Dask or Zarr array, or a Dask DataFrame.
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
        If the shapes do not fit, or a target is not finite.
    """
    errors = engine_of(X, y, sample_weight, client).reduce(_Statistic(network), "scores")
    total = errors.targets.weight
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
