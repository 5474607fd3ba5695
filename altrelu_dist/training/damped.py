"""Damped layer solves: the hidden-layer system with the output layer eliminated, step by step.

A step counts only if the true loss went down. The loss and its gradient come from all rows; the
curvature may come from a sample of them, then a step costs one pass over the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.moments.kinks import KinkMoments
from altrelu_dist.moments.loss import LossGradient
from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.hidden_layer import LayerStep, LevenbergMarquardtSystem
from altrelu_dist.training.driver import Report, run
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.pattern_state import PatternState
from altrelu_dist.training.progress import Outcome

__all__ = ["KINK_WIDTH", "LARGEST_SYSTEM", "DampedSteps", "State", "descend"]

LARGEST_SYSTEM = 2560  # unknowns of one system: of more neurons, random blocks take turns
KINK_WIDTH = 0.05  # in standardised units, of a neuron of unit norm
_FIRST_DAMPING, _FIRST_GROWTH = 1e-3, 2.0
_MOST_DAMPING = 1e8
_COMPARED = 5  # accepted steps, which together have to lower the loss


class State(NamedTuple):
    """Where a descent is: what a checkpoint holds, but for the system, which follows from it."""

    weights: Weights
    loss: float
    gradient: LossGradient  # of the sum of squares
    damping: float
    growth: float  # of the damping, at the next step that is refused
    losses: tuple[float, ...]  # the last ones of accepted steps
    taken: int  # steps, those that were refused included
    neurons: NDArray[np.intp]  # of the system
    pattern: PatternState | None = None  # of those neurons
    kinks: Floats | None = None  # of the system; None before it is made at these weights
    system: LevenbergMarquardtSystem | None = None


@dataclass(frozen=True)
class DampedSteps:
    """Damped steps while they lower the loss: ``init``, then ``step`` until ``done``.

    Parameters
    ----------
    objective : Objective
        Over all rows: decides, and gives the gradient.
    curvature : Objective
        Over the same rows, or a sample in memory.
    steps : int
        Most steps, those that were refused included.
    rng : numpy.random.Generator
        Draws the blocks of neurons where one system cannot hold them all.
    tolerance : float
        Done when the last five accepted steps together lowered the loss by less than this share.
    """

    objective: Objective
    curvature: Objective
    steps: int
    rng: np.random.Generator
    tolerance: float

    def init(self, weights: Weights) -> State:
        """Begin at some weights."""
        weights = weights.balanced()
        loss, gradient = self.objective.evaluate(weights)
        neurons = np.arange(weights.n_hidden)
        return State(weights, loss, gradient, _FIRST_DAMPING, _FIRST_GROWTH, (loss,), 0, neurons)

    def done(self, state: State) -> bool:
        """Whether all steps are taken, or no further one is worth it."""
        stuck = state.damping > _MOST_DAMPING and not self._in_blocks(state)
        return state.taken >= self.steps or stuck or self.converged(state)

    def converged(self, state: State) -> bool:
        """Whether the last accepted steps together hardly lowered the loss."""
        if self._in_blocks(state) or len(state.losses) <= _COMPARED:
            return False
        return state.losses[0] - state.loss <= self.tolerance * state.loss

    def step(self, state: State) -> State:
        """Solve the damped system; move if the true loss falls, else damp more."""
        if state.damping > _MOST_DAMPING:  # the next neurons' turn
            state = state._replace(damping=_FIRST_DAMPING, growth=_FIRST_GROWTH)
            state = state._replace(kinks=None, system=None)
        if state.system is None:
            state = self._with_moments(state)
        with self.objective.monitor.clock.blocking():
            if state.system is None:
                state = state._replace(system=self._system(state))
            step = self._solution(state)
        trial = _moved(state.weights, state.neurons, step).balanced()
        loss, gradient = self.objective.evaluate(trial)
        taken = state.taken + 1
        if not (np.isfinite(loss) and loss < state.loss):
            damping, growth = state.damping * state.growth, state.growth * 2
            return state._replace(damping=damping, growth=growth, taken=taken)
        predicted = step.predicted_decrease / self.curvature.weight_sum
        ratio = (state.loss - loss) / predicted if predicted > 0 else -1.0
        damping = state.damping * max(1 / 3, 1 - (2 * min(ratio, 1.0) - 1) ** 3)
        losses = (*state.losses, loss)[-_COMPARED - 1 :]
        return State(
            weights=trial,
            loss=loss,
            gradient=gradient,
            damping=damping,
            growth=_FIRST_GROWTH,
            losses=losses,
            taken=taken,
            neurons=state.neurons,
            pattern=None if self._in_blocks(state) else state.pattern,
        )

    def report(self, state: State) -> Report:
        """The network and its loss, of an accepted step or a refused one."""
        if state.taken == 0:
            return Report(state.weights, state.loss)
        share, details = state.taken / self.steps, {"damping": state.damping}
        return Report(state.weights, state.loss, share, details=details)

    def save(self, state: State) -> dict[str, Any] | None:
        """What a checkpoint holds of a state: moments that are too large for it are made again."""
        pattern = None if state.pattern is None else state.pattern.saved()
        as_it_was = state.pattern is None or state.pattern.worn or self._in_blocks(state)
        if pattern is None and not (state.system is None and as_it_was):
            return None
        kept = state._asdict() | {"losses": list(state.losses), "pattern": pattern}
        del kept["system"]
        return kept

    def restore(self, saved: Mapping[str, Any]) -> State:
        """The state of a checkpoint."""
        losses = tuple(saved["losses"])[-_COMPARED - 1 :]
        pattern = PatternState.restored(saved["pattern"])
        state = State(**{**saved, "losses": losses, "pattern": pattern})
        return state if state.kinks is None else state._replace(system=self._system(state))

    def _in_blocks(self, state: State) -> bool:
        """Whether one system cannot hold all neurons."""
        return self._width(state) < state.weights.n_hidden

    def _width(self, state: State) -> int:
        p, h = state.weights.W.shape
        width: int = max(1, min(h, LARGEST_SYSTEM // p))
        return width

    def _with_moments(self, state: State) -> State:
        """With what a system at the present weights is made of: two passes."""
        curvature, before = replace(self.curvature, interruptible=True), state.pattern
        neurons, weights = state.neurons, state.weights
        if self._in_blocks(state):
            drawn = self.rng.choice(weights.n_hidden, size=self._width(state), replace=False)
            neurons, before = np.sort(drawn), None
        statistic = KinkMoments(weights, KINK_WIDTH, curvature.slope, neurons)
        kinks = curvature.reduce(statistic, "kinks").blocks
        pattern = PatternState.at(weights.pick(neurons).W, curvature, before)
        return state._replace(neurons=neurons, kinks=kinks, pattern=pattern)

    def _system(self, state: State) -> LevenbergMarquardtSystem:
        assert state.pattern is not None
        assert state.kinks is not None
        weights = state.weights.pick(state.neurons)
        weight_sum, ridge = self.curvature.weight_sum, self.curvature.ridge
        return LevenbergMarquardtSystem(
            state.pattern.moments, weights, state.kinks, weight_sum, ridge
        )

    def _solution(self, state: State) -> LayerStep:
        assert state.system is not None
        self.objective.monitor.clock.require()
        share = self.curvature.weight_sum / self.objective.weight_sum
        return state.system.step(_of(state.gradient, state.neurons, share), state.damping)


def descend(
    objective: Objective,
    curvature: Objective,
    weights: Weights,
    steps: int,
    rng: np.random.Generator,
    tolerance: float = 1e-4,
) -> Outcome:
    """Take damped steps while they lower the loss; see `DampedSteps`.

    Returns
    -------
    Outcome
        Its loss is the objective over the rows of ``objective``.
    """
    method = DampedSteps(objective, curvature, steps, rng, tolerance)
    state = run(method, weights, objective)
    ran_out = state.taken >= steps and not method.converged(state)
    return Outcome(state.weights, state.loss, ran_out)


def _of(gradient: LossGradient, neurons: np.ndarray, share: float) -> LossGradient:
    """The gradient in some neurons, as if the sums were over the rows of the curvature."""
    return replace(
        gradient,
        W=share * gradient.W[:, neurons],
        V=share * gradient.V[neurons],
        c=share * gradient.c,
    )


def _moved(weights: Weights, neurons: np.ndarray, step: LayerStep) -> Weights:
    moved_W, moved_V = weights.W.copy(), weights.V.copy()
    moved_W[:, neurons] += step.W
    moved_V[neurons] += step.output[:-1]
    return Weights(moved_W, moved_V, weights.c + step.output[-1])
