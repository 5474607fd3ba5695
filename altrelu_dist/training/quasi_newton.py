"""Cheap passes: L-BFGS on both layers, two products of n h p a pass and no Gram matrix.

It learns the curvature of the kinks from the gradients themselves. The search settles by it at the
end, and grows by it where early stopping may keep a small network. It works on whitened inputs:
that halves the iterations to the same loss, and it ends deeper.
"""

from __future__ import annotations

import numpy as np

from altrelu_dist.moments.rows import Floats, Weights
from altrelu_dist.solvers.lbfgs import State, minimise
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.whitening import Whitening

__all__ = ["MEMORY", "quasi_newton"]

MEMORY = 30  # steps whose curvature it keeps
_SPAN, _WORTH = 50, 0.01
_LOOK = 5  # iterations between two networks that early stopping may keep


def quasi_newton(
    objective: Objective,
    weights: Weights,
    iterations: int,
    most: int | None = None,
    *,
    whitening: Whitening,
) -> tuple[Weights, float]:
    """Descend from ``weights``; the least objective that was met, and where.

    The neurons are balanced and the output layer is refitted before and after.

    Parameters
    ----------
    objective : Objective
    weights : Weights
    iterations : int
        How many to make.
    most : int, optional
        Go on to so many while the last 50 lowered the objective by a hundredth.
    whitening : Whitening
        Of the inputs: the coordinates in which steps are taken.
    """
    most = max(iterations, most or 0)
    start, value = objective.balanced(*objective.refit_output(weights))
    monitor = objective.monitor
    p, h = start.W.shape
    q = start.c.size
    penalised = np.ones((p, 1))
    penalised[-1] = 0

    def unpack(flat: Floats) -> Weights:
        W, output = flat[: p * h].reshape(p, h), flat[p * h :].reshape(h + 1, q)
        return Weights(whitening.out @ W, output[:-1], output[-1])

    def fun(flat: Floats) -> tuple[float, Floats]:
        at = unpack(flat)
        value, sums = objective.evaluate(at)
        n, ridge = objective.weight_sum, 2 * objective.alpha
        in_W = sums.W / n + ridge * (at.W * penalised)
        gradient = np.concatenate(
            [
                (whitening.out.T @ in_W).ravel(),
                (sums.V / n + ridge * at.V).ravel(),
                sums.c / n,
            ]
        )
        return value, gradient

    journal = monitor.journal
    entry = journal.restore_point()
    if entry is None and monitor.stopped:
        return start, value
    values = [value] if entry is None else list(entry["values"])
    begun = monitor.clock.seconds

    def after_step(state: State) -> bool:
        nonlocal begun
        flat, now = state.x, state.value
        values.append(now)
        if not objective.whole:
            monitor.counts.sample_loss = now * monitor.counts.unit
        elif h <= objective.n_hidden:
            monitor.counts.update_loss(now)
        if len(values) % _LOOK == 0:
            monitor.validate(unpack(flat), whole=False)
        monitor.notify()
        long = len(values) > max(iterations, _SPAN)
        slow = long and now > (1 - _WORTH) * values[-_SPAN - 1]
        begun, took = monitor.clock.seconds, monitor.clock.seconds - begun
        stopped = monitor.clock.ends_within(took)  # where another step would take too long
        if not slow:
            journal.save_point(
                lambda: state.kept() | {"values": np.array(values)}, stopping=stopped
            )
        return stopped or slow

    flat = np.concatenate([(whitening.into @ start.W).ravel(), start.V.ravel(), start.c])
    begin = flat if entry is None else State.of(entry, MEMORY)
    flat, least = minimise(fun, begin, most, MEMORY, after_step)
    if not (np.isfinite(least) and least <= value):
        return start, value
    moved = unpack(flat)
    refitted, refitted_value = objective.refit_output(moved)
    # Rounding in a nearly singular system can make the closed form worse than the descent.
    if refitted_value <= least and refitted.is_finite():
        return objective.balanced(refitted, refitted_value)
    return objective.balanced(moved, least)
