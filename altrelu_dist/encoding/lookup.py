"""A linear layer on encoded columns, looked up by raw columns.

But for the waves of times, the encoded columns of a raw column are linear between knots, and so is
what a layer makes of all of them together. Its values at the knots are a table: a row takes two
lines of it for each raw column, however many encoded columns there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from altrelu_dist.encoding.encoder import Encoder
from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.moments.rows import Floats

__all__ = ["LookupLayer"]

# Encoded columns of a raw one whose products take longer than two lines, on one thread.
_FEWEST = 24

_Linear = Sequence[dict[int, Floats] | None]  # knots by block, see `ColumnBlock.linear_between`


@dataclass(frozen=True, eq=False)
class LookupLayer:
    """The tables of a layer.

    Parameters
    ----------
    columns : ndarray of int of shape (d,)
        The raw columns that are looked up, at least one.
    whole : ndarray of bool of shape (d,)
        Which of them hold places of levels: whole numbers.
    knots : tuple of ndarray
        Of each column, increasing, at least two.
    table : ndarray of shape (number of knots + d, N)
        The lines of a column, one for each knot and then one for missing values, follow those of
        the column before.
    rest : Encoder
        Of what is not looked up: waves, and raw columns with few encoded ones.
    weights : ndarray of shape (rest.n_columns, N)
    """

    columns: NDArray[np.intp]
    whole: NDArray[np.bool_]
    knots: tuple[Floats, ...]
    table: Floats
    rest: Encoder
    weights: Floats

    @classmethod
    def of(cls, encoder: Encoder, weights: Floats, bias: Floats) -> LookupLayer | None:
        """The tables of ``encoder.transform(X) @ weights + bias``; None if they save no time.

        Parameters
        ----------
        encoder : Encoder
        weights : ndarray of shape (encoder.n_columns, N)
        bias : ndarray of shape (N,)

        Returns
        -------
        LookupLayer or None
        """
        linear = [block.linear_between() for block in encoder.blocks]
        columns = _worth_looking_up(encoder, linear)
        if not len(columns):
            return None
        knots = tuple(
            np.unique(np.concatenate([found[c] for found in linear if found and c in found]))
            for c in columns.tolist()
        )
        # An encoded column is of one raw column: each row has a knot of every one.
        asked = np.full((max(map(len, knots)) + 1, encoder.n_features), np.nan)
        for column, own in zip(columns, knots, strict=True):
            asked[: len(own), column] = own
        chosen = np.zeros(encoder.n_features, dtype=bool)
        chosen[columns] = True
        encoded = encoder.of_columns(chosen).transform(asked)

        rest, looked_up = _apart(encoder, chosen, linear)
        source = np.concatenate([block.sources for block in encoder.blocks])
        of_encoded = np.flatnonzero(chosen[source])
        lines = []
        for column, own in zip(columns, knots, strict=True):
            mine = looked_up[of_encoded] & (source[of_encoded] == column)
            lines.append(encoded[: len(own) + 1, mine] @ weights[of_encoded[mine]])
        lines[0] += bias
        levels = [b.columns for b in encoder.blocks if isinstance(b, LevelColumns)]
        whole = np.isin(columns, np.concatenate([np.zeros(0, np.intp), *levels]))
        return cls(columns, whole, knots, np.concatenate(lines), rest, weights[~looked_up])

    def apply(self, X: NDArray[Any]) -> Floats:
        """What the layer makes of raw rows (n, n_features): (n, N)."""
        lines, shares = self._lines_of(X)
        used = shares != 0
        ends = np.append(0, np.cumsum(np.count_nonzero(used, axis=1)))
        rows = csr_array((shares[used], lines[used], ends), shape=(len(X), len(self.table)))
        out: Floats = rows @ self.table
        if self.rest.blocks:
            out += self.rest.transform(X) @ self.weights
        return out

    def _lines_of(self, X: NDArray[Any]) -> tuple[NDArray[np.int32], Floats]:
        """The lines that each row takes, (n, 2 d), and the share of each."""
        x = X.T[self.columns].astype(np.float64)
        x[self.whole] = np.floor(x[self.whole])
        begin, length = self._intervals
        lines = np.empty((len(X), len(x), 2), np.int32)
        shares = np.empty(lines.shape)
        line = np.empty(x.shape, np.int32)
        for k, (own, start) in enumerate(zip(self.knots, self._starts.tolist(), strict=True)):
            line[k] = start + np.searchsorted(own[1:-1], x[k], side="right")
        with np.errstate(over="ignore", invalid="ignore"):  # far from a knot, or infinite
            share = np.clip((x - begin[line]) / length[line], 0.0, 1.0)
        share[np.isinf(x)] = np.nan
        lines[:, :, 0], lines[:, :, 1] = line.T, line.T + 1
        shares[:, :, 0], shares[:, :, 1] = 1 - share.T, share.T
        missing = np.isnan(x)
        if missing.any():
            column, row = np.nonzero(missing)
            lines[row, column] = self._missing[column, None]
            shares[row, column] = 1.0, 0.0
        shape = len(X), 2 * len(x)
        return lines.reshape(shape), shares.reshape(shape)

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        """The first line of each column."""
        return np.cumsum([0, *(len(own) + 1 for own in self.knots[:-1])])

    @cached_property
    def _missing(self) -> NDArray[np.intp]:
        """The line of each column where it is missing."""
        return np.append(self._starts[1:], len(self.table)) - 1

    @cached_property
    def _intervals(self) -> tuple[Floats, Floats]:
        """The knot of each line, and how far it is to the next one."""
        begin, length = np.zeros(len(self.table)), np.ones(len(self.table))
        for own, start in zip(self.knots, self._starts.tolist(), strict=True):
            begin[start : start + len(own)] = own
            length[start : start + len(own) - 1] = np.diff(own)
        return begin, length


def _worth_looking_up(encoder: Encoder, linear: _Linear) -> NDArray[np.intp]:
    """The raw columns with many encoded ones that are linear between knots."""
    counts = np.zeros(encoder.n_features, dtype=np.intp)
    for block, knots in zip(encoder.blocks, linear, strict=True):
        if knots is not None:
            counts += np.bincount(block.sources, minlength=encoder.n_features)
    return np.flatnonzero(counts >= _FEWEST)


def _apart(
    encoder: Encoder, chosen: NDArray[np.bool_], linear: _Linear
) -> tuple[Encoder, NDArray[np.bool_]]:
    """The encoder of what is not looked up, and which encoded columns are."""
    with_waves = ~chosen
    for block, knots in zip(encoder.blocks, linear, strict=True):
        if knots is None:
            with_waves[block.sources] = True
    blocks, looked_up = [], []
    for block, knots in zip(encoder.blocks, linear, strict=True):
        # Indicators of gaps say in the rest, too, where times may be missing.
        kept = with_waves if knots is None or isinstance(block, GapColumns) else ~chosen
        blocks.append(block.of_columns(kept))
        looked_up.append(~kept[block.sources])
    rest = tuple(block for block in blocks if block.n_columns)
    return Encoder(encoder.n_features, rest), np.concatenate(looked_up)
