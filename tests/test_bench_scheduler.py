"""The benchmark of Dask's scheduler runs as it says and prints figures that can be true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "scheduler.py"
pytestmark = [pytest.mark.cluster, pytest.mark.alone]

TABLES = ("Passes on stub", "Passes on real", "By the merge's", "Fan-in at which", "What planning")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What it prints, and its tables."""
    found = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json", found],
        check=True, capture_output=True, text=True, timeout=300, env=environment(),
    )  # fmt: skip
    results = json.loads(found.read_text())
    assert results.pop("seconds") > 0
    del results["load before"], results["a task, by worker"]
    return done.stdout, results


def merges(blocks, fan_in):
    """How many tasks merge so many blocks."""
    count, level = 0, blocks
    while level > 1 or count == 0:
        level = -(-level // fan_in)
        count += level
    return count


def test_quick_tables_are_complete(printed):
    stdout, results = printed
    assert len(results) == len(TABLES)
    for start, (title, rows) in zip(TABLES, results.items(), strict=True):
        assert title.startswith(start)
        assert f"### {title}\n" in stdout
        assert rows
        assert all(
            value > 0 for row in rows for value in row.values() if not isinstance(value, str)
        )
    assert "Best fan-in by 'scheduler, s': " in stdout


def test_a_pass_is_one_task_a_block_its_merges_and_the_weights(printed):
    """On stubs as on real workers: they are sent what those are, and say what those say."""
    stubs, real, *_ = printed[1].values()
    for row in [*stubs, *real]:
        assert row["tasks"] == row["blocks"] + merges(row["blocks"], 8) + 1
        # Each is sent and told of at least, and both in no more bytes than a few KiB.
        assert row["messages out"] >= row["tasks"]
        assert row["in"] >= row["tasks"]
        assert 1 < row["KiB out a task"] < 5
        assert 0.1 < row["KiB in a task"] < 5
        assert row["batches out"] <= row["messages out"]
    alone = [next(row for row in rows if row["workers"] == 1) for rows in (stubs, real)]
    assert alone[0]["blocks"] == alone[1]["blocks"]
    assert 0.5 < alone[0]["messages out"] / alone[1]["messages out"] < 2


def test_a_task_costs_the_scheduler_no_more_with_more_blocks(printed):
    stubs, *_ = printed[1].values()
    few, many = (row for row in stubs if row["workers"] == 10)
    assert many["blocks"] == 10 * few["blocks"]
    assert many["scheduler, ms a task"] < 3 * few["scheduler, ms a task"]
    assert many["KiB out a task"] < 2 * few["KiB out a task"]


def test_a_larger_fan_in_is_fewer_tasks_and_messages(printed):
    _, _, measured, planned, _ = printed[1].values()
    assert [row["fan-in"] for row in measured] == [2, 8, 32]
    for what in ("tasks", "messages"):
        name = next(name for name in measured[0] if name.startswith(what) and "stubs" in name)
        counts = [row[name] for row in measured]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > counts[-1]
    assert [row["levels"] for row in planned] == [8, 3, 2]
