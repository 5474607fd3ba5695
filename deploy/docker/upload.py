"""Copies a file or folder to an address that fsspec knows: upload.py FROM s3://BUCKET/NAME."""

import sys

import fsspec

source, address = sys.argv[1:]
files, target = fsspec.core.url_to_fs(address)
files.makedirs(files._parent(target), exist_ok=True)
files.put(source, target, recursive=True)
print(f"{address}: {files.du(target):,} bytes")  # noqa: T201
