"""The candidates of a committee, their weights, and the one network that they fold into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from altrelu_dist.committee.members import Group
from altrelu_dist.committee.stacking import Stack, combined, stacked, stacked_by_loss
from altrelu_dist.committee.tiles import Encoding
from altrelu_dist.encoding import Encoder
from altrelu_dist.losses import NORMAL, Loss, Units, positive
from altrelu_dist.moments.rows import Floats, Scaler

__all__ = ["Candidate", "Expected", "Layers", "Pool"]


_LEAST_LEFT = 0.25  # of the mean square of residuals, whatever averaging seems to take off it
_WITHIN = 0.95  # nine of ten lie below this quantile, and above its negative


class Layers(NamedTuple):
    """A network over the columns of an encoder."""

    encoder: Encoder
    hidden: Floats  # (m, h)
    hidden_bias: Floats  # (h,)
    output: Floats  # (h, q)
    output_bias: Floats  # (q,)


class Expected(NamedTuple):
    """The error that is expected on new rows, from rows that members were not trained on."""

    r2: float
    spread: float  # nine of ten further folds lie within, if spread as normal numbers are
    mse: float  # mean square over rows and targets, in their squared units


@dataclass(frozen=True)
class Candidate:
    """A group of members at one time, or a line of each fold: a possible part of the network.

    Parameters
    ----------
    name : str
    encoding : Encoding
    blocks : tuple of int
        Of the encoder.
    trained : Group or ndarray of shape (n_folds, p, q)
        The members, or the coefficients of the lines.
    predicted : ndarray of shape (n, q)
        What each row is said to be by who was not trained on it.
    by_each : ndarray of shape (m, n_folds, q)
        What the first m rows are said to be by every member.
    """

    name: str
    encoding: Encoding
    blocks: tuple[int, ...]
    trained: Group | Floats
    predicted: Floats
    by_each: Floats

    def mean(self, slope: float) -> tuple[Floats, Floats, Floats]:
        """Both layers of the mean over folds: (m + 1, h), (h, q) and (q,)."""
        if isinstance(self.trained, Group):
            W, V, c = self.trained
            output: Floats = V.reshape(-1, V.shape[2]).astype(np.float64) / len(V)
            bias: Floats = c.astype(np.float64).mean(axis=0)
            return self.encoding.hidden_weights(W), output, bias
        # A line is two neurons for each target: z = (max(z, s z) - max(-z, -s z)) / (1 + s).
        line = self.trained.mean(axis=0)
        both: Floats = np.hstack([line, -line])
        both[-1] = 0.0
        sides = np.eye(line.shape[1]) / (1 + slope)
        return self.encoding.hidden_weights(both), np.vstack([sides, -sides]), line[-1]


class Pool:
    """Candidates that are judged on the same rows.

    Parameters
    ----------
    encoder : Encoder
    scaler : Scaler
    slope : float
        Negative slope of the activation.
    n_folds : int
        Row i is of fold ``i % n_folds``.
    y : ndarray of shape (n, q)
        Standardised targets, times the root of the row's weight.
    root : ndarray of shape (n,)
        These roots.
    varies : ndarray of bool of shape (q,)
        Which targets vary at all.
    loss : Loss, optional
        By default the square.
    """

    def __init__(
        self,
        encoder: Encoder,
        scaler: Scaler,
        slope: float,
        n_folds: int,
        y: Floats,
        root: Floats,
        varies: NDArray[np.bool_],
        loss: Loss | None = None,
    ) -> None:
        self.encoder, self.scaler, self.slope, self.n_folds = encoder, scaler, slope, n_folds
        self.candidates: list[Candidate] = []
        self.stack: Stack | None = None
        self.loss = np.inf  # of the weighed candidates
        self._y, self._root, self._varies, self._by = y, root, varies, loss
        # Of outputs: what they are multiplied by, and what is added.
        self._units = (
            Units(scaler.target_scale, scaler.target_center) if loss is None else loss.units(scaler)
        )

    def add(self, candidate: Candidate) -> float:
        """Take a candidate, unless it has diverged; its out-of-fold loss."""
        if not np.isfinite(candidate.predicted).all():
            return np.inf
        self.candidates.append(candidate)
        return self._loss(candidate.predicted)

    def weigh(self, kept: int) -> float:
        """Weigh the candidates anew, with at most so many groups; the loss of their sum."""
        predicted = [candidate.predicted for candidate in self.candidates]
        costs = [isinstance(candidate.trained, Group) for candidate in self.candidates]
        stack = self._stacked(predicted, costs, kept)
        self.loss = self._loss(self._said(stack))
        self.stack = stack
        return self.loss

    @property
    def n_lines(self) -> int:
        """How many of the candidates are lines."""
        return sum(not isinstance(candidate.trained, Group) for candidate in self.candidates)

    @property
    def is_linear(self) -> bool:
        """Whether lines alone have a weight."""
        return not any(isinstance(c.trained, Group) for c, _ in self._chosen())

    def weigh_lines(self) -> None:
        """Weigh the lines alone."""
        lines = [k for k, c in enumerate(self.candidates) if not isinstance(c.trained, Group)]
        stack = self._stacked([self.candidates[k].predicted for k in lines], [True] * len(lines), 1)
        self.stack = stack._replace(kept=[lines[k] for k in stack.kept])

    def expected_loss(self) -> tuple[float, float]:
        """Mean loss of the out-of-fold predictions, in units of the targets, and its D2.

        The D2 is the share of the loss of the best constant that they take off. What averaging the
        members adds is not in it: it is somewhat too cautious.
        """
        loss, stack = self._by, self.stack
        assert loss is not None
        assert stack is not None
        said = self._said(stack)
        root, weight = self._root[:, None], self._root**2
        constant = loss.constant(self._y / positive(root), weight)
        found = loss.total(said, root, self._y)
        alone = loss.total(root * constant, root, self._y)
        mean = found / (weight.sum() * self._y.shape[1]) * loss.unit(self.scaler)
        return float(mean), 1 - found / alone if alone > 0 else 0.0

    def expected(self) -> Expected:
        """What the out-of-fold predictions say of new rows."""
        stack = self.stack
        assert stack is not None
        weight = self._root**2
        said = combined([candidate.predicted for candidate in self.candidates], stack)
        errors = (said - self._y) ** 2
        gain = self._gain_of_averaging(stack)
        mean = self._root @ self._y / weight.sum()
        around = ((self._y - self._root[:, None] * mean) ** 2).sum(axis=0) / weight.sum()
        varies = self._varies & (around > 0)

        def r2(rows: slice) -> float:
            # Over the variance of all rows: that of a few, such as a fold's, may be next to zero.
            own = np.maximum(errors[rows].sum(axis=0) / weight[rows].sum() - gain, 0)
            return float(np.mean(1 - own[varies] / around[varies])) if varies.any() else 0.0

        parts = [slice(fold, None, self.n_folds) for fold in range(self.n_folds)]
        found = [r2(rows) for rows in parts if weight[rows].sum() > 0]
        spread = 0.0
        if len(found) > 1:  # of a further fold, from as few as there are
            quantile = float(student.ppf(_WITHIN, len(found) - 1))
            spread = quantile * float(np.std(found, ddof=1)) * np.sqrt(1 + 1 / len(found))
        mean_square = float(np.maximum(errors.sum(axis=0) / weight.sum() - gain, 0).mean())
        mse = mean_square * self.scaler.target_scale**2
        return Expected(r2(slice(None)), float(spread), mse)

    def _gain_of_averaging(self, stack: Stack) -> Floats:
        """How much lower the mean square error of the mean of members is than that of one, (q,).

        On a row that none was trained on, it is the variance of what the members say, but for one
        part in K. Here each row has K - 1 members that were trained on it, and agree more.
        """
        said = combined([candidate.by_each for candidate in self.candidates], stack)
        rows, folds, q = said.shape
        weight = float((self._root[:rows] ** 2).sum())
        if folds < 3 or not weight > 0:
            return np.zeros(q)
        trained = np.arange(rows)[:, None] % folds != np.arange(folds)
        variance = said[trained].reshape(rows, folds - 1, q).var(axis=1, ddof=1)
        gain: Floats = (1 - 1 / folds) * variance.sum(axis=0) / weight
        return gain

    def scores(self) -> Floats:
        """What the weighed candidates say of each row, out of its fold; in units of the targets."""
        assert self.stack is not None
        said = self._said(self.stack)
        scale, offset = self._units
        root = positive(self._root)  # a weight may be too small for its root
        scores: Floats = said / root[:, None] * scale + offset
        return scores

    def shrinkage(self) -> Floats:
        """How much smaller a usual residual of the mean of members is than that of one, (q,).

        As in `_gain_of_averaging`, but from medians over rows: few rows have most of the squares.
        """
        stack = self.stack
        assert stack is not None
        said = combined([candidate.by_each for candidate in self.candidates], stack)
        rows, folds, q = said.shape
        if folds < 3:
            return np.ones(q)
        root = positive(self._root[:rows, None])
        trained = np.arange(rows)[:, None] % folds != np.arange(folds)
        variance = said[trained].reshape(rows, folds - 1, q).var(axis=1, ddof=1) / root**2
        squares = ((self._said(stack) - self._y)[:rows] / root) ** 2
        usual = NORMAL**2 * np.median(squares, axis=0)
        gain = (1 - 1 / folds) * np.median(variance, axis=0)
        left = 1 - gain / np.where(usual > 0, usual, np.inf)
        factor: Floats = np.sqrt(np.maximum(left, _LEAST_LEFT))
        return factor

    def groups(self) -> list[dict[str, Any]]:
        """What the network is made of: names, neurons, weights for each target."""
        return [
            {
                "name": candidate.name,
                "n_hidden": len(candidate.mean(self.slope)[1]),
                "weight": [float(w) for w in weight],
            }
            for candidate, weight in self._chosen()
        ]

    def layers(self) -> Layers:
        """The candidates that have a weight as one network."""
        chosen = self._chosen()
        shift = None if self.stack is None else self.stack.shift
        blocks = sorted({block for candidate, _ in chosen for block in candidate.blocks})
        encoder = self.encoder.take(blocks)
        hidden, biases, outputs = [], [], []
        bias = np.zeros(self._y.shape[1])
        for candidate, weight in chosen:
            W, V, c = candidate.mean(self.slope)
            wide = np.zeros((encoder.n_columns, W.shape[1]))
            at = 0
            for block in candidate.blocks:
                size = self.encoder.blocks[block].n_columns
                wide[encoder.columns_of(blocks.index(block))] = W[at : at + size]
                at += size
            hidden.append(wide)
            biases.append(W[-1])
            outputs.append(V * weight)
            bias += c * weight
        if shift is not None:
            bias += shift
        scale, offset = self._units
        return Layers(
            encoder,
            np.hstack(hidden),
            np.concatenate(biases),
            np.vstack(outputs) * scale,
            bias * scale + offset,
        )

    def _chosen(self) -> list[tuple[Candidate, Floats]]:
        stack = self.stack  # a run that goes on weighs the candidates anew
        assert stack is not None
        chosen = [self.candidates[place] for place in stack.kept]
        return list(zip(chosen, stack.weights, strict=True))

    def _said(self, stack: Stack) -> Floats:
        """What the weighed candidates say of each row, out of its fold, times its root."""
        said = combined([candidate.predicted for candidate in self.candidates], stack)
        return said if stack.shift is None else said + self._root[:, None] * stack.shift

    def _stacked(self, predicted: Sequence[Floats], costs: Sequence[bool], kept: int) -> Stack:
        if self._by is None:
            return stacked(predicted, self._y, costs, kept)
        return stacked_by_loss(predicted, self._y, self._root, costs, kept, self._by)

    def _loss(self, predicted: Floats) -> float:
        if self._by is not None:
            root = self._root[:, None]
            return self._by.total(predicted, root, self._y) / float((self._root**2).sum())
        return float(((predicted - self._y) ** 2).sum() / (self._root**2).sum())
