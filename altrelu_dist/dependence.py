"""What a network makes of each raw column: permutation importance and partial dependence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.raw import UNSEEN, RawColumn
from altrelu_dist.logistic import log_loss, probabilities
from altrelu_dist.losses import loss_of_network
from altrelu_dist.prediction import of_targets, own_losses

if TYPE_CHECKING:
    from altrelu_dist.moments.rows import Floats, Rows
    from altrelu_dist.network import Network

__all__ = ["Dependence", "Importance", "column_names", "importance_of", "partial_dependence"]

REPEATS = 5  # permutations of a column
GRID = 24  # values of a column of numbers
_LEVELS = 10  # levels of a column, the most frequent in the rows
_ENDS = (0.05, 0.95)  # quantiles between which the grid lies
# Of the permutations of all columns: predicted rows, and products of the hidden layer.
_MOST_PREDICTED, _MOST_PRODUCTS = 1_000_000, 2e11
_FEWEST = 100  # rows of each permutation, however many columns


@dataclass(frozen=True)
class Importance:
    """How much worse a network predicts when the values of one column are permuted.

    Parameters
    ----------
    names : tuple of str
        Of the raw columns.
    mean, deviation : ndarray of shape (n_features,)
        Mean and standard deviation over the permutations.
    unit : str
        What the score loses or the loss gains: ``"R2"``, ``"D2"`` of a network of another loss
        than the square, or ``"log loss"`` of classes.
    rows, repeats : int
        Rows that were predicted, and permutations of each column.
    """

    names: tuple[str, ...]
    mean: Floats
    deviation: Floats
    unit: str
    rows: int
    repeats: int

    @property
    def order(self) -> NDArray[np.intp]:
        """The columns, the most important first."""
        return np.argsort(-self.mean, kind="stable")


@dataclass(frozen=True)
class Dependence:
    """Mean prediction over some rows, with one column of all of them set to the same value.

    Parameters
    ----------
    name : str
    kind : {"number", "levels", "time"}
    grid : ndarray of shape (n,)
        Values of the column: numbers, seconds since 1970, or places of levels.
    levels : tuple of str
        Of a column of levels, those of the grid.
    mean : ndarray of shape (n, n_outputs)
        Of each target, or the probability of each class.
    missing : ndarray of shape (n_outputs,), optional
        The same, with the value missing; where rows lack it.
    deciles : ndarray of shape (9,)
        Of the column; empty for levels.
    rows : int
    """

    name: str
    kind: str
    grid: Floats
    levels: tuple[str, ...]
    mean: Floats
    missing: Floats | None
    deciles: Floats
    rows: int


def column_names(network: Network) -> tuple[str, ...]:
    """The names of the raw columns; x0, x1, ... of columns without."""
    return network.feature_names or tuple(f"x{i}" for i in range(network.n_features))


def importance_of(
    network: Network, rows: Rows, *, repeats: int = REPEATS, seed: int = 0
) -> list[Importance]:
    """Permutation importance of every raw column on some rows in memory.

    The score is R2 of each target, D2 of another loss than the square, or the log loss of classes.
    Of many columns, and of a large network, fewer rows are taken, at least a hundred, to bound the
    work.

    Parameters
    ----------
    network : Network
    rows : Rows
        In random order. Of classes `y` holds their numbers, of several quantiles their one target.
    repeats : int, default 5
    seed : int, default 0

    Returns
    -------
    list of Importance
        One a target, or a quantile; one of classes.

    References
    ----------
    .. [1] L. Breiman, "Random Forests", Machine Learning 45, 2001.
    """
    predicted = min(_MOST_PREDICTED, _MOST_PRODUCTS / max(1, network.hidden_weights.size))
    most = max(_FEWEST, int(predicted / (repeats * network.n_features)))
    rows = rows.part(rows.start, min(rows.stop, rows.start + most))
    weight = rows.weights
    rng = np.random.default_rng(seed)
    X = rows.X.copy()
    before = _losses(network, X, rows.y, weight)
    n, d = X.shape
    worse = np.empty((repeats, d, len(before)))
    for column in range(d):
        own = rows.X[:, column]
        for repeat in range(repeats):
            X[:, column] = own[rng.permutation(n)]
            worse[repeat, column] = _losses(network, X, rows.y, weight) - before
        X[:, column] = own
    unit = "log loss"
    if network.classes is None:
        unit = "R2" if loss_of_network(network.info) is None else "D2"
        least = _least(network, rows.y.astype(np.float64), weight)
        worse /= np.where(least > 0, least, math.nan)
    mean, deviation = worse.mean(axis=0), worse.std(axis=0)
    names = column_names(network)
    return [
        Importance(names, mean[:, t], deviation[:, t], unit, n, repeats) for t in range(len(before))
    ]


def _losses(network: Network, X: NDArray[Any], y: NDArray[Any], weight: Floats) -> Floats:
    """MSE, or mean loss, of each target, or the log loss of classes."""
    predicted = network.predict(X)
    if network.classes is None:
        loss = loss_of_network(network.info)
        each = (predicted - y) ** 2 if loss is None else own_losses(network, loss, predicted, y)
        losses: Floats = weight @ each / weight.sum()
        return losses
    first = 1 if predicted.shape[1] == 1 else 0
    inside = y[:, :1] == np.arange(first, len(network.classes))
    return np.array([weight @ log_loss(predicted, inside.astype(np.float64)) / weight.sum()])


def _least(network: Network, y: Floats, weight: Floats) -> Floats:
    """MSE, or mean loss, of the best constant for each target: (q,); 0 where it does not vary."""
    loss = loss_of_network(network.info)
    y = np.broadcast_to(y, (len(y), network.n_targets))  # several quantiles are of one target
    if loss is None:
        each = (y - weight @ y / weight.sum()) ** 2
    else:
        each = loss.value(loss.constant(y, weight), y)
    varies = np.ptp(y[weight > 0], axis=0) > 0
    least: Floats = np.where(varies, weight @ each / weight.sum(), 0.0)
    return least


def partial_dependence(
    network: Network, rows: Rows, columns: Sequence[int], *, grid: int = GRID
) -> list[Dependence]:
    """Partial dependence on some raw columns, over some rows in memory.

    Numbers and times take ``grid`` values between the 5 % and the 95 % quantile, or their own if
    there are fewer. Levels are the ten most frequent ones.

    Parameters
    ----------
    network : Network
    rows : Rows
    columns : sequence of int
    grid : int, default 24

    Returns
    -------
    list of Dependence
        One for each of ``columns`` of which some value is known.

    References
    ----------
    .. [1] J. H. Friedman, "Greedy Function Approximation", Annals of Statistics 29, 2001.
    """
    names, weight = column_names(network), rows.weights
    X = rows.X.copy()
    found = []
    for column in columns:
        raw = RawColumn() if network.columns is None else network.columns[column]
        own = rows.X[:, column].astype(np.float64)
        known = own[np.isfinite(own)]
        if raw.kind == "levels":
            known = known[known != UNSEEN]
        if not known.size:
            continue
        values, deciles = _grid_of(known, raw, grid)

        def mean_at(value: float, column: int = column) -> Floats:
            X[:, column] = value
            mean: Floats = weight @ _responses(network, X) / weight.sum()
            return mean

        mean = np.array([mean_at(value) for value in values])
        missing = mean_at(math.nan) if np.isnan(own).any() else None
        X[:, column] = rows.X[:, column]
        levels = tuple(raw.levels[int(k)] for k in values) if raw.kind == "levels" else ()
        found.append(
            Dependence(names[column], raw.kind, values, levels, mean, missing, deciles, len(X))
        )
    return found


def _grid_of(known: Floats, raw: RawColumn, most: int) -> tuple[Floats, Floats]:
    """The values to predict at, and the deciles of a column that has such."""
    distinct, counts = np.unique(known, return_counts=True)
    if raw.kind == "levels":
        return distinct[np.argsort(-counts, kind="stable")[:_LEVELS]], np.empty(0)
    deciles = np.quantile(known, np.linspace(0.1, 0.9, 9))
    if distinct.size < most:
        return distinct, deciles
    from scipy.stats.mstats import mquantiles

    low, high = mquantiles(known, _ENDS)
    if low == high:
        low, high = distinct[0], distinct[-1]
    return np.linspace(low, high, most), deciles


def _responses(network: Network, X: NDArray[Any]) -> Floats:
    predicted = network.predict(X)
    if network.classes is None:
        responses: Floats = of_targets(network, predicted)
        return responses
    return probabilities(predicted)
