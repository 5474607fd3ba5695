"""What every format offers: readers that open in the worker, and blocks of rows in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from altrelu_dist.data.retrying import patiently
from altrelu_dist.errors import AltReLUError, DataError
from altrelu_dist.links import check_regular, split_chain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from altrelu_dist.encoding.raw import RawColumn, RawColumns

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Index = int | slice | tuple[Any, ...]

READ_BYTES = 16 << 20  # what one task reads where the format leaves the choice to us
PIECE_BYTES = 256 << 20  # the most that is read in one piece where a format cannot be cut


@dataclass(frozen=True)
class RowReader(ABC):
    """A picklable array of rows: an address, and how to read some rows of it in any process."""

    address: str
    shape: tuple[int, ...]
    dtype: DType

    @property
    def ndim(self) -> int:
        """Number of axes, as Dask asks for it."""
        return len(self.shape)

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop, in any dtype and any shape that holds their values in order."""

    def __getitem__(self, index: Index) -> Array:
        """Rows by slice or number, then any NumPy index on the other axes."""
        wanted, *others = index if isinstance(index, tuple) else (index,)
        if not isinstance(wanted, slice):
            return cast("Array", self[(slice(wanted, wanted + 1), *others)][0])
        start, stop, step = wanted.indices(self.shape[0])
        stop = max(start, stop)
        rows = patiently(lambda: self.read(start, stop))
        block = rows.reshape(stop - start, *self.shape[1:])
        return block.astype(self.dtype, copy=False)[(slice(None, None, step), *others)]


class Part(NamedTuple):
    """Readers of the same rows, and the row counts of the blocks that are cheap to read."""

    X: RowReader
    y: RowReader | None
    weight: RowReader | None
    chunks: tuple[int, ...]


class Block(NamedTuple):
    """Some rows in memory, and the fraction of the source read so far (nan if unknown)."""

    X: Array
    y: Array | None
    weight: Array | None
    fraction: float


@dataclass(frozen=True)
class Source(ABC):
    """One opened file or store.

    `about_rows` may be an estimate; `dtypes` are those of X, y and the weights.
    """

    address: str
    about_rows: int
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    dtypes: tuple[DType, DType | None, DType | None]

    @property
    def named(self) -> bool:
        """Whether the columns have names of their own; else `feature_names` are x0, x1, ..."""
        return True

    @property
    def unread(self) -> tuple[str, ...]:
        """Columns of a table that are neither feature nor target nor weight."""
        return ()

    @property
    def columns(self) -> RawColumns | None:
        """What the features were before they became numbers; None where all were numbers."""
        return None

    @property
    def classes(self) -> tuple[str | int | float | bool, ...] | None:
        """Of arrays the labels whose places the target holds; None where it holds numbers."""
        return None

    def with_columns(self, columns: Mapping[str, RawColumn]) -> Self:
        """The same, with features that are already known to be these.

        Raises
        ------
        DataError
            If it does not hold such.
        """
        if other := [name for name, column in columns.items() if column.kind != "number"]:
            raise DataError(
                f"{self.address}: is an array of numbers; expected a table with texts or times in "
                f"{listed(other)}"
            )
        return self

    @abstractmethod
    def parts(self) -> list[Part]:
        """Readers for row blocks in any order."""

    def blocks(self, n_rows: int) -> Iterator[Block]:
        """All rows once, in order, about `n_rows` at a time."""
        total = max(1, self.about_rows)
        done = 0
        for part in self.parts():
            length = part.X.shape[0]
            step = max(n_rows, max(part.chunks, default=1))
            for start in range(0, length, step):
                rows = slice(start, min(start + step, length))
                done += rows.stop - rows.start
                y = None if part.y is None else part.y[rows]
                weight = None if part.weight is None else part.weight[rows]
                yield Block(part.X[rows], y, weight, done / total)

    def verify(self) -> None:
        """Test checksums that the readers of `parts` pass by."""
        return

    def addresses(self) -> set[str]:
        """Files and stores that it lies in."""
        return {self.address}


@dataclass(frozen=True)
class Wanted:
    """Which columns the caller named, and whether there must be a target.

    `features` are those to be read, in their order; None for all that are nothing else, but those
    of `drop`, and if there is an `only` those alone. Columns of text and those of `categorical`
    have levels, unless text is not `text_allowed`; `known` says that the caller knows what they
    are. `partition` are the columns of a table that its folders are named for (``year=2020``), with
    the value that all rows of the file have: a number, or a text that is none. `classes` says
    whether a target is classes; None that one of text or booleans is.
    """

    targets: tuple[str, ...] = ()
    weight: str | None = None
    require_target: bool = False
    features: tuple[str, ...] | None = None
    partition: tuple[tuple[str, float | str], ...] = ()
    classes: bool | None = None
    drop: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    text_allowed: bool = True
    known: bool = False


def float_dtype(dtypes: Sequence[DType]) -> DType:
    """float32 where it holds every value of these dtypes exactly, else float64."""
    narrow = np.result_type(np.float32, *dtypes) == np.float32
    return np.dtype(np.float32 if narrow else np.float64)


def even_chunks(rows: int, per_chunk: int) -> tuple[int, ...]:
    """Row counts of blocks of `per_chunk` rows, the last one shorter."""
    whole, rest = divmod(rows, per_chunk)
    return (per_chunk,) * whole + ((rest,) if rest else ())


def merged_chunks(pieces: Sequence[int], per_chunk: int) -> tuple[int, ...]:
    """Neighbouring pieces put together up to about `per_chunk` rows."""
    merged: list[int] = []
    for rows in pieces:
        if merged and merged[-1] + rows <= per_chunk:
            merged[-1] += rows
        elif rows:
            merged.append(rows)
    return tuple(merged)


def rows_in(n_bytes: int, n_columns: int, dtype: DType) -> int:
    """How many rows of this many columns fit in `n_bytes`, at least one."""
    return max(1, n_bytes // max(1, n_columns * dtype.itemsize))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads `what` into one line."""
    try:
        yield
    except (AltReLUError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Give the first line of the text of an error, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def files_at(address: str) -> tuple[Any, str]:
    """The file system of an address, which remembers no listings, and the path on it."""
    import fsspec

    check_regular(address)
    try:
        fs, path = fsspec.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise DataError(f"{address}: {one_line(error)}") from error
    return fs, path


@contextmanager
def open_binary(address: str) -> Iterator[BinaryIO]:
    """Open a file at a path or fsspec address for reading."""
    import fsspec

    check_regular(address)
    with fsspec.open(address, "rb") as file:
        yield cast("BinaryIO", file)


def file_name(address: str) -> str:
    """Name of the file at an address, in lower case, by whose ending its format is known."""
    _, link, _ = split_chain(address)
    if link.startswith(("http://", "https://")):
        link = link.partition("?")[0].partition("#")[0]
    return link.rstrip("/").rpartition("/")[2].lower()


def as_columns(values: Array) -> Array:
    """One axis as one column; two as they are."""
    return values[:, np.newaxis] if values.ndim == 1 else values


def check_there(address: str, names: Sequence[str], found: Collection[str]) -> None:
    """Refuse data that lacks a column."""
    if absent := [name for name in names if name not in found]:
        raise DataError(f"{address}: no column {listed(absent)}; columns: {listed([*found])}")


def listed(names: Sequence[str], most: int = 8) -> str:
    """Join names for a message, cut where they are many."""
    shown = ", ".join(str(name) or "''" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
