"""Missing and infinite values on the way into a store: refused, dropped or filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from altrelu_dist.data.source import Array, Block, DType, as_columns, listed
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from altrelu_dist.encoding.raw import RawColumns

Floats = npt.NDArray[np.float64]


class Cleaner:
    """Passes on blocks of finite rows in the dtypes that are to be stored, and counts the others.

    An infinity counts as missing. `means` fill missing features, but where they are NaN; `drop`
    leaves out rows that still have something missing. Else with `keep` features that are missing,
    but no infinities, are passed on, and rows without a target left out; without it all rows are
    looked at, so as to say in how many something is missing.
    """

    def __init__(
        self,
        source: str,
        names: tuple[str, ...],
        dtypes: tuple[DType, DType | None, DType | None],
        *,
        drop: bool,
        means: Floats | None,
        keep: bool = False,
    ) -> None:
        self.dropped = 0
        self.filled = 0
        self.kept = 0
        self._keep = keep
        self._source = source
        self._names = names
        self._dtypes = dtypes
        self._drop = drop
        self._means = means
        self._rows = 0
        self._bad_rows = 0
        self._first: int | None = None
        self._nan = np.zeros(len(names), np.int64)
        self._inf = np.zeros(len(names), np.int64)

    def clean(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Finite rows of each block.

        Raises
        ------
        DataError
            After the last block, if values are missing and neither dropped nor filled; at once for
            a negative weight, or a value too large for the dtype.
        """
        for given in blocks:
            block = self._cast(given)
            if block.weight is not None and np.any(block.weight < 0):
                row = self._rows + int(np.argmax(block.weight < 0))
                raise DataError(f"{self._source}: the weight in row {row} is negative")
            clean = self._finite(block)
            self._rows += len(given.X)
            if self._first is None and len(clean.X):
                yield clean
        if self._first is not None:
            raise self._refusal()

    def _cast(self, block: Block) -> Block:
        cast: list[Array | None] = []
        for values, dtype in zip(block[:3], self._dtypes, strict=True):
            if values is None or dtype is None:
                cast.append(None)
                continue
            with np.errstate(over="ignore"):
                narrow = values.astype(dtype, copy=False)
            if narrow is not values and not np.array_equal(np.isinf(narrow), np.isinf(values)):
                raise DataError(
                    f"{self._source}: the rows from {self._rows} on have values too large for "
                    f"{dtype}",
                    Remedy.FLOAT64,
                )
            cast.append(narrow)
        X, y, weight = cast
        assert X is not None
        return Block(X, y, weight, block.fraction)

    def _finite(self, block: Block) -> Block:
        bad = ~np.isfinite(block.X)
        others = [as_columns(a) for a in (block.y, block.weight) if a is not None]
        bad_others = ~np.isfinite(np.hstack(others)) if others else np.zeros((len(bad), 0), bool)
        if not bad.any() and not bad_others.any():
            return block
        X = block.X
        if self._means is not None:
            fill = bad & np.isfinite(self._means)
            self.filled += int(fill[~bad_others.any(axis=1)].sum())
            X = np.where(fill, self._means.astype(X.dtype), X)
            bad &= ~fill
        if self._keep and not self._drop:
            self.kept += int(np.isnan(X).sum())
            bad &= ~np.isnan(X)
        lost = np.zeros(len(X), dtype=bool)
        if self._keep and not self._drop and block.y is not None:
            lost |= np.isnan(as_columns(block.y)).any(axis=1)
            self.dropped += int(lost.sum())
        bad = np.hstack([bad, bad_others])
        bad_rows = bad.any(axis=1) & ~lost
        keep = ~(bad_rows | lost)
        if self._drop:
            self.dropped += int(bad_rows.sum())
        elif bad_rows.any():
            nan = np.isnan(np.hstack([X, *others]))
            counted = bad & bad_rows[:, None]
            self._nan += (counted & nan).sum(axis=0)
            self._inf += (counted & ~nan).sum(axis=0)
            self._bad_rows += int(bad_rows.sum())
            if self._first is None:
                self._first = self._rows + int(bad_rows.argmax())
        y, weight = (None if a is None else a[keep] for a in (block.y, block.weight))
        return Block(X[keep], y, weight, block.fraction)

    def _refusal(self) -> DataError:
        counts = [
            f"{name} ({nan + inf}{' infinite' if not nan else f', {inf} infinite' if inf else ''})"
            for name, nan, inf in zip(self._names, self._nan, self._inf, strict=True)
            if nan or inf
        ]
        fill = () if self._means is not None else (Remedy.IMPUTE_MEAN,)
        return DataError(
            f"{self._source}: missing or infinite values in {self._bad_rows} of {self._rows} rows, "
            f"the first in row {self._first} (counted from 0): {listed(counts)}",
            Remedy.DROP_MISSING,
            *fill,
        )


def column_means(
    source: str,
    feature_names: tuple[str, ...],
    columns: RawColumns | None,
    blocks: Iterable[Block],
) -> Floats:
    """Mean of the finite values of each feature, over the rows with finite target and weight.

    It is NaN for texts, of which there is none.
    """
    count = np.zeros(len(feature_names))
    mean = np.zeros(len(feature_names))
    for block in blocks:
        use = np.isfinite(block.X)
        for other in (block.y, block.weight):
            if other is not None:
                use &= np.isfinite(as_columns(other)).all(axis=1, keepdims=True)
        n = use.sum(axis=0)
        count += n
        total = np.sum(block.X, axis=0, where=use, dtype=np.float64)
        mean += (total - n * mean) / np.maximum(count, 1)
    if columns is not None:
        texts = np.array([column.kind == "levels" for column in columns])
        count, mean = np.where(texts, 1, count), np.where(texts, np.nan, mean)
    if not count.all():
        empty = [name for name, n in zip(feature_names, count, strict=True) if not n]
        raise DataError(f"{source}: no values at all in {listed(empty)}: leave such columns out")
    return mean
