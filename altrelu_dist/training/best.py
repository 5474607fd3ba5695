"""The best network so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from altrelu_dist.moments.rows import Weights

__all__ = ["Best", "better"]


@dataclass(frozen=True)
class Best:
    """The network with the least loss over the most rows.

    Parameters
    ----------
    weights : Weights
    loss : float
        Infinite if it is not known: any other network is better.
    n_rows : int
        Over how many rows the loss is; all the same where networks are compared on the same rows.
    """

    weights: Weights
    loss: float = math.inf
    n_rows: int = 0

    def updated(self, weights: Weights, loss: float, n_rows: int = 0) -> Best:
        """The better of the two: more rows count first, then the lower loss, which is finite."""
        if math.isfinite(loss) and (n_rows, -loss) > (self.n_rows, -self.loss):
            return Best(weights, loss, n_rows)
        return self


def better(best: Best | None, weights: Weights, loss: float, n_rows: int = 0) -> Best | None:
    """The best so far, if there is one, or a network that is better."""
    if best is not None:
        return best.updated(weights, loss, n_rows)
    return Best(weights, loss, n_rows) if math.isfinite(loss) else None
