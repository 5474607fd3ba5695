"""File systems of fsspec: small files written whole, and errors of one type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from altrelu_dist.errors import AltReLUError

__all__ = ["os_errors", "write_whole"]


@contextmanager
def os_errors() -> Iterator[None]:
    """Make an `OSError` of whatever the library of a storage raises, one that is away say.

    fsspec does so for answers that are errors, and lets through that there was no answer.
    """
    try:
        yield
    except (OSError, AltReLUError):
        raise
    except Exception as error:
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def write_whole(fs: Any, path: str, data: bytes) -> None:
    """Write a file, or replace one, by a file system of fsspec.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays.
    """
    from fsspec.implementations.local import LocalFileSystem

    if not isinstance(fs, LocalFileSystem):
        with os_errors():
            fs.pipe_file(path, data)
        return
    beside = f"{path}.partial"  # the same again: what a killed process left is written over
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
