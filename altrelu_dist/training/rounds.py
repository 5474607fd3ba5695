"""The Kronecker method: rounds of descents from the same weights, in which step lengths race."""

from __future__ import annotations

from functools import partial

from altrelu_dist.moments.rows import Weights
from altrelu_dist.training.descents import Descents

__all__ = ["Rounds"]

_Round = tuple[Weights, float, int]  # the best end, the loss there, and which length it had


class Rounds:
    """Rounds of descents over rows in memory, each with twice the steps of the one before.

    Parameters
    ----------
    descents : Descents
    seed : int
        Of the order of the tiles.
    """

    def __init__(self, descents: Descents, seed: int) -> None:
        self._descents, self._seed = descents, seed

    def descend(self, weights: Weights, rounds: int) -> tuple[Weights, float, bool]:
        """Make rounds as long as each is worth twice the time of the one before.

        Returns
        -------
        weights : Weights
        loss : float
        ran_out : bool
            Whether it ended because it had made so many ``rounds``.
        """
        judging, settings = self._descents.judging, self._descents.settings
        journal = judging.monitor.journal
        best, loss = 0, journal.step("loss", lambda: self._descents.loss(weights))
        for number in range(rounds):
            before = loss
            step = partial(self._round, number, weights, loss, best)
            weights, loss, best = journal.step("round", step)
            judging.record(loss, weights, length=settings.lengths[best])
            if judging.monitor.stopped or loss > (1 - settings.worth) * before:
                return weights, loss, False
            judging.monitor.counts.fraction = (number + 1) / rounds
        return weights, loss, True

    def _round(self, number: int, begin: Weights, least: float, best: int) -> _Round:
        """Descents from the same weights; the best end or the start.

        The output layer of the best one ends at its critical point.
        """
        descents, settings = self._descents, self._descents.settings
        found = begin
        steps = settings.round_steps(number, descents.n_rows)
        for place in settings.racing(number, best):
            if descents.objective.monitor.stopped:
                break
            length = settings.lengths[place]
            ended = descents.descend(begin, steps, length, self._seed + number)
            loss = descents.loss(ended)
            if loss < least:
                found, least, best = ended, loss, place
        return *descents.refitted(found, least), best
