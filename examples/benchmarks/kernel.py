"""The kernels of a pass, one thread: fractions of this machine's GEMM peak, and peak memory.

    python examples/benchmarks/kernel.py             # the table, about two minutes
    python examples/benchmarks/kernel.py --quick     # a check that it works
    python examples/benchmarks/kernel.py --json kernel.json

Every figure is of one task, a tile of 4,096 random rows. Fractions are of the multiply-adds of the
definition, each counted once: n h (h + 1) / 2 p (p + 1) / 2 for the Gram matrix, 2 n h (p + q) for
loss and gradient, flips times h p (p + 1) / 2 for the update. What is compared runs in turns, and
the least time of several counts (the thread's, of a core: others that wait for it count little);
tasks of a second or more run once.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.engine import TILE
from altrelu_dist.moments import Block, LossAndGradient, PatternDelta, PatternMoments, Weights
from altrelu_dist.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = (
    *((8, 5), (16, 9), (32, 16), (32, 36), (64, 15), (64, 33), (128, 33), (64, 65), (128, 65)),
    *((32, 129), (16, 400), (256, 129)),
)
QUICK = ((8, 5), (16, 9), (32, 16), (32, 80))
FLIPS = 0.01
PEAK_SIZE = 1024
# Columns of the explicit design above which its Gram matrix is not computed: its time is then
# taken to be that of its multiply-adds at the GEMM peak, which it does not reach.
MOST_COLUMNS = 4500
LONG = 1.0  # seconds


def least_times(
    tasks: dict[str, Callable[[], Any]], seconds: dict[str, float], repeats: int
) -> None:
    """Lower each task's seconds to its least, run in turns; a long task does not run again."""
    for _ in range(repeats):
        for name, task in tasks.items():
            if seconds.get(name, 0) < LONG:
                start = time.thread_time()
                task()
                seconds[name] = min(seconds.get(name, np.inf), time.thread_time() - start)


def peak_memory(task: Callable[[], Any]) -> tuple[float, float]:
    """Most MiB that a task holds at once, its result included, its rows not; and its seconds."""
    tracemalloc.start()
    start = time.thread_time()
    task()
    seconds = time.thread_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20, seconds


def explicit_gram(block: Block, W: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrix of S (x) x by SYRK, NumPy's way to multiply an array by itself; and N."""
    x, y = block
    targets = np.hstack([y, x[:, -1:]])
    h, p = W.shape[1], x.shape[1]
    gram = np.zeros((h * p, h * p), dtype=x.dtype)
    cross = np.zeros((h * p, targets.shape[1]), dtype=x.dtype)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        pattern = (part @ W.astype(x.dtype) > 0).astype(x.dtype)
        design = (pattern[:, :, None] * part[:, None, :]).reshape(len(part), h * p)
        gram += design.T @ design
        cross += design.T @ targets[start : start + rows]
    return gram.astype(float), cross.astype(float)


def moved(x: np.ndarray, W: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A hidden layer under which about `FLIPS` of the signs are others."""
    direction, size = rng.standard_normal(W.shape), FLIPS
    for _ in range(4):
        share = np.mean((x @ W > 0) != (x @ (W + size * direction) > 0))
        size *= FLIPS / max(share, FLIPS / 10)
    return W + size * direction


def measure(h: int, p: int, dtype: str, repeats: int, peaks: dict[str, float]) -> dict[str, Any]:
    """One row of the table; ``peaks`` has the highest peak so far of each dtype."""
    rng = np.random.default_rng([h, p])
    x = rng.standard_normal((TILE, p))
    x[:, -1] = 1
    block = Block(x.astype(dtype), rng.standard_normal((TILE, 1)).astype(dtype))
    W = rng.standard_normal((p, h))
    weights = Weights(W, rng.standard_normal((h, 1)), np.zeros(1))
    square = rng.standard_normal((PEAK_SIZE, PEAK_SIZE)).astype(dtype)
    delta = PatternDelta(W, moved(x, W, rng))
    kernels = {
        "gram": lambda: PatternMoments(W)(block),
        "delta": lambda: delta(block),
        "loss": lambda: LossAndGradient(weights)(block),
    }
    first = {name: peak_memory(kernel) for name, kernel in kernels.items()}
    memory = {name: mib for name, (mib, _) in first.items()}
    seconds = {name: spent for name, (_, spent) in first.items()}
    tasks = dict(kernels)
    if h * p <= MOST_COLUMNS:
        for rows in (512, TILE):
            tasks[f"explicit {rows}"] = lambda rows=rows: explicit_gram(block, W, rows)
    # Short tasks are disturbed most, and cost least to repeat. The large product takes no turns
    # with them: the task after it would find nothing of its rows in the caches.
    least_times({"peak": lambda: square @ square}, seconds, repeats)
    least_times(tasks, seconds, repeats * (10 if h * p < 1000 else 1))
    peak = peaks[dtype] = max(peaks.get(dtype, 0.0), PEAK_SIZE**3 / seconds["peak"])
    columns = h * p
    bound = TILE * columns * (columns + 1) / 2 / peak
    explicit = min((s for name, s in seconds.items() if "explicit" in name), default=bound)
    flips = delta(block).flips if seconds["delta"] < LONG else round(FLIPS * TILE * h)
    pairs = p * (p + 1) // 2
    necessary = {
        "gram": TILE * h * (h + 1) / 2 * pairs,
        "delta": flips * h * pairs,
        "loss": TILE * h * (2 * p + 2),
    }
    return {
        "h": h,
        "p": p,
        "dtype": dtype,
        "peak": peak / 1e9,
        **{f"{name}_fraction": work / peak / seconds[name] for name, work in necessary.items()},
        **{f"{name}_ns": seconds[name] / TILE * 1e9 for name in necessary},
        **{f"{name}_mib": memory[name] for name in necessary},
        "syrk_ratio": explicit / seconds["gram"],
        "syrk_is_bound": columns > MOST_COLUMNS,
        "delta_speedup": seconds["gram"] / seconds["delta"],
    }


HEADER = (
    "| h | p | dtype | peak, G/s | Gram: of peak | ns a row | times SYRK's speed | MiB "
    "| update: of peak | times a rebuild's speed | MiB "
    "| loss, gradient: of peak | ns a row | MiB |\n"
    "|" + "---|" * 14
)


def line(row: dict[str, Any]) -> str:
    ratio = ("> " if row["syrk_is_bound"] else "") + f"{row['syrk_ratio']:.1f}"
    cells = (
        *(row["h"], row["p"], row["dtype"], f"{row['peak']:.0f}"),
        *(f"{row['gram_fraction']:.2f}", f"{row['gram_ns']:,.0f}", ratio),
        f"{row['gram_mib']:,.0f}",
        *(f"{row['delta_fraction']:.2f}", f"{row['delta_speedup']:.1f}"),
        f"{row['delta_mib']:,.0f}",
        *(f"{row['loss_fraction']:.2f}", f"{row['loss_ns']:,.0f}", f"{row['loss_mib']:.1f}"),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few small shapes, a few seconds")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    peaks: dict[str, float] = {}
    print(HEADER)
    for h, p in QUICK if options.quick else SHAPES:
        for dtype in ("float32", "float64"):
            with one_blas_thread():
                rows.append(measure(h, p, dtype, 3 if options.quick else 7, peaks))
            print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
