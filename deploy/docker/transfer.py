#!/usr/bin/env python
"""Copies a file or folder into storage that fsspec knows, or from there: transfer.py FROM TO.

What lies at TO already is not written again. If it is anything but a part of FROM, nothing is
copied.
"""

import sys

import fsspec
from fsspec.implementations.local import LocalFileSystem

from altrelu_dist.addresses import without_secrets


def contents(files, address):
    """Sizes of the files there, by what follows the address in their names."""
    try:
        found = files.find(address, detail=True)
    except FileNotFoundError:
        return {}
    return {path[len(address) :]: one["size"] for path, one in found.items()}


def transfer(source, target):
    """Copy what is not there yet; what there is to say of it."""
    (ours, here), (theirs, there) = map(fsspec.url_to_fs, (source, target))
    wanted, found = contents(ours, here), contents(theirs, there)
    if not wanted:
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    for name, size in found.items():
        same = wanted.get(name) == size and ours.cat_file(here + name) == theirs.cat_file(
            there + name
        )
        if not same:
            raise FileExistsError(f"{target} exists already, and differs from {source}: remove it")
    missing = sorted(wanted.keys() - found)
    paths = [[path + name for name in missing] for path in (here, there)]
    if missing and not isinstance(theirs, LocalFileSystem):
        theirs.makedirs(theirs._parent(there), exist_ok=True)
        theirs.put(*paths)
    elif missing:
        for folder in {theirs._parent(path) for path in paths[1]}:
            theirs.makedirs(folder, exist_ok=True)
        ours.get(*paths)
    already = f", {len(found)} of {len(wanted)} files were there already" if found else ""
    return f"{target}: {sum(wanted.values()):,} bytes{already}"


if len(sys.argv) != 3:
    sys.exit("usage: transfer.py FROM TO")
try:
    print(without_secrets(transfer(*sys.argv[1:])), file=sys.stderr)  # noqa: T201
except Exception as error:  # noqa: BLE001  each library of a storage has its own
    sys.exit(without_secrets(f"error: {error}"))
