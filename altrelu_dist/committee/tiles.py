"""Rows in memory as tiles of encoded columns: kept, or encoded each time where they are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

import numpy as np
from scipy.sparse import block_diag, csr_array, eye_array

from altrelu_dist.encoding import Encoder
from altrelu_dist.encoding.hats import HatBlock, HatForm
from altrelu_dist.encoding.pieces import PieceColumns
from altrelu_dist.moments.rows import Array, Block, Floats, Rows, Scaler

__all__ = ["EncodedTiles", "Encoding", "Pace", "whitening", "with_hats"]

# What goes through the tiles one by one, and may raise where there is no time for another.
Pace = Callable[[Iterable[tuple[int, int]]], Iterator[tuple[int, int]]]


@dataclass(frozen=True)
class Encoding:
    """How a raw row becomes what members of a kind take.

    Parameters
    ----------
    encoder : Encoder
    scaler : Scaler
        Of the targets and the row weights.
    mixing : ndarray or csr_array of shape (m, m), optional
        What the encoded columns are multiplied by: made uncorrelated, or hats instead of pieces.
    factors : ndarray of shape (m,), optional
        One for each encoded column.
    form : HatForm, optional
        Of rows without their zeros, whose columns are what ``mixing`` makes of the encoded ones.
    """

    encoder: Encoder
    scaler: Scaler
    mixing: Array | csr_array | None = None
    factors: Array | None = None
    form: HatForm | None = None

    def __post_init__(self) -> None:
        if self.form is not None and self.factors is not None:
            raise ValueError("rows without their zeros have no factors")

    def sparse(self) -> Encoding:
        """The same columns in another order, as hats, where products take less time so."""
        as_hats = [] if self.mixing is None else [_last_pieces(self.encoder)]
        form = HatForm(self.encoder, as_hats)
        if self.factors is not None or not form.worthwhile:
            return self
        mixing = eye_array(form.n_columns, format="csr") if self.mixing is None else self.mixing
        return replace(self, mixing=csr_array(mixing)[:, form.order], form=form)

    @property
    def n_columns(self) -> int:
        """Columns of a block, the one included."""
        return self.encoder.n_columns + 1

    @property
    def width(self) -> int:
        """Dense columns whose products take as long."""
        return self.n_columns if self.form is None else self.form.width + 1

    @property
    def row_bytes(self) -> int:
        """Of an encoded row without its targets, at most."""
        dense = self.n_columns * np.dtype(np.float32).itemsize
        return dense if self.form is None else self.form.row_bytes

    def __call__(self, rows: Rows) -> Block:
        """Encode some rows, in float32; the last column is the root of the row's weight."""
        y, root = self._targets(rows)
        if self.form is not None:
            hats = self.form.rows(rows.X)
            return HatBlock.of(hats if root is None else hats.weighted(root), y)
        features = self.encoder.transform(rows.X, np.float32)
        if self.mixing is not None:
            features = features @ self.mixing
        if self.factors is not None:
            features = features * self.factors
        x = np.empty((len(features), features.shape[1] + 1), np.float32)
        x[:, :-1], x[:, -1] = features, 1
        if root is not None:
            x *= root[:, None]
        return Block(x, y)

    def hidden_weights(self, W: Array) -> Floats:
        """Weights (m + 1, N) of such blocks as weights of the encoder's columns."""
        weights: Floats = W.astype(np.float64)
        if self.factors is not None:
            weights[:-1] *= self.factors[:, None]
        if self.mixing is not None:
            weights[:-1] = self.mixing.astype(np.float64) @ weights[:-1]
        return weights

    def _targets(self, rows: Rows) -> tuple[Array, Array | None]:
        """Standardised targets times the roots of the rows' weights, and these roots."""
        y = (rows.y.astype(np.float64) - self.scaler.target_center) / self.scaler.target_scale
        if rows.weight is None:
            return y.astype(np.float32), None
        root = np.sqrt(rows.weight.astype(np.float64) / self.scaler.weight_scale)
        y *= root[:, None]
        return y.astype(np.float32), root.astype(np.float32)


class EncodedTiles:
    """Tiles of about so many rows, in the order of the rows, each encoded when it is asked for.

    Parameters
    ----------
    rows : Rows
        In random order, numbered from 0.
    encoding : Encoding
    tile_rows : int
    most_bytes : int
        Kept once they are encoded, if all need no more.
    name : str
        The same for tiles of the same rows and encoding.
    pace : Pace
    """

    def __init__(
        self,
        rows: Rows,
        encoding: Encoding,
        tile_rows: int,
        most_bytes: int,
        name: str = "",
        pace: Pace = iter,
    ) -> None:
        n = len(rows.X)
        self.rows, self.encoding, self.tile_rows, self.name = rows, encoding, tile_rows, name
        self.starts = np.linspace(0, n, max(1, round(n / tile_rows)) + 1).astype(int).tolist()
        self._pace = pace
        needed = n * encoding.row_bytes
        self.kept_bytes = needed if needed <= most_bytes else 0
        self._kept: dict[int, Block] = {}

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Block:
        """One tile."""
        tile = self._kept.get(number)
        if tile is None:
            tile = self.encoding(self.rows.part(self.starts[number], self.starts[number + 1]))
            if self.kept_bytes:
                self._kept[number] = tile
        return tile

    def all(self) -> Iterator[tuple[int, Block]]:
        """All tiles, each with the number of its first row."""
        return self.leading(len(self.rows.X))

    def leading(self, n_rows: int) -> Iterator[tuple[int, Block]]:
        """The tiles of about the first so many rows, each with the number of its first row."""
        ends = takewhile(lambda each: each[0] < n_rows, self._ends())
        for number, (start, _) in enumerate(self._pace(ends)):
            yield start, self[number]

    def _ends(self) -> Iterator[tuple[int, int]]:
        """First row of each tile, and of the next."""
        return pairwise(self.starts)


def with_hats(encoder: Encoder) -> csr_array:
    """The map that makes hats of the last block of pieces, and leaves all other columns."""
    parts = [eye_array(block.n_columns, format="csr") for block in encoder.blocks]
    last = _last_pieces(encoder)
    block = encoder.blocks[last]
    assert isinstance(block, PieceColumns)
    parts[last] = block.hats()
    return csr_array(block_diag(parts, format="csr"), dtype=np.float32)


def _last_pieces(encoder: Encoder) -> int:
    """The last block of pieces."""
    blocks = enumerate(encoder.blocks)
    return max(number for number, block in blocks if isinstance(block, PieceColumns))


def whitening(tiles: Iterator[tuple[int, Block]], floor: float) -> Array:
    """The map that makes columns uncorrelated and of equal variance.

    Parameters
    ----------
    tiles : iterator of (int, Block)
    floor : float
        Added to the variances, in parts of their mean: directions of little variance stay small.
    """
    gram: Floats | None = None
    weight = 0.0
    for _, (x, _) in tiles:
        part = (x[:, :-1].T @ x[:, :-1]).astype(np.float64)
        gram = part if gram is None else gram + part
        weight += float(np.vdot(x[:, -1], x[:, -1]))
    assert gram is not None
    variances, axes = np.linalg.eigh(gram / weight)
    variances = np.maximum(variances, 0)
    variances += floor * float(variances.mean()) + float(np.finfo(np.float32).tiny)
    out: Array = (axes / np.sqrt(variances)).astype(np.float32)
    return out
