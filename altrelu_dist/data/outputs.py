"""Writing files and folders: beside the old one first, swapped in when complete."""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from altrelu_dist.data.source import one_line
from altrelu_dist.data.zarr_store import STORE_MARKS
from altrelu_dist.errors import AltReLUError, DataError, ExistsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output(destination: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Refuse an output that cannot be written, before any work is done for it.

    Parameters
    ----------
    destination : path
        A local file or folder.
    overwrite : bool
        Whether an existing one may be replaced; a folder only if it is a Zarr store, or empty.

    Returns
    -------
    Path
        The destination, links resolved.

    Raises
    ------
    ExistsError
        It exists and is not to be overwritten.
    DataError
        Its folder does not exist or cannot be written, or it is not a local path.
    """
    text = os.fspath(destination)
    if "://" in text:
        raise DataError(f"{text}: only local paths can be written")
    path = Path(text).expanduser().resolve()
    if not path.parent.is_dir():
        raise DataError(f"{text}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"{text}: the folder {path.parent} cannot be written")
    if path.exists() and not overwrite:
        raise ExistsError(f"{text}: exists already; use overwrite=True (--overwrite) to replace it")
    is_store = any((path / mark).exists() for mark in STORE_MARKS)
    if path.is_dir() and any(path.iterdir()) and not is_store:
        raise ExistsError(f"{text}: is a folder, but not a Zarr store, and is not overwritten")
    return path


@contextmanager
def write_beside(destination: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a path beside `destination` to write to, and swap it in when the block ends well.

    On any error, an interrupt included, what was written is removed and an existing destination
    is left as it was. Errors of the file system come out as one line.

    Parameters
    ----------
    destination : path
        A local file or folder.
    overwrite : bool
        Whether an existing one may be replaced.

    Yields
    ------
    Path
        Where to write, with the suffix of the destination; nothing is there yet.

    Raises
    ------
    ExistsError, DataError
        As `check_output`; or the disk is full, or a write fails.
    """
    path = check_output(destination, overwrite=overwrite)
    partial = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        _swap(partial, path)
    except BaseException as error:
        _remove(partial)
        if not isinstance(error, OSError) or isinstance(error, AltReLUError):
            raise
        full = "the disk is full; what was written is removed"
        why = full if error.errno in _FULL else f"cannot be written: {one_line(error)}"
        raise DataError(f"{os.fspath(destination)}: {why}") from error


def _swap(new: Path, path: Path) -> None:
    """Put the new one in place; the old one comes back if that fails."""
    if not path.exists():
        new.rename(path)
        return
    old = new.with_suffix(".old")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink()


def _remove(path: Path) -> None:
    """Remove a file or folder, again if a writing thread that was interrupted puts it back."""
    for pause in (0.0, 0.05, 0.2):
        time.sleep(pause)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
