"""Members of a committee, trained side by side by Kronecker-factored steps on the same tiles.

Member k is a network of h neurons that is trained on all rows but those of its fold. All members of
a group see the same tile in a step, so that one product of matrices serves them all; a row of fold
k has the weight zero for member k. The steps are those of `altrelu_dist.training.kronecker`, for
each member with its own curvature G (h, h) and A (h + 1, h + 1); the columns of their inputs are
whitened beforehand, or taken as uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.committee.settings import CommitteeSettings
from altrelu_dist.losses import Loss, positive
from altrelu_dist.moments.rows import Array, Block, Floats
from altrelu_dist.solvers.linalg import Factor, damped_inverse
from altrelu_dist.training.tile_order import tile_of_step

__all__ = [
    "AT_ONCE", "PATTERNS", "Group", "GroupDescent", "GroupState", "Tiles", "by_fold", "by_member",
    "hinges", "out_of_fold",
]  # fmt: skip

_TINY = np.float32(1e-30)
AT_ONCE = 8  # tiles that are predicted at once
PATTERNS = 2048  # rows of the dropout patterns that steps begin at


class Tiles(Protocol):
    """Tiles of encoded rows, in random order; those of a fold are every n-th row."""

    starts: Sequence[int]  # of each tile, and the number of rows

    def __getitem__(self, number: int) -> Block:
        """One of them."""


class Group(NamedTuple):
    """Networks of the same size side by side, of float32."""

    W: Array  # (p, K h) hidden layers, their biases last
    V: Array  # (K, h, q) output layers
    c: Array  # (K, q) output biases

    def balanced(self) -> Group:
        """The same functions, each neuron's norm shared equally by its two layers."""
        into = np.linalg.norm(self.W[:-1], axis=0)
        out = np.linalg.norm(self.V, axis=2).ravel()
        usable = (into > 0) & (out > 0)
        scale = np.ones_like(into)
        scale[usable] = np.sqrt(out[usable] / into[usable])
        return Group(self.W * scale, self.V / scale.reshape(*self.V.shape[:2], 1), self.c)

    def only(self, members: NDArray[np.bool_], other: Group) -> Group:
        """These members of another group, and the rest of this one."""
        neurons = np.repeat(members, self.V.shape[1])
        return Group(
            np.where(neurons, other.W, self.W),
            np.where(members[:, None, None], other.V, self.V),
            np.where(members[:, None], other.c, self.c),
        )

    @property
    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(np.isfinite(part).all()) for part in self)

    def part(self, first: int, stop: int) -> Group:
        """Some consecutive members."""
        h = self.V.shape[1]
        W = np.ascontiguousarray(self.W[:, first * h : stop * h])
        return Group(W, self.V[first:stop], self.c[first:stop])

    @classmethod
    def of_parts(cls, parts: Sequence[Group]) -> Group:
        """All members of several groups."""
        W, V, c = zip(*parts, strict=True)
        return cls(np.hstack(W), np.concatenate(V), np.concatenate(c))


class GroupState(NamedTuple):
    """Where a descent is: what a checkpoint holds, but for the inverses, which follow from it."""

    group: Group
    move: Group  # the last step
    curvature: tuple[Array, Array] | None  # G (K, h, h) and A (K, h + 1, h + 1), running means
    inverses: tuple[Array, Array] | None  # damped
    best: Group  # where losses on own folds were least: of each member, or of all together
    losses: Array  # (K,), the loss of each on its own fold there
    taken: int  # steps


@dataclass(frozen=True)
class GroupDescent:
    """A number of steps over tiles of rows: ``init``, then ``step`` until ``done``.

    Parameters
    ----------
    tiles : Tiles
        Of float32.
    judged : Sequence of Block
        Rows of each fold, on which the member that is not trained on it is validated.
    n_folds : int
        Row i is of fold ``i % n_folds``; member k is not trained on fold k.
    first : int
        Which member the first of the group is: others may be trained elsewhere.
    alpha, slope : float
        Ridge, and negative slope of the activation.
    dropout : float
    settings : CommitteeSettings
    steps : int
    seed : int
        Of the order of the tiles and of the dropout.
    loss : Loss, optional
        By default the square.
    """

    tiles: Tiles
    judged: Sequence[Block]
    n_folds: int
    first: int
    alpha: float
    slope: float
    dropout: float
    settings: CommitteeSettings
    steps: int
    seed: int
    loss: Loss | None = None

    def init(self, group: Group) -> GroupState:
        """Begin at some weights."""
        begin = group.balanced()
        still = Group(*(np.zeros_like(part) for part in begin))
        return GroupState(begin, still, None, None, begin, self._losses(begin), 0)

    def done(self, state: GroupState) -> bool:
        """Whether all steps are made."""
        return state.taken >= self.steps

    def step(self, state: GroupState) -> GroupState:
        """Take the step of the next tile."""
        (W, V, c), settings = state.group, self.settings
        members, h, _ = V.shape
        number = self._tile(state.taken)
        tile = self.tiles[number]
        (x, y), root = tile, tile.root
        n = len(x)
        fold = self.tiles.starts[number] % self.n_folds
        share = _shares(fold, n, self.n_folds, self.first, members)
        features = x @ W
        slopes = (features > 0).astype(np.float32, order="C")  # so that views of it change it
        if self.slope:
            np.maximum(slopes, np.float32(self.slope), out=slopes)
        if self.dropout:
            slopes *= self._kept(n, members, h, state.taken)
        features *= slopes
        hidden = features.reshape(n, members, h).transpose(1, 0, 2)  # (K, n, h)
        output = hidden @ V + root * c[:, None]  # (K, n, q)
        curvature: Array | None = None
        residual: Array
        if self.loss is None:
            residual = output - y
        else:
            residual, curvature = _derivatives(self.loss, output, root, y)
        residual *= share
        if state.inverses is None or state.taken % settings.renewal_of(h) == 0:
            state = self._renewed(state, slopes, hidden, root, curvature)
        assert state.inverses is not None
        hidden_inverse, output_inverse = state.inverses
        g_V = hidden.transpose(0, 2, 1) @ residual
        g_c = (root[:, 0] @ residual)[:, None]
        if V.shape[2] == 1:  # of one target, the output weights are factors of the columns
            slopes.reshape(n, members, h)[:] *= residual[:, :, 0].T[:, :, None]
            g_W = x.T @ slopes
            g_W *= V.ravel()
        else:
            slopes *= (residual @ V.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(n, -1)
            g_W = x.T @ slopes
        if self.alpha:
            g_W[:-1] += np.float32(self.alpha) * W[:-1]
            g_V += np.float32(self.alpha) * V
        g_O = np.concatenate([g_V, g_c], axis=1)
        D_W = np.empty_like(g_W)
        for member, inverse in enumerate(hidden_inverse):
            own = slice(member * h, (member + 1) * h)
            np.matmul(g_W[:, own], inverse, out=D_W[:, own])
        D_O = output_inverse @ g_O
        # g'D is the mean square by which the whole step would change a member's outputs.
        g_W *= D_W
        change = g_W.sum(axis=0).reshape(members, h).sum(axis=1)
        change += np.einsum("kjq,kjq->k", g_O, D_O)
        if curvature is not None:
            change /= np.maximum((curvature * share).sum(axis=1).mean(axis=1), _TINY)
        fading = 0.5 * (1 + np.cos(np.pi * state.taken / self.steps))
        rate = settings.length / np.sqrt(np.maximum(change, np.float32(1e-30)))
        rate = np.minimum(settings.rate * fading, rate).astype(np.float32)
        momentum = np.float32(settings.momentum)
        D_W *= np.repeat(rate, h)
        move = Group(
            momentum * state.move.W - D_W,
            momentum * state.move.V - rate[:, None, None] * D_O[:, :-1],
            momentum * state.move.c - rate[:, None] * D_O[:, -1],
        )
        group = Group(W + move.W, V + move.V, c + move.c)
        state = state._replace(group=group, move=move, taken=state.taken + 1)
        if state.taken % max(1, self.steps // settings.looks) == 0:
            losses = self._losses(group)
            better = losses < state.losses
            # Of few rows the least loss is mostly luck, and the same rows weigh the groups later.
            if self.tiles.starts[-1] < settings.own_rows * self.n_folds:
                better[:] = losses.sum() < state.losses.sum()
            best = state.best.only(better, group)
            state = state._replace(best=best, losses=np.where(better, losses, state.losses))
        return state

    def save(self, state: GroupState) -> dict[str, Any]:
        """What a checkpoint holds of a state."""
        return state._replace(inverses=None)._asdict()

    def restore(self, saved: Mapping[str, Any]) -> GroupState:
        """The state of a checkpoint."""
        groups = {name: Group(*saved[name]) for name in ("group", "move", "best")}
        state = GroupState(**{**saved, **groups})
        if state.curvature is None:
            return state
        return state._replace(inverses=self._inverses(*state.curvature))

    def _tile(self, taken: int) -> int:
        """The tile of a step."""
        return tile_of_step(self.seed, taken, len(self.tiles.starts) - 1)

    def _kept(self, n: int, members: int, h: int, taken: int) -> Array:
        """What the features of some rows are multiplied by: 0, or what keeps their mean."""
        most = max(b - a for a, b in zip(self.tiles.starts, self.tiles.starts[1:], strict=False))
        patterns = _dropped(self.seed, PATTERNS + most, self.n_folds * h, self.dropout)
        begin = int(np.random.default_rng([self.seed, taken]).integers(PATTERNS))
        return patterns[begin : begin + n, self.first * h : (self.first + members) * h]

    def _losses(self, group: Group) -> Array:
        """Mean loss of each member on the rows of its own fold."""
        losses = np.full(len(group.V), np.inf)
        own = self.judged[self.first : self.first + len(losses)]
        for member, block in enumerate(own):
            y, root = block.y, block.root
            output = _predicted(block.x, root, group, member, self.slope)
            if self.loss is None:
                error = output - y
                total = float(np.einsum("nq,nq->", error, error, dtype=np.float64))
            else:
                total = self.loss.total(output, root, y)
            weight = float(np.einsum("no,no->", root, root, dtype=np.float64))
            losses[member] = total / max(weight, np.finfo(float).tiny)
        return np.where(np.isfinite(losses), losses, np.inf)

    def _renewed(
        self,
        state: GroupState,
        slopes: Array,
        hidden: Array,
        ones: Array,
        curvature: Array | None,
    ) -> GroupState:
        """With the curvature of another tile in the running means."""
        V, n = state.group.V, len(slopes)
        members, h, _ = V.shape
        by_member = slopes.reshape(n, members, h).transpose(1, 0, 2)
        if curvature is not None:  # a row has one for all its targets
            root = np.sqrt(curvature.mean(axis=2, keepdims=True))
            by_member, hidden, ones = by_member * root, hidden * root, ones * root
        active = by_member.transpose(0, 2, 1) @ by_member
        G = (active * (V @ V.transpose(0, 2, 1))).astype(np.float64) / n
        extended = np.concatenate([hidden, np.broadcast_to(ones, (members, n, 1))], axis=2)
        A = (extended.transpose(0, 2, 1) @ extended).astype(np.float64) / n
        if state.curvature is not None:
            decay = self.settings.decay
            G = decay * state.curvature[0] + (1 - decay) * G
            A = decay * state.curvature[1] + (1 - decay) * A
        return state._replace(curvature=(G, A), inverses=self._inverses(G, A))

    def _inverses(self, G: Array, A: Array) -> tuple[Array, Array]:
        damping = self.settings.damping_of(G.shape[1])
        return _damped_inverses(G, damping), _damped_inverses(A, damping)


def hinges(
    tiles: Sequence[tuple[int, Block]], members: int, h: int, slope: float, seed: int
) -> Group:
    """Members whose neurons bend at random rows towards others; their output layers solved.

    Parameters
    ----------
    tiles : sequence of (int, Block)
        Enough of the rows for the output layer's systems, with the number of their first row.
    members, h : int
    slope : float
        Negative slope of the activation.
    seed : int
    """
    rng = np.random.default_rng(seed)
    x = np.concatenate([block.x for _, block in tiles])
    y = np.concatenate([block.y for _, block in tiles])
    fold = np.concatenate([np.arange(at, at + len(block.x)) for at, block in tiles]) % members
    root = np.where(x[:, -1:] > 0, x[:, -1:], 1)
    features = x[:, :-1] / root
    neurons = members * h
    first, second = features[rng.integers(len(x), size=(2, neurons))]
    direction = second - first
    length = np.linalg.norm(direction, axis=1)
    same = length < 1e-4
    direction[same] = rng.standard_normal((int(same.sum()), x.shape[1] - 1)).astype(x.dtype)
    direction /= np.maximum(np.linalg.norm(direction, axis=1), np.float32(1e-30))[:, None]
    bend = first + rng.random((neurons, 1)).astype(x.dtype) * (second - first)
    W = np.vstack([direction.T, -np.einsum("np,np->n", bend, direction)])
    W = np.ascontiguousarray(W, np.float32)  # all that follows keeps the order in memory
    hidden = x @ W
    np.maximum(hidden, np.float32(slope) * hidden if slope else 0, out=hidden)
    V = np.empty((members, h, y.shape[1]), np.float32)
    c = np.empty((members, y.shape[1]), np.float32)
    for member in range(members):
        own = fold != member
        A = np.hstack([hidden[own, member * h : (member + 1) * h], x[own, -1:]]).astype(np.float64)
        gram = A.T @ A
        np.einsum("ii->i", gram)[:] += 0.01 * np.trace(gram) / len(gram)
        output = Factor(gram).solve(A.T @ y[own])
        V[member], c[member] = output[:-1], output[-1]
    return Group(W, V, c)


def by_fold(tiles: Sequence[tuple[int, Block]], n_folds: int) -> list[Block]:
    """The rows of each fold, of tiles with the number of their first row."""
    cut = [[block.some(rows) for rows in _folds(at, n_folds)] for at, block in tiles]
    return [own[0].joined(own[1:]) for own in zip(*cut, strict=True)]


def out_of_fold(tiles: Sequence[tuple[int, Block]], group: Group, slope: float) -> Floats:
    """Of each row what the member says that was not trained on it, (n, q)."""
    n_folds, _, q = group.V.shape
    parts = []
    for some in _together(tiles):
        first, n = some[0][0], sum(len(block.x) for _, block in some)
        part = np.empty((n, q))
        for fold, own in enumerate(by_fold(some, n_folds)):
            part[_folds(first, n_folds)[fold]] = _predicted(own.x, own.root, group, fold, slope)
        parts.append(part)
    return np.concatenate(parts)


def by_member(tiles: Sequence[tuple[int, Block]], group: Group, slope: float) -> Floats:
    """Of each row what every member says, (n, K, q)."""
    members = range(len(group.V))
    joined = (some[0][1].joined([block for _, block in some[1:]]) for some in _together(tiles))
    parts = [
        np.stack([_predicted(b.x, b.root, group, member, slope) for member in members], axis=1)
        for b in joined
    ]
    said: Floats = np.concatenate(parts).astype(np.float64)
    return said


def _together(tiles: Sequence[tuple[int, Block]]) -> Iterator[Sequence[tuple[int, Block]]]:
    """A few tiles at once: larger products take less time."""
    for first in range(0, len(tiles), AT_ONCE):
        yield tiles[first : first + AT_ONCE]


def _folds(start: int, n_folds: int) -> list[slice]:
    """Where the rows of each fold are in a tile."""
    return [slice((fold - start) % n_folds, None, n_folds) for fold in range(n_folds)]


def _predicted(x: Array, root: Array, group: Group, member: int, slope: float) -> Array:
    """What one member makes of some rows; of one that has diverged, what is not finite."""
    h = group.V.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        hidden = x @ group.W[:, member * h : (member + 1) * h]
        np.maximum(hidden, np.float32(slope) * hidden if slope else 0, out=hidden)
        out: Array = hidden @ group.V[member] + root * group.c[member]
    return out


def _derivatives(loss: Loss, output: Array, root: Array, y: Array) -> tuple[Array, Array]:
    """Of blocks: the gradient times the root of the row's weight, and the curvature."""
    divisor = positive(root)
    gradient, curvature = loss.derivatives(output / divisor, y / divisor)
    return gradient * root, curvature


def _damped_inverses(grams: Array, damping: float) -> Array:
    """The damped inverse of each member, in float32."""
    return np.stack([damped_inverse(gram, damping) for gram in grams])


@lru_cache(maxsize=64)
def _shares(fold: int, n: int, folds: int, first: int, members: int) -> Array:
    """The part of each row in the mean over those that train a member, (K, n, 1).

    ``fold`` is that of the first row.
    """
    own = np.arange(fold, fold + n) % folds == np.arange(first, first + members)[:, None]
    shares: Array = (~own / (~own).sum(axis=1, keepdims=True)).astype(np.float32)[:, :, None]
    return shares


@lru_cache(maxsize=2)
def _dropped(seed: int, rows: int, neurons: int, dropout: float) -> Array:
    kept = np.random.default_rng([seed, 2]).random((rows, neurons), dtype=np.float32) >= dropout
    patterns: Array = kept.astype(np.float32) / np.float32(1 - dropout)
    return patterns
