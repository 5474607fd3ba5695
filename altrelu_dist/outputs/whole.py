"""A small file written whole or not at all: storage does that, elsewhere it is moved in place."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

__all__ = ["write_whole"]


def write_whole(fs: Any, path: str, data: bytes) -> None:
    """Write a file, or replace one, by a file system of fsspec.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays.
    """
    from fsspec.implementations.local import LocalFileSystem

    if not isinstance(fs, LocalFileSystem):
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
