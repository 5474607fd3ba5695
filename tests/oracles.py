"""Dense restatements of what the package computes, by the definitions, for data that is small."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np

from altrelu_dist.engine import TILE, LocalEngine
from altrelu_dist.moments import Block, Weights
from altrelu_dist.training import Monitor
from altrelu_dist.training.objective import Objective


def activate(z, slope):
    return np.where(z > 0, z, slope * z)


def pattern(z, slope):
    return np.where(z > 0, 1.0, slope)


def design(x, W, slope):
    """S (x) x~, row by row; (n, h p), neuron by neuron."""
    S = pattern(x @ W, slope)
    return (S[:, :, None] * x[:, None, :]).reshape(x.shape[0], -1)


def features(x, W, slope):
    """The hidden features and the one, (n, h + 1)."""
    return np.hstack([activate(x @ W, slope), x[:, -1:]])


def residual(block, weights, slope):
    return features(block.x, weights.W, slope) @ weights.output - block.y


def squares(block, weights, slope):
    return float((residual(block, weights, slope) ** 2).sum())


def penalty(weights):
    return float((weights.W[:-1] ** 2).sum() + (weights.V**2).sum())


def least_squares(A, b, ridge=None):
    """Minimise ``|A x - b|^2 + sum_k ridge_k |x_k|^2`` by an orthogonal factorisation."""
    if ridge is not None:
        rows = np.diag(np.sqrt(ridge))
        A = np.vstack([A, rows])
        b = np.concatenate([b, np.zeros((rows.shape[0], *b.shape[1:]))])
    return np.linalg.lstsq(A, b, rcond=None)[0]


def output_ridge(h, ridge):
    """The ridge of each row of an output layer, its bias last."""
    return np.append(np.full(h, float(ridge)), 0.0)


def hidden_ridge(h, p, ridge):
    """The ridge of each hidden weight, neuron by neuron, biases last."""
    return np.tile(np.append(np.full(p - 1, float(ridge)), 0.0), h)


def random_block(rng, n, d, q=1, *, dtype=np.float64, weighted=False):
    """Rows as the kernels take them."""
    x = np.append(rng.standard_normal((n, d)), np.ones((n, 1)), axis=1)
    y = rng.standard_normal((n, q)) + np.abs(x[:, :1])
    if weighted:
        root = np.sqrt(rng.uniform(0, 3, n) * (rng.random(n) < 0.9))[:, None]
        x, y = x * root, y * root
    return Block(x.astype(dtype), y.astype(dtype))


def random_weights(rng, p, h, q=1):
    return Weights(rng.standard_normal((p, h)), rng.standard_normal((h, q)), rng.standard_normal(q))


def dense_alternation(block, W, alpha, slope, iterations):
    """Output layer, then hidden layer under the fixed pattern, each by dense least squares.

    The networks, their objectives, and whether every system had one solution.
    """
    p, h = W.shape
    ones = float((block.x[:, -1] ** 2).sum())
    ridge = alpha * ones
    path, losses, clear = [], [], True
    for iteration in range(iterations + 1):
        output = least_squares(features(block.x, W, slope), block.y, output_ridge(h, ridge))
        weights = Weights(W, output[:-1], output[-1])
        path.append(weights)
        losses.append(squares(block, weights, slope) / ones + alpha * penalty(weights))
        if iteration < iterations:
            S = design(block.x, W, slope)
            # Where several solutions are as good the next pattern depends on the choice.
            clear = clear and well_posed(S, weights, ridge)
            A = np.concatenate([S * np.repeat(v, p) for v in weights.V.T])
            b = np.concatenate(
                [y - c * block.x[:, -1] for y, c in zip(block.y.T, weights.c, strict=True)]
            )
            W = least_squares(A, b, hidden_ridge(h, p, ridge)).reshape(h, p).T
    return path, losses, clear


def well_posed(S, weights, ridge):
    """Whether the hidden layer has one solution, not least in its free biases."""
    (p, h), V = weights.W.shape, weights.V
    gram = (S.T @ S) * np.kron(V @ V.T, np.ones((p, p))) + np.diag(hidden_ridge(h, p, ridge))
    return np.diagonal(gram).min() > 0 and np.linalg.cond(gram) < 1e8


def centred(block):
    """The block with targets of a weighted mean of zero, as training has them."""
    one = block.x[:, -1]
    return Block(block.x, block.y - np.outer(one, one @ block.y / (one @ one)))


def engine_over(block):
    """A local engine over a block."""
    n = block.x.shape[0]
    tiles = [Block(block.x[at : at + TILE], block.y[at : at + TILE]) for at in range(0, n, TILE)]
    return LocalEngine(tiles, n)


def objective_over(block, *, alpha=0.0, slope=0.0, monitor=None):
    ones = float((block.x[:, -1] ** 2).sum())
    return Objective(engine_over(block), monitor or Monitor(), alpha, slope, True, ones, 2**31)


def same(a, b):
    """Whether two results are the same to the last bit, field by field."""
    if is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    if a is None or b is None:
        return a is b
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
