"""Addresses as fsspec chains them, link by link, and what may be opened at them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from altrelu_dist.errors import AltReLUError, DataError

__all__ = ["absolute", "check_regular", "split_chain", "with_path"]

_KINDS = {
    stat.S_IFIFO: "named pipe (FIFO)",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_CACHES = ("simplecache", "filecache", "blockcache", "cached")  # links of a chain without a path


def split_chain(address: str) -> tuple[str, str, str]:
    """Split an address at the link that holds the path of the file.

    Parameters
    ----------
    address : str
        A path, or an address that fsspec knows; a chain such as
        ``simplecache::zip://data.csv::s3://bucket/archive.zip`` too.

    Returns
    -------
    before, link, after : str
        Their sum is the address; the file lies at ``link``.
    """
    links = address.split("::")
    at = next((i for i, link in enumerate(links) if link not in _CACHES), 0)
    before = "".join(f"{link}::" for link in links[:at])
    return before, links[at], "".join(f"::{link}" for link in links[at + 1 :])


def with_path(address: str, path: str) -> str:
    """The address of another path on the file system of an address."""
    before, link, after = split_chain(address)
    scheme, separator, _ = link.partition("://")
    if not separator and after:
        separator = "://"  # a bare protocol: the root of an archive
    if separator and "://" not in path:
        path = f"{scheme}{separator}{path}"
    return f"{before}{path}{after}"


def absolute(address: str) -> str:
    """An address that means the same in another working folder."""
    before, _, last = address.rpartition("::")
    if "://" not in last:
        last = str(Path(last).expanduser().absolute())
    return f"{before}::{last}" if before else last


def check_regular(address: str | os.PathLike[str], error: type[AltReLUError] = DataError) -> None:
    """Refuse what is neither a file nor a folder: a FIFO blocks, a device may never end.

    Parameters
    ----------
    address : str or path
        Only its links on this machine are looked at.
    error : type, default DataError
        Raised if one of them is special.
    """
    for link in os.fspath(address).split("::"):
        scheme, separator, path = link.rpartition("://")
        if separator and scheme not in ("file", "local"):
            continue
        try:
            mode = os.stat(os.path.expanduser(path)).st_mode
        except (OSError, ValueError):
            continue  # the error of whoever opens it says more
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "special file")
            raise error(f"{link}: is a {kind}, expected a file: save the data to a file first")
