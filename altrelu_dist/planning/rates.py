"""How fast this machine is: the trainer's own kernels, timed for about a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from altrelu_dist.committee import COMMITTEE
from altrelu_dist.committee.line import fold_moments
from altrelu_dist.committee.members import Group, GroupDescent, out_of_fold
from altrelu_dist.committee.stacking import stacked
from altrelu_dist.committee.tiles import Encoding
from altrelu_dist.encoding import Encoder, sketch_columns
from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments.kinks import KinkMoments
from altrelu_dist.moments.loss import HiddenMoments, LossAndGradient, SquaredLoss
from altrelu_dist.moments.pattern import PatternDelta, PatternMoments
from altrelu_dist.moments.rows import Array, Block, Floats, Rows, Weights
from altrelu_dist.moments.sample import Sampler, distinct
from altrelu_dist.moments.summary import summarise
from altrelu_dist.planning.committee import sizes_of
from altrelu_dist.planning.work import Shape, multiply_adds
from altrelu_dist.solvers.hidden_layer import LevenbergMarquardtSystem
from altrelu_dist.solvers.output_layer import Removal
from altrelu_dist.threads import n_threads, one_blas_thread
from altrelu_dist.training import damped, kronecker
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.neurons import (
    CANDIDATES,
    CandidateMoments,
    CandidateProducts,
    Projected,
    draw_hinges,
    insertion_order,
    n_compared,
)
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.quasi_newton import MEMORY, quasi_newton
from altrelu_dist.training.whitening import Whitening

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.data import DataSet

__all__ = ["Cost", "Rates", "measure"]

_MOST_WORK = 4e8  # multiply-adds of one run of what is timed: larger ones are timed in part
_MOST_GRAM = 2e9  # of a Gram matrix under a pattern, which is only itself on a whole tile
_LEAST_SECONDS = 0.03
_LEAST_ROWS = 64
# Of larger problems a smaller one is timed, and its seconds are extrapolated by multiply-adds.
_COLUMNS, _NEURONS, _TARGETS = 256, 256, 64
_WEIGHTS = 1 << 15  # of a hidden layer on which the quasi-Newton method is timed
_SYSTEM = 1280  # unknowns of the dense system that is timed
_ITERATIONS = MEMORY + 5  # so that the quasi-Newton method's memory is full at the end
_BREADTH = 256  # columns and neurons of a committee that are timed at most
_ENCODED_ROWS = 1024
_CANDIDATE_GROUPS = 12  # about half of those that there are at the end
_READ_SECONDS = 0.25
_READ_ROWS = 1 << 16  # of the store that stands for data which are not here


class Cost(NamedTuple):
    """Seconds of a kernel on one thread: of each row, or of each run of a dense step.

    They are those of a problem of ``p`` columns, ``q`` targets and ``h`` neurons, of which ``base``
    stays as it is when the neurons are others; what is left grows as the multiply-adds do. Where
    it is ``constant``, it stays when the columns are others too.
    """

    p: int
    q: int
    h: int
    seconds: float
    base: float = 0.0
    constant: bool = False


@dataclass(frozen=True)
class Rates:
    """What was measured, for a problem of some columns and targets.

    Parameters
    ----------
    multiply_adds : float
        A second, of a large matrix product on one thread.
    bandwidth : float
        Bytes a second that one thread adds up.
    read : float
        Bytes a second, as they are in memory, that one thread reads and decodes.
    threads : int
        That work on rows in memory here.
    speedup : float
        Of all these threads together over one.
    busy : float
        Seconds that pass in a second of a thread's work, because other processes work as well.
    costs : dict
        By kernel, in seconds of a thread's work.
    """

    shape: Shape
    multiply_adds: float
    bandwidth: float
    read: float
    threads: int
    speedup: float
    busy: float
    costs: dict[str, Cost]

    def seconds(self, kernel: str, neurons: int, columns: int = 0) -> float:
        """Of one row on one thread; of a dense step, of one run; 0 columns are the shape's."""
        cost, p, q = self.costs[kernel], columns or self.shape.p, self.shape.q
        size, timed = (_work(kernel, *of) for of in ((p, q, neurons), cost[:3]))
        base = cost.base * (1.0 if cost.constant else (p + q) / (cost.p + cost.q))
        return (base + (cost.seconds - cost.base) * size / timed) * self.busy


def _work(kernel: str, p: int, q: int, h: int) -> float:
    """What the seconds of a kernel are in proportion to."""
    return multiply_adds(kernel, p, q, h) or float(p + q)


def measure(shape: Shape, kernels: Collection[str], data: DataSet | None = None) -> Rates:
    """Time what a run of this shape is made of.

    Parameters
    ----------
    shape : Shape
    kernels : collection of str
        That it uses.
    data : DataSet, optional
        Its first blocks are read; without data a small store is written and read.
    """
    rng = np.random.default_rng(0)
    read = _reading(data) if data is not None else _reading_of_random_numbers(shape, rng)
    with one_blas_thread():
        peak = _product_rate(shape, rng)
        bench = _Bench(shape, rng)
        threads, speedup = bench.side_by_side()
        begun, work = time.perf_counter(), time.thread_time()
        costs = bench.costs(kernels)
        passed, work = time.perf_counter() - begun, time.thread_time() - work
        return Rates(
            shape=shape,
            multiply_adds=peak,
            bandwidth=_bandwidth(),
            read=read,
            threads=threads,
            speedup=speedup,
            busy=max(1.0, passed / work),
            costs=costs,
        )


class _OneTile:
    """Tiles of which there is one."""

    def __init__(self, tile: Block) -> None:
        self.starts: Sequence[int] = [0, len(tile.x)]
        self._tile = tile

    def __getitem__(self, number: int) -> Block:
        return self._tile


class _Bench:
    """A problem of one tile, as wide or nearly so, and the time of the trainer's parts on it."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        self._p, self._q = min(shape.p, _COLUMNS), min(shape.q, _TARGETS)
        self._h = min(shape.h, _NEURONS)
        rows = int(_MOST_WORK / multiply_adds("loss-and-gradient", self._p, self._q, self._h))
        self._rows = int(np.clip(rows, _LEAST_ROWS, TILE))
        self._shape = shape
        self._raw, self._rng = self._random(shape, TILE, rng), rng
        self._scaler = summarise(self._raw).scaler(shape.dtype)
        self._tile: Block = self._scaler(self._raw)
        self._block = self._part(self._rows)

    def _random(self, shape: Shape, rows: int, rng: np.random.Generator) -> Rows:
        X = rng.standard_normal((rows, self._p - 1)).astype(shape.dtype)
        return Rows(0, X, rng.standard_normal((rows, self._q)).astype(shape.dtype))

    def side_by_side(self) -> tuple[int, float]:
        """The threads that work on tiles in memory, and what they gain."""
        threads = n_threads()
        if threads == 1:
            return 1, 1.0
        # A view of more than one tile: what is measured is the cores, not the memory's size.
        engine = LocalEngine([self._block] * 2 * threads, 2 * threads * self._rows)
        kernel = LossAndGradient(self._network(self._h))
        alone = _timed(lambda: kernel(self._block), time.perf_counter) * 2 * threads
        together = _timed(lambda: engine.reduce(kernel, "loss-and-gradient"), time.perf_counter)
        return threads, float(np.clip(alone / together, 1.0, threads))

    def costs(self, kernels: Collection[str]) -> dict[str, Cost]:
        """Of those kernels."""
        return {kernel: self._cost(kernel) for kernel in sorted(kernels)}

    def _cost(self, kernel: str) -> Cost:
        raw, x = self._raw, self._tile.x
        match kernel:
            case "summary":
                return self._of_rows(lambda: summarise(raw))
            case "sample":
                return self._of_rows(lambda: Sampler(1.0, 0)(raw))
            case "distinct":
                return self._of_rows(lambda: distinct(raw, 0))
            case "prepare":
                return self._of_rows(lambda: self._scaler(raw))
            case "whiten":
                return self._of_rows(lambda: x.T @ x)
            case "loss-and-gradient":
                return self._at_two_widths(self._loss_and_gradient, self._h)
            case "loss":
                return self._at_two_widths(self._loss, self._h)
            case "output":
                return self._sized(self._h, self._output(self._h))
            case "insert":
                return self._sized(self._h, self._candidates(self._h))
            case "choose":
                return self._at_two_widths(self._choice, self._h)
            case "iterate":
                return self._at_two_widths(
                    self._iteration, max(1, min(self._h, _WEIGHTS // self._p))
                )
            case "metric":
                return self._sized(self._h, self._metric(self._h))
            case "tile":
                return self._at_two_widths(self._tile_pass, self._h)
            case "precondition":
                return self._at_two_widths(self._preconditioning, self._h)
            case "remove":
                return self._sized(self._h, self._removal(self._h))
            case "sketch":
                return self._of_rows(lambda: sketch_columns(raw))
            case "encode" | "line" | "turn" | "eigen" | "weigh" | "fold":
                return self._of_committee(kernel)
            case "member" | "member-step" | "judge":
                return self._at_two_breadths(kernel)
            case "gram":
                return self._under_pattern("gram", _MOST_GRAM, self._gram)
            case "delta":
                return self._under_pattern("delta", 2 * _MOST_WORK, self._delta)
            case "kinks":
                return self._under_pattern("kinks", _MOST_WORK, self._kinks)
            case _:
                return self._dense(kernel)

    def _sized(self, h: int, seconds: float, base: float = 0.0) -> Cost:
        return Cost(self._p, self._q, h, seconds, base)

    def _of_rows(self, run: Callable[[], Any]) -> Cost:
        return self._sized(1, _timed(run) / TILE)

    def _at_two_widths(self, seconds: Callable[[int], float], h: int) -> Cost:
        """What of it the columns and rows cost whatever the neurons."""
        few, all_of_them = max(1, h // 4), seconds(h)
        if few == h:
            return self._sized(h, all_of_them, all_of_them)
        share = few / h
        base = (seconds(few) - share * all_of_them) / (1 - share)
        return self._sized(h, all_of_them, float(np.clip(base, 0.0, all_of_them)))

    def _under_pattern(
        self, kernel: str, most: float, seconds: Callable[[int, int], float]
    ) -> Cost:
        """Of fewer neurons, then of fewer columns, where a tile of all would take long."""
        p, h = self._p, self._h

        def work() -> float:
            return multiply_adds(kernel, p, self._q, h) * TILE

        while h > 1 and work() > most:
            h = (h + 1) // 2
        while p > 2 and work() > most:
            p = (p + 1) // 2
        return Cost(p, self._q, h, seconds(h, p) / TILE)

    def _network(self, h: int, p: int | None = None) -> Weights:
        p, q = p or self._p, self._q
        W = self._rng.standard_normal((p, h)) / np.sqrt(p)
        return Weights(W, self._rng.standard_normal((h, q)), np.zeros(q))

    def _part(self, rows: int) -> Block:
        return Block(self._tile.x[:rows], self._tile.y[:rows])

    def _columns(self, p: int) -> Block:
        return Block(np.ascontiguousarray(self._tile.x[:, -p:]), self._tile.y)

    def _affordable(self, kernel: str, h: int) -> Block:
        each = multiply_adds(kernel, self._p, self._q, h)
        return self._part(int(np.clip(_MOST_WORK / each, _LEAST_ROWS, TILE)))

    def _objective(self, rows: int) -> Objective:
        block = self._part(rows)
        engine = LocalEngine([block], len(block.x))
        return Objective(engine, Monitor(), 0.0, 0.0, True, float(len(block.x)), self._h)

    def _loss_and_gradient(self, h: int) -> float:
        part, kernel = self._affordable("loss-and-gradient", h), LossAndGradient(self._network(h))
        return _timed(lambda: kernel(part)) / len(part.x)

    def _loss(self, h: int) -> float:
        part, kernel = self._affordable("loss", h), SquaredLoss(self._network(h))
        return _timed(lambda: kernel(part)) / len(part.x)

    def _output(self, h: int) -> float:
        part, kernel = self._affordable("output", h), HiddenMoments(self._network(h).W)
        return _timed(lambda: kernel(part)) / len(part.x)

    def _candidates(self, h: int) -> float:
        part, network = self._affordable("insert", h), self._network(h)
        drawn = self._rng.standard_normal((self._p, CANDIDATES))
        each = CandidateMoments(drawn, network)
        together = CandidateProducts(drawn[:, : n_compared(max(1, h // 8))])
        objective = self._objective(len(part.x))
        assert isinstance(objective.engine, LocalEngine)
        engine = objective.engine

        def run() -> None:
            draw_hinges(engine, network, 0.0, CANDIDATES, self._rng)
            each(part)
            together(part)

        return _timed(run) / len(part.x)

    def _choice(self, h: int) -> float:
        part, count = self._part(2 * _NEURONS), max(1, h // 8)
        drawn = self._rng.standard_normal((self._p, CANDIDATES))
        sums = CandidateMoments(drawn, self._network(h))(part)
        some = np.arange(n_compared(count))
        gram = CandidateProducts(drawn[:, some])(part).gram

        def run() -> None:
            candidates = Projected.of(sums)
            candidates.gains()
            insertion_order(candidates.pick(some), gram, count)

        return _timed(run)

    def _iteration(self, h: int) -> float:
        """One function value in a quasi-Newton descent, less what it is made of beside."""
        objective = self._objective(_LEAST_ROWS)
        network, whitening = self._network(h), Whitening.of(objective)
        objective.reduce(LossAndGradient(network), "loss-and-gradient")
        before = objective.monitor.counts.passes
        begun = time.thread_time()
        quasi_newton(objective, network, _ITERATIONS, whitening=whitening)
        each = (time.thread_time() - begun) / (objective.monitor.counts.passes - before)
        part, kernel = self._part(_LEAST_ROWS), LossAndGradient(network)
        return max(0.0, each - _timed(lambda: kernel(part)) - self._metric(h))

    def _metric(self, h: int) -> float:
        W, out = self._network(h).W, self._rng.standard_normal((self._p, self._p))
        return _timed(lambda: (out @ W, out.T @ W))

    def _kronecker(self, h: int, rows: int) -> tuple[kronecker.Descent, kronecker.State]:
        """Steps on tiles of so many rows, the first one made."""
        tile = self._part(rows)
        tile = Block(tile.x.astype(np.float32), tile.y.astype(np.float32))
        descent = kronecker.Descent(
            tiles=[tile],
            inverse_gram=np.eye(self._p, dtype=np.float32),
            mean_weight=1.0,
            alpha=0.0,
            slope=0.0,
            settings=kronecker.SETTINGS,
            length=kronecker.SETTINGS.lengths[-1],
            steps=10**6,
            seed=0,
        )
        return descent, descent.init(self._network(h))

    def _step_seconds(self, h: int, rows: int) -> float:
        """One Kronecker-factored step, with its share of the looks at the curvature."""
        descent, state = self._kronecker(h, rows)
        renewal = kronecker.SETTINGS.renewal_of(h)

        def run() -> None:
            nonlocal state
            for _ in range(renewal):
                state = descent.step(state)

        return _timed(run) / renewal

    def _preconditioning(self, h: int) -> float:
        """What of a step does not depend on the rows of the tile."""
        return self._step_seconds(h, _LEAST_ROWS // 4)

    def _tile_pass(self, h: int) -> float:
        """What each row of a tile adds to a step."""
        few, rows = _LEAST_ROWS // 4, kronecker.SETTINGS.usual_rows
        more = self._step_seconds(h, rows) - self._step_seconds(h, few)
        return max(more, 0.0) / (rows - few)

    def _of_committee(self, kernel: str) -> Cost:
        """What a committee takes beside its steps."""
        sizes = sizes_of(self._shape)
        p = min(sizes.columns[-1], _BREADTH)
        x = self._encoded(_ENCODED_ROWS, p).x
        match kernel:
            case "encode":
                return self._encoding()
            case "line":
                seconds = _timed(lambda: fold_moments([(0, self._encoded(len(x), p))], 8))
            case "turn":
                seconds = _timed(lambda: x.T @ x)
            case "eigen":
                gram = x.T.astype(np.float64) @ x
                return Cost(p, self._q, 1, _timed(lambda: np.linalg.eigh(gram)))
            case "weigh":
                return self._weighing()
            case _:
                h = max(1, min(sizes.neurons, _BREADTH))
                W = self._rng.standard_normal((p, h), np.float32)

                def gram_of_hidden() -> None:
                    features = np.maximum(x @ W, 0)
                    features.T @ features

                return Cost(p, self._q, h, _timed(gram_of_hidden) / len(x))
        return Cost(p, self._q, 1, seconds / len(x))

    def _encoding(self) -> Cost:
        raw = self._raw.part(0, _ENCODED_ROWS)
        intervals = int(np.clip(_BREADTH // self._p, 2, COMMITTEE.coarse))
        encoding = Encoding(Encoder.learn(sketch_columns(raw), (intervals,)), self._scaler)
        return Cost(encoding.n_columns, self._q, 1, _timed(lambda: encoding(raw)) / len(raw.X))

    def _weighing(self) -> Cost:
        y = self._rng.standard_normal((TILE, self._q))
        noise = self._rng.standard_normal((_CANDIDATE_GROUPS, TILE, self._q))
        predicted = [y + part for part in noise]
        costs = [True] * len(predicted)
        return self._of_rows(lambda: stacked(predicted, y, costs, COMMITTEE.kept))

    def _encoded(self, rows: int, p: int) -> Block:
        """Random rows as members take them."""
        x = self._rng.standard_normal((rows, p), np.float32)
        x[:, -1] = 1
        return Block(x, self._rng.standard_normal((rows, self._q), np.float32))

    def _at_two_breadths(self, kernel: str) -> Cost:
        """What of it the members cost whatever the columns."""
        sizes = sizes_of(self._shape)
        few, many = (min(sizes.columns[end], _BREADTH) for end in (0, -1))
        neurons = sizes.h if kernel == "judge" else sizes.neurons
        seconds = self._judging if kernel == "judge" else self._member
        least, most = (seconds(kernel, sizes.folds, sizes.h, p) for p in (few, many))
        work = multiply_adds(kernel, few, self._q, neurons) / multiply_adds(
            kernel, many, self._q, neurons
        )
        base = (least - work * most) / (1 - work) if work < 1 else most
        return Cost(many, self._q, neurons, most, float(np.clip(base, 0.0, most)), constant=True)

    def _member(self, kernel: str, folds: int, h: int, p: int) -> float:
        """What each row adds to a step of all members, or what a step takes beside its rows."""
        few, rows = 8 * folds, COMMITTEE.tile_rows
        fewer, more = (self._member_step(folds, h, p, count) for count in (few, rows))
        each = max(more - fewer, 0.0) / (rows - few)
        return each if kernel == "member" else max(fewer - few * each, 0.0)

    def _member_step(self, folds: int, h: int, p: int, rows: int) -> float:
        """One step, with its share of the looks at the curvature."""
        descent = GroupDescent(
            tiles=_OneTile(self._encoded(rows, p)),
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
        state = descent.init(self._group(folds, h, p))
        renewal = COMMITTEE.renewal_of(h)

        def run() -> None:
            nonlocal state
            for _ in range(renewal):
                state = descent.step(state)

        return _timed(run) / renewal

    def _judging(self, _: str, folds: int, h: int, p: int) -> float:
        tiles, group = [(0, self._encoded(_ENCODED_ROWS, p))], self._group(folds, h, p)
        return _timed(lambda: out_of_fold(tiles, group, 0.0)) / _ENCODED_ROWS

    def _group(self, folds: int, h: int, p: int) -> Group:
        def drawn(*size: int) -> Array:
            values: Array = self._rng.standard_normal(size, np.float32)
            return values / np.float32(np.sqrt(size[-2]))

        return Group(drawn(p, folds * h), drawn(folds, h, self._q), drawn(folds, self._q))

    def _removal(self, h: int) -> float:
        moments = HiddenMoments(self._network(h).W)(self._tile)

        def run() -> None:
            left = Removal(moments, 0.0)
            for _ in range(h // 6):
                left.drop(int(np.argmin(left.costs())))
            _ = left.output

        return _timed(run)

    def _gram(self, h: int, p: int) -> float:
        block, kernel = self._columns(p), PatternMoments(self._network(h, p).W)
        return _timed(lambda: kernel(block))

    def _delta(self, h: int, p: int) -> float:
        block, W = self._columns(p), self._network(h, p).W
        kernel = PatternDelta(W, W + 0.05 * self._network(h, p).W)
        return _timed(lambda: kernel(block))

    def _kinks(self, h: int, p: int) -> float:
        block, kernel = self._columns(p), KinkMoments(self._network(h, p), damped.KINK_WIDTH)
        return _timed(lambda: kernel(block))

    def _dense(self, kernel: str) -> Cost:
        """A damped system, or the solution of one, which is that of the paper's as well."""
        p = min(self._p, _SYSTEM)
        h = max(1, min(self._h, _SYSTEM // p))
        network, few = self._network(h), self._part(4 * _LEAST_ROWS)
        moments = PatternMoments(network.W)(few)
        kinks = KinkMoments(network, damped.KINK_WIDTH)(few).blocks

        def build() -> LevenbergMarquardtSystem:
            return LevenbergMarquardtSystem(moments, network, kinks, float(len(few.x)), 0.0)

        if kernel == "system":
            return Cost(p, self._q, h, _timed(build))
        system, gradient = build(), LossAndGradient(network)(few)
        return Cost(p, self._q, h, _timed(lambda: system.step(gradient, 1e-3)))


def _timed(run: Callable[[], Any], clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds of one run by a clock, that of this thread's own work: the median of a few runs."""
    found: list[float] = []
    while len(found) < 2 or (sum(found) < _LEAST_SECONDS and len(found) < 25):
        begun = clock()
        run()
        found.append(clock() - begun)
    return float(np.median(found[1:]))


def _product_rate(shape: Shape, rng: np.random.Generator) -> float:
    size = 512
    a = rng.standard_normal((size, size)).astype(shape.dtype)
    return float(size**3 / _timed(lambda: a @ a))


def _bandwidth() -> float:
    a: Floats = np.ones(1 << 21)
    return float(3 * a.nbytes / _timed(lambda: a + a))


def _reading(data: DataSet) -> float:
    """Bytes a second of one reader, from blocks all over the data."""
    arrays = [a for a in (data.X, data.y, data.sample_weight) if a is not None]
    blocks = data.X.numblocks[0]
    order = np.unique(np.linspace(0, blocks - 1, 9).astype(int)).tolist()
    _read_block(arrays, order[0])  # what is loaded at the first read is not the data's
    count, begun = 0, time.perf_counter()
    for block in order[1:] or order:
        count += _read_block(arrays, block)
        if time.perf_counter() - begun > _READ_SECONDS:
            break
    return count / (time.perf_counter() - begun)


def _read_block(arrays: list[da.Array], block: int) -> int:
    from dask.base import compute

    found = compute(*(array.blocks[block] for array in arrays), scheduler="synchronous")
    return sum(int(part.nbytes) for part in found)


def _reading_of_random_numbers(shape: Shape, rng: np.random.Generator) -> float:
    from altrelu_dist.data import convert, open_dataset

    rows = (8 << 20) // ((shape.d + shape.q) * shape.dtype.itemsize)
    rows = max(_LEAST_ROWS, min(_READ_ROWS, rows))
    with TemporaryDirectory(prefix="altrelu-plan-") as folder:
        X = rng.standard_normal((rows, shape.d)).astype(shape.dtype)
        y = rng.standard_normal((rows, shape.q)).astype(shape.dtype)
        np.savez(f"{folder}/random.npz", X=X, y=y)
        convert(f"{folder}/random.npz", f"{folder}/random.zarr")
        return _reading(open_dataset(f"{folder}/random.zarr"))
