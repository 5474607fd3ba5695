"""Seconds of a run on a cluster: pure arithmetic on what is to be done and how fast a core is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from altrelu_dist.engine import FAN_IN, TILE
from altrelu_dist.inputs import room_for_data
from altrelu_dist.planning.calls import ONE_THREAD, Call, Range, Shape, Stage
from altrelu_dist.planning.memory import Blocks, contribution_bytes
from altrelu_dist.planning.rates import Rates

__all__ = ["Clock", "Cluster", "Limit", "Pass", "limit_of"]

# Dask's own work, in Python, measured with passes over thousands of tiny blocks, on up to 300
# workers (examples/benchmarks/scheduler.py). The scheduler is one thread; Dask's documentation says
# 0.2 to 1 ms a task.
_SCHEDULER = 8e-4  # seconds a task, in the scheduler
_SCHEDULER_A_WORKER = 1e-6  # more, for each worker: it is told of all that hold the weights
_GRAPH = 5e-4  # seconds a block, in the process that trains, before the first task can start
_TASK = 1.5e-3  # seconds a task, in the worker, beside the task's own work
_TASK_IN_THREADS = 3e-4  # the same where Dask's threads of this process do the work
_HOP = 5e-3  # seconds from the end of a task to the start of the one that waits for it
_NETWORK = 1e8  # bytes a second into one process
_GAIN = 0.1  # of the time: doubling the workers for less is not worth it


@dataclass(frozen=True)
class Cluster:
    """Where the passes over all rows run.

    Parameters
    ----------
    workers : int
        Processes; 0 for threads of the process that trains.
    threads : int
        Of each.
    memory : int or None
        Bytes that each may hold, if there is a limit.
    cores : int or None
        That all of them share, on one machine; None: each thread has a core of its own.
    bandwidth : float
        Bytes a second that the storage gives to all workers together, as stored.
    """

    workers: int
    threads: int
    memory: int | None = None
    cores: int | None = None
    bandwidth: float = math.inf

    @property
    def slots(self) -> int:
        """Tasks that are worked on at once."""
        return max(1, self.workers) * self.threads

    @property
    def at_once(self) -> int:
        """Tasks that have a core."""
        return self.slots if self.cores is None else min(self.slots, self.cores)

    def caches(self, n_bytes: int) -> bool:
        """Whether the data is read once and kept."""
        if self.workers == 0 or self.memory is None:
            return False
        return n_bytes <= room_for_data(self.memory) * self.workers


@dataclass(frozen=True)
class Pass:
    """Seconds of one pass over all rows, by what they go to.

    The graph is made first, the tree ends it; between them the slowest of the others decides.
    """

    graph: float
    scheduler: float
    compute: float
    reading: float
    tree: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.graph + max(self.scheduler, self.compute, self.reading) + self.tree

    @property
    def slowest(self) -> str:
        """What decides."""
        middle = {name: getattr(self, name) for name in ("scheduler", "compute", "reading")}
        name = max(middle, key=lambda each: middle[each])
        if max(self.graph, self.tree) > middle[name]:
            return "scheduler" if self.graph > self.tree else "tree"
        return name


@dataclass(frozen=True)
class Clock:
    """Tells how long what a run does takes.

    Parameters
    ----------
    shape : Shape
    blocks : Blocks
    stored : float
        Bytes on disk of a byte in memory.
    method : str
    rates : Rates
    cluster : Cluster
    """

    shape: Shape
    blocks: Blocks
    stored: float
    method: str
    rates: Rates
    cluster: Cluster

    @property
    def cached(self) -> bool:
        """Whether the workers keep the data after the first pass."""
        return self.cluster.caches(self.shape.n * self.blocks.row_bytes)

    def seconds(self, stage: Stage) -> Range:
        """Of a stage."""
        return Range.total(call.count.times(self.one(call)) for call in stage.calls)

    def one(self, call: Call) -> float:
        """Of one run of a kernel."""
        if call.everywhere and not call.rides:
            return self.one_pass(call).seconds
        if call.everywhere:
            work = call.rows * self.rates.seconds(call.kernel, call.neurons, call.columns)
            return work / self.cluster.at_once
        return self._here(call)

    def _here(self, call: Call) -> float:
        """In the process that trains, its threads on tiles side by side."""
        each = self.rates.seconds(call.kernel, call.neurons, call.columns)
        if call.beside > 1:  # on threads of this process, or of workers with cores of their own
            there = self.cluster.slots if self.cluster.cores is None else 1
            each /= min(max(self.rates.speedup, there), call.beside)
        if call.rows == 0:
            return each
        if call.kernel in ONE_THREAD:
            return call.rows * each
        gain = min(self.rates.speedup, math.ceil(call.rows / TILE))
        return call.rows * each / gain

    def one_pass(self, call: Call, *, first: bool = False) -> Pass:
        """A pass over all rows where they lie; the first reads them in any case."""
        blocks, cluster, rates = self.blocks, self.cluster, self.rates
        in_threads = cluster.workers == 0
        row = rates.seconds(call.kernel, call.neurons)
        if call.kernel not in ("summary", "sample"):
            row += rates.seconds("prepare", 0)
        read_again = first or call.kernel == "summary" or not self.cached
        if read_again:
            row += blocks.row_bytes / rates.read
        task = _TASK_IN_THREADS if in_threads else _TASK
        each = self.shape.n / blocks.count * row + task
        merges = math.ceil(blocks.count / (FAN_IN - 1))
        # Blocks come in rounds, as many as there are threads; the last round may be a short one.
        rounds = math.ceil(blocks.count / cluster.slots) * cluster.slots / cluster.at_once
        compute = min(rounds, float(blocks.count)) * each
        a_task = _SCHEDULER + _SCHEDULER_A_WORKER * cluster.workers
        scheduler = 0.0 if in_threads else (blocks.count + merges) * a_task
        if cluster.cores is not None:  # the scheduler works on the cores of the workers
            compute += scheduler / cluster.cores
        stored = self.shape.n * blocks.row_bytes * self.stored
        depth = max(1, math.ceil(math.log(max(2, blocks.count), FAN_IN)))
        size = contribution_bytes(self.shape, self.method)
        merging = FAN_IN * size * (1 / rates.bandwidth + (0 if in_threads else 1 / _NETWORK))
        return Pass(
            graph=blocks.count * _GRAPH,
            scheduler=scheduler,
            compute=compute,
            reading=stored / cluster.bandwidth if read_again else 0.0,
            tree=depth * (task + (0 if in_threads else _HOP) + merging),
        )


@dataclass(frozen=True)
class Limit:
    """Where more workers stop to help.

    Parameters
    ----------
    workers : int
        Twice as many would save less than a tenth of the time.
    seconds : float
        That the run takes with them.
    reason : {"scheduler", "reading", "tree", "search", "blocks"}
        What most of the time then goes to.
    shares : dict
        Seconds by what they go to, with so many workers.
    """

    workers: int
    seconds: float
    reason: str
    shares: dict[str, float]


def limit_of(clock: Clock, stages: Sequence[Stage]) -> Limit:
    """Find the number of workers beyond which doubling them saves less than a tenth."""
    workers = 1
    now = _shares(_with(clock, workers), stages)
    while True:
        twice = _shares(_with(clock, 2 * workers), stages)
        if sum(twice.values()) > (1 - _GAIN) * sum(now.values()) or workers > 1 << 24:
            break
        workers, now = 2 * workers, twice
    serial = {name: seconds for name, seconds in now.items() if name != "compute"}
    reason = max(serial, key=lambda name: serial[name])
    if now["compute"] > serial[reason] and workers * clock.cluster.threads >= clock.blocks.count:
        reason = "blocks"
    return Limit(workers, sum(now.values()), reason, now)


def _with(clock: Clock, workers: int) -> Clock:
    cluster = replace(clock.cluster, workers=workers, cores=None)
    return replace(clock, cluster=cluster)


def _shares(clock: Clock, stages: Sequence[Stage]) -> dict[str, float]:
    """Seconds of a typical run, by what they go to."""
    shares = dict.fromkeys(("search", "scheduler", "compute", "reading", "tree"), 0.0)
    for stage in stages:
        for call in stage.calls:
            if not call.everywhere:
                shares["search"] += call.count.typical * clock.one(call)
            elif call.rides:
                shares["compute"] += call.count.typical * clock.one(call)
            else:
                made = clock.one_pass(call)
                middle = max(made.scheduler, made.compute, made.reading)
                name = max(
                    ("compute", "scheduler", "reading"), key=lambda each: getattr(made, each)
                )
                shares[name] += call.count.typical * middle
                shares["scheduler"] += call.count.typical * made.graph
                shares["tree"] += call.count.typical * made.tree
    return shares
