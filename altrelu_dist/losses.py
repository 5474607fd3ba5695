"""Losses beside the square: of each, its value, gradient and curvature at given outputs.

A network is fitted to a loss by reweighted least squares. About outputs f the loss of a row is
replaced by a parabola with the gradient g of the loss and a curvature w: the square
``w (z - f')^2 / 2`` with the working target ``z = f - g / w``. For `Huber` and `Quantile` the
parabola lies nowhere below the loss [1]_, so that what lowers it lowers the loss. For `Poisson`
with its logarithmic link it is Newton's, and steps are halved until the loss falls.

Outputs and targets are standardised: divided by `Units.scale` of their targets.

References
----------
.. [1] D. Hunter and K. Lange, "Quantile Regression via an MM Algorithm", Journal of Computational
   and Graphical Statistics 2000, 9(1), 60-77.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from altrelu_dist.errors import DataError
from altrelu_dist.moments.rows import Array, Block, Floats, Rows, Scaler

__all__ = [
    "MOST_FITS", "MOST_STEEP", "NORMAL", "Huber", "Loss", "Poisson", "Quantile", "Repeated",
    "Units", "loss_of", "loss_of_network", "positive", "working",
]  # fmt: skip

# Of a plain network: fits of reweighted least squares, and how often one is tried with steeper
# parabolas where it did not lower the loss.
MOST_FITS, MOST_STEEP = 20, 3
_HUBER = 1.345  # robust deviations: 95 % as efficient as least squares where errors are normal
_SMOOTH = 0.02  # robust deviations of the residual, over which the kink of a quantile is rounded
NORMAL = 1.4826  # standard deviation over median absolute deviation of normal numbers
_MOST_LOG = 50.0  # a mean of exp(50) times the mean target is beyond any data
_LEAST_LOG = -20.0  # and one of less than exp(-20) times as good as none
_FAR = 3.0  # robust deviations from the median that a target counts with at first
_LEAST_SHARE = 1e-6  # of the mean target, that a mean is clipped at


class Units(NamedTuple):
    """How outputs in standardised units become those of the network: times, plus."""

    scale: float
    offset: Floats  # (q,)


class Loss(ABC):
    """A loss of one output and one target, elementwise."""

    name: ClassVar[str]

    @abstractmethod
    def value(self, f: Array, y: Array) -> Array:
        """The loss at outputs f (..., q) of targets y (..., q); at least 0."""

    @abstractmethod
    def derivatives(self, f: Array, y: Array) -> tuple[Array, Array]:
        """Gradient in f, and the positive curvature of the parabola."""

    def total(self, output: Array, root: Array, y: Array) -> float:
        """Sum of weighted losses of blocks (n, q), whose weights have the roots (n, 1)."""
        divisor = positive(root)
        values = self.value(output / divisor, y / divisor) * root**2
        return float(values.sum(dtype=np.float64))

    @abstractmethod
    def constant(self, y: Floats, weight: Floats) -> Floats:
        """The output (q,) of least loss for all rows together, or next to it."""

    def shift(self, f: Floats, y: Floats, weight: Floats) -> Floats:
        """What constant (q,) is to be added to outputs (n, q)."""
        return self.constant(y - f, weight)

    def with_residuals(self, residuals: Floats, weight: Floats) -> Self:
        """The loss with its constants from the spread of residuals (n, q), if it has some."""
        del residuals, weight
        return self

    def scaler(self, scaler: Scaler, rows: Rows) -> Scaler:
        """The scaler of the targets: about a robust centre, in robust deviations."""
        y = rows.y.astype(np.float64)
        weight = rows.weights
        center = weighted_quantile(y, weight, np.full(y.shape[1], 0.5))
        scale = float(np.sqrt((robust_scale(y - center, weight) ** 2).mean()))
        return replace(scaler, target_center=center, target_scale=scale)

    def units(self, scaler: Scaler) -> Units:
        """Of the outputs."""
        return Units(scaler.target_scale, scaler.target_center)

    @abstractmethod
    def unit(self, scaler: Scaler) -> float:
        """What a standardised loss is multiplied by to be in the targets' units."""

    def range(self, low: Floats, high: Floats) -> Floats:
        """Least and greatest output (2, q), from those of the predictions."""
        return np.stack([low, high])

    def info(self, scale: float) -> dict[str, Any]:
        """What a network's ``info`` says of it; ``scale`` is that of its targets."""
        del scale
        return {"loss": self.name}

    def begin(self, y: Floats) -> Floats:
        """Standardised targets of the least squares that a plain network begins with."""
        out: Floats = np.clip(y, -_FAR, _FAR)
        return out

    def check_least(self, low: Floats) -> None:
        """Refuse targets whose least values (q,) it is not for."""
        del low


@dataclass(frozen=True)
class Huber(Loss):
    """Half the square up to delta, then linear: ``delta = 1.345`` robust deviations of residuals.

    Parameters
    ----------
    delta : tuple of float
        Of each target, or of all; in standardised units.
    """

    delta: tuple[float, ...] = (_HUBER,)
    name: ClassVar[str] = "huber"

    def value(self, f: Array, y: Array) -> Array:
        """The loss."""
        delta = np.asarray(self.delta, f.dtype)
        far = np.abs(f - y)
        near = np.minimum(far, delta)
        out: Array = near * (far - near / 2)
        return out

    def derivatives(self, f: Array, y: Array) -> tuple[Array, Array]:
        """Gradient, and the curvature ``min(1, delta / |r|)``."""
        delta = np.asarray(self.delta, f.dtype)
        residual = f - y
        curvature = delta / np.maximum(np.abs(residual), delta)
        return residual * curvature, curvature

    def constant(self, y: Floats, weight: Floats) -> Floats:
        """The medians."""
        return weighted_quantile(y, weight, np.full(y.shape[1], 0.5))

    def with_residuals(self, residuals: Floats, weight: Floats) -> Huber:
        """With delta from their spread."""
        return Huber(tuple((_HUBER * robust_scale(residuals, weight)).tolist()))

    def unit(self, scaler: Scaler) -> float:
        """Squared units."""
        return scaler.target_scale**2

    def info(self, scale: float) -> dict[str, Any]:
        """Name, and delta in units of the targets."""
        return {"loss": self.name, "delta": [scale * delta for delta in self.delta]}


@dataclass(frozen=True)
class Quantile(Loss):
    """The pinball loss: its minimum is the quantile of a level.

    Parameters
    ----------
    levels : tuple of float
        Of each target, or one for all.
    width : tuple of float
        Of each target, or of all: over which the kink is rounded in `derivatives`.
    """

    levels: tuple[float, ...]
    width: tuple[float, ...] = (_SMOOTH,)
    name: ClassVar[str] = "quantile"

    def value(self, f: Array, y: Array) -> Array:
        """The pinball loss."""
        above = y - f
        out: Array = above * (np.asarray(self.levels, f.dtype) - (above < 0))
        return out

    def derivatives(self, f: Array, y: Array) -> tuple[Array, Array]:
        """Gradient of the rounded loss, and the curvature ``1 / (2 (width + |r|))``."""
        residual = f - y
        curvature = 0.5 / (np.asarray(self.width, f.dtype) + np.abs(residual))
        return residual * curvature + (0.5 - np.asarray(self.levels, f.dtype)), curvature

    def constant(self, y: Floats, weight: Floats) -> Floats:
        """The quantiles."""
        return weighted_quantile(y, weight, np.broadcast_to(self.levels, y.shape[1]))

    def with_residuals(self, residuals: Floats, weight: Floats) -> Quantile:
        """With the width from their spread."""
        return replace(self, width=tuple((_SMOOTH * robust_scale(residuals, weight)).tolist()))

    def unit(self, scaler: Scaler) -> float:
        """Units of the target."""
        return scaler.target_scale

    def info(self, scale: float) -> dict[str, Any]:
        """Name and levels."""
        del scale
        return {"loss": self.name, "quantiles": list(self.levels)}


@dataclass(frozen=True)
class Poisson(Loss):
    """The Poisson deviance of ``exp(f)``, the mean of counts or of other targets of at least 0."""

    name: ClassVar[str] = "poisson"

    def value(self, f: Array, y: Array) -> Array:
        """The deviance, ``2 (y log(y / m) - y + m)``."""
        f = np.clip(f, f.dtype.type(_LEAST_LOG), f.dtype.type(_MOST_LOG))
        out: Array = 2 * np.maximum(xlogy(y, y) - y * f - y + np.exp(f), 0)
        return out

    def derivatives(self, f: Array, y: Array) -> tuple[Array, Array]:
        """Gradient and curvature, those of the deviance."""
        mean = 2 * np.exp(np.clip(f, f.dtype.type(_LEAST_LOG), f.dtype.type(_MOST_LOG)))
        return mean - 2 * y, mean

    def constant(self, y: Floats, weight: Floats) -> Floats:
        """The logarithms of the means."""
        means = np.average(y, axis=0, weights=weight)
        out: Floats = np.log(np.maximum(means, _LEAST_SHARE))
        return out

    def shift(self, f: Floats, y: Floats, weight: Floats) -> Floats:
        """What makes the mean of the means that of the targets."""
        found = self.constant(np.exp(np.clip(f, _LEAST_LOG, _MOST_LOG)), weight)
        return self.constant(y, weight) - found

    def scaler(self, scaler: Scaler, rows: Rows) -> Scaler:
        """Targets in parts of their mean."""
        y = rows.y.astype(np.float64)
        mean = float(np.average(y, axis=0, weights=rows.weights).mean())
        mean = mean if mean > 0 else 1.0
        return replace(scaler, target_center=np.zeros(y.shape[1]), target_scale=mean)

    def units(self, scaler: Scaler) -> Units:
        """A scale of the mean is an offset of its logarithm."""
        offset = np.full(len(scaler.target_center), np.log(scaler.target_scale))
        return Units(1.0, offset)

    def unit(self, scaler: Scaler) -> float:
        """Units of the target."""
        return scaler.target_scale

    def range(self, low: Floats, high: Floats) -> Floats:
        """Of the logarithms."""
        high = np.maximum(high, np.finfo(float).tiny / _LEAST_SHARE)
        least = np.maximum(low, _LEAST_SHARE * high)
        out: Floats = np.log(np.stack([least, high]))
        return out

    def info(self, scale: float) -> dict[str, Any]:
        """Name and link."""
        del scale
        return {"loss": self.name, "link": "log"}

    def begin(self, y: Floats) -> Floats:
        """Logarithms, of targets half way to their mean."""
        out: Floats = np.log((y + 1) / 2)
        return out

    def check_least(self, low: Floats) -> None:
        """Refuse negative targets."""
        if (low < 0).any():
            raise DataError(
                f'y goes down to {low.min():g}; loss="poisson" expects targets of at least 0: take '
                'another loss, such as "squared_error"'
            )

    def check(self, y: NDArray[Any]) -> None:
        """Refuse negative targets in memory."""
        if (y < 0).any():
            row = int(np.flatnonzero((y.reshape(len(y), -1) < 0).any(axis=1))[0])
            least = float(y[row].min())
            raise DataError(
                f'y has {least:g} in row {row}; loss="poisson" expects targets of at least 0: '
                'take another loss, such as "squared_error"'
            )


@dataclass(frozen=True)
class Repeated:
    """The one target of rows, once for each level."""

    times: int

    def __call__(self, rows: Rows) -> Rows:
        """Give the rows."""
        return rows._replace(y=np.repeat(rows.y, self.times, axis=1))


def loss_of(name: str, levels: tuple[float, ...]) -> Loss | None:
    """The loss of a name; None for least squares."""
    if name == "quantile":
        return Quantile(levels)
    return {"huber": Huber(), "poisson": Poisson()}.get(name)


def loss_of_network(info: Mapping[str, Any]) -> Loss | None:
    """The loss of a network, for its raw outputs and targets; None of least squares.

    Parameters
    ----------
    info : mapping
        Of the network.
    """
    if "delta" in info:
        return Huber(tuple(info["delta"]))
    if "quantiles" in info:
        return Quantile(tuple(info["quantiles"]))
    return Poisson() if info.get("loss") == Poisson.name else None


def working(loss: Loss, block: Block, output: Array) -> Block:
    """A block of which least squares are the parabolas of a loss about given outputs.

    Parameters
    ----------
    loss : Loss
    block : Block
    output : ndarray of shape (n, q)
        Times the root of the row's weight, as the targets are.
    """
    root = positive(block.x[:, -1:])
    f = output / root
    gradient, curvature = loss.derivatives(f, block.y / root)
    most = curvature.max(axis=1, keepdims=True)  # a row has one weight for all its targets
    own = np.sqrt(most)
    z = (f - gradient / most) * root * own
    return Block(block.x * own.astype(block.x.dtype), z.astype(block.y.dtype))


def positive(root: Array) -> Array:
    """Roots of weights to divide by: one where a weight is zero."""
    out: Array = np.where(root > 0, root, root.dtype.type(1))
    return out


def weighted_quantile(values: Floats, weight: Floats, levels: NDArray[Any]) -> Floats:
    """Of each column the quantile of its level, (q,)."""
    out = np.empty(values.shape[1])
    for column, level in enumerate(levels):
        order = np.argsort(values[:, column], kind="stable")
        total = np.cumsum(weight[order])
        place = int(np.searchsorted(total, level * total[-1]))
        out[column] = values[order[min(place, len(order) - 1)], column]
    return out


def robust_scale(residuals: Floats, weight: Floats) -> Floats:
    """Robust standard deviation of each column about 0, (q,): positive.

    From the median of the absolute values; where that is zero, from their mean.
    """
    size = np.abs(residuals)
    median = weighted_quantile(size, weight, np.full(size.shape[1], 0.5))
    mean = np.average(size, axis=0, weights=weight)
    out: Floats = NORMAL * np.where(median > 0, median, mean)
    return np.where(out > 0, out, 1.0)
