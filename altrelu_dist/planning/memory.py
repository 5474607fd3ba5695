"""What each process of a run holds at its peak."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from altrelu_dist.committee import COMMITTEE, distilling, members
from altrelu_dist.encoding.sketch import CAPACITY, COLUMNS_AT_ONCE
from altrelu_dist.engine import TILE
from altrelu_dist.inputs import WORKER_BYTES
from altrelu_dist.moments.explicit import MOST_COLUMNS
from altrelu_dist.moments.joint import spans
from altrelu_dist.moments.pattern import MOST_FLIPPED, WIDE, packed_size
from altrelu_dist.planning import committee
from altrelu_dist.planning.arithmetic import n_candidates
from altrelu_dist.planning.calls import Shape
from altrelu_dist.solvers.lbfgs import room_for
from altrelu_dist.training import damped, kronecker, neurons, quasi_newton, schedule, trainer

__all__ = ["Blocks", "resident", "solver_bytes", "worker_bytes"]

# What the process that trains loads beside that: scikit-learn, Dask's client and scheduler.
_SOLVER = 130 << 20
# Buffers of blocks that the C library keeps when they are freed, in the arenas of the threads that
# read and decode, and the most of it. Measured: 35 MiB with blocks of 8 MiB, 130 with 16 MiB.
_BUFFERS_KEPT = 8
_MOST_KEPT = 128 << 20
_LEAST_KEPT = 32 << 20  # in a process, however small its blocks are
_PYTHON = 2 << 20  # objects of Python's own: the history, results of steps, what is loaded late
_MERGED = 8  # partial sums that meet in one task


@dataclass(frozen=True)
class Blocks:
    """How the rows lie: what one task reads.

    Parameters
    ----------
    count : int
    rows : int
        Of the largest.
    row_bytes : int
        Of a row as it is read: features, targets and the weight.
    """

    count: int
    rows: int
    row_bytes: int


def contribution_bytes(shape: Shape, method: str) -> int:
    """The largest sum that a task of a pass over all rows returns."""
    h, p, q = shape.h, shape.p, shape.q
    if method == "committee":
        return 8 * (2 * CAPACITY * shape.d + 8 * (p + q))
    loss = 8 * (h * (p + q) + 2 * q)
    output = 8 * (h + 1) * (h + 1 + q)
    gram = 8 * (packed_size(h, p) + h * p * (q + 1)) if method == "alternating" else 0
    return max(loss, output, gram)


def _kernel_bytes(shape: Shape, method: str) -> int:
    """Beside the contribution, while a tile of a pass over all rows is at work."""
    h, p, q, size = shape.h, shape.p, shape.q, shape.dtype.itemsize
    rows = min(TILE, shape.n)
    prepared = rows * (p + q) * (size + 3 * 8)
    if method == "committee":  # some columns at once, sorted
        return prepared + 5 * 8 * rows * min(shape.d, COLUMNS_AT_ONCE)
    cheap = rows * (h * (3 * size + 8) + 4 * q * size)
    if method != "alternating":
        return prepared + cheap
    return prepared + cheap + _pattern_bytes(shape, h)


def _pattern_bytes(shape: Shape, h: int) -> int:
    """Of the moments under a pattern, while one tile is at work."""
    p, q, size = shape.p, shape.q, shape.dtype.itemsize
    rows = min(TILE, shape.n)
    sums = 8 * (packed_size(h, p) + h * p * (q + 1))
    if p > WIDE:
        return 2 * sums + 4 * rows * p * size
    # An update forms products of columns for every flip.
    products = next(iter(spans(p * (p + 1) // 2))).stop
    flips = int(rows * h * MOST_FLIPPED)
    design = min(h * p, MOST_COLUMNS) * rows * size
    needed: int = 2 * sums + flips * (products + h + p) * size + 4 * rows * (h + p) * size
    return needed + design


def worker_bytes(
    shape: Shape, blocks: Blocks, method: str, workers: int, threads: int, *, cached: bool
) -> int:
    """Peak of a worker process."""
    block = blocks.rows * blocks.row_bytes
    contribution = contribution_bytes(shape, method)
    # A block is put together beside the bytes that it is decoded from.
    task = 2 * block + _kernel_bytes(shape, method) + 2 * contribution
    freed = max(threads * min(_BUFFERS_KEPT * block, _MOST_KEPT), _LEAST_KEPT)
    merging = _MERGED * contribution * max(1, math.ceil(math.log2(max(2, blocks.rows / TILE))) // 2)
    kept = math.ceil(blocks.count / workers) * block if cached else 0
    return int(
        WORKER_BYTES
        + threads * max(task, merging)
        + freed
        + kept
        + 2 * _sample_bytes(shape, blocks, method)
    )


def _sample_bytes(shape: Shape, blocks: Blocks, method: str) -> int:
    """Of the rows that are drawn, as they were read, each with its draw."""
    if method == "committee":
        return committee.sizes_of(shape).held * (blocks.row_bytes + 8)
    sizes = schedule.ROWS.stages(shape.p, shape.q, shape.h, shape.dtype, shape.n)
    rows = shape.n if sizes.whole else (0 if method == "alternating" else sizes.drawn(method))
    return rows * (blocks.row_bytes + 8)


def solver_bytes(shape: Shape, blocks: Blocks, method: str, before: int, threads: int) -> int:
    """Peak of the process that trains: it holds the sample and solves the systems.

    Parameters
    ----------
    shape : Shape
    blocks : Blocks
    method : str
    before : int
        Bytes of the process before there are any data.
    threads : int
        That work on rows in memory.
    """
    if method == "committee":
        return int(before + _SOLVER + _PYTHON + _committee_bytes(shape, blocks))
    h, p, q = shape.h, shape.p, shape.q
    sizes = schedule.ROWS.stages(p, q, h, shape.dtype, shape.n)
    whole = sizes.whole
    rows = shape.n if whole else sizes.drawn(method)
    drawn = _sample_bytes(shape, blocks, method)
    # Drawn, put in order and standardised; where all rows are here, sorted by their bytes too.
    arriving = drawn * (5 if whole else 3)
    standing = rows * (p + q) * shape.dtype.itemsize if drawn else 0
    if whole:
        standing += drawn
    variables = h * (p + q) + q
    levels = max(1, math.ceil(math.log2(max(2, rows / TILE))))
    merging = 8 * (3 * threads + levels) * variables
    descent = 8 * variables * (2 * room_for(quasi_newton.MEMORY) + 12) + merging
    tiles = 2 * threads * _kernel_bytes(shape, "search")
    m, k = n_candidates(h)
    sums = (m * (h + q + 2) + k * k) * (levels + threads)
    candidates = 8 * sums + min(rows, neurons.CANDIDATE_TILES * TILE) * p * 24
    work = descent + tiles + candidates
    if method in ("search", "kronecker"):
        # The whitening's two matrices stay; to make them takes the sums of the tiles and the
        # Gram matrix, its factor, an identity and the inverse.
        standing += 2 * 8 * p**2
        if shape.dtype != np.float32:
            standing += rows * (p + q) * 4
        # A tile's features, slopes and residuals, and both layers' curvature and inverses.
        tile = min(rows, kronecker.SETTINGS.tile_rows(rows))
        descent = max(descent, 4 * 4 * tile * 2 * h + 4 * 8 * (2 * h + 1) ** 2)
        work = descent + tiles + candidates
        work = max(work, 8 * (3 * threads + levels + 4) * p**2)
    width = h if method == "alternating" else max(1, min(h, damped.LARGEST_SYSTEM // p))
    if method == "alternating" or h * p <= trainer.MOST_BLOCKS * damped.LARGEST_SYSTEM:
        sums = 8 * packed_size(width, p)
        here = method != "alternating" or whole
        levels = levels if here else 2
        dense = 5 * 8 * (width * p) ** 2 + 8 * width * p * (width + 1) * 3 + 8 * width * p * p
        if method != "alternating":
            dense += 6 * 8 * p**2  # the eigenvectors of a neuron's kinks
        pattern = (1 + threads) * _pattern_bytes(shape, width) if here else 0
        work = max(work, max(dense + 2 * sums, (2 + levels) * sums + pattern))
    return int(before + _SOLVER + _PYTHON + max(arriving, standing + work))


def _committee_bytes(shape: Shape, blocks: Blocks) -> int:
    """Of a committee: rows as they are, and encoded for the kinds that go side by side."""
    sizes, q = committee.sizes_of(shape), shape.q
    standing = sizes.held * blocks.row_bytes
    arriving = 5 * _sample_bytes(shape, blocks, "committee")  # sorted by their bytes too
    if sizes.folds < 2:
        return max(arriving, standing)
    columns = max(sizes.columns) + sizes.values
    all_blocks = sum(sizes.columns) - (len(sizes.columns) - 1) * sizes.columns[0] + sizes.values
    # As many kinds as begin have each its columns, the coarse ones also whitened and focused.
    pieces, values = len(sizes.columns) - 1, sizes.values > 0
    choices = [COMMITTEE.followers(best, pieces, values=values) for best in COMMITTEE.kinds]
    followers = max(choices, key=lambda kinds: sum(map(sizes.row_bytes, kinds)))
    row = sum(map(sizes.row_bytes, (*COMMITTEE.kinds, *followers)))
    all_kinds = (row + 4 * columns) * sizes.held
    encoded = min(all_kinds, COMMITTEE.encoded_bytes + 4 * columns * sizes.judged)
    encoded += row * min(sizes.held, COMMITTEE.looked_rows)  # once more, by folds
    # Weights, their last move and the best; each candidate keeps its own.
    candidates = 2 * (sum(COMMITTEE.racing) + len(followers)) + 3
    group = 4 * sizes.neurons * (columns + q + 1)
    predicted = 8 * sizes.judged * q * (candidates + 6)
    predicted += 8 * min(sizes.held, COMMITTEE.compared_rows) * sizes.folds * q * candidates
    tile = COMMITTEE.rows_of_tile(sizes.held)
    step = 4 * 5 * (tile + members.PATTERNS) * sizes.neurons
    step += 6 * group * COMMITTEE.racing[0]
    judging = 4 * min(members.AT_ONCE * tile, sizes.judged) * (columns + sizes.h)
    coarse = sizes.columns[min(1, len(sizes.columns) - 1)] + sizes.values
    widest = max(sizes.columns[0], min(COMMITTEE.line_columns + 1, coarse))
    lines = 8 * widest**2 * (2 * sizes.folds + 6)
    turned = 8 * 5 * max(sizes.columns) ** 2 + encoded
    neurons = max(sizes.neurons, min(shape.h, COMMITTEE.kept * sizes.neurons))
    folding = 5 * 8 * (neurons + 1) ** 2 + 3 * 8 * all_blocks * neurons
    # Encoded once more for the small network that follows the committee, and its tiles.
    rows = max(distilling.ROWS, sizes.held) if shape.h < sizes.neurons else 0
    distilled = 3 * 4 * rows * all_blocks
    work = max(encoded + max(step, judging, lines), encoded + turned, folding, distilled)
    return max(arriving, standing + predicted + candidates * group + work)


def resident() -> int:
    """Bytes that this process holds now."""
    try:
        with open("/proc/self/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) * 1024
    except (OSError, KeyError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
