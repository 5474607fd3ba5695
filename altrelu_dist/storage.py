"""File systems of fsspec: small files read and written whole, and errors of one type."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from altrelu_dist.errors import AltReLUError
from altrelu_dist.io.atomic import write_file

__all__ = ["is_local", "os_errors", "read_whole", "write_whole"]


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


def is_local(fs: Any) -> bool:
    """Whether a file system of fsspec is this machine's."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def read_whole(fs: Any, path: str) -> bytes:
    """Read a file, by a file system of fsspec.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file, which could keep a reader waiting for ever.
    """
    if is_local(fs) and os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "is not a regular file", path)
    with os_errors():
        return bytes(fs.cat_file(path))


def write_whole(fs: Any, path: str, data: bytes) -> None:
    """Write a file, or replace one, by a file system of fsspec.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays.
    """
    if is_local(fs):
        write_file(path, data)
        return
    with os_errors():
        fs.pipe_file(path, data)
