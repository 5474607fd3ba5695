"""The summary of columns: mean, variance, limits and bad values, against NumPy over all rows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import random_weights, same

from altrelu_dist.moments import Rows, summarise


def in_tiles(rows, size):
    """The merged summaries of parts of some size, in order."""
    total = None
    for start in range(rows.start, rows.stop, size):
        part = summarise(rows.part(start, min(start + size, rows.stop)))
        total = part if total is None else total.merge(part)
    return total


@given(
    n=st.integers(1, 80),
    size=st.integers(1, 90),
    dtype=st.sampled_from(["float64", "float32", "float16", "int32", "uint8", "bool"]),
    weighted=st.booleans(),
    offset=st.sampled_from([0.0, 1e3, -1e8]),
)
def test_summary_is_numpys(n, size, dtype, weighted, offset):
    rng = np.random.default_rng(n)
    X = (4 * rng.standard_normal((n, 3))).astype(dtype)
    y = rng.standard_normal((n, 2)) + offset
    weight = rng.uniform(0, 2, n) * (rng.random(n) < 0.7) if weighted else None
    assume(weight is None or weight.any())
    total = in_tiles(Rows(0, X, y, weight), size)
    assert total.rows == n
    for columns, values in ((total.features, X.astype(float)), (total.targets, y)):
        mean = np.average(values, axis=0, weights=weight)
        spread = np.average((values - mean) ** 2, axis=0, weights=weight)
        scale = np.abs(values).max()
        assert columns.weight == pytest.approx(n if weight is None else weight.sum())
        assert columns.mean == pytest.approx(mean, abs=1e-14 * scale)
        assert columns.variance == pytest.approx(spread, rel=1e-6, abs=1e-13)
        seen = values if weight is None else values[weight > 0]
        assert same(columns.low, seen.min(axis=0))
        assert same(columns.high, seen.max(axis=0))
        assert not columns.bad.any()
        assert np.isinf(columns.first_bad).all()
    assert total.bad_weights == 0
    assert total.low_weight == (1 if weight is None else weight.min())


def test_variance_keeps_its_digits_beside_an_offset(rng):
    values = (1e8 + rng.standard_normal(3000)).astype(float)
    total = in_tiles(Rows(0, values[:, None], values[:, None]), 256)
    exact = [Fraction(v) for v in values.tolist()]
    mean = sum(exact) / len(exact)
    variance = float(sum((v - mean) ** 2 for v in exact) / len(exact))
    assert total.features.variance[0] == pytest.approx(variance, rel=1e-9)


@given(
    constant=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100),
    n=st.integers(1, 60),
    size=st.integers(1, 60),
    dtype=st.sampled_from(["float64", "float32"]),
    weighted=st.booleans(),
)
@example(constant=1e8 + 0.1, n=60, size=7, dtype="float64", weighted=True)
@example(constant=0.1, n=59, size=1, dtype="float64", weighted=True)
@example(constant=1e-300, n=5, size=2, dtype="float64", weighted=False)
def test_constant_columns_have_no_variance_at_all(constant, n, size, dtype, weighted):
    if dtype == "float32":
        assume(abs(constant) < 1e38)
    rng = np.random.default_rng(n)
    X = np.full((n, 1), constant, dtype=dtype)
    weight = rng.uniform(0.1, 1, n) if weighted else None
    total = in_tiles(Rows(0, X, X, weight), size)
    assert total.features.variance[0] == 0
    scaler = total.scaler(np.dtype(float))
    assert scaler.target_scale == 1
    # Not even rounding is left of it: a network could make weights of that.
    assert not scaler(Rows(0, X, X, weight)).x[:, 0].any()
    weights = random_weights(rng, 2, 3)
    assert not scaler.to_raw(weights)[0].any()


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e8, -1e12])
def test_a_column_that_varies_a_little_is_not_constant(rng, offset):
    values = offset + (rng.random(500) < 0.5) * max(1e-6, 1e-12 * abs(offset))
    total = in_tiles(Rows(0, values[:, None], values[:, None]), 64)
    assert total.features.variance[0] > 0


@given(
    values=hnp.arrays(
        float,
        st.tuples(st.integers(1, 40), st.integers(1, 4)),
        elements=st.sampled_from([0.0, 1.0, 2.0, np.nan, np.inf, -np.inf]),
    ),
    size=st.integers(1, 40),
    start=st.integers(0, 9),
)
def test_values_that_are_not_finite_are_counted_and_found(values, size, start):
    y = np.zeros((values.shape[0], 1))
    total = in_tiles(Rows(start, values, y), size)
    bad = ~np.isfinite(values)
    assert total.features.bad.tolist() == bad.sum(axis=0).tolist()
    first = [start + int(c.argmax()) if c.any() else np.inf for c in bad.T]
    assert total.features.first_bad.tolist() == first
    assert np.isfinite(total.features.mean).all()
    assert not total.targets.bad.any()


def test_weights_that_are_not_finite_or_negative_are_noted():
    ones = np.ones((4, 1))
    total = in_tiles(Rows(0, ones, ones, np.array([1.0, np.nan, np.inf, -2.0])), 2)
    assert total.bad_weights == 2
    assert total.low_weight == -2


def test_rows_without_weight_say_nothing():
    X = np.array([[1.0], [5.0], [1.0], [7.0]])
    total = in_tiles(Rows(0, X, X, np.array([1.0, 0, 2, 0])), 1)
    assert total.features.mean[0] == 1
    assert total.features.variance[0] == 0
    assert total.features.weight == 3
    nothing = in_tiles(Rows(0, X, X, np.zeros(4)), 1)
    assert nothing.features.weight == 0
    assert nothing.features.variance.tolist() == [0.0]
