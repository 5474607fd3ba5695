"""Passes over rows in memory or made by the tasks: more rows, more workers, and no Dask."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
from distributed import Client
from scale_clock import Row, in_turns, peak_memory, processes, seconds_of, table, tasks_run
from scale_rows import Prepared, generated, statistics, unit_scaler
from scale_sizes import BLOCK_BYTES, LARGE_BLOCK_BYTES, MIB, Sizes

from altrelu_dist import plan
from altrelu_dist.engine import DaskEngine, LocalEngine
from altrelu_dist.moments import Rows
from altrelu_dist.threads import n_threads


def measure_passes(sizes: Sizes) -> list[Row]:
    """Every size on fresh workers, so that a worker's peak is of that size."""
    rows = []
    for n, d, h, workers in sizes.passes:
        X, y = generated(n, d)
        blocks = X.numblocks[0]
        p = d + 1
        with processes(workers) as client:
            engine = DaskEngine(X, y, client=client).prepared(unit_scaler(d))
            for name, statistic in statistics(d, h).items():
                before = client.run_on_scheduler(tasks_run)
                seconds = seconds_of(lambda e=engine, s=statistic: e.reduce(s, "pass"))
                tasks = client.run_on_scheduler(tasks_run) - before
                peak = max(client.run(peak_memory).values())
                rows.append(
                    {
                        "rows": n,
                        "features": d,
                        "neurons": h,
                        "workers": workers,
                        "pass": name,
                        "seconds": seconds,
                        "10^6 rows a second": n / seconds / 1e6,
                        "MiB through": n * p * 4 / MIB,
                        "tasks a block": tasks / blocks,
                        "peak of a worker, MiB": peak / MIB,
                    }
                )
    return rows


def memory_ratios(passes: list[Row], results: Row) -> None:
    """A worker's peak over the rows, with everything else the same."""
    d, h = passes[0]["features"], passes[0]["neurons"]
    same = [
        row for row in passes if (row["features"], row["neurons"], row["pass"]) == (d, h, "Gram")
    ]
    planned = plan(
        rows=max(row["rows"] for row in same),
        features=d,
        targets=1,
        n_hidden=h,
        method="alternating",
        workers=1,
        threads=1,
    )
    assert planned.cluster is not None
    rows = [
        {
            "rows": row["rows"],
            "workers": row["workers"],
            "peak of a worker, MiB": row["peak of a worker, MiB"],
            "over that of the fewest rows": row["peak of a worker, MiB"]
            / same[0]["peak of a worker, MiB"],
            "plan's, with rows that are read, MiB": planned.cluster.worker_memory / MIB,
        }
        for row in same
    ]
    table("A worker's peak memory (target: independent of the rows)", rows, results)


def measure_dask(sizes: Sizes) -> list[Row]:
    """The same rows in memory, with Dask and without, in threads of this process."""
    d, h = 32, 8
    rows_a_block = min(LARGE_BLOCK_BYTES, sizes.kept_bytes // 4) // (4 * d)
    n = sizes.kept_bytes // (4 * d)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    y = rng.standard_normal((n, 1), dtype=np.float32)
    chunks = (rows_a_block, -1)
    local = LocalEngine.of(Rows(0, X, y))
    on = DaskEngine(
        da.from_array(X, chunks=chunks, name=False), da.from_array(y, chunks=chunks, name=False)
    )
    threads = n_threads()
    rows = []
    for name, statistic in statistics(d, h).items():
        whole = Prepared(unit_scaler(d), statistic)
        with dask.config.set(scheduler="threads", num_workers=threads):
            found = in_turns(
                {
                    "local": lambda s=whole: local.reduce(s, "pass"),
                    "dask": lambda s=whole: on.reduce(s, "pass"),
                },
                sizes.repeats,
            )
        rows.append(
            {
                "pass": name,
                "MiB": n * d * 4 / MIB,
                "MiB a block": rows_a_block * d * 4 / MIB,
                "threads": threads,
                "without Dask, s": found["local"],
                "with Dask, s": found["dask"],
                "with / without": found["dask"] / found["local"],
            }
        )
    return rows


def measure_workers(sizes: Sizes, one: Client, two: Client) -> list[Row]:
    d, h = 15, 32
    X, y = generated(sizes.gram_rows, d, min(BLOCK_BYTES, sizes.gram_rows * d * 4 // 32))
    gram = statistics(d, h)["Gram"]
    engines = {
        name: DaskEngine(X, y, client=client).prepared(unit_scaler(d))
        for name, client in (("one", one), ("two", two))
    }
    found = in_turns(
        {name: lambda e=engine: e.reduce(gram, "gram") for name, engine in engines.items()},
        sizes.repeats,
    )
    return [
        {
            "rows": sizes.gram_rows,
            "features": d,
            "neurons": h,
            "one worker, s": found["one"],
            "two workers, s": found["two"],
            "one / two": found["one"] / found["two"],
        }
    ]
