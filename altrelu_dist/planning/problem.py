"""What is planned for: the sizes of the data, how they lie, and the machine at hand."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import psutil

from altrelu_dist.errors import ParameterError
from altrelu_dist.planning.calls import Shape
from altrelu_dist.planning.memory import Blocks
from altrelu_dist.planning.model import Cluster

if TYPE_CHECKING:
    from altrelu_dist.data import DataSet
    from altrelu_dist.data.finding import Choice

__all__ = ["machine_memory", "problem_of", "this_machine"]

# Limits of the two versions of control groups, as `distributed` reads them.
_CONTROL_GROUPS = (
    "memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes",
    "memory.max", "memory.high", "memory.low",
)  # fmt: skip
_BLOCK_BYTES = 16 << 20  # of data that are not here: what one task reads where we choose it


def problem_of(
    store: str | os.PathLike[str] | None,
    n_hidden: int,
    rows: float | None,
    features: int | None,
    targets: int | None,
    n_levels: int,
    **choice: Unpack[Choice],
) -> tuple[DataSet | None, Shape, Blocks, float]:
    """The data if there are any, their sizes, their blocks, and bytes on disk of one in memory."""
    if rows is not None and not (math.isfinite(rows) and rows >= 2):
        raise ParameterError(f"is {rows:g}; expected at least 2", parameter="rows")
    if n_hidden < 1:
        raise ParameterError(f"is {n_hidden}; expected at least 1", parameter="n_hidden")
    if store is None:
        if rows is None or features is None:
            raise ParameterError("without a store give rows and features")
        q = targets or 1
        row_bytes = (features + q) * np.dtype(np.float32).itemsize
        shape = Shape(int(rows), features, q * n_levels, n_hidden, np.dtype(np.float32))
        block_rows = min(shape.n, max(1, _BLOCK_BYTES // (shape.d * shape.dtype.itemsize)))
        return None, shape, Blocks(-(-shape.n // block_rows), block_rows, row_bytes), 1.0
    if features is not None or targets is not None:
        raise ParameterError("features and targets are those of the store; leave them out")
    from altrelu_dist.data.dataset import dataset_of
    from altrelu_dist.data.description import bytes_on_disk
    from altrelu_dist.data.finding import find_sources

    found = find_sources(store, require_target=True, **choice)
    data = dataset_of(found, store)
    arrays = [a for a in (data.X, data.y, data.sample_weight) if a is not None]
    n, d = data.X.shape
    q = data.n_outputs * n_levels
    dtype = np.dtype("f4" if data.X.dtype == np.float32 else "f8")  # as an estimator computes
    shape = Shape(n if rows is None else int(rows), d, q, n_hidden, dtype)
    in_memory = sum(int(array.nbytes) for array in arrays)
    stored = sum(bytes_on_disk(source) for source in found.sources) / in_memory
    count = math.ceil(data.X.numblocks[0] * shape.n / n)
    block_rows = min(max(data.X.chunks[0]), shape.n)
    return data, shape, Blocks(count, block_rows, in_memory // n), stored


def this_machine() -> Cluster:
    """The workers that Dask starts here by default."""
    from dask.system import CPU_COUNT
    from distributed.deploy.utils import nprocesses_nthreads

    workers, threads = nprocesses_nthreads()
    return Cluster(workers, threads, machine_memory() // workers, cores=CPU_COUNT)


def machine_memory() -> int:
    """Bytes that processes may use here; in a task, those of its worker."""
    if "distributed" not in sys.modules:  # importing it takes most of a second
        return _memory_limit()
    from distributed import get_worker
    from distributed.system import MEMORY_LIMIT

    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # this is no task
        limit = None
    return int(limit or MEMORY_LIMIT)


def _memory_limit() -> int:
    """Bytes of the machine, or of what its control groups and its user leave to a process."""
    limits = [int(psutil.virtual_memory().total)]
    for name in _CONTROL_GROUPS:
        with suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
    if sys.platform != "win32":
        import resource

        limits.append(resource.getrlimit(resource.RLIMIT_RSS)[1])
    return min(limit for limit in limits if limit > 0)
