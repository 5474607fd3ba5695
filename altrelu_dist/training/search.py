"""Search over the neurons: grow, then cycles that add neurons and prune back, cheap passes between.

Closed form decides which neuron comes and which goes; quasi-Newton passes arrange those that are
there. The first cycle adds single neurons, the others cross the network with one that is grown
anew: neurons that were arranged together are worth more than as many that were not. A cycle is kept
only if the loss fell. It all runs on rows in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments.rows import Weights
from altrelu_dist.training.best import Best, better
from altrelu_dist.training.neurons import insert, remove, resized
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.progress import Outcome

__all__ = [
    "LEVELS_OF_CYCLES",
    "OTHER",
    "Descent",
    "Overall",
    "growth",
    "inserted_neurons",
    "most_passes",
    "pruned_sizes",
    "search",
]

# From where it starts, down: for so many iterations, and on to so many while it is worth it.
Found = tuple[Weights, float]
Descent = Callable[[Objective, Weights, int, "int | None"], Found]

_GROWTH_STAGES = 8
_INSERTED_PART = 2  # the first cycle adds h / 2 neurons
_PRUNING_STAGES = 3
_GROWTH_ITERATIONS = 100  # of a descent while the network grows
_ITERATIONS = 150  # of one in a cycle
_FEW_ITERATIONS = 50  # of one between two steps of pruning
_MOST_ITERATIONS = 600
_SETTLING = 600  # of the last one
_ROWS_A_WEIGHT = 10  # while the network grows

# The search ends when the last third of its work bought less than a hundredth of the loss, and at
# the latest after so much work: multiply-adds, but at least and at most so many passes.
_WORTH = 0.01
_WORK, _LEAST_PASSES, _MOST_PASSES = 5e10, 6_000, 15_000
_LEAST_CYCLES = (6, 4)  # on the rows of the first level, if it is the last, and of the second
_TOLD = 5  # networks of which the loss over all rows is found where that is a pass over the data
_FIRST_CYCLES = 1  # where more rows are to come: what suits few rows does not last on more of them
LEVELS_OF_CYCLES = 2
_SHORTER = 2  # times fewer passes at the next level: its passes are so much longer
OTHER = 2  # times the rows of the first level, others each time, to grow on what is crossed
_NOTHING_LEFT = 1e-13  # of the variance of the targets, or what rounding of rows so large leaves
_ROUNDING = 30.0  # times the machine's epsilon, of a prediction


def search(
    levels: Sequence[Objective],
    overall: Overall,
    n_hidden: int,
    rng: np.random.Generator,
    descend: Descent,
    cycles: int | None = None,
    start: Weights | None = None,
) -> Outcome:
    """Find a network of ``n_hidden`` neurons.

    Parameters
    ----------
    levels : sequence of Objective
        Over rows in memory, in random order; each over more of them than the one before, where
        the search goes on with what it has found.
    overall : Overall
        Keeps what is best over all rows.
    n_hidden : int
    rng : numpy.random.Generator
    descend : Descent
        Arranges the neurons between two closed-form steps.
    cycles : int, optional
        Most grow-and-prune cycles; by default as many as are worth their while.
    start : Weights, optional
        A network, of any number of neurons, to go on from; by default one is grown.
    """
    few, monitor = levels[0], levels[0].monitor
    journal = monitor.journal
    means = _Means(few, n_hidden, rng, descend, overall)
    if start is None:
        monitor.begin_stage("grow")
        weights, loss = journal.step("grow", lambda: _grow(few, n_hidden, rng, descend, overall))
    else:
        monitor.begin_stage("warm")
        weights, loss = journal.step("warm", partial(_taken_up, means, start))
    done = 0
    for level, objective in enumerate(levels):
        if level:  # also where the run ends here: what was told of all rows is what is kept
            weights = weights if overall.best is None else overall.best.weights
        if monitor.stopped:
            break
        if level:
            monitor.begin_stage("widen")
            widened = partial(_widened, objective, weights, descend, overall)
            weights, loss = journal.step("widen", widened)
        if level == LEVELS_OF_CYCLES:  # rows enough: they would cost more than they are worth
            break
        monitor.begin_stage("cycle")
        left = np.inf if cycles is None else cycles - done
        if level < min(len(levels), LEVELS_OF_CYCLES) - 1:
            left = min(left, _FIRST_CYCLES)
        weights, loss, made = _cycles(objective, means, weights, loss, left, level)
        done += made
        if level == len(levels) - 1 and not monitor.stopped:
            monitor.begin_stage("settle")
            settled = partial(_settled, objective, weights, descend)
            weights, loss = journal.step("settle", settled)
    return Outcome(weights, loss, ran_out=cycles is not None and done >= cycles)


def _taken_up(means: _Means, start: Weights) -> tuple[Weights, float]:
    """Go on from a network: with as many neurons as are wanted, arranged on the few rows."""
    few, n_hidden = means.few, means.n_hidden
    weights = resized(few, start, n_hidden, means.rng)
    weights, loss = means.descend(few, weights, _ITERATIONS, _MOST_ITERATIONS)
    few.record(loss, weights, overall=means.overall.loss(few, weights))
    return weights, loss


def _widened(
    objective: Objective, weights: Weights, descend: Descent, overall: Overall
) -> tuple[Weights, float]:
    """Descend over more rows."""
    weights, loss = descend(objective, weights, _ITERATIONS, _MOST_ITERATIONS)
    objective.record(loss, weights, overall=overall.loss(objective, weights))
    return weights, loss


def _settled(objective: Objective, weights: Weights, descend: Descent) -> tuple[Weights, float]:
    """Descend to where there is next to nothing left to gain: cycles that compete need not."""
    weights, loss = descend(objective, weights, _SETTLING, None)
    objective.record(loss, weights)
    return weights, loss


class Overall:
    """What the networks that some rows led to are worth over all of them, and the best of them.

    Where all rows are in memory every network is compared; else, since each costs a pass over the
    data, a few of those that the last cycles led to.

    Parameters
    ----------
    everything : Objective
        Over all rows.
    levels : sequence of Objective
        Over those of each level of the search; the last may be over all.
    """

    def __init__(self, everything: Objective, levels: Sequence[Objective]) -> None:
        self._everything = everything
        self._in_memory = levels[-1] is everything
        self._told = levels[:LEVELS_OF_CYCLES][-1]
        self._left = _TOLD
        self.best: Best | None = None

    def state(self) -> tuple[Weights | None, float, int]:
        """The best so far, and how many more are told."""
        if self.best is None:
            return None, np.inf, self._left
        return self.best.weights, self.best.loss, self._left

    def restore(self, state: tuple[Weights | None, float, int]) -> None:
        """Go on from there."""
        weights, loss, self._left = state
        self.best = None if weights is None else Best(weights, loss)

    def loss(self, objective: Objective, weights: Weights) -> float:
        """The loss over all rows of what those of ``objective`` led to.

        NaN where it is the same, or where a pass is too much.
        """
        if objective is self._everything or self._everything.monitor.stopped:
            return np.nan
        if not self._in_memory:
            if objective is not self._told or self._left == 0:
                return np.nan
            self._left -= 1
        loss, _ = self._everything.evaluate(weights)
        self.best = better(self.best, weights, loss)
        return loss


@dataclass(frozen=True)
class _Means:
    """What every cycle of a search works with; the names are those of `search`."""

    few: Objective
    n_hidden: int
    rng: np.random.Generator
    descend: Descent
    overall: Overall


def _cycles(
    objective: Objective, means: _Means, weights: Weights, loss: float, cycles: float, level: int
) -> tuple[Weights, float, int]:
    """Grow-and-prune cycles on some rows, as long as they are worth their while."""
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    x, y = engine.tiles[0]
    passes = most_passes(engine.n_rows, means.n_hidden, x.shape[1] + y.shape[1], level)
    begun = monitor.counts.rows
    track = [(0, loss)]
    done = 0
    nothing = max(_NOTHING_LEFT, (_ROUNDING * float(np.finfo(x.dtype).eps)) ** 2)
    while loss > nothing and not monitor.stopped and done < cycles:
        one_cycle = partial(_cycle, objective, means, weights, loss, done, level)
        before = loss
        weights, loss, told, added = monitor.journal.step("cycle", one_cycle)
        if added is None:  # the run ends here, perhaps with the network that was grown
            if loss < before:
                objective.record(loss, weights, overall=told)
            break
        done += 1
        used = monitor.counts.rows - begun
        track.append((used, loss))
        share = used / (passes * engine.n_rows)
        monitor.counts.fraction = (level + min(1.0, share)) / (level + 1)
        objective.record(loss, weights, overall=told, added=added)
        earlier = next(value for at, value in reversed(track) if at <= 2 / 3 * used)
        if share >= 1 or (done >= _LEAST_CYCLES[level] and loss > (1 - _WORTH) * earlier):
            break
    return weights, loss, done


def _cycle(
    objective: Objective, means: _Means, weights: Weights, loss: float, done: int, level: int
) -> tuple[Weights, float, float, int | None]:
    """The better network, its loss, that over all rows if it is told, and the neurons added.

    A network that was grown to be crossed competes too: it may be the best of the three.
    None added: the run has to end.
    """
    few, n_hidden, rng, descend = means.few, means.n_hidden, means.rng, means.descend
    best, least = weights, loss
    if done == 0:
        more = inserted_neurons(n_hidden) + n_hidden - weights.n_hidden
        trial = insert(objective, weights, more, rng)
    else:
        here = few if level == 0 else _turn(objective, OTHER * few.engine.n_rows, done)
        other, other_loss = _grow(here, n_hidden, rng, descend)
        if here.engine.n_rows < objective.engine.n_rows:
            other, other_loss = objective.refit_output(other)
        if other_loss < least:
            best, least = other, other_loss
        trial = _crossed(weights, other)
    added: int | None = trial.n_hidden - weights.n_hidden
    if objective.monitor.stopped and done:
        added = None
    else:
        trial, trial_loss = _pruned(objective, trial, n_hidden, descend)
        if trial.n_hidden <= n_hidden and trial_loss < least:
            best, least = trial, trial_loss
    overall = np.nan if best is weights else means.overall.loss(objective, best)
    return best, least, overall, added


def _grow(
    objective: Objective,
    n_hidden: int,
    rng: np.random.Generator,
    descend: Descent,
    overall: Overall | None = None,
) -> tuple[Weights, float]:
    """From no neuron to all, in stages, each on as many rows as its weights call for.

    Recorded where ``overall`` is given, to be told: where it is the network that is kept.
    """
    engine, monitor = objective.engine, objective.monitor
    assert isinstance(engine, LocalEngine)
    x, y = engine.tiles[0]
    p, q = x.shape[1], y.shape[1]
    weights = Weights(np.zeros((p, 0)), np.zeros((0, q)), np.zeros(q))
    loss = np.inf
    for size, rows in growth(n_hidden, p + q):
        part = engine.leading(-(-rows // TILE)) if size < n_hidden else engine
        here = objective if part.n_rows == engine.n_rows else objective.over(part)

        def stage(here: Objective = here, weights: Weights = weights, size: int = size) -> Found:
            more = insert(here, weights, size - weights.n_hidden, rng)
            most = _MOST_ITERATIONS if size == n_hidden else None
            grown, loss = descend(here, more, _GROWTH_ITERATIONS, most)
            if overall is not None:
                told = overall.loss(here, grown) if size == n_hidden else np.nan
                here.record(loss, grown, overall=told, neurons=grown.n_hidden)
            return grown, loss

        weights, loss = monitor.journal.step(f"neurons-{size}", stage)
        if monitor.stopped:
            break
    if here is not objective:  # stopped while it had only seen some of the rows
        weights, loss = objective.refit_output(weights)
        if overall is not None:
            objective.record(loss, weights)
    return weights, loss


def _turn(objective: Objective, n_rows: int, turn: int) -> Objective:
    """The objective over some of its rows, others at the next turn."""
    engine = objective.engine
    assert isinstance(engine, LocalEngine)
    return objective.over(engine.some(-(-n_rows // TILE), turn))


def _crossed(one: Weights, other: Weights) -> Weights:
    """The neurons of two networks; what it computes is the mean of what they do."""
    return Weights(
        np.hstack([one.W, other.W]), np.vstack([one.V, other.V]) / 2, (one.c + other.c) / 2
    )


def _pruned(
    objective: Objective, weights: Weights, n_hidden: int, descend: Descent
) -> tuple[Weights, float]:
    """Descend, prune in stages with descents between."""
    step = objective.monitor.journal.step
    weights, loss = step("descend", partial(descend, objective, weights, _ITERATIONS, None))
    for size in pruned_sizes(weights.n_hidden, n_hidden):
        if objective.monitor.stopped:
            break
        weights = remove(objective, weights, weights.n_hidden - size)
        lengths = (_ITERATIONS, _MOST_ITERATIONS) if size == n_hidden else (_FEW_ITERATIONS, None)
        weights, loss = step("descend", partial(descend, objective, weights, *lengths))
    return weights, loss


def growth(n_hidden: int, columns: int) -> list[tuple[int, int]]:
    """The stages of the growth: neurons, and the rows that so many weights call for."""
    sizes = {-(-n_hidden * (s + 1) // _GROWTH_STAGES) for s in range(_GROWTH_STAGES)}
    return [(size, _ROWS_A_WEIGHT * size * columns) for size in sorted(sizes)]


def inserted_neurons(n_hidden: int) -> int:
    """How many neurons the first cycle adds."""
    return max(1, n_hidden // _INSERTED_PART)


def pruned_sizes(grown: int, n_hidden: int) -> list[int]:
    """The sizes to which a grown network is pruned, one after the other."""
    step = max(1, -(-(grown - n_hidden) // _PRUNING_STAGES))
    return [max(n_hidden, size - step) for size in range(grown, n_hidden, -step)]


def most_passes(n_rows: int, n_hidden: int, columns: int, level: int) -> float:
    """After so many passes over its rows a level of the search ends."""
    pass_work = 2.0 * n_rows * n_hidden * columns
    shorter: int = _SHORTER**level
    return float(np.clip(_WORK / pass_work, _LEAST_PASSES, _MOST_PASSES)) / shorter
