"""3. The same on a cluster that exists, by the address of its scheduler.

    dask scheduler                          # on one machine: prints its address
    dask worker tcp://10.0.0.1:8786         # on each of the others, this package installed
    python examples/03_cluster.py tcp://10.0.0.1:8786 /shared/made-up.zarr

The set (script 2 makes one) lies where every worker can read it: a shared disk. Workers read it
themselves; only weights and sums cross the network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dask.array as da
from dask.distributed import Client

from altrelu_dist import AltReLURegressor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scheduler", help="address of the scheduler, like tcp://10.0.0.1:8786")
    parser.add_argument(
        "store", type=Path, help="a Zarr set with arrays X and y that all workers can read"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("model.zarr"), help="where the network goes"
    )
    options = parser.parse_args()

    with Client(options.scheduler, timeout=10) as client:
        X = da.from_zarr(options.store.absolute() / "X")
        y = da.from_zarr(options.store.absolute() / "y")
        model = AltReLURegressor(n_hidden=16, random_state=0, client=client).fit(X, y)
        print(f"{len(X)} rows on {len(client.nthreads())} workers, R2 {model.score(X, y):.4f}")
    model.save(options.out)
    print(f"saved: altrelu predict {options.out} NEW.zarr --out predicted.parquet")


if __name__ == "__main__":
    main()
