"""How deep, how soon: training MSE and seconds of every method on every set, one thread.

    python examples/benchmarks/depth.py           # everything: hours; goes on where it was stopped
    python examples/benchmarks/depth.py --sets concrete flights13@100000 mine.npz --hidden 32
    python examples/benchmarks/depth.py --held-out --seeds 0 1 2   # generalisation instead of depth
    python examples/benchmarks/depth.py --quick   # a check that it works

Each run is a process of its own with one thread; its result is one line of the results file (JSON),
and a run that is in the file already is not repeated. After each run the table (Markdown) beside
the results file is written anew; at the end one picture a set and width. ``NAME@ROWS`` takes that
many random rows of a set. All inputs and targets are standardised (mean 0, variance 1), so that an
MSE of 1 is what predicting the mean has; with several targets it is the mean over them. With
``--held-out`` a fifth of the rows, drawn by the seed, is for testing, and every method stops early
by the same tenth of the others: the table has the R2 on the test rows of the network, and the
setting, that is best on the validation rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import LOADERS, load, standardise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from altrelu_dist import Progress

OURS = ("search", "damped", "alternating")
BASELINES = ("adam", "sgd", "lbfgs", "mlp")
STOPPING_EARLY = ("search", "damped", "adam", "sgd")  # what --held-out knows how to stop
RATES = (1e-2, 3e-3, 1e-3, 3e-2, 3e-4)  # Adam's; SGD takes ten times these
KEYS = ("set", "hidden", "method", "setting", "seed", "held_out")
TITLES = {"adam": "Adam", "sgd": "SGD", "lbfgs": "L-BFGS", "mlp": "MLPRegressor"}
TEST, VALIDATION = 0.2, 0.1  # shares of all rows, and of those that are left

# KEYS and limit; after its run n, d, q, mse, seconds, busy, trace, reason; of a run with rows held
# out also validation (the MSE there) and test_r2.
Cell = dict[str, Any]


def settings(method: str, rates: int, starts: int) -> list[float]:
    """What a method is run with, the best of which counts: learning rates, or starts."""
    if method in ("adam", "sgd"):
        return [rate * (10 if method == "sgd" else 1) for rate in RATES[:rates]]
    return [float(start) for start in range(starts)] if method == "alternating" else [0.0]


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Standardised X (n, d) and y (n, q) in float32."""
    base, _, rows = name.rpartition("@")
    X, y, _ = load(base if rows.isdigit() else name)
    if rows.isdigit():
        chosen = np.random.default_rng(0).permutation(len(X))[: int(rows)]
        X, y = X[chosen], y[chosen]
    return standardise(X), standardise(y)


def run_cell(cell: Cell, quick: bool) -> Cell:
    """Train once, in this process: what the cell's run found, in how many seconds."""
    X, y = data(cell["set"])
    wall, work = time.perf_counter(), time.process_time()
    if cell["held_out"]:
        result = run_held_out(cell, X, y, quick)
    else:
        result = (run_ours if cell["method"] in OURS else run_baseline)(cell, X, y, quick)
    busy = (time.perf_counter() - wall) / (time.process_time() - work)
    n, d, q = *X.shape, y.shape[1]
    return {"n": n, "d": d, "q": q, "seconds": result["trace"][-1][0], "busy": busy} | result


def run_ours(cell: Cell, X: np.ndarray, y: np.ndarray, _: bool) -> Cell:
    from altrelu_dist import AltReLURegressor

    met: list[tuple[float, float]] = []

    def note(progress: Progress) -> None:
        if math.isfinite(progress.loss) and not (met and progress.loss == met[-1][1]):
            met.append((progress.seconds, progress.loss))

    model = AltReLURegressor(
        cell["hidden"],
        method=cell["method"],
        random_state=cell["seed"] + 1000 * int(cell["setting"]),
        max_time=cell["limit"],
        callback=note,
    )
    begin = time.perf_counter()
    model.fit(X, y if y.shape[1] > 1 else y.ravel())
    seconds = time.perf_counter() - begin
    mse = float(np.mean((np.asarray(model.predict(X)).reshape(y.shape) - y) ** 2))
    # What the final network really has is a bound: no loss on the way counts as deeper.
    trace = [(s, max(loss, mse)) for s, loss in met] + [(seconds, mse)]
    return {"mse": mse, "trace": trace, "reason": model.stop_reason_, "passes": model.n_passes_}


def run_baseline(cell: Cell, X: np.ndarray, y: np.ndarray, quick: bool) -> Cell:
    import baselines
    import torch

    torch.set_num_threads(1)
    common = {"seed": cell["seed"], "max_seconds": cell["limit"]}
    few = {"steps": 200} if quick else {}
    method, h = cell["method"], cell["hidden"]
    if method == "lbfgs":
        run = baselines.lbfgs(X, y, h, iterations=20 if quick else 2000, **common)
    elif method == "mlp":
        run = baselines.mlp_regressor(X, y, h, **common, **few)
    else:
        run = baselines.descend(method, X, y, h, rate=cell["setting"], **common, **few)
    return {"mse": run.mse, "trace": run.trace, "reason": run.reason, "steps": run.steps}


def run_held_out(cell: Cell, X: np.ndarray, y: np.ndarray, quick: bool) -> Cell:
    """Train with early stopping on four fifths of the rows, and score on the others."""
    seed, method, h = cell["seed"], cell["method"], cell["hidden"]
    order = np.random.default_rng(seed).permutation(len(X))
    test, train = np.split(order, [round(TEST * len(X))])
    X, y, test_X, test_y = X[train], y[train], X[test], y[test]
    if method in OURS:
        from altrelu_dist import AltReLURegressor

        model = AltReLURegressor(
            h,
            method=method,
            random_state=seed,
            max_time=cell["limit"],
            early_stopping=True,
            validation_fraction=VALIDATION,
        )
        begin = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - begin
        history = [(e["seconds"], e["validation_loss"]) for e in model.history_]
        trace = [(s, loss) for s, loss in history if math.isfinite(loss)]
        found = {"reason": model.stop_reason_, "neurons": model.network_.n_hidden}
        predicted = np.asarray(model.predict(test_X)).reshape(test_y.shape)
        trace.append((seconds, min(loss for _, loss in trace)))
    else:
        import baselines
        import torch

        torch.set_num_threads(1)
        rows = held_out_rows(len(X), seed)
        common: Any = {"rate": cell["setting"], "seed": seed, "max_seconds": cell["limit"]}
        common |= {"steps": 200} if quick else {}
        run = baselines.descend(
            method, X[~rows], y[~rows], h, held_out=(X[rows], y[rows]), **common
        )
        trace = run.validations
        found = {"reason": run.reason, "neurons": h}
        predicted = baselines.predict(run.best, test_X) if run.best else np.zeros_like(test_y)
    errors = ((predicted - test_y) ** 2).mean(axis=0) / test_y.var(axis=0)
    best_loss = min(loss for _, loss in trace)
    return found | {"mse": best_loss, "trace": trace, "test_r2": float(1 - errors.mean())}


def held_out_rows(n: int, seed: int) -> np.ndarray:
    """The rows that ``early_stopping=True`` holds out of so many, as a mask."""
    from altrelu_dist.engine import TILE
    from altrelu_dist.moments.rows import Rows
    from altrelu_dist.training.validation import HeldOut

    held_out, empty = HeldOut.of(VALIDATION, n, seed), np.empty((n, 0))
    whole = Rows(0, empty, empty)
    tiles = [whole.part(i, min(i + TILE, n)) for i in range(0, n, TILE)]
    return np.concatenate([held_out.mask(tile) for tile in tiles])


def spawn(cell: Cell, quick: bool) -> Cell | None:
    """Train once in a process with one thread; None where it failed, with the reason printed."""
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM")
    environment = os.environ | {f"{library}_NUM_THREADS": "1" for library in libraries}
    command = [sys.executable, __file__, "--cell", json.dumps(cell)] + ["--quick"] * quick
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True)
        return None
    result: Cell = json.loads(done.stdout.splitlines()[-1])
    return cell | result


def best(cells: list[Cell]) -> Cell | None:
    return min(cells, key=lambda cell: cell["mse"], default=None)


def reached(cell: Cell, loss: float) -> float:
    """Seconds until a run's loss was at or below this one; infinite where it never was."""
    return next((seconds for seconds, value in cell["trace"] if value <= loss), math.inf)


def number(mse: float) -> str:
    return f"{mse:.3g}" if mse < 1e-3 else f"{mse:.4f}".removeprefix("0")


def duration(seconds: float) -> str:
    return (
        "-" if math.isinf(seconds) else f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    )


def entry(cells: list[Cell]) -> str:
    """``MSE (seconds; all settings: seconds)``: medians over seeds of the best setting of each."""
    seeds = [[c for c in cells if c["seed"] == seed] for seed in sorted({c["seed"] for c in cells})]
    winners = [min(group, key=lambda c: c["mse"]) for group in seeds]
    if not winners:
        return ""
    mse, one = (statistics.median(c[key] for c in winners) for key in ("mse", "seconds"))
    every = statistics.median(sum(c["seconds"] for c in group) for group in seeds)
    text = f"{number(mse)} ({duration(one)}"
    return text + (f"; all {len(seeds[0])}: {duration(every)})" if len(seeds[0]) > 1 else ")")


def report(results: list[Cell]) -> str:
    """The table: a row a set and width, a column a method, when `search` was as deep."""
    methods = [m for m in OURS + BASELINES if any(c["method"] == m for c in results)]
    compare = [m for m in BASELINES if m in methods]
    columns = ["set", "n x d, q", "h", *(TITLES.get(m, f"`{m}`") for m in methods)]
    if "search" in methods:
        columns += [f"{TITLES[m]}'s best reached" for m in compare]
    spread = "search" in methods and len({c["seed"] for c in results}) > 2
    if spread:
        columns.append("worst seed / median")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, h in dict.fromkeys((c["set"], c["hidden"]) for c in results):
        cells = {
            m: [c for c in results if (c["set"], c["hidden"], c["method"]) == (name, h, m)]
            for m in methods
        }
        one = next(c for group in cells.values() for c in group)
        row = [
            name,
            f"{one['n']} x {one['d']}, {one['q']}",
            str(h),
            *(entry(cells[m]) for m in methods),
        ]
        if "search" in methods:
            for m in compare:
                winner = best(cells[m])
                times = [reached(c, winner["mse"]) for c in cells["search"]] if winner else []
                row.append(duration(statistics.median(times)) if times else "")
        if spread:
            losses = [c["mse"] for c in cells["search"]]
            row.append(f"{max(losses) / statistics.median(losses):.3f}" if losses else "")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def report_held_out(results: list[Cell]) -> str:
    """The table of R2 on the test rows: a row a set and width, a column a method."""
    methods = [m for m in STOPPING_EARLY if any(c["method"] == m for c in results)]
    seeds = sorted({c["seed"] for c in results})
    columns = ["set", "n x d, q", "h", *(TITLES.get(m, f"`{m}`") for m in methods)]
    if "search" in methods:
        columns.append("`search` less the best other, a seed")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, h in dict.fromkeys((c["set"], c["hidden"]) for c in results):
        here = [c for c in results if (c["set"], c["hidden"]) == (name, h)]
        one = here[0]
        row = [name, f"{one['n']} x {one['d']}, {one['q']}", str(h)]
        found = {
            (m, s): best([c for c in here if (c["method"], c["seed"]) == (m, s)])
            for m in methods
            for s in seeds
        }
        for m in methods:
            winners = [cell for s in seeds if (cell := found[m, s])]
            scores = [cell["test_r2"] for cell in winners]
            neurons = (
                round(statistics.median(cell["neurons"] for cell in winners)) if winners else 0
            )
            kept = f" ({neurons} neurons)" if m in OURS else ""
            row.append(f"{statistics.median(scores):.4f}{kept}" if winners else "")
        if "search" in methods:
            row.append(", ".join(_margin(found, methods, s) for s in seeds))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _margin(found: dict[tuple[str, int], Cell | None], methods: list[str], seed: int) -> str:
    """How much more R2 `search` has than the best baseline, on the test rows of one seed."""
    ours = found["search", seed]
    others = [cell["test_r2"] for m in methods if m not in OURS and (cell := found[m, seed])]
    return f"{ours['test_r2'] - max(others):+.4f}" if ours and others else "?"


def draw(results: list[Cell], folder: Path) -> Iterator[Path]:
    """One picture a set and width: loss against seconds, the best run of each method thick."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for name, h in dict.fromkeys((c["set"], c["hidden"]) for c in results):
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        here = [c for c in results if (c["set"], c["hidden"]) == (name, h)]
        for i, method in enumerate(
            m for m in OURS + BASELINES if any(c["method"] == m for c in here)
        ):
            cells = [c for c in here if c["method"] == method]
            for cell in cells:
                bold = cell is best(cells)
                seconds, losses = zip(*cell["trace"], strict=True)
                lows = np.minimum.accumulate(losses)
                style = {"lw": 2, "label": method} if bold else {"lw": 0.6, "alpha": 0.5}
                axes.plot(seconds, lows, color=f"C{i}", **style)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="seconds, one thread",
            ylabel=f"{'validation' if here[0]['held_out'] else 'training'} MSE (variance 1)",
        )
        axes.set_title(f"{name}: {here[0]['n']} x {here[0]['d']}, {h} neurons")
        axes.legend()
        path = folder / f"{Path(name).stem}-{h}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        yield path


def parse(arguments: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add, every, methods = parser.add_argument, list(LOADERS), OURS + BASELINES
    add("--sets", nargs="+", help=f"of {', '.join(every)}; or .npz, .csv, .zarr (default all)")
    add("--hidden", nargs="+", type=int, default=[32, 64, 128], help="widths (default 32 64 128)")
    add("--methods", nargs="+", choices=methods, default=methods, help="(default all)")
    add("--seeds", nargs="+", type=int, default=[0], help="seeds (default 0)")
    add("--rates", type=int, default=5, help="learning rates of Adam and SGD (default 5)")
    add("--starts", type=int, default=10, help="starts of `alternating` (default 10)")
    add("--limit", type=float, default=600.0, help="seconds a run at most (default 600)")
    add("--held-out", action="store_true", help="early stopping and R2 on test rows")
    add("--results", type=Path, help="default depth.jsonl, or held-out.jsonl")
    add("--report", action="store_true", help="only table and pictures of the results file")
    add("--quick", action="store_true", help="one small set, 4 neurons, few steps: a check")
    add("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.hidden, options.rates, options.starts, options.limit = [4], 1, 1, 2.0
    if options.held_out:
        options.methods = [m for m in options.methods if m in STOPPING_EARLY]
    name = "held-out.jsonl" if options.held_out else "depth.jsonl"
    options.results = options.results or Path(name)
    options.sets = options.sets or (["diabetes"] if options.quick else every)
    return options


def plan(options: argparse.Namespace) -> list[Cell]:
    """All runs that are asked for, the sets in order."""
    return [
        dict(zip(KEYS, (name, h, method, setting, seed, options.held_out), strict=True))
        | {"limit": options.limit}
        for name in options.sets
        for h in options.hidden
        for seed in options.seeds
        for method in options.methods
        for setting in settings(method, options.rates, options.starts)
    ]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.cell:
        print(json.dumps(run_cell(json.loads(options.cell), options.quick)))
        return
    file, results = options.results, []
    if file.exists():
        results = [{"held_out": False} | json.loads(line) for line in file.read_text().splitlines()]
    results = [c for c in results if c["held_out"] == options.held_out]
    make_report = report_held_out if options.held_out else report
    known = {tuple(c[k] for k in KEYS) for c in results}
    todo = [c for c in plan(options) if tuple(c[k] for k in KEYS) not in known]
    for i, cell in enumerate([] if options.report else todo, start=1):
        print(f"{i}/{len(todo)} " + " ".join(f"{cell[k]}" for k in KEYS), flush=True)
        if (done := spawn(cell, options.quick)) is None:
            continue
        mse, seconds = number(done["mse"]), duration(done["seconds"])
        shared = ", NOT ALONE: seconds are too many" if done["busy"] > 1.2 else ""
        print(f"  {mse} in {seconds}, {done['reason']}{shared}", flush=True)
        with file.open("a") as lines:
            lines.write(json.dumps(done) + "\n")
        results.append(done)
        file.with_suffix(".md").write_text(make_report(results))
    for path in draw(results, file.parent):
        print(path)
    print(make_report(results))


if __name__ == "__main__":
    main()
