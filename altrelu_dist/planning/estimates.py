"""Time and memory of the stages of a run on one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from altrelu_dist.planning.arithmetic import multiply_adds
from altrelu_dist.planning.calls import PASSES, Call, Range, Shape, Stage
from altrelu_dist.planning.memory import worker_bytes
from altrelu_dist.planning.model import Clock, Limit, limit_of

__all__ = ["Estimate", "PlannedStage", "estimate_of", "steps_of"]


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run, as the progress names it.

    Ranges are the least, the typical and the most: what the data decides is known only then.

    Attributes
    ----------
    name : str
    rows : int
        That it works on.
    neurons : tuple of int
        Fewest and most neurons.
    rounds : Range
        Growth stages, cycles, descents or steps.
    passes : Range
        Over the whole data.
    reads : Range
        Those of them that go to where the data lies.
    multiply_adds : Range
    seconds : Range
        On this machine.
    """

    name: str
    rows: int
    neurons: tuple[int, int]
    rounds: Range
    passes: Range
    reads: Range
    multiply_adds: Range
    seconds: Range


@dataclass(frozen=True)
class Estimate:
    """Time and memory of a run on one cluster.

    Attributes
    ----------
    workers, threads : int
        Processes, and threads of each; no workers: threads of the process that trains.
    seconds : Range
    bytes_read : Range
        As stored.
    worker_memory : int
        Peak bytes of a worker.
    memory_limit : int or None
        Bytes a worker may hold.
    cached : bool
        Whether the workers keep the data, so that it is read once.
    limit : Limit or None
        Where more workers stop to help; None on this machine.
    """

    workers: int
    threads: int
    seconds: Range
    bytes_read: Range
    worker_memory: int
    memory_limit: int | None
    cached: bool
    limit: Limit | None = None


def steps_of(clock: Clock, stages: Sequence[Stage]) -> tuple[PlannedStage, ...]:
    """The stages with their cost on one cluster."""
    shape = clock.shape
    made = []
    for stage in stages:
        passes = [call for call in stage.calls if _is_pass(call, shape)]
        made.append(
            PlannedStage(
                stage.name,
                stage.rows,
                stage.neurons,
                stage.rounds,
                Range.total(call.count for call in passes),
                Range.total(call.count for call in passes if call.everywhere),
                Range.total(call.count.times(_work(call, shape)) for call in stage.calls),
                clock.seconds(stage),
            )
        )
    return tuple(made)


def estimate_of(clock: Clock, stages: Sequence[Stage]) -> Estimate:
    """Time and memory on one cluster, and where more workers stop to help."""
    shape, blocks, cluster = clock.shape, clock.blocks, clock.cluster
    planned = steps_of(clock, stages)
    stored = shape.n * blocks.row_bytes * clock.stored
    reads = Range.exactly(1) if clock.cached else Range.total(stage.reads for stage in planned)
    workers, threads = max(1, cluster.workers), cluster.threads
    peak = worker_bytes(shape, blocks, clock.method, workers, threads, cached=clock.cached)
    return Estimate(
        workers=cluster.workers,
        threads=threads,
        seconds=Range.total(stage.seconds for stage in planned),
        bytes_read=reads.times(stored),
        worker_memory=peak,
        memory_limit=cluster.memory,
        cached=clock.cached,
        limit=limit_of(clock, stages) if cluster.cores is None else None,
    )


def _is_pass(call: Call, shape: Shape) -> bool:
    return call.kernel in PASSES and call.rows >= shape.n and not call.rides


def _work(call: Call, shape: Shape) -> float:
    work = multiply_adds(call.kernel, call.columns or shape.p, shape.q, call.neurons)
    return work * call.rows if call.rows else work
