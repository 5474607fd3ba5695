"""Ctrl-C in two steps: the first asks for a stop at the end of a step, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["STOPPING", "Interrupts", "catch_interrupts", "say_stopping", "stop_softly"]

STOPPING = "stopping at the end of this step, best network kept; Ctrl-C again stops at once"


@dataclass
class Interrupts:
    """Whether the user has asked for a stop."""

    requested: bool = False
    _held: bool = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish whatever is pressed: for what is short and must be whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False


def say_stopping() -> None:
    """Tell the user; raw, because a signal handler may have interrupted a buffered write."""
    with suppress(OSError):  # whoever read it may have gone
        os.write(2, f"{STOPPING}\n".encode())


@contextmanager
def catch_interrupts(
    on_request: Callable[[], None], *, exiting: bool = False
) -> Iterator[Interrupts]:
    """Note the first Ctrl-C instead of raising; the second raises `KeyboardInterrupt` as ever.

    Parameters
    ----------
    on_request : callable
        Called once, inside the signal handler: it must not take locks.
    exiting : bool, default False
        Whether the program ends after the second, so that any further ones are ignored.
    """
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state  # signals reach only the main thread
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if state.requested and not state._held:
            # Clearing up is short: let it be.
            signal.signal(signal.SIGINT, signal.SIG_IGN if exiting else before)
            raise KeyboardInterrupt
        if not state.requested:
            state.requested = True
            on_request()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield state
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, before)


@contextmanager
def stop_softly(on_request: Callable[[], None]) -> Iterator[None]:
    """The same where nobody else has taken Ctrl-C over: as a library may do it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    with catch_interrupts(on_request):
        yield
