"""What a pass over thousands of tiny blocks costs Dask's scheduler, with hundreds of workers.

    python examples/benchmarks/scheduler.py             # the tables: three minutes at most
    python examples/benchmarks/scheduler.py --quick     # a check that it works
    python examples/benchmarks/scheduler.py --json scheduler.json

The scheduler has a process of its own, so that its seconds (of CPU) are nobody else's. All workers
live in the process that measures: real ones, with one thread each, or stubs that answer at once
and compute nothing, with which the scheduler is what the pass waits for. Blocks are of 4096 rows
with two features. Messages and bytes are those of the scheduler with its workers; `batches` are
the writes and reads in which they travel, and the graph comes from the client. On a machine that
is busy with other things the sizes for which three minutes are not enough are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import dask
import numpy as np
from distributed import wait
from scale_clock import Row, table
from scale_rows import statistics, unit_scaler
from scheduler_process import Cluster, collect, random_tile

from altrelu_dist import engine
from altrelu_dist.planning import model

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20
D, H = 2, 2
BEST_OF = {"1 KiB": KIB, "1 MiB": MIB, "16 MiB": 16 * MIB}  # sizes of sums


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    stubs: tuple[tuple[int, tuple[int, ...]], ...]  # workers, blocks
    real: tuple[tuple[int, tuple[int, ...]], ...]
    fan_ins: tuple[int, ...]
    fan_in_stubs: tuple[int, int]  # workers, blocks
    fan_in_real: tuple[int, int]
    chain: int  # tasks of which each waits for the one before
    until: tuple[int, int, int] = (75, 100, 120)  # seconds at which stubs, real, fan-ins end


QUICK = Sizes(
    stubs=((1, (20,)), (10, (20, 200))),
    real=((1, (20,)), (4, (20, 100))),
    fan_ins=(2, 8, 32),
    fan_in_stubs=(10, 200),
    fan_in_real=(2, 40),
    chain=20,
)
DEFAULT = Sizes(
    # One worker alone is the slowest: two tasks at most are on their way to it at once.
    stubs=tuple((workers, (100, 1000, 10_000)) for workers in (10, 100, 300, 1)),
    real=((1, (100, 1000)), (10, (100, 1000)), (100, (100, 1000))),
    fan_ins=(2, 4, 8, 16, 32),
    fan_in_stubs=(100, 1000),
    fan_in_real=(10, 200),
    chain=100,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, some seconds")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    sizes = QUICK if options.quick else DEFAULT
    results: dict[str, Any] = {"load before": os.getloadavg()[0]}
    begun = time.perf_counter()
    with Cluster() as cluster:
        ends = [begun + seconds for seconds in sizes.until]
        stubs = measure_passes(cluster, sizes.stubs, ends[0], real=False)
        table("Passes on stub workers", stubs, results)
        real = measure_passes(cluster, sizes.real, ends[1], real=True)
        table("Passes on real workers", real, results)
        fan_ins = measure_fan_ins(cluster, sizes, ends[2])
        table("By the merge's fan-in", fan_ins, results)
        chain = seconds_of_a_link(cluster, sizes.chain)
    table("Fan-in at which a pass is planned to be shortest", best_fan_ins(fan_ins), results)
    table("What planning assumes", constants(stubs, real, chain), results)
    results["a task, by worker"] = by_workers(stubs)
    results["seconds"] = time.perf_counter() - begun
    print(f"\n{results['seconds']:.0f} s in all.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def rows_in(cluster: Cluster, blocks: int) -> engine.DaskEngine:
    """Rows that the tasks make, in so many blocks of one tile."""
    import dask.array as da

    X, y = (
        da.map_blocks(
            random_tile,
            columns=columns,
            chunks=((engine.TILE,) * blocks, (columns,)),
            dtype=np.float32,
            meta=np.empty((0, 0), np.float32),
        )
        for columns in (D, 1)
    )
    return engine.DaskEngine(X, y, client=cluster.client).prepared(unit_scaler(D))


def measure_passes(
    cluster: Cluster, sizes: tuple[tuple[int, tuple[int, ...]], ...], ends: float, *, real: bool
) -> list[Row]:
    """Passes by workers and blocks, as long as the next one would end in time."""
    rows: list[Row] = []
    for workers, counts in sizes:
        with cluster.workers(workers, real=real):
            idle = idle_rate(cluster)
            # The first pass of any imports what it needs, on both sides.
            one_pass(cluster, rows_in(cluster, workers), real=real)
            a_block = 0.0
            for blocks in counts:
                if a_block and time.perf_counter() + blocks * a_block > ends:
                    kind = "real workers" if real else "stubs"
                    print(f"Left out, for lack of time: {blocks} blocks on {workers} {kind}.")
                    continue
                found = one_pass(cluster, rows_in(cluster, blocks), real=real)
                a_block = found["pass"] / blocks
                row = {"workers": workers, "blocks": blocks, **shown_of(found)}
                rows.append({**row, "idle scheduler, ms a second": 1e3 * idle})
    return sorted(rows, key=lambda row: row["workers"])


def idle_rate(cluster: Cluster) -> float:
    """CPU seconds that the scheduler takes in a second without a task."""
    before = cluster.snapshot()
    time.sleep(1)
    after = cluster.snapshot()
    return (after["seconds"] - before["seconds"]) / (after["clock"] - before["clock"])


def one_pass(cluster: Cluster, rows: engine.DaskEngine, *, real: bool) -> Row:
    """Make a pass; what it took, and what the scheduler did until it had forgotten it."""
    statistic = statistics(D, H)["loss and gradient"]
    cluster.client.run_on_scheduler(collect)
    before, begun = cluster.snapshot(), time.perf_counter()
    cpu, graph = time.process_time(), time.thread_time()
    # As `DaskEngine.reduce` makes it, but that a stub has no result to fetch.
    task = rows._pass(statistic, "pass")
    with dask.annotate(**rows._span):
        future = cluster.client.compute(task)
    graph = time.thread_time() - graph
    wait(future)
    if real:
        future.result()
    seconds = time.perf_counter() - begun
    cpu = time.process_time() - cpu - graph
    future.release()
    after = cluster.settled()
    found = {name: after[name] - before[name] for name in after}
    return {**found, "graph": graph, "pass": seconds, "others": cpu, "blocks": rows.blocks[0]}


def shown_of(found: Row) -> Row:
    tasks = int(found["tasks"])
    return {
        "tasks": tasks,
        "scheduler, s": found["seconds"],
        "scheduler, ms a task": 1e3 * found["seconds"] / tasks,
        "messages out": found["workers out messages"],
        "in": found["workers in messages"],
        "batches out": found["workers out writes"],
        "batches in": found["workers in writes"],
        "KiB out a task": found["workers out bytes"] / KIB / tasks,
        "KiB in a task": found["workers in bytes"] / KIB / tasks,
        "graph, KiB a block": found["client in bytes"] / KIB / found["blocks"],
        "graph, client's ms a block": 1e3 * found["graph"] / found["blocks"],
        "workers, ms a task": 1e3 * found["others"] / tasks,
        "pass, s": found["pass"],
    }


@contextmanager
def fan_in_of(count: int) -> Iterator[None]:
    with mock.patch.object(engine, "FAN_IN", count):
        yield


def measure_fan_ins(cluster: Cluster, sizes: Sizes, ends: float) -> list[Row]:
    """The same blocks, merged by so many at a time; the least of two, taken in turns."""
    found: dict[int, Row] = {}
    for real, (workers, blocks) in ((False, sizes.fan_in_stubs), (True, sizes.fan_in_real)):
        with cluster.workers(workers, real=real):
            rows = rows_in(cluster, blocks)
            one_pass(cluster, rows_in(cluster, workers), real=real)
            for turn, count in enumerate(sizes.fan_ins * 2):
                if turn >= len(sizes.fan_ins) and time.perf_counter() > ends:
                    break
                with fan_in_of(count):
                    one = one_pass(cluster, rows, real=real)
                noted = found.setdefault(count, {"fan-in": count})
                kind = f"{workers} real" if real else f"{workers} stubs"
                noted[f"blocks, {kind}"] = blocks
                noted[f"tasks, {kind}"] = int(one["tasks"])
                noted[f"messages, {kind}"] = (
                    one["workers out messages"] + one["workers in messages"]
                )
                noted[f"MiB, {kind}"] = (one["workers out bytes"] + one["workers in bytes"]) / MIB
                for name, key in (("scheduler, s", "seconds"), ("pass, s", "pass")):
                    title = f"{name}, {kind}"
                    noted[title] = min(one[key], noted.get(title, math.inf))
    return list(found.values())


def best_fan_ins(measured: list[Row]) -> list[Row]:
    """By the scheduler's seconds, as measured, and the tree's, as planned, for sums of a size."""
    scheduler = next(
        name for name in measured[0] if name.startswith("scheduler") and "stub" in name
    )
    blocks = measured[0][next(name for name in measured[0] if "stubs" in name)]
    rows: list[Row] = []
    for row in measured:
        count = row["fan-in"]
        depth = max(1, math.ceil(math.log(max(2, blocks), count)))
        shown = {"fan-in": count, "levels": depth, "scheduler, s": row[scheduler]}
        for name, size in BEST_OF.items():
            # As in planning: two copies of a sum at the speed of this machine's memory are
            # nothing beside the network.
            tree = depth * (model._TASK + model._HOP + count * size / model._NETWORK)
            shown[f"and tree of {name}, s"] = row[scheduler] + tree
            shown[f"held for {name}, MiB"] = count * size / MIB
        rows.append(shown)
    titles = ["scheduler, s", *(f"and tree of {name}, s" for name in BEST_OF)]
    for title in titles:
        best = min(rows, key=lambda row: row[title])
        print(f"Best fan-in by '{title}': {best['fan-in']}.")
    return rows


def seconds_of_a_link(cluster: Cluster, tasks: int) -> float:
    """From the end of a task to the end of one that waits for it, on another worker or not."""
    with cluster.workers(2, real=True):
        last = dask.delayed(int)(0)
        for _ in range(tasks):
            last = dask.delayed(int, pure=False)(last)
        begun = time.perf_counter()
        cluster.client.compute(last).result()
        return (time.perf_counter() - begun) / tasks


def constants(stubs: list[Row], real: list[Row], chain: float) -> list[Row]:
    """What `altrelu_dist.planning` counts with, and what was found."""

    def least_and_most(rows: list[Row], name: str) -> tuple[float, float]:
        # The fewest blocks are mostly what comes and goes whatever the tasks.
        most = max(row["blocks"] for row in rows)
        found = [row[name] for row in rows if row["blocks"] == most]
        return min(found), max(found)

    figures = {
        "scheduler, a task (stubs)": (model._SCHEDULER, *least_and_most(stubs, _TASKS)),
        "scheduler, a task (real workers)": (model._SCHEDULER, *least_and_most(real, _TASKS)),
        "graph, a block": (model._GRAPH, *least_and_most(stubs, "graph, client's ms a block")),
        "worker, a task": (model._TASK, *least_and_most(real, "workers, ms a task")),
        "from task to task": (model._HOP + model._TASK, 1e3 * chain, 1e3 * chain),
    }
    return [
        {
            "what": what,
            "planned, ms": 1e3 * planned,
            "found, ms": least,
            "to, ms": most,
            "planned / found": 1e3 * planned / math.sqrt(least * most),
        }
        for what, (planned, least, most) in figures.items()
    ]


def by_workers(stubs: list[Row]) -> Row | None:
    """What one worker more adds to each task, if there are passes that tell."""
    # A worker alone is sent so little at once that each task costs more.
    rows = [row for row in stubs if row["workers"] > 1]
    few, many = rows[0]["workers"], rows[-1]["workers"]
    both = {row["blocks"] for row in rows if row["workers"] == few}
    both &= {row["blocks"] for row in rows if row["workers"] == many}
    if few == many or not both:
        return None
    first, last = (
        next(row for row in rows if (row["workers"], row["blocks"]) == (workers, max(both)))
        for workers in (few, many)
    )
    found = {
        "blocks": max(both),
        "seconds": (last[_TASKS] - first[_TASKS]) / 1e3 / (many - few),
        "bytes": (last["KiB out a task"] - first["KiB out a task"]) * KIB / (many - few),
    }
    print(
        f"\nFrom {few} workers to {many}, with {max(both)} blocks, each adds to a task "
        f"{1e6 * found['seconds']:.2f} us of the scheduler and {found['bytes']:.1f} bytes out: "
        f"a task is told who holds the weights."
    )
    return found


_TASKS = "scheduler, ms a task"

if __name__ == "__main__":
    main()
