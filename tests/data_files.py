"""Tables of numbers as files of every format."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pyarrow as pa
import zarr
from pyarrow import feather

from altrelu_dist import convert, describe, open_dataset

ROWS = 50


def rows_of_numbers(rng):
    """Three features with names, and the number of the row as target."""
    X = np.round(rng.normal(size=(ROWS, 3)), 6)
    return pd.DataFrame(X, columns=list("abc")).assign(y=np.arange(float(ROWS)))


def compress(data, ending):
    return {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda plain: pa.compress(plain, codec="zstd", asbytes=True),
    }[ending](data)


def write(frame, path):
    """Write a table in the format that a name says."""
    name = path.name
    if name.endswith((".feather", ".arrow", ".ipc")):
        feather.write_feather(frame, str(path), chunksize=7)
    elif name.endswith(".parquet"):
        frame.to_parquet(path, index=False, row_group_size=7)
    elif name.endswith(".npz"):
        np.savez_compressed(path, X=frame[[*"abc"]].to_numpy(), y=frame["y"].to_numpy())
    elif name.endswith(".zarr"):
        group = zarr.open_group(path, mode="w")
        group.create_array("X", data=frame[[*"abc"]].to_numpy(), chunks=(7, 3))
        group.create_array("y", data=frame["y"].to_numpy(), chunks=(7,))
    else:
        plain, dot, ending = name.partition(".")[2].partition(".")
        if plain in ("jsonl", "ndjson"):
            text = frame.to_json(orient="records", lines=True, double_precision=15)
        else:
            text = frame.to_csv(index=False, sep="\t" if plain == "tsv" else ",")
        path.write_bytes(compress(text.encode(), dot + ending))
    return path


def assert_reads(address, frame, tmp_path, features=("a", "b", "c")):
    """Opened, described and converted, the rows are those of the frame."""
    named = {} if ".npz" in str(address) or ".zarr" in str(address) else {"target": "y"}
    data = open_dataset(address, **named)
    expected = frame[[*features]].to_numpy(float)
    np.testing.assert_array_equal(data.X.compute(scheduler="sync"), expected)
    np.testing.assert_array_equal(data.y[:, 0].compute(scheduler="sync"), frame["y"])
    np.testing.assert_array_equal(data.X[9:23].compute(scheduler="sync"), expected[9:23])
    if named:
        assert data.feature_names == tuple(features)
    assert describe(address, **named).rows == len(frame)
    convert(address, tmp_path / "out.zarr", overwrite=True, **named)
    np.testing.assert_array_equal(open_dataset(tmp_path / "out.zarr").X.compute(), expected)
