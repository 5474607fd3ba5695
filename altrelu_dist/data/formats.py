"""The formats: their file endings, what opens each, and what to do about other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from altrelu_dist.data.arrow_files import ArrowSource
from altrelu_dist.data.csv_files import open_csv
from altrelu_dist.data.json_files import open_json
from altrelu_dist.data.lines import UNPACKERS
from altrelu_dist.data.numpy_files import NumpySource
from altrelu_dist.data.parquet_files import ParquetSource
from altrelu_dist.data.source import Source, Wanted, file_name
from altrelu_dist.data.zarr_store import STORE_MARKS, ZarrSource

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OPENERS", "READABLE", "TABLES", "format_of", "is_store", "last_name", "not_read"]

_LINES: dict[str, Callable[[str, Wanted], Source]] = {
    ".csv": open_csv,
    ".tsv": open_csv,
    ".jsonl": open_json,
    ".ndjson": open_json,
}
TABLES = {
    ".parquet": ParquetSource.open,
    ".pq": ParquetSource.open,
    ".feather": ArrowSource.open,
    ".arrow": ArrowSource.open,
    ".ipc": ArrowSource.open,
    **{f"{name}{packed}": open for name, open in _LINES.items() for packed in ("", *UNPACKERS)},
}
OPENERS: dict[str, Callable[[str, Wanted], Source]] = {
    ".zarr": ZarrSource.open,
    ".npz": NumpySource.open_npz,
    ".npy": NumpySource.open_npy,
    **TABLES,
}
READABLE = (
    f".zarr, .parquet, .feather, .npz, .npy, and .csv, .tsv and .jsonl, also as "
    f"{', '.join(UNPACKERS)}"
)
_INSTEAD = {
    (".zip",): "name the file in it, zip://NAME::{address}",
    (
        ".tar",
        ".tar.gz",
        ".tgz",
        ".tar.bz2",
        ".tar.xz",
    ): "name the file in it, tar://NAME::{address}",
    (".xlsx", ".xls", ".xlsb", ".ods"): "save the sheet as .csv",
    (".json",): "write one object a line, as .jsonl",
    (".txt", ".dat", ".data"): "name it .csv or .tsv if it is one",
    (".pkl", ".pickle", ".joblib", ".pt"): "a pickle may run code; write .parquet or .npz",
    (".nc", ".nc4", ".h5", ".hdf5"): "write .zarr, as xarray's to_zarr does, or .npz",
    tuple(UNPACKERS): "say in the name what is in it, as in NAME.csv.gz",
}


def last_name(path: str) -> str:
    """Give the last step of a path, of a file or a folder."""
    return path.rstrip("/").rpartition("/")[2]


def format_of(path: str) -> str:
    """Give the ending that tells the format of a file, empty if none."""
    name = file_name(path)
    return next((ending for ending in OPENERS if name.endswith(ending)), "")


def is_store(fs: Any, path: str) -> bool:
    """Whether it is a Zarr store, which may have any name."""
    if not fs.isdir(path):
        return False
    named = last_name(path).lower().endswith(".zarr")
    return named or any(fs.exists(f"{path}/{mark}") for mark in STORE_MARKS)


def not_read(address: str) -> str:
    """What to do about a file of a format that is not read."""
    name = file_name(address)
    cure = next((cure for endings, cure in _INSTEAD.items() if name.endswith(endings)), "")
    cure = cure.format(address=address)
    return f"{address}: not a format that can be read ({READABLE})" + (f": {cure}" if cure else "")
