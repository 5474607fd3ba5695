"""Names of the losses, for what must not import NumPy."""

from __future__ import annotations

__all__ = ["LOSSES", "SQUARES"]

SQUARES = "squared_error"
LOSSES = (SQUARES, "huber", "quantile", "poisson")
