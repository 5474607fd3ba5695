"""Generated regression sets on which a learner should find little, or only a line.

Like `datasets.load`, each gives X (n, d) and y (n, 1) in float32; the rows are always the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Arrays = tuple[np.ndarray, np.ndarray]


def _normal(n: int, d: int) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng, rng.standard_normal((n, d))


def _with_noise(rng: np.random.Generator, X: np.ndarray, y: np.ndarray, share: float) -> Arrays:
    """Noise that has this share of the variance of y."""
    y = y / y.std() * (1 - share) ** 0.5 + share**0.5 * rng.standard_normal(len(y))
    return X.astype(np.float32), y.astype(np.float32)[:, None]


def _linear(n: int, d: int, share: float) -> Arrays:
    rng, X = _normal(n, d)
    return _with_noise(rng, X, X @ rng.standard_normal(d), share)


def line() -> Arrays:
    """A linear function of 20 columns, and noise: 20 % of the variance."""
    return _linear(2000, 20, 0.2)


def noise() -> Arrays:
    """A target that does not depend on its 20 columns."""
    rng, X = _normal(2000, 20)
    return X.astype(np.float32), rng.standard_normal((len(X), 1)).astype(np.float32)


def rows50() -> Arrays:
    """50 rows: a linear function of 5 columns, and noise: 20 % of the variance."""
    return _linear(50, 5, 0.2)


def wide() -> Arrays:
    """Fewer rows (100) than columns (300), which are mixtures of 5 that the target is linear in."""
    rng, hidden = _normal(100, 5)
    X = hidden @ rng.standard_normal((5, 300)) + rng.standard_normal((100, 300))
    return _with_noise(rng, X, hidden @ rng.standard_normal(5), 0.1)


def needle() -> Arrays:
    """One column of 1,000 matters, as a bent line; noise: 10 % of the variance."""
    rng, X = _normal(2000, 1000)
    return _with_noise(rng, X, X[:, 500] + np.abs(X[:, 500]), 0.1)


MADE: dict[str, Callable[[], Arrays]] = {
    loader.__name__: loader for loader in (line, noise, rows50, wide, needle)
}
