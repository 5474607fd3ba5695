"""Where outputs may be written, and writing them whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from altrelu_dist.data.zarr_store import STORE_MARKS
from altrelu_dist.errors import DataError, ExistsError
from altrelu_dist.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    with replacing(check_output(destination, overwrite=overwrite)) as path:
        yield path
