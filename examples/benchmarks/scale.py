"""How a pass scales: rows, columns, neurons, workers; and where its time and memory go.

    python examples/benchmarks/scale.py             # the tables: some minutes of two cores
    python examples/benchmarks/scale.py --full      # also 10^8 rows, and more fits
    python examples/benchmarks/scale.py --quick     # a check that it works
    python examples/benchmarks/scale.py --json scale.json

Rows are generated block by block in the tasks, and never held, or read from a Zarr store in a
temporary folder (of about 1 GiB: TMPDIR says where). What is compared runs in turns, and the least
time of several counts. Clusters are processes on loopback with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import zarr
from distributed import Client, LocalCluster

from altrelu_dist import AltReLURegressor, open_dataset, plan
from altrelu_dist.engine import TILE, DaskEngine, LocalEngine
from altrelu_dist.moments import LossAndGradient, PatternMoments, Rows, Scaler, Weights
from altrelu_dist.threads import n_threads, one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
BLOCK_BYTES = 16 * MIB  # what one task reads where the package chooses
LARGE_BLOCK_BYTES = 64 * MIB

Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    passes: tuple[tuple[int, int, int, int], ...]  # rows, features, neurons, workers
    store_bytes: int
    streamed: tuple[int, ...]  # neurons
    kept_bytes: int
    gram_rows: int
    fits: tuple[tuple[int, int, int], ...]  # rows, features, neurons
    repeats: int


QUICK = Sizes(
    passes=((20_000, 8, 8, 1), (100_000, 8, 8, 1)),
    store_bytes=16 * MIB,
    streamed=(4,),
    kept_bytes=16 * MIB,
    gram_rows=1 << 16,
    fits=((2_000, 4, 4),),
    repeats=2,
)
DEFAULT = Sizes(
    passes=(
        *((10**5, 16, 16, 1), (10**6, 16, 16, 1), (10**7, 16, 16, 1), (10**7, 16, 16, 2)),
        *((10**6, 64, 16, 1), (10**6, 64, 16, 2), (10**6, 16, 64, 1), (10**6, 16, 64, 2)),
    ),
    store_bytes=1024 * MIB,
    streamed=(4, 16, 64),
    kept_bytes=256 * MIB,
    gram_rows=1 << 20,
    fits=((10_000, 8, 8), (30_000, 16, 16), (100_000, 8, 8)),
    repeats=4,
)
FULL = Sizes(
    passes=(*DEFAULT.passes, (10**8, 16, 16, 1), (10**8, 16, 16, 2)),
    store_bytes=DEFAULT.store_bytes,
    streamed=DEFAULT.streamed,
    kept_bytes=DEFAULT.kept_bytes,
    gram_rows=DEFAULT.gram_rows,
    fits=(
        *DEFAULT.fits,
        *((5_000, 4, 32), (1_000, 8, 64), (5_000, 60, 16), (20_000, 4, 32), (20_000, 30, 32)),
        *((300_000, 8, 16), (1_000_000, 8, 8)),
    ),
    repeats=DEFAULT.repeats,
)


@dataclass(frozen=True)
class Prepared:
    """A statistic of raw rows, which it standardises."""

    scaler: Scaler
    statistic: Callable[[Any], Any]

    def __call__(self, rows: Rows) -> Any:
        return self.statistic(self.scaler(rows))


def unit_scaler(d: int) -> Scaler:
    """The rows here have mean zero and variance one already; that does not make it cheaper."""
    return Scaler(np.dtype(np.float32), np.zeros(d), np.ones(d), np.zeros(1), 1.0, 1.0)


def statistics(d: int, h: int) -> dict[str, Callable[[Any], Any]]:
    rng = np.random.default_rng([d, h])
    W = rng.standard_normal((d + 1, h))
    network = Weights(W, rng.standard_normal((h, 1)), np.zeros(1))
    return {"loss and gradient": LossAndGradient(network), "Gram": PatternMoments(W)}


def random_block(block_id: tuple[int, int], rows: tuple[int, ...], columns: int) -> np.ndarray:
    """Normal numbers that depend on the block's number alone."""
    rng = np.random.default_rng([block_id[0], columns])
    return rng.standard_normal((rows[block_id[0]], columns), dtype=np.float32)


def generated(n: int, d: int, block_bytes: int = BLOCK_BYTES) -> tuple[da.Array, da.Array]:
    """Rows that every task makes itself."""
    each = TILE
    while 2 * each * 4 * d <= block_bytes:  # as `altrelu convert` cuts rows
        each *= 2
    rows = tuple(min(each, n - at) for at in range(0, n, each))
    X, y = (
        da.map_blocks(
            random_block,
            rows=rows,
            columns=columns,
            chunks=(rows, (columns,)),
            dtype=np.float32,
            meta=np.empty((0, 0), np.float32),
        )
        for columns in (d, 1)
    )
    return X, y


@contextmanager
def processes(workers: int) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(imported)
        yield client


def imported() -> None:
    """Import in a worker what its first task would: that is no pass's time."""
    with one_blas_thread():
        np.ones((2, 2)) @ np.ones((2, 2))


def peak_memory() -> int:
    """Most bytes that this process has held in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, not that of the parent before it started this one
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tasks_run(dask_scheduler: Any) -> int:
    """Tasks that this scheduler has seen to their end."""
    return sum(prefix.state_counts["memory"] for prefix in dask_scheduler.task_prefixes.values())


def seconds_of(task: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def in_turns(
    tasks: dict[str, Callable[[], Any]],
    repeats: int,
    before: Callable[[], Any] | None = None,
) -> dict[str, float]:
    """Least seconds of each task; ``before`` is called, off the clock, before every run."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            if before is not None:
                before()
            found[name].append(seconds_of(task))
    return {name: min(seconds) for name, seconds in found.items()}


def table(title: str, rows: list[Row], results: Row) -> None:
    results[title] = rows
    print(f"\n### {title}\n\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(shown, row.values())) + " |")
    print(f"\nLoad average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.", flush=True)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


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
            "plan's for the most rows, MiB": planned.cluster.worker_memory / MIB,
        }
        for row in same
    ]
    table("A worker's peak memory (target: independent of the rows)", rows, results)


class Store:
    """X and y in uncompressed Zarr chunks, or compressed ones."""

    def __init__(self, address: Path, nbytes: int, d: int, *, compressed: bool = False) -> None:
        self.address = address
        self.chunk = min(BLOCK_BYTES, nbytes // 4) // (4 * d)
        self.rows = nbytes // (4 * d) // self.chunk * self.chunk
        group = zarr.create_group(str(address))
        self.arrays = [
            group.create_array(
                name,
                shape=(self.rows, columns),
                chunks=(self.chunk, columns),
                dtype="float32",
                compressors=zarr.codecs.ZstdCodec(level=1) if compressed else None,
            )
            for name, columns in (("X", d), ("y", 1))
        ]
        rng = np.random.default_rng(0)
        for at in range(0, self.rows, self.chunk):
            for array in self.arrays:
                values = rng.standard_normal((self.chunk, array.shape[1]), dtype=np.float32)
                array[at : at + self.chunk] = np.round(values * 16) / 16  # as data that compress

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def engine(self, client: Client | None = None) -> DaskEngine:
        data = open_dataset(self.address)
        engine = DaskEngine(data.X, data.y, client=client)
        return engine.prepared(unit_scaler(data.X.shape[1]))

    def read(self, threads: int) -> None:
        """All bytes, by Zarr alone."""

        def block(at: int) -> None:
            for array in self.arrays:
                array[at : at + self.chunk]

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(block, range(0, self.rows, self.chunk)))

    def forget(self) -> None:
        """Take the files out of the system's cache, where that can be asked for."""
        os.sync()
        for path in self.address.rglob("*"):
            if path.is_file() and hasattr(os, "posix_fadvise"):
                file = os.open(path, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def product_rate() -> float:
    """Multiply-adds a second of one thread."""
    a = np.ones((512, 512), dtype=np.float32)
    with one_blas_thread():
        return 512**3 / min(seconds_of(lambda: a @ a) for _ in range(5))


def measure_streaming(sizes: Sizes, folder: Path, two: Client) -> list[Row]:
    d = 64
    store = Store(folder / "plain.zarr", sizes.store_bytes, d)
    threads = max(2, n_threads())
    rate = product_rate()
    rows = []
    here, there = store.engine(), store.engine(two)
    for where in ("disk", "memory"):
        tasks: dict[str, Callable[[], Any]] = {
            "zarr": lambda: store.read(1),
            "zarr, threads": lambda: store.read(threads),
        }
        for h in sizes.streamed:
            loss = statistics(d, h)["loss and gradient"]
            tasks[f"threads {h}"] = lambda s=loss: here.reduce(s, "loss")
            tasks[f"processes {h}"] = lambda s=loss: there.reduce(s, "loss")
        forget = store.forget if where == "disk" else None
        found = in_turns(tasks, min(2, sizes.repeats), forget)
        fastest = min(found["zarr"], found["zarr, threads"])
        for h in sizes.streamed:
            work = 2 * store.rows * h * (d + 1) / rate / threads
            rows.append(
                {
                    "bytes from": where,
                    "MiB": store.nbytes / MIB,
                    "neurons": h,
                    "zarr alone, s": found["zarr"],
                    f"zarr, {threads} threads, s": found["zarr, threads"],
                    f"pass, {threads} threads, s": found[f"threads {h}"],
                    "pass, 2 processes, s": found[f"processes {h}"],
                    "2 n h p at GEMM's speed, of the read": work / fastest,
                    "pass / zarr": min(found[f"threads {h}"], found[f"processes {h}"])
                    / found["zarr"],
                    "pass / zarr with threads": min(found[f"threads {h}"], found[f"processes {h}"])
                    / found["zarr, threads"],
                }
            )
    return rows


def measure_parts(sizes: Sizes, folder: Path, client: Client) -> list[Row]:
    """Seconds of one thread by part: what reads and computes is timed alone, Dask has the rest."""
    d, h = 16, 16
    nbytes = min(sizes.store_bytes, 128 * MIB)
    plain = Store(folder / "parts.zarr", nbytes, d)
    packed = Store(folder / "packed.zarr", nbytes, d, compressed=True)
    X, y = (np.asarray(array[: min(16 * TILE, plain.rows)]) for array in plain.arrays)
    raw = [
        Rows(at, X[at : at + TILE], y[at : at + TILE]) for at in range(0, len(X) - TILE + 1, TILE)
    ]
    tiles = plain.rows / TILE
    scaler = unit_scaler(d)
    blocks = [scaler(tile) for tile in raw]
    rows = []
    engine = packed.engine(client)
    for name, statistic in statistics(d, h).items():
        one = statistic(blocks[0])
        with one_blas_thread():
            found = in_turns(
                {
                    "read": lambda: plain.read(1),
                    "unpack": lambda: packed.read(1),
                    "prepare": lambda: [scaler(tile) for tile in raw],
                    "compute": lambda s=statistic: [s(block) for block in blocks],
                    "merge": lambda c=one: [c.merge(c) for _ in range(16)],
                    "pass": lambda s=statistic: engine.reduce(s, "pass"),
                },
                sizes.repeats,
            )
        parts = {
            "read": found["read"],
            "decompress": found["unpack"] - found["read"],
            "standardise": found["prepare"] * tiles / len(raw),
            "compute": found["compute"] * tiles / len(raw),
            "reduce": found["merge"] * tiles / 16,
        }
        rest = found["pass"] - sum(parts.values())
        rows.append(
            {"pass": name, "rows": plain.rows, "seconds": found["pass"], **parts, "Dask": rest}
        )
    return rows


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


def measure_plans(sizes: Sizes, folder: Path) -> list[Row]:
    """What `plan` says before a fit, and what the fit then takes, in threads of this process."""
    rows = []
    for n, d, h in sizes.fits:
        rng = np.random.default_rng([n, d, h])
        X = rng.standard_normal((n, d), dtype=np.float32)
        y = np.abs(X[:, :1]) - X[:, 1:2] * X[:, 2:3] + np.sin(3 * X[:, 3:4])
        y += 0.1 * rng.standard_normal((n, 1), dtype=np.float32)
        path = folder / f"fit-{n}-{d}-{h}.zarr"
        group = zarr.create_group(str(path))
        for name, values in (("X", X), ("y", y)):
            group.create_array(name, data=values, chunks=(8192, values.shape[1]))
        expected = plan(path, h).seconds
        data = open_dataset(path)
        taken = seconds_of(lambda h=h, s=data: AltReLURegressor(h, random_state=0).fit(s.X, s.y))
        rows.append(
            {
                "rows": n,
                "features": d,
                "neurons": h,
                "plan, s": expected.typical,
                "from, s": expected.least,
                "to, s": expected.most,
                "fit, s": taken,
                "plan / fit": expected.typical / taken,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, some seconds")
    size.add_argument("--full", action="store_true", help="also 10^8 rows, and more fits")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL if options.full else DEFAULT
    results: Row = {"load before": os.getloadavg()[0]}
    print(f"Load average before: {results['load before']:.1f}", end="")
    print("; above 1, other processes make ratios doubtful" * (results["load before"] > 1))
    with tempfile.TemporaryDirectory(prefix="altrelu-scale-") as name:
        folder = Path(name)
        with processes(1) as one, processes(2) as two:
            streamed = measure_streaming(sizes, folder, two)
            table("Streaming an uncompressed Zarr (target: 1.20)", streamed, results)
            parts = measure_parts(sizes, folder, one)
            table("Where the time of a pass goes, seconds, one worker", parts, results)
            gained = measure_workers(sizes, one, two)
            table("Two workers against one (target: 1.85)", gained, results)
        table("Dask's cost (target: 1.10)", measure_dask(sizes), results)
        passes = measure_passes(sizes)
        table("Passes over rows that are generated", passes, results)
        memory_ratios(passes, results)
        table("The plan and the fit", measure_plans(sizes, folder), results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
