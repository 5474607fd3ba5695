"""Outputs in folders of this machine: written beside their place, and swapped in whole."""

from __future__ import annotations

import errno
import json
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from altrelu_dist.errors import AltReLUError, DataError, ExistsError, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check", "write"]

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}  # by a folder, which no other one replaces
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check(text: str, *, overwrite: bool, kind: str | None) -> Path:
    """As `check_output`, the links of the path resolved."""
    path = Path(text).expanduser().resolve()
    if not path.parent.is_dir():
        raise DataError(f"{text}: the folder {path.parent} does not exist")
    try:  # some folders only say that they can be written to
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        why = error.strerror or "no access"
        raise DataError(f"{text}: the folder {path.parent} cannot be written: {why}") from error
    _check_replaceable(path, text, overwrite=overwrite, kind=kind)
    return path


@contextmanager
def write(text: str, *, overwrite: bool, kind: str | None) -> Iterator[Path]:
    """As `write_beside`."""
    path = check(text, overwrite=overwrite, kind=kind)
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield beside
        if overwrite:
            _swap(beside, path, text, kind)
        else:
            _publish(beside, path)
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


def _stored_format(path: Path) -> object:
    """The format that a Zarr group says it is of; None if it says nothing, or is none."""
    try:
        return json.loads((path / "zarr.json").read_bytes())["attributes"]["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_replaceable(path: Path, text: str, *, overwrite: bool, kind: str | None) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise ExistsError(f"{text}: exists already", Remedy.OVERWRITE)
    if kind is None:
        if path.is_dir():
            raise ExistsError(f"{text}: is a folder, which no file replaces")
        return
    for pause in (0.0, 0.01, 0.1):  # another program may be about to replace it
        time.sleep(pause)
        if _stored_format(path) == kind or not path.exists():
            return
        with suppress(OSError):
            if path.is_dir() and not any(path.iterdir()):
                return
    raise ExistsError(f"{text}: exists and is not an {kind}, so it is not replaced")


def _publish(new: Path, path: Path) -> None:
    """Put the new one where nothing is, whoever else wants to."""
    try:
        if new.is_dir():
            path.mkdir()
        else:
            path.open("x").close()
    except FileExistsError:
        raise _appeared(path) from None
    try:
        new.replace(path)
    except OSError:
        # Only what holds the place is taken away: another one may have put its own there.
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()
            elif not path.stat().st_size:
                path.unlink()
        if path.exists():
            raise _appeared(path) from None
        raise


def _appeared(path: Path) -> ExistsError:
    return ExistsError(f"{path}: has come into being in the meantime, and is not replaced")


def _swap(new: Path, path: Path, text: str, kind: str | None) -> None:
    """Put the new one in place; at every moment the old or the new one is there to be kept.

    Of several at once each is in place for a while, the last one for good.
    """
    old = new.with_name(f"{new.name}.old")
    try:
        while True:
            _check_replaceable(path, text, overwrite=True, kind=kind)
            _remove(old)
            with suppress(FileNotFoundError):
                path.rename(old)
            try:
                new.rename(path)
            except OSError as error:
                if error.errno in _TAKEN:  # another one was quicker
                    continue
                raise
            break
    except BaseException:
        if not path.exists() and old.exists():
            with suppress(OSError):  # another one was quicker
                old.rename(path)
        if path.exists():
            _remove(old)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()
