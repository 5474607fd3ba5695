"""Search over the neurons: grow, then cycles that add neurons and prune back, cheap passes between.

Closed form decides which neuron comes and which goes; quasi-Newton passes arrange those that are
there. A cycle is kept only if the loss fell. It all runs on rows in memory.
"""

from __future__ import annotations

import numpy as np

from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments.rows import Weights
from altrelu_dist.training.neurons import insert, remove
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.quasi_newton import quasi_newton

__all__ = ["search"]

_GROWTH_STAGES = 8
_CYCLE_PARTS = (4, 8, 16)  # a cycle adds h / 4, then h / 8, then h / 16 neurons, and so on
_PRUNING_STAGES = 3
_ITERATIONS = 150  # of a descent that matters
_FEW_ITERATIONS = 50  # of one between two steps of pruning
_MOST_ITERATIONS = 600
_ROWS_A_WEIGHT = 10  # while the network grows

# The search ends when the last third of its work bought less than a hundredth of the loss, and at
# the latest after so much work: multiply-adds, but at least and at most so many passes.
_WORTH = 0.01
_WORK, _LEAST_PASSES, _MOST_PASSES = 5e10, 6_000, 15_000
_LEAST_CYCLES = 6
_NOTHING_LEFT = 1e-13  # of the variance of the targets


def search(
    objective: Objective, n_hidden: int, rng: np.random.Generator, cycles: int | None = None
) -> tuple[Weights, float]:
    """Find a network of ``n_hidden`` neurons; it and its objective over the rows searched.

    Parameters
    ----------
    objective : Objective
        Over rows in memory, in random order.
    n_hidden : int
    rng : numpy.random.Generator
    cycles : int, optional
        Most grow-and-prune cycles; by default as many as are worth their while.
    """
    engine = objective.engine
    assert isinstance(engine, LocalEngine)
    monitor = objective.monitor
    x, y = engine.tiles[0]
    pass_work = 2.0 * engine.n_rows * n_hidden * (x.shape[1] + y.shape[1])
    budget = engine.n_rows * float(np.clip(_WORK / pass_work, _LEAST_PASSES, _MOST_PASSES))
    begun = monitor.rows

    weights, loss = _grow(objective, n_hidden, rng)
    track = [(monitor.rows - begun, loss)]
    done = 0
    monitor.enter("cycle")
    while loss > _NOTHING_LEFT and not monitor.stopped and (cycles is None or done < cycles):
        added = max(1, n_hidden // _CYCLE_PARTS[done % len(_CYCLE_PARTS)])
        trial, trial_loss = _cycle(objective, weights, added, n_hidden, rng)
        done += 1
        if trial.n_hidden <= n_hidden and trial_loss < loss:
            weights, loss = trial, trial_loss
        used = monitor.rows - begun
        track.append((used, loss))
        monitor.fraction = min(1.0, used / budget)
        objective.record(loss, added=added)
        before = next(
            value for at, value in reversed(track) if at <= 2 / 3 * used or at == track[0][0]
        )
        if done >= _LEAST_CYCLES and loss > (1 - _WORTH) * before:
            break
        if used >= budget:
            break
    return weights, loss


def _grow(objective: Objective, n_hidden: int, rng: np.random.Generator) -> tuple[Weights, float]:
    """From no neuron to all, in stages, each on as many rows as its weights call for."""
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    x, y = engine.tiles[0]
    p, q = x.shape[1], y.shape[1]
    weights = Weights(np.zeros((p, 0)), np.zeros((0, q)), np.zeros(q))
    loss = np.inf
    stages = sorted({-(-n_hidden * (s + 1) // _GROWTH_STAGES) for s in range(_GROWTH_STAGES)})
    monitor.enter("grow")
    for size in stages:
        rows = _ROWS_A_WEIGHT * size * (p + q)
        part = engine.leading(-(-rows // TILE)) if size < n_hidden else engine
        here = objective if part.n_rows == engine.n_rows else objective.over(part)
        weights = insert(here, weights, size - weights.n_hidden, rng)
        most = _MOST_ITERATIONS if size == n_hidden else None
        weights, loss = quasi_newton(here, weights, _ITERATIONS, most)
        here.record(loss, neurons=weights.n_hidden)
        if monitor.stopped:
            break
    return objective.refit_output(weights) if loss is np.inf else (weights, loss)


def _cycle(
    objective: Objective, weights: Weights, added: int, n_hidden: int, rng: np.random.Generator
) -> tuple[Weights, float]:
    """Add neurons, descend, prune back in stages with descents between."""
    trial = insert(objective, weights, added + n_hidden - weights.n_hidden, rng)
    trial, loss = quasi_newton(objective, trial, _ITERATIONS)
    extra = trial.n_hidden - n_hidden
    for stage in range(_PRUNING_STAGES):
        left = trial.n_hidden - n_hidden
        if left <= 0 or objective.monitor.stopped:
            break
        trial = remove(objective, trial, min(left, -(-extra // _PRUNING_STAGES)))
        last = trial.n_hidden == n_hidden
        trial, loss = quasi_newton(
            objective,
            trial,
            _ITERATIONS if last else _FEW_ITERATIONS,
            _MOST_ITERATIONS if last else None,
        )
        del stage
    return trial, loss
