"""Members of a committee on the workers of a cluster, which the rows are sent to."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from altrelu_dist.cluster_errors import explained, workers_of
from altrelu_dist.committee import COMMITTEE
from altrelu_dist.committee.members import GroupDescent, GroupState
from altrelu_dist.committee.side_by_side import Here, advanced
from altrelu_dist.committee.tiles import EncodedTiles, Encoding
from altrelu_dist.engine import OutOfTimeError, Stops, awaited
from altrelu_dist.moments.rows import Rows
from altrelu_dist.threads import n_threads

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["OnWorkers"]

_SLICE = 1.0  # seconds of a task: the states of its members travel to and fro
_ROWS = "rows"
_PIECE = 4 << 20
_SHARE = 0.5  # of a worker's memory that it may use with them
_LOOK, _LOOKS = 2.0, 3  # seconds between two looks at paused workers, and looks that are enough

_log = logging.getLogger(__name__)


class _Recipe(NamedTuple):
    """A descent without its rows."""

    tiles: tuple[str, bool]  # name, whether they are kept: some descents share them
    descent: GroupDescent
    encoding: Encoding
    tile_rows: int
    kept_bytes: int


class OnWorkers:
    """The workers of a cluster; this process, where it has as many threads as they together.

    Parameters
    ----------
    client : distributed.Client
    hurry : Stops
        What gives up waiting for them.
    """

    def __init__(self, client: Client, hurry: Stops) -> None:
        self._client, self._hurry = client, hurry
        self._rows: Rows | None = None  # that the workers hold
        self._held: dict[str, Any] = {}  # futures: of these rows, and of the judged tiles by name
        self._failed = False  # whether workers lacked memory before

    def advance(
        self, descents: Sequence[GroupDescent], states: Sequence[GroupState]
    ) -> list[GroupState]:
        """Let each of some descents go on for a while, by one step at least.

        Raises
        ------
        OutOfTimeError
            If the run has to end before that.
        ClusterError
            If the cluster is lost.
        """
        tiles = [each.tiles for each in descents if isinstance(each.tiles, EncodedTiles)]
        if not self._worthwhile(tiles):
            self.release()
            return Here().advance(descents, states)
        from distributed import KilledWorker

        if self._rows is not tiles[0].rows:
            self.release()
            self._rows = tiles[0].rows
        recipes = list(map(self._recipe, descents, tiles))
        judged = {each.name: one.judged for each, one in zip(tiles, descents, strict=True)}
        saved = [descent.save(each) for descent, each in zip(descents, states, strict=True)]
        with explained(self._client):
            try:
                found = self._advanced(judged, recipes, saved)
            except (KilledWorker, OutOfTimeError) as error:
                if self._hurry.stopped:
                    raise OutOfTimeError from error
                self._failed = True
                _log.warning("workers lack the memory to train members: they are trained here")
                self.release()
                return Here().advance(descents, states)
        return [descent.restore(each) for descent, each in zip(descents, found, strict=True)]

    def release(self) -> None:
        """Let the rows go, on the workers and on the scheduler."""
        self._held.clear()
        self._rows = None

    def _advanced(
        self, judged: dict[str, Sequence[Any]], recipes: list[_Recipe], saved: list[Any]
    ) -> list[Any]:
        client = self._client
        assert self._rows is not None
        for name, data in {_ROWS: _Held(self._rows), **judged}.items():
            if name not in self._held:
                self._held[name] = _hold(client, data)
        current = {each.tiles for each in recipes}
        futures = [
            client.submit(
                _advanced_there,
                self._held[_ROWS],
                self._held[recipe.tiles[0]],
                current,
                recipe,
                state,
                _SLICE,
                key=f"members-{uuid.uuid4().hex}",
            )
            for recipe, state in zip(recipes, saved, strict=True)
        ]
        try:
            hurry = _UnlessPaused(client, self._hurry)
            return [awaited(future, client, hurry) for future in futures]
        finally:
            for future in futures:
                future.release()

    def _recipe(self, descent: GroupDescent, tiles: EncodedTiles) -> _Recipe:
        bare = replace(descent, tiles=_Elsewhere(), judged=())
        key = tiles.name, tiles.kept_bytes > 0
        return _Recipe(key, bare, tiles.encoding, tiles.tile_rows, tiles.kept_bytes)

    def _worthwhile(self, tiles: list[EncodedTiles]) -> bool:
        """Whether the workers have more threads than this process, and memory for the rows."""
        workers = workers_of(self._client)
        threads = sum(worker["nthreads"] for worker in workers)
        if self._failed or threads <= n_threads() or any(map(_is_paused, workers)):
            return False
        if self._rows is tiles[0].rows:
            return True
        rows = tiles[0].rows
        encoded = sum({each.name: each.kept_bytes for each in tiles}.values())
        row = sum({each.name: each.encoding.row_bytes for each in tiles}.values())
        judged = COMMITTEE.looked_rows * row
        needed = 2 * (rows.X.nbytes + rows.y.nbytes) + encoded + judged
        return all(needed <= _room(worker) for worker in workers)


def _is_paused(worker: dict[str, Any]) -> bool:
    return str(worker.get("status", "running")) == "paused"


def _room(worker: dict[str, Any]) -> float:
    """Bytes that a worker may take until it uses half of its memory."""
    limit = worker["memory_limit"]
    used = worker.get("metrics", {}).get("memory", 0)
    return _SHARE * limit - used if limit else float("inf")


class _UnlessPaused:
    """Gives up waiting where all workers are paused as well: no task would ever begin."""

    def __init__(self, client: Client, hurry: Stops) -> None:
        self._client, self._hurry = client, hurry
        self._looked = time.monotonic()
        self._paused = 0

    @property
    def stopped(self) -> bool:
        """Whether to give up."""
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._looked = now
            workers = workers_of(self._client)
            self._paused = self._paused + 1 if workers and all(map(_is_paused, workers)) else 0
        return self._paused >= _LOOKS or self._hurry.stopped


def _hold(client: Client, data: Any) -> Any:
    """A future of some data that the scheduler knows: it is not lost with any worker.

    It goes there in pieces, none of which is so large that Dask warns of it.
    """
    raw = pickle.dumps(data, protocol=5)
    name = uuid.uuid4().hex
    pieces = [
        client.submit(_same, raw[at : at + _PIECE], key=f"rows-piece-{name}-{at}")
        for at in range(0, len(raw), _PIECE)
    ]
    return client.submit(_joined, pieces, key=f"rows-{name}")


def _same(piece: bytes) -> bytes:
    return piece


def _joined(pieces: list[bytes]) -> Any:
    return pickle.loads(b"".join(pieces))


class _Elsewhere:
    """Stands for tiles that are made on the worker."""

    starts: Sequence[int] = ()

    def __getitem__(self, number: int) -> Any:
        raise IndexError(number)


class _Held:
    """Rows on a worker, and their tiles that descents take: these go with the rows."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._tiles: dict[tuple[str, bool], EncodedTiles] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_Held], tuple[Rows]]:
        return _Held, (self.rows,)

    def tiles(self, recipe: _Recipe, current: set[tuple[str, bool]]) -> EncodedTiles:
        """The tiles of a recipe; those that no descent takes now are let go."""
        with self._lock:
            for key in self._tiles.keys() - current:
                del self._tiles[key]
            if recipe.tiles not in self._tiles:
                self._tiles[recipe.tiles] = EncodedTiles(
                    self.rows, recipe.encoding, recipe.tile_rows, recipe.kept_bytes
                )
            return self._tiles[recipe.tiles]


def _advanced_there(
    held: _Held,
    judged: Sequence[Any],
    current: set[tuple[str, bool]],
    recipe: _Recipe,
    saved: Any,
    seconds: float,
) -> Any:
    """A task: what a checkpoint holds of a state, some seconds later."""
    descent = replace(recipe.descent, tiles=held.tiles(recipe, current), judged=judged)
    return descent.save(advanced(descent, descent.restore(saved), seconds))
