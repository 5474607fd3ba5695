"""The paper's alternation, to the letter (A. Barbu, Sensors 2023, 23(8), 4072).

    repeat: output layer at its ridge critical point under the hidden layer
            hidden layer at its ridge critical point under the output layer and the fixed pattern

There is no step control: the loss may rise. The loss that is reported is the true one, and the
best network is kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from altrelu_dist.engine import OutOfTimeError
from altrelu_dist.moments.loss import HiddenGram, LossAndGradient
from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.hidden_layer import solve_hidden
from altrelu_dist.solvers.output_layer import solve_output
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.pattern_state import PatternState
from altrelu_dist.training.progress import Outcome

__all__ = ["ITERATIONS", "alternate", "random_directions"]

ITERATIONS = 30


def random_directions(n_columns: int, n_hidden: int, rng: np.random.Generator) -> Floats:
    """Hidden weights of random direction, each of unit norm; (p, h)."""
    W = rng.standard_normal((n_columns, n_hidden))
    W /= np.linalg.norm(W, axis=0)
    return W


def alternate(
    objective: Objective, W: Floats, target_squares: Floats, iterations: int = ITERATIONS
) -> Outcome:
    """Alternate from a hidden layer; the best network met and its objective.

    One pass an iteration: the moments under the pattern of the hidden layer hold both layers'
    systems. One more where that is the least so far, to make sure of it.

    Parameters
    ----------
    objective : Objective
    W : ndarray of shape (p, h)
    target_squares : ndarray of shape (q,)
        Sums of squares of the centred targets.
    iterations : int
    """
    pattern = PatternState(replace(objective, hurried=True))
    monitor = objective.monitor
    zero = np.zeros(target_squares.size)
    weights = Weights(W, np.zeros((W.shape[1], zero.size)), zero)
    best, least = weights, np.inf
    journal = monitor.journal
    entry = journal.restore_point()
    begin, known = 0, None
    if entry is not None:
        W, best, least, begin = entry["W"], entry["best"], entry["least"], entry["iteration"]
        known = pattern.restore(entry["pattern"])
    try:
        moments = pattern.at(W) if known is None else known
    except OutOfTimeError:
        if entry is not None:
            return Outcome(best, least, ran_out=False)
        best, least = objective.refit_output(weights)
        objective.record(least, best)
        return Outcome(best, least, ran_out=False)
    for iteration in range(begin, iterations + 1):
        kept = pattern.state()
        if kept is not None or pattern.rebuilt:  # what is not kept is made again as it was
            here = {"W": W, "best": best, "least": least, "iteration": iteration, "pattern": kept}
            journal.save_point(here.copy, stopping=monitor.stopped)
        hidden = HiddenGram(
            moments.hidden_gram(W, moments.with_features(W), objective.ones),
            moments.hidden_cross(W, zero),
            target_squares,
        )
        output = solve_output(hidden, objective.ridge)
        weights = Weights(W, output[:-1], output[-1])
        last = iteration == iterations or monitor.stopped
        W = W if last else solve_hidden(moments, weights, objective.ridge)
        last = last or not np.isfinite(W).all()
        # The true loss needs the rows once more: the next pass over them brings it along.
        true_loss = LossAndGradient(weights, objective.slope)
        if not last:
            try:
                moments, sums = pattern.at_with(W, true_loss)
            except OutOfTimeError:
                last = True
        if last:
            sums = objective.reduce(true_loss, "loss-and-gradient")
        loss = objective.value(sums, weights)
        if np.isfinite(loss) and loss < least:
            best, least = weights, loss
        monitor.counts.fraction = iteration / iterations if iterations else 1.0
        objective.record(loss, weights, current_loss=loss * monitor.counts.unit)
        if last:
            break
    return Outcome(best, least, ran_out=iteration == iterations)
