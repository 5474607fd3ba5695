"""The quasi-Newton method against what is known of its functions, and against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der

from altrelu_dist.solvers.lbfgs import State, _Pairs, minimise


def on_and_on(_state):
    return False


def quadratic(rng, n, condition):
    """A random one, and where it is least."""
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = Q * np.geomspace(1, condition, n) @ Q.T
    least = rng.standard_normal(n)

    def fun(x):
        return 0.5 * (x - least) @ A @ (x - least), A @ (x - least)

    return fun, least


@pytest.mark.parametrize("memory", [3, 10, 50])
def test_a_quadratic_is_minimised(rng, memory):
    fun, least = quadratic(rng, 20, 1e3)
    found, value = minimise(fun, np.zeros(20), 400, memory, on_and_on)
    np.testing.assert_allclose(found, least, atol=1e-6)
    assert value == fun(found)[0]


def test_the_direction_is_that_of_the_inverse_hessian_by_its_recursion(rng):
    """Also once the oldest pairs have gone and the others were moved."""
    n, memory = 7, 4
    A = rng.standard_normal((n, n))
    A = A @ A.T + np.eye(n)
    pairs, kept = _Pairs(memory, n), []
    for _ in range(4 * memory):
        step = rng.standard_normal(n)
        pairs.add(step, A @ step)
        kept = [*kept, (step, A @ step)][-memory:]
        s, y = kept[-1]
        H = (s @ y) / (y @ y) * np.eye(n)
        for s, y in kept:
            along = np.eye(n) - np.outer(s, y) / (s @ y)
            H = along @ H @ along.T + np.outer(s, s) / (s @ y)
        gradient = rng.standard_normal(n)
        np.testing.assert_allclose(pairs.direction(gradient), -H @ gradient, rtol=1e-8)
    assert pairs.count == memory


def test_pairs_without_curvature_are_not_kept(rng):
    pairs = _Pairs(5, 3)
    step = rng.standard_normal(3)
    pairs.add(step, -step)
    pairs.add(step, np.zeros(3))
    assert pairs.count == 0
    np.testing.assert_array_equal(pairs.direction(step), -step)


def test_no_more_values_than_scipys_on_a_curved_valley():
    counts = {"ours": 0, "scipy": 0}

    def counted(who):
        def fun(x):
            counts[who] += 1
            return rosen(x), rosen_der(x)

        return fun

    start = np.tile([-1.2, 1.0], 5)
    ends = []

    def near(state):
        ends.append(state.value)
        return state.value < 1e-10

    found, value = minimise(counted("ours"), start, 1000, 20, near)
    scipys = minimize(
        counted("scipy"),
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 20, "ftol": 0.0, "gtol": 1e-4, "maxiter": 1000},
    )
    assert scipys.fun < 1e-6
    assert value < 1e-10
    np.testing.assert_allclose(found, 1.0, atol=1e-4)
    assert ends == sorted(ends, reverse=True)
    assert counts["ours"] <= 1.3 * counts["scipy"]


def test_kinks_do_not_stop_it(rng):
    """A nonsmooth function, as that of rows at their kinks is."""
    A, b = rng.standard_normal((30, 8)), rng.standard_normal(30)

    def fun(x):
        r = A @ x - b
        return float(np.abs(r).sum() + 0.5 * x @ x), A.T @ np.sign(r) + x

    def smoothed(x):
        r = A @ x - b
        root = np.sqrt(r**2 + 1e-12)
        return float(root.sum() + 0.5 * x @ x), A.T @ (r / root) + x

    least = min(
        minimize(smoothed, rng.standard_normal(8), jac=True, method="BFGS").fun for _ in range(5)
    )
    _, value = minimise(fun, np.zeros(8), 500, 20, on_and_on)
    assert value <= least * 1.01


def test_it_ends_when_told_and_at_the_last_iteration(rng):
    fun, _ = quadratic(rng, 20, 1e4)
    seen = []

    def three(state):
        seen.append((state.x, state.value))
        return len(seen) == 3

    found, value = minimise(fun, np.zeros(20), 100, 10, three)
    assert len(seen) == 3
    np.testing.assert_array_equal(found, seen[-1][0])
    assert value == seen[-1][1]
    again, _ = minimise(fun, np.zeros(20), 3, 10, on_and_on)
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("after", [1, 4, 9, 30])
def test_it_goes_on_from_what_was_kept_of_it(rng, after):
    """To the last bit, before and after the oldest pairs were let go and the others moved."""
    fun, _ = quadratic(rng, 20, 1e4)
    expected, value = minimise(fun, np.zeros(20), 60, 5, on_and_on)
    kept = []

    def keep(state):
        if state.iteration == after:
            kept.append(state.kept())
        return state.iteration == after + 5  # what was kept is not written over

    minimise(fun, np.zeros(20), 60, 5, keep)
    found, there = minimise(fun, State.of(kept[0], 5), 60, 5, on_and_on)
    np.testing.assert_array_equal(found, expected)
    assert there == value


def test_at_a_minimum_it_stays():
    found, value = minimise(lambda x: (x @ x, 2 * x), np.zeros(4), 100, 10, on_and_on)
    np.testing.assert_array_equal(found, np.zeros(4))
    assert value == 0


@pytest.mark.parametrize("beyond", [np.nan, np.inf])
def test_values_that_are_not_finite_are_stepped_back_from(beyond):
    def fun(x):
        if x[0] > 1.5:
            return beyond, np.full(1, beyond)
        return float(-np.log(1.6 - x[0]) - x[0]), np.array([1 / (1.6 - x[0]) - 1])

    found, _ = minimise(fun, np.array([-5.0]), 100, 5, on_and_on)
    np.testing.assert_allclose(found, 0.6, atol=1e-6)
