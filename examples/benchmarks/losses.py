"""Losses and intervals on new rows: quantiles, counts and coverage, beside boosting; one thread.

    python examples/benchmarks/losses.py          # minutes; goes on where it was stopped
    python examples/benchmarks/losses.py --tasks interval --sets wages hotel
    python examples/benchmarks/losses.py --quick  # a check that it works

A fifth of the rows, drawn by the split's seed, is for testing; rows with a missing value are left
out, texts become one 0/1 column a level, and all methods get the same columns; of large sets 10,000
random rows are taken. ``quantile`` is the mean pinball loss of the levels 0.1, 0.5 and 0.9, which
are three outputs of one network here, and three models of scikit-learn's
HistGradientBoostingRegressor. ``poisson`` is the mean deviance of counts. ``interval`` is the share
of test targets in ``predict_interval`` at levels 0.5, 0.8 and 0.9, and the mean width at 0.9 in
standard deviations of the targets, of `AltReLURegressor` alone.

Each run is a process of its own with one thread; its result is one line of the results file (JSON),
and a run that is in the file already is not repeated. Seconds are CPU seconds. The tables are of
means over the splits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cells import Cell, append, count_cpu_seconds, key, read, spawn, table
from datasets import _r, load
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import mean_pinball_loss, mean_poisson_deviance
from sklearn.model_selection import train_test_split

KEYS = ("task", "set", "split", "method")
TITLES = {"ours": "`AltReLURegressor`", "hist": "HistGradientBoosting", "squares": "of squares"}
METHODS = {"quantile": ("ours", "hist"), "poisson": ("ours", "hist"), "interval": ("ours",)}
LEVELS = (0.1, 0.5, 0.9)
INTERVALS = (0.5, 0.8, 0.9)
TEST = 0.2
MOST_ROWS = 10_000
QUICK_ROWS = 1000  # fewer only with --quick: one round will do
COUNTS = {  # package, item, column of the count, columns left out
    "visits": ("AER", "DoctorVisits", "visits", ()),
    "physician": (
        "AER", "NMES1988", "visits", ("nvisits", "ovisits", "novisits", "emergency", "hospital"),
    ),
}  # fmt: skip
NUMBERS = ("abalone", "wages", "hotel", "computers", "ames", "diamonds")
SETS = {"quantile": ("wages", "hotel"), "poisson": tuple(COUNTS), "interval": NUMBERS}


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and y (n,)."""
    if name in COUNTS:
        package, item, target, left_out = COUNTS[name]
        frame = _r(package, item).drop(columns=list(left_out)).dropna()
        y = frame.pop(target).to_numpy(float)
        text = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column])]
        X = pd.get_dummies(frame, columns=text, dtype=float).to_numpy(float)
    else:
        X, targets, _ = load(name)
        y = targets[:, 0].astype(float)
    rows = np.random.default_rng(0).permutation(len(X))[:MOST_ROWS]
    return X[rows], y[rows]


def fitted(method: str, seed: int, X: np.ndarray, y: np.ndarray, **parameters: Any) -> Any:
    if method == "ours":
        from altrelu_dist import AltReLURegressor

        rounds = 1 if len(X) < QUICK_ROWS else None
        return AltReLURegressor(random_state=seed, max_iter=rounds, **parameters).fit(X, y)
    return HistGradientBoostingRegressor(random_state=seed, **parameters).fit(X, y)


def run_cell(cell: Cell) -> Cell:
    """Train once, in this process, and score on the test rows."""
    X, y = data(cell["set"])
    split, method = cell["split"], cell["method"]
    X, new, y, truth = train_test_split(X, y, test_size=TEST, random_state=split)
    begin = time.perf_counter()
    found: Cell = {"n": len(X) + len(new)}
    if cell["task"] == "poisson":
        model = fitted(method, split, X, y, loss="poisson")
        found["loss"] = mean_poisson_deviance(truth, model.predict(new))
    elif cell["task"] == "quantile":
        if method == "ours":
            predicted = fitted(method, split, X, y, loss="quantile", quantile=LEVELS).predict(new)
        else:
            models = [fitted(method, split, X, y, loss="quantile", quantile=q) for q in LEVELS]
            predicted = np.column_stack([model.predict(new) for model in models])
        pairs = list(zip(LEVELS, predicted.T, strict=True))
        found["loss"] = float(
            np.mean([mean_pinball_loss(truth, column, alpha=level) for level, column in pairs])
        )
        found["below"] = [float(np.mean(truth <= column)) for _, column in pairs]
        found["crossing"] = float((np.diff(predicted, axis=1) < 0).any(axis=1).mean())
    else:
        model = fitted(method, split, X, y)
        spans = [model.predict_interval(new, level) for level in INTERVALS]
        found["covered"] = [float(np.mean((s[:, 0] <= truth) & (truth <= s[:, 1]))) for s in spans]
        found["width"] = float(np.diff(spans[-1]).mean() / y.std())
    found["seconds"] = time.perf_counter() - begin
    return found


def tables(results: list[Cell]) -> str:
    """One table of losses, and one of coverage."""
    found: dict[tuple[str, str], dict[str, list[Cell]]] = {}
    for cell in results:
        sets = found.setdefault((cell["task"], cell["set"]), {})
        sets.setdefault(cell["method"], []).append(cell)

    def mean(cells: list[Cell], what: str) -> Any:
        return np.mean([cell[what] for cell in cells], axis=0)

    losses, coverage = [], []
    for (task, name), methods in found.items():
        first = next(iter(methods.values()))[0]
        start = [name, f"{first['n']:,}"]
        if task == "interval":
            cells = methods["ours"]
            shares = [f"{share:.3f}" for share in mean(cells, "covered")]
            coverage.append([*start, *shares, f"{mean(cells, 'width'):.2f}"])
            continue
        line = [task, *start]
        for method in ("ours", "hist"):
            cells = methods.get(method)
            if cells is None:
                line += ["-", "-", "-"]
                continue
            below = "-"
            if task == "quantile":
                below = " ".join(f"{share:.3f}" for share in mean(cells, "below"))
            seconds = statistics.median(cell["seconds"] for cell in cells)
            line += [f"{mean(cells, 'loss'):.4g}", below, f"{seconds:.0f}"]
        losses.append(line)
    columns = ["loss", "set", "rows"]
    for method in ("ours", "hist"):
        columns += [TITLES[method], "share below", "CPU seconds"]
    told = ["set", "rows", *(f"in {level:.0%}" for level in INTERVALS), "width of 90%"]
    return table(columns, losses) + "\n" + table(told, coverage)


def main() -> None:
    every = sorted({name for names in SETS.values() for name in names})
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--sets", nargs="+", default=every, choices=[*every, "diabetes"])
    parser.add_argument("--splits", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=Path("losses.jsonl"))
    parser.add_argument("--quick", action="store_true", help="one small set: a check that it works")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        count_cpu_seconds()
        print(json.dumps(run_cell(json.loads(options.cell))))
        return
    sets = {task: [name for name in SETS[task] if name in options.sets] for task in options.tasks}
    if options.quick:
        sets = {task: ["diabetes"] for task in ("quantile", "interval")}
    done = {key(cell, KEYS) for cell in read(options.results)}
    for task, names in sets.items():
        for name in names:
            for split in options.splits:
                for method in METHODS[task]:
                    cell = {"task": task, "set": name, "split": split, "method": method}
                    if key(cell, KEYS) in done:
                        continue
                    print(f"{task}, {name}, split {split}: {method}", flush=True)
                    found = spawn(__file__, cell)
                    if found is not None:
                        append(options.results, found)
    print(tables(read(options.results)))


if __name__ == "__main__":
    main()
