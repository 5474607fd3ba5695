"""The ridge line: what a linear model of the encoded columns says of rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from altrelu_dist.moments.rows import Block, Floats

__all__ = ["by_line", "line_predictions", "ridge_lines", "ridge_lines_of_few"]

Paced = Callable[[Iterable[tuple[Floats, Floats]]], Iterator[tuple[Floats, Floats]]]

_PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)  # in parts of the columns' mean square


def ridge_lines(tiles: Iterable[tuple[int, Block]], n_folds: int, paced: Paced = iter) -> Floats:
    """Of each fold the line that the other rows give, at the penalty that is best for all folds.

    One pass gives the Gram matrix of each fold; those of the others add up.

    Parameters
    ----------
    tiles : iterable of (int, Block)
        With the number of their first row; row i is of fold ``i % n_folds``.
    n_folds : int
        At least 2.
    paced : callable
        Deals out what there is to do, and raises where there is no time for more.

    Returns
    -------
    ndarray of shape (n_folds, p, q)
        Coefficients of the columns of a block; that of the ones, last, is not penalised.
    """
    return _lines(tiles, n_folds, None, paced)


def ridge_lines_of_few(
    tiles: Iterable[tuple[int, Block]], n_folds: int, paced: Paced = iter
) -> Floats:
    """The same of fewer rows than columns, which span a space of few dimensions.

    Parameters
    ----------
    tiles : iterable of (int, Block)
    n_folds : int
    paced : callable

    Returns
    -------
    ndarray of shape (n_folds, p, q)
    """
    kept = list(tiles)
    x = np.concatenate([block.x for _, block in kept]).astype(np.float64)
    axes = np.linalg.svd(x[:, :-1], full_matrices=False)[2].T
    turned = np.hstack([x[:, :-1] @ axes, x[:, -1:]])
    y = np.concatenate([block.y for _, block in kept])
    lines = _lines([(kept[0][0], Block(turned, y))], n_folds, x.shape[1] - 1, paced)
    return np.concatenate([axes @ lines[:, :-1], lines[:, -1:]], axis=1)


def line_predictions(tiles: Iterable[tuple[int, Block]], lines: Floats) -> Floats:
    """Of each row what the line of its fold says, (n, q)."""
    parts = []
    for start, (x, _) in tiles:
        fold = np.arange(start, start + len(x)) % len(lines)
        parts.append(np.einsum("np,npq->nq", x.astype(np.float64), lines[fold]))
    return np.concatenate(parts)


def by_line(tiles: Iterable[tuple[int, Block]], lines: Floats) -> Floats:
    """Of each row what every line says, (n, K, q)."""
    parts = [
        np.einsum("np,kpq->nkq", x.astype(np.float64), lines, optimize=True) for _, (x, _) in tiles
    ]
    return np.concatenate(parts)


def _lines(
    tiles: Iterable[tuple[int, Block]], n_folds: int, n_columns: int | None, paced: Paced
) -> Floats:
    """The lines; the penalty is in parts of the mean square of so many columns, if not of all."""
    grams, right, squares = _moments(tiles, n_folds)
    columns = grams.shape[1] - 1 if n_columns is None else n_columns
    scale = np.trace(grams.sum(axis=0)[:-1, :-1]) / max(1, columns)
    lines = []
    for fold, _ in enumerate(paced(zip(grams, right, strict=True))):
        others = np.arange(n_folds) != fold
        lines.append(_path(grams[others].sum(axis=0), right[others].sum(axis=0), scale))
    losses = sum(
        squares[fold]
        - 2 * np.einsum("lpq,pq->l", lines[fold], right[fold])
        + np.einsum("lpq,pr,lrq->l", lines[fold], grams[fold], lines[fold], optimize=True)
        for fold in range(n_folds)
    )
    best = int(np.argmin(losses))
    return np.stack([path[best] for path in lines])


def _moments(tiles: Iterable[tuple[int, Block]], n_folds: int) -> tuple[Floats, Floats, Floats]:
    """Gram matrix, right-hand side and squares of the targets of each fold."""
    grams: list[Floats] = []
    right: list[Floats] = []
    squares = np.zeros(n_folds)
    for start, (x, y) in tiles:
        for fold in range(n_folds):
            own = slice((fold - start) % n_folds, None, n_folds)
            X, Y = x[own].astype(np.float64), y[own].astype(np.float64)
            if len(grams) < n_folds:
                grams.append(X.T @ X)
                right.append(X.T @ Y)
            else:
                grams[fold] += X.T @ X
                right[fold] += X.T @ Y
            squares[fold] += np.vdot(Y, Y)
    return np.stack(grams), np.stack(right), squares


def _path(gram: Floats, right: Floats, scale: float) -> Floats:
    """Coefficients at each penalty, (l, p, q); the ones are eliminated first."""
    weight = gram[-1, -1]
    mean, target_mean = gram[:-1, -1] / weight, right[-1] / weight
    centred = gram[:-1, :-1] - np.outer(mean, mean) * weight
    values, axes = np.linalg.eigh(centred)
    turned = axes.T @ (right[:-1] - np.outer(mean, target_mean) * weight)
    penalties = _PENALTIES * max(float(scale), np.finfo(float).tiny)
    shrunk = turned / (np.maximum(values, 0)[:, None] + penalties[:, None, None])
    slopes = axes @ shrunk
    constant = target_mean - np.einsum("p,lpq->lq", mean, slopes)
    return np.concatenate([slopes, constant[:, None]], axis=1)
