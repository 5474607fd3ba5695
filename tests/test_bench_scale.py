"""The scaling benchmark runs as its documentation says and prints figures that can be true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "scale.py"
TABLES = (
    "Streaming",
    "Where the time",
    "Two workers",
    "Dask's cost",
    "Passes",
    "A worker's",
    "The plan",
)


@pytest.mark.cluster
def test_quick_tables_have_sane_figures(tmp_path):
    found = tmp_path / "scale.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json", found],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    results = json.loads(found.read_text())
    del results["load before"]
    assert len(results) == len(TABLES)
    for start, (title, rows) in zip(TABLES, results.items(), strict=True):
        assert title.startswith(start)
        assert f"### {title}\n" in done.stdout
        assert rows
        for row in rows:
            for name, value in row.items():
                # Parts found by a difference can be below zero by what the clock is off.
                if not isinstance(value, str) and name not in ("decompress", "Dask"):
                    assert value > 0, name
    streaming, parts, workers, dask, passes, memory, plans = results.values()
    assert {row["bytes from"] for row in streaming} == {"disk", "memory"}
    for row in parts:
        known = ("read", "decompress", "standardise", "compute", "reduce", "Dask")
        assert sum(row[name] for name in known) == pytest.approx(row["seconds"])
    assert 0.1 < workers[0]["one / two"] < 4
    assert all(0.2 < row["with / without"] < 20 for row in dask)
    assert all(row["tasks a block"] <= 6 for row in passes)
    assert all(0.5 < row["over that of the fewest rows"] < 2 for row in memory)
    assert all(row["from, s"] <= row["plan, s"] <= row["to, s"] for row in plans)
