"""The files and stores at an address, in order, and the columns that their folders stand for."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from altrelu_dist.data.formats import (
    OPENERS,
    READABLE,
    TABLES,
    format_of,
    is_store,
    last_name,
    not_read,
)
from altrelu_dist.data.numpy_files import npy_partner
from altrelu_dist.data.source import files_at, listed
from altrelu_dist.errors import DataError
from altrelu_dist.links import absolute, with_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Place", "parts_at"]

_DEEPEST = 16  # folders in folders
_EMPTY_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # of Hive, Spark and Arrow for a missing value


class Place(NamedTuple):
    """A file or store, its format, and the columns that the folders above it stand for."""

    format: str
    address: str
    partition: tuple[tuple[str, float | str], ...]


def parts_at(address: str) -> list[Place]:
    """All files and stores at an address, in natural order."""
    fs, path = files_at(address)
    base = None  # the folder below which others are named for columns
    if fs.isdir(path) and not is_store(fs, path):
        base, found = path, _inside(fs, path)
        if all(format_of(p) == ".npy" for p in found):
            found = [p for p in found if npy_partner(with_path(address, p))]
        if not found:
            raise DataError(f"{address}: nothing in this folder can be read ({READABLE})")
    elif fs.exists(path):
        found = [path]
    else:
        base = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
        found = []
        for p in fs.glob(path):
            if last_name(p)[:1] != ".":
                found += _inside(fs, p) if fs.isdir(p) and not is_store(fs, p) else [p]
        if not found:
            raise DataError(f"{address}: no such file or folder")
    formats = {p: format_of(p) or (".zarr" if is_store(fs, p) else "") for p in found}
    for p, kind in formats.items():
        if not kind:
            raise DataError(not_read(with_path(address, p)))
        if fs.isfile(p) and fs.size(p) == 0:
            raise DataError(f"{with_path(address, p)}: is empty (0 bytes)")
    if len({OPENERS[kind] for kind in formats.values()}) > 1:
        kinds = sorted({*formats.values()})
        raise DataError(f"{address}: several formats: {listed(kinds)}; name one by a glob")
    partitions = {} if base is None else _partitions(base, found)
    for p, keys in partitions.items():
        if keys and formats[p] not in TABLES:
            raise DataError(
                f"{with_path(address, p)}: its folders are named for columns ({listed([*keys])}), "
                f"which an array cannot have: name the folder with the files"
            )
    return [
        Place(formats[p], _address(address, fs, p), tuple(partitions.get(p, {}).items()))
        for p in sorted(found, key=_natural)
    ]


def _inside(fs: Any, folder: str, depth: int = 0) -> list[str]:
    """Files and stores that can be read in a folder, and in those that are named for columns."""
    found = []
    for entry in fs.ls(folder, detail=True):
        path = entry["name"].rstrip("/")
        if last_name(path)[:1] in ("", ".", "_"):
            continue
        if entry["type"] == "directory" or (entry["type"] != "file" and fs.isdir(path)):
            if is_store(fs, path):
                found.append(path)
            elif ("=" in last_name(path) or format_of(path)) and depth < _DEEPEST:
                found += _inside(fs, path, depth + 1)
        elif format_of(path):
            found.append(path)
    return found


def _partitions(base: str, found: Sequence[str]) -> dict[str, dict[str, float | str]]:
    """Columns that the folders of each file below `base` say, as numbers where all values are."""
    texts = {}
    for p in found:
        steps = (step.partition("=") for step in p.removeprefix(base).split("/")[:-1])
        texts[p] = {unquote(key): unquote(value) for key, is_key, value in steps if is_key}
    of_text = {key for each in texts.values() for key, text in each.items() if not _numbers(text)}

    def value(key: str, text: str) -> float | str:
        return text if key in of_text and text != _EMPTY_PARTITION else _numbers(text)[0]

    return {p: {key: value(key, text) for key, text in each.items()} for p, each in texts.items()}


def _numbers(text: str) -> list[float]:
    """The number that the name of a folder gives, if it gives one."""
    if text == _EMPTY_PARTITION:
        return [math.nan]
    try:
        return [] if "_" in text else [float(text)]
    except ValueError:
        return []


def _address(given: str, fs: Any, path: str) -> str:
    """Of a path on a file system, as it is known everywhere."""
    from fsspec.implementations.local import LocalFileSystem

    if "::" in given:
        return absolute(with_path(given, path))
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _natural(path: str) -> list[tuple[str, int]]:
    """Order numbers in names by value."""
    return [(word, int(number or -1)) for word, number in re.findall(r"(\D*)(\d*)", path)]
