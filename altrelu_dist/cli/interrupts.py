"""Ctrl-C in two steps: the first asks for a stop at the end of a step, the second stops at once."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["EXIT_CODE", "Interrupts", "catch_interrupts"]

EXIT_CODE = 130  # what a shell expects of a program that ended by Ctrl-C


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


@contextmanager
def catch_interrupts(on_request: Callable[[], None]) -> Iterator[Interrupts]:
    """Note the first Ctrl-C instead of raising; the second raises `KeyboardInterrupt` as ever.

    Parameters
    ----------
    on_request : callable
        Called once, inside the signal handler: it must not take locks.
    """
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state  # signals reach only the main thread
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if state.requested and not state._held:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # clearing up is short: let it be
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
