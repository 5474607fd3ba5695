"""Seconds of the kernels of a committee, timed on random encoded rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from altrelu_dist.committee import COMMITTEE
from altrelu_dist.committee.line import fold_moments
from altrelu_dist.committee.members import Group, GroupDescent, out_of_fold
from altrelu_dist.committee.stacking import stacked
from altrelu_dist.committee.tiles import Encoding
from altrelu_dist.encoding import Encoder, sketch_columns
from altrelu_dist.engine import TILE
from altrelu_dist.moments.rows import Array, Block
from altrelu_dist.planning.arithmetic import multiply_adds
from altrelu_dist.planning.committee import Sizes, sizes_of
from altrelu_dist.planning.timing import Bench, Cost, base_of, step_and_row, timed, timed_steps

__all__ = ["COMMITTEE_KERNELS", "committee_cost"]

_OF_MEMBERS = ("member", "member-step", "judge")
COMMITTEE_KERNELS = (*_OF_MEMBERS, "encode", "line", "turn", "eigen", "weigh", "fold")

_BREADTH = 256  # columns and neurons that are timed at most
_ROWS = 1024
_CANDIDATE_GROUPS = 12  # about half of those that there are at the end


def committee_cost(bench: Bench, kernel: str) -> Cost:
    """Time one of the kernels of a committee."""
    sizes = sizes_of(bench.shape)
    if kernel in _OF_MEMBERS:
        return _at_two_breadths(bench, kernel, sizes)
    if kernel == "encode":
        return _encoding(bench)
    if kernel == "weigh":
        return _weighing(bench)
    p, h = min(sizes.columns[-1], _BREADTH), 1
    x = _encoded(bench, _ROWS, p).x
    match kernel:
        case "line":
            seconds = timed(lambda: fold_moments([(0, _encoded(bench, _ROWS, p))], 8))
        case "turn":
            seconds = timed(lambda: x.T @ x)
        case "eigen":
            gram = x.T.astype(np.float64) @ x
            return Cost(p, bench.q, h, timed(lambda: np.linalg.eigh(gram)))
        case _:
            h = max(1, min(sizes.neurons, _BREADTH))
            W = bench.rng.standard_normal((p, h), np.float32)

            def gram_of_hidden() -> None:
                features = np.maximum(x @ W, 0)
                features.T @ features

            seconds = timed(gram_of_hidden)
    return Cost(p, bench.q, h, seconds / _ROWS)


def _encoding(bench: Bench) -> Cost:
    raw = bench.raw.part(0, _ROWS)
    intervals = int(np.clip(_BREADTH // bench.p, 2, COMMITTEE.coarse))
    encoding = Encoding(Encoder.learn(sketch_columns(raw), (intervals,)), bench.scaler)
    return Cost(encoding.n_columns, bench.q, 1, timed(lambda: encoding(raw)) / _ROWS)


def _weighing(bench: Bench) -> Cost:
    y = bench.rng.standard_normal((TILE, bench.q))
    noise = bench.rng.standard_normal((_CANDIDATE_GROUPS, TILE, bench.q))
    predicted = [y + part for part in noise]
    costs = [True] * len(predicted)
    return bench.of_rows(lambda: stacked(predicted, y, costs, COMMITTEE.kept))


def _encoded(bench: Bench, rows: int, p: int) -> Block:
    """Random rows as members take them."""
    x = bench.rng.standard_normal((rows, p), np.float32)
    x[:, -1] = 1
    return Block(x, bench.rng.standard_normal((rows, bench.q), np.float32))


def _at_two_breadths(bench: Bench, kernel: str, sizes: Sizes) -> Cost:
    """What of it the members cost whatever the columns."""
    few, many = (min(sizes.columns[end], _BREADTH) for end in (0, -1))
    least, most = (_of_members(bench, kernel, sizes, p) for p in (few, many))
    neurons = sizes.h if kernel == "judge" else sizes.neurons
    smaller, larger = (multiply_adds(kernel, p, bench.q, neurons) for p in (few, many))
    base = base_of(least, most, smaller / larger)
    return Cost(many, bench.q, neurons, most, base, constant=True)


def _of_members(bench: Bench, kernel: str, sizes: Sizes, p: int) -> float:
    """What each row adds to a step of all members, what a step takes beside, or a prediction."""
    group = _group(bench, sizes.folds, sizes.h, p)
    if kernel == "judge":
        tiles = [(0, _encoded(bench, _ROWS, p))]
        return timed(lambda: out_of_fold(tiles, group, 0.0)) / _ROWS
    few = 8 * sizes.folds
    fewer, each = step_and_row(partial(_step, bench, group), few, COMMITTEE.tile_rows)
    return each if kernel == "member" else max(fewer - few * each, 0.0)


class _OneTile:
    """Tiles of which there is one."""

    def __init__(self, tile: Block) -> None:
        self.starts: Sequence[int] = [0, len(tile.x)]
        self._tile = tile

    def __getitem__(self, number: int) -> Block:
        return self._tile


def _step(bench: Bench, group: Group, rows: int) -> float:
    """A step of all members on so many rows."""
    folds, h, _ = group.V.shape
    descent = GroupDescent(
        tiles=_OneTile(_encoded(bench, rows, len(group.W))),
        judged=[],
        n_folds=folds,
        first=0,
        alpha=0.0,
        slope=0.0,
        dropout=0.0,
        settings=COMMITTEE,
        steps=10**9,
        seed=0,
    )
    return timed_steps(descent.step, descent.init(group), COMMITTEE.renewal_of(h))


def _group(bench: Bench, folds: int, h: int, p: int) -> Group:
    def drawn(*size: int) -> Array:
        values: Array = bench.rng.standard_normal(size, np.float32)
        return values / np.float32(np.sqrt(size[-2]))

    return Group(drawn(p, folds * h), drawn(folds, h, bench.q), drawn(folds, bench.q))
