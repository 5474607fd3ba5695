"""How many rows and how many steps each stage of a run works on; the plan of a run reads it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from altrelu_dist.engine import TILE

__all__ = ["ROWS", "SEARCH", "Leg", "RowSettings", "RowStages", "SearchSettings"]


class Leg(NamedTuple):
    """A descent of a cycle: the network is pruned to so many neurons, then makes so many steps."""

    neurons: int
    steps: int


@dataclass(frozen=True)
class SearchSettings:
    """Constants of the neuron search; the same for all data.

    Parameters
    ----------
    growth_stages, growth_iterations : int
        With early stopping, which may keep a small network: neurons are inserted in so many
        stages, each with so many L-BFGS iterations.
    race_steps : int
        Of the first descents, one for each length of steps, and of a network that is crossed.
    wide_steps, pruned_steps, last_steps : int
        Of the descents of the first cycle: with the neurons that it adds, between two prunings,
        and with the neurons that are left.
    longer : float
        Times as many in each further cycle.
    usual_rows : int
        Fewer rows need fewer steps, in proportion.
    least_share : float
        But at least such a part of them.
    inserted : float
        Neurons that the first cycle adds, in parts of those asked for; the others double them.
    prunings : int
        Until as many are left as were asked for.
    least_cycles, most_cycles : int
    worth : float
        The part of the loss that a cycle has to take off for another one to follow.
    settling, most_settling : int
        Steps of L-BFGS at the end: at least, and at most while they are worth it.
    fits : float
        Where the time is limited, a cycle is begun only if it fits so many times: what a cycle
        leads to pays only with descents after it.
    race_share : float
        Of the time, where it is limited, for the first descents.
    least_race : float
        They race only if that is enough for such a part of their steps.
    """

    growth_stages: int = 8
    growth_iterations: int = 100
    race_steps: int = 1500
    wide_steps: int = 2000
    pruned_steps: int = 500
    last_steps: int = 2000
    longer: float = 1.6
    usual_rows: int = 1000
    least_share: float = 0.1
    inserted: float = 0.5
    prunings: int = 3
    least_cycles: int = 2
    most_cycles: int = 3
    worth: float = 0.01
    settling: int = 300
    most_settling: int = 600
    fits: float = 3.0
    race_share: float = 0.1
    least_race: float = 0.3

    def growth(self, n_hidden: int) -> list[int]:
        """Neurons after each stage of the growth."""
        stages = range(1, self.growth_stages + 1)
        return sorted({-(-n_hidden * stage // self.growth_stages) for stage in stages})

    def share(self, n_rows: int) -> float:
        """The part of the steps that so many rows need."""
        return min(1.0, max(self.least_share, n_rows / self.usual_rows))

    def scale(self, number: int, n_rows: int) -> float:
        """How many times the steps of the settings a cycle makes."""
        return float(self.share(n_rows) * self.longer**number)

    def grown(self, n_hidden: int, number: int) -> int:
        """Neurons that a cycle starts with: by insertion at first, then of two networks."""
        if number > 0:
            return 2 * n_hidden
        return n_hidden + max(1, int(self.inserted * n_hidden))

    def legs(self, grown: int, n_hidden: int, scale: float) -> list[Leg]:
        """The descents of a cycle."""
        wide, pruned, last = (
            _steps(steps * scale) for steps in (self.wide_steps, self.pruned_steps, self.last_steps)
        )
        fewer = max(1, -(-(grown - n_hidden) // self.prunings))
        between = [Leg(size, pruned) for size in range(grown - fewer, n_hidden, -fewer)]
        return [Leg(grown, wide), *between, Leg(n_hidden, last)]

    def raced(self, scale: float) -> int:
        """Steps of a descent that races, or of the network that a cycle crosses."""
        return _steps(self.race_steps * scale)

    def work(self, n_hidden: int, number: int) -> float:
        """Steps times neurons of a cycle of scale one."""
        legs = self.legs(self.grown(n_hidden, number), n_hidden, 1.0)
        made = sum(float(leg.neurons * leg.steps) for leg in legs)
        if number == 0:  # the last descent races
            return made + n_hidden * self.last_steps
        return made + n_hidden * self.race_steps  # of the other network


def _steps(steps: float) -> int:
    return max(1, round(steps))


SEARCH = SearchSettings()


class RowStages(NamedTuple):
    """How many rows the stages work on."""

    few: int  # enough for the weights of the network, no more than memory has
    damped: int  # drawn for damped steps, if not all are
    held: int  # in memory, to descend on
    whole: bool  # whether all rows are held, and nothing else is

    def drawn(self, method: str) -> int:
        """How many are drawn at random, where not all are held."""
        return self.held if method in ("search", "kronecker") else self.damped


@dataclass(frozen=True)
class RowSettings:
    """Constants of how many rows the stages work on.

    Parameters
    ----------
    a_weight : int
        Of a subsample, for each weight of the network.
    least, most : int
        Of a subsample.
    a_neuron : int
        Of a smaller one, for each neuron, where only the output layer is solved for.
    damped : int
        Times as many for damped steps.
    held_a_weight : int
        Of those kept in memory: what fits fewer is 1 % too deep there.
    nearly_all : float
        A sample of most rows costs as much as all of them and finds less.
    held_bytes : int
        Most that are kept in memory.
    visiting : float
        Of the time, where it is limited: no more are kept than descents visit in that part of it.
    """

    a_weight: int = 20
    least: int = 32_768
    most: int = 262_144
    a_neuron: int = 16
    damped: int = 4
    held_a_weight: int = 200
    nearly_all: float = 1.25
    held_bytes: int = 2**28
    visiting: float = 0.25

    def stages(self, p: int, q: int, h: int, dtype: np.dtype[Any], n_rows: int) -> RowStages:
        """How many of the rows each stage works on."""
        weights = h * (p + q)
        most = max(TILE, self.held_bytes // ((p + q) * dtype.itemsize))
        wanted = min(max(self.a_weight * weights, self.least), self.most)
        few = min(wanted, max(TILE, most // self.damped))
        damped = self.damped * few
        held = max(damped, min(self.held_a_weight * weights, most))
        if n_rows <= self.nearly_all * held:
            held = n_rows
        return RowStages(few, damped, held, n_rows <= self.nearly_all * damped)

    def visited(self, stages: RowStages, seconds: float, row_seconds: float) -> RowStages:
        """No more rows in memory than there is time for, each of them that many seconds."""
        if stages.whole or seconds == np.inf:
            return stages
        most = int(self.visiting * seconds / max(row_seconds, 1e-12))
        return stages._replace(held=min(stages.held, max(stages.damped, most)))

    def in_memory(self, row_bytes: int, least: int) -> int:
        """How many rows of so many bytes are kept in memory at most, where all that fit are."""
        return max(least, self.held_bytes // row_bytes)

    def fewest(self, n_hidden: int) -> int:
        """Enough for the output layer, and to choose neurons."""
        return max(self.least, self.a_neuron * n_hidden)

    def part(self, wanted: int, held: int) -> int:
        """So many of the rows in memory, in whole tiles; all, if that is nearly all."""
        part = -(-wanted // TILE) * TILE
        return part if held > self.nearly_all * part else held


ROWS = RowSettings()
