"""Words of a plan: ranges, the sizes of a problem, calls of kernels, stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ONE_THREAD", "PASSES", "Call", "Range", "Shape", "Stage"]

# The statistics that are passes over rows, which a run counts.
PASSES = (
    *("summary", "sample", "whiten", "loss", "loss-and-gradient", "output", "tile"),
    *("gram", "delta", "kinks", "member"),
)
# What passes over rows in memory one tile after the other, each of them on one thread.
ONE_THREAD = ("encode", "line", "turn", "member", "judge", "weigh", "fold")


class Range(NamedTuple):
    """Least, typical and most of a figure."""

    least: float
    typical: float
    most: float

    @classmethod
    def exactly(cls, value: float) -> Range:
        """A figure that does not depend on the data."""
        return cls(value, value, value)

    @classmethod
    def total(cls, ranges: Iterable[Range]) -> Range:
        """The sum of all, end by end."""
        total = cls.exactly(0)
        for each in ranges:
            total = total.plus(each)
        return total

    def plus(self, other: Range) -> Range:
        """The sum, end by end."""
        return Range(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float | Range) -> Range:
        """The product, end by end."""
        factors = factor if isinstance(factor, Range) else Range.exactly(factor)
        return Range(*(a * b for a, b in zip(self, factors, strict=True)))


@dataclass(frozen=True)
class Shape:
    """The sizes of a problem.

    Parameters
    ----------
    n : int
        Rows.
    d, q, h : int
        Features, targets, hidden neurons.
    dtype : dtype
        In which blocks are computed.
    """

    n: int
    d: int
    q: int
    h: int
    dtype: np.dtype[Any]

    @property
    def p(self) -> int:
        """Columns of a standardised row, the one included."""
        return self.d + 1


@dataclass(frozen=True)
class Call:
    """So many runs of one kernel.

    Parameters
    ----------
    kernel : str
        A statistic; ``"distinct"`` or ``"prepare"``, of rows that were drawn; ``"insert"``, the
        products of candidates; or a dense step, which passes over no rows: ``"choose"`` (among
        candidates), ``"iterate"`` and ``"metric"`` (of a quasi-Newton method, its own work and
        the change to whitened inputs and back), ``"precondition"`` (of a Kronecker-factored step),
        ``"remove"`` (all neurons that go at once),
        ``"system"`` (of a damped step), ``"step"`` (its solution), ``"solve"`` (of the paper's
        hidden layer). Of a committee: ``"sketch"`` (of columns), ``"encode"``, ``"line"``
        (moments of the ridge lines), ``"turn"`` (whitening), ``"eigen"``, ``"member"`` and
        ``"member-step"`` (what each row and each step take, of all members together),
        ``"judge"`` (out-of-fold predictions), ``"weigh"`` (groups), ``"fold"`` (the Gram matrix of
        the network).
    rows : int
        That each run passes over; 0 for a dense step.
    neurons : int
        Of the network at hand; of the dense steps, of one system.
    count : Range
    everywhere : bool
        Whether it is a pass over the whole data, read from where it lies, rather than over rows
        in memory.
    rides : bool
        Whether it is part of another pass over the same rows.
    columns : int
        Of an encoded row, the one included; 0: those of a standardised row.
    beside : int
        How many computations of equal parts of it, and of others, go on side by side.
    """

    kernel: str
    rows: int
    neurons: int
    count: Range
    everywhere: bool = False
    rides: bool = False
    columns: int = 0
    beside: int = 1

    def times(self, count: Range) -> Call:
        """The same, so many times as often."""
        return replace(self, count=self.count.times(count))


@dataclass(frozen=True)
class Stage:
    """A stage as the progress names it, and what it runs."""

    name: str
    rows: int
    neurons: tuple[int, int]  # at its begin and at its end
    rounds: Range  # growth stages, cycles, descents or steps
    calls: tuple[Call, ...]
