"""Tables as they are, with texts, gaps and times: test R2 and CPU seconds of each method.

    python examples/benchmarks/mixed.py              # everything; goes on where it was stopped
    python examples/benchmarks/mixed.py --sets ames penguins --splits 0 --methods ours lightgbm

A set is a table of a package, no column of it changed; rows without the target are left out, and a
fifth of the rows, drawn by the split's seed, is for testing.

    ours         ``AltReLURegressor(random_state=...)`` on the table
    ours-hand    the same on what scikit-learn makes of the table: numbers imputed by their median,
                 texts one-hot (at most 100 levels a column), times as below
    hist, xgboost, lightgbm, catboost
                 their defaults, texts as their own categories, gaps as they take them

Who takes no times gets the seconds, the day of the year, the weekday and the hour as numbers. Each
run is a process of its own; its result is one line of the results file (JSON), and a run that is in
the file already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cells import Cell, append, count_cpu_seconds, duration, key, read, spawn, table
from datasets import _r
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

# A package of R, an item of it, and the target.
SETS = {
    "ames": ("modeldata", "ames", "Sale_Price"),
    "births": ("mosaicData", "Birthdays", "births"),
    "diamonds": ("ggplot2", "diamonds", "price"),
    "flights": ("nycflights13", "flights", "arr_delay"),
    "hotel": ("modeldata", "hotel_rates", "avg_price_per_room"),
    "lending": ("modeldata", "lending_club", "int_rate"),
    "mpg": ("ggplot2", "mpg", "hwy"),
    "penguins": ("palmerpenguins", "penguins", "body_mass_g"),
    "rodents": ("ratdat", "complete", "weight"),
    "storms": ("dplyr", "storms", "wind"),
}
TIMES = {"hotel": "arrival_date", "births": "date", "flights": "time_hour"}  # texts in the package
MOST_ROWS = 40_000
BOOSTING = ("hist", "xgboost", "lightgbm", "catboost")
METHODS = ("ours", "ours-hand", *BOOSTING)
KEYS = ("set", "split", "method")


def data(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """A table and its target."""
    package, item, target = SETS[name]
    frame = _r(package, item)
    frame = frame[frame[target].notna()]
    if len(frame) > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, random_state=0)
    if name in TIMES:
        at = pd.to_datetime(frame[TIMES[name]], utc=True).dt.tz_localize(None)
        frame = frame.assign(**{TIMES[name]: at})
    return frame.drop(columns=target).reset_index(drop=True), frame[target].to_numpy(float)


def spelt(frame: pd.DataFrame) -> pd.DataFrame:
    """Times as numbers, texts as categories."""
    frame = frame.copy()
    for name in frame.columns:
        if pd.api.types.is_datetime64_any_dtype(frame[name]):
            at = frame.pop(name)
            frame[name] = at.astype("datetime64[s]").astype("int64").astype(float)
            frame[f"{name} weekday"] = at.dt.day_of_week
            frame[f"{name} day"] = at.dt.day_of_year
            frame[f"{name} hour"] = at.dt.hour
        elif not pd.api.types.is_numeric_dtype(frame[name]):
            texts = frame[name].astype(object)
            frame[name] = texts.where(texts.isna(), texts.astype(str)).astype("category")
    return frame


def fit(method: str, X: pd.DataFrame, y: np.ndarray, seed: int) -> tuple[Any, Any]:
    """A trained model, and what is done to a table before it predicts."""
    if method == "ours":
        from altrelu_dist import AltReLURegressor

        return AltReLURegressor(random_state=seed).fit(X, y), lambda frame: frame
    spelt_X = spelt(X)
    texts = list(spelt_X.select_dtypes("category"))
    known = {name: spelt_X[name].dtype for name in texts}

    def ready(frame: pd.DataFrame) -> pd.DataFrame:
        return spelt(frame).astype(known)

    model: Any
    if method == "ours-hand":
        from altrelu_dist import AltReLURegressor

        levels = OneHotEncoder(
            max_categories=100, handle_unknown="infrequent_if_exist", sparse_output=False
        )
        by_hand = make_column_transformer(
            (levels, make_column_selector(dtype_include="category")),
            remainder=SimpleImputer(strategy="median"),
        )
        model = make_pipeline(by_hand, AltReLURegressor(random_state=seed))
    elif method == "hist":
        from sklearn.ensemble import HistGradientBoostingRegressor

        # It takes at most 255 levels of a column; those beyond are numbers.
        few = [name for name in texts if len(known[name].categories) <= 255]
        known |= dict.fromkeys(few, "category")
        coded = [name for name in texts if name not in few]

        def ready(frame: pd.DataFrame) -> pd.DataFrame:
            frame = spelt(frame).astype(dict.fromkeys(texts, object))
            frame = frame.astype({name: spelt_X[name].dtype for name in texts})
            return frame.assign(**{name: frame[name].cat.codes for name in coded})

        model = HistGradientBoostingRegressor(random_state=seed, categorical_features=few)
    elif method == "lightgbm":
        from lightgbm import LGBMRegressor

        model = LGBMRegressor(random_state=seed, n_jobs=1, verbosity=-1)
    elif method == "xgboost":
        from xgboost import XGBRegressor

        model = XGBRegressor(random_state=seed, n_jobs=1, enable_categorical=True)
    else:
        from catboost import CatBoostRegressor

        def ready(frame: pd.DataFrame) -> pd.DataFrame:
            frame = spelt(frame)
            words = {
                name: frame[name].astype(object).fillna("missing").astype(str) for name in texts
            }
            return frame.assign(**words)

        silent = {"verbose": False, "allow_writing_files": False}
        model = CatBoostRegressor(random_seed=seed, thread_count=1, cat_features=texts, **silent)
    return model.fit(ready(X), y), ready


def run_cell(cell: Cell) -> Cell:
    """Train once, in this process, and score on the test rows."""
    X, y = data(cell["set"])
    X, test_X, y, test_y = train_test_split(X, y, test_size=0.2, random_state=cell["split"])
    begin = time.perf_counter()
    model, ready = fit(cell["method"], X, y, cell["split"])
    seconds = time.perf_counter() - begin
    found = {"n": len(X) + len(test_X), "d": X.shape[1], "seconds": seconds}
    return found | {"r2": float(r2_score(test_y, model.predict(ready(test_X))))}


def report(results: list[Cell]) -> str:
    """A row a set, a column a method, medians over splits; ours less the best of boosting."""
    rows, above, by_hand = [], [], []
    for name in SETS:
        cells = [cell for cell in results if cell["set"] == name]
        if not cells:
            continue
        found = {}
        for method in METHODS:
            own = [cell for cell in cells if cell["method"] == method]
            if own:
                middle = [statistics.median(c[k] for c in own) for k in ("r2", "seconds")]
                found[method] = middle[0], middle[1]
        best = max((found[m][0] for m in BOOSTING if m in found), default=None)
        less = found["ours"][0] - best if best is not None and "ours" in found else None
        above += [] if less is None else [less >= 0]
        if "ours" in found and "ours-hand" in found:
            by_hand.append(found["ours"][0] >= found["ours-hand"][0])
        texts = [
            f"{found[m][0]:.4f} ({duration(found[m][1])})" if m in found else "" for m in METHODS
        ]
        size = f"{cells[0]['n']} x {cells[0]['d']}"
        rows.append([name, size, *texts, "" if less is None else f"{less:+.4f}"])
    columns = ["set", "n x d", *METHODS, "ours less the best boosting"]
    return (
        f"{table(columns, rows)}\nours at or above the best of boosting: {sum(above)} of "
        f"{len(above)}; at or above ours-hand: {sum(by_hand)} of {len(by_hand)}\n"
    )


def main(arguments: list[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--splits", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("mixed.jsonl"))
    parser.add_argument("--report", action="store_true", help="only the table of the results file")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.cell:
        count_cpu_seconds()
        print(json.dumps(run_cell(json.loads(options.cell))))
        return
    results = read(options.out)
    known = {key(cell, KEYS) for cell in results}
    todo = [
        dict(zip(KEYS, (name, split, method), strict=True))
        for split in options.splits
        for name in options.sets
        for method in options.methods
    ]
    for cell in todo if not options.report else ():
        if key(cell, KEYS) in known:
            continue
        package = cell["method"] if cell["method"] in ("xgboost", "lightgbm", "catboost") else ""
        print(" ".join(str(cell[name]) for name in KEYS), flush=True)
        if package and find_spec(package) is None:
            print(f"  skipped: pip install {package}", flush=True)
        elif (done := spawn(__file__, cell)) is not None:
            print(f"  {done['r2']:.4f} in {duration(done['seconds'])}", flush=True)
            append(options.out, done)
            results.append(done)
    print(report(results))


if __name__ == "__main__":
    main()
