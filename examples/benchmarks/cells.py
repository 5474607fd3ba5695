"""Runs of a benchmark: each a process of its own, its result a line of a file, made only once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from altrelu_dist import AltReLURegressor, Network, Progress

Cell = dict[str, Any]  # what is run, and after its run what was found
LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM")


def count_cpu_seconds() -> None:
    """Make the CPU time of this process its clock: other processes of the machine do not count.

    The package and the baselines ask ``time.perf_counter``, for ``max_time`` too. Only for a
    process of one busy thread: CPU seconds of several add up.
    """
    time.perf_counter = time.process_time


def spawn(script: str, cell: Cell, threads: int = 1, extra: Sequence[str] = ()) -> Cell | None:
    """Run one cell in a process of so many threads; None where it failed, the reason printed."""
    environment = os.environ | {f"{library}_NUM_THREADS": str(threads) for library in LIBRARIES}
    command = [sys.executable, script, "--cell", json.dumps(cell), *extra]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True)
        return None
    return cell | dict(json.loads(done.stdout.splitlines()[-1]))


def read(file: Path) -> list[Cell]:
    """All results of a file; none where there is no file yet."""
    return list(map(json.loads, file.read_text().splitlines())) if file.exists() else []


def append(file: Path, cell: Cell) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(cell) + "\n")


def key(cell: Cell, names: Iterable[str]) -> str:
    """What tells a cell from all others."""
    return json.dumps([cell[name] for name in names])


class Snapshots:
    """Networks of a run that goes on, taken ever more rarely; their losses are computed after it.

    A callback of the estimator. Seconds are counted from the first `start`.
    """

    def __init__(self, growth: float = 1.15, first: float = 0.02) -> None:
        self.networks: list[tuple[float, Network]] = []
        self.losses: list[tuple[float, float]] = []  # over all rows, where the run tells them
        self.model: AltReLURegressor | None = None
        self._growth, self._next = growth, first
        self._begin = time.perf_counter()

    def start(self, model: AltReLURegressor) -> None:
        """Follow this model's next fit."""
        self.model = model.set_params(callback=self)
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin

    def __call__(self, progress: Progress) -> None:
        seconds, loss = self.seconds, progress.loss
        if math.isfinite(loss) and not (self.losses and loss == self.losses[-1][1]):
            self.losses.append((seconds, loss))
        if seconds < self._next or self.model is None:
            return
        self._next = seconds * self._growth
        network = self.model.network_so_far()
        if network is not None and not (self.networks and same(network, self.networks[-1][1])):
            self.networks.append((seconds, network))


def same(one: Network, other: Network) -> bool:
    return all(
        a.shape == b.shape and bool((a == b).all())
        for a, b in (
            (one.hidden_weights, other.hidden_weights),
            (one.output_weights, other.output_weights),
        )
    )


def reached(cell: Cell, loss: float) -> float:
    """Seconds until a run's loss was at or below this one; infinite where it never was."""
    return next((point[0] for point in cell["trace"] if point[1] <= loss), math.inf)


def loss_at(cell: Cell, seconds: float) -> float:
    """Least loss that a run had within so many seconds; infinite where it had no network yet."""
    return min((point[1] for point in cell["trace"] if point[0] <= seconds), default=math.inf)


def number(mse: float) -> str:
    if math.isinf(mse):
        return "-"
    return f"{mse:.3g}" if mse < 1e-3 else f"{mse:.4f}".removeprefix("0")


def duration(seconds: float) -> str:
    if math.isinf(seconds):
        return "-"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [columns, *rows]
    marked = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([marked[0], "|---" * len(columns) + "|", *marked[1:]]) + "\n"
