"""Members of a committee on the workers of a cluster, to each of which the rows are sent once."""

from __future__ import annotations

import logging
import pickle
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from altrelu_dist.cluster_errors import explained, workers_of
from altrelu_dist.committee.members import GroupDescent, GroupState
from altrelu_dist.committee.side_by_side import Here, advanced
from altrelu_dist.committee.tiles import EncodedTiles, Encoding
from altrelu_dist.engine import Hurry, awaited
from altrelu_dist.moments.rows import Rows
from altrelu_dist.threads import n_threads

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["OnWorkers"]

_SLICE = 1.0  # seconds of a task: the states of its members travel to and fro
_ROWS = "rows"
_PIECE = 4 << 20
_SHARE = 0.5  # of a worker's memory that rows may take

_log = logging.getLogger(__name__)


class _Recipe(NamedTuple):
    """A descent without its rows."""

    tiles: tuple[str, str, bool]  # run, name, whether they are kept: some descents share them
    descent: GroupDescent
    encoding: Encoding
    tile_rows: int
    kept_bytes: int


class OnWorkers:
    """The workers of a cluster; this process, where it has as many threads as they together.

    Parameters
    ----------
    client : distributed.Client
    hurry : Hurry
        What gives up waiting for them.
    """

    def __init__(self, client: Client, hurry: Hurry) -> None:
        self._client, self._hurry = client, hurry
        self._run = uuid.uuid4().hex
        self._rows: Rows | None = None  # that the workers hold
        self._held: dict[str, Any] = {}  # futures: of these rows, and of the judged tiles by name

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
            return Here().advance(descents, states)
        from distributed import KilledWorker

        if self._rows is not tiles[0].rows:
            self._held.clear()
            self._rows = tiles[0].rows
        recipes = list(map(self._recipe, descents, tiles))
        judged = {each.name: one.judged for each, one in zip(tiles, descents, strict=True)}
        saved = [descent.save(each) for descent, each in zip(descents, states, strict=True)]
        with explained(self._client):
            try:
                found = self._advanced(judged, recipes, saved)
            except KilledWorker:  # machines that are taken away at any time look the same
                _log.warning("workers died one after another: their members are trained again")
                found = self._advanced(judged, recipes, saved)
        return [descent.restore(each) for descent, each in zip(descents, found, strict=True)]

    def _advanced(
        self, judged: dict[str, Sequence[Any]], recipes: list[_Recipe], saved: list[Any]
    ) -> list[Any]:
        client = self._client
        for name, data in {_ROWS: self._rows, **judged}.items():
            if name not in self._held:
                self._held[name] = _hold(client, data)
        current = {each.tiles for each in recipes}
        futures = [
            client.submit(
                _advanced_there,
                self._held[_ROWS],
                self._held[recipe.tiles[1]],
                current,
                recipe,
                state,
                _SLICE,
                key=f"members-{uuid.uuid4().hex}",
            )
            for recipe, state in zip(recipes, saved, strict=True)
        ]
        try:
            return [awaited(future, client, self._hurry) for future in futures]
        finally:
            for future in futures:
                future.release()

    def _recipe(self, descent: GroupDescent, tiles: EncodedTiles) -> _Recipe:
        bare = replace(descent, tiles=_Elsewhere(), judged=())
        key = self._run, tiles.name, tiles.kept_bytes > 0
        return _Recipe(key, bare, tiles.encoding, tiles.tile_rows, tiles.kept_bytes)

    def _worthwhile(self, tiles: list[EncodedTiles]) -> bool:
        """Whether the workers have more threads than this process, and memory for the rows."""
        workers = workers_of(self._client)
        if sum(worker["nthreads"] for worker in workers) <= n_threads():
            return False
        X, y = tiles[0].rows.X, tiles[0].rows.y
        kept = {each.name: each.kept_bytes for each in tiles}
        needed = X.nbytes + y.nbytes + sum(kept.values())
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        return needed <= _SHARE * min(limits, default=float("inf"))


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


_lock = threading.Lock()
_held: dict[tuple[str, str, bool], EncodedTiles] = {}  # that the descents of now take


def _advanced_there(
    rows: Rows,
    judged: Sequence[Any],
    current: set[tuple[str, str, bool]],
    recipe: _Recipe,
    saved: Any,
    seconds: float,
) -> Any:
    """A task: what a checkpoint holds of a state, some seconds later."""
    with _lock:
        for key in _held.keys() - current:
            del _held[key]
        tiles = _held.get(recipe.tiles)
        if tiles is None:
            tiles = EncodedTiles(rows, recipe.encoding, recipe.tile_rows, recipe.kept_bytes)
            _held[recipe.tiles] = tiles
    descent = replace(recipe.descent, tiles=tiles, judged=judged)
    return descent.save(advanced(descent, descent.restore(saved), seconds))
