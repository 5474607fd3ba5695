"""What a user hands over (NumPy, pandas, Dask, Zarr) as rows that an engine can pass over."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.engine import DaskEngine, Engine, LocalEngine
from altrelu_dist.errors import ClusterError, DataError
from altrelu_dist.exposure import warn_of_exposure
from altrelu_dist.moments.rows import Rows

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = [
    "current_client",
    "engine_of",
    "is_lazy",
    "kept",
    "lazy_array",
    "local_rows",
    "on_client",
    "room_for_data",
]

_CACHED_SHARE = 0.4  # of the workers' memory: data that fit in it are read once and kept there
_WORKER = 170 << 20  # bytes of one that has imported what a task needs and has not read a row


def is_lazy(data: Any) -> bool:
    """Whether it is a Dask collection or a Zarr array, rather than an array in memory."""
    return hasattr(data, "__dask_graph__") or _is_zarr(data)


def _is_zarr(data: Any) -> bool:
    zarr = sys.modules.get("zarr")
    return zarr is not None and isinstance(data, zarr.Array)


def current_client() -> Client | None:
    """The Dask client of this process, if there is one; imports nothing to find out."""
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        return Client.current()
    except ValueError:
        return None


@contextmanager
def on_client(client: Client | None) -> Iterator[None]:
    """Have a client that is named do all of the block, whichever is the current one."""
    if client is None:
        yield
        return
    with client.as_current():
        yield


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
        data = da.from_zarr(data, chunks=_read_chunks(data))
    elif hasattr(data, "to_dask_array"):
        data = _one_dtype(data).to_dask_array(lengths=True if lengths else None)
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
    _of_numbers(data, what)
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


def _one_dtype(frame: Any) -> Any:
    """A Dask DataFrame or Series whose numeric columns pandas would only join as objects."""
    from pandas.api.types import is_numeric_dtype

    empty = frame._meta
    dtypes = list(empty.dtypes) if hasattr(empty, "columns") else [empty.dtype]
    if empty.to_numpy().dtype != object or not all(map(is_numeric_dtype, dtypes)):
        return frame
    plain = all(isinstance(dtype, np.dtype) for dtype in dtypes)
    return frame.astype(np.result_type(*dtypes) if plain else np.float64)


def _in_memory(data: Any, what: str) -> NDArray[Any]:
    if hasattr(data, "toarray"):
        raise DataError(f"{what} is sparse ({type(data).__name__}); make it dense: .toarray()")
    held = np.asarray(data)
    _of_numbers(held, what)
    return held


def _of_numbers(data: Any, what: str) -> None:
    if data.dtype.kind not in "biuf":
        raise DataError(
            f"{what} holds {data.dtype}, not numbers; encode its text or categories as numbers"
        )


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
        If the client is closed.
    """
    if not (is_lazy(X) or is_lazy(y)) and client is None:
        return LocalEngine.of(local_rows(X, y, sample_weight))
    import dask.array as da

    def lazy(data: Any, what: str) -> da.Array:
        if is_lazy(data):
            rows = _columns(lazy_array(data, what), what)
            return rows.rechunk({1: -1}) if rows.numblocks[1] > 1 else rows
        return da.from_array(_columns(_in_memory(data, what), what), chunks=("auto", -1))

    client = client or current_client()
    if client is not None and client.status in ("closed", "closing"):
        raise ClusterError("the Dask client is closed: connect again, or leave client=None")
    warn_of_exposure(client)
    parts = [lazy(X, "X"), lazy(y, "y")]
    if sample_weight is not None:
        parts.append(lazy(sample_weight, "sample_weight"))
    names = ("X", "y", "sample_weight")
    for name, part in zip(names, parts, strict=False):
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
    """The same rows, for many passes: read once and kept, where the workers have room for them."""
    if not isinstance(engine, DaskEngine) or engine.client is None:
        return engine
    _, _, row_bytes = engine.blocks
    workers = engine.client.scheduler_info(n_workers=-1)["workers"].values()
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
    return _CACHED_SHARE * max(0, memory - _WORKER)
