"""Seconds of the kernels of a plain network, and of those that pass over rows as they are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from altrelu_dist.encoding import sketch_columns
from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments.kinks import KinkMoments
from altrelu_dist.moments.loss import HiddenMoments, LossAndGradient, SquaredLoss
from altrelu_dist.moments.pattern import PatternDelta, PatternMoments
from altrelu_dist.moments.rows import Block, Weights
from altrelu_dist.moments.sample import Sampler, distinct
from altrelu_dist.moments.summary import summarise
from altrelu_dist.planning.arithmetic import multiply_adds
from altrelu_dist.planning.timing import Bench, Cost, base_of, step_and_row, timed, timed_steps
from altrelu_dist.solvers.hidden_layer import LevenbergMarquardtSystem
from altrelu_dist.solvers.output_layer import Removal
from altrelu_dist.training import damped, kronecker, neurons
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.quasi_newton import MEMORY, quasi_newton
from altrelu_dist.training.whitening import Whitening

__all__ = ["plain_cost"]

# Most multiply-adds of a statistic under a pattern; a Gram matrix is only itself on a whole tile.
_MOST_WORK = {"gram": 2e9, "delta": 8e8, "kinks": 4e8}
_WEIGHTS = 1 << 15  # of a hidden layer on which the quasi-Newton method is timed
_SYSTEM = 1280  # unknowns of the dense system that is timed
_ITERATIONS = MEMORY + 5  # so that the quasi-Newton method's memory is full at the end
_FEW_ROWS, _FEWEST_ROWS = 64, 16  # on which a descent, and a step, hardly take longer than on none
_CHOICE_ROWS = 512  # whose sums the candidates are chosen by


def plain_cost(bench: Bench, kernel: str) -> Cost:
    """Time one of the kernels of a plain network."""
    if kernel in _OF_ROWS:
        return bench.of_rows(partial(_OF_ROWS[kernel], bench))
    if kernel in _MOST_WORK:
        return _under_pattern(bench, kernel)
    if kernel in _OF_WIDTH:
        return Cost(bench.p, bench.q, bench.h, _OF_WIDTH[kernel](bench, bench.h))
    if kernel in _AT_TWO_WIDTHS:
        h = bench.h if kernel != "iterate" else max(1, min(bench.h, _WEIGHTS // bench.p))
        few, seconds = max(1, h // 4), partial(_AT_TWO_WIDTHS[kernel], bench)
        most = seconds(h)  # of which the columns and rows cost a part whatever the neurons
        return Cost(bench.p, bench.q, h, most, base_of(seconds(few), most, few / h))
    return _dense(bench, kernel)


def _under_pattern(bench: Bench, kernel: str) -> Cost:
    """Of fewer neurons, then of fewer columns, where a tile of all would take long."""
    p, h = bench.p, bench.h

    def is_long() -> bool:
        return multiply_adds(kernel, p, bench.q, h) * TILE > _MOST_WORK[kernel]

    while h > 1 and is_long():
        h = (h + 1) // 2
    while p > 2 and is_long():
        p = (p + 1) // 2
    block = Block(np.ascontiguousarray(bench.tile.x[:, -p:]), bench.tile.y)
    network, move = bench.network(h, p), 0.05 * bench.network(h, p).W
    kernels: dict[str, Callable[[Block], Any]] = {
        "gram": PatternMoments(network.W),
        "delta": PatternDelta(network.W, network.W + move),
        "kinks": KinkMoments(network, damped.KINK_WIDTH),
    }
    return Cost(p, bench.q, h, timed(partial(kernels[kernel], block)) / TILE)


def _statistic(kernel: str, of: Callable[[Weights], Callable[[Block], Any]]) -> _Seconds:
    """Of a row, where the statistic is of a network."""

    def seconds(bench: Bench, h: int) -> float:
        part, run = bench.affordable(kernel, h), of(bench.network(h))
        return timed(lambda: run(part)) / len(part.x)

    return seconds


def _candidates(bench: Bench, h: int) -> float:
    part, network = bench.affordable("insert", h), bench.network(h)
    drawn = bench.rng.standard_normal((bench.p, neurons.CANDIDATES))
    each = neurons.CandidateMoments(drawn, network)
    together = neurons.CandidateProducts(drawn[:, : neurons.n_compared(max(1, h // 8))])
    engine = LocalEngine([part], len(part.x))

    def run() -> None:
        neurons.draw_hinges(engine, network, 0.0, neurons.CANDIDATES, bench.rng)
        each(part)
        together(part)

    return timed(run) / len(part.x)


def _choice(bench: Bench, h: int) -> float:
    part, count = bench.part(_CHOICE_ROWS), max(1, h // 8)
    drawn = bench.rng.standard_normal((bench.p, neurons.CANDIDATES))
    sums = neurons.CandidateMoments(drawn, bench.network(h))(part)
    some = np.arange(neurons.n_compared(count))
    gram = neurons.CandidateProducts(drawn[:, some])(part).gram

    def run() -> None:
        candidates = neurons.Projected.of(sums)
        candidates.gains()
        neurons.insertion_order(candidates.pick(some), gram, count)

    return timed(run)


def _iteration(bench: Bench, h: int) -> float:
    """One function value in a quasi-Newton descent, less what it is made of beside."""
    part, network = bench.part(_FEW_ROWS), bench.network(h)
    engine = LocalEngine([part], _FEW_ROWS)
    objective = Objective(engine, Monitor(), 0.0, 0.0, True, float(_FEW_ROWS), bench.h)
    whitening, kernel = Whitening.of(objective), LossAndGradient(network)
    objective.reduce(kernel, "loss-and-gradient")
    before = objective.monitor.counts.passes
    begun = time.thread_time()
    quasi_newton(objective, network, _ITERATIONS, whitening=whitening)
    each = (time.thread_time() - begun) / (objective.monitor.counts.passes - before)
    return max(0.0, each - timed(lambda: kernel(part)) - _metric(bench, h))


def _metric(bench: Bench, h: int) -> float:
    W, out = bench.network(h).W, bench.rng.standard_normal((bench.p, bench.p))
    return timed(lambda: (out @ W, out.T @ W))


def _step(bench: Bench, h: int, rows: int) -> float:
    """A Kronecker-factored step on so many rows."""
    x, y = bench.part(rows)
    descent = kronecker.Descent(
        tiles=[Block(x.astype(np.float32), y.astype(np.float32))],
        inverse_gram=np.eye(bench.p, dtype=np.float32),
        mean_weight=1.0,
        alpha=0.0,
        slope=0.0,
        settings=kronecker.SETTINGS,
        length=kronecker.SETTINGS.lengths[-1],
        steps=10**6,
        seed=0,
    )
    state = descent.init(bench.network(h))
    return timed_steps(descent.step, state, kronecker.SETTINGS.renewal_of(h))


def _tile_row(bench: Bench, h: int) -> float:
    """What each row of a tile adds to a step."""
    return step_and_row(partial(_step, bench, h), _FEWEST_ROWS, kronecker.SETTINGS.usual_rows)[1]


def _removal(bench: Bench, h: int) -> float:
    moments = HiddenMoments(bench.network(h).W)(bench.tile)

    def run() -> None:
        left = Removal(moments, 0.0)
        for _ in range(h // 6):
            left.drop(int(np.argmin(left.costs())))
        _ = left.output

    return timed(run)


def _dense(bench: Bench, kernel: str) -> Cost:
    """A damped system, or the solution of one, which is that of the paper's as well."""
    p = min(bench.p, _SYSTEM)
    h = max(1, min(bench.h, _SYSTEM // p))
    network, few = bench.network(h), bench.part(4 * _FEW_ROWS)
    moments = PatternMoments(network.W)(few)
    kinks = KinkMoments(network, damped.KINK_WIDTH)(few).blocks

    def build() -> LevenbergMarquardtSystem:
        return LevenbergMarquardtSystem(moments, network, kinks, float(len(few.x)), 0.0)

    if kernel == "system":
        return Cost(p, bench.q, h, timed(build))
    system, gradient = build(), LossAndGradient(network)(few)
    return Cost(p, bench.q, h, timed(lambda: system.step(gradient, 1e-3)))


_Seconds = Callable[[Bench, int], float]

# What passes over a tile and knows no neurons.
_OF_ROWS: dict[str, Callable[[Bench], Any]] = {
    "summary": lambda bench: summarise(bench.raw),
    "sample": lambda bench: Sampler(1.0, 0)(bench.raw),
    "distinct": lambda bench: distinct(bench.raw, 0),
    "prepare": lambda bench: bench.scaler(bench.raw),
    "sketch": lambda bench: sketch_columns(bench.raw),
    "whiten": lambda bench: bench.tile.x.T @ bench.tile.x,
}
# Seconds that are in proportion to the multiply-adds.
_OF_WIDTH: dict[str, _Seconds] = {
    "output": _statistic("output", lambda network: HiddenMoments(network.W)),
    "insert": _candidates,
    "metric": _metric,
    "remove": _removal,
}
# Seconds of which a part is the same for all widths.
_AT_TWO_WIDTHS: dict[str, _Seconds] = {
    "loss-and-gradient": _statistic("loss-and-gradient", LossAndGradient),
    "loss": _statistic("loss", SquaredLoss),
    "choose": _choice,
    "iterate": _iteration,
    "tile": _tile_row,
    "precondition": lambda bench, h: _step(bench, h, _FEWEST_ROWS),
}
