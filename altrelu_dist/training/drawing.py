"""Rows in memory: drawn from all of them, in an order that depends on the rows alone."""

from __future__ import annotations

from altrelu_dist.engine import Engine
from altrelu_dist.moments.rows import Rows
from altrelu_dist.moments.sample import Sample, Sampler, distinct
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.validation import DrawBoth, HeldOut

__all__ = ["distinct_rows", "draw"]

_LONG, _TIMED = 2**25, 16  # bytes of rows, of which first a part is put in order, to be timed


def draw(
    engine: Engine, sampler: Sampler, held_out: HeldOut | None, monitor: Monitor
) -> tuple[Rows, Rows | None]:
    """A random sample of the training rows, and the rows held out, in memory here."""
    monitor.begin_stage("sample")
    if held_out is None:
        sample, validation = engine.reduce(sampler, "sample", monitor.clock), None
    else:
        both = engine.reduce(DrawBoth(held_out, sampler), "sample", monitor.clock)
        sample, validation = both.first, both.second.shuffled()
    monitor.counts.count_rows(engine.n_rows, whole=True)
    X, y, weight, draws = sample.drawn()
    if X.nbytes > _LONG:
        part = Sample(X, y, weight, draws[: len(X) // _TIMED])
        monitor.clock.give_up_before(part.shuffled, _TIMED)
    return sample.shuffled(), validation


def distinct_rows(rows: Rows, seed: int, monitor: Monitor) -> Rows:
    """The distinct rows, each with its weight summed, shuffled; see `distinct`."""
    if rows.X.nbytes > _LONG:
        part = rows.part(0, len(rows.X) // _TIMED)
        monitor.clock.give_up_before(lambda: distinct(part, seed), _TIMED)
    return distinct(rows, seed)
