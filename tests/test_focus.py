"""Focused columns: multiplied by how much they matter to members."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from altrelu_dist import AltReLURegressor, fitting
from altrelu_dist.committee.focus import factors
from altrelu_dist.committee.members import Group
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.settings import COMMITTEE
from altrelu_dist.committee.tiles import Encoding
from altrelu_dist.encoding import Encoder, sketch_columns
from altrelu_dist.moments.rows import Rows, Scaler


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("q", [1, 2])
def test_factors_are_root_mean_square_changes(slope, q):
    rng = np.random.default_rng(q)
    n, m, members, h = 200, 5, 3, 4
    sources = np.array([0, 1, 2, 1, 2])
    root = np.sqrt(rng.integers(1, 4, n))[:, None]
    features = rng.standard_normal((n, m)) * [1, 2, 0.5, 1, 3]
    W = rng.standard_normal((m + 1, members * h))
    V = rng.standard_normal((members, h, q))

    def outputs(x, member):
        z = np.column_stack([x, np.ones(n)]) @ W[:, member * h : (member + 1) * h]
        return np.maximum(z, slope * z) @ V[member]

    weight = root[:, 0] ** 2 / (root**2).sum()
    variance = weight @ features**2
    told = np.zeros(3)
    for j in range(m):
        step = np.zeros(m)
        step[j] = 1e-6
        for member in range(members):
            change = (outputs(features + step, member) - outputs(features - step, member)) / 2e-6
            told[sources[j]] += weight @ (change**2).sum(axis=1) * variance[j]
    expected = np.sqrt(told)[sources]
    expected *= np.sqrt(variance.sum() / (expected**2 @ variance))

    x = np.hstack([features, np.ones((n, 1))]) * root
    group = Group(W, V, np.zeros((members, q)))
    found = factors(x, group, sources, slope, 0.1)
    np.testing.assert_allclose(found, expected + 0.1, rtol=1e-5)


def test_constant_members_leave_all_columns_alike():
    group = Group(np.ones((4, 6)), np.zeros((2, 3, 1)), np.ones((2, 1)))
    found = factors(np.ones((5, 4)), group, np.arange(3), 0.0, 0.1)
    np.testing.assert_allclose(found, 1.1, rtol=1e-6)


def test_weights_of_turned_columns_are_weights_of_the_encoders():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 1))
    encoder = Encoder.learn(sketch_columns(Rows(0, X, y, None)), (4,))
    scaler = Scaler(np.dtype(float), np.zeros(3), np.ones(3), np.zeros(1), 1.0, 1.0)
    m = encoder.n_columns
    turned = Encoding(encoder, scaler, rng.standard_normal((m, m)), rng.random(m))
    W = rng.standard_normal((m + 1, 7)).astype(np.float32)
    rows = Rows(0, X, y, None)
    plain = Encoding(encoder, scaler)(rows).x
    np.testing.assert_allclose(turned(rows).x @ W, plain @ turned.hidden_weights(W), rtol=1e-4)


def test_the_one_column_that_matters_is_found(monkeypatch):
    few = replace(COMMITTEE, coarse_columns=0, n_hidden=16, n_folds=4)

    class Small(Committee):
        def __init__(self, *args, **more):
            super().__init__(*args, few, **more)

    monkeypatch.setattr(fitting, "Committee", Small)
    rng = np.random.default_rng(1)
    X = rng.standard_normal((1300, 200))
    y = X[:, 7] + np.abs(X[:, 7]) + 0.3 * rng.standard_normal(len(X))
    model = AltReLURegressor(max_iter=2, random_state=0).fit(X[:600], y[:600])
    score = model.score(X[600:], y[600:])
    assert any(group["name"].startswith("focused") for group in model.network_.info["groups"])
    assert score > 0.85


@pytest.mark.parametrize(("pace", "kinds"), [(1e-6, 4), (1e-2, 1)])
def test_a_round_has_the_kinds_and_steps_that_there_is_time_for(pace, kinds, monkeypatch):
    seen = []

    class Timed(Committee):
        def __init__(self, *args, **more):
            few = replace(COMMITTEE, n_hidden=4, n_folds=2, racing=(4, 2), few_steps=64)
            super().__init__(*args, few, **more)

        @property
        def _pace(self):
            return pace if seen else 0.0

        @_pace.setter
        def _pace(self, value):
            pass

        def _train(self, going, number, most, pool):
            found = super()._train(going, number, most, pool)
            seen.append(([racer.kind.name for racer in going], most, found[0].ended))
            return found

    monkeypatch.setattr(fitting, "Committee", Timed)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2))
    y = np.sin(3 * X[:, 0]) + np.abs(X[:, 1])
    model = AltReLURegressor(max_time=20, random_state=0).fit(X, y)
    assert model.stop_reason_ == ("converged" if kinds == 4 else "max_time")
    (first, every, _), (second, most, ended) = seen
    assert len(first) == 4
    assert len(second) == kinds
    assert ended
    assert every == math.inf
    assert most == math.inf if kinds > 1 else 1 <= most < 2 * COMMITTEE.first_steps
