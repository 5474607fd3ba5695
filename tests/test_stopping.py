"""What ends a run and what it keeps: early stopping, time, Ctrl-C; what the last half bought."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings

import dask.array as da
import numpy as np
import pytest
from oracles import objective_over, random_block, random_weights, same
from sklearn.exceptions import ConvergenceWarning

from altrelu_dist import AltReLURegressor
from altrelu_dist.engine import TILE, OutOfTimeError
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.interrupts import catch_interrupts, stop_softly
from altrelu_dist.moments import Rows, Weights
from altrelu_dist.moments.rows import Scaler
from altrelu_dist.training import damped
from altrelu_dist.training.best import Best
from altrelu_dist.training.history import last_doubling
from altrelu_dist.training.kronecker import SETTINGS
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.neurons import insert
from altrelu_dist.training.schedule import ROWS, RowStages
from altrelu_dist.training.search import FullDataBest, Search
from altrelu_dist.training.validation import HeldOut, Validation

METHODS = {"search": 2, "kronecker": 1, "damped": 15, "alternating": 5}


def noisy(rng, n=600, d=4):
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, 0]) + 0.5 * X[:, 1] + rng.standard_normal(n)


def held_out_rows(n, fraction, seed):
    held, nothing = HeldOut.of(fraction, n, seed), np.empty((n, 0))
    whole = Rows(0, nothing, nothing)
    tiles = [whole.part(i, min(i + TILE, n)) for i in range(0, n, TILE)]
    return np.concatenate([held.mask(tile) for tile in tiles])


# Early stopping


def test_a_share_of_the_rows_is_held_out():
    n = 3 * TILE + 100
    held = held_out_rows(n, 0.1, seed=1)
    assert held.sum() == pytest.approx(0.1 * n, abs=4)
    assert (held != held_out_rows(n, 0.1, seed=2)).any()
    assert held_out_rows(20, 0.1, seed=0).sum() == 2
    many = HeldOut.of(0.1, 10**9, 0)
    assert many.share * 10**9 == pytest.approx(65_536)


@pytest.mark.parametrize("method", METHODS)
def test_held_out_rows_are_not_trained_on(method, rng):
    X, y = noisy(rng)
    held = held_out_rows(len(X), 0.25, seed=3)
    parameters = {"method": method, "max_iter": METHODS[method], "random_state": 3}
    stopping = {"early_stopping": True, "validation_fraction": 0.25}
    one = AltReLURegressor(6, **parameters, **stopping).fit(X, y)
    other = y.copy()
    other[held] = other[held] + 1e-9 * rng.standard_normal(held.sum())
    two = AltReLURegressor(6, **parameters, **stopping).fit(X, other)
    losses = [e["loss"] for e in one.history_]
    assert losses == [e["loss"] for e in two.history_], "the training saw the rows held out"
    # The network that is kept has the least loss on them that the history tells.
    kept = np.mean((one.predict(X[held]) - y[held]) ** 2)
    told = one.history_[-1]["validation_loss"]
    assert kept == pytest.approx(told)
    assert told <= min(e["validation_loss"] for e in one.history_[1:])
    assert told < np.var(y[held]) * 1.1


@pytest.mark.parametrize(
    ("method", "weighted"),
    [
        # `test_same_bits.py` has the search without weights among the quick tests.
        pytest.param("search", False, marks=pytest.mark.slow),
        ("search", True),
        *((method, weighted) for method in list(METHODS)[1:] for weighted in (False, True)),
    ],
)
def test_the_same_bits_on_dask_and_whatever_the_chunks(method, weighted, rng, small_samples):
    del small_samples  # so that all three stages of a run over more rows than fit are passed
    X, y = noisy(rng, n=4 * TILE + 77)
    weight = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    models = []
    for chunk in (len(X), 1999):
        lazy = [None if a is None else da.from_array(a, chunks=(chunk, -1)[: a.ndim])
                for a in (X, y, weight)]  # fmt: skip
        model = AltReLURegressor(4, method=method, max_iter=2, early_stopping=True, random_state=1)
        models.append(model.fit(lazy[0], lazy[1], lazy[2]))
    assert math.isfinite(models[0].history_[-1]["validation_loss"])
    for model in models[1:]:
        for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
            assert same(getattr(model.network_, name), getattr(models[0].network_, name))
    held = held_out_rows(len(X), 0.1, seed=1)
    share = None if weight is None else weight[held]
    kept = np.average((models[0].predict(X[held]) - y[held]) ** 2, weights=share)
    assert kept == pytest.approx(models[0].history_[-1]["validation_loss"])


def test_it_stops_and_generalises_where_the_network_is_too_large(rng):
    X, y = noisy(rng, n=300, d=8)
    new_X, new_y = noisy(rng, n=3000, d=8)
    scores = {}
    for stopping in (False, True):
        model = AltReLURegressor(24, early_stopping=stopping, random_state=0, max_iter=2)
        scores[stopping] = model.fit(X, y).score(new_X, new_y)
    assert model.stop_reason_ in ("early_stopping", "max_iter")
    assert model.network_.n_hidden < 24
    assert scores[True] > max(0, scores[False]) + 0.1


def test_noise_leaves_the_mean(rng):
    X, y = rng.standard_normal((60, 5)), rng.standard_normal(60)
    model = AltReLURegressor(8, early_stopping=True, validation_fraction=0.5, random_state=0)
    model.fit(X, y)
    held = held_out_rows(60, 0.5, seed=0)
    assert np.mean((model.predict(X[held]) - y[held]) ** 2) <= np.mean(
        (y[~held].mean() - y[held]) ** 2
    ) + 1e-12  # fmt: skip


def test_early_stopping_on_rows_without_weight_says_so(rng):
    X, y = noisy(rng, n=20)
    weight = np.where(held_out_rows(20, 0.1, seed=0), 0.0, 1.0)
    with pytest.raises(DataError, match="no row with weight is held out"):
        AltReLURegressor(2, early_stopping=True, random_state=0).fit(X, y, weight)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "half", None, math.nan])
def test_a_fraction_that_cannot_be_is_named(fraction, rng):
    model = AltReLURegressor(2, early_stopping=True, validation_fraction=fraction)
    with pytest.raises(ParameterError, match="validation_fraction"):
        model.fit(*noisy(rng))


def test_only_iterations_over_all_rows_count_towards_the_end(rng):
    X, y = noisy(rng)
    scaler = Scaler(np.dtype(float), np.zeros(4), np.ones(4), np.zeros(1), 1.0, 1.0)
    start = Weights(np.zeros((5, 2)), np.zeros((2, 1)), np.zeros(1))
    bad = Weights(start.W, start.V, np.array([9.0]))
    good = Weights(start.W, start.V, np.array([y.mean()]))
    validation = Validation(Rows(0, X, y[:, None]), scaler, 0.0, start)
    assert validation.best.loss == pytest.approx(np.mean(y**2))
    validation.validate(good, 100, whole=False)
    assert validation.best.weights is good
    assert validation.best.loss == pytest.approx(np.var(y))
    for _ in range(20):
        validation.validate(bad, 1000, whole=False)
    assert not validation.stagnates
    for rows in range(101, 107):
        validation.validate(bad, rows, whole=True)
    assert not validation.stagnates, "six iterations, but next to no work"
    validation.validate(bad, 150, whole=True)
    assert validation.stagnates
    large = Weights(np.zeros((5, 3)), np.zeros((3, 1)), np.array([y.mean()]) + 1e-9)
    validation.best = Best(good)
    validation.validate(large, 160, whole=True)
    assert validation.best.weights is good, "more neurons than were asked for"


def test_a_network_that_few_rows_led_to_is_counted_once(rng, small_samples, monkeypatch):
    del small_samples
    counted = []
    validate = Validation.validate

    def noting(self, weights, rows, *, whole):
        counted.append(whole)
        validate(self, weights, rows, whole=whole)

    monkeypatch.setattr(Validation, "validate", noting)
    X, y = noisy(rng, n=30_000)
    model = AltReLURegressor(3, early_stopping=True, random_state=0, max_iter=2).fit(X, y)
    made = model.history_[1:]
    sampled = [entry for entry in made if entry["loss_rows"] < len(X)]
    cycles = [entry["loss"] for entry in sampled if entry["stage"] == "cycle"]
    assert cycles
    assert all(loss < model.history_[0]["loss"] for loss in cycles), "over all rows, too"
    assert sum(counted) == len(made) - len(sampled)


# Time


@pytest.mark.alone
@pytest.mark.parametrize("n", [2000, 40_000])
@pytest.mark.parametrize("method", METHODS)
def test_max_time_is_kept_and_leaves_a_network(method, n, rng):
    X, y = noisy(rng, n=n, d=10)
    begin = time.perf_counter()
    model = AltReLURegressor(40, method=method, max_time=1.0, random_state=0).fit(X, y)
    took = time.perf_counter() - begin
    assert took < 1.0 + 1.0  # 0.3 s, but the machine may be busy
    assert model.score(X, y) > 0
    if model.stop_reason_ == "max_time":
        assert model.history_[-1]["seconds"] > 0.3


def test_a_pass_that_is_out_of_time_gives_up():
    monitor = Monitor(max_time=0.0)
    with pytest.raises(OutOfTimeError):
        monitor.clock.in_time(len)(())
    assert monitor.stopping.reason == "max_time"
    assert Monitor().clock.in_time(len)((1, 2)) == 2


def test_a_pass_gives_up_before_a_tile_that_would_take_too_long():
    monitor = Monitor(max_time=1000.0)

    def long(block):
        monitor.clock.begun -= block
        return block

    timed = monitor.clock.in_time(long)
    assert timed(300) == 300
    assert timed(400) == 400
    with pytest.raises(OutOfTimeError):  # of 300 seconds that are left
        timed(1)
    assert monitor.stopping.reason == "max_time"


def test_a_damped_step_is_not_begun_that_would_take_too_long(rng, monkeypatch):
    monitor = Monitor(max_time=1000.0)
    objective = objective_over(random_block(rng, 300, 3), monitor=monitor)

    class Long(damped.LevenbergMarquardtSystem):
        def step(self, gradient, damping):
            monitor.clock.begun -= 400
            return super().step(gradient, damping)

    monkeypatch.setattr(damped, "LevenbergMarquardtSystem", Long)
    found = damped.descend(objective, objective, random_weights(rng, 4, 3), 10, rng)
    assert not found.ran_out
    assert len(monitor.history) == 3  # where it began, and two steps


def test_neurons_are_inserted_even_where_no_time_is_left(rng):
    block = random_block(rng, 300, 3)
    objective = objective_over(block, monitor=Monitor(max_time=0.0))
    none = Weights(np.zeros((4, 0)), np.zeros((0, 1)), np.zeros(1))
    weights, loss = objective.refit_output(insert(objective, none, 5, rng))
    assert weights.n_hidden == 5
    assert loss < np.var(block.y)


def test_the_last_pass_is_kept_back_but_at_most_half_of_the_time():
    monitor = Monitor(max_time=1000.0)
    monitor.clock.final_pass_seconds = 400.0
    assert not monitor.stopped
    monitor.clock.final_pass_seconds = 5000.0
    assert not monitor.stopped
    monitor.clock.begun -= 500
    assert monitor.stopped


@pytest.mark.parametrize(("max_time", "fits"), [(100.0, True), (50.0, False), (None, True)])
def test_a_last_pass_that_takes_a_tenth_of_the_time_is_left_out(max_time, fits):
    clock = Monitor(max_time=max_time).clock
    clock.foresee_final_pass(9.0)
    assert clock.final_pass_fits is fits
    assert clock.final_pass_seconds == (9.0 if fits else 0.0)


def test_no_more_rows_are_kept_than_there_is_time_for():
    stages = RowStages(few=10, damped=40, held=4000, whole=False)
    assert ROWS.visited(stages, math.inf, 1.0) == stages
    assert ROWS.visited(stages, 1000.0, 0.5).held == ROWS.visiting * 2000
    assert ROWS.visited(stages, 1.0, 0.5).held == 40
    assert ROWS.visited(stages._replace(whole=True), 1.0, 0.5).held == 4000


def test_one_descent_has_the_time_that_is_too_short_for_a_race(rng):
    monitor = Monitor(max_time=1000.0)
    objective = objective_over(random_block(rng, 2000, 3), monitor=monitor)
    made = []

    class Few(Misleading):
        def affordable(self, weights):
            return 0.0 if made else 700.0 * weights.n_hidden

        def descend(self, begin, steps, length, seed):
            made.append((steps, length))
            return super().descend(begin, steps, length, seed)

    descents = Few(objective, objective)
    search = Search(objective, descents, FullDataBest(objective, objective), 2, rng, settle=None)
    found = search.run()
    assert made == [(700, SETTINGS.unraced_length(700))]
    assert found.weights is descents.ended[0]
    assert monitor.stopping.reason == "max_time"


@pytest.mark.parametrize("steps", [1, 100, 700, 3000, 10**6])
def test_a_longer_descent_without_a_race_takes_shorter_steps(steps):
    lengths = [SETTINGS.unraced_length(count) for count in (steps, 2 * steps)]
    assert max(SETTINGS.lengths) * 4 > lengths[0] >= lengths[1] >= min(SETTINGS.lengths)


class Misleading:
    """Descents on some rows that say they are ever better and are ever worse over all rows."""

    settings = SETTINGS
    tile_rows = 1024

    def cut(self, tile_rows):
        assert tile_rows == self.tile_rows

    n_rows = 2000

    def __init__(self, objective, everything):
        self.objective = self.judging = objective
        self._everything = everything
        self.ended = []

    def descend(self, begin, steps, length, seed):
        del steps, length, seed
        refitted, _ = self._everything.refit_output(begin)
        self.ended.append(Weights(refitted.W, refitted.V, refitted.c + len(self.ended)))
        return self.ended[-1]

    def loss(self, weights):
        del weights
        return 0.5 ** len(self.ended)

    def refitted(self, weights, loss):
        return weights, loss

    def affordable(self, weights):
        del weights
        return math.inf


def test_what_is_best_over_all_rows_is_kept(rng):
    """Of the networks that some of the rows led to, not the last one but the best over all."""
    monitor = Monitor()
    everything = objective_over(random_block(rng, 3 * TILE, 3), monitor=monitor)
    few = everything.over(everything.engine.leading(1))
    best, descents = FullDataBest(everything, few), Misleading(few, everything)
    search = Search(few, descents, best, 2, rng, settle=lambda _, weights, *__: (weights, 1.0))
    found = search.run(cycles=2)
    assert found.weights is descents.ended[-1]
    assert best.best.loss == everything.evaluate(best.best.weights)[0]
    assert best.best.loss < everything.evaluate(found.weights)[0]


# What the last half of the time bought


def entry(seconds, loss, rows=None, sample=math.nan, stage="cycle"):
    told = {"seconds": seconds, "loss": loss, "sample_loss": sample, "stage": stage}
    return told if rows is None else told | {"loss_rows": rows}


def test_the_last_doubling():
    mean = entry(0.1, 1.0)
    full = [mean, entry(1, 0.5, 10), entry(2, 0.4, 10), entry(3, 0.3, 10), entry(4, 0.2, 10)]
    assert last_doubling(full) == pytest.approx(0.5)
    # Over more rows the comparison starts anew.
    wider = [
        mean,
        entry(1, 1.0, 10, 0.4),
        entry(3, 1.0, 10, 0.2),
        entry(4, 1.0, 20, 0.3, "widen"),
        entry(5, 1.0, 20, 0.15),
    ]
    assert last_doubling(wider) == pytest.approx(0.75)
    grown = [mean, entry(1, 1.0, 10, 0.4, "grow"), entry(3, 1.0, 20, 0.3, "grow")]
    assert math.isnan(last_doubling(grown)), "the network grew over ever more rows"
    assert math.isnan(last_doubling([mean, entry(1, 0.5, 10)]))
    assert math.isnan(last_doubling([]))
    assert last_doubling([mean, entry(1, 0.0, 10), entry(4, 0.0, 10)]) == 0


def test_a_run_tells_its_last_doubling_and_keeps_it(rng, tmp_path):
    X, y = noisy(rng)
    model = AltReLURegressor(4, random_state=0, max_iter=5).fit(X, y)
    losses = [(e["seconds"], e["loss"]) for e in model.history_]
    at_half = [loss for seconds, loss in losses if seconds <= losses[-1][0] / 2][-1]
    assert model.last_doubling_ == pytest.approx(1 - losses[-1][1] / at_half)
    model.save(tmp_path / "model.zarr")
    assert AltReLURegressor.load(tmp_path / "model.zarr").last_doubling_ == model.last_doubling_


# Ctrl-C


SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


def press_at(iteration, times=1, number=signal.SIGINT):
    """A callback that presses Ctrl-C as soon as so many iterations are recorded."""

    def callback(progress):
        if progress.iteration == iteration:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return callback


@pytest.fixture
def plain_ctrl_c():
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in usual.items():
        assert signal.getsignal(number) is handler
        signal.signal(number, before[number])


@pytest.mark.usefixtures("plain_ctrl_c")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("method", METHODS)
def test_the_first_signal_keeps_the_best_network(method, number, rng, capfd):
    X, y = noisy(rng)
    model = AltReLURegressor(4, method=method, random_state=0, callback=press_at(3, number=number))
    model.fit(X, y)
    assert model.stop_reason_ == "interrupted"
    assert model.score(X, y) > 0.2
    again = "Ctrl-C again" if number == signal.SIGINT else "once more"
    assert f"best network kept; {again} stops at once" in capfd.readouterr().err


@pytest.mark.usefixtures("plain_ctrl_c")
@pytest.mark.parametrize(("number", "error"), SIGNALS.items())
def test_the_second_signal_raises(number, error, rng):
    model = AltReLURegressor(4, random_state=0, callback=press_at(3, times=2, number=number))
    with pytest.raises(error) as raised:
        model.fit(*noisy(rng))
    assert number == signal.SIGINT or raised.value.code == 143
    assert not hasattr(model, "network_")


@pytest.mark.usefixtures("plain_ctrl_c")
@pytest.mark.parametrize(("number", "error"), SIGNALS.items())
def test_a_signal_before_there_is_a_network_raises(number, error, rng):
    with pytest.raises(error):
        AltReLURegressor(4, random_state=0, callback=press_at(0, number=number)).fit(*noisy(rng))


@pytest.mark.usefixtures("plain_ctrl_c")
def test_a_child_of_multiprocessing_is_ended_by_sigterm(monkeypatch):
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    with stop_softly(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_somebody_elses_handler_is_left_alone(rng):
    with catch_interrupts(lambda _: None) as interrupts:
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def callback(progress):
            del progress
            assert {number: signal.getsignal(number) for number in SIGNALS} == before

        AltReLURegressor(3, max_iter=1, random_state=0, callback=callback).fit(*noisy(rng))
    assert not interrupts.requested


@pytest.mark.usefixtures("plain_ctrl_c")
def test_a_fit_in_another_thread_leaves_ctrl_c_alone(rng):
    X, y = noisy(rng)
    model = AltReLURegressor(3, max_iter=1, random_state=0)
    thread = threading.Thread(target=model.fit, args=(X, y))
    thread.start()
    thread.join()
    assert model.score(X, y) > 0


@pytest.mark.parametrize(("n", "fraction"), [(2, 0.1), (5, 0.1), (3, 0.99), (10, 0.01)])
@pytest.mark.parametrize("seed", range(5))
def test_few_rows_leave_some_to_train_on_and_some_to_validate(n, fraction, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, 2)), rng.standard_normal(n)
    model = AltReLURegressor(
        2, early_stopping=True, validation_fraction=fraction, random_state=seed
    ).fit(X, y)
    assert np.isfinite(model.predict(X)).all()


# What is warned of


def test_fewer_neurons_than_asked_for_are_warned_of(rng):
    X = rng.integers(2, size=(200, 2)).astype(float)  # four different rows
    with pytest.warns(ConvergenceWarning, match=r"has \d+ of 50 neurons: no further one") as told:
        model = AltReLURegressor(50, random_state=0).fit(X, X[:, 0])
    assert told[0].filename == __file__
    sizes = abs(model.network_.hidden_weights).sum(0) * abs(model.network_.output_weights).sum(1)
    assert f"has {np.count_nonzero(sizes)} of 50" in str(told[0].message)
    with pytest.warns(ConvergenceWarning, match="has 0 of 3 neurons: no further one"):
        AltReLURegressor(3).fit(X, np.ones(200))


@pytest.mark.parametrize("stopping", [False, True])
def test_all_neurons_and_those_that_early_stopping_chose_are_not(stopping, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AltReLURegressor(4, early_stopping=stopping, random_state=0, max_iter=1).fit(*noisy(rng))


def test_too_little_time_is_warned_of(rng):
    X, y = noisy(rng, n=3000)
    with pytest.warns(ConvergenceWarning, match="a single pass over the data takes .* more than"):
        model = AltReLURegressor(8, max_time=1e-9).fit(X, y)
    assert model.predict(X) == pytest.approx(y.mean())
    assert model.stop_reason_ == "max_time"

    told = []
    model = AltReLURegressor(64, max_time=3600, random_state=0)
    model._warn = told.append
    begin = Monitor.__init__

    def fast(self, *arguments, **named):
        begin(self, *arguments, **named)
        follow = self._callback

        def callback(now):
            if now.stage == "sample":
                self.clock.begun -= 3600
            return follow(now)

        self._callback = callback

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "__init__", fast)
        model.fit(X, y)
    (text,) = told
    assert "has 0 of 64 neurons, since the 3600 s allowed were over before it was trained" in text
