"""How fast this machine is: the trainer's own kernels, timed for about a second."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from altrelu_dist.engine import LocalEngine
from altrelu_dist.moments.loss import LossAndGradient
from altrelu_dist.moments.rows import Floats
from altrelu_dist.planning.arithmetic import multiply_adds
from altrelu_dist.planning.calls import Shape
from altrelu_dist.planning.committee_costs import COMMITTEE_KERNELS, committee_cost
from altrelu_dist.planning.plain_costs import plain_cost
from altrelu_dist.planning.reading import reading_rate, reading_rate_of_noise
from altrelu_dist.planning.timing import Bench, Cost, timed
from altrelu_dist.threads import n_threads, one_blas_thread

if TYPE_CHECKING:
    from altrelu_dist.data import DataSet

__all__ = ["Rates", "measure"]


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

    def seconds(self, kernel: str, neurons: int, columns: int = 0) -> float:
        """Of one row on one thread; of a dense step, of one run; 0 columns are the shape's."""
        cost, p, q = self.costs[kernel], columns or self.shape.p, self.shape.q
        size, timed = (_work(kernel, *of) for of in ((p, q, neurons), cost[:3]))
        base = cost.base * (1.0 if cost.constant else (p + q) / (cost.p + cost.q))
        return (base + (cost.seconds - cost.base) * size / timed) * self.busy


def _work(kernel: str, p: int, q: int, h: int) -> float:
    """What the seconds of a kernel are in proportion to."""
    return multiply_adds(kernel, p, q, h) or float(p + q)


def measure(shape: Shape, kernels: Collection[str], data: DataSet | None = None) -> Rates:
    """Time what a run of this shape is made of.

    Parameters
    ----------
    shape : Shape
    kernels : collection of str
        That it uses.
    data : DataSet, optional
        Its first blocks are read; without data a small store is written and read.
    """
    rng = np.random.default_rng(0)
    read = reading_rate(data) if data is not None else reading_rate_of_noise(shape, rng)
    with one_blas_thread():
        peak = _product_rate(shape, rng)
        bench = Bench(shape, rng)
        threads, speedup = _side_by_side(bench)
        begun, work = time.perf_counter(), time.thread_time()
        costs = {
            kernel: (committee_cost if kernel in COMMITTEE_KERNELS else plain_cost)(bench, kernel)
            for kernel in sorted(kernels)
        }
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


def _side_by_side(bench: Bench) -> tuple[int, float]:
    """The threads that work on tiles in memory, and what they gain."""
    threads = n_threads()
    if threads == 1:
        return 1, 1.0
    # A view of more than one tile: what is measured is the cores, not the memory's size.
    block = bench.affordable("loss-and-gradient", bench.h)
    engine = LocalEngine([block] * 2 * threads, 2 * threads * len(block.x))
    kernel = LossAndGradient(bench.network(bench.h))
    alone = timed(lambda: kernel(block), time.perf_counter) * 2 * threads
    together = timed(lambda: engine.reduce(kernel, "loss-and-gradient"), time.perf_counter)
    return threads, float(np.clip(alone / together, 1.0, threads))


def _product_rate(shape: Shape, rng: np.random.Generator) -> float:
    size = 512
    a = rng.standard_normal((size, size)).astype(shape.dtype)
    return float(size**3 / timed(lambda: a @ a))


def _bandwidth() -> float:
    a: Floats = np.ones(1 << 21)
    return float(3 * a.nbytes / timed(lambda: a + a))
