"""The committee: what its members, its line, its weights and the network of them all have to be."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import activate, pattern, same
from scipy.optimize import nnls
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score

from altrelu_dist import AltReLURegressor, Network, fitting, on_workers
from altrelu_dist.committee import side_by_side
from altrelu_dist.committee.line import _PENALTIES, ridge_lines, ridge_lines_of_few
from altrelu_dist.committee.members import Group, GroupDescent, hinges, out_of_fold
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.settings import COMMITTEE, CommitteeSettings
from altrelu_dist.committee.side_by_side import Here, SideBySide
from altrelu_dist.committee.stacking import combined, stacked
from altrelu_dist.engine import TILE
from altrelu_dist.errors import CheckpointError
from altrelu_dist.fitting import CommitteeFit
from altrelu_dist.moments.rows import Block, Rows
from altrelu_dist.training import schedule

ARRAYS = ("hidden_weights", "hidden_bias", "output_weights", "output_bias", "hidden_gram")


def made(n=200, d=3, q=1, noise=0.1, seed=0):
    """Rows of a curved truth; targets of one axis where there is one."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    columns = [np.abs(X[:, t % d]) + 0.5 * X[:, -1] for t in range(q)]
    y = np.stack(columns, axis=1) + noise * rng.standard_normal((n, q))
    return X, y[:, 0] if q == 1 else y


def quick(**options):
    return AltReLURegressor(**{"random_state": 0, "max_iter": 1} | options)


def same_network(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.encoder == other.encoder
    assert all(one.info[name] == other.info[name] for name in ("expected_r2", "groups"))
    np.testing.assert_array_equal(one.target_range, other.target_range)


@pytest.fixture
def committees(monkeypatch):
    """The committees that are fitted, to look inside."""
    seen = []
    begin = CommitteeFit.__post_init__

    def noting(self):
        begin(self)
        seen.append(self._committee)

    monkeypatch.setattr(CommitteeFit, "__post_init__", noting)
    return seen


# --- one network ------------------------------------------------------------------------------


def weighted_mean(committee, X):
    """What members and lines say of raw rows, each computed apart, weighed and in raw units."""
    pool = committee.pool
    stack, slope = pool.stack, committee.parameters.negative_slope
    total = 0.0
    for place, weight in zip(stack.kept, stack.weights, strict=True):
        candidate = pool.candidates[place]
        columns = candidate.encoding.encoder.transform(X)
        if candidate.encoding.whitening is not None:
            columns = columns @ candidate.encoding.whitening.astype(np.float64)
        if candidate.encoding.factors is not None:
            columns = columns * candidate.encoding.factors
        x = np.append(columns, np.ones((len(X), 1)), axis=1)
        if not isinstance(candidate.trained, Group):
            said = [x @ line for line in candidate.trained]
        else:
            W, V, c = (part.astype(np.float64) for part in candidate.trained)
            h = V.shape[1]
            hidden = activate(x @ W, slope)
            said = [hidden[:, k * h : (k + 1) * h] @ V[k] + c[k] for k in range(len(V))]
        total = total + weight * np.mean(said, axis=0)
    return total * committee.scaler.target_scale + committee.scaler.target_center


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("q", [1, 3])
def test_the_network_is_the_weighted_mean_of_the_members(slope, q, committees):
    X, y = made(120, q=q)
    model = quick(negative_slope=slope, extrapolate=True).fit(X, y)
    (committee,) = committees
    far = 3 * np.random.default_rng(1).standard_normal((50, 3))
    pool = committee.pool
    kinds = {candidate.name.split("-0-")[0] for candidate in pool.candidates}
    assert kinds == {"line-0", "line-1", *(kind.name for kind in COMMITTEE.kinds)}
    # Every candidate in turn, and some of all kinds, whatever the weights that were found.
    every = range(len(pool.candidates))
    for kept in ([k] for k in every), [every]:
        for places in kept:
            weights = np.random.default_rng(len(places)).random((len(places), q))
            pool.stack = pool.stack._replace(kept=list(places), weights=weights)
            layers = pool.layers()
            network = Network(
                layers.hidden, layers.hidden_bias, layers.output, layers.output_bias,
                negative_slope=slope, encoder=layers.encoder,
            )  # fmt: skip
            np.testing.assert_allclose(
                network.predict(far), weighted_mean(committee, far), rtol=1e-9, atol=1e-9
            )
    assert model.network_.n_hidden == sum(g["n_hidden"] for g in model.network_.info["groups"])


@pytest.mark.parametrize("q", [1, 3])
def test_it_is_saved_and_predicts_on_dask(q, tmp_path):
    X, y = made(100, q=q)
    model = quick().fit(X, y)
    expected = model.predict(X)
    model.save(tmp_path / "model.zarr")
    loaded = AltReLURegressor.load(tmp_path / "model.zarr")
    same_network(loaded.network_, model.network_)
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(X), expected)
        blocks = other.predict(da.from_array(X, chunks=(33, 2)))
        np.testing.assert_allclose(blocks, expected, rtol=1e-12, atol=1e-12)
    again = clone(model).fit(X, y)
    same_network(again.network_, model.network_)


def test_predictions_stay_in_the_range_of_the_targets_unless_they_may_leave_it():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 2))
    y = X @ [1.0, 2.0]
    far = np.array([[9.0, 9.0], [-9.0, -9.0]])
    kept, free = quick().fit(X, y).predict(far), quick(extrapolate=True).fit(X, y).predict(far)
    beyond = (y.max() - y.min()) / 4
    np.testing.assert_allclose(kept, [y.max() + beyond, y.min() - beyond])
    assert free[0] > kept[0]
    assert free[1] < kept[1]
    assert quick(n_hidden=2).fit(X, y).network_.target_range is None


@pytest.mark.parametrize(
    ("most", "q"),
    [
        *((most, q) for most in (1, 4, 30, 1030) for q in (1, 2)),
        *(pytest.param(most, q, marks=pytest.mark.slow) for most, q in ((100, 2), (513, 1))),
    ],
)
def test_no_more_neurons_than_allowed(most, q):
    X, y = made(300, q=q)
    model = quick(max_size=most).fit(X, y)
    assert model.network_.n_hidden <= most
    info = model.network_.info
    if most >= 30:
        assert model.expected_r2_ > 0.9
    if "distilled_from" in info:  # a small network follows the committee
        assert info["distilled_from"] > most
        assert info["fidelity"] <= 1
        committee = quick().fit(X, y)
        assert model.expected_r2_ <= committee.expected_r2_
        told = 1 - info["expected_mse"] / np.var(y, axis=0).mean()
        np.testing.assert_allclose(told, model.expected_r2_, atol=0.05)


@pytest.mark.parametrize("most", [2, 4, 20])
def test_a_small_network_of_a_linear_truth_is_at_least_the_line(most):
    rng = np.random.default_rng(0)
    X, new = rng.standard_normal((200, 6)), rng.standard_normal((1000, 6))
    truth = np.array([1.0, -2.0, 0.5, 0, 0, 1])
    y = X @ truth + 2 * rng.standard_normal(200)
    model = quick(max_size=most).fit(X, y)
    line = RidgeCV(np.logspace(-3, 3, 13)).fit(X, y)
    assert model.network_.n_hidden <= most
    assert model.score(new, new @ truth) > line.score(new, new @ truth) - 0.05


def test_a_small_network_stops_where_the_user_asks():
    X, y = made(300)
    seen = []

    def stop(progress):
        seen.append(progress.stage)
        return progress.stage == "distil"

    model = quick(max_size=30, callback=stop).fit(X, y)
    assert seen.count("distil") <= 3
    assert model.network_.n_hidden <= 30
    assert np.isfinite(model.predict(X)).all()


def test_a_file_of_a_committee_is_a_committee_again(tmp_path):
    X, y = made(60)
    quick().fit(X, y).network_.save(tmp_path / "bare.zarr")
    assert AltReLURegressor.load(tmp_path / "bare.zarr").n_hidden is None


def test_weights_far_apart_in_one_fold():
    X, y = made(200)
    for seed in range(4):
        weight = np.ones(200)
        weight[np.random.default_rng(seed).choice(200, 2, replace=False)] = 1e20
        assert np.isfinite(quick().fit(X, y, weight).predict(X)).all()


# --- members ----------------------------------------------------------------------------------


class Whole:
    """All rows as tiles of so many."""

    def __init__(self, block, size):
        n = len(block.x)
        self.starts = [*range(0, n, size), n]
        self.block = block

    def __getitem__(self, number):
        here = slice(self.starts[number], self.starts[number + 1])
        return Block(self.block.x[here], self.block.y[here])

    def all(self):
        return [(start, self[number]) for number, start in enumerate(self.starts[:-1])]


def block_of(n, d, q=1, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    x = np.append(rng.standard_normal((n, d)), np.ones((n, 1)), axis=1)
    y = np.abs(x[:, :1]) + rng.standard_normal((n, q)) * 0.3
    if weighted:
        root = np.sqrt(rng.uniform(0.2, 3, n))[:, None]
        x, y = x * root, y * root
    return Block(x.astype(np.float32), y.astype(np.float32))


def descent_of(tiles, folds, **options):
    usual = {"alpha": 0.0, "slope": 0.0, "dropout": 0.0, "steps": 40, "seed": 3}
    settings = CommitteeSettings(**options.pop("settings", {}))
    return GroupDescent(tiles, tiles.all(), folds, 0, **usual | options, settings=settings)


def stepped(descent, group, steps):
    state = descent.init(group)
    for _ in range(steps):
        state = descent.step(state)
    return state


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("slope", "alpha"), [(0.0, 0.0), (0.1, 0.05)])
def test_a_step_is_that_of_the_definition(slope, alpha, dropout, q):
    folds, h, n = 3, 4, 50
    tiles = Whole(block_of(n, 2, q, weighted=True), n)
    options = {"momentum": 0.0, "length": 1e9}  # so that no step is shortened
    descent = descent_of(tiles, folds, slope=slope, alpha=alpha, dropout=dropout, settings=options)
    state = descent.init(hinges(tiles.all(), folds, h, slope, 0))
    after = descent.step(state).group
    G, A = descent.step(state).curvature
    x, y = (part.astype(np.float64) for part in tiles[0])
    kept = descent._kept(n, folds, h, 0) if dropout else np.ones((n, folds * h))
    if dropout:  # some are left out, and the mean is kept
        assert set(np.unique(kept)) == {0, np.float32(1 / 0.7)}
        assert abs(descent._kept(n, folds, h, 1) - kept).max() > 1
    W, V, c = (part.astype(np.float64) for part in state.group)
    for k in range(folds):
        own = slice(k * h, (k + 1) * h)
        S = pattern(x @ W[:, own], slope) * kept[:, own]
        hidden = S * (x @ W[:, own])
        features = np.append(hidden, x[:, -1:], axis=1)
        trains = (np.arange(n) % folds != k)[:, None]
        output = np.vstack([V[k], c[k]])
        r = (features @ output - y) * trains / trains.sum()
        g_W = x.T @ (S * (r @ V[k].T))
        g_O = features.T @ r
        g_W[:-1] += alpha * W[:-1, own]
        g_O[:-1] += alpha * V[k]
        curved = sum(np.outer(s, s) * (V[k] @ V[k].T) for s in S) / n
        moments = sum(np.outer(f, f) for f in features) / n
        np.testing.assert_allclose(G[k], curved, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(A[k], moments, rtol=1e-4, atol=1e-5)
        damped = [
            M + COMMITTEE.damping * np.trace(M) / len(M) * np.eye(len(M)) for M in (curved, moments)
        ]
        rate = COMMITTEE.rate
        D_W, D_O = g_W @ np.linalg.inv(damped[0]), np.linalg.inv(damped[1]) @ g_O
        np.testing.assert_allclose(after.W[:, own], W[:, own] - rate * D_W, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(after.V[k], V[k] - rate * D_O[:-1], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(after.c[k], c[k] - rate * D_O[-1], rtol=1e-3, atol=1e-4)


def test_members_side_by_side_are_members_apart():
    """A member of a group never feels the others: replace them, and it goes the same way."""
    folds, h = 4, 5
    tiles = Whole(block_of(120, 3), 40)
    descent = descent_of(tiles, folds)
    one = hinges(tiles.all(), folds, h, 0.0, 0)
    other = hinges(tiles.all(), folds, h, 0.0, 1)
    expected = stepped(descent, one, 12)
    for k in range(folds):
        alone = np.arange(folds) == k
        found = stepped(descent, other.only(alone, one), 12)
        own = slice(k * h, (k + 1) * h)
        np.testing.assert_allclose(
            found.group.W[:, own], expected.group.W[:, own], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(found.group.V[k], expected.group.V[k], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.losses[k], expected.losses[k], rtol=1e-4)


@pytest.fixture
def little_memory(monkeypatch):
    """Committees that hold 128 rows of four columns; those that were made."""
    monkeypatch.setattr(schedule, "ROWS", replace(schedule.ROWS, held_bytes=4096))
    settings = replace(COMMITTEE, judged_rows=128, looked_rows=64, compared_rows=64)
    seen = []

    class Watched(Committee):
        def __init__(self, *args, **more):
            super().__init__(*args, settings, **more)

        def _trained(self, *args):
            found = super()._trained(*args)
            seen.append((self.rows, self.judged))
            return found

    monkeypatch.setattr(fitting, "Committee", Watched)
    return seen


def test_rounds_take_other_rows_until_all_were_taken(little_memory):
    X, y = made(500, 3)
    model = quick(max_iter=5).fit(X, y)
    rows = [{tuple(row) for row in each.X} for each, _ in little_memory]
    assert len(rows) > 2
    assert all(100 <= len(each) <= 150 for each in rows)
    judged = [each for _, each in little_memory]
    first = {tuple(row) for row in judged[0].X}
    assert first <= rows[0]
    for number, each in enumerate(rows[1:4], start=1):
        assert not each & first  # no member is trained on the rows that judge it
        assert all(not each & other for other in rows[1:number])
        assert same(judged[number].X, judged[0].X)
        assert same(judged[number].y, judged[0].y)
    for each, again in zip(rows, rows[4:], strict=False):
        assert each == again
    if len(rows) >= 4:
        assert set().union(*rows) == {tuple(row) for row in X}
    assert model.score(X, y) > 0.8


def test_parts_of_the_rows_are_the_same_in_any_chunks_and_when_resumed(little_memory, tmp_path):
    X, y = made(500, 3)
    expected = quick(max_iter=3).fit(X, y).network_
    chunked = da.from_array(X, chunks=(77, 3)), da.from_array(y, chunks=77)
    assert same(quick(max_iter=3).fit(*chunked).network_.output_weights, expected.output_weights)
    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    del little_memory[:]
    stopped = quick(max_iter=3, callback=lambda _: len(little_memory) == 2, **kept).fit(X, y)
    assert stopped.stop_reason_ == "interrupted"
    resumed = quick(max_iter=3, resume=True, **kept).fit(X, y).network_
    for name in ARRAYS:
        assert same(getattr(resumed, name), getattr(expected, name)), name


def test_members_are_the_same_in_any_company():
    folds, h = 5, 4
    tiles = Whole(block_of(200, 3, q=2, weighted=True), 40)
    whole = descent_of(tiles, folds, dropout=0.3)
    group = hinges(tiles.all(), folds, h, 0.0, 0)
    expected = stepped(whole, group, 40)
    descents = [replace(whole, first=first) for first in (0, 2, 3)]
    begins = [group.part(first, stop) for first, stop in ((0, 2), (2, 3), (3, 5))]
    method = SideBySide(descents, Here())
    state = method.init(begins)
    while not method.done(state):  # as if each slice were of another process
        state = method.step(method.restore(method.save(state)))
    for found, part in (
        (Group.of_parts([each.group for each in state.states]), expected.group),
        (Group.of_parts([each.best for each in state.states]), expected.best),
    ):
        for one, other in zip(found, part, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)
    losses = np.concatenate([each.losses for each in state.states])
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-3)


def test_threads_change_no_bit(monkeypatch):
    tiles = Whole(block_of(200, 3), 40)
    group = hinges(tiles.all(), 4, 4, 0.0, 0)
    method = SideBySide([descent_of(tiles, 4, seed=seed) for seed in range(5)], Here())
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(side_by_side, "n_threads", lambda threads=threads: threads)
        state = method.init([group] * 5)
        while not method.done(state):
            state = method.step(state)
        found.append(state.states)
    for one, other in zip(*found, strict=True):
        assert all(map(same, one.best, other.best))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1, 2], ids=["none", "one", "all"])
def test_members_on_workers_are_those_of_this_process(killed, monkeypatch):
    from clusters import local_cluster

    X, y = made(3000, 4)
    here = quick(max_iter=3).fit(X, y).network_
    monkeypatch.setattr(on_workers, "n_threads", lambda: 0)  # fewer than any worker has
    passes = []

    def advanced(self, *args, then=on_workers.OnWorkers._advanced):
        passes.append(args)
        if len(passes) == 2:
            for pid in list(client.run(os.getpid).values())[:killed]:
                os.kill(pid, signal.SIGKILL)
        return then(self, *args)

    monkeypatch.setattr(on_workers.OnWorkers, "_advanced", advanced)
    with local_cluster(2) as client:
        rows = da.from_array(X, chunks=(1000, 4)), da.from_array(y, chunks=1000)
        there = quick(max_iter=3, client=client).fit(*rows).network_
    assert len(passes) > 2
    for name in ARRAYS:
        assert same(getattr(here, name), getattr(there, name)), name


def test_workers_of_little_memory_get_no_rows(monkeypatch):
    worker = {"nthreads": 8, "memory_limit": 0}
    monkeypatch.setattr(on_workers, "workers_of", lambda _: [worker])
    rows = Rows(0, np.zeros((1000, 100)), np.zeros((1000, 1)), None)
    place = on_workers.OnWorkers(None, None)

    def used(kept=0, limit=2**23, **others):
        encoding = SimpleNamespace(n_columns=10)
        tiles = SimpleNamespace(rows=rows, name="0", kept_bytes=kept, encoding=encoding)
        now = {"nthreads": 8, "memory_limit": limit, "status": "running", "metrics": {}}
        worker.clear()
        worker.update(now | others)
        return place._worthwhile([tiles])

    assert used()
    assert used(limit=0)
    assert not used(limit=2**22)
    assert not used(kept=2**21)
    assert not used(metrics={"memory": 2**21})
    assert not used(nthreads=1)
    assert not used(status="paused")


def test_members_are_trained_here_where_all_workers_pause(monkeypatch, thread_client):
    X, y = made(500)
    monkeypatch.setattr(on_workers, "n_threads", lambda: 0)
    monkeypatch.setattr(on_workers, "_LOOK", 0.05)
    begun = []

    def workers(client, then=on_workers.workers_of):
        found = then(client)
        return [each | {"status": "paused"} for each in found] if begun else found

    def advanced(self, *args, then=on_workers.OnWorkers._advanced):
        begun.append(1)
        return then(self, *args)

    monkeypatch.setattr(on_workers, "workers_of", workers)
    monkeypatch.setattr(on_workers.OnWorkers, "_advanced", advanced)
    monkeypatch.setattr(on_workers, "_advanced_there", lambda *_: time.sleep(1))
    rows = da.from_array(X, chunks=(250, 3)), da.from_array(y, chunks=250)
    there = quick(client=thread_client).fit(*rows).network_
    assert len(begun) == 1
    here = quick().fit(X, y).network_
    assert same(here.output_weights, there.output_weights)


def test_turns_over_the_rows_are_passes():
    X, y = made(200)  # one tile
    model = quick().fit(X, y)
    kinds, steps = len(COMMITTEE.kinds), COMMITTEE.steps(0, 200, 1)
    assert model.n_passes_ == 2 + kinds * steps


def test_a_member_never_sees_its_own_fold():
    folds = 4
    block = block_of(120, 3)
    group = hinges(Whole(block, 40).all(), folds, 5, 0.0, 0)
    other = Block(block.x, block.y.copy())
    other.y[1::folds] += 7
    found, changed = (
        stepped(descent_of(Whole(b, 40), folds), group, 12).group for b in (block, other)
    )
    np.testing.assert_array_equal(found.V[1], changed.V[1])
    assert all(abs(found.V[k] - changed.V[k]).max() > 1e-3 for k in (0, 2, 3))
    begun = hinges(Whole(other, 40).all(), folds, 5, 0.0, 0)
    np.testing.assert_array_equal(begun.V[1], group.V[1])


def test_steps_lower_the_loss_and_the_best_is_kept():
    tiles = Whole(block_of(400, 3), 100)
    descent = descent_of(tiles, 4, steps=80)
    state = descent.init(hinges(tiles.all(), 4, 8, 0.0, 0))
    begun = state.losses
    while not descent.done(state):
        state = descent.step(state)
    assert (state.losses < begun).all()
    said = out_of_fold(tiles.all(), state.best, 0.0)
    own = [np.mean((said[k::4] - tiles.block.y[k::4]) ** 2) for k in range(4)]
    np.testing.assert_allclose(own, state.losses, rtol=1e-4)


# --- the line and the weights -----------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(90, 4), (30, 40)])
def test_lines_are_those_of_scikit_learn(n, d, weighted):
    folds = 5
    block = block_of(n, d, 2, weighted)
    x, y = (part.astype(np.float64) for part in block)
    root = x[:, -1]
    X, Y, weight = x[:, :-1] / root[:, None], y / root[:, None], root**2
    scale = (x[:, :-1] ** 2).sum() / d
    fold = np.arange(n) % folds

    def fitted(penalty, k):
        train = fold != k
        line = Ridge(penalty * scale).fit(X[train], Y[train], sample_weight=weight[train])
        return np.vstack([line.coef_.T, line.intercept_]), line.predict(X[~train])

    losses = [
        sum(
            (weight[fold == k, None] * (fitted(penalty, k)[1] - Y[fold == k]) ** 2).sum()
            for k in range(folds)
        )
        for penalty in _PENALTIES
    ]
    best = _PENALTIES[int(np.argmin(losses))]
    expected = [fitted(best, k)[0] for k in range(folds)]
    ways = [ridge_lines, ridge_lines_of_few] if n < d else [ridge_lines]
    for way in ways:
        found = way(Whole(block, 17).all(), folds)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@given(
    seed=st.integers(0, 1000), n=st.integers(3, 40), groups=st.integers(1, 5), q=st.integers(1, 3)
)
def test_weights_are_the_non_negative_least_squares(seed, n, groups, q):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, q))
    predicted = [y * rng.uniform(-1, 1) + rng.standard_normal((n, q)) for _ in range(groups)]
    stack = stacked(predicted, y, [True] * groups, 2)
    assert 1 <= len(stack.kept) <= 2
    assert (stack.weights >= 0).all()
    residual = combined(predicted, stack) - y
    assert stack.loss == pytest.approx((residual**2).sum())
    for place, weights in zip(stack.kept, stack.weights, strict=True):
        slope = np.einsum("nq,nq->q", predicted[place], residual)
        assert (slope >= -1e-8).all()  # more weight does not help
        np.testing.assert_allclose(slope * weights, 0, atol=1e-8)  # nor does less
    # Not worse than any group alone, with all the groups that may be there.
    free = stacked(predicted, y, [False] * groups, 0)
    alone = [sum(nnls(p[:, [t]], y[:, t])[1] ** 2 for t in range(q)) for p in predicted]
    assert stack.loss <= alone[stack.kept[0]] + 1e-8
    assert (
        free.loss
        >= sum(nnls(np.stack([p[:, t] for p in predicted], 1), y[:, t])[1] ** 2 for t in range(q))
        - 1e-8
    )


def test_a_perfect_group_wins_and_costs_nothing_else():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((200, 2))
    predicted = [y + rng.standard_normal(y.shape), y.copy(), y + 0.1, np.zeros_like(y)]
    stack = stacked(predicted, y, [True] * 4, 2)
    assert stack.kept == [1]
    np.testing.assert_allclose(stack.weights, 1)
    assert stacked([0 * y, -y], y, [False, True], 2).loss == pytest.approx((y**2).sum())


# --- what is expected on new rows -------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("q", [1, 2])
def test_the_expected_error_is_that_out_of_folds(q, weighted, committees):
    X, y = made(150, q=q)
    weight = np.random.default_rng(2).uniform(0.1, 2, 150) if weighted else None
    model = quick().fit(X, y, weight)
    (committee,) = committees
    pool, scaler = committee.pool, committee.scaler
    said = combined([c.predicted for c in pool.candidates], pool.stack)
    rows = committee.rows
    own = np.ones(len(rows.X)) if rows.weight is None else rows.weight / scaler.weight_scale
    raw = said / np.sqrt(own)[:, None] * scaler.target_scale + scaler.target_center
    # What the mean of members gains: their variance where they were trained on a row.
    each = combined([c.by_each for c in pool.candidates], pool.stack)
    folds = pool.n_folds
    variances = [
        np.delete(each[i], i % folds, axis=0).var(axis=0, ddof=1) for i in range(len(each))
    ]
    gain = (1 - 1 / folds) * np.sum(variances, axis=0) / own.sum() * scaler.target_scale**2
    squares = np.average((raw - rows.y) ** 2, axis=0, weights=own)
    around = np.average((rows.y - np.average(rows.y, axis=0, weights=own)) ** 2, 0, weights=own)
    assert model.expected_r2_ == pytest.approx((1 - (squares - gain) / around).mean(), abs=1e-4)
    assert model.expected_r2_ > r2_score(rows.y, raw, sample_weight=own)
    assert model.network_.info["expected_mse"] == pytest.approx((squares - gain).mean(), rel=1e-3)
    assert 0 < model.expected_r2_spread_ < 0.3


def test_every_member_says_what_the_network_averages(committees):
    X, y = made(150)
    model = quick(extrapolate=True).fit(X, y)
    (committee,) = committees
    each = combined([c.by_each for c in committee.pool.candidates], committee.pool.stack)
    mean = each.mean(axis=1) * committee.scaler.target_scale + committee.scaler.target_center
    found = model.predict(committee.rows.X)
    np.testing.assert_allclose(found, mean[:, 0], atol=1e-4 * np.ptp(y))


def test_the_expected_error_is_close_to_that_on_new_rows():
    X, y = made(400, noise=0.5)
    model = quick().fit(X, y)
    found = model.score(*made(4000, noise=0.5, seed=1))
    assert abs(found - model.expected_r2_) < model.expected_r2_spread_


def test_a_linear_truth_is_found_as_well_as_by_a_line():
    rng = np.random.default_rng(0)
    X, new = rng.standard_normal((60, 5)), rng.standard_normal((1000, 5))
    slopes = rng.standard_normal(5)
    y = X @ slopes + 0.5 * rng.standard_normal(60)
    line = RidgeCV(np.logspace(-3, 3, 13)).fit(X, y).score(new, new @ slopes)
    assert quick(extrapolate=True).fit(X, y).score(new, new @ slopes) >= line - 0.01


def test_pure_noise_is_not_learnt():
    rng = np.random.default_rng(0)
    X, new = rng.standard_normal((300, 10)), rng.standard_normal((2000, 10))
    model = quick().fit(X, rng.standard_normal(300))
    assert model.score(new, rng.standard_normal(2000)) > -0.05


# --- further rows -----------------------------------------------------------------------------


def test_further_rows_are_folded_in():
    X, y = made(200, noise=0.5)
    new = made(2000, noise=0.5, seed=1)
    model = quick(extrapolate=True).fit(X, y)
    before, first = model.score(*new), model.network_
    model.partial_fit(X, y)  # says nothing new
    assert model.score(*new) > before - 0.05
    model.network_ = first
    few = made(20, noise=0.5, seed=2)
    model.partial_fit(*few)
    without, model.network_ = model.predict(X), first
    nothing = np.repeat([0.0, 1.0], [50, 20])  # rows without weight say nothing
    model.partial_fit(np.vstack([X[:50], few[0]]), np.append(y[:50] + 9, few[1]), nothing)
    np.testing.assert_allclose(model.predict(X), without, rtol=1e-9)
    assert model.score(*new) > before - 0.02
    model.partial_fit(*made(2000, noise=0.5, seed=3))
    assert model.score(*new) > before + 0.005
    assert model.network_.encoder is first.encoder


# --- odd data ---------------------------------------------------------------------------------


def few_levels(rng, n):
    X = rng.integers(0, 4, (n, 4))
    return X, np.abs(X[:, 0] - 2.0) + X[:, 1]


def constant(rng, n, column):
    X = rng.standard_normal((n, 3))
    y = np.abs(X[:, [0, 1, 2, 0, 1]])
    (X if column == "x" else y)[:, 1] = 1e8 + 0.1
    return X, y


def with_huge(rng, n, what):
    X, y = rng.standard_normal((n, 3)), rng.standard_normal(n)
    (X if what == "x" else y)[7] = 1e30
    return X, y


def rare(rng, n):
    return rng.standard_normal((n, 2)), (np.arange(n) == 3).astype(float)


def two_levels(rng, n):
    X = rng.integers(0, 2, (n, 5)).astype(bool)
    return X, (X[:, 0] & X[:, 1]) + 0.1 * rng.standard_normal(n)


def repeated_columns(rng, n):
    X = rng.standard_normal((n, 2))[:, [0, 0, 1, 1]]
    return X, np.abs(X[:, 0])


def far_away(rng, n):
    X = rng.standard_normal((n, 3))
    return X + 1e8, np.abs(X[:, 0]) + 1e8


ODD = {
    "a constant column": lambda rng: constant(rng, 80, "x"),
    "a constant target of five": lambda rng: constant(rng, 80, "y"),
    "constant columns": lambda rng: (np.full((50, 3), 0.1), rng.standard_normal(50)),
    "a constant target": lambda rng: (rng.standard_normal((50, 3)), np.full(50, 0.1)),
    "few levels": lambda rng: few_levels(rng, 100),
    "two levels": lambda rng: two_levels(rng, 100),
    "repeated columns": lambda rng: repeated_columns(rng, 80),
    "far away": lambda rng: far_away(rng, 80),
    "far away in float32": lambda rng: tuple(v.astype("f4") for v in far_away(rng, 80)),
    "a huge value": lambda rng: with_huge(rng, 80, "x"),
    "a huge target": lambda rng: with_huge(rng, 80, "y"),
    "a rare target": lambda rng: rare(rng, 80),
    "a rare target of few rows": lambda rng: rare(rng, 12),
    "more columns than rows": lambda rng: (rng.standard_normal((20, 40)), rng.standard_normal(20)),
}


def assert_useful(model, X, y, weight=None):
    """Finite, of the right shape, and on the training rows not worse than their mean."""
    found = model.predict(X)
    assert found.shape == y.shape
    assert np.isfinite(found).all()
    mean = np.average(y, axis=0, weights=weight)
    errors = np.stack([(found - y) ** 2, (mean - y) ** 2]).reshape(2, len(y), -1)
    scale = np.max(abs(y)) ** 2
    squares = [np.average(e, axis=0, weights=weight).sum() for e in errors]
    assert squares[0] <= squares[1] * 1.05 + 1e-12 * scale
    assert model.network_.target_range.shape[0] == 2


@pytest.mark.parametrize("what", ODD)
def test_odd_data(what):
    X, y = ODD[what](np.random.default_rng(0))
    model = quick().fit(X, y)
    assert_useful(model, X, y)
    if what in ("few levels", "two levels", "repeated columns", "far away"):
        assert model.score(X, y) > 0.9
    for name in ("expected_r2_", "expected_r2_spread_"):
        assert np.isfinite(getattr(model, name, 0.0))


@pytest.mark.parametrize("n", [2, 3, 5, 9, 10, 11, 15])
def test_few_rows(n):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, 2))
    y = X @ [1.0, -2.0]
    model = quick().fit(X, y)
    assert_useful(model, X, y)
    if n >= 5:  # a line is never out of reach
        assert model.score(X, y) > 0.9


@pytest.mark.parametrize("light", [0.0, 1e-12, 1e-200])
@pytest.mark.parametrize("heavy", [1, 3, 15, 40])
def test_next_to_no_weight_on_most_rows(light, heavy):
    X, y = made(80)
    weight = np.where(np.arange(80) < heavy, 1.0, light)
    assert_useful(quick().fit(X, y, weight), X, y, weight)


def test_a_row_of_nearly_all_weight_is_one_row():
    X, y = made(80)
    model = quick().fit(X, y, np.append(1e15, np.ones(79)))
    np.testing.assert_allclose(model.predict(X), y[0], rtol=1e-9)


def test_the_callers_rows_stay_as_they_are():
    X, y = made(60)
    X[:3] = -0.0
    X = np.asfortranarray(X)
    before = X.tobytes("A")
    X.flags.writeable = y.flags.writeable = False
    quick().fit(X, y)
    assert X.tobytes("A") == before


@pytest.mark.slow
def test_many_columns_in_little_time():
    rng = np.random.default_rng(0)
    X = (rng.random((300, 1500)) < 0.1).astype(float)
    begun = time.perf_counter()
    model = quick().fit(X, X[:, 0] - X[:, 1] + 0.1 * rng.standard_normal(300))
    assert time.perf_counter() - begun < 60
    assert model.expected_r2_ > -0.1


@given(data=st.data(), n=st.integers(2, 60), d=st.integers(1, 4), q=st.integers(1, 3))
def test_any_small_data(data, n, d, q):
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int64]))
    values = st.integers(-1000, 1000) if dtype is np.int64 else st.floats(-1e6, 1e6, width=32)
    X = data.draw(hnp.arrays(dtype, (n, d), elements=values))
    y = data.draw(hnp.arrays(dtype, (n, q), elements=values))
    weight = data.draw(
        st.none()
        | hnp.arrays(np.float64, n, elements=st.floats(0, 10)).filter(lambda w: w.sum() > 1e-200)
    )
    model = quick().fit(X, y, weight)
    found = model.predict(X)
    assert found.shape == (n, q)
    assert np.isfinite(found).all()


# --- the same bits, and runs that are cut off -------------------------------------------------


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
    X, y = made(60)
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
