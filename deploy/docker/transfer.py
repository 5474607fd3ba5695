#!/usr/bin/env python
"""Copies a file or folder into storage that fsspec knows, or from there: transfer.py FROM TO."""

import sys

import fsspec

source, target = sys.argv[1:]
into = "://" in target
files, address = fsspec.core.url_to_fs(target if into else source)
if into:
    files.makedirs(files._parent(address), exist_ok=True)
    files.put(source, address, recursive=True)
else:
    files.get(address, target, recursive=True)
print(f"{target}: {files.du(address):,} bytes", file=sys.stderr)  # noqa: T201
