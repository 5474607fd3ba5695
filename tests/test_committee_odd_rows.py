"""A committee of rows that are odd: few, huge, repeated, of next to no weight; it is useful."""

from __future__ import annotations

import time

import numpy as np
import pytest
from committees import made, quick
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


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
