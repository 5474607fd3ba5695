"""The objective over some rows: mean square over rows, summed over targets, plus the ridge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from altrelu_dist.engine import Engine, LocalEngine
from altrelu_dist.moments.loss import (
    HiddenGram,
    HiddenMoments,
    LossAndGradient,
    LossGradient,
    SquaredLoss,
    Squares,
)
from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.output_layer import output_squares, solve_output
from altrelu_dist.training.monitor import Monitor

__all__ = ["Objective"]

T = TypeVar("T", bound=Any)


@dataclass(frozen=True)
class Objective:
    """``sum_i w_i |y_i - f(x_i)|^2 / sum_i w_i + alpha (|W|^2 + |V|^2)``, biases not penalised.

    Parameters
    ----------
    engine : Engine
        Of standardised blocks.
    monitor : Monitor
        Told of every pass.
    alpha, slope : float
        Ridge, and negative slope of the activation.
    whole : bool
        Whether the rows are the whole data and not a sample of it.
    weight_sum : float
        Sum of the row weights, those normalised to a mean of one over the whole data.
    n_hidden : int
        Neurons that the run may end with; on the way there can be more.
    interruptible : bool
        Whether passes give up, by an `OutOfTimeError`, when the run has to end.
    """

    engine: Engine
    monitor: Monitor
    alpha: float
    slope: float
    whole: bool
    weight_sum: float
    n_hidden: int
    interruptible: bool = False

    def over(self, engine: LocalEngine) -> Objective:
        """The same objective over some of the rows."""
        weight_sum = sum(np.vdot(x[:, -1], x[:, -1]) for x, _ in engine.tiles)
        return replace(self, engine=engine, whole=False, weight_sum=float(weight_sum))

    @property
    def columns(self) -> tuple[int, int]:
        """Columns of a standardised row, the one included, and targets; of rows in memory."""
        assert isinstance(self.engine, LocalEngine)
        x, y = self.engine.tiles[0]
        return x.shape[1], y.shape[1]

    @property
    def ridge(self) -> float:
        """The ridge on the scale of sums over rows."""
        return self.alpha * self.weight_sum

    def reduce(self, statistic: Callable[[Any], T], name: str) -> T:
        """Pass over the rows once."""
        begun = self.monitor.clock.seconds
        result: T = self.engine.reduce(
            statistic, name, self.monitor.clock if self.interruptible else None
        )
        self.monitor.counts.count_rows(self.engine.n_rows, whole=self.whole)
        if self.whole:  # the run ends with such a pass
            self.monitor.clock.final_pass_seconds = self.monitor.clock.seconds - begun
        return result

    def record(
        self, loss: float, weights: Weights, *, overall: float = np.nan, **details: Any
    ) -> None:
        """Note an iteration that ended at ``weights``, whose loss over these rows is ``loss``.

        ``overall`` is its loss over all rows, where these are not all and it is known.
        """
        self.monitor.validate(weights, whole=self.whole)
        self.monitor.update_best(weights, self.engine.n_rows, loss)
        losses = {"loss": loss} if self.whole else {"loss": overall, "sample_loss": loss}
        self.monitor.record(**losses, loss_rows=self.engine.n_rows, **details)

    def penalty(self, weights: Weights) -> float:
        """The ridge terms."""
        if self.alpha == 0:
            return 0.0
        return self.alpha * float(np.vdot(weights.W[:-1], weights.W[:-1])) + self.alpha * float(
            np.vdot(weights.V, weights.V)
        )

    def evaluate(self, weights: Weights) -> tuple[float, LossGradient]:
        """Objective, and gradient of the sum of squares alone."""
        sums = self.reduce(LossAndGradient(weights, self.slope), "loss-and-gradient")
        return self.value(sums, weights), sums

    def loss(self, weights: Weights) -> float:
        """Objective alone."""
        return self.value(self.reduce(SquaredLoss(weights, self.slope), "loss"), weights)

    def value(self, sums: Squares, weights: Weights) -> float:
        """Objective, from a sum of squares."""
        return float(sums.squares.sum()) / self.weight_sum + self.penalty(weights)

    def hidden_moments(self, W: Floats) -> HiddenGram:
        """What the output layer's least squares need."""
        return self.reduce(HiddenMoments(W, self.slope), "hidden-gram")

    def refit_output(self, weights: Weights) -> tuple[Weights, float]:
        """Put the output layer at its critical point; the objective there."""
        moments = self.hidden_moments(weights.W)
        output = solve_output(moments, self.ridge)
        refitted = weights.with_output(output)
        return refitted, output_squares(moments, output) / self.weight_sum + self.penalty(refitted)

    def balanced(self, weights: Weights, value: float) -> tuple[Weights, float]:
        """The neurons balanced, and what their smaller ridge makes of the objective."""
        balanced = weights.balanced()
        return balanced, value - (self.penalty(weights) - self.penalty(balanced))
