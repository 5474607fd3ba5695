"""Error on new rows, with nothing to tune: test R2 and CPU seconds of every method, one thread.

    python examples/benchmarks/new_rows.py        # everything: a day; goes on where it was stopped
    python examples/benchmarks/new_rows.py --sets concrete flights13@50000 mine.csv --splits 0
    python examples/benchmarks/new_rows.py --sets report --methods ours lightgbm catboost
    python examples/benchmarks/new_rows.py --quick   # a check that it works

``ours`` is ``AltReLURegressor(random_state=...)`` with no other argument, ``small`` has
``max_size=64``; `regressors.py` says what the others are. A fifth of the rows, drawn by the split's
seed, is for testing. All methods get the same rows as they are; those that need standardised ones
standardise by themselves. R2 is over the test rows, the mean over targets. Of Adam's five rates the
best on validation rows counts. RealMLP is slow: without ``--methods`` it has the first split of a
few sets only.

Each run is a process of its own with one thread; its result is one line of the results file (JSON),
and a run that is in the file already is not repeated. After each run the tables (Markdown) and the
picture beside it are written anew. ``NAME@ROWS`` takes that many random rows of a set; ``choose``,
``report`` and ``made`` are the sets that constants were chosen on, those that they were not, and
the generated ones (`made.py`). Seconds are CPU seconds: other processes of the machine do not
count. Figures of a set are medians over its splits; two methods are compared on the splits that
both have.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cells import Cell, append, count_cpu_seconds, duration, key, read, spawn, table
from datasets import load
from made import MADE
from regressors import BOOSTING, OTHERS, OURS, PACKAGES, fit, settings
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHODS = (*OURS, *OTHERS)
KEYS = ("set", "split", "method", "setting")
TITLES = {
    "ours": "`AltReLURegressor()`",
    "small": "its `max_size=64`",
    "hist": "HistGradientBoosting",
    "xgboost": "XGBoost",
}
TITLES |= {"xgboost-es": "XGBoost, stopped early", "lightgbm": "LightGBM", "catboost": "CatBoost"}
TITLES |= {"mlp": "MLPRegressor", "adam": "Adam", "realmlp": "RealMLP", "ridge": "ridge"}
TEST = 0.2  # share of the rows
LARGE = 10_000  # rows from which on seconds are compared with CatBoost's
DRAWN = 4.0  # the picture has greater errors than so many times the best boosting's on its edge
TIMED_ROWS = 10_000  # a prediction that is timed is of so many rows at least

# Constants are chosen while looking at these,
CHOOSE_NEW = (
    *("concrete", "abalone", "diabetes", "elecdemand", "computers", "storms", "deliveries"),
    *("movies@20000", "flights23@50000", "birthdays@50000", "athletes@50000", "ames"),
    *("avocados", "chicago", "diamonds", "hotel", "houses", "lending", "lifts", "meats", "nox"),
    *("rodents", "texas", "wages", "weather", "airfares", "randhie", "temperatures"),
    "flights13@50000",
)
REPORT_NEW = (  # and not at these.
    *("pupils", "grades", "ice", "firms", "schools", "bmi", "baseball", "food", "women", "cps88"),
    *("census", "murders"),
)
SETS = {"choose": CHOOSE_NEW, "report": REPORT_NEW, "made": tuple(MADE)}
REALMLP_SETS = ("concrete", "abalone", "diabetes", "ames", "airfares", "nox")

# A cell has KEYS; after its run n, d, q, r2, seconds, rate (rows predicted a second), of ours
# expected_r2, expected_r2_spread (None where it tells none) and neurons, of Adam validation.


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and y (n, q) in float32, as they are."""
    base, _, rows = name.rpartition("@")
    base = base if rows.isdigit() else name
    X, y = MADE[base]() if base in MADE else load(base)[:2]
    if rows.isdigit():
        chosen = np.random.default_rng(0).permutation(len(X))[: int(rows)]
        X, y = X[chosen], y[chosen]
    return X, y


def run_cell(cell: Cell, quick: bool = False) -> Cell:
    """Train once, in this process, and score on the test rows."""
    X, y = data(cell["set"])
    n, d, q = *X.shape, y.shape[1]
    X, test_X, y, test_y = train_test_split(X, y, test_size=TEST, random_state=cell["split"])
    begin = time.perf_counter()
    predict, facts = fit(cell["method"], X, y, cell["split"], cell["setting"], quick)
    seconds = time.perf_counter() - begin
    predicted = np.asarray(predict(test_X)).reshape(test_y.shape)
    score = float(r2_score(test_y, predicted)) if np.isfinite(predicted).all() else -math.inf
    many = np.concatenate([test_X] * math.ceil(TIMED_ROWS / len(test_X)))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        np.asarray(predict(many))
        times.append(time.perf_counter() - begin)
    found = {"n": n, "d": d, "q": q, "r2": score, "seconds": seconds}
    return found | {"rate": len(many) / max(min(times), 1e-6)} | facts


def missing(method: str) -> str | None:
    """The package that a method needs and that is not installed."""
    package = PACKAGES.get(method)
    return package if package and find_spec(package) is None else None


Sets = dict[str, dict[str, dict[int, Cell]]]


def by_set(results: list[Cell]) -> Sets:
    """A cell a set, method and split: of several settings the best on validation rows.

    It gets ``all seconds``, those of all settings.
    """
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in results:
        groups.setdefault((cell["set"], cell["method"], cell["split"]), []).append(cell)
    found: Sets = {}
    for (name, method, split), cells in groups.items():
        best = min(cells, key=lambda c: c.get("validation", 0.0))
        every = {"all seconds": sum(c["seconds"] for c in cells), "settings": len(cells)}
        found.setdefault(name, {}).setdefault(method, {})[split] = best | every
    return found


def median(cells: dict[int, Cell], name: str) -> float:
    return float(statistics.median(cell[name] for cell in cells.values()))


def both(one: dict[int, Cell], other: dict[int, Cell], name: str) -> tuple[float, float] | None:
    """Medians over the splits that both methods have; None where there is no such split."""
    splits = one.keys() & other.keys()
    if not splits:
        return None
    first, second = ({s: cells[s] for s in splits} for cells in (one, other))
    return median(first, name), median(second, name)


def margin(
    methods: dict[str, dict[int, Cell]], others: Sequence[str], own: str = "ours"
) -> float | None:
    """R2 of one less that of the best of the others, by their test R2."""
    ours = methods.get(own, {})
    pairs = [both(ours, methods[m], "r2") for m in others if m in methods]
    return min((pair[0] - pair[1] for pair in pairs if pair), default=None)


def margins(sets: Sets, others: Sequence[str], own: str = "ours") -> dict[str, float]:
    """The same of each set that has both."""
    found = {name: margin(methods, others, own) for name, methods in sets.items()}
    return {name: less for name, less in found.items() if less is not None}


def score(value: float) -> str:
    return "-" if math.isinf(value) else f"{value:.4f}"


def entry(cells: dict[int, Cell]) -> str:
    """``R2 (seconds)``, of several settings ``R2 (seconds; all N: seconds)``."""
    if not cells:
        return ""
    count = max(cell["settings"] for cell in cells.values())
    every = f"; all {count}: {duration(median(cells, 'all seconds'))}" if count > 1 else ""
    return f"{score(median(cells, 'r2'))} ({duration(median(cells, 'seconds'))}{every})"


def report(results: list[Cell]) -> str:
    """The table: a row a set, a column a method; and what it sums up to, group by group."""
    sets = by_set(results)
    methods = [m for m in METHODS if any(m in found for found in sets.values())]
    columns = ["set", "n x d, q", "splits"]
    columns += ["ours less the best boosting"] * ("ours" in methods)
    columns += [TITLES[m] for m in methods]
    rows = []
    for name in sorted(sets, key=order):
        found = sets[name]
        one = next(iter(next(iter(found.values())).values()))
        splits = max(len(cells) for cells in found.values())
        row = [name, f"{one['n']} x {one['d']}, {one['q']}", str(splits)]
        if "ours" in methods:
            less = margin(found, BOOSTING)
            row.append("" if less is None else f"{less:+.4f}")
        rows.append(row + [entry(found.get(m, {})) for m in methods])
    text = table(columns, rows)
    for title, names in SETS.items():
        text += summary(title, {name: sets[name] for name in names if name in sets})
    known = {name for names in SETS.values() for name in names}
    return text + summary("others", {name: sets[name] for name in sets if name not in known})


def order(name: str) -> int:
    known = [name for names in SETS.values() for name in names]
    return known.index(name) if name in known else len(known)


def summary(title: str, sets: Sets) -> str:
    """Ours against the others on a group of sets: a line a comparison."""
    lines = [line for line in compared(sets) if line]
    if not lines:
        return ""
    return f"\n`{title}`:\n\n" + table(["ours against", "sets", "met on", "median", "worst"], lines)


def compared(sets: Sets) -> Iterator[list[str]]:
    """The rows of a summary: R2, then seconds, rows predicted a second, and the error told."""
    groups = {"the best of boosting": BOOSTING} | {TITLES[m]: (m,) for m in OTHERS}
    for title, others in groups.items():
        less = margins(sets, others)
        yield line(f"R2 of {title}", less, low=True, bound=0.0, form="{:+.4f}")
    large = {name: found for name, found in sets.items() if rows(found) >= LARGE}
    times = ratios(large, "catboost", "seconds")
    what = f"seconds of CatBoost, {LARGE:,} rows and more (at most 3 times)"
    yield line(what, times, low=False, bound=3.0, form="{:.2f}")
    small = {name: found["ours"] for name, found in sets.items() if "ours" in found}
    seconds = {name: median(cells, "seconds") for name, cells in small.items() if name not in large}
    yield line("60 seconds, fewer rows", seconds, low=False, bound=60.0, form="{:.1f} s")
    rates = ratios(sets, "lightgbm", "rate")
    yield line("LightGBM's rows predicted a second", rates, low=True, bound=1.0, form="{:.2f}")
    less = margins(sets, ("lightgbm",), "small")
    yield line("R2 of LightGBM, `max_size=64`", less, low=True, bound=0.0, form="{:+.4f}")
    rates = ratios(sets, "lightgbm", "rate", "small")
    what = "LightGBM's rows predicted a second, `max_size=64`"
    yield line(what, rates, low=True, bound=1.0, form="{:.2f}")
    ours = [cell for cells in small.values() for cell in cells.values()]
    off = [abs(c["r2"] - c["expected_r2"]) / c["expected_r2_spread"] for c in ours if tells(c)]
    if off:
        met = f"{sum(value <= 1 for value in off)} of {len(off)} splits"
        median_off, worst = statistics.median(off), max(off)
        what = "distance of the R2 it expects, in spreads"
        yield [what, str(len(small)), met, f"{median_off:.2f}", f"{worst:.2f}"]


def tells(cell: Cell) -> bool:
    """Whether a run of ours told what R2 it expects, with a spread."""
    return cell.get("expected_r2") is not None and bool(cell.get("expected_r2_spread"))


def rows(found: dict[str, dict[int, Cell]]) -> int:
    return int(next(cell["n"] for cells in found.values() for cell in cells.values()))


def ratios(sets: Sets, other: str, name: str, own: str = "ours") -> dict[str, float]:
    """A figure of ours over that of another method, by set."""
    pairs = {
        where: both(found.get(own, {}), found.get(other, {}), name) for where, found in sets.items()
    }
    return {where: pair[0] / pair[1] for where, pair in pairs.items() if pair}


def line(what: str, values: dict[str, float], *, low: bool, bound: float, form: str) -> list[str]:
    """A row of a summary; ``low``: the least value is the worst, and the bound a lower one."""
    if not values:
        return []
    worst = (min if low else max)(values, key=lambda where: values[where])
    met = sum(value >= bound if low else value <= bound for value in values.values())
    middle, least = form.format(statistics.median(values.values())), form.format(values[worst])
    return [what, str(len(values)), str(met), middle, f"{least} ({worst})"]


def draw(results: list[Cell], path: Path) -> None:
    """Error against seconds: a point a set and method, a large one the median over sets."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    points = relative(by_set(results))
    for i, (method, found) in enumerate(points.items()):
        times, errors = zip(*found, strict=True)
        drawn = [min(error, DRAWN) for error in errors]
        axes.scatter(times, drawn, s=9, alpha=0.4, color=f"C{i}", linewidths=0)
        middle = statistics.median(times), statistics.median(errors)
        label = f"{method} ({len(found)})"
        size = 170 if method == "ours" else 90
        axes.scatter(*middle, s=size, color=f"C{i}", edgecolors="black", label=label, zorder=3)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="CPU seconds of training, one thread",
        ylabel=f"1 - R2 on new rows, over that of the best boosting (at most {DRAWN:g})",
        title="A point a set; large: the median over a method's sets (their number)",
    )
    if points:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def relative(sets: Sets) -> dict[str, list[tuple[float, float]]]:
    """Of each method its seconds and error a set, the error over that of the best boosting."""
    found: dict[str, list[tuple[float, float]]] = {}
    for methods in sets.values():
        scores = {m: median(cells, "r2") for m, cells in methods.items()}
        errors = {m: 1 - value for m, value in scores.items() if math.isfinite(value)}
        least = min((errors[m] for m in BOOSTING if m in errors), default=math.nan)
        if not least > 0:
            continue
        for m in METHODS:
            if m in errors:
                found.setdefault(m, []).append((median(methods[m], "seconds"), errors[m] / least))
    return {m: found[m] for m in METHODS if m in found}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    every = [name for names in SETS.values() for name in names]
    add("--sets", nargs="+", help=f"of {', '.join([*SETS, *every])}; or files (default all)")
    add("--methods", nargs="+", choices=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)}")
    add("--splits", nargs="+", type=int, default=list(range(5)), help="seeds (default 0 1 2 3 4)")
    add("--out", type=Path, default=Path("new-rows.jsonl"), help="default new-rows.jsonl")
    add("--report", action="store_true", help="only tables and picture of the results file")
    add("--quick", action="store_true", help="one small set, one split: a check")
    add("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    asked = options.sets or (["diabetes"] if options.quick else every)
    options.sets = [name for one in asked for name in SETS.get(one, (one,))]
    options.few = options.methods is None  # RealMLP on few sets
    options.methods = options.methods or list(METHODS)
    if options.quick:
        options.splits = options.splits[:1]
        options.methods = [m for m in options.methods if not (options.few and m == "realmlp")]
    return options


def plan(options: argparse.Namespace) -> list[Cell]:
    """All runs that are asked for, the sets in order."""
    return [
        dict(zip(KEYS, (name, split, method, setting), strict=True))
        for name in options.sets
        for split in options.splits
        for method in options.methods
        if method != "realmlp" or not options.few or (name in REALMLP_SETS and split == 0)
        for setting in settings(method)[: 1 if options.quick else None]
    ]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.cell:
        count_cpu_seconds()
        print(json.dumps(run_cell(json.loads(options.cell), options.quick)))
        return
    file: Path = options.out
    results = read(file)
    known = {key(c, KEYS) for c in results}
    todo = [c for c in plan(options) if key(c, KEYS) not in known and not options.report]
    for i, cell in enumerate(todo, start=1):
        print(f"{i}/{len(todo)} " + " ".join(f"{cell[k]}" for k in KEYS), flush=True)
        if package := missing(cell["method"]):
            print(f"  skipped: pip install {package}", flush=True)
            continue
        if (done := spawn(__file__, cell, extra=["--quick"] * options.quick)) is None:
            continue
        print(f"  {score(done['r2'])} in {duration(done['seconds'])}", flush=True)
        append(file, done)
        results.append(done)
        write(results, file)
    if not todo:
        write(results, file)
    print(report(results))


def write(results: list[Cell], file: Path) -> None:
    """Tables and picture, beside the results file."""
    file.with_suffix(".md").write_text(report(results))
    draw(results, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
