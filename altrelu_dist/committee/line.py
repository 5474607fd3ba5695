"""The ridge line: what a linear model of the encoded columns says of rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from altrelu_dist.losses import Loss, positive, working
from altrelu_dist.moments.rows import Block, Floats
from altrelu_dist.solvers.linalg import Factor

__all__ = [
    "CHOICES", "MOST_STEPS", "by_line", "fold_moments", "line_predictions", "lines_of_loss",
    "lines_of_loss_of_few", "ridge_lines", "ridge_lines_of_few",
]  # fmt: skip

Paced = Callable[[Iterable[tuple[Floats, Floats]]], Iterator[tuple[Floats, Floats]]]

CHOICES = 2  # of the penalty of a loss
MOST_STEPS, _HALVINGS = 25, 12  # of Newton's method, and of each step
_ENOUGH = 1e-5  # of the loss of a line: a step that takes less off it is the last one
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
    return _lines(tiles, n_folds, None, paced)[0]


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
    few, axes = _turned(tiles)
    lines, _ = _lines([few], n_folds, len(axes), paced)
    return np.concatenate([axes @ lines[:, :-1], lines[:, -1:]], axis=1)


def lines_of_loss_of_few(
    tiles: Callable[[], Iterable[tuple[int, Block]]],
    n_folds: int,
    loss: Loss,
    start: Floats,
    paced: Paced = iter,
) -> Floats:
    """As `lines_of_loss`, of fewer rows than columns."""
    few, axes = _turned(tiles())
    lines = lines_of_loss(lambda: [few], n_folds, loss, start, paced, len(axes))
    return np.concatenate([axes @ lines[:, :-1], lines[:, -1:]], axis=1)


def _turned(tiles: Iterable[tuple[int, Block]]) -> tuple[tuple[int, Block], Floats]:
    """One tile of few dimensions, and their axes in the columns."""
    kept = list(tiles)
    x = np.concatenate([block.x for _, block in kept]).astype(np.float64)
    axes = np.linalg.svd(x[:, :-1], full_matrices=False)[2].T
    turned = np.hstack([x[:, :-1] @ axes, x[:, -1:]])
    y = np.concatenate([block.y for _, block in kept])
    return (kept[0][0], Block(turned, y)), axes


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
) -> tuple[Floats, float]:
    """The lines and their penalty, from parts of the mean square of so many columns, or of all."""
    grams, right, squares = fold_moments(tiles, n_folds)
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
    return np.stack([path[best] for path in lines]), float(_PENALTIES[best] * _positive(scale))


def fold_moments(tiles: Iterable[tuple[int, Block]], n_folds: int) -> tuple[Floats, Floats, Floats]:
    """Gram matrix, right-hand side and squares of the targets of each fold.

    Parameters
    ----------
    tiles : iterable of (int, Block)
        With the number of their first row.
    n_folds : int

    Returns
    -------
    tuple of ndarray
        Of shapes (n_folds, p, p), (n_folds, p, q) and (n_folds,).
    """
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
    penalties = _PENALTIES * _positive(scale)
    shrunk = turned / (np.maximum(values, 0)[:, None] + penalties[:, None, None])
    slopes = axes @ shrunk
    constant = target_mean - np.einsum("p,lpq->lq", mean, slopes)
    return np.concatenate([slopes, constant[:, None]], axis=1)


def _positive(scale: float) -> float:
    return max(float(scale), np.finfo(float).tiny)


def lines_of_loss(
    tiles: Callable[[], Iterable[tuple[int, Block]]],
    n_folds: int,
    loss: Loss,
    start: Floats,
    paced: Paced = iter,
    n_columns: int | None = None,
) -> Floats:
    """Of each fold the line of least loss on the other rows, at a penalty that is best for all.

    The penalty is chosen by the parabolas about what the lines so far say of rows that they have
    not seen. Under a penalty each line takes Newton's steps, halved until its penalised loss falls.

    Parameters
    ----------
    tiles : callable
        Gives the tiles once more.
    n_folds : int
    loss : Loss
    start : ndarray of shape (q,)
        Output to begin at.
    paced : callable
    n_columns : int, optional
        That the penalty is for; by default all.

    Returns
    -------
    ndarray of shape (n_folds, p, q)
    """
    p = next(iter(tiles()))[1].x.shape[1]
    lines = np.zeros((n_folds, p, len(start)))
    lines[:, -1] = start
    for _ in range(CHOICES):
        about = _parabolas(tiles(), lines, loss)
        first, penalty = _lines(about, n_folds, n_columns, paced)
        lines = _descended(tiles, lines, first, loss, penalty, paced)
    return lines


def _parabolas(
    tiles: Iterable[tuple[int, Block]], lines: Floats, loss: Loss
) -> Iterator[tuple[int, Block]]:
    """Tiles of the parabolas about what the line of each row's fold says."""
    for start, block in tiles:
        yield start, working(loss, block, line_predictions([(start, block)], lines))


def _descended(
    tiles: Callable[[], Iterable[tuple[int, Block]]],
    lines: Floats,
    first: Floats,
    loss: Loss,
    penalty: float,
    paced: Paced,
) -> Floats:
    """The lines of least penalised loss, from some lines or from the first step's."""
    n_folds, p, q = lines.shape
    ridge = penalty * np.append(np.ones(p - 1), 0.0)
    before = _penalised(tiles, lines, loss, ridge)
    trial = _penalised(tiles, first, loss, ridge)
    better = trial < before
    lines, before = np.where(better[:, None, None], first, lines), np.where(better, trial, before)
    for _ in range(MOST_STEPS):
        gradients, hessians = _derivatives(tiles, lines, loss)
        step = np.empty_like(lines)
        for fold, _ in enumerate(paced(zip(gradients, gradients, strict=True))):
            others = np.arange(n_folds) != fold
            gradient = gradients[fold] + ridge[:, None] * lines[fold]
            for target in range(q):
                system = hessians[others, target].sum(axis=0) + np.diag(ridge)
                step[fold, :, target] = Factor(system).solve(gradient[:, target])
        length = np.ones(n_folds)
        for _ in range(_HALVINGS):
            trial = _penalised(tiles, lines - length[:, None, None] * step, loss, ridge)
            better = trial < before
            if better.all():
                break
            length[~better] /= 2
        length[~better] = 0.0
        lines = lines - length[:, None, None] * step
        gained = np.where(better, before - trial, 0.0)
        before = before - gained
        if not (gained > _ENOUGH * before).any():
            break
    return lines


def _derivatives(
    tiles: Callable[[], Iterable[tuple[int, Block]]], lines: Floats, loss: Loss
) -> tuple[Floats, Floats]:
    """Gradient of each line's loss (K, p, q), and each fold's share of the Hessians (K, q, p, p).

    A row counts with the largest curvature that the lines give it, so that a fold's share is the
    same for all lines.
    """
    n_folds, p, q = lines.shape
    gradients, hessians = np.zeros((n_folds, p, q)), np.zeros((n_folds, q, p, p))
    for start, block in tiles():
        x, f, y = _outputs(block, start, lines)
        slope, curvature = loss.derivatives(f, y)
        fold = np.arange(start, start + len(x)) % n_folds
        slope = slope * x[:, None, -1:]
        slope[np.arange(len(x)), fold] = 0.0
        gradients += (x.T @ slope.reshape(len(x), -1)).reshape(p, n_folds, q).transpose(1, 0, 2)
        largest = curvature.max(axis=1)
        for each in range(n_folds):
            own = slice((each - start) % n_folds, None, n_folds)
            for target in range(q):
                hessians[each, target] += (x[own] * largest[own, target, None]).T @ x[own]
    return gradients, hessians


def _penalised(
    tiles: Callable[[], Iterable[tuple[int, Block]]], lines: Floats, loss: Loss, ridge: Floats
) -> Floats:
    """Penalised loss of each line on the rows of the other folds, (K,)."""
    n_folds = len(lines)
    total: Floats = 0.5 * np.einsum("p,kpq->k", ridge, lines**2)
    for start, block in tiles():
        x, f, y = _outputs(block, start, lines)
        values = loss.value(f, y).sum(axis=2) * x[:, -1:] ** 2
        values[np.arange(len(x)), np.arange(start, start + len(x)) % n_folds] = 0.0
        total = total + values.sum(axis=0)
    return total


def _outputs(block: Block, start: int, lines: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns of a block, and outputs of all lines (n, K, q) and targets (n, 1, q) of its rows."""
    x = block.x.astype(np.float64)
    root = positive(x[:, -1:])
    f = by_line([(start, Block(x, block.y))], lines) / root[:, None]
    return x, f, (block.y.astype(np.float64) / root)[:, None]
