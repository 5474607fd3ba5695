"""The driver of a method: what it saves and records, and where it stops; the parts of a run."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from oracles import objective_over, random_block, random_weights

from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.engine import OutOfTimeError
from altrelu_dist.training import Monitor
from altrelu_dist.training.alternating import Alternation, random_directions
from altrelu_dist.training.best import Best, better
from altrelu_dist.training.damped import DampedSteps
from altrelu_dist.training.driver import Report, run


class State(NamedTuple):
    weights: object
    taken: int


class Halving:
    """A method that halves the output layer at each step."""

    def __init__(self, steps=6, gives_up_at=None):
        self.steps, self.gives_up_at, self.begun = steps, gives_up_at, 0

    def init(self, begin):
        self.begun += 1
        return State(begin, 0)

    def step(self, state):
        if state.taken == self.gives_up_at:
            raise OutOfTimeError
        halved = state.weights.with_output(state.weights.output / 2)
        return State(halved, state.taken + 1)

    def done(self, state):
        return state.taken >= self.steps

    def report(self, state):
        loss = None if state.taken == 3 else 1.0 / (1 + state.taken)
        return Report(state.weights, loss, state.taken / self.steps, details={"at": state.taken})

    def save(self, state):
        return state._asdict()

    def restore(self, saved):
        return State(**saved)


@pytest.fixture
def begin(rng):
    return random_weights(rng, 4, 3)


def over(rng, **monitoring):
    return objective_over(random_block(rng, 60, 3), monitor=Monitor(**monitoring))


def test_every_step_is_recorded_but_those_without_a_loss(rng, begin):
    heard = []
    objective = over(rng, callback=lambda now: heard.append(now.iteration))
    assert run(Halving(), begin, objective).taken == 6
    history = objective.monitor.history
    assert [entry["at"] for entry in history] == [0, 1, 2, 4, 5, 6]
    assert history[-1]["fraction"] == 1.0
    assert heard == [1, 2, 3, 3, 4, 5, 6]
    assert objective.monitor.best.loss == pytest.approx(1 / 7)


@pytest.mark.parametrize("end", ["callback", "no time", "time"])
def test_it_stops_with_the_state_of_the_last_whole_step(end, rng, begin):
    objective = over(rng, callback=lambda now: end == "callback" and now.iteration == 3)
    monitor = objective.monitor
    if end == "time":
        monitor = Monitor(max_time=0.0)
        objective = objective_over(random_block(rng, 60, 3), monitor=monitor)
    state = run(Halving(gives_up_at=2 if end == "no time" else None), begin, objective)
    assert state.taken == (0 if end == "time" else 2)
    reason = {"callback": "interrupted", "no time": None, "time": "max_time"}[end]
    assert monitor.stopping.reason == reason


@pytest.mark.parametrize("save_every", [1, 4])
def test_it_goes_on_from_a_save_point(save_every, rng, begin, tmp_path):
    store = CheckpointStore(tmp_path)
    objective = over(rng, journal=Journal(store, 0.0))
    run(Halving(gives_up_at=5), begin, objective, save_every)
    journal = Journal(store)
    journal.resume(store.load())
    objective, method = over(rng, journal=journal), Halving()
    state = run(method, begin, objective, save_every)
    assert method.begun == 0
    np.testing.assert_array_equal(state.weights.V, begin.V / 2**6)
    assert [entry["at"] for entry in objective.monitor.history] == [0, 1, 2, 4, 5, 6]


def test_a_step_does_not_change_the_state_it_begins_with(rng):
    block = random_block(rng, 200, 3)
    objective = objective_over(block)
    alternation = Alternation(objective, (block.y**2).sum(axis=0), 5)
    damped = DampedSteps(objective, objective, 5, rng, 1e-4)
    begins = [(alternation, random_directions(4, 3, rng)), (damped, random_weights(rng, 4, 3))]
    for method, begin in begins:
        state = method.init(begin)
        for _ in range(3):
            first, again = method.step(state), method.step(state)
            assert first.loss == again.loss
            np.testing.assert_array_equal(first.weights.W, again.weights.W)
            state = first


def test_what_takes_too_long_is_not_begun_again():
    clock = Monitor(max_time=1000.0).clock
    for _ in range(2):
        with clock.blocking():
            clock.begun -= 400
    with pytest.raises(OutOfTimeError), clock.blocking():
        pytest.fail("200 seconds are left")
    assert clock.blocking_seconds == pytest.approx(400, abs=1)


def test_the_best_network_is_over_the_most_rows_and_of_the_least_loss(rng):
    a, b, c = (random_weights(rng, 2, 1) for _ in range(3))
    assert better(None, a, math.nan) is None
    best = better(None, a, 2.0, n_rows=10)
    assert best.updated(b, 2.0, n_rows=10) is best
    assert best.updated(b, math.nan, n_rows=20) is best
    assert best.updated(b, 1.0, n_rows=9) is best
    assert best.updated(b, 1.0, n_rows=10) == Best(b, 1.0, 10)
    assert best.updated(c, 9.0, n_rows=11) == Best(c, 9.0, 11)


def test_checkpoints_hold_the_fields_that_they_held_before_there_was_a_driver(rng):
    """So that a run which an earlier version began goes on."""
    block = random_block(rng, 200, 3)
    objective = objective_over(block)
    alternation = Alternation(objective, (block.y**2).sum(axis=0), 5)
    state = alternation.step(alternation.init(random_directions(4, 3, rng)))
    saved = alternation.save(state)
    assert set(saved) == {"W", "best", "least", "iteration", "pattern"}
    assert alternation.step(alternation.restore(saved)).loss == alternation.step(state).loss
    damped = DampedSteps(objective, objective, 5, rng, 1e-4)
    state = damped.step(damped.init(random_weights(rng, 4, 3)))
    saved = damped.save(state)
    fields = {"weights", "loss", "gradient", "damping", "growth", "losses", "taken", "pattern"}
    assert set(saved) == fields | {"neurons", "kinks"}
    assert damped.step(damped.restore(saved)).loss == damped.step(state).loss
    assert isinstance(saved["losses"], list)
