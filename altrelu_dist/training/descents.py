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
from altrelu_dist.training.kronecker import LOOK, SETTINGS, Descent, KroneckerSettings, State
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.whitening import Whitening

__all__ = ["Descents"]

_TIMED = 20  # steps at most, from which the time of one is known
_TIMING = 0.005  # of the time that is left, for them
_LOOKS = 20  # at the curvature, in a descent from which it is known anew


class Descents:
    """Descents over the same tiles of rows.

    Parameters
    ----------
    objective : Objective
        Over rows in memory, in random order.
    judging : Objective
        Over the rows on which networks are compared.
    few : Objective
        Over enough of them for the output layer's system; the same object if they are all.
    whitening : Whitening
        Of the inputs; it holds the inverse of their Gram matrix.
    settings : KroneckerSettings
    """

    def __init__(
        self,
        objective: Objective,
        judging: Objective,
        few: Objective,
        whitening: Whitening,
        settings: KroneckerSettings = SETTINGS,
    ) -> None:
        engine = objective.engine
        assert isinstance(engine, LocalEngine)
        self.objective, self.judging = objective, judging
        self._few, self.settings = few, settings
        self.n_rows = engine.n_rows
        self._tile_rows = settings.tile_rows(engine.n_rows)
        self._descent = Descent(
            tiles=list(_tiles(engine, self._tile_rows)),
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
        """The objective over the rows on which networks are compared."""
        clock = self.objective.monitor.clock
        begun = clock.seconds
        loss = self.judging.loss(weights)
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
            self._time(weights)
        return self._steps_left(weights) * weights.n_hidden

    def _steps_left(self, weights: Weights) -> float:
        seconds = max(0.0, self.objective.monitor.clock.seconds_left - self._loss_seconds)
        return seconds / (self._seconds * weights.n_hidden)

    @property
    def tile_rows(self) -> int:
        """Rows of a tile."""
        return self._tile_rows

    def cut(self, tile_rows: int) -> None:
        """Cut the rows into tiles of another size."""
        if tile_rows == self._tile_rows:
            return
        assert isinstance(self.objective.engine, LocalEngine)
        tiles = list(_tiles(self.objective.engine, tile_rows))
        self._descent, self._tile_rows = replace(self._descent, tiles=tiles), tile_rows

    def _halved(self) -> bool:
        """Make the tiles half as large, if they may be."""
        rows = self._tile_rows // 2
        if rows < self.settings.usual_rows:
            return False
        self.cut(rows)
        return True

    def _time(self, weights: Weights) -> None:
        """Time steps from ``weights``; where there are few, tiles are made smaller."""
        renewal = self.settings.renewal_of(weights.n_hidden)
        descent = replace(self._descent, length=self.settings.lengths[-1], steps=renewal)
        first, state = self._timed(descent, descent.init(weights))  # it looks at the curvature
        while True:
            each, _ = self._timed(descent, state)
            self._seconds = (each + max(0.0, first - each) / renewal) / weights.n_hidden
            if self._steps_left(weights) >= self.settings.few_steps or not self._halved():
                return
            descent = replace(descent, tiles=self._descent.tiles)

    def _timed(self, descent: Descent, begin: State) -> tuple[float, State]:
        """Seconds of the step from a state, and the next one.

        The first time, which may take longer, counts only if there is no time for others.
        """
        clock = self.objective.monitor.clock
        enough = _TIMING * clock.seconds_left
        begun = clock.seconds
        state = descent.step(begin)
        seconds = clock.seconds - begun
        taken, begun = 0, clock.seconds
        while seconds < enough and taken < _TIMED and clock.seconds - begun < enough:
            descent.step(begin)
            taken += 1
        return (clock.seconds - begun) / taken if taken else seconds, state

    def _run(self, descent: Descent, begin: Weights) -> Weights:
        clock = self.objective.monitor.clock
        begun = clock.seconds
        with np.errstate(over="ignore", invalid="ignore"):  # of a descent that diverges
            state = run(descent, begin, self.objective, save_every=LOOK)
        if state.taken == descent.steps >= _LOOKS * self.settings.renewal_of(begin.n_hidden):
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
