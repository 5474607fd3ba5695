"""From rows to a network: summary, sample, the chosen method, and the last steps on all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from zlib import crc32

import numpy as np

from altrelu_dist.checkpoints.fingerprint import data_fingerprint, digest
from altrelu_dist.checkpoints.journal import Journal, RandomState
from altrelu_dist.engine import TILE, Engine, LocalEngine, OutOfTimeError
from altrelu_dist.errors import ParameterError
from altrelu_dist.moments.loss import HiddenMoments, LossAndGradient, SquaredLoss
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Block, Floats, Rows, Scaler, Together, Weights
from altrelu_dist.moments.sample import Sampler
from altrelu_dist.moments.summary import Summary, summarise
from altrelu_dist.threads import n_threads, one_blas_thread
from altrelu_dist.training import schedule
from altrelu_dist.training.alternating import ITERATIONS, alternate, random_directions
from altrelu_dist.training.clock import Clock
from altrelu_dist.training.damped import LARGEST_SYSTEM, descend
from altrelu_dist.training.descents import Descents
from altrelu_dist.training.drawing import distinct_rows, draw
from altrelu_dist.training.kronecker import SETTINGS
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.neurons import started
from altrelu_dist.training.objective import Objective
from altrelu_dist.training.progress import Outcome
from altrelu_dist.training.quasi_newton import quasi_newton
from altrelu_dist.training.rounds import Rounds
from altrelu_dist.training.search import FullDataBest, Search
from altrelu_dist.training.validation import HeldOut, OfTraining, Validation
from altrelu_dist.training.whitening import Whitening

__all__ = [
    "DAMPED_STEPS", "LAST_STEPS", "METHODS", "MOST_BLOCKS", "Parameters", "Trained",
    "check_alternation", "train",
]  # fmt: skip

_LARGEST_ALTERNATION = 16_384  # unknowns of the paper's hidden-layer system: 2 GiB of float64
DAMPED_STEPS = 200  # at most, where the caller sets no limit
MOST_BLOCKS = 4  # of neurons, each with a system of its own, for the last steps to take turns
LAST_STEPS = 6  # on all rows where the search saw a sample: each is a pass over the data

RawLayers = tuple[Floats, Floats, Floats, Floats]


@dataclass(frozen=True)
class Parameters:
    """What a run is asked for; see `AltReLURegressor` for the meaning of each."""

    n_hidden: int
    method: str
    alpha: float
    negative_slope: float
    max_iter: int | None
    seed: int
    validation_fraction: float = 0.0  # of the rows, held out for early stopping; 0: none
    max_size: int | None = None  # neurons of a committee at most, its line's too
    loss: str = "squared_error"  # see `altrelu_dist.losses`
    levels: tuple[float, ...] = ()  # of the quantiles


class Stages(NamedTuple):
    """The objective over all rows, over those in memory, and over subsamples of these."""

    everything: Objective
    held: Objective
    judging: Objective  # on which networks are compared
    few: Objective  # enough rows for the weights of both layers
    fewest: Objective  # enough for the output layer, and to choose neurons


class Problem(NamedTuple):
    """What a method works on, in standardised units."""

    stages: Stages
    n_columns: int  # the one included
    target_squares: Floats  # (q,), sums over all rows
    start: Weights | None = None  # to go on from


@dataclass(frozen=True)
class Trained:
    """A trained network in standardised units, the map from raw ones, and the data's summary."""

    weights: Weights
    scaler: Scaler
    summary: Summary
    # (h + 1, h + 1), of its hidden features and the one; `HiddenGram.gram`. None: not known.
    hidden_gram: Floats | None


def train(
    engine: Engine,
    parameters: Parameters,
    monitor: Monitor,
    dtype: np.dtype[np.floating],
    feature_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
    start: RawLayers | None = None,
    encode: Callable[[Rows], Rows] | None = None,
    validation: Rows | None = None,
) -> Trained:
    """Train a network on the rows of an engine.

    Parameters
    ----------
    engine : Engine
        Of raw rows.
    parameters : Parameters
    monitor : Monitor
    dtype : dtype
        In which blocks are computed.
    feature_names, target_names : sequence of str, optional
        For messages.
    start : tuple of ndarray, optional
        Hidden weights, hidden bias, output weights and output bias, of raw rows, to go on from.
    encode : callable, optional
        Makes of raw rows those that the network takes; features may then be missing.
    validation : Rows, optional
        Raw rows for early stopping, in place of a part of the training rows.

    Raises
    ------
    DataError
        If a value is not finite, or every weight is zero.
    ParameterError
        If the method cannot hold its system.
    """
    with one_blas_thread():
        return _train(
            engine,
            parameters,
            monitor,
            dtype,
            feature_names,
            target_names,
            start,
            encode,
            validation,
        )


def _train(
    engine: Engine,
    parameters: Parameters,
    monitor: Monitor,
    dtype: np.dtype[np.floating],
    feature_names: Sequence[str] | None,
    target_names: Sequence[str] | None,
    start: RawLayers | None,
    encode: Callable[[Rows], Rows] | None,
    given: Rows | None,
) -> Trained:
    def encoded(rows: Engine) -> Engine:
        return rows if encode is None else rows.prepared(encode)

    # Rows are drawn as they came, so that repeated ones are what weights are.
    raw, engine = engine, encoded(engine)
    monitor.begin_stage("summary")
    begun = monitor.clock.seconds
    held_out = None
    if parameters.validation_fraction and given is None:
        held_out = HeldOut.of(parameters.validation_fraction, engine.n_rows, parameters.seed)
    look = summarise if held_out is None else OfTraining(held_out, summarise)
    if monitor.journal.kept:
        both = engine.reduce(Together(look, digest), "summary")
        summary, known = both.first, {"X": feature_names, "y": target_names}
        check_summary(summary, feature_names, target_names)
        monitor.journal.is_of_data(data_fingerprint(summary, both.second), known)
    else:
        summary = engine.reduce(look, "summary")
        check_summary(summary, feature_names, target_names)
    monitor.counts.count_rows(engine.n_rows, whole=True)
    monitor.clock.first_pass_seconds = monitor.clock.seconds - begun
    p, q = summary.features.mean.size + 1, summary.targets.mean.size
    h = parameters.n_hidden
    sizes = schedule.ROWS.stages(p, q, h, dtype, summary.weighted)

    def held_rows() -> int:
        if sizes.whole or not monitor.clock.limited:
            return sizes.held
        seconds = _gradient_seconds(monitor.clock, p, q, h, dtype)
        return schedule.ROWS.visited(sizes, monitor.clock.seconds_left, seconds).held

    sizes = sizes._replace(held=monitor.journal.step("rows", held_rows, required=False))
    whole, rows = sizes.whole, sizes.drawn(parameters.method)
    validation: Rows | None = None
    if whole:
        # All rows fit in memory here: from now on there is nothing else.
        with suppress(OutOfTimeError):
            sampler = Sampler(1.0, parameters.seed, gaps=encode is not None)
            drawn, validation = draw(raw, sampler, held_out, monitor)
            engine = encoded(LocalEngine.of(distinct_rows(drawn, parameters.seed, monitor)))
            del drawn
            summary = engine.reduce(summarise, "summary")
    scaler = monitor.scaler = summary.scaler(dtype)
    monitor.counts.unit = scaler.target_scale**2 / q
    nothing = Weights(np.zeros((p, h)), np.zeros((h, q)), np.zeros(q))
    varies = bool((summary.targets.variance > 0).any())
    mean_loss = 1.0 if varies else 0.0
    monitor.record(loss=mean_loss)
    gram = np.zeros((h + 1, h + 1))
    gram[-1, -1] = summary.features.weight
    untrained = Trained(nothing, scaler, summary, gram)
    if not varies or not (summary.features.variance > 0).any():
        return untrained
    begin = None if start is None else scaler.from_raw(*start)
    if begin is not None and begin.n_hidden <= h:
        untrained = Trained(begin, scaler, summary, None)
    sample: LocalEngine | None = None
    sampled = parameters.method != "alternating"
    with suppress(OutOfTimeError):
        if not whole and (sampled or held_out):
            chance = rows / summary.weighted if sampled else 0.0
            begun = monitor.clock.seconds
            sampler = Sampler(chance, parameters.seed, gaps=encode is not None)
            drawn, validation = draw(raw, sampler, held_out, monitor)
            monitor.clock.final_pass_seconds = monitor.clock.seconds - begun
            if sampled:
                sample = LocalEngine.of(drawn)
                sample = sample if encode is None else sample.prepared(encode)
                sample = sample.prepared(monitor.clock.in_time(scaler))
            del drawn
        if whole:
            engine = engine.prepared(monitor.clock.in_time(scaler))
    if monitor.stopped:
        return untrained
    validation = validation if given is None else given
    if validation is not None:
        validation = validation if encode is None else encode(validation)
        slope = parameters.negative_slope
        monitor.validation = Validation(validation, scaler, slope, nothing)
        monitor.journal.attach("validation", monitor.validation, with_steps=False)
    if not whole:  # where all rows are here, those held out are gone
        engine = engine.prepared(scaler if held_out is None else OfTraining(held_out, scaler))
    everything = Objective(
        engine,
        monitor,
        alpha=parameters.alpha,
        slope=parameters.negative_slope,
        whole=True,
        weight_sum=float(engine.n_rows),
        n_hidden=h,
    )
    held = everything if sample is None else everything.over(sample)
    few = _leading(held, sizes.few)
    judging = held if sample is None else few
    stages = Stages(everything, held, judging, few, _leading(few, schedule.ROWS.fewest(h)))
    if monitor.clock.limited:
        _foresee_the_end(stages, p, q, h)
    squares = summary.targets.squares * everything.weight_sum
    squares /= summary.targets.weight * float(summary.targets.variance.sum())
    before = None if begin is None else _known(stages, begin, h)
    try:
        found = _METHODS[parameters.method](Problem(stages, p, squares, begin), parameters)
    except OutOfTimeError:
        found = Outcome(nothing, mean_loss, ran_out=False)
    if before is not None and not found.loss < before.loss:
        found = before._replace(ran_out=found.ran_out)
    monitor.counts.fraction = 1.0
    if parameters.max_iter is not None and found.ran_out and monitor.stopping.reason is None:
        monitor.stopping.reason = "max_iter"
    if monitor.validation is not None:
        weights = monitor.validation.best.weights
    else:
        weights = found.weights if found.loss < mean_loss else nothing
    if weights is nothing:
        return Trained(nothing, scaler, summary, gram)
    # Of a subsample, where there is one: it takes no pass over the data.
    counted = held if parameters.method == "alternating" else stages.fewest
    kept = HiddenMoments(weights.W, parameters.negative_slope)
    gram = counted.engine.reduce(kept, "hidden-gram").gram
    gram *= summary.features.weight / counted.weight_sum
    if sample is None and not whole:
        monitor.counts.count_rows(held.engine.n_rows, whole=True)
    return Trained(weights, scaler, summary, gram)


def _seconds_a_row(clock: Clock, kernel: Callable[[Block], object], tile: Block) -> float:
    """Seconds that a kernel takes for a row of a tile."""
    kernel(tile)  # the first time takes longer
    begun = clock.seconds
    kernel(tile)
    return (clock.seconds - begun) / len(tile.x)


def _gradient_seconds(clock: Clock, p: int, q: int, h: int, dtype: np.dtype[np.floating]) -> float:
    """Seconds that the gradient takes for a row, as a step of a descent does."""
    tile = Block(np.ones((TILE, p), dtype), np.zeros((TILE, q), dtype))
    return _seconds_a_row(clock, LossAndGradient(_ones(p, q, h)), tile)


def _foresee_the_end(stages: Stages, p: int, q: int, h: int) -> None:
    """Time a tile of what a run ends with, so that its time is kept back."""
    everything, held, fewest = stages.everything, stages.held, stages.fewest
    clock, client = everything.monitor.clock, everything.engine.client
    if not isinstance(held.engine, LocalEngine):
        return
    tile, network = held.engine.tiles[0], _ones(p, q, h)
    closing = _seconds_a_row(clock, HiddenMoments(network.W), tile)
    clock.closing_seconds = closing * fewest.engine.n_rows / n_threads()
    if held is not everything:
        threads = n_threads() if client is None else max(1, sum(client.nthreads().values()))
        computing = _seconds_a_row(clock, SquaredLoss(network), tile)
        computing *= everything.engine.n_rows / threads
        clock.foresee_final_pass(clock.first_pass_seconds + computing)


def _ones(p: int, q: int, h: int) -> Weights:
    """Weights to time a kernel with."""
    return Weights(np.ones((p, h)), np.ones((h, q)), np.ones(q))


def _known(stages: Stages, start: Weights, h: int) -> Outcome | None:
    """A network to go on from, if the run may end with it too: nothing is lost by going on.

    Its loss is over the rows that the loss of the run will be over.
    """
    if start.n_hidden > h:
        return None
    everything = stages.everything
    everything.monitor.begin_stage("warm")

    def told() -> float:
        if not everything.monitor.clock.final_pass_fits:
            loss = stages.judging.loss(start)
            stages.judging.record(loss, start, overall=loss)
            return loss
        loss = everything.loss(start)
        everything.record(loss, start)
        return loss

    return Outcome(start, everything.monitor.journal.step("known", told), ran_out=False)


def _search(problem: Problem, parameters: Parameters) -> Outcome:
    """Neuron search on rows in memory, damped steps on all."""
    everything, held, judging, _, few = problem.stages
    monitor = everything.monitor
    rng = _random(parameters.seed, monitor.journal, problem.start)
    whitening = Whitening.of(held)
    best = FullDataBest(everything, held)
    monitor.journal.attach("overall", best)
    settle = partial(quasi_newton, whitening=whitening)
    descents = Descents(held, judging, few, whitening)
    found = Search(few, descents, best, parameters.n_hidden, rng, settle).run(
        parameters.max_iter, problem.start
    )
    if held is everything and monitor.stopped:
        return found
    known = best.best is not None and best.best.weights is found.weights
    if known and _too_late(problem, found.weights):
        assert best.best is not None
        return found._replace(loss=best.best.loss)
    weights, loss = _last_steps(problem, found.weights, found.loss, whitening, rng)
    if best.best is not None and best.best.loss < loss:
        weights, loss = best.best.weights, best.best.loss
    return Outcome(weights, loss, found.ran_out)  # the last steps are few by design


def _last_steps(
    problem: Problem,
    weights: Weights,
    judged: float,
    whitening: Whitening,
    rng: np.random.Generator,
) -> tuple[Weights, float]:
    """A few layer solves over all rows; where the network is too wide for them, L-BFGS steps.

    ``judged`` is the loss over some of the rows. It is the one that counts where a pass over all
    rows would take too great a part of the time.
    """
    everything, few = problem.stages.everything, problem.stages.few
    everything.monitor.begin_stage("layers")

    def layers() -> tuple[Weights, float]:
        if not everything.monitor.clock.final_pass_fits:
            problem.stages.judging.record(judged, weights, overall=judged)
            return weights, judged
        if _too_late(problem, weights):  # the loss over all rows has to be known
            loss = everything.loss(weights)
            everything.record(loss, weights)
            return weights, loss
        if weights.W.size > MOST_BLOCKS * LARGEST_SYSTEM:
            # Too wide for layer solves to reach every neuron in so few passes.
            moved, loss = quasi_newton(everything, weights, LAST_STEPS, whitening=whitening)
            everything.record(loss, moved)
            return moved, loss
        last = descend(everything, few, weights, LAST_STEPS, rng)
        return _refitted(everything, last.weights, last.loss)

    return everything.monitor.journal.step("layers", layers)


def _too_late(problem: Problem, weights: Weights) -> bool:
    """Whether no time is left for the last steps, which begin with a Gram matrix over all rows."""
    clock = problem.stages.everything.monitor.clock
    # So many times as long as a pass for the loss.
    passes = 2 + weights.n_hidden / (problem.n_columns + problem.target_squares.size)
    return clock.ends_within(passes * clock.final_pass_seconds)


def _kronecker(problem: Problem, parameters: Parameters) -> Outcome:
    """Kronecker-factored steps from hinges through pairs of rows, then layer solves on all rows."""
    everything, held, judging, _, few = problem.stages
    monitor = everything.monitor
    rng = _random(parameters.seed, monitor.journal, problem.start)
    monitor.begin_stage("rounds")
    whitening = Whitening.of(held)
    rounds = Rounds(Descents(held, judging, few, whitening), parameters.seed)
    begin = partial(started, few, problem.start, parameters.n_hidden, rng)
    weights, _ = monitor.journal.step("start", begin)
    most = SETTINGS.most_rounds if parameters.max_iter is None else parameters.max_iter
    weights, loss, ran_out = rounds.descend(weights, most)
    if held is not everything:
        weights, loss = _last_steps(problem, weights, loss, whitening, rng)
    return Outcome(weights, loss, ran_out)


def _damped(problem: Problem, parameters: Parameters) -> Outcome:
    """Damped steps from hinges through pairs of rows: on few rows, then on all."""
    everything, few = problem.stages.everything, problem.stages.few
    journal = everything.monitor.journal
    rng = _random(parameters.seed, journal, problem.start)
    begin = partial(started, problem.stages.fewest, problem.start, parameters.n_hidden, rng)
    weights, _ = journal.step("start", begin)
    steps = DAMPED_STEPS if parameters.max_iter is None else parameters.max_iter
    ran_out = None
    if few is not everything:
        everything.monitor.begin_stage("sample")
        on_few = partial(descend, few, few, weights, steps, rng)
        weights, _, ran_out = journal.step("sample", on_few)
        steps = min(steps, LAST_STEPS)
    everything.monitor.begin_stage("layers")
    on_all = partial(descend, everything, few, weights, steps, rng)
    last = Outcome(*journal.step("layers", on_all))
    weights, loss = _refitted(everything, last.weights, last.loss)
    return Outcome(weights, loss, last.ran_out if ran_out is None else ran_out)


def _random(seed: int, journal: Journal, start: Weights | None) -> np.random.Generator:
    """Random numbers that go on where a run was cut off, others where another one goes on."""
    rng = np.random.default_rng(seed if start is None else [seed, crc32(start.W.tobytes())])
    journal.attach("random", RandomState(rng))
    return rng


def _refitted(everything: Objective, weights: Weights, loss: float) -> tuple[Weights, float]:
    """The output layer at its critical point over all rows, under the last hidden layer."""
    if everything.monitor.stopped:
        return weights, loss
    refitted, refitted_loss = everything.refit_output(weights)
    if not refitted_loss < loss:
        return weights, loss
    everything.record(refitted_loss, refitted)
    return refitted, refitted_loss


def _leading(held: Objective, rows: int) -> Objective:
    """Over so many of the rows in memory, in whole tiles; over all, if that is nearly all."""
    if not isinstance(held.engine, LocalEngine):
        return held
    part = held.engine.leading(-(-schedule.ROWS.part(rows, held.engine.n_rows) // TILE))
    return held if part is held.engine else held.over(part)


def _alternating(problem: Problem, parameters: Parameters) -> Outcome:
    """The paper's alternation from random directions, every iteration on all rows."""
    everything = problem.stages.everything
    p, h = problem.n_columns, parameters.n_hidden
    check_alternation(h, p)
    everything.monitor.begin_stage("alternating")
    W = random_directions(p, h, np.random.default_rng(parameters.seed))
    if problem.start is not None:
        some = min(h, problem.start.n_hidden)
        W[:, :some] = problem.start.W[:, :some]
    limit = parameters.max_iter
    iterations = ITERATIONS if limit is None else limit

    def alternated() -> Outcome:
        return alternate(everything, W, problem.target_squares, iterations)

    return Outcome(*everything.monitor.journal.step("alternating", alternated))


def check_alternation(h: int, p: int) -> None:
    """Refuse what the system of the paper's hidden layer cannot hold."""
    if h * p > _LARGEST_ALTERNATION:
        raise ParameterError(
            f"alternating solves one system of neurons * (features + 1) = {h * p} unknowns, more "
            f"than {_LARGEST_ALTERNATION}; use search or fewer neurons",
            parameter="method",
        )


_METHODS: dict[str, Callable[[Problem, Parameters], Outcome]] = {
    "search": _search,
    "kronecker": _kronecker,
    "damped": _damped,
    "alternating": _alternating,
}
METHODS = ("committee", *_METHODS)  # see `altrelu_dist.committee`
