"""The columns of a table as they come: numbers, texts of some levels, or times.

A table becomes a matrix of numbers before anything else is done with it. A number is itself, a text
the place of its level, a time the seconds since 1970, and what is missing is NaN.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

__all__ = [
    "MOST_LEVELS",
    "UNSEEN",
    "Kind",
    "RawColumn",
    "RawColumns",
    "all_numbers",
    "columns_of",
    "digest_of",
]

Kind = Literal["number", "levels", "time"]

UNSEEN = -1  # the code of a text that is none of a column's levels
MOST_LEVELS = 65_536  # of a column; one with more names its rows, and is left out


@dataclass(frozen=True)
class RawColumn:
    """What a column of a table holds, and how its values become numbers.

    Parameters
    ----------
    kind : {"number", "levels", "time"}
    levels : tuple of str
        Of a column of kind ``"levels"``, the most frequent first, equally frequent ones in the
        order of their texts. The code of a level is its place here, `UNSEEN` that of any other.
    """

    kind: Kind = "number"
    levels: tuple[str, ...] = ()

    @classmethod
    def of_levels(cls, counts: Mapping[str, int]) -> RawColumn:
        """Of the levels that were counted; the same whatever the order of the rows."""
        return cls("levels", tuple(sorted(counts, key=lambda text: (-counts[text], text))))

    def to_json(self) -> dict[str, Any]:
        """What a file keeps of it."""
        return {"kind": self.kind} | ({"levels": list(self.levels)} if self.levels else {})

    @classmethod
    def from_json(cls, found: Any) -> RawColumn:
        """Undo `to_json`.

        Raises
        ------
        ValueError
            If it is nothing that `to_json` gives.
        """
        if not isinstance(found, dict) or found.get("kind") not in get_args(Kind):
            raise ValueError(f"a column of a table is {found!r:.80}, which is unknown")
        levels = found.get("levels", [])
        texts = isinstance(levels, list) and all(isinstance(level, str) for level in levels)
        if not texts or (levels and found["kind"] != "levels") or len(levels) > MOST_LEVELS:
            raise ValueError("the levels of a column of a table are not so many different texts")
        counts: Counter[str] = Counter(levels)
        if twice := [level for level, count in counts.items() if count > 1]:
            raise ValueError(f"a column of a table has the level {twice[0]!r:.80} twice")
        return cls(found["kind"], tuple(levels))


RawColumns = tuple[RawColumn, ...]


def all_numbers(columns: Sequence[RawColumn] | None) -> bool:
    """Whether there is nothing but numbers, so that nobody needs to know of the columns."""
    return columns is None or all(column.kind == "number" for column in columns)


def digest_of(columns: RawColumns) -> str:
    """What they are known by: SHA-256, in hexadecimal digits."""
    return sha256(json.dumps([column.to_json() for column in columns]).encode()).hexdigest()


def columns_of(found: Iterable[Any] | None) -> RawColumns | None:
    """Columns from what a file keeps of them; None where it keeps nothing."""
    return None if found is None else tuple(map(RawColumn.from_json, found))
