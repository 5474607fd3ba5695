"""Members of a committee, its line and its weights: what each has to be."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
from committees import ARRAYS, made, quick
from hypothesis import given
from hypothesis import strategies as st
from oracles import pattern, same
from scipy.optimize import nnls
from sklearn.linear_model import Ridge

from altrelu_dist import fitting, on_workers
from altrelu_dist.committee import side_by_side
from altrelu_dist.committee.line import _PENALTIES, ridge_lines, ridge_lines_of_few
from altrelu_dist.committee.members import Group, GroupDescent, by_fold, hinges, out_of_fold
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.settings import COMMITTEE, CommitteeSettings
from altrelu_dist.committee.side_by_side import Here, SideBySide
from altrelu_dist.committee.stacking import combined, stacked
from altrelu_dist.moments.rows import Block, Rows
from altrelu_dist.training import schedule

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
    judged = by_fold(tiles.all(), folds)
    return GroupDescent(tiles, judged, folds, 0, **usual | options, settings=settings)


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
    descent = descent_of(tiles, folds, settings={"own_rows": 0})  # or they are stopped together
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
    """Committees of few neurons that hold 128 rows of four columns; those that were made."""
    monkeypatch.setattr(schedule, "ROWS", replace(schedule.ROWS, held_bytes=4096))
    few = {"judged_rows": 128, "looked_rows": 64, "compared_rows": 64, "n_hidden": 16}
    settings = replace(COMMITTEE, **few)
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
    whole = descent_of(tiles, folds, dropout=0.3, settings={"own_rows": 0})
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

    X, y = made(5000, 4)  # so many that a third round follows
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
        rows = da.from_array(X, chunks=(2000, 4)), da.from_array(y, chunks=2000)
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
        encoding = SimpleNamespace(row_bytes=40)
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
    kinds, steps = len(COMMITTEE.kinds), COMMITTEE.steps(0, 1)
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


def test_where_folds_are_few_rows_members_stop_together():
    tiles = Whole(block_of(200, 3, q=2, weighted=True), 40)
    for own_rows, together in ((41, True), (40, False)):
        descent = descent_of(tiles, 5, settings={"own_rows": own_rows})
        group = hinges(tiles.all(), 5, 4, 0.0, 0)
        state, changed = descent.init(group), []
        while not descent.done(state):
            before, state = state.losses, descent.step(state)
            changed.append(set((state.losses != before).tolist()))
        assert {True} in changed or {True, False} in changed
        assert all(len(each) == 1 for each in changed) == together
