"""Search over the neurons: cycles that add neurons and prune back, with descents between.

Closed form decides which neuron comes and which goes; Kronecker-factored descents arrange those
that are there. The first cycle inserts neurons, the others cross the network with another one:
neurons that were arranged together are worth more than as many that were not. A cycle is kept only
if the loss fell. It all runs on rows in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from altrelu_dist.engine import LocalEngine
from altrelu_dist.moments.rows import Weights
from altrelu_dist.training.best import Best, better
from altrelu_dist.training.descents import Descents
from altrelu_dist.training.neurons import insert, no_neurons, remove, started
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.progress import Outcome
from altrelu_dist.training.schedule import SEARCH, SearchSettings

__all__ = ["TOLD", "FullDataBest", "Search"]

TOLD = 3  # networks of which the loss over all rows is found where that is a pass over the data
_NOTHING_LEFT = 1e-13  # of the variance of the targets, or what rounding of rows so large leaves
_ROUNDING = 30.0  # times the machine's epsilon, of a prediction

Settle = Callable[[Objective, Weights, int, int], tuple[Weights, float]]


class FullDataBest:
    """The best network over all rows, of those that were found on some of them.

    Where the rows in memory are not all, each comparison costs a pass over the data, and only a few
    are made.

    Parameters
    ----------
    full : Objective
        Over all rows.
    in_memory : Objective
        Over those that the search works on; the same object if they are all.
    """

    def __init__(self, full: Objective, in_memory: Objective) -> None:
        self._full = full
        self._same = in_memory is full
        self._left = TOLD
        self.best: Best | None = None

    def state(self) -> tuple[Weights | None, float, int]:
        """The best so far, and how many more are compared."""
        if self.best is None:
            return None, np.inf, self._left
        return self.best.weights, self.best.loss, self._left

    def restore(self, state: tuple[Weights | None, float, int]) -> None:
        """Go on from there."""
        weights, loss, self._left = state
        self.best = None if weights is None else Best(weights, loss)

    def loss(self, weights: Weights) -> float:
        """The loss over all rows; NaN where it is known already, or a pass is too much."""
        monitor = self._full.monitor
        if self._same or self._left == 0 or monitor.stopped or not monitor.clock.final_pass_fits:
            return np.nan
        self._left -= 1
        loss = self._full.loss(weights)
        self.best = better(self.best, weights, loss)
        return loss


class Found(NamedTuple):
    """Where a search is."""

    weights: Weights
    loss: float  # over the rows in memory
    place: int | None  # of the best length of steps; None: there was no time for a race
    full_loss: float = np.nan  # over all rows, where it was compared
    added: int | None = None  # neurons that the last cycle added; None: it had to end early


@dataclass(frozen=True)
class Search:
    """A search for a network.

    Parameters
    ----------
    few : Objective
        Over enough rows to decide which neurons come and go.
    descents : Descents
        Over all rows in memory.
    best : FullDataBest
    n_hidden : int
    rng : numpy.random.Generator
    settle : callable
        Descends to where there is next to nothing left to gain.
    settings : SearchSettings
    """

    few: Objective
    descents: Descents
    best: FullDataBest
    n_hidden: int
    rng: np.random.Generator
    settle: Settle
    settings: SearchSettings = SEARCH

    def run(self, cycles: int | None = None, start: Weights | None = None) -> Outcome:
        """Search.

        Parameters
        ----------
        cycles : int, optional
            Most cycles; by default as many as are worth their while.
        start : Weights, optional
            A network, of any number of neurons, to go on from.
        """
        objective, monitor = self.descents.objective, self.descents.objective.monitor
        monitor.begin_stage("grow" if start is None else "warm")
        found = Found(*monitor.journal.step("race", partial(self._race, start)))
        most = self.settings.most_cycles if cycles is None else cycles
        found, made, ended = self._cycles(found, most)
        if not (ended or monitor.stopped):
            monitor.begin_stage("settle")
            steps = self.settings.settling, self.settings.most_settling
            settled = partial(self.settle, objective, found.weights, *steps)
            weights, loss = monitor.journal.step("settle", settled)
            if self.descents.judging is not objective:
                loss = self.descents.loss(weights)
            if loss < found.loss:
                found = Found(weights, loss, found.place)
            self.descents.judging.record(found.loss, found.weights)
        return Outcome(found.weights, found.loss, ran_out=cycles is not None and made >= cycles)

    def _cycles(self, found: Found, most: int) -> tuple[Found, int, bool]:
        """Cycles as long as they are worth their while; how many, and whether the time is over."""
        monitor, settings = self.descents.objective.monitor, self.settings
        monitor.begin_stage("cycle")
        made = 0
        nothing = self._nothing_left()
        while found.loss > nothing and made < most and not monitor.stopped:
            before = found.loss
            found = Found(*monitor.journal.step("cycle", partial(self._cycle, found, made)))
            if found.added is None:  # the run ends here, perhaps with a network of the cycle
                if found.loss < before:
                    self._record(found)
                return found, made, True
            made += 1
            monitor.counts.fraction = made / most
            self._record(found, added=found.added)
            small = found.loss > (1 - settings.worth) * before
            if made >= settings.least_cycles and small:
                break
        return found, made, False

    def _record(self, found: Found, **details: float) -> None:
        if found.place is not None:
            details["length"] = self.descents.settings.lengths[found.place]
        self.descents.judging.record(found.loss, found.weights, overall=found.full_loss, **details)

    def _nothing_left(self) -> float:
        """The loss below which there is nothing but rounding."""
        engine = self.few.engine
        assert isinstance(engine, LocalEngine)
        dtype = engine.tiles[0].x.dtype
        return max(_NOTHING_LEFT, (_ROUNDING * float(np.finfo(dtype).eps)) ** 2)

    def _race(self, start: Weights | None) -> Found:
        """From hinges through pairs of rows, or another network: descents of several lengths."""
        if start is None and self.descents.objective.monitor.validation is not None:
            begin, least = self._grown()
        else:
            begin, least = self._started(start)
        return self._lengths_raced(begin, least)

    def _lengths_raced(self, begin: Weights, least: float) -> Found:
        """Descents of several lengths, if there is time for them."""
        descents, settings, lengths = self.descents, self.settings, self.descents.settings.lengths

        def affordable() -> tuple[int, int]:
            wanted = settings.raced(settings.share(descents.n_rows))
            in_time = settings.race_share * descents.affordable(begin) / self.n_hidden
            steps = int(min(wanted, in_time / len(lengths)))
            return steps if steps >= settings.least_race * wanted else 0, descents.tile_rows

        steps, tile_rows = descents.objective.monitor.journal.step(
            "steps", affordable, required=False
        )
        descents.cut(tile_rows)
        if not steps:
            self.few.record(least, begin)
            return Found(begin, least, None)
        best, least, best_place = begin, np.inf, 0
        for place, length in enumerate(lengths):
            if descents.objective.monitor.stopped:
                break
            ended = descents.descend(begin, steps, length, self._seed())
            loss = self.few.loss(ended)
            if loss < least:
                best, least, best_place = ended, loss, place
            self.few.record(least, best, length=lengths[best_place])
        weights, loss = descents.refitted(best, descents.loss(best))
        found = Found(weights, loss, best_place)
        self._record(found)
        return found

    def _started(self, start: Weights | None = None) -> tuple[Weights, float]:
        """All neurons inserted at once, or a network to go on from made to have as many."""
        return started(self.few, start, self.n_hidden, self.rng)

    def _grown(self) -> tuple[Weights, float]:
        """Neurons inserted in stages with L-BFGS between: of these the best on new rows is kept."""
        few, monitor = self.few, self.few.monitor
        weights, loss = no_neurons(few), np.inf
        for size in self.settings.growth(self.n_hidden):
            more = insert(few, weights, size - weights.n_hidden, self.rng)
            iterations = self.settings.growth_iterations
            descend = partial(self.settle, few, more, iterations, iterations)
            weights, loss = monitor.journal.step("growth", descend)
            if not monitor.stopped:
                few.record(loss, weights, neurons=weights.n_hidden)
        return weights, loss

    def _seed(self) -> int:
        return int(self.rng.integers(2**32))

    def _cycle(self, found: Found, number: int) -> Found:
        """The best of the network, of another one, and of what both or more neurons lead to."""
        settings, descents, h = self.settings, self.descents, self.n_hidden
        monitor = descents.objective.monitor
        scale = settings.scale(number, descents.n_rows)

        def longer() -> tuple[int, int]:
            affordable = descents.affordable(found.weights)
            fits = affordable >= settings.fits * scale * settings.work(h, number)
            return 0 if fits else max(1, int(affordable / h)), descents.tile_rows

        steps, tile_rows = monitor.journal.step("steps", longer, required=False)
        descents.cut(tile_rows)
        if steps:
            return self._lengthened(found, steps)
        if found.place is None:  # of a run that goes on: now there is time for a race
            return self._lengths_raced(found.weights, found.loss)._replace(added=0)
        length = descents.settings.lengths[found.place]
        best = found
        if number == 0:
            more = settings.grown(h, 0) - found.weights.n_hidden
            wide, _ = self.few.refit_output(insert(self.few, found.weights, more, self.rng))
        else:
            steps = settings.raced(scale)
            other = descents.descend(self._started()[0], steps, length, self._seed())
            loss = descents.loss(other)
            if loss < best.loss:
                best = Found(other, loss, found.place)
            wide = _crossed(found.weights, other)
        added = wide.n_hidden - found.weights.n_hidden
        *legs, last = settings.legs(wide.n_hidden, h, scale)
        for leg in legs:
            if wide.n_hidden > leg.neurons:
                wide = remove(self.few, wide, wide.n_hidden - leg.neurons)
            wide = descents.descend(wide, leg.steps, length, self._seed())
        if monitor.stopped:
            return Found(best.weights, best.loss, best.place)
        trial = remove(self.few, wide, wide.n_hidden - h)
        for place in self._raced(found.place, number):
            if monitor.stopped or trial.n_hidden > h:
                break
            length = descents.settings.lengths[place]
            ended = descents.descend(trial, last.steps, length, self._seed())
            loss = descents.loss(ended)
            if loss < best.loss:
                best = Found(ended, loss, place)
        return self._ended(found, best, added)

    def _raced(self, place: int, number: int) -> list[int]:
        """Lengths of the last descent: in the first cycle a neighbour races, shorter if it can."""
        if number > 0:
            return [place]
        shorter = place + 1 < len(self.descents.settings.lengths)
        return [place, place + 1 if shorter else place - 1]

    def _lengthened(self, found: Found, steps: int) -> Found:
        """No time is left for a cycle: a descent for as long as there is."""
        descents, settings, place = self.descents, self.descents.settings, found.place
        if place is None:
            length = settings.unraced_length(steps)
        else:  # the longer a descent, the shorter the best steps
            place = min(place + 1, len(settings.lengths) - 1)
            length = settings.lengths[place]
        ended = descents.descend(found.weights, steps, length, self._seed())
        loss = descents.loss(ended)
        best = Found(ended, loss, place) if loss < found.loss else found
        done = self._ended(found, best, 0)
        if descents.affordable(done.weights) >= steps * self.n_hidden:
            return done  # of a run that goes on: it has more time now
        descents.objective.monitor.stopping.request("max_time")
        return Found(done.weights, done.loss, done.place, done.full_loss)

    def _ended(self, found: Found, best: Found, added: int) -> Found:
        """The best network of a cycle with its output layer refitted, if it is a new one."""
        if best is found:
            unknown = self.best.best is None
            full_loss = self.best.loss(found.weights) if unknown else np.nan
            return Found(found.weights, found.loss, found.place, full_loss, added)
        weights, loss = self.descents.refitted(best.weights, best.loss)
        return Found(weights, loss, best.place, self.best.loss(weights), added)


def _crossed(one: Weights, other: Weights) -> Weights:
    """The neurons of two networks; what it computes is the mean of what they do."""
    return Weights(
        np.hstack([one.W, other.W]), np.vstack([one.V, other.V]) / 2, (one.c + other.c) / 2
    )
