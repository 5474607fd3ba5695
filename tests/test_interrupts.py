"""Ctrl-C and SIGTERM: the first keeps the best network, the second ends the process."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from noisy_rows import METHODS, noisy

from altrelu_dist import AltReLURegressor
from altrelu_dist.interrupts import catch_interrupts, stop_softly

SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


def press_at(iteration, times=1, number=signal.SIGINT):
    """A callback that presses Ctrl-C as soon as so many iterations are recorded."""

    def callback(progress):
        if progress.iteration == iteration:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return callback


@pytest.fixture
def plain_ctrl_c():
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in usual.items():
        assert signal.getsignal(number) is handler
        signal.signal(number, before[number])


@pytest.mark.usefixtures("plain_ctrl_c")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("method", METHODS)
def test_the_first_signal_keeps_the_best_network(method, number, rng, capfd):
    X, y = noisy(rng)
    model = AltReLURegressor(4, method=method, random_state=0, callback=press_at(3, number=number))
    model.fit(X, y)
    assert model.stop_reason_ == "interrupted"
    assert model.score(X, y) > 0.2
    again = "Ctrl-C again" if number == signal.SIGINT else "once more"
    assert f"best network kept; {again} stops at once" in capfd.readouterr().err


@pytest.mark.usefixtures("plain_ctrl_c")
@pytest.mark.parametrize(("number", "error"), SIGNALS.items())
def test_the_second_signal_raises(number, error, rng):
    model = AltReLURegressor(4, random_state=0, callback=press_at(3, times=2, number=number))
    with pytest.raises(error) as raised:
        model.fit(*noisy(rng))
    assert number == signal.SIGINT or raised.value.code == 143
    assert not hasattr(model, "network_")


@pytest.mark.usefixtures("plain_ctrl_c")
@pytest.mark.parametrize(("number", "error"), SIGNALS.items())
def test_a_signal_before_there_is_a_network_raises(number, error, rng):
    with pytest.raises(error):
        AltReLURegressor(4, random_state=0, callback=press_at(0, number=number)).fit(*noisy(rng))


@pytest.mark.usefixtures("plain_ctrl_c")
def test_a_child_of_multiprocessing_is_ended_by_sigterm(monkeypatch):
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    with stop_softly(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_somebody_elses_handler_is_left_alone(rng):
    with catch_interrupts(lambda _: None) as interrupts:
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def callback(progress):
            del progress
            assert {number: signal.getsignal(number) for number in SIGNALS} == before

        AltReLURegressor(3, max_iter=1, random_state=0, callback=callback).fit(*noisy(rng))
    assert not interrupts.requested


@pytest.mark.usefixtures("plain_ctrl_c")
def test_a_fit_in_another_thread_leaves_ctrl_c_alone(rng):
    X, y = noisy(rng)
    model = AltReLURegressor(3, max_iter=1, random_state=0)
    thread = threading.Thread(target=model.fit, args=(X, y))
    thread.start()
    thread.join()
    assert model.score(X, y) > 0
