"""What a run is a run of: its parameters and its data, and how two of them differ."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.errors import CheckpointError
from altrelu_dist.moments.rows import Additive, Rows

if TYPE_CHECKING:
    from altrelu_dist.moments.summary import Summary

__all__ = ["Digest", "check_same", "data_fingerprint", "digest"]


@dataclass(frozen=True)
class Digest(Additive):
    """A checksum of rows: sums, over tiles, of a hash of their bytes and of where they are."""

    value: NDArray[np.uint64]  # (1,); adds up modulo 2^64


def digest(rows: Rows) -> Digest:
    """Contribute one tile."""
    crc = 0
    for part in (rows.X, rows.y, rows.weight):
        if part is not None:
            crc = zlib.crc32(np.ascontiguousarray(part).view(np.uint8).data, crc)
    # The finaliser of SplitMix64: tiles that are exchanged do not cancel each other.
    mixed = (crc | rows.start << 32) & (1 << 64) - 1
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ mixed >> shift) * factor & (1 << 64) - 1
    return Digest(np.array([mixed ^ mixed >> 31], dtype=np.uint64))


def data_fingerprint(summary: Summary, found: Digest) -> dict[str, Any]:
    """What tells data from other data, and in which columns it differs."""
    return {
        "rows": summary.rows,
        "weighted": summary.weighted,
        "X": _columns(summary.features),
        "y": _columns(summary.targets),
        "digest": int(found.value[0]),
    }


def check_same(
    was: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, Sequence[str] | None]
) -> None:
    """Refuse to go on with other data or other parameters than a run began with.

    Parameters
    ----------
    was, now : mapping
        ``parameters``, and, where it is known, ``data``.
    names : mapping
        Of the columns of ``X`` and ``y``, for the message.

    Raises
    ------
    CheckpointError
        If they differ; the text says in what.
    """
    old, new = was["parameters"], now["parameters"]
    changed = [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise CheckpointError(f"is of a run with other parameters: {'; '.join(changed)}")
    old, new = was.get("data"), now.get("data")
    if old is None or new is None or old == new:
        return
    raise CheckpointError(f"is of a run on other data: {_difference(old, new, names)}")


def _difference(
    old: Mapping[str, Any], new: Mapping[str, Any], names: Mapping[str, Sequence[str] | None]
) -> str:
    if old["rows"] != new["rows"]:
        return f"it had {old['rows']:,} rows and has {new['rows']:,}"
    for which in ("X", "y"):
        before, after = old[which], new[which]
        if len(before) != len(after):
            return f"{which} had {len(before)} columns and has {len(after)}"
        other = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
        if other:
            known = names.get(which)
            labels = [f"column {i}" if known is None else str(known[i]) for i in other]
            listed = ", ".join(labels[:5])
            more = f" and {len(other) - 5} more" if len(other) > 5 else ""
            return f"{which} has other values in {listed}{more}"
    return "its rows are in another order, or the weights are others"


def _columns(columns: Any) -> list[list[float]]:
    each = zip(columns.mean, columns.squares, columns.low, columns.high, strict=True)
    return [[float(value) for value in one] for one in each]
