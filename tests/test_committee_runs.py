"""Runs of a committee: the same bits on any route, cut off and gone on with, and ended in time."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time

import dask.array as da
import numpy as np
import pytest
import zarr
from committees import made, quick, same_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score

from altrelu_dist import AltReLURegressor
from altrelu_dist.engine import TILE
from altrelu_dist.errors import CheckpointError


def digits(n, repeated=False):
    """Distinct rows, all exact in float32; repeated, or each with how often as its weight."""
    rng = np.random.default_rng(4)
    X = rng.integers(-2000, 2000, (n, 3)) / 256
    y = np.abs(X[:, 0]) + rng.integers(-9, 9, n) / 64
    times = rng.integers(0, 4, n)
    if not repeated:
        return X, y, times.astype(float)
    order = rng.permutation(times.sum())
    return np.repeat(X, times, 0)[order], np.repeat(y, times)[order]


# A network that follows the committee takes ten times as long.
SIZES = pytest.mark.parametrize("most", [None, pytest.param(60, marks=pytest.mark.slow)])


@SIZES
@pytest.mark.parametrize("chunk", [41, 100, (1, 1, 198)])
def test_the_same_bits_on_dask(chunk, most):
    X, y = made(200, q=2)
    weight = np.random.default_rng(1).random(200)
    small = {"max_size": most}
    expected = quick(**small).fit(X, y, weight)
    lazy = [da.from_array(v, chunks=(chunk, *v.shape[1:])) for v in (X, y, weight)]
    same_network(quick(**small).fit(*lazy).network_, expected.network_)
    same_network(quick(**small).fit(X, y, weight).network_, expected.network_)
    other = quick(**small, random_state=1).fit(X, y, weight)
    assert abs(other.predict(X) - expected.predict(X)).max() > 1e-6


@SIZES
def test_the_same_bits_of_several_tiles(most, tmp_path):
    X, y = made(2 * TILE + 77, d=2)
    X, y = X.astype("f4"), y.astype("f4")
    options = {"max_size": most}
    expected = quick(**options).fit(X, y)
    lazy = [da.from_array(v, chunks=(3001, *v.shape[1:])) for v in (X, y)]
    same_network(quick(**options).fit(*lazy).network_, expected.network_)
    stored = [zarr.create_array(tmp_path / n, data=v, chunks=(999, *v.shape[1:])) for n, v in
              (("X", X), ("y", y))]  # fmt: skip
    same_network(quick(**options).fit(*stored).network_, expected.network_)


@pytest.mark.cluster
def test_the_same_bits_on_a_cluster(process_client):
    X, y = made(2 * TILE + 77, d=2)
    expected = quick(max_size=60).fit(X, y)
    lazy = [da.from_array(v, chunks=(3001, *v.shape[1:])) for v in (X, y)]
    same_network(quick(max_size=60, client=process_client).fit(*lazy).network_, expected.network_)


def test_repeated_rows_are_weights():
    one, two = quick().fit(*digits(150)), quick().fit(*digits(150, repeated=True))
    new = made(100)[0]
    np.testing.assert_allclose(one.predict(new), two.predict(new), rtol=1e-6, atol=1e-6)
    assert one.expected_r2_ == pytest.approx(two.expected_r2_, abs=1e-6)


class CutError(Exception):
    pass


def at(report, action):
    """A callback that does so at a report of that number."""
    numbers = itertools.count()
    return lambda _: next(numbers) == report and action()


def cut():
    raise CutError


@SIZES
@pytest.mark.parametrize("action", [cut, lambda: True], ids=["cut", "stopped"])
def test_a_run_that_was_cut_off_goes_on(action, most, tmp_path):
    X, y = made(60, noise=0.0)  # so that a third round would follow
    options = {"max_iter": 2, "max_size": most}
    reports = []
    expected = quick(**options, callback=reports.append).fit(X, y)
    assert len(reports) > 12
    members = [k for k, report in enumerate(reports) if report.stage == "members"]
    for place, report in enumerate(np.linspace(3, members[-2], 3).astype(int)):
        kept = {"checkpoint": tmp_path / f"run-{place}", "checkpoint_interval": 0}
        with contextlib.suppress(CutError, KeyboardInterrupt):
            stopped = quick(**options, **kept, callback=at(report, action)).fit(X, y)
            assert stopped.stop_reason_ == "interrupted"
            assert np.isfinite(stopped.predict(X)).all()
        seen = []
        lazy = [da.from_array(v, chunks=(50, *v.shape[1:])) for v in (X, y)]
        rows = lazy if place % 2 else (X, y)
        found = quick(**options, **kept, resume=True, callback=seen.append).fit(*rows)
        same_network(found.network_, expected.network_)
        assert found.n_iter_ == expected.n_iter_
        assert found.stop_reason_ == expected.stop_reason_ == "max_iter"
        assert [e["loss"] for e in found.history_] == [e["loss"] for e in expected.history_]
        if report > len(reports) // 2:
            assert len(seen) < len(reports)


@pytest.mark.parametrize(
    ("other", "words"),
    [({"max_size": 100}, "max_size"), ({"alpha": 0.1}, "alpha"), ({"random_state": 1}, "seed")],
)
def test_a_checkpoint_of_another_run_is_refused(other, words, tmp_path):
    X, y = made(60)
    kept = {"checkpoint": tmp_path / "run"}
    quick(**kept).fit(X, y)
    with pytest.raises(CheckpointError, match=words):
        quick(**kept | other, resume=True).fit(X, y)
    with pytest.raises(CheckpointError, match="y"):
        quick(**kept, resume=True).fit(X, y + 1)


@pytest.mark.filterwarnings("ignore:a single pass")
@pytest.mark.parametrize("limit", [0.0, pytest.param(2.0, marks=pytest.mark.alone)])
def test_it_ends_in_time_with_a_network(limit):
    X, y = made(2000, d=5)
    model = AltReLURegressor(random_state=0, max_time=limit)
    # What is imported does not count.
    with pytest.warns(ConvergenceWarning, match="predicts the mean"):
        clone(model).set_params(max_time=0.0).fit(X, y)
    if not limit:
        return
    begun = time.perf_counter()
    model.fit(X, y)
    assert time.perf_counter() - begun < limit + 1.5
    assert model.stop_reason_ == "max_time"
    assert np.isfinite(model.predict(X)).all()
    assert model.score(X, y) > 0.3


def test_ctrl_c_ends_with_a_network():
    X, y = made(100)

    def press(progress):
        if progress.iteration == 3:
            signal.raise_signal(signal.SIGINT)

    model = quick(callback=press).fit(X, y)
    assert model.stop_reason_ == "interrupted"
    assert model.n_iter_ < 6
    assert model.score(X, y) > 0.9


def test_the_network_so_far_is_better_and_better():
    X, y = made(200)
    scores = []

    def callback(_):
        network = model.network_so_far()
        if network is not None:
            score = r2_score(y, network.predict(X)[:, 0])
            if score not in scores:
                scores.append(score)
        return len(scores) == 3

    model = quick(max_iter=2, callback=callback)
    model.fit(X, y)
    assert model.stop_reason_ == "interrupted"
    assert scores[-1] > scores[0]
    assert model.score(X, y) >= scores[-1] - 1e-3
    assert model.network_so_far() is None
