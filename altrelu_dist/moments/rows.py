"""Rows of data, as they are stored and as the kernels take them, and how contributions add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.errors import DataError

__all__ = [
    "Additive",
    "Array",
    "Block",
    "Both",
    "Floats",
    "Rows",
    "Scaler",
    "Together",
    "Weights",
    "rows_with_target",
]

Floats = NDArray[np.float64]
Array = NDArray[np.floating]


class Rows(NamedTuple):
    """Consecutive rows of the data, as they are stored."""

    start: int  # number of the first of them in the whole data
    X: NDArray[np.generic]  # (n, d)
    y: NDArray[np.generic]  # (n, q)
    weight: NDArray[np.generic] | None = None  # (n,)

    @property
    def stop(self) -> int:
        """Number of the row after the last."""
        return self.start + len(self.X)

    @property
    def weights(self) -> Floats:
        """The weight of each row: one where none are given."""
        return np.ones(len(self.y)) if self.weight is None else self.weight.astype(np.float64)

    def part(self, start: int, stop: int) -> Rows:
        """The rows with the numbers from ``start`` to before ``stop``."""
        here = slice(start - self.start, stop - self.start)
        weight = None if self.weight is None else self.weight[here]
        return Rows(start, self.X[here], self.y[here], weight)

    def copied(self) -> Rows:
        """The same rows: a view of some would keep all that they are part of in memory."""
        weight = None if self.weight is None else self.weight.copy()
        return Rows(self.start, self.X.copy(), self.y.copy(), weight)

    def check_finite(self, *, gaps: bool = False) -> None:
        """Refuse values that are not finite, after the first pass over the data found none.

        With ``gaps`` features may be NaN.

        Raises
        ------
        DataError
            If there are some: losses would be NaN, and a run would end as if it had converged.
        """
        for what, values in (("X", self.X), ("y", self.y), ("sample_weight", self.weight)):
            if values is None:
                continue
            with np.errstate(invalid="ignore"):  # of infinities of both signs
                summed = np.nansum if gaps and what == "X" else np.sum
                total = summed(values, dtype=np.float64)
            if not np.isfinite(total):
                raise DataError(
                    f"{what} has values that are not finite in rows {self.start} to "
                    f"{self.stop - 1}, and had none when the run began: the data has changed"
                )

    def followed_by(self, other: Rows) -> Rows:
        """These rows and the next."""
        weight = None
        if self.weight is not None and other.weight is not None:
            weight = np.concatenate([self.weight, other.weight])
        X, y = np.concatenate([self.X, other.X]), np.concatenate([self.y, other.y])
        return Rows(self.start, X, y, weight)


def rows_with_target(rows: Rows) -> Rows:
    """The rows; those of which a target is NaN at weight zero, and all their values zero."""
    lost = np.asarray(np.isnan(rows.y.astype(np.float64)).any(axis=1))
    weight = rows.weights
    X, y = (np.where(lost[:, None], 0, values) for values in (rows.X, rows.y))
    return rows._replace(X=X, y=y, weight=np.where(lost, 0.0, weight))


class Block(NamedTuple):
    """Standardised rows with a trailing one, all times the root of the row's weight.

    The ReLU is positively homogeneous, so with every row (its one included) multiplied by
    ``sqrt(weight)`` the plain sums over rows are the weighted ones: no kernel handles weights.
    """

    x: Array  # (n, p), p = d + 1; the last column is sqrt(weight)
    y: Array  # (n, q)

    @property
    def root(self) -> Array:
        """The roots of the rows' weights, (n, 1)."""
        return self.x[:, -1:]

    def some(self, rows: slice) -> Self:
        """Some of the rows."""
        return self._replace(x=self.x[rows], y=self.y[rows])

    def joined(self, others: Sequence[Block]) -> Block:
        """These rows, then those of others."""
        x, y = zip(self, *others, strict=True)
        return Block(np.concatenate(x), np.concatenate(y))


@dataclass(frozen=True)
class Weights:
    """Both layers, for standardised inputs and targets."""

    W: Floats  # (p, h) hidden layer, its bias last
    V: Floats  # (h, q) output layer
    c: Floats  # (q,) output bias

    @property
    def n_hidden(self) -> int:
        """Number of hidden neurons."""
        return int(self.W.shape[1])

    @property
    def n_working(self) -> int:
        """How many of them have weights on both sides."""
        sizes = np.abs(self.W).sum(axis=0) * np.abs(self.V).sum(axis=1)
        return int(np.count_nonzero(sizes))

    @property
    def output(self) -> Floats:
        """Output layer with its bias as the last row, (h + 1, q)."""
        return np.concatenate([self.V, self.c[None]])

    def with_output(self, output: Floats) -> Weights:
        """The same hidden layer under another output layer, (h + 1, q)."""
        return Weights(self.W, output[:-1].copy(), output[-1].copy())

    def pick(self, neurons: NDArray[np.intp]) -> Weights:
        """Only some of the neurons."""
        return Weights(self.W[:, neurons], self.V[neurons], self.c)

    def balanced(self) -> Weights:
        """The same function, each neuron's norm shared equally by its two layers.

        It is where the ridge terms are least among all rescalings of a neuron.
        """
        into = np.linalg.norm(self.W[:-1], axis=0)
        out = np.linalg.norm(self.V, axis=1)
        usable = (into > 0) & (out > 0) & np.isfinite(into) & np.isfinite(out)
        scale = np.ones_like(into)
        scale[usable] = np.sqrt(out[usable]) / np.sqrt(into[usable])
        return Weights(self.W * scale, self.V / scale[:, None], self.c)

    def astype(self, dtype: np.dtype[Any] | type) -> Weights:
        """The same weights in another dtype, as the kernels of a block take them."""
        return Weights(self.W.astype(dtype), self.V.astype(dtype), self.c.astype(dtype))

    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return bool(
            np.isfinite(self.W).all() and np.isfinite(self.V).all() and np.isfinite(self.c).all()
        )


@dataclass(frozen=True)
class Scaler:
    """How raw rows become a block, and how a network of blocks becomes one of raw rows.

    All targets share one scale, the root of their summed variances: it keeps the objective, the
    plain sum of squares over targets, and makes the loss of predicting the mean one.
    """

    dtype: np.dtype[np.floating]
    center: Floats  # (d,)
    scale: Floats  # (d,), infinite for constant columns: they become zero and get no weight
    target_center: Floats  # (q,)
    target_scale: float
    weight_scale: float  # mean weight

    def __call__(self, rows: Rows) -> Block:
        """Standardise some rows, in float64, and round once."""
        rows.check_finite()
        n, d = rows.X.shape
        x = np.empty((n, d + 1), dtype=self.dtype)
        standard = rows.X.astype(np.float64)
        standard -= self.center
        standard /= self.scale
        y = (rows.y.astype(np.float64) - self.target_center) / self.target_scale
        if rows.weight is None:
            x[:, -1] = 1
        else:
            root = np.sqrt(rows.weight.astype(np.float64) / self.weight_scale)
            standard *= root[:, None]
            y *= root[:, None]
            x[:, -1] = root
        x[:, :-1] = standard
        return Block(x, y.astype(self.dtype, order="C"))

    def to_raw(self, weights: Weights) -> tuple[Floats, Floats, Floats, Floats]:
        """Hidden weights, hidden bias, output weights and output bias for raw rows."""
        hidden = weights.W[:-1] / self.scale[:, None]
        bias = weights.W[-1] - self.center @ hidden
        out = weights.V * self.target_scale
        return hidden, bias, out, weights.c * self.target_scale + self.target_center

    def from_raw(self, hidden: Floats, bias: Floats, out: Floats, out_bias: Floats) -> Weights:
        """Undo `to_raw`; what a constant column adds to a neuron goes into its bias."""
        varies = np.isfinite(self.scale)
        W = np.vstack([hidden * np.where(varies, self.scale, 0.0)[:, None], bias])
        W[-1] += self.center @ hidden
        c = (out_bias - self.target_center) / self.target_scale
        return Weights(W, out / self.target_scale, c)


@dataclass(frozen=True)
class Additive:
    """A contribution whose fields add up."""

    def merge(self, other: Self) -> Self:
        """What both row ranges contribute together."""
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


R = TypeVar("R", "Rows", "Block")
A = TypeVar("A", bound=Any)
B = TypeVar("B", bound=Any)


@dataclass(frozen=True)
class Both(Generic[A, B]):
    """Two contributions of the same rows."""

    first: A
    second: B

    def merge(self, other: Self) -> Self:
        """What both row ranges contribute together."""
        return type(self)(self.first.merge(other.first), self.second.merge(other.second))


@dataclass(frozen=True)
class Together(Generic[R, A, B]):
    """Two statistics in one pass."""

    first: Callable[[R], A]
    second: Callable[[R], B]

    def __call__(self, block: R) -> Both[A, B]:
        """Contribute one tile."""
        return Both(self.first(block), self.second(block))
