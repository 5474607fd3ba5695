"""Searches that had no time for a race of lengths, and go on."""

from __future__ import annotations

import numpy as np
import pytest

from altrelu_dist import AltReLURegressor
from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.training.descents import Descents


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 3))
    return X, np.abs(X[:, 0]) + np.sin(2 * X[:, 1]) + 0.1 * rng.standard_normal(len(X))


@pytest.mark.parametrize("later", [None, 2.0])
@pytest.mark.parametrize("looks", [1, 4])
def test_a_run_that_had_no_time_for_a_race_goes_on(later, looks, rows, tmp_path, monkeypatch):
    seen = []

    def in_the_long_descent(progress):
        seen.append(progress.stage)
        return seen.count("cycle") == looks

    options = {"n_hidden": 4, "checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    with monkeypatch.context() as patch:
        patch.setattr(Descents, "affordable", lambda _, weights: 450.0 * weights.n_hidden)
        begun = AltReLURegressor(
            **options, max_time=60, random_state=0, callback=in_the_long_descent
        ).fit(*rows)
    assert begun.stop_reason_ == "interrupted"
    assert not any("length" in entry for entry in begun.history_)
    model = AltReLURegressor(**options, max_time=later, random_state=0, resume=True).fit(*rows)
    assert model.history_[-1]["loss"] < begun.history_[-1]["loss"]
    if later is None:  # there was time for one then
        assert model.stop_reason_ != "max_time"
        assert any("length" in entry for entry in model.history_)


def test_what_was_decided_stays_decided(tmp_path):
    store = CheckpointStore(tmp_path)
    journal = Journal(store, 0.0)
    with pytest.raises(InterruptedError):
        run_of(journal, 5, cut=True)
    resumed = Journal(store)
    resumed.resume(store.load())
    assert run_of(resumed, 7) == 5


def test_journals_of_before_choices_were_kept_go_on(tmp_path):
    store = CheckpointStore(tmp_path)
    journal = Journal(store, 0.0)
    journal.step("one", lambda: 1)
    resumed = Journal(store)
    resumed.resume(store.load())
    assert resumed.step("how", lambda: 7, required=False) == 7
    assert resumed.step("one", lambda: 2) == 1
    assert not resumed.replaying


def run_of(journal, choice, *, cut=False):
    found = journal.step("outer", lambda: inner(journal, choice, cut=cut))
    journal.save()
    return found


def inner(journal, choice, *, cut):
    found = journal.step("how", lambda: choice, required=False)
    journal.step("one", lambda: 1)
    if cut:
        raise InterruptedError
    return found
