"""Multiply-adds of the trainer's kernels."""

from __future__ import annotations

from altrelu_dist.committee import COMMITTEE
from altrelu_dist.training import damped, kronecker, neurons, pattern_state, quasi_newton

__all__ = ["multiply_adds", "n_candidates"]

# Share of the signs that flip between two patterns of which one is brought up to date to the other.
_FLIPS = pattern_state.MANY_FLIPS / 2


def n_candidates(h: int) -> tuple[int, int]:
    """Among which neurons an eighth of the network is chosen, and how many are compared."""
    return max(neurons.CANDIDATES, h // 2), neurons.n_compared(h // 8)


def _pairs(m: int) -> int:
    return m * (m + 1) // 2


def multiply_adds(kernel: str, p: int, q: int, h: int) -> float:
    """Of one row; of the kernels that pass over none, of one run."""
    match kernel:
        case "summary":
            return 2.0 * (p + q)
        case "whiten" | "turn":
            return float(p * p)
        case "loss-and-gradient" | "member":
            return 2.0 * h * (p + q)
        case "loss":
            return float(h * (p + q))
        case "output":
            return h * p + (h + 1.0) ** 2 + h * q
        case "tile":
            return 2.0 * h * (p + q) + 2.0 * (h + 1.0) ** 2 / kronecker.SETTINGS.renewal_of(h)
        case "precondition":
            renewed = 2.0 * (h + 1.0) ** 3 / kronecker.SETTINGS.renewal_of(h)
            return p * h * (p + h) + (h + 1.0) ** 2 * q + renewed
        case "insert":
            m, k = n_candidates(h)
            return m * (p + h + q) + h * (p + h + q) + k * (p + k)
        case "choose":
            m, k = n_candidates(h)
            return h**3 / 3 + m * h * (h / 2 + q) + k**2 * h
        case "iterate":
            return 6.0 * quasi_newton.MEMORY * h * (p + q)
        case "metric":
            return 2.0 * h * p**2
        case "gram":
            return _pairs(h) * _pairs(p) + h * p * (q + 2.0)
        case "delta":
            return _FLIPS * h * h * _pairs(p) + 2.0 * h * p
        case "kinks":
            return h * p + damped.KINK_WIDTH * h * p**2
        case "remove":
            return 2 / 3 * h**3
        case "system":
            return (h * p) ** 2 * (h + 1) + 6.0 * h * p**3
        case "step" | "solve":
            return (h * p) ** 3 / 3
        case "line":
            return p * (p + q + 0.0)
        case "eigen":
            return 4.0 * p**3
        case "member-step":
            return float(h * COMMITTEE.one_of(h) * p)
        case "judge":
            return float(h * p)
        case "fold":
            return h * p + float(h) ** 2
    return 0.0
