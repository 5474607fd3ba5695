"""Prediction intervals from residuals of rows that a network was not trained on.

It is split conformal prediction [1]_ with residuals in parts of a spread that depends on the
prediction: the mean absolute residual of rows with predictions nearby.

References
----------
.. [1] J. Lei, M. G'Sell, A. Rinaldo, R. Tibshirani and L. Wasserman, "Distribution-Free Predictive
   Inference for Regression", Journal of the American Statistical Association 2018, 113(523).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.errors import ParameterError

__all__ = ["ResidualQuantiles"]

Floats = NDArray[np.float64]

_GROUPS, _ROWS_A_GROUP = 8, 50  # of rows with predictions nearby: at most, and at least
_MOST_QUANTILES = 4095
_LEAST_SPREAD = 1e-6  # in parts of the mean spread
_LEAST_OF_MOST = 1e-12  # in parts of the greatest residual


@dataclass(frozen=True, eq=False)  # arrays have no plain equality
class ResidualQuantiles:
    """How far targets lie from their predictions.

    Parameters
    ----------
    spread : ndarray of shape (2, k, q)
        Predictions that do not fall, and the spread of residuals there.
    quantiles : ndarray of shape (m, q)
        Residuals over their spread, of each target: quantiles of the levels ``i / (m + 1)``.
    """

    spread: Floats
    quantiles: Floats

    @classmethod
    def of(
        cls, predicted: Floats, y: Floats, weight: Floats, factor: float | Floats = 1.0
    ) -> ResidualQuantiles:
        """Learn them.

        Parameters
        ----------
        predicted, y : ndarray of shape (n, q)
        weight : ndarray of shape (n,)
            Not negative; some positive.
        factor : float or ndarray of shape (q,)
            What residuals are multiplied by.
        """
        seen = weight > 0
        predicted, y, weight = predicted[seen], y[seen], weight[seen]
        residual = factor * (y - predicted)
        spreads, quantiles = [], []
        effective = weight.sum() ** 2 / (weight**2).sum()  # rows of equal weight that say as much
        m = max(1, min(_MOST_QUANTILES, int(effective * (1 + 1e-9))))
        for f, r in zip(predicted.T, residual.T, strict=True):
            at, spread = _spread(f, np.abs(r), weight, int(effective))
            spreads.append(np.stack([at, spread]))
            ratio = r / np.interp(f, at, spread)
            order = np.argsort(ratio, kind="stable")
            level = np.cumsum(weight[order]) / weight.sum() / (1 + 1 / effective)
            quantiles.append(np.interp(np.arange(1, m + 1) / (m + 1), level, ratio[order]))
        return cls(np.stack(spreads, axis=2), np.stack(quantiles, axis=1))

    def check(self, n_targets: int) -> None:
        """Refuse what is not of so many targets.

        Raises
        ------
        ParameterError
        """
        spread, quantiles = self.spread, self.quantiles
        fits = spread.ndim == 3 and quantiles.ndim == 2 and spread.shape[0] == 2
        if not fits or not spread.shape[2] == quantiles.shape[1] == n_targets:
            raise ParameterError(
                f"residuals have the shapes {spread.shape} and {quantiles.shape}, expected "
                f"(2, k, {n_targets}) and (m, {n_targets})"
            )
        if spread.shape[1] < 1 or (np.diff(spread[0], axis=0) < 0).any() or (spread[1] < 0).any():
            raise ParameterError("residuals have predictions that fall, or a negative spread")

    def most(self) -> float:
        """The greatest level that there are enough residuals for."""
        return 1 - 2 / (len(self.quantiles) + 1)

    def interval(self, predicted: Floats, level: float) -> Floats:
        """The interval about each prediction (n, q) that holds a target with a chance of ``level``.

        Returns
        -------
        ndarray of shape (n, q, 2)
        """
        m = len(self.quantiles)
        tails = np.array([1 - level, 1 + level]) / 2
        known = np.arange(1, m + 1) / (m + 1)
        out = np.empty((*predicted.shape, 2))
        for target, (f, values) in enumerate(zip(predicted.T, self.quantiles.T, strict=True)):
            spread = np.interp(f, *self.spread[:, :, target])
            out[:, target] = f[:, None] + spread[:, None] * np.interp(tails, known, values)
        return out

    def to_arrays(self) -> dict[str, Floats]:
        """What a file holds."""
        return {"residual_spread": self.spread, "residual_quantiles": self.quantiles}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> ResidualQuantiles:
        """Of the arrays of a file."""
        return cls(arrays["residual_spread"], arrays["residual_quantiles"])


def _spread(f: Floats, size: Floats, weight: Floats, rows: int) -> tuple[Floats, Floats]:
    """Mean prediction and mean size of residuals of each of `_GROUPS` groups of equal weight."""
    groups = min(_GROUPS, max(1, rows // _ROWS_A_GROUP))
    order = np.argsort(f, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    edges = f[order][np.searchsorted(share, np.arange(1, groups) / groups)]
    group = np.searchsorted(edges, f, side="left")  # equal predictions are of one group
    total = np.bincount(group, weight, minlength=groups)
    own = np.flatnonzero(total)
    at = np.bincount(group, weight * f, minlength=groups)[own] / total[own]
    spread = np.bincount(group, weight * size, minlength=groups)[own] / total[own]
    mean, most = float(np.average(size, weights=weight)), float(size.max())
    least = max(_LEAST_SPREAD * mean, _LEAST_OF_MOST * most)  # most: of a row of next to no weight
    spread = np.maximum(spread, least if least > 0 else 1.0)
    missing = groups - own.size
    at = np.maximum.accumulate(at)
    return np.pad(at, (0, missing), mode="edge"), np.pad(spread, (0, missing), mode="edge")
