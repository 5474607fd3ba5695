"""The time a run may take: it is kept, a network is left, and what its last half bought is told."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from noisy_rows import METHODS, noisy
from oracles import objective_over, random_block, random_weights
from sklearn.exceptions import ConvergenceWarning

from altrelu_dist import AltReLURegressor
from altrelu_dist.engine import TILE, OutOfTimeError
from altrelu_dist.moments import Weights
from altrelu_dist.training import damped
from altrelu_dist.training.history import last_doubling
from altrelu_dist.training.kronecker import SETTINGS
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.neurons import insert
from altrelu_dist.training.schedule import ROWS, RowStages
from altrelu_dist.training.search import FullDataBest, Search


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
