"""One pass over all rows: statistics of row tiles, added up in a tree that nothing can reorder.

The rows are cut into tiles of `TILE` consecutive rows by their numbers, whatever the chunks of the
data are. A statistic maps one tile to its contribution; contributions merge pairwise in the binary
tree over tile numbers. A chunk that ends inside a tile hands the rows of its open ends on, and they
are joined with their neighbours' when the chunks meet. So one chunk, many chunks, any number of
workers or threads, and no Dask at all give the same bits.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np

from altrelu_dist.cluster_errors import explained
from altrelu_dist.errors import DataError
from altrelu_dist.moments.rows import Rows
from altrelu_dist.threads import n_threads, one_blas_thread

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = [
    "FAN_IN",
    "TILE",
    "DaskEngine",
    "Engine",
    "Hurry",
    "LocalEngine",
    "OutOfTimeError",
    "Stops",
    "awaited",
]

TILE = 4096
FAN_IN = 8  # contributions that one task adds up
_LOOK = 5.0  # seconds between two looks at a cluster that is waited for
_HURRIED_LOOK = 0.1  # and at the clock, where the pass may have to be given up

_log = logging.getLogger(__name__)


class Contribution(Protocol):
    """What a statistic returns: it merges with the contribution of the rows that follow."""

    def merge(self, other: Self) -> Self: ...


C = TypeVar("C", bound=Contribution)


class OutOfTimeError(Exception):
    """A pass gave up because the run has to end."""


class Stops(Protocol):
    """What makes one give up waiting."""

    @property
    def stopped(self) -> bool:
        """Whether to give up."""


class Hurry(Stops, Protocol):
    """What makes a pass give up."""

    def in_time(self, statistic: Callable[[Any], C]) -> Callable[[Any], C]:
        """The same statistic of a tile, but where the run has to end an `OutOfTimeError`."""


@dataclass(frozen=True)
class _Open:
    """Rows of a tile that is not complete yet."""

    rows: Rows

    def released(self) -> _Open:
        """Copied, so that the block which they are part of can go before they merge."""
        return _Open(self.rows.copied())


@dataclass(frozen=True)
class _Node:
    """Merged contribution of the tiles from ``index << level`` to before ``index + 1 << level``."""

    level: int
    index: int
    value: Any


_Partial = list["_Open | _Node"]


class Engine(ABC):
    """Runs statistics over all rows."""

    client: Client | None = None  # of the cluster that it runs on

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows

    @abstractmethod
    def reduce(self, statistic: Callable[[Any], C], name: str, hurry: Hurry | None = None) -> C:
        """Pass over all rows once.

        Parameters
        ----------
        statistic : callable
            From one tile of rows to its contribution.
        name : str
            What the tasks are called in the Dask dashboard.
        hurry : Hurry, optional
            Without it the pass is made to its end.

        Raises
        ------
        OutOfTimeError
            If the run has to end before the pass does.
        """

    @abstractmethod
    def prepared(self, prepare: Callable[[Rows], Any]) -> Engine:
        """The same rows, each tile as ``prepare`` turns it out."""


class LocalEngine(Engine):
    """All rows in this process: one BLAS thread a tile, tiles side by side on the cores.

    Parameters
    ----------
    tiles : list
        Consecutive tiles of `TILE` rows, the last one of the rest.
    n_rows : int
    """

    def __init__(self, tiles: list[Any], n_rows: int) -> None:
        super().__init__(n_rows)
        self.tiles = tiles
        self._threads = min(n_threads(), len(tiles))
        self._pool: ThreadPoolExecutor | None = None

    @classmethod
    def of(cls, rows: Rows) -> LocalEngine:
        """Take all rows from memory."""
        return cls(list(_cut(rows)), rows.X.shape[0])

    def prepared(self, prepare: Callable[[Rows], Any]) -> LocalEngine:
        """The same rows, prepared once and kept."""
        return LocalEngine([prepare(tile) for tile in self.tiles], self.n_rows)

    def leading(self, n_tiles: int) -> LocalEngine:
        """Only the first tiles."""
        if n_tiles >= len(self.tiles):
            return self
        return LocalEngine(self.tiles[:n_tiles], n_tiles * TILE)

    def reduce(self, statistic: Callable[[Any], C], name: str, hurry: Hurry | None = None) -> C:
        """Pass over all rows once."""
        del name
        if hurry is not None:
            statistic = hurry.in_time(statistic)
        nodes: _Partial = []
        with one_blas_thread():
            for index, value in enumerate(self._values(statistic)):
                _append(nodes, _Node(0, index, value), statistic, self.n_rows)
        result: C = _root(nodes)
        return result

    def _values(self, statistic: Callable[[Any], C]) -> Iterator[C]:
        """Contributions in the order of the tiles, a few of them held at once."""
        if self._threads == 1:
            yield from map(statistic, self.tiles)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads)
        # A contribution can be as large as a Gram matrix: two a thread keep the threads busy.
        ahead: deque[Future[C]] = deque()
        try:
            for tile in self.tiles:
                ahead.append(self._pool.submit(statistic, tile))
                if len(ahead) > 2 * self._threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


class DaskEngine(Engine):
    """Rows in Dask arrays: one task a block and pass, which reads it and returns its contribution.

    Parameters
    ----------
    X : dask.array.Array of shape (n_rows, n_features), in one block of columns
    y : dask.array.Array of shape (n_rows, n_targets)
    weight : dask.array.Array of shape (n_rows, 1), optional
    client : distributed.Client, optional
        Without one Dask's own local scheduler runs the tasks, in threads of this process.
    prepare : callable, optional
        Applied to every tile before a statistic sees it.
    """

    def __init__(
        self,
        X: da.Array,
        y: da.Array,
        weight: da.Array | None = None,
        client: Client | None = None,
        prepare: Callable[[Rows], Any] | None = None,
    ) -> None:
        super().__init__(int(X.shape[0]))
        self._X, self._y, self._weight = X, y, weight
        self.client = client
        self._prepare = prepare
        self._span = {} if client is None else _span()

    @property
    def blocks(self) -> tuple[int, int, int]:
        """How many there are, the rows of the largest, and the bytes of a row."""
        parts = [part for part in (self._X, self._y, self._weight) if part is not None]
        row_bytes = sum(int(part.nbytes) for part in parts) // self.n_rows
        return int(self._X.numblocks[0]), max(self._X.chunks[0]), row_bytes

    def persisted(self) -> DaskEngine:
        """The same rows, read once and kept: by the client's workers, or in this process."""
        import dask

        parts = [part for part in (self._X, self._y, self._weight) if part is not None]
        X, y, *weight = dask.persist(*parts) if self.client is None else self.client.persist(parts)
        return DaskEngine(X, y, weight[0] if weight else None, self.client, self._prepare)

    def prepared(self, prepare: Callable[[Rows], Any]) -> DaskEngine:
        """The same rows, prepared in the tasks: they are read again each pass."""
        if self._prepare is not None:
            prepare = _Chain(self._prepare, prepare)
        return DaskEngine(self._X, self._y, self._weight, self.client, prepare)

    def reduce(self, statistic: Callable[[Any], C], name: str, hurry: Hurry | None = None) -> C:
        """Pass over all rows once."""
        import dask

        if self.client is None:
            if hurry is not None:  # the tasks are threads of this process
                statistic = hurry.in_time(statistic)
            result: _Partial = dask.compute(self._pass(statistic, name))[0]
        else:
            with explained(self.client):
                result = self._on_workers(self.client, statistic, name, hurry)
        value: C = _root(result)
        return value

    def _on_workers(
        self, client: Client, statistic: Callable[[Any], C], name: str, hurry: Hurry | None
    ) -> _Partial:
        """Make the pass; once more if workers died at it, which need not be its own doing."""
        from distributed import KilledWorker

        try:
            return _made(client, self._pass(statistic, name), self._span, hurry)
        except KilledWorker as error:
            # Machines that are taken away at any time look the same as a lack of memory. New tasks:
            # the scheduler counts deaths by task, and would give up on these at the next one.
            _log.warning(
                "%d workers died one after another at %s: the pass is made again",
                error.allowed_failures + 1,
                name,
            )
        return _made(client, self._pass(statistic, name), self._span, hurry)

    def _pass(self, statistic: Callable[[Any], C], name: str) -> Any:
        """Tasks of their own names, of which the last one ends in the merged contributions."""
        import dask
        import dask.array as da

        # The statistic, with the weights in it, is a key of its own: sent to each worker once, and
        # known to the scheduler, so that it is not lost with a worker.
        key = f"{name}-weights-{uuid.uuid4().hex}"
        shared = dask.delayed(_Tiles(statistic, self._prepare, self.n_rows), name=key)
        arrays = [self._X, self._y] if self._weight is None else [self._X, self._y, self._weight]
        partials = da.map_blocks(
            _block_partial,
            *arrays,
            tiles=shared,
            chunks=((1,) * self._X.numblocks[0], (1,)),
            dtype=object,
            meta=np.empty((0, 0), dtype=object),
            token=name,
        )
        level = list(partials.to_delayed(optimize_graph=True).ravel())
        merge = dask.delayed(_merge_partials, pure=False)
        depth = 0
        while len(level) > 1 or depth == 0:
            level = [
                merge(
                    level[at : at + FAN_IN],
                    shared,
                    dask_key_name=f"{name}-merge-{uuid.uuid4().hex}",
                )
                for at in range(0, len(level), FAN_IN)
            ]
            depth += 1
        return level[0]


def _span() -> dict[str, Any]:
    """The annotation with which Dask counts all passes as one piece of work.

    Without it each is one of its own, and neither the scheduler nor a worker ever forgets what it
    noted of any: some 30 KB a pass.
    """
    import dask
    from distributed import span

    with span("altrelu-dist"):
        return {"span": dask.get_annotations()["span"]}


@dataclass(frozen=True)
class _Chain:
    """One preparation after the other."""

    first: Callable[[Rows], Any]
    second: Callable[[Any], Any]

    def __call__(self, rows: Rows) -> Any:
        return self.second(self.first(rows))


@dataclass(frozen=True)
class _Tiles:
    """What a task needs to know beside its rows."""

    statistic: Callable[[Any], Any]
    prepare: Callable[[Rows], Any] | None
    n_rows: int

    def __call__(self, rows: Rows) -> Any:
        return self.statistic(rows if self.prepare is None else self.prepare(rows))


def _made(client: Client, task: Any, span: dict[str, Any], hurry: Hurry | None) -> _Partial:
    """What a task ends in; whatever that is, the scheduler keeps nothing of it."""
    import dask

    # The graph is made without the annotation, which would keep reading and using a block from
    # becoming one task.
    with dask.annotate(**span):
        future = client.compute(task)
    try:
        result: _Partial = awaited(future, client, hurry)
        return result
    finally:
        # An error's traceback holds this frame: without this the tasks would go on, or be kept.
        # So would those of a pass that is given up.
        future.release()


def awaited(future: Any, client: Client, hurry: Stops | None) -> Any:
    """The result of a future; what Dask would wait for without an end or a word is looked for."""
    from distributed.comm import CommClosedError

    # Not by result(timeout): one that times out cancels the transfers that other threads wait for.
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    told = False
    while not (done.wait(_LOOK if hurry is None else _HURRIED_LOOK) or future.done()):
        if hurry is not None and hurry.stopped:
            raise OutOfTimeError
        if client.status not in ("running", "connecting"):
            # The client closed just as it was to submit this: nobody knows of it.
            raise CommClosedError(f"the client is {client.status}")
        with suppress(OSError):  # a connection that ends is the future's to tell
            if not told and client.status == "running" and not client.nthreads():
                told = True
                _log.warning("no worker is left in the cluster: the run waits for one")
    return future.result()


def _block_partial(
    X: Any, y: Any, weight: Any = None, *, tiles: _Tiles, block_info: Any = None
) -> _Partial:
    start, stop = map(int, block_info[0]["array-location"][0])
    for what, part in (("X", X), ("y", y), ("sample_weight", weight)):
        if part is not None and len(part) != stop - start:
            raise DataError(
                f"a block of {what} has {len(part)} rows where its chunks say {stop - start} (rows "
                f"{start} to {stop - 1}); make the chunks true, for example with "
                f"compute_chunk_sizes()"
            )
    rows = Rows(start, np.asarray(X), np.asarray(y), None if weight is None else weight[:, 0])
    items: _Partial = []
    _reuse_freed_memory()
    with one_blas_thread():
        for part in _cut(rows):
            _append(items, _close(part, tiles, tiles.n_rows), tiles, tiles.n_rows)
    return [item.released() if isinstance(item, _Open) else item for item in items]


def _merge_partials(partials: list[_Partial], tiles: _Tiles) -> _Partial:
    items: _Partial = []
    _reuse_freed_memory()
    with one_blas_thread():
        for partial in partials:
            for item in partial:
                _append(items, item, tiles, tiles.n_rows)
    return items


@lru_cache(maxsize=1)
def _reuse_freed_memory() -> None:
    """Let the C library keep up to 64 MiB of freed memory, in a process that Dask's nanny started.

    The nanny sets a trim threshold, which stops glibc from raising its other threshold by itself:
    every temporary array of 128 KiB is then mapped, zeroed and unmapped again, which made a pass
    take three times as long (a million page faults where there are now a few dozen).
    """
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if names[0] not in os.environ or names[1] in os.environ:
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        trim, mmap = -1, -3  # numbers of the options in malloc.h
        set_option(mmap, 32 << 20)  # where glibc itself would end
        set_option(trim, 64 << 20)


def _cut(rows: Rows) -> Iterator[Rows]:
    """Cut consecutive rows where tiles begin."""
    start = rows.start
    while start < rows.stop:
        stop = min((start // TILE + 1) * TILE, rows.stop)
        yield rows.part(start, stop)
        start = stop


def _close(rows: Rows, statistic: Callable[[Rows], Any], n_rows: int) -> _Open | _Node:
    """The contribution of a tile if its rows are all here, else the rows."""
    index = rows.start // TILE
    if rows.start == index * TILE and rows.stop == min((index + 1) * TILE, n_rows):
        return _Node(0, index, statistic(rows))
    return _Open(rows)


def _append(
    items: _Partial, item: _Open | _Node, statistic: Callable[[Any], Any], n_rows: int
) -> None:
    """Append what follows and merge whatever is complete by it."""
    items.append(item)
    while len(items) > 1:
        left, right = items[-2:]
        if isinstance(left, _Open) and isinstance(right, _Open):
            if left.rows.start // TILE != right.rows.start // TILE:
                return
            merged = _close(left.rows.followed_by(right.rows), statistic, n_rows)
        elif isinstance(left, _Node) and isinstance(right, _Node):
            siblings = left.level == right.level and left.index % 2 == 0
            if not siblings or right.index != left.index + 1:
                return
            merged = _Node(left.level + 1, left.index // 2, left.value.merge(right.value))
        else:
            return
        items[-2:] = [merged]


def _root(items: _Partial) -> Any:
    """Contribution of all rows, from the complete subtrees that cover them."""
    values = [item.value for item in items if isinstance(item, _Node)]
    total = values.pop()
    while values:
        total = values.pop().merge(total)
    return total
