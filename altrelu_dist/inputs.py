"""What a user hands over (arrays, tables, Dask, Zarr) as rows that an engine can pass over."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.cluster_errors import workers_of
from altrelu_dist.dask_frames import read_together
from altrelu_dist.engine import DaskEngine, Engine, LocalEngine
from altrelu_dist.errors import ClusterError, DataError
from altrelu_dist.exposure import warn_of_exposure
from altrelu_dist.frames import given, is_dask_frame, real_numbers, unmasked
from altrelu_dist.moments.rows import Rows

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = [
    "SMALL",
    "WORKER_BYTES",
    "current_client",
    "engine_of",
    "is_lazy",
    "kept",
    "lazy_array",
    "local_rows",
    "on_client",
    "room_for_data",
]

SMALL = 64 << 20  # bytes of rows that this process keeps, and trains without workers
_CACHED_SHARE = 0.4  # of the workers' memory: data that fit in it are read once and kept there
# Bytes of a worker that has imported what a task needs and has not read a row. Where xarray is
# installed Dask imports it, and pandas with it.
WORKER_BYTES = (170 if find_spec("xarray") is None else 245) << 20


def is_lazy(data: Any) -> bool:
    """Whether it is a Dask collection or a Zarr array, rather than an array in memory."""
    return hasattr(data, "__dask_graph__") or _is_zarr(data)


def _is_zarr(data: Any) -> bool:
    zarr = sys.modules.get("zarr")
    return zarr is not None and isinstance(data, zarr.Array)


def current_client() -> Client | None:
    """The Dask client of this process, in a task that of its worker; None if there is none.

    Nor is there one where Dask's configuration names a scheduler of this process: Dask's own
    ``compute`` leaves the client out then, too. Nothing is imported to find out.
    """
    if "distributed" not in sys.modules:
        return None
    from dask import config
    from distributed import Client, get_client

    if config.get("scheduler", None) not in (None, "distributed", "dask.distributed"):
        return None
    for current in (lambda: Client.current(allow_global=False), get_client):
        with suppress(ValueError):
            found: Client = current()
            return found
    return None


@contextmanager
def on_client(client: Client | None, **data: Any) -> Iterator[Client | None]:
    """Settle which client works on some data, and have it do all of the block.

    Where the block is in a task, the task gives its place in the worker to others until it ends:
    it waits for theirs, as Dask's own ``compute`` does.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the current one, for lazy data; data in memory needs none.
    **data : array-like
        By their names in messages.

    Yields
    ------
    distributed.Client or None

    Raises
    ------
    ClusterError
        If the client cannot be waited for, or does not have what was persisted of the data.
    """
    lazy = {name: part for name, part in data.items() if is_lazy(part)}
    if lazy and client is None:
        client = current_client()
    _check_persisted(lazy, client)
    if client is None:
        yield None
        return
    _check_client(client)
    with client.as_current(), _seceded():
        yield client


def _check_client(client: Client) -> None:
    if client.status in ("closed", "closing"):
        raise ClusterError("the Dask client is closed: connect again, or leave client=None")
    if client.asynchronous:
        raise ClusterError(
            "the Dask client is asynchronous, and this call waits in its event loop: make the call "
            "in a thread (await asyncio.to_thread(...)), or pass client= a client that is not"
        )


def _check_persisted(lazy: Mapping[str, Any], client: Client | None) -> None:
    """Refuse data that the workers of another client hold: Dask would wait for them in vain."""
    if "distributed" not in sys.modules:
        return
    from distributed import wait
    from distributed.client import futures_of

    for name, part in lazy.items():
        if not hasattr(part, "__dask_graph__"):
            continue
        others = [each for each in futures_of(part) if each.client not in (None, client)]
        for future in others:
            owner = future.client
            if owner.status in ("closed", "closing") or future.status in ("cancelled", "lost"):
                raise ClusterError(
                    f"{name} was persisted on workers that no longer hold it (its Dask client is "
                    f"{owner.status}): persist it again"
                )
            here = None if client is None else client.scheduler.address
            if owner.scheduler.address != here:
                raise ClusterError(
                    f"{name} is persisted on the cluster of another Dask client, at "
                    f"{owner.scheduler.address}, and the client that works on it is "
                    f"{'none' if here is None else f'at {here}'}: pass client= the one that holds "
                    f"it, or persist it again"
                )
        if others:  # the scheduler may hear of our tasks before it hears of theirs
            wait(others)


@contextmanager
def _seceded() -> Iterator[None]:
    from distributed import rejoin, secede
    from distributed.worker import thread_state

    if getattr(thread_state, "key", None) is None:  # this is no task
        yield
        return
    try:
        secede()
    except (ValueError, KeyError):  # a thread of the task's own; it has left its place already
        yield
        return
    try:
        yield
    finally:
        rejoin()


def lazy_array(data: Any, what: str, *, lengths: bool = True) -> da.Array:
    """A Dask collection or Zarr array as a Dask array of numbers.

    Parameters
    ----------
    data : dask.array.Array, dask.dataframe.DataFrame, dask.dataframe.Series or zarr.Array
    what : str
        Its name in messages.
    lengths : bool, default True
        Whether the numbers of rows must be known; they are computed where they are not.
    """
    import dask.array as da

    if _is_zarr(data):
        from altrelu_dist.data.zarr_rows import handed_rows

        data = da.from_array(handed_rows(data, what), chunks=_read_chunks(data), fancy=False)
    elif is_dask_frame(data):
        return read_together({what: data}, lengths=lengths)[what]
    if not isinstance(data, da.Array):
        raise DataError(
            f"{what} is a {type(data).__module__}.{type(data).__name__}; expected a NumPy, Dask "
            f"or Zarr array or a DataFrame"
        )
    if not isinstance(data._meta, np.ndarray):
        raise DataError(
            f"{what} is a sparse array ({type(data._meta).__name__}); make its blocks dense, for "
            f"example with .map_blocks(lambda block: block.toarray())"
        )
    if isinstance(data._meta, np.ma.MaskedArray):
        data = data.map_blocks(unmasked, meta=unmasked(data._meta))
    data = real_numbers(data, what)
    if lengths and any(np.isnan(size) for size in data.shape):
        data = data.compute_chunk_sizes()
    return data


def _read_chunks(array: Any) -> tuple[int, ...]:
    """Stored chunks, whole shards, put together to whole rows of about what one task reads."""
    from altrelu_dist.data.source import READ_BYTES, rows_in

    stored = array.shards or array.chunks
    if not stored:
        return ()
    columns = math.prod(array.shape[1:])
    together = max(1, rows_in(READ_BYTES, columns, array.dtype) // stored[0])
    return (together * stored[0], *array.shape[1:])


def _in_memory(data: Any, what: str) -> NDArray[Any]:
    held: NDArray[Any] = real_numbers(np.asarray(given(data, what, numbers=True).values), what)
    return held


def _columns(data: Any, what: str) -> Any:
    """In two dimensions, those of the weights in one column."""
    if data.ndim == 1:
        data = data[:, None]
    if data.ndim != 2:
        raise DataError(f"{what} has {data.ndim} dimensions, expected 1 or 2")
    if what == "sample_weight" and data.shape[1] != 1:
        raise DataError(f"sample_weight has {data.shape[1]} columns, expected 1")
    return data


def engine_of(X: Any, y: Any, sample_weight: Any = None, client: Client | None = None) -> Engine:
    """Rows of X, y and the weights, checked against each other.

    Data in memory is passed over in this process, unless a client is given; Dask collections and
    Zarr arrays on the client given, else the current one, else with Dask's threads.

    Raises
    ------
    DataError
        If the numbers of rows differ, or there are no rows or columns.
    ClusterError
        If the client is closed or asynchronous.
    """
    given_parts = {"X": X, "y": y}
    if sample_weight is not None:
        given_parts["sample_weight"] = sample_weight
    data = {what: given(part, what, numbers=True).values for what, part in given_parts.items()}
    if not (is_lazy(data["X"]) or is_lazy(data["y"])) and client is None:
        return LocalEngine.of(local_rows(**data))
    import dask.array as da

    client = client or current_client()
    if client is not None:
        _check_client(client)
    warn_of_exposure(client)
    arrays = read_together({what: part for what, part in data.items() if is_dask_frame(part)})
    parts = []
    for what, part in data.items():
        if is_lazy(part):
            rows = _columns(arrays[what] if what in arrays else lazy_array(part, what), what)
            parts.append(rows.rechunk({1: -1}) if rows.numblocks[1] > 1 else rows)
        else:
            parts.append(da.from_array(_columns(_in_memory(part, what), what), chunks=("auto", -1)))
    for name, part in zip(data, parts, strict=True):
        if part.shape[0] != parts[0].shape[0]:
            raise DataError(
                f"X has {parts[0].shape[0]} rows, {name} has {part.shape[0]}: they must be equal"
            )
    n, d = parts[0].shape
    _not_empty(n, d)
    rows = parts[0].chunks[0]
    if 0 in rows:
        rows = tuple(size for size in rows if size)
    parts = [part.rechunk({0: rows}) if part.chunks[0] != rows else part for part in parts]
    X, y, *weight = parts
    return DaskEngine(X, y, weight[0] if weight else None, client)


def kept(engine: Engine) -> Engine:
    """The same rows, for many passes: read once and kept, where there is room for them."""
    if not isinstance(engine, DaskEngine):
        return engine
    _, _, row_bytes = engine.blocks
    if engine.client is None:
        return engine.persisted() if engine.n_rows * row_bytes <= SMALL else engine
    workers = workers_of(engine.client)
    room = sum(room_for_data(worker["memory_limit"] or 0) for worker in workers)
    return engine.persisted() if engine.n_rows * row_bytes <= room else engine


def local_rows(X: Any, y: Any, sample_weight: Any = None) -> Rows:
    """Arrays in memory as rows."""
    X, y = (_columns(_in_memory(data, what), what) for data, what in ((X, "X"), (y, "y")))
    weight = None
    if sample_weight is not None:
        weight = _columns(_in_memory(sample_weight, "sample_weight"), "sample_weight")[:, 0]
    for what, data in (("y", y), ("sample_weight", weight)):
        if data is not None and data.shape[0] != X.shape[0]:
            raise DataError(
                f"X has {X.shape[0]} rows, {what} has {data.shape[0]}: they must be equal"
            )
    _not_empty(*X.shape)
    return Rows(0, X, y, weight)


def _not_empty(n: int, d: int) -> None:
    if n == 0:
        raise DataError("Found array with 0 sample(s): there are no rows to learn from")
    if d == 0:
        raise DataError("Found array with 0 feature(s): there are no columns to learn from")


def room_for_data(memory: int) -> float:
    """Bytes of data that a worker with so much memory keeps."""
    return _CACHED_SHARE * max(0, memory - WORKER_BYTES)
