"""2. A Zarr set on disk, trained out of core by worker processes on this machine.

    python examples/02_out_of_core.py made-up.zarr --rows 2000000

The set is made block by block and read block by block: no process ever holds all rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from dask.distributed import Client, LocalCluster

from altrelu_dist import AltReLURegressor

FEATURES, BLOCK = 12, 1 << 16


def make(path: Path, rows: int) -> None:
    """Write arrays X (rows, 12) and y (rows,), one block of rows at a time."""
    group = zarr.open_group(path, mode="w-")
    X = group.create_array("X", shape=(rows, FEATURES), chunks=(BLOCK, FEATURES), dtype="float32")
    y = group.create_array("y", shape=(rows,), chunks=(BLOCK,), dtype="float32")
    for block, start in enumerate(range(0, rows, BLOCK)):
        random = np.random.default_rng(block)
        x = random.normal(size=(min(BLOCK, rows - start), FEATURES))
        noise = 0.1 * random.normal(size=len(x))
        X[start : start + len(x)] = x
        y[start : start + len(x)] = (
            np.abs(x[:, 0] - x[:, 1]) + np.sin(2 * x[:, 2]) * x[:, 3] + noise
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="the Zarr set; made where it is not there yet")
    parser.add_argument("--rows", type=int, default=2_000_000)
    options = parser.parse_args()
    if not options.store.exists():
        make(options.store, options.rows)

    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        memory_limit="1GiB",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )
    with cluster, Client(cluster):  # the estimator finds the client by itself
        X = da.from_zarr(options.store / "X")
        y = da.from_zarr(options.store / "y")
        model = AltReLURegressor(n_hidden=16, random_state=0).fit(X, y)
        loss = model.history_[-1]["loss"]
        print(f"{len(X)} rows, {model.n_passes_} passes over them, loss {loss:.4f}")
        print(f"R2 {model.score(X, y):.4f}")


if __name__ == "__main__":  # worker processes import this file
    main()
