"""How far a run is: its stage, the passes and rows it took, and the least losses so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Counts"]

_SAVED = ("stage", "passes", "rows", "fraction", "loss", "sample_loss", "validation_loss")


class Counts:
    """Numbers of one run; see `Progress` for the meaning of each. Losses are in raw units."""

    def __init__(self) -> None:
        self.stage = "summary"
        self.passes = 0
        self.rows = 0
        self.unit = 1.0  # of the loss, in squared units of the targets
        self.loss = math.nan
        self.sample_loss = math.nan
        self.validation_loss = math.nan
        self._fraction = math.nan

    @property
    def fraction(self) -> float:
        """Share of the expected work that is done; it never falls."""
        return self._fraction

    @fraction.setter
    def fraction(self, share: float) -> None:
        self._fraction = share if math.isnan(self._fraction) else max(self._fraction, share)

    def count_rows(self, rows: int, *, whole: bool, passes: int = 1) -> None:
        """Count passes over a sample, or over the whole data, and the rows of all of them."""
        self.rows += rows
        self.passes += passes * whole

    def update_loss(self, loss: float) -> None:
        """Take the loss over all rows, in standardised units, of a network to end with."""
        loss *= self.unit
        self.loss = loss if math.isnan(self.loss) else min(self.loss, loss)

    def state(self) -> dict[str, Any]:
        """All of them, for a checkpoint."""
        return {name: getattr(self, name) for name in _SAVED}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from those of a checkpoint."""
        for name in _SAVED:
            setattr(self, name, state[name])
