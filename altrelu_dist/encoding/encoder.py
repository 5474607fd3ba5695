"""Raw columns to what the hidden layer takes: blocks of encoded columns, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from altrelu_dist.encoding.block import Arrays, ColumnBlock, finite
from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.encoding.pieces import PieceColumns
from altrelu_dist.encoding.raw import RawColumn, RawColumns
from altrelu_dist.encoding.sketch import CAPACITY, ColumnSketch
from altrelu_dist.encoding.standard import StandardColumns
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.moments.rows import Floats

__all__ = ["Encoder", "numeric"]

_KINDS: Mapping[str, type[ColumnBlock]] = {
    "standard": StandardColumns,
    "pieces": PieceColumns,
    "levels": LevelColumns,
    "times": TimeColumns,
    "gaps": GapColumns,
}
_NAME = re.compile(r"block(0|[1-9]\d{0,3})_([a-z]+)_([a-z_]+)")
_VALUES_AT_ONCE = 1 << 18  # encoded numbers held beside the result: they stay in the cache


@dataclass(frozen=True, eq=False)
class Encoder:
    """Map from raw columns to encoded ones.

    Parameters
    ----------
    n_features : int
        Number of raw columns.
    blocks : tuple of ColumnBlock
        The encoded columns, in their order.
    """

    n_features: int
    blocks: tuple[ColumnBlock, ...]

    @classmethod
    def learn(
        cls,
        sketch: ColumnSketch,
        pieces: Sequence[int] = (16,),
        raw: RawColumns | None = None,
        *,
        repeated: Sequence[int] = (),
        most_values: int = 512,
    ) -> Encoder:
        """Encode columns as their distribution suggests.

        Block 0 holds the standardised columns, clipped at 6 standard deviations. The next blocks,
        one for each of ``pieces``, hold piecewise-linear features on quantile knots, centred, and
        scaled so that their variances sum to those of block 0 and of the indicators of levels.
        One more has its knots at the most frequent values of ``repeated`` columns. These
        indicators, waves of times and indicators of missing values follow, a block each, where
        there are such columns. Constant columns are in none of them.

        Parameters
        ----------
        sketch : ColumnSketch
            Of the training rows.
        pieces : sequence of int, default (16,)
            Most intervals of a column, one number for each block. A column with at most one value
            more has a knot at each; one with two values is in block 0 alone.
        raw : tuple of RawColumn, optional
            What the columns hold; by default numbers.
        repeated : sequence of int
            Columns of numbers all of whose values the sketch has.
        most_values : int
            Features of their values at most.

        Returns
        -------
        Encoder

        Raises
        ------
        ParameterError
            If a number of pieces is not from 2 to `CAPACITY`.
        """
        for intervals in pieces:
            whole = isinstance(intervals, Integral) and not isinstance(intervals, bool)
            if not whole or not 2 <= intervals <= CAPACITY:
                raise ParameterError(
                    f"holds {intervals!r}; expected whole numbers from 2 to {CAPACITY}",
                    parameter="pieces",
                )
        raw = raw or (RawColumn(),) * sketch.n_columns
        numbers = numeric(raw)
        standard = StandardColumns.learn(sketch, numbers)
        levels = LevelColumns.learn(sketch, raw)
        # Pieces weigh as much as all else, or many indicators would drown those of few numbers.
        variance = standard.variance(sketch) + levels.variance
        fine = [PieceColumns.learn(sketch, int(most), variance, numbers) for most in pieces]
        if repeated:
            fine.append(PieceColumns.of_values(sketch, repeated, most_values, variance))
        others: tuple[ColumnBlock, ...] = (
            levels,
            TimeColumns.learn(sketch, raw),
            GapColumns.learn(sketch),
        )
        return cls(sketch.n_columns, (standard, *fine, *(o for o in others if o.n_columns)))

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""
        return sum(block.n_columns for block in self.blocks)

    def columns_of(self, block: int) -> slice:
        """Where the encoded columns of a block are, by its number."""
        start = sum(before.n_columns for before in self.blocks[:block])
        return slice(start, start + self.blocks[block].n_columns)

    def named_blocks(self) -> list[tuple[str, ColumnBlock]]:
        """The blocks, each with the name of its kind."""
        name_of = {kind: name for name, kind in _KINDS.items()}
        return [(name_of[type(block)], block) for block in self.blocks]

    @property
    def n_pieces(self) -> int:
        """Number of the blocks of piecewise-linear features, which follow block 0."""
        return sum(isinstance(block, PieceColumns) for block in self.blocks)

    def with_pieces(self, *numbers: int) -> tuple[int, ...]:
        """Numbers of all blocks, but of those of pieces only these, counted from 1; 0: none."""
        return tuple(
            at
            for at, block in enumerate(self.blocks)
            if at in numbers or not isinstance(block, PieceColumns)
        )

    def take(self, blocks: Iterable[int]) -> Encoder:
        """The encoder of some blocks alone, by their numbers."""
        return Encoder(self.n_features, tuple(self.blocks[block] for block in blocks))

    def of_columns(self, chosen: NDArray[np.bool_]) -> Encoder:
        """The encoder of some raw columns alone, of a mask (n_features,)."""
        return Encoder(self.n_features, tuple(block.of_columns(chosen) for block in self.blocks))

    def transform(self, X: ArrayLike, dtype: DTypeLike = np.float64) -> NDArray[np.floating]:
        """Encode raw rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Numbers. Computed in float64, so that columns far from zero keep their differences.
            What is missing becomes zero, the mean, in all encoded columns of its column, and is
            indicated, if training rows lacked values of that column; else, and where a value is
            infinite, they become NaN.
        dtype : dtype, default float64
            Of the result; rounded once.

        Returns
        -------
        ndarray of shape (n_rows, n_columns)

        Raises
        ------
        DataError
            If the number of columns is not ``n_features``.
        """
        rows = np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise DataError(
                f"the encoder takes {self.n_features} columns, found an array of shape {rows.shape}"
            )
        out: NDArray[np.floating] = np.empty((len(rows), self.n_columns), dtype=dtype)
        step = max(1, _VALUES_AT_ONCE // max(1, self.n_columns, self.n_features))
        for at in range(0, len(rows), step):
            part = rows[at : at + step].astype(np.float64)
            whole = np.isfinite(part).all()
            infinite = None if whole else np.isinf(part)
            if infinite is not None:
                part[infinite] = np.nan
            for number, block in enumerate(self.blocks):
                encoded = block.encode(part)
                if infinite is not None:
                    filled = np.isnan(encoded) & self.lacking[block.sources]
                    encoded[filled] = 0.0
                    encoded[infinite[:, block.sources]] = np.nan
                out[at : at + step, self.columns_of(number)] = encoded
        return out

    @cached_property
    def lacking(self) -> NDArray[np.bool_]:
        """Which raw columns may be missing: training rows lacked them, or they are not used."""
        lacking = np.ones(self.n_features, dtype=bool)
        for block in self.blocks:
            lacking[block.sources] = False
        for block in self.blocks:
            if isinstance(block, GapColumns):
                lacking[block.columns] = True
        return lacking

    def names_out(
        self, feature_names: Sequence[str] | None = None, raw: RawColumns | None = None
    ) -> tuple[str, ...]:
        """A name for each encoded column: that of its column, and where it is one, the interval.

        Parameters
        ----------
        feature_names : sequence of str, optional
            Of the raw columns; by default x0, x1 and so on.
        raw : tuple of RawColumn, optional
            What they hold; by default levels have no names.

        Returns
        -------
        tuple of str
            Of ``n_columns`` different names, if the given ones are.
        """
        known = feature_names or [f"x{column}" for column in range(self.n_features)]
        names: dict[str, None] = {}
        for number, block in enumerate(self.blocks):
            if isinstance(block, LevelColumns):
                own = block.names_out(known, raw)
            else:
                own = block.names_out(known)
            for name in own:
                # Columns of few levels have the same intervals in every block of pieces.
                names[f"{name} (block {number})" if name in names else name] = None
        return tuple(names)

    def to_arrays(self) -> dict[str, Floats]:
        """The encoder as arrays of finite numbers, for a file.

        Returns
        -------
        dict of str to ndarray
        """
        arrays = {"features": np.array([float(self.n_features)])}
        for number, (kind, block) in enumerate(self.named_blocks()):
            for name, values in block.to_arrays().items():
                arrays[f"block{number}_{kind}_{name}"] = values
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Encoder:
        """Undo `to_arrays`.

        Parameters
        ----------
        arrays : mapping of str to ndarray

        Returns
        -------
        Encoder

        Raises
        ------
        ModelFileError
            If an array is missing, is none of an encoder, or holds what cannot be.
        """
        parts: dict[int, dict[str, dict[str, NDArray[np.generic]]]] = {}
        for name, values in arrays.items():
            if name == "features":
                continue
            found = _NAME.fullmatch(name)
            if found is None or found[2] not in _KINDS:
                raise ModelFileError(f"the encoder has an array {name!r} that is unknown")
            parts.setdefault(int(found[1]), {}).setdefault(found[2], {})[found[3]] = values
        features = float(finite(arrays, "features", 1)[0])
        if features < 0 or not features.is_integer():
            raise ModelFileError(f"the encoder is of {features!r} columns, not of a whole number")
        if sorted(parts) != list(range(len(parts))) or any(len(p) != 1 for p in parts.values()):
            raise ModelFileError("the encoder's blocks are not numbered from 0, one kind each")
        blocks = []
        for _, part in sorted(parts.items()):
            ((kind, own),) = part.items()
            block = _KINDS[kind].from_arrays(own, int(features))
            unknown = own.keys() - block.to_arrays().keys()
            if unknown:
                raise ModelFileError(f"the encoder has an array {min(unknown)!r} that is unknown")
            blocks.append(block)
        return cls(int(features), tuple(blocks))

    def digest(self) -> str:
        """What the encoder is known by: SHA-256 of its arrays, in hexadecimal digits."""
        found = sha256()
        for name, values in sorted(self.to_arrays().items()):
            found.update(f"{name} {values.shape}".encode())
            found.update(values.astype("<f8").tobytes())
        return found.hexdigest()

    def __repr__(self) -> str:
        return f"Encoder({self.n_features} columns to {self.n_columns}, {len(self.blocks)} blocks)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoder):
            return NotImplemented
        one, two = self.to_arrays(), other.to_arrays()
        return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)

    def __hash__(self) -> int:
        return hash(self.digest())


def numeric(raw: RawColumns) -> NDArray[np.bool_]:
    """Which columns are numbers, as times are too."""
    return np.array([column.kind != "levels" for column in raw], dtype=bool)
