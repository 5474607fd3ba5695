"""Local files that appear whole or not at all, under names that nobody can have prepared."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["create", "exchange", "publish", "remove_temporaries", "write_file"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# Of a kernel, a file system or a sandbox without it; ENOENT: one of the two is missing.
_CANNOT = {
    errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.ENOENT,
}  # fmt: skip
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_TOKEN = 8  # random bytes in the name of a temporary file


def create(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a new file.

    Raises
    ------
    FileExistsError
        If anything has this name, be it a link to nowhere.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, or replace one in one step; a link is replaced, not followed.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN)}.partial")
    try:
        create(temporary, data)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def remove_temporaries(folder: str | os.PathLike[str], names: str) -> None:
    """Remove what `write_file` left in a folder when it was killed.

    Parameters
    ----------
    folder : path
        Nobody else may be writing these files there.
    names : str
        A regular expression of the files' names.
    """
    ours = re.compile(rf"\.(?:{names})\.[0-9a-f]{{{2 * _TOKEN}}}\.partial")
    with os.scandir(folder) as entries:
        left = [e for e in entries if ours.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    for entry in left:
        with suppress(OSError):
            os.unlink(entry.path)


def publish(new: Path, path: Path) -> None:
    """Give a file or a folder its name, where nothing but an empty folder has it.

    Raises
    ------
    OSError
        If something has, or it cannot be; `new` stays where it is.
    """
    if stat.S_ISDIR(new.lstat().st_mode):
        new.rename(path)  # replaces no folder but an empty one, and no file
        return
    try:
        os.link(new, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        path.open("x").close()
        new.replace(path)
    else:
        new.unlink()


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step, where the system can.

    Returns
    -------
    bool
        Whether that is done; if not, the system cannot, or one of the two is missing.

    Raises
    ------
    OSError
        If it is not allowed.
    """
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _renameat2() -> Any:
    """The C library's function; None where there is none."""
    found = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is not None:
        folder, name = ctypes.c_int, ctypes.c_char_p
        found.argtypes = [folder, name, folder, name, ctypes.c_uint]
    return found
