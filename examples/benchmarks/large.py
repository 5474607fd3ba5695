"""How deep, how soon, on many rows: this package, Adam and XGBoost on the rows of a robot arm.

    python examples/benchmarks/large.py             # everything: a day; goes on where it stopped
    python examples/benchmarks/large.py --rows 1e6 --hidden 64 256 --seconds 15 60
    python examples/benchmarks/large.py --rows 2e7 --hidden 256 --seconds 300 \\
        --where workers-1 workers-2 --methods search adam
    python examples/benchmarks/large.py --quick     # a check that it works

Every method gets the same rows (`arm.py`), threads and seconds. Each time limit is a run of its own
that knows it; XGBoost has one run, of the longest. ``--where`` says where our rows are: in
``memory``; in a ``store`` that one thread streams from; in a store that ``workers-1`` or
``workers-2`` processes of one thread each stream from. Adam and XGBoost have theirs in memory. Adam
counts at its best rate and batch size, XGBoost at its best rate and depth. One thread is measured
in CPU seconds, so that other processes of the machine do not count; workers, and what is compared
with two of them, in seconds of the wall clock.

Networks on the way are kept, and their losses are computed after the run: over 262,144 rows of
those trained on, and over as many new ones. The floor is the mean square of the noise: a network
below it has fitted noise. Each run is a process of its own; its result is a line of the results
file (JSON), and a run that is in the file is not repeated. Table and pictures lie beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arm
import numpy as np
from cells import (
    Cell,
    Snapshots,
    append,
    count_cpu_seconds,
    duration,
    key,
    number,
    reached,
    read,
    spawn,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Predict = Callable[[np.ndarray], np.ndarray]

PLACES = ("memory", "store", "workers-1", "workers-2")
ADAM_RATES, ADAM_BATCHES = (3e-3, 1e-3, 1e-2), (1024, 512)
XGBOOST = ((0.3, 6), (0.1, 10))  # rates and depths
OTHERS = ("adam", "xgboost")
TITLES = {"adam": "Adam", "xgboost": "XGBoost"}
KEYS = ("method", "where", "threads", "rows", "hidden", "seconds", "setting", "seed")
PROBE, PARTS = 1 << 18, 16  # rows that losses are of, and parts of the data that they come from
MIB = 1 << 20


class Probe:
    """Rows that losses are computed on: some of those trained on, and new ones."""

    def __init__(self, rows: int, seed: int) -> None:
        self.new = arm.in_memory(PROBE, first=arm.NEW_ROWS, seed=seed)
        if rows <= PROBE:
            self.trained = arm.in_memory(rows, seed=seed)
            return
        numbers = np.linspace(0, rows // arm.BLOCK - 1, PARTS).round().astype(int)
        parts = [arm.block(int(i), PROBE // PARTS, seed) for i in numbers]
        X, y = zip(*parts, strict=True)
        self.trained = np.concatenate(X), np.concatenate(y)

    def losses(self, predict: Predict) -> tuple[float, float]:
        """Of the rows trained on, and of the new ones."""
        squares = []
        for X, y in (self.trained, self.new):
            parts = range(0, len(X), 8192)
            sums = [np.square(predict(X[i : i + 8192]) - y[i : i + 8192]).sum() for i in parts]
            squares.append(float(np.sum(sums, dtype=np.float64)) / len(X))
        return squares[0], squares[1]


def layers(W: np.ndarray, V: np.ndarray) -> Predict:
    """What a network of (p, h) hidden and (h + 1, q) output weights predicts, in float32."""
    W, V = W.astype(np.float32), V.astype(np.float32)
    return lambda X: np.maximum(X @ W[:-1] + W[-1], 0) @ V[:-1] + V[-1]


def run_cell(cell: Cell) -> Cell:
    """Train once, in this process, and compute the losses of what was found on the way."""
    run = {"adam": run_adam, "xgboost": run_xgboost}.get(cell["method"], run_ours)
    begun, work = time.monotonic(), time.process_time()
    found, details = run(cell)
    wall, cpu = time.monotonic() - begun, time.process_time() - work
    probe = Probe(cell["rows"], cell["seed"])
    trace = [(seconds, *probe.losses(predict)) for seconds, predict in found]
    trace = [point for point in trace if math.isfinite(point[1])]
    mse, new = trace[-1][1:] if trace else (math.inf, math.inf)
    return {"mse": mse, "new": new, "trace": trace, "wall": wall, "cpu": cpu} | details


def run_ours(cell: Cell) -> tuple[list[tuple[float, Predict]], Cell]:
    from altrelu_dist import AltReLURegressor, Network

    snapshots = Snapshots()
    with data(cell) as (X, y, client):
        model = AltReLURegressor(
            cell["hidden"],
            method=cell["method"],
            max_time=cell["seconds"],
            random_state=cell["seed"],
            client=client,
        )
        snapshots.start(model)
        model.fit(X, y)
        seconds = snapshots.seconds

    def predict(network: Network) -> Predict:
        W = np.vstack([network.hidden_weights, network.hidden_bias])
        return layers(W, np.vstack([network.output_weights, network.output_bias]))

    networks = [*snapshots.networks, (seconds, model.network_)]
    peaks = model.peak_memory_.workers
    details: Cell = {"reason": model.stop_reason_, "passes": model.n_passes_}
    details |= {"worker_mib": round(max(peaks.values()) / MIB) if peaks else None}
    return [(s, predict(network)) for s, network in networks], details


@contextlib.contextmanager
def data(cell: Cell) -> Iterator[tuple[Any, Any, Any]]:
    """X, y and the client, as the cell's place has it."""
    if cell["where"] == "memory":
        X, y = arm.in_memory(cell["rows"], seed=cell["seed"])
        yield X, y.ravel(), None
        return
    import dask
    import zarr

    group: Any = zarr.open_group(cell["store"], mode="r")
    if cell["where"] == "store":
        with dask.config.set(scheduler="threads", num_workers=cell["threads"]):
            yield group["X"], group["y"], None
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=cell["threads"],
            threads_per_worker=1,
            memory_limit=cell["memory"],
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(imports)  # what the first task would do is no method's time
        yield group["X"], group["y"], client


def imports() -> None:
    """Import what a worker's first task would."""
    import altrelu_dist.training  # noqa: F401


def run_adam(cell: Cell) -> tuple[list[tuple[float, Predict]], Cell]:
    import baselines
    import torch

    torch.set_num_threads(cell["threads"])
    X, y = arm.in_memory(cell["rows"], seed=cell["seed"])
    rate, batch = cell["setting"]
    found = baselines.adam_in_order(
        X, y, cell["hidden"], rate=rate, batch=batch, seconds=cell["seconds"], seed=cell["seed"]
    )
    return [(seconds, layers(W, V)) for seconds, W, V in found], {"reason": "time"}


def run_xgboost(cell: Cell) -> tuple[list[tuple[float, Predict]], Cell]:
    import xgboost

    X, y = arm.in_memory(cell["rows"], seed=cell["seed"])
    begun, due = time.perf_counter(), 0.0
    marks: list[tuple[float, int]] = []

    class Watch(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            del model, evals_log
            nonlocal due
            now = time.perf_counter() - begun
            if now >= due or now >= cell["seconds"]:
                marks.append((now, epoch + 1))
                due = now * 1.15
            return now >= cell["seconds"]

    rate, depth = cell["setting"]
    settings = {"tree_method": "hist", "eta": rate, "max_depth": depth, "nthread": cell["threads"]}
    model = xgboost.train(
        settings | {"seed": cell["seed"]},
        xgboost.QuantileDMatrix(X, y, nthread=cell["threads"]),
        num_boost_round=1_000_000,
        callbacks=[Watch()],
        verbose_eval=False,
    )

    def predict(trees: int) -> Predict:
        return lambda X: model.inplace_predict(X, iteration_range=(0, trees)).reshape(-1, 1)

    details = {"reason": "time", "trees": marks[-1][1]}
    return [(seconds, predict(trees)) for seconds, trees in marks], details


def threads_of(where: str) -> int:
    return int(where.rpartition("-")[2]) if where.startswith("workers") else 1


def settings_of(method: str, options: argparse.Namespace) -> list[list[float]]:
    """What a method is run with, the best of which counts."""
    if method not in OTHERS:
        return [[]]
    if method == "adam" and options.adam:
        return list(options.adam)
    adams = [(rate, batch) for batch in ADAM_BATCHES for rate in ADAM_RATES]
    some = (adams if method == "adam" else XGBOOST)[: options.settings]
    return [list(setting) for setting in some]


def rate_and_batch(text: str) -> list[float]:
    rate, batch = text.split(",")
    return [float(rate), int(batch)]


def plan(options: argparse.Namespace) -> list[Cell]:
    """All runs that are asked for; those of one time limit take turns."""
    cells: list[Cell] = []
    counts = sorted({threads_of(where) for where in options.where})
    limits = [*options.seconds, None] if options.to_the_end else options.seconds
    for rows, h, seconds in itertools.product(options.rows, options.hidden, limits):
        common = {"rows": int(rows), "hidden": h, "seconds": seconds, "seed": options.seed}
        common |= {"memory": options.memory}
        for method in options.methods:
            ours = method not in OTHERS
            if method == "adam" and seconds is None:
                continue
            longest = (options.hidden[0], max(options.seconds))
            if method == "xgboost" and (h, seconds) != longest:  # knows no width, and goes on
                continue
            places = options.where if ours else [None] * len(counts)
            threads = map(threads_of, places) if ours else counts
            width = {"hidden": None} if method == "xgboost" else {}
            cells += [
                common
                | width
                | {"method": method, "where": where, "threads": n, "setting": setting}
                for where, n in zip(places, threads, strict=True)
                for setting in settings_of(method, options)
            ]
    return cells


def by_cpu(cell: Cell) -> bool:
    """Whether its seconds are those of the CPU: one thread does all of its work."""
    return cell["threads"] == 1 and cell["where"] != "workers-1"


def wanted(results: list[Cell], **values: Any) -> list[Cell]:
    return [c for c in results if all(c[name] == value for name, value in values.items())]


def best(cells: list[Cell]) -> Cell | None:
    """The run that ends with the least loss over the rows trained on."""
    return min(cells, key=lambda cell: cell["mse"], default=None)


def report(results: list[Cell]) -> str:
    """A row for each time limit: ours and Adam over the rows trained on and new ones, and more."""
    ours = dict.fromkeys((c["method"], c["where"]) for c in results if c["method"] not in OTHERS)
    columns = ["rows", "h", "threads", "seconds", *(f"`{m}`, {where}" for m, where in ours)]
    columns += ["Adam (rate, batch)", "XGBoost (rate, depth)"]
    rows = []
    names = ("rows", "hidden", "threads", "seconds")
    limits = dict.fromkeys(tuple(c[name] for name in names) for c in results if c["hidden"])
    for limit in sorted(limits, key=lambda limit: (*limit[:3], limit[3] or math.inf)):
        same: Any = dict(zip(names, limit, strict=True))
        adam = best(wanted(results, method="adam", **same))
        n, h, threads, seconds = limit
        row = [f"{n:,}", str(h), str(threads), "no limit" if seconds is None else f"{seconds:g}"]
        for method, where in ours:
            cell = best(wanted(results, method=method, where=where, **same))
            ratio = f"; {cell['mse'] / adam['mse']:.3f} of Adam's" if cell and adam else ""
            row.append(entry(cell) + ratio)
        row.append(f"{entry(adam)} {tuple(adam['setting'])}" if adam else "")
        forests = wanted(results, method="xgboost", rows=n, threads=threads)
        row.append(trees(forests, seconds))
        rows.append(row)
    said = "Losses over rows trained on / new rows.\n\n" + table(columns, rows)
    return said + "".join(f"\n{line}\n" for line in (*floors(results), *together(results)))


def entry(cell: Cell | None) -> str:
    """``loss / loss on new rows``, and the seconds where they are not those that were given."""
    if cell is None:
        return ""
    seconds = cell["trace"][-1][0] if cell["trace"] else math.inf
    given = cell["seconds"] is not None and 0.95 < seconds / cell["seconds"] < 1.05
    losses = f"{number(cell['mse'])} / {number(cell['new'])}"
    return losses if given else f"{losses} ({duration(seconds)})"


def trees(cells: list[Cell], seconds: float | None) -> str:
    """XGBoost's losses when it was best on new rows within so many seconds, and 5 %."""
    limit = math.inf if seconds is None else seconds
    points = [(new, mse, c) for c in cells for at, mse, new in c["trace"] if at <= 1.05 * limit]
    if not points:
        return ""
    new, mse, cell = min(points, key=lambda point: point[0])
    return f"{number(mse)} / {number(new)} {tuple(cell['setting'])}"


def floors(results: list[Cell]) -> Iterator[str]:
    for n, seed in dict.fromkeys((c["rows"], c["seed"]) for c in results):
        trained = arm.floor(min(n, 1 << 22), seed=seed)
        new = arm.floor(PROBE, first=arm.NEW_ROWS, seed=seed)
        yield f"Floor of {n:,} rows: {trained:.5f}; of the new rows: {new:.5f}."


def together(results: list[Cell]) -> Iterator[str]:
    """How much sooner two workers have the loss that one has at its end."""
    for one in results:
        if one["where"] != "workers-1":
            continue
        other = {name: one[name] for name in KEYS} | {"where": "workers-2", "threads": 2}
        for two in results:
            if key(two, KEYS) != key(other, KEYS):
                continue
            alone, both = reached(one, one["mse"]), reached(two, one["mse"])
            sooner = f"after {duration(both)}: {alone / both:.2f} times sooner"
            yield (
                f"`{one['method']}`, {one['rows']:,} rows, {one['hidden']} neurons: one worker is "
                f"at {number(one['mse'])} after {duration(alone)}, two "
                f"{sooner if both < math.inf else 'never'}."
            )


def draw(results: list[Cell], folder: Path) -> Iterator[Path]:
    """One picture for rows and width: loss less the noise against seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for n, h in dict.fromkeys((c["rows"], c["hidden"]) for c in results if c["hidden"]):
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        here = [c for c in wanted(results, rows=n) if c["hidden"] in (h, None) and c["trace"]]
        names = ("method", "where", "threads")
        for i, name in enumerate(dict.fromkeys(tuple(c[k] for k in names) for c in here)):
            cells = wanted(here, **dict(zip(names, name, strict=True)))
            winners = [
                best(wanted(cells, seconds=limit)) for limit in {c["seconds"] for c in cells}
            ]
            for cell in cells:
                bold = any(cell is winner for winner in winners)
                style: Any = {"lw": 1.6} if bold else {"lw": 0.5, "alpha": 0.4}
                seconds, trained, new = zip(*cell["trace"], strict=True)
                axes.plot(seconds, np.subtract(trained, arm.NOISE), color=f"C{i}", **style)
                if bold:
                    axes.plot(seconds, np.subtract(new, arm.NOISE), ":", color=f"C{i}", **style)
            method, where, threads = name
            several = f", {threads} threads" * (threads > 1)
            label = TITLES[method] if method in OTHERS else f"{method}, {where}"
            axes.plot([], [], color=f"C{i}", label=label + several)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="seconds (one thread: of the CPU)",
            ylabel=f"MSE less {arm.NOISE:g}, the noise; dotted: new rows",
        )
        axes.set_title(f"robot arm: {n:,} x {arm.LINKS}, {h} neurons")
        axes.legend()
        path = folder / f"arm-{n}-{h}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        yield path


def parse(arguments: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--rows", nargs="+", type=float, default=[1e6, 4e6, 2e7], help="(default 1e6 4e6 2e7)")
    add("--hidden", nargs="+", type=int, default=[64, 256, 1024], help="(default 64 256 1024)")
    add("--seconds", nargs="+", type=float, default=[15, 30, 60, 150], help="time limits")
    add("--methods", nargs="+", default=["search", *OTHERS], help="of ours any; adam, xgboost")
    add("--where", nargs="+", choices=PLACES, default=["memory"], help="(default memory)")
    add("--to-the-end", action="store_true", help="ours also without a time limit")
    add("--settings", type=int, default=6, help="settings of Adam, XGBoost at most (default all)")
    said = "rates and batches of Adam, as 0.01,512 (default six)"
    add("--adam", nargs="+", type=rate_and_batch, metavar="RATE,BATCH", help=said)
    add("--memory", default="1GiB", help="of a worker (default 1GiB)")
    add("--seed", type=int, default=0)
    add("--folder", type=Path, help="where stores are made, and kept (default: a temporary one)")
    add("--results", type=Path, default=Path("large.jsonl"), help="default large.jsonl")
    add("--report", action="store_true", help="only table and pictures of the results file")
    add("--quick", action="store_true", help="20,000 rows, 4 neurons, a second: a check")
    add("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.hidden, options.seconds, options.settings = [2e4], [4], [1.0], 1
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.cell:
        cell = json.loads(options.cell)
        if by_cpu(cell):
            count_cpu_seconds()
        print(json.dumps(run_cell(cell)))
        return
    results = [cell for cell in read(options.results) if cell["seed"] == options.seed]
    known = {key(cell, KEYS) for cell in results}
    todo = [] if options.report else [c for c in plan(options) if key(c, KEYS) not in known]
    with contextlib.ExitStack() as stack:
        folder = options.folder
        for i, cell in enumerate(todo, start=1):
            print(f"{i}/{len(todo)} " + " ".join(f"{cell[k]}" for k in KEYS), flush=True)
            if cell["where"] not in ("memory", None):
                folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
                path = folder / f"arm-{cell['rows']}-{cell['seed']}.zarr"
                cell |= {"store": str(arm.store(path, cell["rows"], seed=cell["seed"]))}
            if (done := spawn(__file__, cell, cell["threads"])) is None:
                continue
            print(f"  {entry(done)}, {done['reason']}", flush=True)
            append(options.results, done)
            results.append(done)
            options.results.with_suffix(".md").write_text(report(results))
    for path in draw(results, options.results.parent):
        print(path)
    print(report(results))


if __name__ == "__main__":  # worker processes import this file
    main()
