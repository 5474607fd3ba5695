"""Damped layer solves: the hidden-layer system with the output layer eliminated, step by step.

A step counts only if the true loss went down. The loss and its gradient come from all rows; the
curvature may come from a sample of them, then a step costs one pass over the data.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from altrelu_dist.engine import OutOfTimeError
from altrelu_dist.moments.kinks import KinkMoments
from altrelu_dist.moments.loss import LossGradient
from altrelu_dist.moments.pattern import PatternGram
from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.hidden_layer import LevenbergMarquardtSystem
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.pattern_state import PatternState
from altrelu_dist.training.progress import Outcome

__all__ = ["LARGEST_SYSTEM", "descend"]

LARGEST_SYSTEM = 2560  # unknowns of one system: of more neurons, random blocks take turns
_KINK_WIDTH = 0.05  # in standardised units, of a neuron of unit norm
_FIRST_DAMPING = 1e-3
_MOST_DAMPING = 1e8


def descend(
    objective: Objective,
    curvature: Objective,
    weights: Weights,
    steps: int,
    rng: np.random.Generator,
    tolerance: float = 1e-4,
) -> Outcome:
    """Take damped steps while they lower the loss.

    Parameters
    ----------
    objective : Objective
        Over all rows: decides, and gives the gradient.
    curvature : Objective
        Over the same rows, or a sample in memory.
    weights : Weights
    steps : int
        Most steps, those that were refused included.
    rng : numpy.random.Generator
        Draws the blocks of neurons where one system cannot hold them all.
    tolerance : float
        Stop when the last five accepted steps together lowered the loss by less than this share.

    Returns
    -------
    Outcome
        Its loss is the objective over the rows of ``objective``.
    """
    monitor = objective.monitor
    journal = monitor.journal
    entry = journal.restore_point()
    p, h = weights.W.shape
    width = max(1, min(h, LARGEST_SYSTEM // p))
    curvature = replace(curvature, hurried=True)
    pattern = PatternState(curvature)
    neurons = np.arange(h)
    kinks: Floats | None = None
    system: LevenbergMarquardtSystem | None = None
    if entry is None:
        weights = weights.balanced()
        loss, gradient = objective.evaluate(weights)
        objective.record(loss, weights)
        damping, growth = _FIRST_DAMPING, 2.0
        losses, first = [loss], 0
    else:
        weights, loss, gradient = entry["weights"], entry["loss"], entry["gradient"]
        damping, growth = entry["damping"], entry["growth"]
        losses, first = entry["losses"], entry["taken"]
        moments = pattern.restore(entry["pattern"])
        if entry["kinks"] is not None and moments is not None:
            neurons, kinks = entry["neurons"], entry["kinks"]
            system = _system(moments, weights.pick(neurons), kinks, curvature)
    solving = 0.0  # seconds, which nothing can cut short
    for taken in range(first, steps):
        late = monitor.clock.ends_within(solving)
        kept = pattern.state()
        if kept is not None or (system is None and (pattern.rebuilds or width < h)):
            here = {"weights": weights, "loss": loss, "gradient": gradient, "damping": damping}
            here |= {"growth": growth, "losses": list(losses), "taken": taken, "pattern": kept}
            here |= {"neurons": neurons, "kinks": None if system is None else kinks}
            journal.save_point(here.copy, stopping=late)
        if late:
            break
        if damping > _MOST_DAMPING:
            if width == h:
                break
            damping, growth, system = _FIRST_DAMPING, 2.0, None  # the next neurons' turn
        begun = monitor.clock.seconds
        if system is None:
            if width < h:
                neurons = np.sort(rng.choice(h, size=width, replace=False))
                pattern = PatternState(curvature)
            picked = weights.pick(neurons)
            try:
                kinks = curvature.reduce(
                    KinkMoments(weights, _KINK_WIDTH, objective.slope, neurons), "kinks"
                ).blocks
                moments = pattern.at(picked.W)
            except OutOfTimeError:
                break
            if monitor.clock.ends_within(solving):
                break
            begun = monitor.clock.seconds
            system = _system(moments, picked, kinks, curvature)
        if monitor.stopped:
            break
        share = curvature.ones / objective.ones
        step = system.step(_of(gradient, neurons, share), damping)
        solving = monitor.clock.seconds - begun
        if monitor.stopped:
            break
        trial = _moved(weights, neurons, step.W, step.output).balanced()
        trial_loss, trial_gradient = objective.evaluate(trial)
        foreseen = step.predicted_decrease / curvature.ones
        gain = (loss - trial_loss) / foreseen if foreseen > 0 else -1.0
        monitor.counts.fraction = (taken + 1) / steps
        if np.isfinite(trial_loss) and trial_loss < loss:
            weights, loss, gradient = trial, trial_loss, trial_gradient
            damping *= max(1 / 3, 1 - (2 * min(gain, 1.0) - 1) ** 3)
            growth = 2.0
            system = None
            losses.append(loss)
        else:
            damping *= growth
            growth *= 2
        objective.record(loss, weights, damping=damping)
        if len(losses) > 5 and width == h and losses[-6] - loss <= tolerance * loss:
            break
    else:
        return Outcome(weights, loss, ran_out=True)
    return Outcome(weights, loss, ran_out=False)


def _system(
    moments: PatternGram, weights: Weights, kinks: Floats, curvature: Objective
) -> LevenbergMarquardtSystem:
    return LevenbergMarquardtSystem(moments, weights, kinks, curvature.ones, curvature.ridge)


def _of(gradient: LossGradient, neurons: np.ndarray, share: float) -> LossGradient:
    """The gradient in some neurons, as if the sums were over the rows of the curvature."""
    return replace(
        gradient,
        W=share * gradient.W[:, neurons],
        V=share * gradient.V[neurons],
        c=share * gradient.c,
    )


def _moved(weights: Weights, neurons: np.ndarray, W: np.ndarray, output: np.ndarray) -> Weights:
    moved_W, moved_V = weights.W.copy(), weights.V.copy()
    moved_W[:, neurons] += W
    moved_V[neurons] += output[:-1]
    return Weights(moved_W, moved_V, weights.c + output[-1])
