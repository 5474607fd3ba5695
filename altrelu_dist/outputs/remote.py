"""Outputs in storage that fsspec knows: written under another name, and copied into place whole."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import fsspec

from altrelu_dist.errors import AltReLUError, DataError, ExistsError, Remedy
from altrelu_dist.storage import os_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check", "recovered", "write"]

_MARK = "zarr.json"  # without it a folder is no Zarr group: it goes first and comes last
_INCOMPLETE = "altrelu-incomplete.json"  # beside it while files go and come: what they are to be
_PATTERN = "*?["


class _Place:
    """Where an output is to be."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if set(_PATTERN) & set(address):
            raise DataError(f"{address}: holds one of {_PATTERN}, which would stand for many files")
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except Exception as error:
            raise DataError(f"{address}: cannot be written: {_line(error)}") from error

    def beside(self) -> _Place:
        """A name of its own in the same folder, with the same ending."""
        folder, _, name = self.address.rpartition("/")
        stem, dot, ending = name.rpartition(".")
        token = secrets.token_hex(8)
        hidden = f".{stem}.{token}.partial.{ending}" if dot else f".{name}.{token}.partial"
        return _Place(f"{folder}/{hidden}")

    @property
    def whole(self) -> str | None:
        """Where the output is whole that was being put in place here; None if none was."""
        folder, _, name = self.address.rpartition("/")
        stem, dot, ending = name.rpartition(".")
        of, ends = (stem, f".{ending}") if dot else (name, "")
        beside = re.compile(rf"\.{re.escape(of)}\.[0-9a-f]{{16}}\.partial{re.escape(ends)}")
        found = str(self._read(_INCOMPLETE).get("whole", ""))
        return f"{folder}/{found}" if beside.fullmatch(found) else None

    def format(self) -> object:
        """Of the Zarr group that is here; None if it has none, or nothing is here."""
        found = self._read(_MARK).get("attributes")
        return found.get("format") if isinstance(found, dict) else None

    @property
    def unfinished(self) -> str:
        """Of the group that was being put in place here when its process ended; else empty."""
        found = str(self._read(_INCOMPLETE).get("format", ""))
        return "" if found and self.fs.exists(f"{self.root}/{_MARK}") else found

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self.fs.cat_file(f"{self.root}/{name}"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def remove(self) -> None:
        """Remove what is here, if anything is."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.root, recursive=True)


def check(address: str, *, overwrite: bool, kind: str | None) -> None:
    """As `check_output`."""
    place = _Place(address)
    try:  # what says whether the bucket is there, and lets this user write
        probe = place.beside()
        probe.fs.pipe_file(probe.root, b"")
        probe.fs.rm_file(probe.root)
        _check_replaceable(place, overwrite=overwrite, kind=kind)
    except AltReLUError:
        raise
    except Exception as error:
        raise DataError(f"{address}: cannot be written: {_line(error)}") from error


@contextmanager
def write(address: str, *, overwrite: bool, kind: str | None) -> Iterator[str]:
    """As `write_beside`; storage has no swap, so an old one is gone while the new one is copied."""
    check(address, overwrite=overwrite, kind=kind)
    place = _Place(address)
    beside = place.beside()
    try:
        with os_errors():
            yield beside.address
            _check_replaceable(place, overwrite=overwrite, kind=kind)
    except BaseException as error:
        with suppress(Exception):
            beside.remove()
        if not isinstance(error, OSError) or isinstance(error, AltReLUError):
            raise
        raise DataError(f"{address}: cannot be written: {_line(error)}") from error
    try:
        _publish(beside, place, kind)
    except Exception as error:
        raise DataError(
            f"{address}: cannot be put in place: {_line(error)}; it is whole at {beside.address}"
        ) from error
    with suppress(Exception):
        beside.remove()


def recovered(address: str) -> str | None:
    """As `outputs.recovered`: where it is whole, which is looked at and not changed."""
    with suppress(Exception):  # there was an error before, which says more
        return _Place(address).whole
    return None


def _check_replaceable(place: _Place, *, overwrite: bool, kind: str | None) -> None:
    fs: Any = place.fs
    if not fs.exists(place.root) or (kind is not None and place.unfinished == kind):
        return
    if not overwrite:
        raise ExistsError(f"{place.address}: exists already", Remedy.OVERWRITE)
    if kind is None:
        if fs.isdir(place.root):
            raise ExistsError(f"{place.address}: is a folder, which no file replaces")
    elif place.format() != kind and (fs.isfile(place.root) or fs.find(place.root)):
        raise ExistsError(f"{place.address}: exists and is not an {kind}, so it is not replaced")


def _publish(new: _Place, place: _Place, kind: str | None) -> None:
    if kind is None:
        place.fs.cp_file(new.root, place.root)
        return
    incomplete, mark = f"{place.root}/{_INCOMPLETE}", f"{place.root}/{_MARK}"
    name = new.address.rpartition("/")[2]  # only that: an address may hold a secret
    place.fs.pipe_file(incomplete, json.dumps({"format": kind, "whole": name}).encode())
    with suppress(FileNotFoundError):
        place.fs.rm_file(mark)
    if old := [name for name in place.fs.find(place.root) if not name.endswith(_INCOMPLETE)]:
        place.fs.rm(old)
    names = [name[len(new.root) :] for name in place.fs.find(new.root)]
    inner = [name for name in names if name != f"/{_MARK}"]
    for each in (inner, [f"/{_MARK}"]):
        place.fs.copy([new.root + name for name in each], [place.root + name for name in each])
    place.fs.rm_file(incomplete)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
