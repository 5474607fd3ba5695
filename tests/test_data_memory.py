"""Memory is a few blocks, however many rows there are."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from altrelu_dist.data import convert, describe

ROWS, COLUMNS, MIB = 200_000, 20, 1 << 20  # 31 MiB of features
FORMATS = ("a.npz", "packed.npz", "X.npy", "a.parquet", "a.csv", "a.csv.gz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same rows in every format."""
    folder = tmp_path_factory.mktemp("rows")
    X = np.repeat(np.arange(ROWS, dtype="f8")[:, np.newaxis] % 7, COLUMNS, axis=1)
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", X[:, 0])
    np.savez(folder / "a.npz", X=X, y=X[:, 0])
    np.savez_compressed(folder / "packed.npz", X=X, y=X[:, 0])
    table = pa.table({f"c{i}": X[:, i] for i in range(COLUMNS)} | {"y": X[:, 0]})
    pa.parquet.write_table(table, folder / "a.parquet", row_group_size=ROWS)
    row = ",".join(["{0}"] * (COLUMNS + 1)) + "\n"
    lines = ",".join(table.column_names) + "\n" + "".join(row.format(i % 7) for i in range(ROWS))
    (folder / "a.csv").write_text(lines)
    (folder / "a.csv.gz").write_bytes(gzip.compress(lines.encode(), 1))
    return folder


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of half a MiB, so that a MiB too many is seen."""
    for module in ("lines", "parquet_files", "numpy_files", "zarr_store", "conversion"):
        monkeypatch.setattr(f"altrelu_dist.data.{module}.READ_BYTES", MIB // 2)


@contextmanager
def peak_below(limit):
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.1f} MiB"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", FORMATS)
def test_converting_holds_a_few_blocks(name, folder, tmp_path):
    target = "y" if "csv" in name or "parquet" in name else None
    before, in_arrow = pa.total_allocated_bytes(), []

    def progress(*_):
        in_arrow.append(pa.total_allocated_bytes() - before)

    with peak_below(12 * MIB):  # the store's own chunk, of 4096 rows, is 0.6 MiB
        summary = convert(
            folder / name, tmp_path / "a.zarr", target=target, chunk_bytes=MIB, progress=progress
        )
    assert (summary.rows, summary.n_features) == (ROWS, COLUMNS)
    assert max(in_arrow) < 12 * MIB


@pytest.mark.usefixtures("small_blocks")
def test_describing_holds_a_few_blocks(folder, tmp_path):
    convert(folder / "a.npz", tmp_path / "a.zarr", chunk_bytes=MIB)
    describe(tmp_path / "a.zarr")  # else imports are measured
    for address in (tmp_path / "a.zarr", folder / "a.npz", folder / "X.npy"):
        with peak_below(12 * MIB), dask.config.set(num_workers=2):
            assert describe(address).rows == ROWS


MEASURE = """
import resource, sys
import dask, dask.array, pyarrow.csv, pyarrow.parquet, zarr
from altrelu_dist.data import convert, describe
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
dask.config.set(num_workers=2)
source, folder = sys.argv[1:]
convert(folder + "/small.npz", folder + "/small.zarr")
describe(folder + "/small.zarr")
before = peak()
convert(source, folder + "/big.zarr", target=source.endswith("parquet") and "y" or None)
describe(folder + "/big.zarr")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["big.npz", "big.parquet"])
def test_resident_memory_over_a_gigabyte_of_rows(name, tmp_path):
    X = np.zeros((6_000_000, 24))  # zeros so that it is quick
    np.savez(tmp_path / "small.npz", X=X[:100], y=X[:100, 0])
    if name == "big.npz":
        np.savez(tmp_path / name, X=X, y=X[:, 0])
    else:
        table = pa.table({f"c{i}": X[:, i] for i in range(X.shape[1])} | {"y": X[:, 0]})
        pa.parquet.write_table(table, tmp_path / name, row_group_size=3_000_000)
    del X
    command = [sys.executable, "-c", MEASURE, str(tmp_path / name), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250, "MiB more than for 100 rows"
