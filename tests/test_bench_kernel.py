"""The kernel benchmark runs as its documentation says and prints figures that can be true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "kernel.py"
SHAPES = [(8, 5), (16, 9), (32, 16), (32, 80)]


@pytest.mark.alone
def test_quick_table_has_all_shapes_and_sane_figures(tmp_path):
    found = tmp_path / "kernel.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json", found],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    rows = json.loads(found.read_text())
    expected = [(*shape, dtype) for shape in SHAPES for dtype in ("float32", "float64")]
    assert [(row["h"], row["p"], row["dtype"]) for row in rows] == expected
    printed = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(printed) == 1 + len(rows)
    assert len({line.count("|") for line in printed}) == 1
    for row in rows:
        # Rows that share a pattern are added up once, so the Gram matrix passes the GEMM's peak.
        assert 0 < row["gram_fraction"] < 8
        assert 0 < row["delta_fraction"] < 1.3
        assert 0 < row["loss_fraction"] < 1.3
        assert row["syrk_ratio"] > 0.1
        assert row["delta_speedup"] > 0.1
        for kernel in ("gram", "delta", "loss"):
            assert 0 < row[f"{kernel}_mib"] < 1000
            assert row[f"{kernel}_ns"] > 0
