"""Kronecker-factored descents over rows in memory, each a step of the run's journal."""

from __future__ import annotations

from collections.abc import Iterator
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

__all__ = ["Descents"]

_TIMED = 20  # steps from which the time of one is known


class Descents:
    """Descents over the same tiles of rows.

    Parameters
    ----------
    objective : Objective
        Over rows in memory, in random order.
    few : Objective
        Over enough of them for the output layer's system; the same object if they are all.
    whitening : Whitening
        Of the inputs; it holds the inverse of their Gram matrix.
    settings : KroneckerSettings
    """

    def __init__(
        self,
        objective: Objective,
        few: Objective,
        whitening: Whitening,
        settings: KroneckerSettings = SETTINGS,
    ) -> None:
        engine = objective.engine
        assert isinstance(engine, LocalEngine)
        self.objective, self._few, self.settings = objective, few, settings
        self.n_rows = engine.n_rows
        self._descent = Descent(
            tiles=list(_tiles(engine, settings.tile_rows(engine.n_rows))),
            inverse_gram=(whitening.out @ whitening.out.T).astype(np.float32),
            mean_weight=objective.weight_sum / engine.n_rows,
            alpha=objective.alpha,
            slope=objective.slope,
            settings=settings,
            length=0.0,
            steps=0,
            seed=0,
        )
        self._seconds = 0.0  # of a step, for each neuron
        self._loss_seconds = 0.0  # of a pass that tells where a descent ended

    def descend(self, begin: Weights, steps: int, length: float, seed: int) -> Weights:
        """Take some steps; where they end, the neurons balanced.

        It stops early where the run has to end, and is back at the start if it diverges.

        Parameters
        ----------
        begin : Weights
        steps : int
        length : float
            One of the settings' lengths.
        seed : int
            Of the order of the tiles.
        """
        if begin.n_hidden == 0:
            return begin
        descent = replace(self._descent, length=length, steps=steps, seed=seed)
        made = partial(self._run, descent, begin)
        ended: Weights = self.objective.monitor.journal.step("descent", made)
        return ended

    def loss(self, weights: Weights) -> float:
        """The objective over the rows."""
        clock = self.objective.monitor.clock
        begun = clock.seconds
        loss, _ = self.objective.evaluate(weights)
        self._loss_seconds = clock.seconds - begun
        return loss

    def refitted(self, weights: Weights, loss: float) -> tuple[Weights, float]:
        """With the output layer at its critical point where that lowers ``loss``, and balanced.

        Only where few rows are all: its Gram matrix over many rows costs hundreds of steps, which
        lower the loss by more.
        """
        if self._few is self.objective and not self.objective.monitor.stopped:
            refitted, refitted_loss = self.objective.refit_output(weights)
            if refitted_loss < loss:
                weights, loss = refitted, refitted_loss
        return self.objective.balanced(weights, loss)

    def affordable(self, weights: Weights) -> float:
        """Steps for each neuron that there is time for, times the neurons; without a limit inf.

        The first time a few steps from ``weights`` are made to know it.
        """
        clock, journal = self.objective.monitor.clock, self.objective.monitor.journal
        if not clock.limited or journal.replaying or weights.n_hidden == 0:
            return np.inf
        if self._seconds == 0.0:
            descent = replace(self._descent, length=self.settings.lengths[-1], steps=_TIMED)
            begun = clock.seconds
            state = descent.init(weights)
            while not descent.done(state):
                state = descent.step(state)
            self._seconds = (clock.seconds - begun) / (_TIMED * weights.n_hidden)
        return max(0.0, clock.seconds_left - self._loss_seconds) / self._seconds

    def _run(self, descent: Descent, begin: Weights) -> Weights:
        clock = self.objective.monitor.clock
        begun = clock.seconds
        with np.errstate(over="ignore", invalid="ignore"):  # of a descent that diverges
            state = run(descent, begin, self.objective, save_every=LOOK)
        if state.taken == descent.steps:
            self._seconds = (clock.seconds - begun) / (state.taken * begin.n_hidden)
        if not state.weights.is_finite():
            return begin
        return state.weights.astype(np.float64).balanced()


def _tiles(engine: LocalEngine, rows: int) -> Iterator[Block]:
    """The rows of an engine, which come in random order, in tiles of about so many, as float32."""
    for x, y in engine.tiles:
        ends = np.linspace(0, len(x), max(1, round(len(x) / rows)) + 1).astype(int)
        for start, stop in pairwise(ends):
            part = x[start:stop], y[start:stop]
            yield Block(*(values.astype(np.float32, copy=False) for values in part))
