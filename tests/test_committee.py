"""The committee: what the network of it and its expected error have to be."""

from __future__ import annotations

import pickle
from contextlib import suppress
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from committees import made, quick, same_network
from oracles import activate
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from altrelu_dist import AltReLURegressor, Network, fitting
from altrelu_dist.committee.members import Group
from altrelu_dist.committee.pool import Pool
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.settings import COMMITTEE
from altrelu_dist.committee.stacking import combined
from altrelu_dist.fitting import CommitteeFit


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
        if candidate.encoding.mixing is not None:
            columns = columns @ candidate.encoding.mixing.astype(np.float64)
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


def grouped(n=600, groups=60, seed=0):
    """Rows of groups, each with a level of its own that its neighbours tell nothing of."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    X = np.column_stack([rng.standard_normal(n), 10.0 * group])
    levels = np.random.default_rng(1).standard_normal(groups)
    return X, np.abs(X[:, 0]) + levels[group] + 0.1 * rng.standard_normal(n)


def test_the_values_of_repeated_columns_are_found(committees):
    model = quick(max_iter=2).fit(*grouped())
    (committee,) = committees
    names = [candidate.name for candidate in committee.pool.candidates]
    assert {"line-values", "values-1-last", "values-1-best"} <= {*names}
    assert any("values" in group["name"] for group in model.network_.info["groups"])
    new, truth = grouped(seed=2)
    assert model.score(new, truth) > 0.97
    pool = committee.pool  # each candidate of them in turn
    for place in (k for k, name in enumerate(names) if "values" in name):
        pool.stack = pool.stack._replace(kept=[place], weights=np.ones((1, 1)))
        layers = pool.layers()
        network = Network(
            layers.hidden, layers.hidden_bias, layers.output, layers.output_bias,
            encoder=layers.encoder,
        )  # fmt: skip
        expected = weighted_mean(committee, new)
        np.testing.assert_allclose(network.predict(new), expected, rtol=1e-6, atol=1e-6)


def levelled(n=400, groups=40, seed=0, more=1):
    """Rows of groups with levels, a line, and columns that say nothing."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    X = np.column_stack([rng.standard_normal((n, more)), 10.0 * group])
    levels = np.random.default_rng(1).standard_normal(groups)
    return X, X[:, 0] + 2 * levels[group]


def test_a_small_network_of_rows_with_repeated_columns():
    X, y = levelled()
    model = quick(max_size=20).fit(X, y + np.sin(3 * X[:, 0]))
    assert model.network_.n_hidden <= 20


@pytest.mark.parametrize(
    "more", [60, 90]
)  # the coarse pieces beside the values, or alone, too many
def test_values_are_found_beside_many_columns(more, committees):
    rows = levelled(more=more, groups=300, n=1200)
    quick(callback=lambda told: told.stage == "members").fit(*rows)  # the members are not needed
    (committee,) = committees
    by_name = {candidate.name: candidate for candidate in committee.pool.candidates}
    said, y = by_name["line-values"].predicted, committee.pool._y
    assert np.mean((said - y) ** 2) < 0.5 * np.mean((by_name["line-0"].predicted - y) ** 2)
    assert committee._values


@pytest.mark.parametrize("gaps", [False, True])
def test_rows_without_a_value_are_not_rows_of_one(gaps, committees):
    X, y = levelled(n=120, groups=30)
    if gaps:
        X[40:, 1] = np.nan
    quick().fit(X, y)
    names = [candidate.name for candidate in committees[0].pool.candidates]
    assert ("line-values" in names) is not gaps


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (lambda x: np.round(x, 1), True),
        (lambda x: np.round(x), False),  # few values: the coarse block has them all
        (lambda x: x, False),  # each value once
    ],
)
def test_which_columns_are_repeated(column, found, committees):
    x = np.random.default_rng(0).standard_normal(400)
    quick().fit(np.column_stack([column(x), np.sin(3 * x)]), x)
    names = [candidate.name for candidate in committees[0].pool.candidates]
    assert ("line-values" in names) is found


def test_values_that_say_no_more_than_the_line_are_not_trained_on(committees):
    x = np.round(np.random.default_rng(0).uniform(-3, 3, (600, 1)), 1)
    quick(max_iter=2).fit(x, x[:, 0] + 0.1 * np.random.default_rng(1).standard_normal(600))
    names = [candidate.name for candidate in committees[0].pool.candidates]
    assert "line-values" in names
    assert not any(name.startswith("values") for name in names)


SMALL = {"n_hidden": 4, "n_folds": 2, "few_steps": 16, "first_steps": 16}
OFTEN, SELDOM = 1000, 32  # times that each row is seen before the race may end


def ending(monkeypatch, least_turns):
    """Committees of small members whose rounds are never worth another one."""
    enough = replace(COMMITTEE, least_turns=least_turns, worth=-1.0, worth_of_all=1.0, **SMALL)

    class Enough(Committee):
        def __init__(self, *args, **more):
            super().__init__(*args, enough, **more)

    monkeypatch.setattr(fitting, "Committee", Enough)


def rounds_of(model):
    return {entry["round"] for entry in model.history_ if "round" in entry}


@pytest.mark.parametrize(
    ("least_turns", "linear", "rounds"), [(OFTEN, False, 4), (OFTEN, True, 2), (SELDOM, False, 2)]
)
def test_the_race_ends_sooner_where_lines_are_enough_or_rows_were_seen_often(
    least_turns, linear, rounds, monkeypatch
):
    ending(monkeypatch, least_turns)
    monkeypatch.setattr(Pool, "is_linear", linear)
    model = AltReLURegressor(random_state=0).fit(*made(100))
    assert rounds_of(model) == set(range(rounds))


@pytest.mark.parametrize(
    ("n_tiles", "rounds"), [(1, 2), (4, 2), (8, 2), (9, 3), (14, 3), (15, 4), (1000, 4)]
)
def test_few_rounds_are_enough_where_each_sees_all_rows_often(n_tiles, rounds):
    assert COMMITTEE.least(n_tiles, linear=False) == rounds
    assert COMMITTEE.least(n_tiles, linear=True) == 2


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_a_run_that_was_begun_with_more_rounds_goes_on_with_them(
    rounds, limit, tmp_path, monkeypatch
):
    """As versions made them whose races ended later."""
    train, journals = Committee._train, []

    def cut_off(self, going, number, most, pool):
        if number == rounds:
            raise KeyboardInterrupt
        return train(self, going, number, most, pool)

    def noting(self, going, number, most, pool):
        journals.append(self.monitor.journal)
        return train(self, going, number, most, pool)

    options = {"random_state": 0, "max_time": limit}
    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    ending(monkeypatch, OFTEN)
    expected = AltReLURegressor(**options).fit(*made(100))
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Committee, "_train", cut_off)
        AltReLURegressor(**options, **kept).fit(*made(100))
    ending(monkeypatch, SELDOM)
    monkeypatch.setattr(Committee, "_train", noting)
    model = AltReLURegressor(**options, **kept, resume=True).fit(*made(100))
    assert not journals[-1].replaying
    begun = rounds < 4 and limit is not None  # which kinds the round has was known already
    assert rounds_of(model) == set(range(rounds + begun))
    if rounds == 4:
        same_network(model.network_, expected.network_)


def test_a_pool_is_linear_where_lines_alone_have_a_weight(committees):
    quick().fit(*made(100))
    pool = committees[0].pool
    for kept, linear in (([0, 1], True), ([1, 2], False), ([2], False)):
        pool.stack = pool.stack._replace(kept=kept, weights=np.ones((len(kept), 1)))
        assert pool.is_linear is linear


def test_the_race_ends_where_no_kind_gains(monkeypatch):
    resting = replace(COMMITTEE, worth=1.1, racing=(4, 2, 2, 1))

    class Resting(Committee):
        def __init__(self, *args, **more):
            super().__init__(*args, resting, **more)

    monkeypatch.setattr(fitting, "Committee", Resting)
    model = AltReLURegressor(random_state=0).fit(*made(100))
    rounds = {entry["round"] for entry in model.history_ if "round" in entry}
    assert rounds == {0, 1}
    assert model.stop_reason_ == "converged"


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
