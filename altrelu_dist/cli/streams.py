"""The command's streams: whatever becomes of a terminal or a pipe, the work goes on to its end."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["reader_has_left", "streams_that_hold"]

_ROOM = 0.01  # seconds until a stream that has no room is asked again


@contextmanager
def streams_that_hold() -> Iterator[None]:
    """Let no write to stdout or stderr fail, until this process ends.

    A stream that is closed takes everything, as /dev/null does. A character that a stream cannot
    encode is replaced. What a pipe does not take whose reader has left is dropped; what a full disk
    does not take of stdout goes to stderr when the block ends.
    """
    _open_the_first_three()
    sys.stdout, sys.stderr = _holding(sys.stdout), _holding(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        raw = _raw(sys.stdout)
        if raw is not None and raw.lost and raw.error is not None:
            text = raw.lost.decode(sys.stdout.encoding, "replace")
            why = os.strerror(raw.error)
            sys.stderr.write(f"stdout: {why}; what was to go there:\n{text}")
            sys.stderr.flush()


def reader_has_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    raw = _raw(sys.stdout)
    return raw is not None and raw.error == errno.EPIPE


class _Stream(io.FileIO):
    """A file descriptor of which no write fails."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.error: int | None = None  # of the first write that failed
        self.lost = b""

    def write(self, data: Any, /) -> int:
        """Write all of it, or keep it."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.error is None:
            try:
                written = super().write(left)
            except OSError as error:
                self.error = error.errno or errno.EIO
            else:
                if written is None:  # a stream that does not wait has no room
                    time.sleep(_ROOM)
                left = left[written or 0 :]
        if self.error != errno.EPIPE:
            self.lost += bytes(left)
        return size


def _holding(stream: TextIO | None) -> TextIO:
    if stream is None:
        nowhere = _Stream(os.open(os.devnull, os.O_WRONLY))
        return io.TextIOWrapper(io.BufferedWriter(nowhere), "utf-8", "replace")
    try:
        number = stream.fileno()
    except (OSError, AttributeError):  # of a program that calls `main` itself
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(number)),
        stream.encoding,
        "replace" if stream.errors in (None, "strict") else stream.errors,
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )


def _raw(stream: TextIO) -> _Stream | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Stream) else None


def _open_the_first_three() -> None:
    """Give a closed stdin, stdout or stderr to nobody else: the next file opened would get it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free
