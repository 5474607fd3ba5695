"""The figures of a diagnosis, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.class_metrics import ClassScore
from altrelu_dist.dependence import Dependence, Importance
from altrelu_dist.diagnosis.counting import BINS, even_edges, range_of
from altrelu_dist.metrics import TargetScore
from altrelu_dist.moments.rows import Floats

__all__ = ["Calibration", "Confusion", "Density", "Diagnosis", "Histogram", "Residuals"]


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
    def of(cls, x: Floats, y: Floats, bins: int = BINS) -> Density:
        """Of true values and predictions in memory, on the same range."""
        edges = even_edges(range_of(x, y), bins)
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
