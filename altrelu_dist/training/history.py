"""The recorded iterations of a run, and how much the second half of its time gained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

__all__ = ["History", "last_doubling"]


class History(list[dict[str, Any]]):
    """One dict an iteration: the fields of `Progress` and details of the stage."""

    @property
    def has_network(self) -> bool:
        """Whether an iteration has ended, beside the one that notes the loss of the mean."""
        return len(self) > 1

    def state(self) -> list[dict[str, Any]]:
        """All iterations so far, for a checkpoint."""
        return list(self)

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go on from those of a checkpoint."""
        self[:] = state


def last_doubling(history: Sequence[Mapping[str, Any]]) -> float:
    """Share of the loss that the second half of a run's time took off it; NaN if unknown.

    Losses over the same rows are compared, and what they fell by is multiplied up. Where the run
    went on over more rows the comparison starts anew: what the same network has there is no gain.
    Unknown is the share where half way the network was still growing over ever more rows.

    Parameters
    ----------
    history : sequence of dict
        As a run records it.
    """
    if not history:
        return math.nan
    half = history[-1]["seconds"] / 2
    left = 1.0
    for before, entry in pairwise(history):
        if entry["seconds"] <= half:
            continue
        if "loss_rows" not in before:  # no network yet
            return math.nan
        if before["loss_rows"] == entry["loss_rows"]:
            was, now = _compared(before), _compared(entry)
            left *= min(1.0, now / was) if was > 0 else 1.0
        elif entry["stage"] == "grow":
            return math.nan
    return 1.0 - left if len(history) > 1 else math.nan


def _compared(entry: Mapping[str, Any]) -> float:
    """The loss over the rows that the iteration worked on."""
    sample: float = entry["sample_loss"]
    return float(entry["loss"]) if math.isnan(sample) else sample
