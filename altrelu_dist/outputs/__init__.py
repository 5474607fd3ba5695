"""Where outputs may be written, and writing them whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from altrelu_dist.errors import ParameterError
from altrelu_dist.outputs import local

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_apart", "check_output", "recovered", "write_beside"]


def check_output(
    destination: str | os.PathLike[str], *, overwrite: bool, kind: str | None = None
) -> None:
    """Refuse an output that cannot be written, before any work is done for it.

    Parameters
    ----------
    destination : path
        A file, or a folder where ``kind`` is given; on this machine, or an address that fsspec
        knows.
    overwrite : bool
        Whether an existing one may be replaced.
    kind : str, optional
        The output is a Zarr group of this format: none but such a group, or an empty folder, is
        replaced. Without it the output is a file, and no folder is.

    Raises
    ------
    ExistsError
        It exists and is not to be replaced.
    DataError
        Its folder or bucket does not exist or cannot be written.
    """
    text, here = _named(destination)
    if here:
        local.check(text, overwrite=overwrite, kind=kind)
    else:
        from altrelu_dist.outputs import remote

        remote.check(text, overwrite=overwrite, kind=kind)


@contextmanager
def write_beside(
    destination: str | os.PathLike[str], *, overwrite: bool, kind: str | None = None
) -> Iterator[str]:
    """Give a path beside `destination` to write to, and put it in place when the block ends well.

    On any error, an interrupt included, what was written is removed and what was at the
    destination stays, also what has come there in the meantime.

    Parameters
    ----------
    destination, overwrite, kind
        As `check_output`.

    Yields
    ------
    str
        Where to write, in the same folder and with the same suffix; nothing is there yet.

    Raises
    ------
    ExistsError, DataError
        As `check_output`, before the block and after it; or, in place of any error of the file
        system, in one line: the disk is full, or a write fails.
    """
    text, here = _named(destination)
    if here:
        with local.write(text, overwrite=overwrite, kind=kind) as path:
            yield str(path)
    else:
        from altrelu_dist.outputs import remote

        with remote.write(text, overwrite=overwrite, kind=kind) as address:
            yield address


def recovered(address: str | os.PathLike[str]) -> str | None:
    """Where an output is to be found whose writer was killed while it replaced an older one.

    To be asked when there is nothing at its place, or nothing whole.

    Parameters
    ----------
    address : path
        The output's.

    Returns
    -------
    str or None
        On this machine the output's own address, after it is put in place; in storage that of the
        copy that is whole; None if no writer was killed so.
    """
    text, here = _named(address)
    if "::" in text:  # nothing is written through a chain of addresses
        return None
    if here:
        return local.recovered(text)
    from altrelu_dist.outputs import remote

    return remote.recovered(text)


def check_apart(destination: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse an output that is, holds or lies in one of the inputs that it is made from.

    Parameters
    ----------
    destination : path
        A file or folder.
    *inputs : path
        Addresses of files or folders, or globs.

    Raises
    ------
    ParameterError
        If they are not apart.
    """
    text, here = _named(destination)
    path = Path(text).expanduser().resolve() if here else Path(text)
    for each in inputs:
        read, read_here = _named(each)
        if read_here != here:
            continue
        given = Path(read).expanduser().resolve() if here else Path(read)
        how = ""
        if path == given or fnmatch(str(path), str(given)):
            how = "is one of the inputs"
        elif path in given.parents:
            how = "is a folder that holds an input"
        elif given in path.parents:
            how = "lies inside an input"
        if how:
            raise ParameterError(
                f"{os.fspath(destination)}: {how} ({os.fspath(each)}); choose another output"
            )


def _named(destination: str | os.PathLike[str]) -> tuple[str, bool]:
    """The address of an output, and whether it is a path of this machine."""
    text = os.fspath(destination)
    for mark in ("file://", "local://"):
        text = text.removeprefix(mark)
    return text, "://" not in text
