"""One plain network trained on rows in memory by any method, and its loss by the definition."""

from __future__ import annotations

import numpy as np
from oracles import features, penalty

from altrelu_dist.engine import LocalEngine
from altrelu_dist.inputs import local_rows
from altrelu_dist.training import METHODS as ALL_METHODS
from altrelu_dist.training import Monitor, Parameters, train

__all__ = ["METHODS", "QUICK", "recomputed", "run", "wavy"]

METHODS = [name for name in ALL_METHODS if name != "committee"]  # of one plain network
QUICK = {"search": 1, "kronecker": 1, "damped": 20, "alternating": 5}


def run(method, X, y, *, weight=None, h=6, alpha=0.0, slope=0.0, seed=0, most=None, **monitoring):
    """Train on data in memory; what came out, and the monitor of the run."""
    monitor = Monitor(**monitoring)
    limit = QUICK[method] if most is None else most
    rows = local_rows(X, y, weight)
    dtype = np.dtype("float32" if X.dtype == np.float32 else "float64")
    trained = train(
        LocalEngine.of(rows), Parameters(h, method, alpha, slope, limit, seed), monitor, dtype
    )
    return trained, monitor


def recomputed(trained, X, y, weight=None, alpha=0.0, slope=0.0):
    """The objective of a trained network, in standardised units, by its definition."""
    scaler = trained.scaler
    x = np.hstack([(X.astype(float) - scaler.center) / scaler.scale, np.ones((len(X), 1))])
    target = (y.reshape(len(X), -1) - scaler.target_center) / scaler.target_scale
    fitted = features(x, trained.weights.W, slope) @ trained.weights.output
    error = np.average(((fitted - target) ** 2).sum(axis=1), weights=weight)
    return error + alpha * penalty(trained.weights)


def wavy(n=400, d=3, seed=0):
    """Features and a target that waves along one and bends along another."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.sin(3 * X[:, 0]) + np.abs(X[:, 1]) + 0.2 * rng.standard_normal(n)
