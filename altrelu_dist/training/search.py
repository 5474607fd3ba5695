"""Search over the neurons: grow, then cycles that add neurons and prune back, cheap passes between.

Closed form decides which neuron comes and which goes; quasi-Newton passes arrange those that are
there. A cycle is kept only if the loss fell. It all runs on rows in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

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
_ROWS_A_WEIGHT = 40  # while the network grows

# The search ends when the last third of its work bought less than a hundredth of the loss, and at
# the latest after so much work: multiply-adds, but at least and at most so many passes.
_WORTH = 0.01
_WORK, _LEAST_PASSES, _MOST_PASSES = 5e10, 6_000, 15_000
_LEAST_CYCLES = (6, 3)  # on the rows of the first level, and of the next
_SHORTER = 4  # times fewer passes at the next level: its passes are so much longer
_NOTHING_LEFT = 1e-13  # of the variance of the targets


def search(
    levels: Sequence[Objective],
    n_hidden: int,
    rng: np.random.Generator,
    cycles: int | None = None,
) -> tuple[Weights, float]:
    """Find a network of ``n_hidden`` neurons; it and its objective over the rows of the last level.

    Parameters
    ----------
    levels : sequence of Objective
        Over rows in memory, in random order; each over more of them than the one before, where
        the search goes on with what it has found.
    n_hidden : int
    rng : numpy.random.Generator
    cycles : int, optional
        Most grow-and-prune cycles; by default as many as are worth their while.
    """
    monitor = levels[0].monitor
    weights, loss = _grow(levels[0], n_hidden, rng)
    done = 0
    for level, objective in enumerate(levels):
        if monitor.stopped:
            break
        if level:
            monitor.enter("widen")
            weights, loss = quasi_newton(objective, weights, _ITERATIONS, _MOST_ITERATIONS)
            objective.record(loss)
        monitor.enter("cycle")
        left = None if cycles is None else cycles - done
        weights, loss, made = _cycles(objective, weights, loss, n_hidden, rng, left, level)
        done += made
    monitor.ran_out = cycles is not None and done >= cycles
    return weights, loss


def _cycles(
    objective: Objective,
    weights: Weights,
    loss: float,
    n_hidden: int,
    rng: np.random.Generator,
    cycles: int | None,
    level: int,
) -> tuple[Weights, float, int]:
    """Grow-and-prune cycles on some rows, as long as they are worth their while."""
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    x, y = engine.tiles[0]
    pass_work = 2.0 * engine.n_rows * n_hidden * (x.shape[1] + y.shape[1])
    passes = float(np.clip(_WORK / pass_work, _LEAST_PASSES, _MOST_PASSES)) / _SHORTER**level
    begun = monitor.rows
    track = [(0, loss)]
    done = 0
    while loss > _NOTHING_LEFT and not monitor.stopped and (cycles is None or done < cycles):
        added = max(1, n_hidden // _CYCLE_PARTS[done % len(_CYCLE_PARTS)])
        trial, trial_loss = _cycle(objective, weights, added, n_hidden, rng)
        done += 1
        if trial.n_hidden <= n_hidden and trial_loss < loss:
            weights, loss = trial, trial_loss
        used = monitor.rows - begun
        track.append((used, loss))
        share = used / (passes * engine.n_rows)
        monitor.fraction = (level + min(1.0, share)) / (level + 1)
        objective.record(loss, added=added)
        before = next(value for at, value in reversed(track) if at <= 2 / 3 * used)
        if share >= 1 or (done >= _LEAST_CYCLES[level] and loss > (1 - _WORTH) * before):
            break
    return weights, loss, done


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
    if here is not objective:  # stopped while it had only seen some of the rows
        weights, loss = objective.refit_output(weights)
        objective.record(loss)
    return weights, loss


def _cycle(
    objective: Objective, weights: Weights, added: int, n_hidden: int, rng: np.random.Generator
) -> tuple[Weights, float]:
    """Add neurons, descend, prune back in stages with descents between."""
    trial = insert(objective, weights, added + n_hidden - weights.n_hidden, rng)
    trial, loss = quasi_newton(objective, trial, _ITERATIONS)
    extra = trial.n_hidden - n_hidden
    for _ in range(_PRUNING_STAGES):
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
    return trial, loss
