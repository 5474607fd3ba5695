"""How a pass scales: rows, columns, neurons, workers; and where its time and memory go.

    python examples/benchmarks/scale.py             # the tables: some minutes of two cores
    python examples/benchmarks/scale.py --full      # also 10^8 rows, and more fits
    python examples/benchmarks/scale.py --quick     # a check that it works
    python examples/benchmarks/scale.py --json scale.json

Rows are generated block by block in the tasks, and never held, or read from a Zarr store in a
temporary folder (of about 1 GiB: TMPDIR says where). What is compared runs in turns, and the least
time of several counts. Clusters are processes on loopback with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, some seconds")
    size.add_argument("--full", action="store_true", help="also 10^8 rows, and more fits")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    results: dict[str, Any] = {"load before": os.getloadavg()[0]}
    print(f"Load average before: {results['load before']:.1f}", end="")
    print("; above 1, other processes make ratios doubtful" * (results["load before"] > 1))
    measure(options, results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    # Imported here: a worker process imports this file, and its peak memory is measured.
    from scale_clock import processes, table
    from scale_passes import measure_dask, measure_passes, measure_workers, memory_ratios
    from scale_plans import measure_plans
    from scale_sizes import DEFAULT, FULL, QUICK
    from scale_store import measure_parts, measure_streaming

    sizes = QUICK if options.quick else FULL if options.full else DEFAULT
    with tempfile.TemporaryDirectory(prefix="altrelu-scale-") as name:
        folder = Path(name)
        with processes(1) as one, processes(2) as two:
            streamed = measure_streaming(sizes, folder, two)
            table("Streaming an uncompressed Zarr (target: 1.20)", streamed, results)
            parts = measure_parts(sizes, folder, one)
            table("Where the time of a pass goes, seconds, one worker", parts, results)
            gained = measure_workers(sizes, one, two)
            table("Two workers against one (target: 1.85)", gained, results)
        table("Dask's cost (target: 1.10)", measure_dask(sizes), results)
        passes = measure_passes(sizes)
        table("Passes over rows that are generated", passes, results)
        memory_ratios(passes, results)
        table("The plan and the fit", measure_plans(sizes, folder), results)


if __name__ == "__main__":
    main()
