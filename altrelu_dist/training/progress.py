"""What a run tells: its progress to a callback, and what a method ends with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from altrelu_dist.moments.rows import Weights

__all__ = ["Callback", "Outcome", "Progress"]


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Parameters
    ----------
    stage : str
        ``"summary"``, ``"sample"``, ``"members"``, ``"distil"``, ``"warm"``, ``"grow"``,
        ``"cycle"``, ``"settle"``, ``"rounds"``, ``"layers"`` or ``"alternating"``.
    iteration : int
        Recorded iterations so far.
    loss : float
        Least objective over all rows so far, in squared units of the targets; NaN until known.
    sample_loss : float
        The same over the sample that is being searched; NaN in other stages.
    passes : int
        Passes over all rows so far.
    rows : int
        Rows visited so far, those of the sample included each time.
    seconds : float
        Time since the start.
    fraction : float
        Share of the expected work that is done, from 0 to 1; NaN if unknown.
    validation_loss : float
        Least mean square over the held-out rows so far, in squared units of the targets; NaN
        without early stopping.
    """

    stage: str
    iteration: int
    loss: float
    sample_loss: float
    passes: int
    rows: int
    seconds: float
    fraction: float
    validation_loss: float = math.nan


Callback = Callable[[Progress], "bool | None"]


class Outcome(NamedTuple):
    """What a method ends with."""

    weights: Weights
    loss: float  # objective over the rows of the last level
    ran_out: bool  # of the iterations that it was given
