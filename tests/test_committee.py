"""The committee: what the network of it, its expected error and its runs have to be."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pickle
import signal
import time

import dask.array as da
import numpy as np
import pytest
import zarr
from committees import made, quick, same_network
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import activate
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from altrelu_dist import AltReLURegressor, Network, fitting
from altrelu_dist.committee.members import Group
from altrelu_dist.committee.pool import Pool
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.settings import COMMITTEE
from altrelu_dist.committee.stacking import combined
from altrelu_dist.engine import TILE
from altrelu_dist.errors import CheckpointError
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


@pytest.mark.parametrize("linear", [False, True])
def test_the_race_ends_sooner_where_lines_alone_have_a_weight(linear, monkeypatch):
    few = dataclasses.replace(COMMITTEE, n_hidden=4, n_folds=2, few_steps=16, first_steps=16)
    enough = dataclasses.replace(few, worth=-1.0, worth_of_all=1.0)

    class Enough(Committee):
        def __init__(self, *args, **more):
            super().__init__(*args, enough, **more)

    monkeypatch.setattr(fitting, "Committee", Enough)
    monkeypatch.setattr(Pool, "is_linear", linear)
    model = AltReLURegressor(random_state=0).fit(*made(100))
    rounds = {entry["round"] for entry in model.history_ if "round" in entry}
    assert rounds == set(range(few.least_linear if linear else few.least_rounds))


def test_a_pool_is_linear_where_lines_alone_have_a_weight(committees):
    quick().fit(*made(100))
    pool = committees[0].pool
    for kept, linear in (([0, 1], True), ([1, 2], False), ([2], False)):
        pool.stack = pool.stack._replace(kept=kept, weights=np.ones((len(kept), 1)))
        assert pool.is_linear is linear


def test_the_race_ends_where_no_kind_gains(monkeypatch):
    resting = dataclasses.replace(COMMITTEE, worth=1.1, racing=(4, 2, 2, 1))

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
