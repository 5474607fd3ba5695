"""How much `scale.py` measures."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
BLOCK_BYTES = 16 * MIB  # what one task reads where the package chooses
LARGE_BLOCK_BYTES = 64 * MIB


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    passes: tuple[tuple[int, int, int, int], ...]  # rows, features, neurons, workers
    store_bytes: int
    streamed: tuple[int, ...]  # neurons
    kept_bytes: int
    gram_rows: int
    fits: tuple[tuple[int, int, int], ...]  # rows, features, neurons
    repeats: int


QUICK = Sizes(
    passes=((20_000, 8, 8, 1), (100_000, 8, 8, 1)),
    store_bytes=16 * MIB,
    streamed=(4,),
    kept_bytes=16 * MIB,
    gram_rows=1 << 16,
    fits=((2_000, 4, 4),),
    repeats=2,
)
DEFAULT = Sizes(
    passes=(
        *((10**5, 16, 16, 1), (10**6, 16, 16, 1), (10**7, 16, 16, 1), (10**7, 16, 16, 2)),
        *((10**6, 64, 16, 1), (10**6, 64, 16, 2), (10**6, 16, 64, 1), (10**6, 16, 64, 2)),
    ),
    store_bytes=1024 * MIB,
    streamed=(4, 16, 64),
    kept_bytes=256 * MIB,
    gram_rows=1 << 20,
    fits=((10_000, 8, 8), (30_000, 16, 16), (100_000, 8, 8)),
    repeats=4,
)
FULL = Sizes(
    passes=(*DEFAULT.passes, (10**8, 16, 16, 1), (10**8, 16, 16, 2)),
    store_bytes=DEFAULT.store_bytes,
    streamed=DEFAULT.streamed,
    kept_bytes=DEFAULT.kept_bytes,
    gram_rows=DEFAULT.gram_rows,
    fits=(
        *DEFAULT.fits,
        *((5_000, 4, 32), (1_000, 8, 64), (5_000, 60, 16), (20_000, 4, 32), (20_000, 30, 32)),
        *((300_000, 8, 16), (1_000_000, 8, 8)),
    ),
    repeats=DEFAULT.repeats,
)
