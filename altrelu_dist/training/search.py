"""Search over the neurons: grow, then cycles that add neurons and prune back, cheap passes between.

Closed form decides which neuron comes and which goes; quasi-Newton passes arrange those that are
there. A cycle is kept only if the loss fell. It all runs on rows in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments.rows import Weights
from altrelu_dist.training.neurons import insert, remove
from altrelu_dist.training.objective import Objective

__all__ = ["Descent", "added_neurons", "growth", "most_passes", "pruned_sizes", "search"]

# From where it starts, down: for so many iterations, and on to so many while it is worth it.
Descent = Callable[[Objective, Weights, int, "int | None"], tuple[Weights, float]]

_GROWTH_STAGES = 8
_CYCLE_PARTS = (2, 4, 8, 1)  # a cycle adds h / 2, then h / 4, h / 8, h neurons, and so on
_PRUNING_STAGES = 3
_GROWTH_ITERATIONS = 100  # of a descent while the network grows
_ITERATIONS = 150  # of one in a cycle
_FEW_ITERATIONS = 50  # of one between two steps of pruning
_MOST_ITERATIONS = 600
_ROWS_A_WEIGHT = 40  # while the network grows

# The search ends when the last third of its work bought less than a hundredth of the loss, and at
# the latest after so much work: multiply-adds, but at least and at most so many passes.
_WORTH = 0.01
_WORK, _LEAST_PASSES, _MOST_PASSES = 5e10, 6_000, 15_000
_LEAST_CYCLES = (6, 4)  # on the rows of the first level, if it is the last, and of the second
_FIRST_CYCLES = 3  # where more rows are to come: what suits few rows does not last on more of them
_SHORTER = 4  # times fewer passes at the next level: its passes are so much longer
_NOTHING_LEFT = 1e-13  # of the variance of the targets


def search(
    levels: Sequence[Objective],
    n_hidden: int,
    rng: np.random.Generator,
    descend: Descent,
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
    descend : Descent
        Arranges the neurons between two closed-form steps.
    cycles : int, optional
        Most grow-and-prune cycles; by default as many as are worth their while.
    """
    monitor = levels[0].monitor
    weights, loss = _grow(levels[0], n_hidden, rng, descend)
    overall = _Overall(levels[-1])
    done = 0
    for level, objective in enumerate(levels):
        if level:  # also where the run ends here: what was told of all rows is what is kept
            weights = overall.best or weights
        if monitor.stopped:
            break
        if level:
            monitor.enter("widen")
            weights, loss = descend(objective, weights, _ITERATIONS, _MOST_ITERATIONS)
            objective.record(loss, weights)
        monitor.enter("cycle")
        left = np.inf if cycles is None else cycles - done
        if level < len(levels) - 1:
            left = min(left, _FIRST_CYCLES)
            overall.saw(weights)
        weights, loss, made = _cycles(
            objective, weights, loss, n_hidden, rng, descend, left, level, overall
        )
        done += made
    monitor.ran_out = cycles is not None and done >= cycles
    return weights, loss


class _Overall:
    """The best over the rows of the last level of what few rows led to.

    Only where these are all rows, in memory: there one more pass costs next to nothing.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.best: Weights | None = None
        self._least = np.inf

    def saw(self, weights: Weights) -> None:
        """Find out what a network is worth."""
        if not (self.objective.whole and isinstance(self.objective.engine, LocalEngine)):
            return
        loss, _ = self.objective.evaluate(weights)
        if loss < self._least:
            self.best, self._least = weights, loss
        self.objective.record(loss, weights)


def _cycles(
    objective: Objective,
    weights: Weights,
    loss: float,
    n_hidden: int,
    rng: np.random.Generator,
    descend: Descent,
    cycles: float,
    level: int,
    overall: _Overall,
) -> tuple[Weights, float, int]:
    """Grow-and-prune cycles on some rows, as long as they are worth their while."""
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    x, y = engine.tiles[0]
    passes = most_passes(engine.n_rows, n_hidden, x.shape[1] + y.shape[1], level)
    begun = monitor.rows
    track = [(0, loss)]
    done = 0
    while loss > _NOTHING_LEFT and not monitor.stopped and done < cycles:
        added = added_neurons(n_hidden, done)
        trial, trial_loss = _cycle(objective, weights, added, n_hidden, rng, descend)
        done += 1
        if trial.n_hidden <= n_hidden and trial_loss < loss:
            weights, loss = trial, trial_loss
            if objective is not overall.objective:
                overall.saw(weights)
        used = monitor.rows - begun
        track.append((used, loss))
        share = used / (passes * engine.n_rows)
        monitor.fraction = (level + min(1.0, share)) / (level + 1)
        objective.record(loss, weights, added=added)
        before = next(value for at, value in reversed(track) if at <= 2 / 3 * used)
        if share >= 1 or (done >= _LEAST_CYCLES[level] and loss > (1 - _WORTH) * before):
            break
    return weights, loss, done


def _grow(
    objective: Objective, n_hidden: int, rng: np.random.Generator, descend: Descent
) -> tuple[Weights, float]:
    """From no neuron to all, in stages, each on as many rows as its weights call for."""
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    x, y = engine.tiles[0]
    p, q = x.shape[1], y.shape[1]
    weights = Weights(np.zeros((p, 0)), np.zeros((0, q)), np.zeros(q))
    loss = np.inf
    monitor.enter("grow")
    for size, rows in growth(n_hidden, p + q):
        part = engine.leading(-(-rows // TILE)) if size < n_hidden else engine
        here = objective if part.n_rows == engine.n_rows else objective.over(part)
        weights = insert(here, weights, size - weights.n_hidden, rng)
        most = _MOST_ITERATIONS if size == n_hidden else None
        weights, loss = descend(here, weights, _GROWTH_ITERATIONS, most)
        here.record(loss, weights, neurons=weights.n_hidden)
        if monitor.stopped:
            break
    if here is not objective:  # stopped while it had only seen some of the rows
        weights, loss = objective.refit_output(weights)
        objective.record(loss, weights)
    return weights, loss


def _cycle(
    objective: Objective,
    weights: Weights,
    added: int,
    n_hidden: int,
    rng: np.random.Generator,
    descend: Descent,
) -> tuple[Weights, float]:
    """Add neurons, descend, prune back in stages with descents between."""
    trial = insert(objective, weights, added + n_hidden - weights.n_hidden, rng)
    trial, loss = descend(objective, trial, _ITERATIONS, None)
    for size in pruned_sizes(trial.n_hidden, n_hidden):
        if objective.monitor.stopped:
            break
        trial = remove(objective, trial, trial.n_hidden - size)
        last = trial.n_hidden == n_hidden
        trial, loss = descend(
            objective,
            trial,
            _ITERATIONS if last else _FEW_ITERATIONS,
            _MOST_ITERATIONS if last else None,
        )
    return trial, loss


def growth(n_hidden: int, columns: int) -> list[tuple[int, int]]:
    """The stages of the growth: neurons, and the rows that so many weights call for."""
    sizes = {-(-n_hidden * (s + 1) // _GROWTH_STAGES) for s in range(_GROWTH_STAGES)}
    return [(size, _ROWS_A_WEIGHT * size * columns) for size in sorted(sizes)]


def added_neurons(n_hidden: int, cycle: int) -> int:
    """How many neurons a cycle, counted from 0, adds."""
    return max(1, n_hidden // _CYCLE_PARTS[cycle % len(_CYCLE_PARTS)])


def pruned_sizes(grown: int, n_hidden: int) -> list[int]:
    """The sizes to which a grown network is pruned, one after the other."""
    step = max(1, -(-(grown - n_hidden) // _PRUNING_STAGES))
    return [max(n_hidden, size - step) for size in range(grown, n_hidden, -step)]


def most_passes(n_rows: int, n_hidden: int, columns: int, level: int) -> float:
    """After so many passes over its rows a level of the search ends."""
    pass_work = 2.0 * n_rows * n_hidden * columns
    shorter: int = _SHORTER**level
    return float(np.clip(_WORK / pass_work, _LEAST_PASSES, _MOST_PASSES)) / shorter
