"""Rounds of descents with Kronecker-factored steps, in which lengths of steps race.

How long steps may be depends on the data: descents with several lengths start from the same
weights, and the best one is kept.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from altrelu_dist.engine import LocalEngine
from altrelu_dist.moments.rows import Block, Weights
from altrelu_dist.training.driver import run
from altrelu_dist.training.kronecker import LOOK, SETTINGS, Descent, KroneckerSettings
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.whitening import Whitening

__all__ = ["KroneckerRounds"]


def _tiles(engine: LocalEngine, rows: int) -> list[Block]:
    """The rows of an engine, which come in random order, in tiles of about so many, as float32."""
    tiles = []
    for x, y in engine.tiles:
        ends = np.linspace(0, len(x), max(1, round(len(x) / rows)) + 1).astype(int)
        for start, stop in pairwise(ends):
            part = x[start:stop], y[start:stop]
            tiles.append(Block(*(values.astype(np.float32, copy=False) for values in part)))
    return tiles


class KroneckerRounds:
    """Rounds of descents over rows in memory, in which lengths of steps race.

    Parameters
    ----------
    objective : Objective
        Over rows in memory, in random order.
    whitening : Whitening
        Of the inputs; it holds C^-1.
    seed : int
    settings : KroneckerSettings
    """

    def __init__(
        self,
        objective: Objective,
        whitening: Whitening,
        seed: int,
        settings: KroneckerSettings = SETTINGS,
    ) -> None:
        engine = objective.engine
        assert isinstance(engine, LocalEngine)
        self._objective, self._engine, self._settings = objective, engine, settings
        self._descent = Descent(
            tiles=_tiles(engine, settings.tile_rows(engine.n_rows)),
            inverse_gram=(whitening.out @ whitening.out.T).astype(np.float32),
            mean_weight=objective.weight_sum / engine.n_rows,
            alpha=objective.alpha,
            slope=objective.slope,
            settings=settings,
            length=0.0,
            steps=0,
            seed=seed,
        )

    def descend(self, weights: Weights, rounds: int) -> tuple[Weights, float, bool]:
        """Rounds as long as they are worth twice the time of the one before.

        Returns
        -------
        weights : Weights
        loss : float
        ran_out : bool
            Whether it ended because it had made so many ``rounds``.
        """
        objective, journal = self._objective, self._objective.monitor.journal
        best, loss = 0, journal.step("loss", lambda: objective.evaluate(weights)[0])
        for number in range(rounds):
            before = loss
            step = partial(self._round, number, weights, loss, best)
            weights, loss, best = journal.step("round", step)
            objective.record(loss, weights, length=self._settings.lengths[best])
            if objective.monitor.stopped or loss > (1 - self._settings.worth) * before:
                return weights, loss, False
            objective.monitor.counts.fraction = (number + 1) / rounds
        return weights, loss, True

    def _round(
        self, number: int, begin: Weights, least: float, best: int
    ) -> tuple[Weights, float, int]:
        """Descents from the same weights; the best end or the start, and which length was best.

        The output layer of the best one ends at its critical point.
        """
        objective, settings = self._objective, self._settings
        found = begin
        for place in settings.racing(number, best):
            if objective.monitor.stopped:
                break
            descent = replace(
                self._descent,
                length=settings.lengths[place],
                steps=settings.round_steps(number, self._engine.n_rows),
                seed=self._descent.seed + number,
            )
            run = partial(self._run, descent, begin)
            ended, loss = objective.monitor.journal.step("descent", run)
            if loss < least:
                found, least, best = ended, loss, place
        if not objective.monitor.stopped:
            refitted, loss = objective.refit_output(found)
            if loss < least:
                found, least = refitted, loss
        return *objective.balanced(found, least), best

    def _run(self, descent: Descent, begin: Weights) -> tuple[Weights, float]:
        """One descent; where it ends, and the loss there."""
        with np.errstate(over="ignore", invalid="ignore"):  # of a descent that diverges
            state = run(descent, begin, self._objective, save_every=LOOK)
        if not state.weights.is_finite():
            return begin, np.inf
        ended = state.weights.astype(np.float64)
        return ended, self._objective.evaluate(ended)[0]
