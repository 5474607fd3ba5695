"""Rows that are difficult, by name."""

from __future__ import annotations

import numpy as np

__all__ = ["NASTY", "nasty"]


def nasty(name):
    """Features, a target, and what else there is: a slope, an alpha or weights."""
    rng = np.random.default_rng(11)
    n = 60
    X = rng.standard_normal((n, 4))
    y = np.abs(X[:, 0]) - X[:, 1] + 0.1 * rng.standard_normal(n)
    more = {}
    if name == "fewer rows than columns":
        X, y = rng.standard_normal((5, 12)), rng.standard_normal(5)
    elif name == "two rows":
        X, y = X[:2], y[:2]
    elif name == "one distinct row":
        X, y = np.repeat(X[:1], n, axis=0), np.repeat(y[:1], n)
    elif name == "one distinct row of X":
        X = np.repeat(X[:1], n, axis=0)
    elif name == "two distinct rows":
        X, y = np.repeat(X[:2], 30, axis=0), np.repeat(y[:2], 30)
    elif name == "duplicate columns":
        X = np.hstack([X, X, -2 * X])
    elif name == "constant columns":
        X = np.hstack([np.full((n, 1), 7.1), X, np.zeros((n, 1)), np.full((n, 1), -1e8)])
    elif name == "constant target":
        y = np.full(n, 3.3)
    elif name == "nearly constant target":
        y = 1e6 + 1e-6 * y
    elif name == "columns 1e9 apart":
        X = X * [1e-9, 1, 1e9, 1e18]
    elif name == "tiny columns":
        X = X * 1e-140
    elif name == "offset 1e8":
        X, y = X + 1e8, y + 1e8
    elif name == "dead column":
        X[:, 0] = 0
        X[3, 0] = 1
    elif name == "indicators":
        X = (X > 1.5).astype(float)
    elif name == "more targets than rows":
        X, y = X[:6], rng.standard_normal((6, 9))
    elif name == "more targets than neurons":
        y = rng.standard_normal((n, 9))
    elif name == "one target of two is constant":
        y = np.stack([y, np.full(n, 4.0)], axis=1)
    elif name == "targets 1e9 apart":
        y = np.stack([y, 1e9 * X[:, 2]], axis=1)
    elif name == "leaky":
        more["slope"] = 0.5
    elif name == "ridge":
        more["alpha"] = 10.0
    elif name == "integers":
        X = (10 * X).astype("int32")
    elif name == "unsigned":
        X = (10 * np.abs(X)).astype("uint8")
    elif name == "bool":
        X = X > 0
    elif name == "float32":
        X, y = X.astype("float32"), y.astype("float32")
    elif name == "float32 with an offset":
        X, y = (X + 1e5).astype("float32"), (y + 1e5).astype("float32")
    elif name == "big weights and zeros":
        more["weight"] = 1e12 * rng.random(n) * (rng.random(n) < 0.5)
    elif name == "tiny weights":
        more["weight"] = np.full(n, 1e-200)
    elif name == "one weight rules":
        more["weight"] = np.append(1e15, np.ones(n - 1))
    elif name == "one row has weight":
        more["weight"] = np.append(1.0, np.zeros(n - 1))
    elif name == "outlier":
        X[0], y[0] = 1e12, -1e12
    elif name == "heavy tails":
        X, y = rng.standard_cauchy((n, 4)) ** 3, rng.standard_cauchy(n) ** 3
    elif name == "weights 1e24 apart":
        more["weight"] = 10.0 ** rng.uniform(-12, 12, n)
    elif name == "columns 1e12 apart":
        X = X * [1e-6, 1, 1e6, 1]
    elif name == "float16":
        X, y = X.astype("float16"), y.astype("float16")
    elif name == "denormals":
        X = X * 1e-310
    elif name == "denormal targets":
        y = y * 1e-310
    elif name == "rows on kinks":
        X = rng.integers(-1, 2, (n, 4)).astype(float)  # pairs of rows, and so hinges, go through 0
    elif name == "step":
        y = (X[:, 0] > 0).astype(float)
    elif name == "exact fit":
        y = np.maximum(X[:, 0], 0)
    elif name == "linear":
        y = X @ [1, 2, 3, 4.0]
    else:
        raise AssertionError(name)
    return X, y, more


NASTY = [
    "fewer rows than columns",
    "two rows",
    "one distinct row",
    "one distinct row of X",
    "two distinct rows",
    "duplicate columns",
    "constant columns",
    "constant target",
    "nearly constant target",
    "columns 1e9 apart",
    "tiny columns",
    "offset 1e8",
    "dead column",
    "indicators",
    "more targets than rows",
    "more targets than neurons",
    "one target of two is constant",
    "targets 1e9 apart",
    "leaky",
    "ridge",
    "integers",
    "unsigned",
    "bool",
    "float32",
    "float32 with an offset",
    "big weights and zeros",
    "tiny weights",
    "one weight rules",
    "one row has weight",
    "outlier",
    "heavy tails",
    "weights 1e24 apart",
    "columns 1e12 apart",
    "float16",
    "denormals",
    "denormal targets",
    "rows on kinks",
    "step",
    "exact fit",
    "linear",
]
