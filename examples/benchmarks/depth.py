"""How deep, how soon: training MSE and CPU seconds of every method on every set, one thread.

    python examples/benchmarks/depth.py           # everything: hours; goes on where it was stopped
    python examples/benchmarks/depth.py --sets concrete flights13@100000 mine.npz --hidden 32
    python examples/benchmarks/depth.py --sets report --methods search adam lbfgs --hidden 64
    python examples/benchmarks/depth.py --held-out --seeds 0 1 2   # generalisation instead of depth
    python examples/benchmarks/depth.py --quick   # a check that it works

Each run is a process of its own with one thread; its result is one line of the results file (JSON),
and a run that is in the file already is not repeated. After each run the tables (Markdown) beside
the results file are written anew; at the end one picture a set and width. ``NAME@ROWS`` takes that
many random rows of a set; ``choose`` and ``report`` are the sets that constants were chosen on and
those that they were not. Seconds are CPU seconds: other processes of the machine do not count. All
inputs and targets are standardised (mean 0, variance 1), so that an MSE of 1 is what predicting the
mean has; with several targets it is the mean over them. With ``--held-out`` a fifth of the rows,
drawn by the seed, is for testing, and every method stops early by the same tenth of the others: the
table has the R2 on the test rows of the network, and the setting, that is best on the validation
rows.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import (
    Cell,
    Snapshots,
    append,
    count_cpu_seconds,
    duration,
    key,
    loss_at,
    number,
    reached,
    read,
    spawn,
    table,
)
from datasets import CHOOSE, LOADERS, REPORT, load, standardise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from altrelu_dist import AltReLURegressor, Network

OURS = ("search", "damped", "alternating")  # by default; any other method of the package as well
BASELINES = ("adam", "sgd", "lbfgs", "mlp")
LONGER = "adam4"  # Adam with four times the steps: compared with, but not the best of the others
OTHERS = (*BASELINES, LONGER)
NOT_STOPPED = ("alternating", "lbfgs", "mlp", LONGER)  # what --held-out leaves out
RATES = (1e-2, 3e-3, 1e-3, 3e-2, 3e-4)  # Adam's; SGD takes ten times these
KEYS = ("set", "hidden", "method", "setting", "seed", "held_out")
TITLES = {"adam": "Adam", "sgd": "SGD", "lbfgs": "L-BFGS", "mlp": "MLPRegressor"}
TITLES |= {LONGER: "Adam x 4"}
TEST, VALIDATION = 0.2, 0.1  # shares of all rows, and of those that are left

# A cell has KEYS and limit; after its run n, d, q, mse, seconds, busy (seconds of the wall clock a
# second of the CPU), trace, reason; of a run with rows held out also test_r2.


def settings(method: str, rates: int, starts: int) -> list[float]:
    """What a method is run with, the best of which counts: learning rates, or starts."""
    if method in ("adam", "sgd", LONGER):
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
    wall, work = time.monotonic(), time.process_time()
    if cell["held_out"]:
        result = run_held_out(cell, X, y, quick)
    else:
        result = (run_baseline if cell["method"] in OTHERS else run_ours)(cell, X, y, quick)
    busy = (time.monotonic() - wall) / (time.process_time() - work)
    n, d, q = *X.shape, y.shape[1]
    return {"n": n, "d": d, "q": q, "seconds": result["trace"][-1][0], "busy": busy} | result


def run_ours(cell: Cell, X: np.ndarray, y: np.ndarray, _: bool) -> Cell:
    from altrelu_dist import AltReLURegressor

    snapshots = Snapshots()
    model = AltReLURegressor(
        cell["hidden"],
        method=cell["method"],
        random_state=cell["seed"] + 1000 * int(cell["setting"]),
        max_time=cell["limit"],
    )
    snapshots.start(model)
    model.fit(X, y if y.shape[1] > 1 else y.ravel())
    seconds = snapshots.seconds

    def loss(network: Network | AltReLURegressor) -> float:
        return float(np.mean((np.asarray(network.predict(X)).reshape(y.shape) - y) ** 2))

    # What the final network really has is a bound: no loss on the way counts as deeper.
    mse = loss(model)
    met = [*snapshots.losses, *((s, loss(network)) for s, network in snapshots.networks)]
    trace = [(s, max(value, mse)) for s, value in sorted(met)] + [(seconds, mse)]
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
        steps = few or {"steps": baselines.default_steps(len(X)) * (4 if method == LONGER else 1)}
        kind = "sgd" if method == "sgd" else "adam"
        run = baselines.descend(kind, X, y, h, rate=cell["setting"], **common, **steps)
    return {"mse": run.mse, "trace": run.trace, "reason": run.reason, "steps": run.steps}


def run_held_out(cell: Cell, X: np.ndarray, y: np.ndarray, quick: bool) -> Cell:
    """Train with early stopping on four fifths of the rows, and score on the others."""
    seed, method, h = cell["seed"], cell["method"], cell["hidden"]
    order = np.random.default_rng(seed).permutation(len(X))
    test, train = np.split(order, [round(TEST * len(X))])
    X, y, test_X, test_y = X[train], y[train], X[test], y[test]
    if method not in OTHERS:
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


def best(cells: list[Cell]) -> Cell | None:
    return min(cells, key=lambda cell: cell["mse"], default=None)


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
    """Ours against the best of the others, a table each; then all methods in one."""
    ours = [m for m in methods_of(results) if m not in OTHERS]
    tables = [text for method in ours if (text := report_against(results, method))]
    return "\n".join([*tables, report_all(results)])


def methods_of(results: list[Cell]) -> list[str]:
    """Ours first, in the order of their runs; the others in theirs."""
    found = dict.fromkeys(c["method"] for c in results)
    return [m for m in found if m not in OTHERS] + [m for m in OTHERS if m in found]


def by_set(results: list[Cell]) -> dict[tuple[str, int], dict[str, list[Cell]]]:
    """The cells of each method, by set and width."""
    found: dict[tuple[str, int], dict[str, list[Cell]]] = {}
    for cell in results:
        cells = found.setdefault((cell["set"], cell["hidden"]), {})
        cells.setdefault(cell["method"], []).append(cell)
    return found


def compared(cells: dict[str, list[Cell]], method: str) -> dict[str, float] | None:
    """One of ours against the best run of all baselines: ratios below 1 are for ours.

    Medians over the seeds of ours. ``loss``: at the end of both; ``at once``: when that run had
    ended; ``reached``: seconds to its loss, and ``time`` these over its own; ``longer``: the loss
    over the best that Adam with four times the steps has.
    """
    other = best([cell for name in BASELINES for cell in cells.get(name, [])])
    if other is None or not (runs := cells.get(method)):
        return None
    mse = statistics.median(cell["mse"] for cell in runs)
    at_once = statistics.median(loss_at(cell, other["seconds"]) for cell in runs)
    seconds = statistics.median(reached(cell, other["mse"]) for cell in runs)
    longer = best(cells.get(LONGER, []))
    return {
        "loss": mse / other["mse"],
        "at once": at_once / other["mse"],
        "reached": seconds,
        "time": seconds / other["seconds"],
        "longer": mse / longer["mse"] if longer else math.nan,
    }


def report_against(results: list[Cell], method: str) -> str:
    """The table of one of ours against the best run of all baselines, and what it sums up to."""
    columns = ["set", "n x d, q", "h", f"`{method}`", "best of the others", "ratio"]
    columns += ["ratio in equal time", "reached", "of its time", "Adam x 4", "ratio"]
    rows, found = [], {}
    for (name, h), cells in by_set(results).items():
        if (figures := compared(cells, method)) is None:
            continue
        found[f"{name}, {h}"] = figures
        others = [cell for m in BASELINES for cell in cells.get(m, [])]
        other, longer = best(others), best(cells.get(LONGER, []))
        assert other is not None
        once = [cell for cell in others if cell["seed"] == other["seed"]]
        every = duration(sum(cell["seconds"] for cell in once))
        of = f"{TITLES[other['method']]}, {duration(other['seconds'])}; all: {every}"
        rows.append(
            [
                name,
                f"{other['n']} x {other['d']}, {other['q']}",
                str(h),
                entry(cells[method]),
                f"{number(other['mse'])} ({of})",
                ratio(figures["loss"]),
                ratio(figures["at once"]),
                duration(figures["reached"]),
                ratio(figures["time"]),
                f"{number(longer['mse'])} ({duration(longer['seconds'])})" if longer else "",
                ratio(figures["longer"]),
            ]
        )
    if not rows:
        return ""
    return table(columns, rows) + "\n" + "\n".join(summed_up(found)) + "\n"


def summed_up(found: dict[str, dict[str, float]]) -> Iterator[str]:
    """A line for each ratio: its median, its worst set, and on how many sets it is at most 1."""
    said = {"loss": "loss at the end", "at once": "loss in equal time", "time": "time to its loss"}
    said |= {"longer": "loss over that of Adam with four times the steps"}
    for name, what in said.items():
        values = {where: f[name] for where, f in found.items() if not math.isnan(f[name])}
        if values:
            worst = max(values, key=lambda where: values[where])
            met = sum(value <= 1 for value in values.values())
            middle = ratio(statistics.median(values.values()))
            yield (
                f"- {what}: at most 1 on {met} of {len(values)}; median {middle}, "
                f"worst {ratio(values[worst])} ({worst})"
            )


def ratio(value: float) -> str:
    return "" if math.isnan(value) else "-" if math.isinf(value) else f"{value:.3f}"


def report_all(results: list[Cell]) -> str:
    """The table: a row a set and width, a column a method, when `search` was as deep."""
    methods = methods_of(results)
    compare = [m for m in OTHERS if m in methods]
    columns = ["set", "n x d, q", "h", *(TITLES.get(m, f"`{m}`") for m in methods)]
    if "search" in methods:
        columns += [f"{TITLES[m]}'s best reached" for m in compare]
    spread = "search" in methods and len({c["seed"] for c in results}) > 2
    if spread:
        columns.append("worst seed / median")
    rows = []
    for (name, h), cells in by_set(results).items():
        one = next(c for group in cells.values() for c in group)
        row = [
            name,
            f"{one['n']} x {one['d']}, {one['q']}",
            str(h),
            *(entry(cells.get(m, [])) for m in methods),
        ]
        searches = cells.get("search", [])
        if "search" in methods:
            for m in compare:
                winner = best(cells.get(m, []))
                times = [reached(c, winner["mse"]) for c in searches] if winner else []
                row.append(duration(statistics.median(times)) if times else "")
        if spread:
            losses = [c["mse"] for c in searches]
            row.append(f"{max(losses) / statistics.median(losses):.3f}" if losses else "")
        rows.append(row)
    return table(columns, rows)


def report_held_out(results: list[Cell]) -> str:
    """The table of R2 on the test rows: a row a set and width, a column a method."""
    methods = methods_of(results)
    seeds = sorted({c["seed"] for c in results})
    columns = ["set", "n x d, q", "h", *(TITLES.get(m, f"`{m}`") for m in methods)]
    if "search" in methods:
        columns.append("`search` less the best other, a seed")
    rows = []
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
            kept = f" ({neurons} neurons)" if m not in OTHERS else ""
            row.append(f"{statistics.median(scores):.4f}{kept}" if winners else "")
        if "search" in methods:
            row.append(", ".join(_margin(found, methods, s) for s in seeds))
        rows.append(row)
    return table(columns, rows)


def _margin(found: dict[tuple[str, int], Cell | None], methods: list[str], seed: int) -> str:
    """How much more R2 `search` has than the best baseline, on the test rows of one seed."""
    ours = found["search", seed]
    others = [cell["test_r2"] for m in methods if m in OTHERS and (cell := found[m, seed])]
    return f"{ours['test_r2'] - max(others):+.4f}" if ours and others else "?"


def draw(results: list[Cell], folder: Path) -> Iterator[Path]:
    """One picture a set and width: loss against seconds, the best run of each method thick."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for name, h in dict.fromkeys((c["set"], c["hidden"]) for c in results):
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        here = [c for c in results if (c["set"], c["hidden"]) == (name, h)]
        for i, method in enumerate(methods_of(here)):
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
            xlabel="CPU seconds, one thread",
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
    add, every = parser.add_argument, list(LOADERS)
    groups = f"choose, report, {', '.join(every)}"
    add("--sets", nargs="+", help=f"of {groups}; or .npz, .csv, .zarr (default all)")
    add("--hidden", nargs="+", type=int, default=[32, 64, 128], help="widths (default 32 64 128)")
    methods = OURS + OTHERS
    said = f"any of ours, {', '.join(OTHERS)} (default {' '.join(methods)})"
    add("--methods", nargs="+", default=methods, help=said)
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
        options.methods = [m for m in options.methods if m not in NOT_STOPPED]
    name = "held-out.jsonl" if options.held_out else "depth.jsonl"
    options.results = options.results or Path(name)
    groups = {"choose": CHOOSE, "report": REPORT}
    asked = options.sets or (["diabetes"] if options.quick else every)
    options.sets = [name for one in asked for name in groups.get(one, [one])]
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
        count_cpu_seconds()
        print(json.dumps(run_cell(json.loads(options.cell), options.quick)))
        return
    file = options.results
    results = [{"held_out": False} | cell for cell in read(file)]
    results = [c for c in results if c["held_out"] == options.held_out]
    make_report = report_held_out if options.held_out else report
    known = {key(c, KEYS) for c in results}
    todo = [c for c in plan(options) if key(c, KEYS) not in known]
    for i, cell in enumerate([] if options.report else todo, start=1):
        print(f"{i}/{len(todo)} " + " ".join(f"{cell[k]}" for k in KEYS), flush=True)
        if (done := spawn(__file__, cell, extra=["--quick"] * options.quick)) is None:
            continue
        mse, seconds = number(done["mse"]), duration(done["seconds"])
        shared = f", machine shared: {done['busy']:.1f} times the CPU's seconds passed"
        print(f"  {mse} in {seconds}, {done['reason']}{shared * (done['busy'] > 1.2)}", flush=True)
        append(file, done)
        results.append(done)
        file.with_suffix(".md").write_text(make_report(results))
    for path in draw(results, file.parent):
        print(path)
    print(make_report(results))


if __name__ == "__main__":
    main()
