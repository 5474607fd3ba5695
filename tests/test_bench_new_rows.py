"""`new_rows.py`: scores are those of the test rows, methods are compared on equal terms."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def bench(name: str) -> ModuleType:
    return importlib.import_module(name)


def cell(method: str, split: int, r2: float, seconds: float, **more: Any) -> dict[str, Any]:
    made = {"set": "concrete", "split": split, "method": method, "setting": 0.0, "r2": r2}
    return made | {"n": 90, "d": 2, "q": 1, "seconds": seconds, "rate": 1e5} | more


def saved(tmp_path: Path, q: int = 1) -> str:
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 3)) * [1, 10, 100] + 50
    y = X @ random.normal(size=(3, q)) * 1e3 + 1e5
    np.savez(tmp_path / "mine.npz", X=X, y=y)
    return str(tmp_path / "mine.npz")


def test_each_set_is_chosen_on_or_reported() -> None:
    datasets, new_rows = bench("datasets"), bench("new_rows")
    names = [name.partition("@")[0] for name in new_rows.CHOOSE_NEW + new_rows.REPORT_NEW]
    assert sorted(names) == sorted(datasets.LOADERS)
    asked = new_rows.parse(["--sets", "choose", "mine.npz", "made"]).sets
    assert asked == [*new_rows.CHOOSE_NEW, "mine.npz", *bench("made").MADE]
    cells = new_rows.plan(new_rows.parse(["--splits", "0", "1"]))
    slow = [(c["set"], c["split"]) for c in cells if c["method"] == "realmlp"]
    assert slow == [(name, 0) for name in new_rows.parse([]).sets if name in new_rows.REALMLP_SETS]
    explicit = new_rows.parse(["--splits", "3", "--methods", "realmlp", "--sets", "houses"])
    assert len(new_rows.plan(explicit)) == 1


@pytest.mark.parametrize(
    ("name", "informative", "share"),
    [("line", range(20), 0.8), ("noise", [], 0.0), ("rows50", range(5), 0.8), ("needle", [500], 0)],
)
def test_made_sets(name: str, informative: list[int], share: float) -> None:
    """Least squares leaves the noise; the columns that matter are the ones that are said to."""
    X, y = bench("made").MADE[name]()
    assert X.dtype == y.dtype == np.float32
    chosen = X[:, list(informative)]
    if name == "needle":
        chosen, share = np.column_stack([chosen, np.abs(chosen)]), 0.9
    inputs = np.column_stack([chosen, np.ones(len(X))]).astype(np.float64)
    left = y[:, 0] - inputs @ np.linalg.lstsq(inputs, y[:, 0], rcond=None)[0]
    assert 1 - left.var() / y.var() == pytest.approx(share, abs=0.08)
    others = np.delete(X, list(informative), axis=1)
    if others.size:
        assert np.abs(others.T @ left).max() < 5 * len(X) ** 0.5 * left.std()


def test_wide_set_has_fewer_rows_than_columns_and_a_linear_truth() -> None:
    new_rows = bench("new_rows")
    done = new_rows.run_cell({"set": "wide", "split": 0, "method": "ridge", "setting": 0.0})
    assert done["n"] < done["d"]
    assert 0.7 < done["r2"] < 0.95


@pytest.mark.parametrize("method", ["ours", "hist", "mlp", "ridge", "adam"])
def test_cells(method: str, tmp_path: Path) -> None:
    """Columns and targets of any scale, two targets: nearly linear rows are nearly explained."""
    if method == "adam":
        pytest.importorskip("torch")
    new_rows = bench("new_rows")
    where = {"set": f"{saved(tmp_path, 2)}@150", "split": 1, "method": method, "setting": 1e-2}
    done = new_rows.run_cell(where, quick=True)
    assert (done["n"], done["d"], done["q"]) == (150, 3, 2)
    assert (0.999 if method == "ridge" else 0.5) < done["r2"] <= 1
    assert done["seconds"] > 0
    assert done["rate"] > 100
    json.dumps(done)


def test_score_is_of_the_test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that predicts the training mean, its R2 by hand; training rows are the others."""
    new_rows = bench("new_rows")
    X, y = new_rows.data(saved(tmp_path, 2))
    seen: list[np.ndarray] = []

    def mean(_: str, rows: np.ndarray, targets: np.ndarray, *__: Any) -> tuple[Any, Any]:
        seen.append(rows)
        return lambda new: np.tile(targets.mean(axis=0), (len(new), 1)), {}

    monkeypatch.setattr(new_rows, "fit", mean)
    done = new_rows.run_cell(
        {"set": str(tmp_path / "mine.npz"), "split": 0} | dict.fromkeys(("method", "setting"))
    )
    trained = (X[:, None] == seen[0][None]).all(axis=2).any(axis=1)
    assert trained.sum() == 160
    errors = ((y[~trained] - y[trained].mean(axis=0)) ** 2).mean(axis=0) / y[~trained].var(axis=0)
    assert done["r2"] == pytest.approx(1 - errors.mean(), rel=1e-3)


def test_best_setting_by_validation_and_margin_on_common_splits() -> None:
    new_rows = bench("new_rows")
    cells = [
        cell("ours", 0, 0.80, 2.0),
        cell("ours", 1, 0.90, 4.0),
        cell("hist", 0, 0.70, 1.0),
        cell("hist", 1, 0.86, 1.0),
        cell("hist", 2, 0.99, 1.0),  # ours has no such split
        cell("catboost", 1, 0.95, 8.0),
        cell("adam", 0, 0.6, 1.0, setting=0.01, validation=0.3),
        cell("adam", 0, 0.9, 3.0, setting=0.03, validation=0.4),
    ]
    methods = new_rows.by_set(cells)["concrete"]
    assert new_rows.margin(methods, ("hist",)) == pytest.approx(0.85 - 0.78)
    assert new_rows.margin(methods, ("hist", "catboost")) == pytest.approx(0.90 - 0.95)
    assert new_rows.margin(methods, ("adam",)) == pytest.approx(0.2)
    assert new_rows.margin(methods, ("ridge",)) is None
    assert new_rows.entry(methods["adam"]) == "0.6000 (1 s; all 2: 4 s)"
    row = new_rows.report(cells).splitlines()[2]
    assert row == (
        "| concrete | 90 x 2, 1 | 3 | -0.0500 | 0.8500 (3 s) | 0.8600 (1 s) | 0.9500 (8 s) "
        "| 0.6000 (1 s; all 2: 4 s) |"
    )


def test_summary() -> None:
    new_rows = bench("new_rows")
    large = {"set": "storms", "n": 20_000}
    told = {"expected_r2": 0.85, "expected_r2_spread": 0.06}
    cells = [
        cell("ours", 0, 0.80, 2.0, **told),
        cell("catboost", 0, 0.79, 1.0),
        cell("lightgbm", 0, 0.70, 1.0, rate=2e5),
        cell("ours", 0, 0.70, 9.0, **large | told),
        cell("catboost", 0, 0.75, 2.0, **large),
    ]
    text = new_rows.report(cells)
    lines = {row[0]: row[1:] for line in text.splitlines() if (row := line.split(" | "))}
    assert lines["| R2 of the best of boosting"] == ["2", "1", "-0.0200", "-0.0500 (storms) |"]
    (times,) = (row for title, row in lines.items() if "seconds of CatBoost" in title)
    assert times == ["1", "0", "4.50", "4.50 (storms) |"]
    assert lines["| 60 seconds, fewer rows"] == ["1", "1", "2.0 s", "2.0 s (concrete) |"]
    rate = ["1", "0", "0.50", "0.50 (concrete) |"]
    assert lines["| LightGBM's rows predicted a second"] == rate
    (told_row,) = (row for title, row in lines.items() if "it expects" in title)
    assert told_row == ["2", "1 of 2 splits", "1.67", "2.50 |"]


def test_errors_of_the_picture_are_over_those_of_the_best_boosting() -> None:
    new_rows = bench("new_rows")
    cells = [cell("ours", 0, 0.8, 2.0), cell("hist", 0, 0.6, 1.0), cell("catboost", 0, 0.9, 5.0)]
    points = new_rows.relative(new_rows.by_set(cells))
    assert {m: [pytest.approx(point) for point in found] for m, found in points.items()} == {
        "ours": [(2.0, 2.0)],
        "hist": [(1.0, 4.0)],
        "catboost": [(5.0, 1.0)],
    }


def test_runs_are_kept_and_what_is_not_installed_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_rows = bench("new_rows")
    results = tmp_path / "r.jsonl"
    arguments = ["--quick", "--sets", saved(tmp_path), "--out", str(results), "--methods"]
    monkeypatch.setitem(new_rows.PACKAGES, "catboost", "nosuch")
    new_rows.main([*arguments, "ridge", "catboost"])
    first = capsys.readouterr().out
    assert "  skipped: pip install nosuch\n" in first
    (done,) = map(json.loads, results.read_text().splitlines())
    assert done["r2"] > 0.999
    assert results.with_suffix(".png").stat().st_size > 5_000
    new_rows.main([*arguments, "ridge"])
    again = capsys.readouterr().out
    assert "1/1" not in again, "a run that is in the file was repeated"
    assert again.strip() == results.with_suffix(".md").read_text().strip()
