"""What a callback is told and may stop; how iterations and time bound a run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from plain_networks import METHODS, QUICK, wavy
from sklearn.exceptions import ConvergenceWarning

from altrelu_dist import AltReLURegressor
from altrelu_dist.engine import TILE


class Stop:
    """A callback that asks to stop once it was asked so many times."""

    def __init__(self, after, stage=None):
        self.after, self.stage = after, stage
        self.seen = []
        self.asked = None

    def __call__(self, progress):
        self.seen.append(progress)
        enough = len(self.seen) > self.after
        if enough and (self.stage is None or progress.stage == self.stage):
            self.asked = self.asked or len(self.seen)
            return True
        return None


@pytest.mark.parametrize("after", [0, 1, 2, 5, 20, 100])
@pytest.mark.parametrize("method", METHODS)
def test_a_callback_stops_the_run_and_a_usable_network_stays(method, after):
    X, y = wavy()
    stop = Stop(after)
    model = AltReLURegressor(6, method=method, random_state=0, callback=stop)
    model.fit(X, y)
    if stop.asked is None:  # it was through before
        assert model.stop_reason_ == "converged"
        return
    assert model.stop_reason_ == "interrupted"
    assert len(stop.seen) <= stop.asked + 8  # the current step may tell of its end
    assert np.isfinite(model.predict(X)).all()
    mse = ((model.predict(X) - y) ** 2).mean()
    assert mse <= y.var() * (1 + 1e-9)
    assert mse == pytest.approx(model.history_[-1]["loss"], rel=1e-6)
    assert model.n_iter_ == len(model.history_) >= 1


@pytest.mark.parametrize("part", [0.5, pytest.param(0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [4500, 9000])
def test_a_stop_in_any_stage_leaves_the_network_that_the_history_tells(
    method, n, part, small_samples
):
    """With rows held in memory, and with samples of rows that are not."""
    del small_samples
    X, y = wavy(n, 2)
    most = QUICK[method]
    stages = []
    model = AltReLURegressor(2, method=method, random_state=0, max_iter=most)
    model.set_params(callback=lambda progress: stages.append(progress.stage)).fit(X, y)
    for stage in dict.fromkeys(stages):
        stop = Stop(stages.index(stage) + int(part * stages.count(stage)), stage)
        model.set_params(callback=stop).fit(X, y)
        if stop.asked is None:
            continue
        assert model.stop_reason_ == "interrupted"
        mse = ((model.predict(X) - y) ** 2).mean()
        assert mse <= y.var() * (1 + 1e-9), stage
        assert mse == pytest.approx(model.history_[-1]["loss"], rel=1e-6), stage


def test_a_stop_while_the_network_grows_on_some_of_the_rows():
    X, y = wavy(5 * TILE, 2)
    y = y + np.linspace(-2, 2, len(y))  # nothing to do with X
    stop = Stop(5, "grow")
    model = AltReLURegressor(4, random_state=0, callback=stop).fit(X, y)
    assert stop.asked is not None
    mse = ((model.predict(X) - y) ** 2).mean()
    assert mse <= y.var() * (1 + 1e-9)
    assert mse == pytest.approx(model.history_[-1]["loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["search", "damped"])
def test_max_time_ends_the_run(method):
    X, y = wavy(3 * TILE, 8)
    begun = time.perf_counter()
    model = AltReLURegressor(32, method=method, random_state=0, max_time=0.3).fit(X, y)
    assert model.stop_reason_ == "max_time"
    assert time.perf_counter() - begun < 5  # one step on a busy machine
    assert ((model.predict(X) - y) ** 2).mean() <= y.var()


def test_no_time_at_all_gives_the_mean():
    X, y = wavy()
    for method in METHODS:
        with pytest.warns(ConvergenceWarning, match="a single pass over the data takes"):
            model = AltReLURegressor(4, method=method, max_time=0).fit(X, y)
        assert model.stop_reason_ == "max_time"
        assert model.predict(X) == pytest.approx(np.full(len(y), y.mean()))


@pytest.mark.parametrize(
    ("method", "stage"), [("alternating", "alternating"), ("damped", "layers")]
)
def test_max_iter_bounds_the_iterations(method, stage):
    X, y = wavy()
    for most in (1, 3):
        model = AltReLURegressor(6, method=method, random_state=0, max_iter=most).fit(X, y)
        made = [entry for entry in model.history_ if entry["stage"] == stage]
        assert len(made) <= most + 2  # where it started, each iteration, the last refit


def test_max_iter_bounds_the_cycles_of_the_search():
    X, y = wavy()
    for most in (1, 2):
        model = AltReLURegressor(4, random_state=0, max_iter=most).fit(X, y)
        assert sum(entry["stage"] == "cycle" for entry in model.history_) == most


@pytest.mark.parametrize("method", METHODS)
def test_progress_and_history_tell_the_run(method):
    X, y = wavy()
    seen = []
    model = AltReLURegressor(
        6, method=method, random_state=0, max_iter=QUICK[method], callback=seen.append
    ).fit(X, y)
    history = model.history_
    assert [entry["iteration"] for entry in history] == list(range(1, len(history) + 1))
    fields = ("stage", "iteration", "loss", "sample_loss", "passes", "rows", "seconds", "fraction")
    for entry in history:
        assert set(fields) <= set(entry)
    for told in (seen, [type(seen[0])(*(e[f] for f in fields)) for e in history]):
        for name in ("iteration", "passes", "rows", "seconds"):
            values = [getattr(progress, name) for progress in told]
            assert values == sorted(values), name
        for progress in told:
            assert np.isnan(progress.fraction) or 0 <= progress.fraction <= 1
    # A last refit that lowers nothing is no iteration.
    assert history[-1]["passes"] <= model.n_passes_ <= history[-1]["passes"] + 1
    assert history[-1]["rows"] >= (model.n_passes_ - 2) * len(X)
    assert history[0]["loss"] == pytest.approx(y.var())  # predicting the mean is where it starts


def test_the_loss_that_is_told_falls_within_a_descent_and_is_never_below_the_networks():
    X, y = wavy()
    told = []
    model = AltReLURegressor(6, random_state=0, max_iter=2, callback=told.append).fit(X, y)
    losses = np.array([p.loss for p in told if np.isfinite(p.loss)])
    assert (np.diff(losses) <= 0).all()
    assert len(set(losses)) > 2 * len({entry["loss"] for entry in model.history_})
    mse = np.mean((model.predict(X) - y) ** 2)
    assert losses[-1] == pytest.approx(mse, rel=1e-5)
