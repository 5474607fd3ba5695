"""Why a run ends before its method is done."""

from __future__ import annotations

__all__ = ["Stopping"]


class Stopping:
    """The first reason to end the run that was given; none while it goes on."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.interrupted = False  # whether the user asked, be it the first reason or not

    def request(self, reason: str) -> None:
        """Ask for an end, from anywhere, a signal handler too; the first reason counts."""
        self.reason = self.reason or reason
        self.interrupted |= reason == "interrupted"
