"""Kronecker-factored Gauss-Newton steps on tiles of rows: many cheap layer solves.

Of a tile of n rows, with S the slopes of the activation, H = X W o S and R = [H 1] O - Y:

    gradients   g_W = X'(S o R V') / n                 g_O = [H 1]' R / n
    curvature   C = X'X / n,  G = V V' o S'S / n       A = [H 1]'[H 1] / n
    steps       D_W = C^-1 g_W (G + l I)^-1            D_O = (A + l I)^-1 g_O

G and A are running means over tiles, C is that of all rows. A step changes the outputs by at most
``length`` in the root mean square, and by ever less towards the end of a descent.

This is K-FAC (Martens and Grosse, ICML 2015) for a two-layer ReLU network and the square loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from altrelu_dist.moments.curvature import kronecker_factors
from altrelu_dist.moments.loss import backward, forward, parts_of
from altrelu_dist.moments.rows import Array, Block, Floats, Weights
from altrelu_dist.solvers.linalg import damped_inverse
from altrelu_dist.training.driver import Report
from altrelu_dist.training.tile_order import tile_of_step

__all__ = ["LOOK", "SETTINGS", "Descent", "KroneckerSettings", "State"]

LOOK = 100  # steps between two looks at the clock, the validation rows and the checkpoint


@dataclass(frozen=True)
class KroneckerSettings:
    """Constants of the steps and rounds; the same for all data.

    Parameters
    ----------
    lengths : tuple of float
        Most root mean square change of the outputs in a step, in standard deviations of the
        targets: those that race, longest first.
    rate : float
        Part of a full Gauss-Newton step that is taken at most.
    momentum : float
    damping : float
        Added to the diagonals of G and A, in parts of their means: of up to 64 neurons. It grows
        with their number to the power of 1.5, since the curvature of many is less well known.
    renewal : int
        Steps between two looks at the curvature: of up to 100 neurons, in proportion of more.
    decay : float
        Weight of the running means of the curvature at each look.
    least_rows, usual_rows, most_rows : int
        Of a tile: the least, what thousands of rows are cut into, and the most.
    first_steps : int
        Of all descents of the first round together; each round makes twice as many as the one
        before.
    worth : float
        The part of the loss that a round has to take off for another one to follow.
    most_rounds : int
    unraced : tuple of float
        The length of steps where there is no time for a race: so much over the number of steps, and
        at most the second one. At least it is the middle one of those that race.
    few_steps : int
        Where there is time for fewer, tiles are smaller.
    """

    lengths: tuple[float, ...] = (0.03, 0.01, 0.003)
    rate: float = 0.3
    momentum: float = 0.9
    damping: float = 0.01
    renewal: int = 10
    decay: float = 0.9
    least_rows: int = 256
    usual_rows: int = 1024
    most_rows: int = 4096
    first_steps: int = 3000
    worth: float = 0.03
    most_rounds: int = 6
    unraced: tuple[float, float] = (50.0, 0.1)
    few_steps: int = 400

    def damping_of(self, n_hidden: int) -> float:
        """For so many neurons."""
        return float(min(1.0, self.damping * max(1.0, n_hidden / 64) ** 1.5))

    def renewal_of(self, n_hidden: int) -> int:
        """For so many neurons."""
        return max(self.renewal, n_hidden * self.renewal // 100)

    def tile_rows(self, n_rows: int) -> int:
        """Rows of a tile: several tiles even where rows are few, larger ones for many rows."""
        few = min(self.usual_rows, max(self.least_rows, n_rows // 4))
        return min(self.most_rows, max(few, n_rows // 100))

    def unraced_length(self, steps: int) -> float:
        """Of steps without a race: the longer a descent, the shorter the best steps."""
        path, most = self.unraced
        return min(most, max(self.lengths[len(self.lengths) // 2], path / steps))

    def racing(self, number: int, best: int) -> list[int]:
        """Which lengths race in a round: all at first, then the best one and a neighbour.

        The shorter neighbour comes first: the longer a descent, the shorter the best steps.
        """
        last = len(self.lengths) - 1
        if number == 0:
            return list(range(last + 1))
        neighbours = [place for place in (best + 1, best - 1) if 0 <= place <= last]
        return [best, neighbours[(number - 1) % len(neighbours)]]

    def round_steps(self, number: int, n_rows: int) -> int:
        """Steps of each descent in a round; it sees every row at least once."""
        racing = len(self.racing(number, 0))
        steps: int = self.first_steps * 2**number // racing
        return max(steps, -(-n_rows // self.tile_rows(n_rows)))


SETTINGS = KroneckerSettings()


class State(NamedTuple):
    """Where a descent is: what a checkpoint holds, but for the inverses, which follow from it."""

    weights: Weights  # of float32, as the next one
    move: Weights  # the last step
    curvature: tuple[Floats, Floats] | None  # G and A, running means
    inverses: tuple[Array, Array] | None  # damped, of G (h, h) and of A (h + 1, h + 1)
    taken: int  # steps


@dataclass(frozen=True)
class Descent:
    """A number of steps over tiles of rows: ``init``, then ``step`` until ``done``.

    Parameters
    ----------
    tiles : list of Block
        Of float32.
    inverse_gram : ndarray of shape (p, p)
        C^-1, of float32.
    mean_weight : float
        Of a row.
    alpha, slope : float
        Ridge, and negative slope of the activation.
    settings : KroneckerSettings
    length : float
        One of the settings' lengths.
    steps : int
    seed : int
        Of the order of the tiles.
    """

    tiles: list[Block]
    inverse_gram: Array
    mean_weight: float
    alpha: float
    slope: float
    settings: KroneckerSettings
    length: float
    steps: int
    seed: int

    def init(self, weights: Weights) -> State:
        """Begin at some weights."""
        begin = weights.balanced().astype(np.float32)
        still = Weights(np.zeros_like(begin.W), np.zeros_like(begin.V), np.zeros_like(begin.c))
        return State(begin, still, None, None, 0)

    def done(self, state: State) -> bool:
        """Whether all steps are made, or the weights, when looked at, are no longer numbers."""
        if state.taken >= self.steps:
            return True
        return state.taken % LOOK == 0 and not np.isfinite(state.weights.c).all()

    def step(self, state: State) -> State:
        """Take the step of the next tile."""
        weights, move, settings = state.weights, state.move, self.settings
        tile = self._tile(state.taken)
        n = np.float32(self.mean_weight * len(tile.x))
        if state.inverses is None or state.taken % settings.renewal_of(weights.n_hidden) == 0:
            state = self._renewed(state, tile, n)
        assert state.inverses is not None
        hidden_inverse, output_inverse = state.inverses
        gradient = self._gradient(tile, weights)
        g_W, g_O = gradient.W / n, gradient.output / n
        if self.alpha:
            g_W[:-1] += np.float32(self.alpha) * weights.W[:-1]
            g_O[:-1] += np.float32(self.alpha) * weights.V
        D_W = (self.inverse_gram @ g_W) @ hidden_inverse
        D_O = output_inverse @ g_O
        # g'D is the mean square by which the whole step would change the outputs.
        change = max(float(np.vdot(g_W, D_W)) + float(np.vdot(g_O, D_O)), 1e-30)
        fading = 0.5 * (1 + math.cos(math.pi * state.taken / self.steps))
        rate = np.float32(min(settings.rate * fading, self.length / math.sqrt(change)))
        momentum = np.float32(settings.momentum)
        move = Weights(
            momentum * move.W - rate * D_W,
            momentum * move.V - rate * D_O[:-1],
            momentum * move.c - rate * D_O[-1],
        )
        moved = Weights(weights.W + move.W, weights.V + move.V, weights.c + move.c)
        return state._replace(weights=moved, move=move, taken=state.taken + 1)

    def report(self, state: State) -> Report:
        """The rows of a turn over all tiles, and now and then the network on the way."""
        rows, weights = 0, None
        if state.taken and state.taken % len(self.tiles) == 0:
            rows = sum(len(tile.x) for tile in self.tiles)
        if state.taken and state.taken % LOOK == 0:
            weights = state.weights.astype(np.float64)
        return Report(weights, rows=rows)

    def save(self, state: State) -> dict[str, Any]:
        """What a checkpoint holds of a state."""
        return state._replace(inverses=None)._asdict()

    def restore(self, saved: Mapping[str, Any]) -> State:
        """The state of a checkpoint."""
        state = State(**saved)
        if state.curvature is None:
            return state
        return state._replace(inverses=self._inverses(*state.curvature))

    def _tile(self, taken: int) -> Block:
        """The tile of a step."""
        return self.tiles[tile_of_step(self.seed, taken, len(self.tiles))]

    def _gradient(self, tile: Block, weights: Weights) -> Weights:
        """Of half the sum of squares over a tile."""
        total: Weights | None = None
        for part in parts_of(tile, weights.n_hidden):
            into = backward(part, weights, *forward(part, weights, self.slope))
            if total is not None:
                into = Weights(total.W + into.W, total.V + into.V, total.c + into.c)
            total = into
        assert total is not None
        return total

    def _renewed(self, state: State, tile: Block, n: np.float32) -> State:
        """With the curvature of another tile in the running means."""
        features, slopes, _ = forward(tile, state.weights, self.slope)
        sums = kronecker_factors(tile, state.weights, features, slopes)
        hidden, output = sums[0] / n, sums[1] / n
        if state.curvature is not None:
            decay = self.settings.decay
            hidden = decay * state.curvature[0] + (1 - decay) * hidden
            output = decay * state.curvature[1] + (1 - decay) * output
        inverses = self._inverses(hidden, output)
        return state._replace(curvature=(hidden, output), inverses=inverses)

    def _inverses(self, hidden: Floats, output: Floats) -> tuple[Array, Array]:
        damping = self.settings.damping_of(len(hidden))
        return damped_inverse(hidden, damping), damped_inverse(output, damping)
