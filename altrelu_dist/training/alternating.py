"""The paper's alternation, to the letter (A. Barbu, Sensors 2023, 23(8), 4072).

    repeat: output layer at its ridge critical point under the hidden layer
            hidden layer at its ridge critical point under the output layer and the fixed pattern

There is no step control: the loss may rise. The loss that is reported is the true one, and the
best network is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from altrelu_dist.moments.loss import HiddenGram, SquaredLoss
from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.hidden_layer import solve_hidden
from altrelu_dist.solvers.output_layer import solve_output
from altrelu_dist.training.best import Best
from altrelu_dist.training.driver import Report, record, run
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.pattern_state import PatternState
from altrelu_dist.training.progress import Outcome

__all__ = ["ITERATIONS", "Alternation", "State", "alternate", "random_directions"]

ITERATIONS = 30


class State(NamedTuple):
    """Where an alternation is: what a checkpoint holds, but for the network last recorded."""

    W: Floats  # (p, h), the hidden layer
    pattern: PatternState | None  # its moments; None before the first pass
    best: Best
    weights: Weights  # the last network of which the loss was found
    loss: float
    taken: int  # networks of which the loss was found
    ended: bool = False  # whether no hidden layer follows


@dataclass(frozen=True)
class Alternation:
    """Both layers in turn at their critical points: ``init``, ``step`` until ``done``, ``finish``.

    One pass a step: the moments under the pattern of the hidden layer hold both layers' systems,
    and the pass that renews them brings the true loss along.

    Parameters
    ----------
    objective : Objective
    target_squares : ndarray of shape (q,)
        Sums of squares of the centred targets.
    iterations : int
    """

    objective: Objective
    target_squares: Floats
    iterations: int

    def init(self, W: Floats) -> State:
        """Begin at a hidden layer."""
        zero = np.zeros(self.target_squares.size)
        weights = Weights(W, np.zeros((W.shape[1], zero.size)), zero)
        return State(W, None, Best(weights), weights, np.inf, 0)

    def done(self, state: State) -> bool:
        """Whether all hidden layers are made, or the last one is not finite."""
        return state.ended or state.taken >= self.iterations

    def step(self, state: State) -> State:
        """Both layers once, then one pass: the moments of the new pattern, and the true loss."""
        rows = replace(self.objective, interruptible=True)
        pattern = state.pattern or PatternState.at(state.W, rows)
        weights = self.output_step(pattern, state.W)
        W = self.hidden_step(pattern, weights)
        if not np.isfinite(W).all():
            return self.finish(state._replace(pattern=pattern))
        true_loss = SquaredLoss(weights, rows.slope)
        pattern, sums = PatternState.at_with(W, rows, true_loss, before=pattern)
        return _evaluated(state, weights, rows.value(sums, weights))._replace(W=W, pattern=pattern)

    def output_step(self, pattern: PatternState, W: Floats) -> Weights:
        """The critical point of the output layer under the hidden layer."""
        moments = pattern.moments
        hidden = HiddenGram(
            moments.hidden_gram(W, moments.with_features(W), self.objective.weight_sum),
            moments.hidden_cross(W, np.zeros(self.target_squares.size)),
            self.target_squares,
        )
        output = solve_output(hidden, self.objective.ridge)
        return Weights(W, output[:-1], output[-1])

    def hidden_step(self, pattern: PatternState, weights: Weights) -> Floats:
        """The critical point of the hidden layer under the output layer and the fixed pattern."""
        return solve_hidden(pattern.moments, weights, self.objective.ridge)

    def finish(self, state: State) -> State:
        """The output layer under the last hidden layer, and the loss there."""
        if state.pattern is None:  # there was no time for a step
            weights, loss = self.objective.refit_output(replace(state.best.weights, W=state.W))
        else:
            weights = self.output_step(state.pattern, state.W)
            loss = self.objective.loss(weights)
        return _evaluated(state, weights, loss)._replace(ended=True)

    def report(self, state: State) -> Report:
        """The last network of which the loss was found."""
        if state.taken == 0:
            return Report()
        share = (state.taken - 1) / self.iterations if self.iterations else 1.0
        unit = self.objective.monitor.counts.unit
        return Report(state.weights, state.loss, share, details={"current_loss": state.loss * unit})

    def save(self, state: State) -> dict[str, Any] | None:
        """What a checkpoint holds of a state: moments that are too large for it are made again."""
        pattern = None if state.pattern is None else state.pattern.saved()
        as_it_was = state.pattern is None or state.pattern.rebuilt
        if state.ended or (pattern is None and not as_it_was):
            return None
        best = {"best": state.best.weights, "least": state.best.loss}
        return {"W": state.W, **best, "iteration": state.taken, "pattern": pattern}

    def restore(self, saved: Mapping[str, Any]) -> State:
        """The state of a checkpoint."""
        best = Best(saved["best"], saved["least"])
        pattern = PatternState.restored(saved["pattern"])
        return State(saved["W"], pattern, best, best.weights, best.loss, saved["iteration"])


def _evaluated(state: State, weights: Weights, loss: float) -> State:
    """With one more network of which the loss was found."""
    best = state.best.updated(weights, loss)
    return state._replace(weights=weights, loss=loss, best=best, taken=state.taken + 1)


def alternate(
    objective: Objective, W: Floats, target_squares: Floats, iterations: int = ITERATIONS
) -> Outcome:
    """Alternate from a hidden layer; the best network on the way and its objective.

    Parameters
    ----------
    objective : Objective
    W : ndarray of shape (p, h)
    target_squares : ndarray of shape (q,)
        Sums of squares of the centred targets.
    iterations : int
    """
    method = Alternation(objective, target_squares, iterations)
    state = run(method, W, objective)
    if not state.ended:
        state = method.finish(state)
        record(method.report(state), objective)
    return Outcome(state.best.weights, state.best.loss, ran_out=state.taken > iterations)


def random_directions(n_columns: int, n_hidden: int, rng: np.random.Generator) -> Floats:
    """Hidden weights of random direction, each of unit norm; (p, h)."""
    W = rng.standard_normal((n_columns, n_hidden))
    W /= np.linalg.norm(W, axis=0)
    return W
