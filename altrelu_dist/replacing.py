"""Files and folders that are replaced as a whole: written beside the old one, then swapped in."""

from __future__ import annotations

import errno
import json
import secrets
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from altrelu_dist.errors import AltReLUError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["replacing", "stored_format"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and put it in its place when the block ends well.

    On any error, an interrupt included, what was written is removed and what was there stays.

    Parameters
    ----------
    path : Path
        A local file or folder, links resolved; it may exist.

    Yields
    ------
    Path
        Where to write, in the same folder and with the same suffix; nothing is there yet.

    Raises
    ------
    DataError
        In place of any error of the file system, in one line.
    """
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield beside
        _swap(beside, path)
    except BaseException as error:
        for pause in (0.0, 0.05, 0.2):  # a writing thread that was interrupted may put it back
            time.sleep(pause)
            _remove(beside)
        if not isinstance(error, OSError) or isinstance(error, AltReLUError):
            raise
        why = "cannot be written: " + (error.strerror or " ".join(str(error).split()))
        if error.errno in _FULL:
            why = "the disk is full; what was written is removed"
        raise DataError(f"{path}: {why}") from error


def stored_format(path: Path) -> object:
    """The format that a Zarr group says it is of; None if it says nothing, or is none."""
    try:
        return json.loads((path / "zarr.json").read_bytes())["attributes"]["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _swap(new: Path, path: Path) -> None:
    """Put the new one in place; at every moment the old or the new one is there to be kept."""
    old = new.with_name(f"{new.name}.old")
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if path.exists():
            _remove(old)
        elif old.exists():
            old.rename(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()
