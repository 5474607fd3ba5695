"""What does not fit in memory is refused, with what would."""

from __future__ import annotations

from altrelu_dist.cluster_errors import workers_of
from altrelu_dist.engine import DaskEngine, Engine
from altrelu_dist.errors import ParameterError
from altrelu_dist.planning.calls import Shape
from altrelu_dist.planning.memory import Blocks, resident, solver_bytes, worker_bytes
from altrelu_dist.planning.model import Cluster
from altrelu_dist.planning.problem import machine_memory
from altrelu_dist.threads import n_threads

__all__ = ["check_run", "check_solver", "check_worker"]

_FITS_ANYWHERE = 1 << 30  # bytes: less is not worth asking how much there is
_USABLE = 0.8  # of a worker's limit: Dask pauses the worker there


def check_solver(shape: Shape, needed: int, memory: int) -> None:
    """Refuse what the process that trains cannot hold."""
    if needed > memory:
        raise ParameterError(
            f"the process that trains needs {_size(needed)} for {shape.h} neurons and {shape.d} "
            f"features, and has {_size(memory)}; use fewer neurons, or a machine with more memory"
        )


def check_worker(shape: Shape, blocks: Blocks, method: str, cluster: Cluster) -> None:
    """Refuse a cluster whose workers cannot hold their tasks, and say what would do."""
    if cluster.memory is None:
        return

    def needed(threads: int, within: Blocks = blocks) -> int:
        """With the data streamed, not kept."""
        return worker_bytes(shape, within, method, cluster.workers, threads, cached=False)

    has = int(_USABLE * cluster.memory)
    wants = needed(cluster.threads)
    if wants <= has:
        return
    would = [f"give each worker {_size(wants / _USABLE)}"]
    fitting = next((t for t in range(cluster.threads - 1, 0, -1) if needed(t) <= has), None)
    if fitting is not None:
        would.append(f"start {fitting} thread{'' if fitting == 1 else 's'} in each")
    rows = blocks.rows
    while rows > 1:
        rows //= 2
        smaller = Blocks(-(-shape.n // rows), rows, blocks.row_bytes)
        if needed(cluster.threads, smaller) <= has:
            would.append(f"store the data in chunks of at most {rows:,} rows")
            break
    if method == "alternating":
        would.append("use the search method, whose sums are small")
    raise ParameterError(
        f"a worker needs {_size(wants)} ({cluster.threads} x a block of {blocks.rows:,} rows, "
        f"{_size(blocks.rows * blocks.row_bytes)}, and the sums of its tasks), and Dask lets it "
        f"use {_size(has)} of its {_size(cluster.memory)}: {', or '.join(would)}"
    )


def check_run(engine: Engine, shape: Shape, method: str) -> None:
    """Refuse to begin where this process cannot hold its share, or a worker its tasks."""
    lazy = engine if isinstance(engine, DaskEngine) else None
    row_bytes = (shape.d + shape.q) * shape.dtype.itemsize
    blocks = Blocks(1, shape.n, row_bytes) if lazy is None else Blocks(*lazy.blocks)
    needed = solver_bytes(shape, blocks, method, resident(), n_threads())
    if needed > _FITS_ANYWHERE:
        check_solver(shape, needed, machine_memory())
    if lazy is None or lazy.client is None:
        return
    workers = workers_of(lazy.client)
    for threads, memory in {(one["nthreads"], one["memory_limit"]) for one in workers}:
        if memory:
            check_worker(shape, blocks, method, Cluster(len(workers), threads, memory))


def _size(count: float) -> str:
    return f"{count / (1 << 30):.2f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
