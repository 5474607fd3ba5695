"""Ctrl-C and SIGTERM: the first asks for a stop at the end of a step, the second stops at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType

__all__ = [
    "STOPPING",
    "Interrupts",
    "Terminated",
    "catch_interrupts",
    "exit_code",
    "raise_for",
    "say_stopping",
    "stop_softly",
    "terminable",
]

STOPPING = "stopping at the end of this step, best network kept; Ctrl-C again stops at once"
_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Terminated(SystemExit):
    """Raised for SIGTERM: clears up on its way out and ends the program with exit code 143."""

    def __init__(self) -> None:
        super().__init__(exit_code(signal.SIGTERM))


def exit_code(number: int) -> int:
    """The exit code that a shell expects of a program that a signal ended."""
    return 128 + number


def raise_for(number: int) -> NoReturn:
    """Raise what stops the program at once: `Terminated` for SIGTERM, else `KeyboardInterrupt`."""
    if number == signal.SIGTERM:
        raise Terminated
    raise KeyboardInterrupt


@dataclass
class Interrupts:
    """Whether the user, or the system, has asked for a stop.

    Parameters
    ----------
    requested : bool
    number : int
        The signal that asked first.
    """

    requested: bool = False
    number: int = signal.SIGINT
    _held: bool = False

    @property
    def exit_code(self) -> int:
        """With which a program ends that has stopped as it was asked to."""
        return exit_code(self.number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish whatever is pressed: for what is short and must be whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False


def say_stopping(number: int = signal.SIGINT) -> None:
    """Tell the user; raw, because a signal handler may have interrupted a buffered write."""
    text = STOPPING if number == signal.SIGINT else STOPPING.replace("Ctrl-C again", "once more")
    with suppress(OSError):  # whoever read it may have gone
        os.write(2, f"{text}\n".encode())


@contextmanager
def catch_interrupts(
    on_request: Callable[[int], None],
    *,
    exiting: bool = False,
    numbers: Collection[int] = _CAUGHT,
) -> Iterator[Interrupts]:
    """Note the first Ctrl-C or SIGTERM; the second raises as `raise_for` does.

    Parameters
    ----------
    on_request : callable
        Called once, with the number of the signal, inside its handler: it must not take locks.
    exiting : bool, default False
        Whether the program ends after the second, so that any further ones are ignored.
    numbers : collection of int
        The signals that are caught.
    """
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state  # signals reach only the main thread
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if state.requested and not state._held:
            # Clearing up is short: let it be.
            for caught, handler in before.items():
                signal.signal(caught, signal.SIG_IGN if exiting else handler)
            raise_for(number)
        if not state.requested:
            state.requested, state.number = True, number
            on_request(number)

    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in before:
            signal.signal(number, handle)
        yield state
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)


@contextmanager
def stop_softly(on_request: Callable[[int], None]) -> Iterator[None]:
    """The same as a library may do it: of the signals that the program has not taken over itself.

    A child that `multiprocessing` started is ended by SIGTERM as its parent expects.
    """
    defaults: dict[int, object] = {signal.SIGINT: signal.default_int_handler}
    if multiprocessing.parent_process() is None:
        defaults[signal.SIGTERM] = signal.SIG_DFL
    numbers = [number for number, usual in defaults.items() if signal.getsignal(number) is usual]
    with catch_interrupts(on_request, numbers=numbers):
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM would end the process without clearing up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _frame: raise_for(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
