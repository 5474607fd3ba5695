"""How fast this machine is: the trainer's own kernels, timed for about a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments.kinks import KinkMoments
from altrelu_dist.moments.loss import HiddenMoments, LossAndGradient
from altrelu_dist.moments.pattern import PatternDelta, PatternMoments
from altrelu_dist.moments.rows import Block, Floats, Rows, Weights
from altrelu_dist.moments.sample import Sampler, distinct
from altrelu_dist.moments.summary import summarise
from altrelu_dist.planning.work import Shape, multiply_adds
from altrelu_dist.solvers.hidden_layer import DampedSystem
from altrelu_dist.threads import n_threads, one_blas_thread
from altrelu_dist.training import damped
from altrelu_dist.training.neurons import insert, remove
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.progress import Monitor
from altrelu_dist.training.quasi_newton import _MEMORY, quasi_newton
from altrelu_dist.training.whitening import Whitening

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.data import DataSet

__all__ = ["Cost", "Rates", "measure"]

_MOST_WORK = 4e8  # multiply-adds of one run of what is timed: larger ones are timed in part
_LEAST_SECONDS = 0.03
_LEAST_ROWS = 64
_SYSTEM = 640  # unknowns of the dense system that is timed
_ITERATIONS = _MEMORY + 5  # so that the quasi-Newton method's memory is full at the end
_READ_SECONDS = 0.25
_READ_ROWS = 1 << 16  # of the store that stands for data which are not here


class Cost(NamedTuple):
    """Seconds of a kernel on one thread: for each run, and for each row.

    Both grow with the neurons, ``row`` and ``run`` being those of a network of ``neurons``: a part
    of them stays as it is, the other grows as the multiply-adds do.
    """

    neurons: int
    row: float
    run: float = 0.0
    row_base: float = 0.0
    run_base: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What was measured, for a problem of some columns and targets.

    Parameters
    ----------
    multiply_adds : float
        A second, of a large matrix product on one thread.
    bandwidth : float
        Bytes a second that one thread adds up.
    read : float
        Bytes a second, as they are in memory, that one thread reads and decodes.
    threads : int
        That work on rows in memory here.
    speedup : float
        Of all these threads together over one.
    busy : float
        Seconds that pass in a second of a thread's work, because other processes work as well.
    costs : dict
        By kernel, in seconds of a thread's work.
    """

    shape: Shape
    multiply_adds: float
    bandwidth: float
    read: float
    threads: int
    speedup: float
    busy: float
    costs: dict[str, Cost]

    def row_seconds(self, kernel: str, neurons: int) -> float:
        """Of one row on one thread."""
        cost = self.costs[kernel]
        work = cost.row_base + (cost.row - cost.row_base) * self._growth(kernel, neurons)
        return work * self.busy

    def run_seconds(self, kernel: str, neurons: int) -> float:
        """Of one run, whatever the rows."""
        cost = self.costs[kernel]
        work = cost.run_base + (cost.run - cost.run_base) * self._growth(kernel, neurons)
        return work * self.busy

    def _growth(self, kernel: str, neurons: int) -> float:
        p, q = self.shape.p, self.shape.q
        timed = multiply_adds(kernel, p, q, self.costs[kernel].neurons)
        return multiply_adds(kernel, p, q, neurons) / timed if timed else 1.0


def measure(shape: Shape, data: DataSet | None = None) -> Rates:
    """Time what a run of this shape is made of.

    Parameters
    ----------
    shape : Shape
    data : DataSet, optional
        Its first blocks are read; without data a small store is written and read.
    """
    rng = np.random.default_rng(0)
    read = _reading(data) if data is not None else _reading_of_random_numbers(shape, rng)
    with one_blas_thread():
        peak = _product_rate(shape, rng)
        bench = _Bench(shape, rng)
        threads, speedup = bench.side_by_side()
        begun, work = time.perf_counter(), time.thread_time()
        costs = bench.costs()
        passed, work = time.perf_counter() - begun, time.thread_time() - work
        return Rates(
            shape=shape,
            multiply_adds=peak,
            bandwidth=_bandwidth(),
            read=read,
            threads=threads,
            speedup=speedup,
            busy=max(1.0, passed / work),
            costs=costs,
        )


class _Bench:
    """A small problem of the same columns, and the time that the trainer's parts take on it."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        self.shape = shape
        rows = int(_MOST_WORK / multiply_adds("loss", shape.p, shape.q, shape.h))
        self._rows = int(np.clip(rows, _LEAST_ROWS, TILE))
        self._raw = Rows(
            0,
            rng.standard_normal((self._rows, shape.d)).astype(shape.dtype),
            rng.standard_normal((self._rows, shape.q)).astype(shape.dtype),
        )
        self._block = summarise(self._raw).scaler(shape.dtype)(self._raw)
        self._rng = rng

    def side_by_side(self) -> tuple[int, float]:
        """The threads that work on tiles in memory, and what they gain."""
        threads = n_threads()
        if threads == 1:
            return 1, 1.0
        # A view of more than one tile: what is measured is the cores, not the memory's size.
        engine = LocalEngine([self._block] * 2 * threads, 2 * threads * self._rows)
        kernel = LossAndGradient(self._network(self.shape.h))
        alone = _timed(lambda: kernel(self._block), time.perf_counter) * 2 * threads
        together = _timed(lambda: engine.reduce(kernel, "loss"), time.perf_counter)
        return threads, float(np.clip(alone / together, 1.0, threads))

    def costs(self) -> dict[str, Cost]:
        h = self.shape.h
        width = max(1, min(h, damped.LARGEST_SYSTEM // self.shape.p))
        scaler = summarise(self._raw).scaler(self.shape.dtype)
        block = self._block
        found = {
            "summary": Cost(0, _timed(lambda: summarise(self._raw)) / self._rows),
            "sample": Cost(0, _timed(lambda: Sampler(1.0, 0)(self._raw)) / self._rows),
            "distinct": Cost(0, _timed(lambda: distinct(self._raw, 0)) / self._rows),
            "prepare": Cost(0, _timed(lambda: scaler(self._raw)) / self._rows),
            "whiten": Cost(0, _timed(lambda: block.x.T @ block.x) / self._rows),
            "loss": self._loss(),
            "output": Cost(h, self._row_seconds("output", h, lambda n: HiddenMoments(n.W))),
            "gram": self._gram(width),
            "delta": self._delta(width),
            "kinks": self._kinks(width),
        }
        return found | self._searching() | self._dense(width)

    def _network(self, h: int) -> Weights:
        p, q = self.shape.p, self.shape.q
        W = self._rng.standard_normal((p, h)) / np.sqrt(p)
        return Weights(W, self._rng.standard_normal((h, q)), np.zeros(q))

    def _part(self, kernel: str, h: int) -> Block:
        each = multiply_adds(kernel, self.shape.p, self.shape.q, h)
        rows = int(np.clip(_MOST_WORK / each, _LEAST_ROWS, self._rows))
        return Block(self._block.x[:rows], self._block.y[:rows])

    def _row_seconds(
        self, kernel: str, h: int, statistic: Callable[[Weights], Callable[[Block], Any]]
    ) -> float:
        part = self._part(kernel, h)
        contribute = statistic(self._network(h))
        return _timed(lambda: contribute(part)) / len(part.x)

    def _loss(self) -> Cost:
        """At two widths: what of it the columns and rows cost whatever the neurons."""
        few, h = max(1, self.shape.h // 4), self.shape.h
        row = self._row_seconds("loss", h, LossAndGradient)
        run = max(0.0, self._iteration(h) - _LEAST_ROWS * row)
        if few == h:
            return Cost(h, row, run, row, run)
        row_few = self._row_seconds("loss", few, LossAndGradient)
        run_few = max(0.0, self._iteration(few) - _LEAST_ROWS * row_few)
        share = few / h
        row_base = max(0.0, (row_few - share * row) / (1 - share))
        run_base = max(0.0, (run_few - share * run) / (1 - share))
        return Cost(h, row, run, min(row, row_base), min(run, run_base))

    def _iteration(self, h: int) -> float:
        """Seconds of one function value in a quasi-Newton descent over next to no rows."""
        objective = self._objective(_LEAST_ROWS)
        network, whitening = self._network(h), Whitening.of(objective)
        objective.reduce(LossAndGradient(network), "loss")
        before = objective.monitor.passes
        begun = time.thread_time()
        quasi_newton(objective, network, _ITERATIONS, whitening=whitening)
        return (time.thread_time() - begun) / (objective.monitor.passes - before)

    def _objective(self, rows: int) -> Objective:
        block = Block(self._block.x[:rows], self._block.y[:rows])
        engine = LocalEngine([block], len(block.x))
        return Objective(engine, Monitor(), 0.0, 0.0, True, float(len(block.x)))

    def _gram(self, width: int) -> Cost:
        p, q = self.shape.p, self.shape.q
        while width > 1 and multiply_adds("gram", p, q, width) * 512 > 2 * _MOST_WORK:
            width = (width + 1) // 2
        rows = min(512, self._rows)
        part = Block(self._block.x[:rows], self._block.y[:rows])
        kernel = PatternMoments(self._network(width).W)
        return Cost(width, _timed(lambda: kernel(part)) / rows)

    def _delta(self, width: int) -> Cost:
        p, q = self.shape.p, self.shape.q
        while width > 1 and multiply_adds("delta", p, q, width) * self._rows > 2 * _MOST_WORK:
            width = (width + 1) // 2
        W = self._network(width).W
        kernel = PatternDelta(W, W + 0.05 * self._network(width).W)
        return Cost(width, _timed(lambda: kernel(self._block)) / self._rows)

    def _kinks(self, width: int) -> Cost:
        p, q = self.shape.p, self.shape.q
        while width > 1 and multiply_adds("kinks", p, q, width) * self._rows > _MOST_WORK:
            width = (width + 1) // 2
        kernel = KinkMoments(self._network(width), damped._KINK_WIDTH)
        return Cost(width, _timed(lambda: kernel(self._block)) / self._rows)

    def _searching(self) -> dict[str, Cost]:
        h = self.shape.h
        objective = self._objective(self._rows)
        network = self._network(h)
        row = self._row_seconds("output", h, lambda n: HiddenMoments(n.W))
        # The choice among the candidates depends on no row, their products do.
        few = max(_LEAST_ROWS, self._rows // 8)
        fewer = self._objective(few)
        count = max(1, h // 8)
        all_rows = _timed(lambda: insert(objective, network, count, self._rng))
        few_rows = _timed(lambda: insert(fewer, network, count, self._rng))
        each = max(0.0, (all_rows - few_rows) / max(1, self._rows - few))
        choice = max(0.0, few_rows - few * each)
        removal = _timed(lambda: remove(objective, network, 1)) - self._rows * row
        return {
            "insert": Cost(h, each, choice, 0.0, choice),
            "remove": Cost(h, 0.0, max(0.0, removal)),
        }

    def _dense(self, width: int) -> dict[str, Cost]:
        p = self.shape.p
        h = max(1, min(width, _SYSTEM // p))
        network = self._network(h)
        few = Block(self._block.x[: 4 * _LEAST_ROWS], self._block.y[: 4 * _LEAST_ROWS])
        moments = PatternMoments(network.W)(few)
        kinks = KinkMoments(network, damped._KINK_WIDTH)(few).blocks
        gradient = LossAndGradient(network)(few)
        ones = float(len(few.x))

        def build() -> DampedSystem:
            return DampedSystem(moments, network, kinks, ones, 0.0)

        system = build()
        step = _timed(lambda: system.step(gradient, 1e-3))
        return {
            "system": Cost(h, 0.0, _timed(build)),
            "step": Cost(h, 0.0, step),
            "solve": Cost(h, 0.0, step),
        }


def _timed(run: Callable[[], Any], clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds of one run by a clock, that of this thread's own work: the median of a few runs."""
    found: list[float] = []
    while len(found) < 2 or (sum(found) < _LEAST_SECONDS and len(found) < 25):
        begun = clock()
        run()
        found.append(clock() - begun)
    return float(np.median(found[1:]))


def _product_rate(shape: Shape, rng: np.random.Generator) -> float:
    size = 512
    a = rng.standard_normal((size, size)).astype(shape.dtype)
    return float(size**3 / _timed(lambda: a @ a))


def _bandwidth() -> float:
    a: Floats = np.ones(1 << 21)
    return float(3 * a.nbytes / _timed(lambda: a + a))


def _reading(data: DataSet) -> float:
    """Bytes a second of one reader, from blocks all over the data."""
    arrays = [a for a in (data.X, data.y, data.sample_weight) if a is not None]
    blocks = data.X.numblocks[0]
    order = np.unique(np.linspace(0, blocks - 1, 9).astype(int)).tolist()
    _read_block(arrays, order[0])  # what is loaded at the first read is not the data's
    count, begun = 0, time.perf_counter()
    for block in order[1:] or order:
        count += _read_block(arrays, block)
        if time.perf_counter() - begun > _READ_SECONDS:
            break
    return count / (time.perf_counter() - begun)


def _read_block(arrays: list[da.Array], block: int) -> int:
    from dask.base import compute

    found = compute(*(array.blocks[block] for array in arrays), scheduler="synchronous")
    return sum(int(part.nbytes) for part in found)


def _reading_of_random_numbers(shape: Shape, rng: np.random.Generator) -> float:
    from altrelu_dist.data import convert, open_dataset

    rows = max(_LEAST_ROWS, min(_READ_ROWS, (8 << 20) // (shape.d * shape.dtype.itemsize)))
    with TemporaryDirectory(prefix="altrelu-plan-") as folder:
        X = rng.standard_normal((rows, shape.d)).astype(shape.dtype)
        y = rng.standard_normal((rows, shape.q)).astype(shape.dtype)
        np.savez(f"{folder}/random.npz", X=X, y=y)
        convert(f"{folder}/random.npz", f"{folder}/random.zarr")
        return _reading(open_dataset(f"{folder}/random.zarr"))
