"""Passes over rows on disk: against reading alone, and by part."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from scale_clock import Row, in_turns, product_rate
from scale_rows import statistics, unit_scaler
from scale_sizes import BLOCK_BYTES, MIB, Sizes

from altrelu_dist import open_dataset
from altrelu_dist.engine import TILE, DaskEngine
from altrelu_dist.moments import Rows
from altrelu_dist.threads import n_threads, one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client


class Store:
    """X and y in uncompressed Zarr chunks, or compressed ones."""

    def __init__(self, address: Path, nbytes: int, d: int, *, compressed: bool = False) -> None:
        self.address = address
        self.chunk = min(BLOCK_BYTES, nbytes // 4) // (4 * d)
        self.rows = nbytes // (4 * d) // self.chunk * self.chunk
        group = zarr.create_group(str(address))
        self.arrays = [
            group.create_array(
                name,
                shape=(self.rows, columns),
                chunks=(self.chunk, columns),
                dtype="float32",
                compressors=zarr.codecs.ZstdCodec(level=1) if compressed else None,
            )
            for name, columns in (("X", d), ("y", 1))
        ]
        rng = np.random.default_rng(0)
        for at in range(0, self.rows, self.chunk):
            for array in self.arrays:
                values = rng.standard_normal((self.chunk, array.shape[1]), dtype=np.float32)
                array[at : at + self.chunk] = np.round(values * 16) / 16  # as data that compress

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def engine(self, client: Client | None = None) -> DaskEngine:
        data = open_dataset(self.address)
        engine = DaskEngine(data.X, data.y, client=client)
        return engine.prepared(unit_scaler(data.X.shape[1]))

    def read(self, threads: int) -> None:
        """All bytes, by Zarr alone."""

        def block(at: int) -> None:
            for array in self.arrays:
                array[at : at + self.chunk]

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(block, range(0, self.rows, self.chunk)))

    def forget(self) -> None:
        """Take the files out of the system's cache, where that can be asked for."""
        os.sync()
        for path in self.address.rglob("*"):
            if path.is_file() and hasattr(os, "posix_fadvise"):
                file = os.open(path, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def measure_streaming(sizes: Sizes, folder: Path, two: Client) -> list[Row]:
    d = 64
    store = Store(folder / "plain.zarr", sizes.store_bytes, d)
    threads = max(2, n_threads())
    rate = product_rate()
    rows = []
    here, there = store.engine(), store.engine(two)
    for where in ("disk", "memory"):
        tasks: dict[str, Callable[[], Any]] = {
            "zarr": lambda: store.read(1),
            "zarr, threads": lambda: store.read(threads),
        }
        for h in sizes.streamed:
            loss = statistics(d, h)["loss and gradient"]
            tasks[f"threads {h}"] = lambda s=loss: here.reduce(s, "loss")
            tasks[f"processes {h}"] = lambda s=loss: there.reduce(s, "loss")
        forget = store.forget if where == "disk" else None
        found = in_turns(tasks, min(2, sizes.repeats), forget)
        fastest = min(found["zarr"], found["zarr, threads"])
        for h in sizes.streamed:
            work = 2 * store.rows * h * (d + 1) / rate / threads
            rows.append(
                {
                    "bytes from": where,
                    "MiB": store.nbytes / MIB,
                    "neurons": h,
                    "zarr alone, s": found["zarr"],
                    f"zarr, {threads} threads, s": found["zarr, threads"],
                    f"pass, {threads} threads, s": found[f"threads {h}"],
                    "pass, 2 processes, s": found[f"processes {h}"],
                    "2 n h p at GEMM's speed, of the read": work / fastest,
                    "pass / zarr": min(found[f"threads {h}"], found[f"processes {h}"])
                    / found["zarr"],
                    "pass / zarr with threads": min(found[f"threads {h}"], found[f"processes {h}"])
                    / found["zarr, threads"],
                }
            )
    return rows


def measure_parts(sizes: Sizes, folder: Path, client: Client) -> list[Row]:
    """Seconds of one thread by part: what reads and computes is timed alone, Dask has the rest."""
    d, h = 16, 16
    nbytes = min(sizes.store_bytes, 128 * MIB)
    plain = Store(folder / "parts.zarr", nbytes, d)
    packed = Store(folder / "packed.zarr", nbytes, d, compressed=True)
    X, y = (np.asarray(array[: min(16 * TILE, plain.rows)]) for array in plain.arrays)
    raw = [
        Rows(at, X[at : at + TILE], y[at : at + TILE]) for at in range(0, len(X) - TILE + 1, TILE)
    ]
    tiles = plain.rows / TILE
    scaler = unit_scaler(d)
    blocks = [scaler(tile) for tile in raw]
    rows = []
    engine = packed.engine(client)
    for name, statistic in statistics(d, h).items():
        one = statistic(blocks[0])
        with one_blas_thread():
            found = in_turns(
                {
                    "read": lambda: plain.read(1),
                    "unpack": lambda: packed.read(1),
                    "prepare": lambda: [scaler(tile) for tile in raw],
                    "compute": lambda s=statistic: [s(block) for block in blocks],
                    "merge": lambda c=one: [c.merge(c) for _ in range(16)],
                    "pass": lambda s=statistic: engine.reduce(s, "pass"),
                },
                sizes.repeats,
            )
        parts = {
            "read": found["read"],
            "decompress": found["unpack"] - found["read"],
            "standardise": found["prepare"] * tiles / len(raw),
            "compute": found["compute"] * tiles / len(raw),
            "reduce": found["merge"] * tiles / 16,
        }
        rest = found["pass"] - sum(parts.values())
        rows.append(
            {"pass": name, "rows": plain.rows, "seconds": found["pass"], **parts, "Dask": rest}
        )
    return rows
