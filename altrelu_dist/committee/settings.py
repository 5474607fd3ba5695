"""Constants of a committee; the plan of a run reads them too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

__all__ = ["COMMITTEE", "CommitteeSettings", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of members: what columns they take, and what keeps them from fitting noise.

    Parameters
    ----------
    name : str
    pieces : int
        Which block of piecewise-linear columns they take beside the standardised ones: 0 none, 1
        the coarse one, 2 the fine one.
    whitened : bool
        Whether their columns are made uncorrelated, which lets steps go deeper, and fit more noise.
    focused : bool
        Whether columns count by how much they mattered to members of the first round.
    values : bool
        Whether they also take hats at the values of columns that repeat them.
    dropout : float
        Part of the hidden neurons that each step leaves out, for each row others.
    """

    name: str
    pieces: int
    whitened: bool = False
    focused: bool = False
    values: bool = False
    dropout: float = 0.0

    @property
    def mixed(self) -> bool:
        """Whether its columns are mixed or multiplied, so that no row has zeros to leave out."""
        return self.whitened or self.focused


@dataclass(frozen=True)
class CommitteeSettings:
    """Constants of a committee; the same for all data.

    Parameters
    ----------
    kinds : tuple of Kind
        Those that race. After the first round more follow: the best of those with coarse pieces,
        but with fine ones; one with coarse pieces whose columns are focused; and, where the ridge
        line gained from the values of repeated columns, one with these.
    n_folds : int
        Members of a kind; each is trained on all rows but those of its own fold.
    together : int
        Neurons, at most, of the members that one computation trains: others go on beside it.
    least_rows : int
        A fold has at least so many rows; below two folds there is only the line.
    n_hidden : int
        Neurons of a member.
    wider : tuple of (int, int, int)
        From so many rows on, so many neurons of a member, and so many members.
    rows_a_neuron : int
        A member has fewer neurons where it would have fewer training rows for each.
    coarse, fine : int
        Most intervals of a column in the piecewise-linear blocks.
    coarse_columns, fine_columns : int
        Most columns of these blocks: fewer intervals where there are many columns.
    line_columns : int
        Most columns of a ridge line that has more than the standardised ones: its time is cubic in
        them.
    rows_a_value : int
        A column is repeated if it has more values than a coarse block has knots, and on average so
        many rows for each.
    value_columns : int
        Most columns of the values of repeated columns.
    worth_of_values : float
        The part of its out-of-fold loss that these have to take off the ridge line.
    few_steps, few_tiles, first_steps : int
        Of each member in the first round: the first, where the rows are at most so many tiles; in
        inverse proportion fewer where they are more, but at least the last. Twice as many in each
        further round.
    racing : tuple of int
        How many kinds take part in each round, beside those that begin in it. Those that do not are
        out of the race.
    least_rounds : int
        Rounds after which the race may end.
    soonest, least_turns : int
        The least rounds where lines alone have a weight, or members of the first round have seen
        each row so many times.
    worth : float
        The part of its out-of-fold loss that a round has to take off for the kind to go on.
    worth_of_all : float
        The part of the loss of the weighed groups that a round has to take off for another one to
        follow.
    looks : int
        Times in a round that each member is validated on its own fold.
    own_rows : int
        Rows of a fold from which on the best weights of each member are those of least loss on its
        own fold. Where folds have fewer, members that are trained together have their best weights
        at the same step: that of the least sum of these losses.
    kept : int
        Groups of members that the network is made of at most, beside the line.
    tile_rows, most_tile_rows : int
        Of a step: on usual data, and on many rows.
    tiles : int
        Tiles grow where there would be more than so many.
    floor : float
        Of whitening, in parts of the mean variance.
    focus_floor : float
        Of the factors of focused columns, whose usual size is 1.
    damping, length, rate, momentum, decay : float
        Of the Kronecker-factored steps; see `KroneckerSettings`. The damping is that of 64 neurons,
        and grows with their number.
    renewal : int
        Steps between two renewals of the curvature: of up to 100 neurons, in proportion of more.
    judged_rows, looked_rows : int
        Rows, at most, whose out-of-fold predictions weigh the groups, and on which members are
        validated on the way.
    compared_rows : int
        Rows, at most, on which all members are compared with each other.
    output_ridge : float
        Ridge of the output layer where further rows are folded in, towards what it was, in parts
        of the mean square of a hidden feature.
    encoded_bytes : int
        Rows are kept encoded, if they need no more than so many bytes.
    """

    kinds: tuple[Kind, ...] = (
        Kind("plain", 0),
        Kind("coarse", 1),
        Kind("coarse-whitened", 1, whitened=True),
        Kind("coarse-dropout", 1, dropout=0.15),
    )
    n_folds: int = 8
    together: int = 256
    least_rows: int = 10
    n_hidden: int = 64
    wider: tuple[tuple[int, int, int], ...] = ((100_000, 128, 8), (400_000, 256, 4))
    rows_a_neuron: int = 4
    coarse: int = 16
    fine: int = 256
    coarse_columns: int = 2048
    fine_columns: int = 768
    line_columns: int = 1200
    rows_a_value: int = 3
    value_columns: int = 512
    worth_of_values: float = 0.01
    few_steps: int = 200
    few_tiles: int = 4
    first_steps: int = 64
    racing: tuple[int, ...] = (4, 2, 2, 1, 1, 1)
    least_rounds: int = 4
    soonest: int = 2
    least_turns: int = 32
    worth: float = 0.01
    worth_of_all: float = 0.005
    looks: int = 10
    own_rows: int = 100
    kept: int = 2
    tile_rows: int = 512
    most_tile_rows: int = 1024
    tiles: int = 400
    floor: float = 0.1
    focus_floor: float = 0.1
    damping: float = 0.1
    length: float = 0.01
    rate: float = 0.3
    momentum: float = 0.9
    decay: float = 0.9
    renewal: int = 10
    judged_rows: int = 65_536
    looked_rows: int = 16_384
    compared_rows: int = 4096
    output_ridge: float = 1.0
    encoded_bytes: int = 2**29

    def followers(
        self, best: Kind | None, pieces: int, *, values: bool = False
    ) -> tuple[Kind, ...]:
        """The kinds that begin after the first round, where there are so many blocks of pieces.

        ``best`` is the best of those with coarse pieces, if any took part.
        """
        found = [Kind("focused", min(1, pieces), focused=True)]
        if best is not None and pieces > 1:
            name = best.name.replace("coarse", "fine")
            found.insert(0, replace(best, name=name, pieces=2))
        if values:
            dropout = 0.0 if best is None else best.dropout
            found.append(Kind("values", min(2, pieces), values=True, dropout=dropout))
        return tuple(found)

    def lines(self, pieces: int, columns: Callable[[Kind], int], *, values: bool) -> list[Kind]:
        """The columns of the ridge lines: all the standardised ones, and more where they are few.

        Parameters
        ----------
        pieces : int
            Blocks of pieces.
        columns : callable
            How many a kind takes.
        values : bool
            Whether there are repeated columns. Where their values and the coarse pieces are too
            many together, the line has the values alone.
        """
        found = [Kind("line-1", 1)] if pieces else []
        if values:
            both, alone = (Kind("line-values", with_, values=True) for with_ in (1, 0))
            found.append(both if columns(both) <= self.line_columns else alone)
        return [Kind("line-0", 0), *(k for k in found if columns(k) <= self.line_columns)]

    @property
    def most_neurons(self) -> int:
        """Neurons of the network at most, but for those of the line."""
        return self.kept * max(h * members for _, h, members in self._sizes)

    @property
    def _sizes(self) -> tuple[tuple[int, int, int], ...]:
        return (0, self.n_hidden, self.n_folds), *self.wider

    def _size(self, n_rows: int) -> tuple[int, int]:
        """Neurons of a member and members where rows are as many."""
        return next(size[1:] for size in reversed(self._sizes) if n_rows >= size[0])

    def taking(self, pieces: int) -> tuple[Kind, ...]:
        """The kinds where there are only so many blocks of pieces, none of them twice."""
        found: dict[Kind, Kind] = {}
        for kind in self.kinds:
            fits = replace(kind, pieces=min(kind.pieces, pieces))
            found.setdefault(replace(fits, name=""), replace(kind, pieces=fits.pieces))
        return tuple(found.values())

    def folds(self, n_rows: int) -> int:
        """How many folds so many rows are cut into; 0 if they are too few for members."""
        folds = min(self._size(n_rows)[1], n_rows // self.least_rows)
        return folds if folds > 1 else 0

    def parts(self, n_folds: int, n_hidden: int) -> list[tuple[int, int]]:
        """First and last member, exclusive, of each computation that trains some of a kind."""
        members = max(1, self.together // n_hidden)
        cuts = range(0, n_folds, members)
        return [(first, min(first + members, n_folds)) for first in cuts]

    def member_size(self, n_rows: int) -> int:
        """Neurons of a member."""
        return max(1, min(self._size(n_rows)[0], n_rows // self.rows_a_neuron))

    def one_of(self, neurons: int) -> int:
        """Neurons of a member, at most, where all of a group have so many."""
        fitting = (h for _, h, members in self._sizes if h * members >= neurons)
        return min(next(fitting, self._sizes[-1][1]), neurons)

    def damping_of(self, n_hidden: int) -> float:
        """For members of so many neurons."""
        return min(1.0, self.damping * max(1.0, n_hidden / 64))

    def renewal_of(self, n_hidden: int) -> int:
        """For members of so many neurons."""
        return max(self.renewal, n_hidden * self.renewal // 100)

    def rows_of_tile(self, n_rows: int) -> int:
        """Rows of a step."""
        return min(self.most_tile_rows, max(self.tile_rows, n_rows // self.tiles))

    def n_tiles(self, n_rows: int) -> int:
        """Tiles that so many rows are cut into."""
        return max(1, round(n_rows / self.rows_of_tile(n_rows)))

    def steps(self, number: int, n_tiles: int) -> int:
        """Steps of a round; the last ones see every row at least once."""
        few = self.few_steps * self.few_tiles // max(self.few_tiles, n_tiles)
        steps: int = max(self.first_steps, few) * 2**number
        return max(steps, n_tiles) if number >= 2 else steps

    def least(self, n_tiles: int, *, linear: bool) -> int:
        """Rounds after which a race may end, where lines alone have a weight or not."""
        if linear:
            return self.soonest
        steps = accumulate(self.steps(number, n_tiles) for number in range(self.least_rounds))
        few = sum(taken < self.least_turns * n_tiles for taken in steps)
        return min(self.least_rounds, max(self.soonest, few + 1))

    def first_rows(self, n_hidden: int) -> int:
        """Rows that members of so many neurons get their first output layers from."""
        return max(4096, self.n_folds * n_hidden)

    def intervals(self, count: Callable[[int], int]) -> tuple[int, ...]:
        """Intervals of a column in the coarse and in the fine block, and only what adds to it.

        Parameters
        ----------
        count : callable
            Columns of a block, from the intervals of each.
        """
        coarse = _most(self.coarse, 4, self.coarse_columns, count)
        if not coarse:
            return ()
        fine = _most(self.fine, 2 * coarse, self.fine_columns, count)
        return (coarse, fine) if fine and count(fine) > count(coarse) else (coarse,)


def _most(intervals: int, least: int, columns: int, count: Callable[[int], int]) -> int:
    """The most intervals, halved until the columns are few enough; 0 if none are."""
    while intervals >= least:
        if 0 < count(intervals) <= columns:
            return intervals
        intervals //= 2
    return 0


COMMITTEE = CommitteeSettings()
