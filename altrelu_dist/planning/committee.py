"""What a committee will do: kinds of members race on the rows in memory, round by round."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from altrelu_dist.committee import COMMITTEE, Kind, line
from altrelu_dist.committee.gram import GRAM_ROWS
from altrelu_dist.encoding.hats import row_bytes_of, width_of, worthwhile
from altrelu_dist.planning.calls import Call, Range, Shape, Stage
from altrelu_dist.training import schedule

__all__ = ["Sizes", "sizes_of", "stages"]

_ONCE = Range.exactly(1)
_EVEN = Range(0.0, 0.5, 1.0)  # whether there are repeated columns is known only to the data
_NEWTON = Range(2, 6, line.MOST_STEPS)  # steps of a line of another loss than the square
_PARTS = 64  # shares of a race are rounded to such parts: their sums are exact
_FLOAT32 = 4


@dataclass(frozen=True)
class Sizes:
    """Of a committee on rows of some shape.

    Parameters
    ----------
    held : int
        Rows in memory.
    whole : bool
        Whether these are all.
    folds : int
        Members of a kind; 0: there are none.
    h : int
        Neurons of a member.
    columns : tuple of int
        Of an encoded row, the one included: standardised, with the coarse pieces, with the fine
        ones. Columns are taken as continuous.
    values : int
        Further columns of members that take the values of repeated columns, at most.
    """

    held: int
    whole: bool
    folds: int
    h: int
    columns: tuple[int, ...]
    values: int

    def of(self, kind: Kind) -> int:
        """Columns that members of a kind take."""
        pieces = min(kind.pieces, len(self.columns) - 1)
        return self.columns[pieces] + self.values * kind.values

    def width(self, kind: Kind) -> int:
        """Columns of dense rows whose products would take as long as those of its members."""
        return self.of(kind) if self._dense(kind) else width_of(self.columns[0], self._cut(kind))

    def row_bytes(self, kind: Kind) -> int:
        """Of an encoded row of its members."""
        dense = _FLOAT32 * self.of(kind)
        return dense if self._dense(kind) else row_bytes_of(self.columns[0], self._cut(kind))

    def _cut(self, kind: Kind) -> int:
        """Raw columns with pieces, and those with values."""
        return (self.columns[0] - 1) * ((kind.pieces > 0) + kind.values)

    def _dense(self, kind: Kind) -> bool:
        """Whether its rows are not taken as hats."""
        return kind.mixed or not worthwhile(self.columns[0], self._cut(kind), self.of(kind))

    @property
    def neurons(self) -> int:
        """Of all members of a kind."""
        return self.folds * self.h

    @property
    def judged(self) -> int:
        """Rows whose out-of-fold predictions weigh the groups."""
        return min(self.held, COMMITTEE.judged_rows)

    def kept(self, row_bytes: int) -> bool:
        """Whether encoded rows of so many bytes are kept."""
        return self.held * row_bytes <= COMMITTEE.encoded_bytes


def sizes_of(shape: Shape) -> Sizes:
    """The sizes of a committee."""
    n, d = shape.n, shape.d
    most = schedule.ROWS.in_memory((d + shape.q) * shape.dtype.itemsize, COMMITTEE.judged_rows)
    whole = n <= schedule.ROWS.nearly_all * most
    held = n if whole else -(-n // -(-n // most))  # equal parts, one of them at a time

    def count(intervals: int) -> int:
        return d * min(n - 1, intervals) if n > 2 else 0

    pieces = (0, *map(count, COMMITTEE.intervals(count)))
    columns = tuple(d + 1 + more for more in pieces)
    values = min(COMMITTEE.value_columns, n // COMMITTEE.rows_a_value * d) if pieces[1:] else 0
    return Sizes(held, whole, COMMITTEE.folds(held), COMMITTEE.member_size(held), columns, values)


def stages(shape: Shape, looks: tuple[Stage, Stage], *, by_loss: bool) -> tuple[Stage, ...]:
    """The stages of a run.

    Parameters
    ----------
    shape : Shape
    looks : tuple of Stage
        The first pass, and the one that takes rows into memory.
    by_loss : bool
        Whether the loss is another one than the square.
    """
    sizes = sizes_of(shape)
    summary, sample = looks
    sketch = Call("sketch", shape.n, 0, _ONCE, everywhere=True, rides=True)
    summary = replace(summary, calls=(*summary.calls, sketch))
    if sizes.folds < 2:
        return summary, sample
    sample = replace(sample, calls=(*sample.calls, *_lines(sizes, shape.q if by_loss else 0)))
    rounds = len(COMMITTEE.racing)
    size = sizes.neurons
    groups = max(1, min(COMMITTEE.kept, shape.h // size))
    members = Stage(
        "members",
        sizes.held,
        (size, groups * size),
        Range(1, (_least_rounds(sizes) + rounds) / 2, rounds),
        (*_race(sizes), *_folding(sizes, groups), *_renewals(sizes, shape, rounds)),
    )
    return summary, sample, members


def _lines(sizes: Sizes, of_loss: int) -> list[Call]:
    """The ridge lines: of the standardised columns, and with more beside them where there are few.

    Those of another loss are the ends of Newton's steps, each with the moments of ``of_loss``
    targets; the first lines are found twice.
    """
    calls = []
    kinds = COMMITTEE.lines(
        len(sizes.columns) - 1, lambda kind: sizes.of(kind) - 1, values=sizes.values > 0
    )
    for number, kind in enumerate(kinds):
        p, times = sizes.of(kind), _ONCE
        if of_loss:
            times = _NEWTON.times(of_loss).plus(_ONCE).times(line.CHOICES * (1 if number else 2))
        encoded = 1 if sizes.kept(_FLOAT32 * p) else max(3, round(times.typical))
        made = [
            Call("encode", encoded * sizes.held, 0, _ONCE, columns=p),
            Call("line", sizes.held, 0, times, columns=p),
            Call("eigen", 0, 0, Range.exactly(sizes.folds), columns=p),
        ]
        calls += [call.times(_EVEN) for call in made] if kind.values else made
    return calls


def _race(sizes: Sizes) -> list[Call]:
    """The rounds: which kinds are best is known only to the data, so that each is as likely.

    Whether a round that may be left out takes place is taken as even.
    """
    racers = list(COMMITTEE.taking(len(sizes.columns) - 1))
    racers = racers[: COMMITTEE.racing[0]]
    calls = [call for kind in racers for call in _round(sizes, kind, 0, len(racers), begins=True)]
    chances = dict.fromkeys(racers, 1.0)  # to take part in the round before
    for number, most in enumerate(COMMITTEE.racing[1:], start=1):
        going = min(most, len(racers))
        begin: tuple[Kind, ...] = ()
        if number == 1:
            coarse = [kind for kind in racers if kind.pieces == 1]
            best = replace(coarse[0], whitened=all(k.whitened for k in coarse)) if coarse else None
            begin = COMMITTEE.followers(best, len(sizes.columns) - 1, values=sizes.values > 0)
        beside = going + len(begin)
        # The best may be whitened or not.
        begin += tuple(replace(kind, whitened=not kind.whitened) for kind in _fine(begin))
        left = going / sum(chances.values())
        takes_place = 1.0 if number < _least_rounds(sizes) else 0.5
        for place, kind in enumerate(sorted(racers, key=lambda each: _cost(sizes, each))):
            chances[kind] = chances.get(kind, 0.0) * left
            share = math.floor(_PARTS * takes_place * chances[kind]) / _PARTS
            count = Range(0.0, share, float(place >= len(racers) - going))
            calls += [call.times(count) for call in _round(sizes, kind, number, beside)]
        for kind in begin:
            once = _EVEN if kind.values or kind in _fine(begin) else Range(0.0, 1.0, 1.0)
            chances[kind] = once.typical
            made = _round(sizes, kind, number, beside, begins=True)
            calls += [call.times(once) for call in made]
        racers += begin
    return calls


def _least_rounds(sizes: Sizes) -> int:
    """After which the race may end, unless lines alone have a weight."""
    return COMMITTEE.least(COMMITTEE.n_tiles(sizes.held), linear=False)


def _fine(kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Those that follow the best of the coarse kinds."""
    return tuple(kind for kind in kinds if kind.pieces > 1 and not kind.values)


def _cost(sizes: Sizes, kind: Kind) -> tuple[int, bool]:
    """What the seconds of a round grow with."""
    return sizes.width(kind), kind.whitened


def _round(
    sizes: Sizes, kind: Kind, number: int, kinds: int, *, begins: bool = False
) -> list[Call]:
    """Members of a kind, for one round, in which so many kinds take part."""
    beside = kinds * len(COMMITTEE.parts(sizes.folds, sizes.h))
    held, p, width, h = sizes.held, sizes.of(kind), sizes.width(kind), sizes.h
    n_tiles = COMMITTEE.n_tiles(held)
    steps = COMMITTEE.steps(number, n_tiles)
    passes = steps / n_tiles
    looked = min(held, COMMITTEE.looked_rows)
    encoded = held * (2 if kind.whitened else 1) if begins else 0  # then they are kept
    if not sizes.kept(sizes.row_bytes(kind)):
        encoded = int(held * passes) + looked + 2 * sizes.judged
    calls = [
        Call("encode", encoded, 0, _ONCE, columns=p),
        Call("member", held, sizes.neurons, Range.exactly(passes), columns=width, beside=beside),
        Call("member-step", 0, sizes.neurons, Range.exactly(steps), columns=p, beside=beside),
        Call("judge", looked, h, Range.exactly(COMMITTEE.looks + 1), columns=width, beside=beside),
        Call("judge", sizes.judged, h, Range.exactly(2), columns=width),
        Call("weigh", sizes.judged, 0, _ONCE),
    ]
    if kind.whitened:
        calls.append(Call("turn", sizes.judged + encoded, 0, _ONCE, columns=p))
        calls.append(Call("eigen", 0, 0, _ONCE, columns=p))
    if begins:  # at hinges: the features of all members, and the systems of their output layers
        few = min(held, COMMITTEE.first_rows(h))
        calls.append(Call("judge", few, h, Range.exactly(2 * sizes.folds), columns=p))
    return calls


def _folding(sizes: Sizes, groups: int) -> list[Call]:
    """The Gram matrix of the hidden features, for further rows."""
    rows, p = min(sizes.judged, GRAM_ROWS), sizes.columns[-1]
    return [
        Call("encode", rows, 0, _ONCE, columns=p),
        Call("fold", rows, groups * sizes.neurons, _ONCE, columns=p),
    ]


def _renewals(sizes: Sizes, shape: Shape, rounds: int) -> list[Call]:
    """The passes that take other rows into memory in each further round, if it holds not all."""
    if sizes.whole:
        return []
    return [Call("sample", shape.n, 0, Range(0, rounds - 1, rounds - 1), everywhere=True)]
