"""Encoded rows without their zeros: hats in place of pieces.

The weights ``w_1 .. w_k`` of a column's pieces make a function that is 0 at the first knot,
``w_1 + ... + w_j`` at knot ``j + 1``, and linear between. In the basis of these values, the hats, a
row has two numbers a column that are not zero, however many pieces there are: products with many
pieces of few columns take a fraction of the multiplications, and the rows a fraction of the memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from altrelu_dist.encoding.encoder import Encoder
from altrelu_dist.encoding.pieces import PieceColumns
from altrelu_dist.moments.rows import Array, Block, Floats

__all__ = ["HatBlock", "HatForm", "HatRows", "row_bytes_of", "width_of", "worthwhile"]

_GROUP = 16  # hats whose sums one product takes
_SUMS = np.tri(_GROUP, dtype=np.float32)
_DENSE_TO_SPARSE = 13  # numbers of dense rows are multiplied in the time of one of sparse rows
_WORTH = 0.75  # of the time of dense rows: the sums of pieces take some as well


def width_of(dense: int, cut: int) -> int:
    """Columns of dense rows whose products would take as long as those of hats.

    Parameters
    ----------
    dense : int
        Columns without pieces.
    cut : int
        Raw columns with pieces, once for each block of pieces.
    """
    return dense + 2 * _DENSE_TO_SPARSE * cut


def worthwhile(dense: int, cut: int, n_columns: int) -> bool:
    """Whether rows of so many encoded columns are taken as hats."""
    return width_of(dense, cut) < _WORTH * n_columns


def row_bytes_of(dense: int, cut: int) -> int:
    """Bytes of an encoded row of float32, a one included, at most."""
    return 4 * (dense + 2) + 16 * cut


@dataclass(frozen=True, eq=False)
class _BlockOfHats:
    """A block of pieces as hats.

    Where the encoded columns are pieces, the hats of each raw column are followed by unused ones,
    up to a multiple of `_GROUP`: so few products of matrices take the sums of all groups.

    Parameters
    ----------
    block : PieceColumns
    encoded : bool
        Whether the encoded columns are not the pieces, but the hats, standardised.
    lacking : ndarray of bool of shape (n_features,)
        Which raw columns may be missing: each has a column more, 1 where it is.
    """

    block: PieceColumns
    encoded: bool
    lacking: NDArray[np.bool_]

    @property
    def n_columns(self) -> int:
        """Encoded columns."""
        return self.block.n_columns

    @cached_property
    def center(self) -> Array:
        """What is taken off each column."""
        block = self.block
        found = block.hat_share / block.hat_scale if self.encoded else block.center * block.factor
        center: Array = found.astype(np.float32)
        return center

    @cached_property
    def gaps(self) -> list[tuple[int, slice]]:
        """The columns of missing values, each with the encoded columns whose mean it stands for."""
        may = np.flatnonzero(self.lacking[self.block.columns])
        return [(len(self._source) + k, self._own[at]) for k, at in enumerate(may)]

    @property
    def n_hats(self) -> int:
        """Columns of the sparse rows."""
        return len(self._source) + len(self.gaps)

    def rows(self, X: NDArray[Any]) -> tuple[NDArray[np.int32], Floats]:
        """Places and values, (n, 2 columns) each, of the numbers that may not be zero."""
        block = self.block
        places = np.zeros((len(X), 2 * len(block.columns)), np.int32)
        values = np.zeros(places.shape)
        scales = 1 / block.hat_scale if self.encoded else np.full(self.n_columns, block.factor)
        ends = np.cumsum(block.n_knots)
        gap = len(self._source)
        for k, (column, own) in enumerate(zip(block.columns, self._own, strict=True)):
            knots, scale = block.knots[ends[k] - block.n_knots[k] : ends[k]], scales[own]
            x = X[:, column].astype(np.float64)
            missing = np.isnan(x)
            x[np.isinf(x)] = np.nan  # as in dense rows
            piece = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(scale) - 1)
            with np.errstate(over="ignore"):
                share = (x - knots[piece]) / (knots[piece + 1] - knots[piece])
            share = np.clip(share, 0.0, 1.0)
            places[:, 2 * k + 1] = self._place[own][piece]
            places[:, 2 * k] = places[:, 2 * k + 1] - (piece > 0)
            values[:, 2 * k + 1] = share * scale[piece]
            values[:, 2 * k] = np.where(piece > 0, (1 - share) * scale[piece - 1], 0.0)
            if self.lacking[column]:
                places[missing, 2 * k], values[missing, 2 * k : 2 * k + 2] = gap, (1, 0)
                gap += 1
        return places, values

    def values(self, W: Array, out: Array) -> None:
        """Write what the hats are multiplied by, (n_hats, N), for weights of the columns."""
        n, N = len(self._source), W.shape[1]
        if self.encoded:
            out[:n] = W
        else:
            sums = out[:n].reshape(-1, _GROUP, N)
            np.matmul(_SUMS, np.take(W, self._source, axis=0).reshape(sums.shape), out=sums)
            sums += (self._before @ sums[:, -1])[:, None]
        for at, columns in self.gaps:
            out[at] = self.center[columns] @ W[columns]

    def gradient(self, hats: Array, out: Array) -> None:
        """Write what `values` is the transpose of, (n_columns, N)."""
        n, N = len(self._source), out.shape[1]
        if self.encoded:
            out[:] = hats[:n]
        else:
            sums = _SUMS.T @ hats[:n].reshape(-1, _GROUP, N)
            sums += (self._before.T @ sums[:, 0])[:, None]
            np.take(sums.reshape(n, N), self._place, axis=0, out=out)
        for at, columns in self.gaps:
            out[columns] += np.outer(self.center[columns], hats[at])

    @cached_property
    def _own(self) -> list[slice]:
        """Where the pieces of each column are in the block."""
        return [slice(*ends) for ends in pairwise([0, *np.cumsum(self.block.n_knots - 1).tolist()])]

    @cached_property
    def _groups(self) -> NDArray[np.intp]:
        """How many groups each raw column has."""
        return -(-(self.block.n_knots - 1) // _GROUP)

    @cached_property
    def _source(self) -> NDArray[np.intp]:
        """The encoded column of each hat; any one of the same column where it is not used."""
        if self.encoded:
            return np.arange(self.n_columns)
        whole = zip(self._own, self._groups.tolist(), strict=True)
        found = [np.minimum(own.start + np.arange(n * _GROUP), own.stop - 1) for own, n in whole]
        return np.concatenate([np.zeros(0, np.intp), *found])

    @cached_property
    def _place(self) -> NDArray[np.intp]:
        """The hat of each encoded column."""
        return np.unique(self._source, return_index=True)[1]

    @cached_property
    def _before(self) -> Array:
        """Which groups are of the same column as each, and before it."""
        column = np.repeat(np.arange(len(self._groups)), self._groups)
        found: Array = np.tril(column[:, None] == column, -1).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class HatForm:
    """How rows are encoded as hats, and weights of the encoded columns as weights of hats.

    Parameters
    ----------
    encoder : Encoder
        Its columns are taken in another order: first those of the blocks without pieces.
    as_hats : collection of int
        The blocks whose encoded columns are hats, standardised (`PieceColumns.hats`), not pieces.
    """

    encoder: Encoder
    as_hats: Collection[int] = ()

    @property
    def n_columns(self) -> int:
        """Encoded columns."""
        return self.encoder.n_columns

    @property
    def width(self) -> int:
        """Columns of dense rows whose products would take as long."""
        return width_of(self.dense.n_columns, self._n_raw)

    @property
    def worthwhile(self) -> bool:
        """Whether products take less time than those of dense rows."""
        return worthwhile(self.dense.n_columns, self._n_raw, self.n_columns)

    @property
    def row_bytes(self) -> int:
        """Of an encoded row of float32, at most."""
        return row_bytes_of(self.dense.n_columns, self._n_raw)

    @property
    def order(self) -> NDArray[np.intp]:
        """Which of the encoder's columns each column is."""
        columns = np.arange(self.n_columns)
        found = [columns[self.encoder.columns_of(k)] for k in self._whole]
        found += [columns[self.encoder.columns_of(k)] for k in self._cut]
        return np.concatenate(found)

    @cached_property
    def dense(self) -> Encoder:
        """Of the blocks without pieces."""
        return self.encoder.take(self._whole)

    def rows(self, X: NDArray[Any]) -> HatRows:
        """Encode raw rows (n, d), in float32."""
        n, at = len(X), 0
        dense = np.ones((n, self.dense.n_columns + 1), np.float32)
        dense[:, :-1] = self.dense.transform(X, np.float32)
        places, values = [np.zeros((n, 0), np.int32)], [np.zeros((n, 0))]
        for part in self._cut.values():
            found = part.rows(X)
            places.append(found[0] + np.int32(at))
            values.append(found[1])
            at += part.n_hats
        numbers = np.hstack(values).astype(np.float32)
        used = numbers != 0
        ends = np.append(0, np.cumsum(np.count_nonzero(used, axis=1))).astype(np.int32)
        hats = csr_array((numbers[used], np.hstack(places)[used], ends), shape=(n, at))
        return HatRows(self, dense, hats)

    def values(self, W: Array) -> tuple[Array, Array]:
        """Weights (p + 1, N), the last of the one, as those of dense columns, and of hats."""
        m, at = self.dense.n_columns, 0
        hats = np.empty((sum(part.n_hats for part in self._cut.values()), W.shape[1]), W.dtype)
        dense = np.concatenate([W[:m], W[-1:]])
        for part in self._cut.values():
            own = W[m : m + part.n_columns]
            part.values(own, hats[at : at + part.n_hats])
            dense[-1] -= part.center @ own
            m, at = m + part.n_columns, at + part.n_hats
        return dense, hats

    def gradient(self, dense: Array, hats: Array) -> Array:
        """What `values` is the transpose of, (p + 1, N)."""
        m, at = self.dense.n_columns, 0
        out = np.empty((self.n_columns + 1, hats.shape[1]), hats.dtype)
        out[:m], out[-1] = dense[:-1], dense[-1]
        for part in self._cut.values():
            own = out[m : m + part.n_columns]
            part.gradient(hats[at : at + part.n_hats], own)
            own -= np.outer(part.center, dense[-1])
            m, at = m + part.n_columns, at + part.n_hats
        return out

    @cached_property
    def _whole(self) -> list[int]:
        """The blocks without pieces."""
        blocks = enumerate(self.encoder.blocks)
        return [k for k, block in blocks if not isinstance(block, PieceColumns)]

    @cached_property
    def _cut(self) -> dict[int, _BlockOfHats]:
        """The blocks of pieces, by their numbers."""
        return {
            k: _BlockOfHats(block, k in self.as_hats, self.encoder.lacking)
            for k, block in enumerate(self.encoder.blocks)
            if isinstance(block, PieceColumns)
        }

    @property
    def _n_raw(self) -> int:
        """Raw columns of all blocks of pieces."""
        return sum(len(part.block.columns) for part in self._cut.values())


class HatRows:
    """Encoded rows, each times the root of its weight; they multiply as a dense array does.

    Parameters
    ----------
    form : HatForm
    dense : ndarray of shape (n, m + 1)
        The columns of blocks without pieces, and a one.
    hats : csr_array of shape (n, n_hats)
    """

    def __init__(self, form: HatForm, dense: Array, hats: csr_array) -> None:
        self.form, self.dense, self.hats = form, dense, hats

    def __len__(self) -> int:
        return len(self.dense)

    def __getitem__(self, rows: slice) -> HatRows:
        return HatRows(self.form, self.dense[rows], self.hats[rows])

    def __matmul__(self, W: Array) -> Array:
        dense, hats = self.form.values(W)
        out: Array = self.dense @ dense
        out += self.hats @ hats
        return out

    @property
    def T(self) -> _Transposed:
        """The transpose, to multiply with."""
        return _Transposed(self)

    def weighted(self, root: Array) -> HatRows:
        """The rows times the roots of their weights, (n,)."""
        hats = self.hats.multiply(root[:, None]).tocsr()
        return HatRows(self.form, self.dense * root[:, None], hats)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The dense rows: always new ones."""
        eye = np.eye(self.form.n_columns + 1, dtype=np.float32)
        return np.asarray(self @ eye, dtype=dtype)


class HatBlock(Block):
    """Rows as hats, with their targets."""

    __slots__ = ()

    @classmethod
    def of(cls, x: HatRows, y: Array) -> HatBlock:
        """Rows that multiply as a dense array does."""
        return cls(cast(Array, x), y)

    @property
    def rows(self) -> HatRows:
        """The rows as what they are."""
        return cast(HatRows, self.x)

    @property
    def root(self) -> Array:
        """The roots of the rows' weights, (n, 1)."""
        return self.rows.dense[:, -1:]

    def joined(self, others: Sequence[Block]) -> Block:
        """These rows, then those of others."""
        every = [self, *others]
        rows = [cast(HatBlock, each).rows for each in every]
        dense = np.concatenate([each.dense for each in rows])
        hats = vstack([each.hats for each in rows], format="csr")
        x = HatRows(self.rows.form, dense, hats)
        return HatBlock.of(x, np.concatenate([each.y for each in every]))


class _Transposed:
    def __init__(self, rows: HatRows) -> None:
        self._rows = rows

    def __matmul__(self, S: Array) -> Array:
        rows = self._rows
        return rows.form.gradient(rows.dense.T @ S, rows.hats.T @ S)
