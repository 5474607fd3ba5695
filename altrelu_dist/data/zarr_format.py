"""The package's own Zarr format: its versions, its attributes, and the checks of a store."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.arrays import Arrays, numbered
from altrelu_dist.data.source import (
    Array,
    Wanted,
    as_columns,
    files_at,
    listed,
    one_line,
    reading,
)
from altrelu_dist.encoding.raw import RawColumns, columns_of
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "CHECKSUM",
    "FORMAT",
    "FORMAT_VERSION",
    "KNOWS_NAMES",
    "has_holes",
    "has_names",
    "metadata_checksum",
    "own_arrays",
    "own_columns",
    "own_labels",
    "own_wanted",
]

FORMAT = "altrelu-dataset"
# Since 2 with a checksum of the metadata, since 3 without names made up; 4 where features are
# missing or were no numbers, 5 where the target is classes, which older readers do not expect.
FORMAT_VERSION = 5
KNOWS_NAMES = 3  # the version since which names are the data's own
CHECKSUM = "metadata_checksum"  # the attribute that holds it
_NAMES = {"X", "y", "sample_weight"}  # of the arrays


def own_wanted(address: str, attributes: Mapping[str, Any], wanted: Wanted) -> Wanted:
    """Check the version and the names of a store of the own format; its target is always y."""
    version = attributes.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataError(
            f"{address}: format version {version} is newer than {FORMAT_VERSION}, the newest that "
            "this version of altrelu-dist reads: install a newer one"
        )
    names = [attributes.get(key) for key in ("feature_names", "target_names")]
    knows = isinstance(version, int) and version >= KNOWS_NAMES
    nameless = knows and attributes.get("feature_names", ()) is None
    told = names[1:] if nameless else names
    if version not in range(1, FORMAT_VERSION + 1) or not all(
        isinstance(of, list) and all(isinstance(name, str) for name in of) for of in told
    ):
        raise DataError(f"{address}: damaged: its metadata lack the version or the column names")
    targets = tuple(names[1] or ())
    if wanted.targets not in ((), targets):
        has = f"has the target {listed(targets)}" if targets else "was converted without a target"
        raise DataError(f"{address}: {has}, not {listed(wanted.targets)}: convert it again")
    if wanted.require_target and not targets:
        raise DataError(f"{address}: was converted without a target", Remedy.CONVERT_WITH_TARGET)
    return replace(wanted, targets=())


def own_arrays(
    address: str, attributes: Mapping[str, Any], chosen: Arrays, arrays: Mapping[str, Any]
) -> Arrays:
    """The chosen arrays with the names that convert found; chunks and metadata are checked."""
    names = [attributes[key] for key in ("feature_names", "target_names")]
    names[0] = chosen.feature_names if names[0] is None else names[0]
    counts = [len(chosen.feature_names), len(chosen.target_names)]
    if [len(of) for of in names] != counts or attributes.get("rows") != chosen.rows:
        raise DataError(f"{address}: damaged: its metadata contradict each other")
    for name in chosen.names:
        if name is not None:
            with reading(f"{address}: damaged"):
                _check_all_there(address, name, arrays[name])
    _check_metadata(address, attributes, arrays)
    return chosen._replace(feature_names=tuple(names[0]), target_names=tuple(names[1]))


def has_names(attributes: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether the columns of a store of the own format have names.

    Up to version 2 a store does not say whether x0, x1, ... were made up: they were, if none of
    them is wanted and others are.
    """
    names = attributes["feature_names"]
    if names is None:
        return False
    unclear = attributes["format_version"] < KNOWS_NAMES and numbered("x", len(names)) == (*names,)
    return not unclear or not wanted.features or bool({*wanted.features} & {*names})


def own_columns(address: str, attributes: Mapping[str, Any], count: int) -> RawColumns | None:
    """What the features were, where they were not all numbers."""
    try:
        columns = columns_of(attributes.get("columns"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{address}: damaged: {one_line(error)}") from error
    if columns is not None and len(columns) != count:
        raise DataError(f"{address}: damaged: it has {count} features, and tells of {len(columns)}")
    return columns


def own_labels(
    address: str, attributes: Mapping[str, Any], n_targets: int
) -> tuple[str | int | float | bool, ...] | None:
    """The classes of the target, where it is classes."""
    found = attributes.get("classes")
    if found is None:
        return None
    kinds = {*map(type, found)} if isinstance(found, list) else {None}
    alike = kinds in ({str}, {bool}) or (kinds and kinds <= {int, float})
    if not alike or n_targets != 1 or len({*found}) < len(found):
        raise DataError(f"{address}: damaged: its classes are {found!r:.80}")
    return tuple(found)


def has_holes(block: Array, fill_value: Any) -> bool:
    """Whether rows are as a lost chunk reads, which nothing that convert writes is."""
    first = as_columns(block)[:, 0]
    return bool((np.isnan(first) if np.isnan(fill_value) else first == fill_value).any())


def metadata_checksum(address: str, attributes: Mapping[str, Any], names: Iterable[str]) -> str:
    """SHA-256 of the attributes of a store, and of its arrays' metadata as they were written."""
    fs, root = files_at(address)
    found = sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(names):
        found.update(fs.cat_file(f"{root}/{name}/zarr.json"))
    return found.hexdigest()


def _check_metadata(address: str, attributes: Mapping[str, Any], arrays: Iterable[str]) -> None:
    """Refuse metadata that are not as they were written; those of version 1 had no checksum."""
    told = {key: value for key, value in attributes.items() if key != CHECKSUM}
    if len(told) == len(attributes) and attributes["format_version"] == 1:
        return
    with reading(f"{address}: damaged"):
        found = metadata_checksum(address, told, _NAMES & set(arrays))
    if attributes.get(CHECKSUM) != found:
        raise DataError(f"{address}: damaged: the checksum of its metadata does not fit")


def _check_all_there(address: str, name: str, array: Any) -> None:
    """Test that a file exists for every chunk."""
    fs, root = files_at(address)
    there = set(fs.find(f"{root}/{name}"))
    cells = product(
        *(range(-(-n // size)) for n, size in zip(array.shape, array.chunks, strict=True))
    )
    keys = (f"{name}/{array.metadata.encode_chunk_key(cell)}" for cell in cells)
    if lost := [key for key in keys if f"{root}/{key}" not in there]:
        raise DataError(
            f"{address}: damaged: {len(lost)} of {array.nchunks} chunks missing, first {lost[0]}"
        )
