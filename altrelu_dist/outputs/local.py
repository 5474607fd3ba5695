"""Outputs in folders of this machine: written beside their place, and swapped in whole.

An output is written in a folder of its own beside its place, which nobody else can write to. Where
the system can, the old and the new one then change places in one step. Where it cannot, the old one
is moved into that folder before the new one is moved out of it; a process that is killed between
the two leaves both there, and whoever opens the output next moves the new one out.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from altrelu_dist.errors import AltReLUError, DataError, ExistsError, Remedy
from altrelu_dist.io.atomic import create, exchange, publish
from altrelu_dist.io.owner import Owner

__all__ = ["check", "recovered", "write"]

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}  # by a folder, which no other one replaces
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PARTIAL = ".partial"
_OLD, _OWNER = ".old", ".owner"  # after the output's name, in the folder that it is written in


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
    _put_right(path)
    _check_replaceable(path, text, overwrite=overwrite, kind=kind)
    return path


@contextmanager
def write(text: str, *, overwrite: bool, kind: str | None) -> Iterator[Path]:
    """As `write_beside`."""
    path = check(text, overwrite=overwrite, kind=kind)
    _remove_what_the_dead_left(path)
    # Named before it is made: an interrupt may come right after.
    folder = path.parent / f".{path.name}.{token_hex(4)}{_PARTIAL}"
    try:
        folder.mkdir(mode=0o700)
        create(folder / f"{path.name}{_OWNER}", Owner.this().encode())
        beside = folder / path.name
        yield beside
        if overwrite:
            _swap(beside, path, text, kind)
        else:
            _publish(beside, path)
        _discard(folder, path)
    except BaseException as error:
        for pause in (0.0, 0.05, 0.2):  # a writing thread that was interrupted may put it back
            time.sleep(pause)
            _discard(folder, path)
        if not isinstance(error, OSError) or isinstance(error, AltReLUError):
            raise
        why = "cannot be written: " + (error.strerror or " ".join(str(error).split()))
        if error.errno in _FULL:
            why = "the disk is full; what was written is removed"
        raise DataError(f"{path}: {why}") from error


def recovered(text: str) -> str | None:
    """As `outputs.recovered`: put an output in its place where its writer was killed before."""
    with suppress(OSError):
        if _put_right(Path(text).expanduser().resolve()):
            return text
    return None


def _stored_format(path: Path) -> object:
    """The format that a Zarr group says it is of; None if it says nothing, or is none."""
    metadata = path / "zarr.json"
    if not metadata.is_file():  # a FIFO would keep a reader waiting for ever
        return None
    try:
        return json.loads(metadata.read_bytes())["attributes"]["format"]
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
        publish(new, path)
    except OSError:
        if path.exists():
            raise ExistsError(f"{path}: was created meanwhile, and is not replaced") from None
        raise


def _swap(new: Path, path: Path, text: str, kind: str | None) -> None:
    """Put the new one in place, whatever was there; at every moment one of the two is whole.

    Of several at once each is in place for a while, the last one for good.
    """
    _check_replaceable(path, text, overwrite=True, kind=kind)
    if not new.is_dir():
        new.replace(path)
        return
    old = new.with_name(f"{new.name}{_OLD}")
    try:
        while not exchange(new, path):
            _remove(old)
            with suppress(FileNotFoundError):
                path.rename(old)
            try:
                new.rename(path)
            except FileNotFoundError:
                if not path.exists():
                    raise
                break  # somebody took this process for dead, and put it in place
            except OSError as error:
                if error.errno not in _TAKEN:  # by another one that was quicker
                    raise
            else:
                break
            _check_replaceable(path, text, overwrite=True, kind=kind)
    finally:
        if not path.exists() and old.exists():
            with suppress(OSError):  # another one was quicker
                old.rename(path)


def _folders(path: Path) -> list[Path]:
    """Folders of this user in which an output is, or was, being written."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(_PARTIAL)}")
    found = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name):
                state = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid():
                    found.append(Path(entry.path))
    return found


def _put_right(path: Path) -> bool:
    """Finish the swap of a process that was killed in it; whether there was one.

    That is safe if it lives after all: `_swap` sees that it is done.
    """
    if path.exists():
        return False
    for folder in _folders(path):
        new = folder / path.name
        if new.is_dir() and new.with_name(f"{new.name}{_OLD}").is_dir():
            with suppress(OSError):
                new.rename(path)
            return path.exists()
    return False


def _remove_what_the_dead_left(path: Path) -> None:
    for folder in _folders(path):
        with suppress(OSError):
            owner = Owner.decode((folder / f"{path.name}{_OWNER}").read_bytes())
            if owner is not None and owner.runs is False:
                _discard(folder, path)


def _discard(folder: Path, path: Path) -> None:
    """Remove the folder that an output was written in, unless the only old one is there.

    What says whose it is goes last, so that somebody can go on with it.
    """
    new, old = folder / path.name, folder / f"{path.name}{_OLD}"
    if path.exists() or not old.exists():
        for each in (old, new, folder):
            _remove(each)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
