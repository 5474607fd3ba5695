"""Predictions to a file, block by block: Parquet, CSV, NPY or Zarr by the file's ending."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from altrelu_dist.errors import DataError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PREDICTION_FORMAT", "Writer", "writer_for"]

PREDICTION_FORMAT = "altrelu-prediction"
_CHUNK_BYTES = 4 << 20

Block = npt.NDArray[np.float64]


class Writer(ABC):
    """Takes blocks of rows in order: Arrow tables if it writes `tables`, else float64 arrays.

    Parameters
    ----------
    address : str
        Of a file, or of a folder for Zarr.
    rows : int
        All rows that will come.
    names : sequence of str
        Names of the columns.
    attributes : mapping, optional
        What is to be kept with an array, where the format has room for it.
    """

    tables: ClassVar[bool]

    def __init__(
        self,
        address: str,
        rows: int,
        names: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.address, self.rows, self.names = address, rows, list(names)
        self.attributes = dict(attributes or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def write(self, block: Any) -> None:
        """Append rows."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""


class ParquetWriter(Writer):
    """One row group a block; the first block says what type each column has."""

    tables = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._sink = _opened(self.address, "b")
        self._file: Any = None

    def write(self, block: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._file is None:
            self._file = pq.ParquetWriter(self._sink, block.schema)
        try:
            self._file.write_table(block.cast(self._file.schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{self.address}: a column changes its type: {error}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._sink.close()


class CsvWriter(Writer):
    """A header line, then the shortest text of each number that reads back as the same one."""

    tables = True

    def __init__(self, *given: Any) -> None:
        import csv

        super().__init__(*given)
        self._file = _opened(self.address, "", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(self.names)

    def write(self, block: Any) -> None:
        columns = [_values(name, block.column(name)) for name in self.names]
        self._csv.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        self._file.close()


def _values(name: str, column: Any) -> list[Any]:
    """The values of an Arrow column as Python's, of times their texts."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_binary(kind):
        column = column.cast(pa.string())
    elif pa.types.is_nested(kind):
        raise DataError(f"column {name} holds {kind}, for which CSV has no text; write .parquet")
    values: list[Any] = column.to_pylist()
    return values


class NpyWriter(Writer):
    """One (rows, columns) array; of shape (rows,) where there is a single column."""

    tables = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        shape = (self.rows,) if len(self.names) == 1 else (self.rows, len(self.names))
        self._file = _opened(self.address, "b")
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, block: Block) -> None:
        self._file.write(np.ascontiguousarray(block, dtype="<f8").data)

    def close(self) -> None:
        self._file.close()


class ZarrWriter(Writer):
    """A group with the array ``y``, written in whole chunks only."""

    tables = False

    def __init__(self, *given: Any) -> None:
        import zarr

        super().__init__(*given)
        rows = self.rows
        chunk = max(1, min(rows, _CHUNK_BYTES // (8 * len(self.names))))
        group = zarr.open_group(self.address, mode="w-", zarr_format=3)
        told = {"format": PREDICTION_FORMAT, "target_names": self.names}
        group.attrs.update(told | self.attributes)
        self._array: Any = group.create_array(
            "y",
            shape=(rows, len(self.names)),
            chunks=(chunk, len(self.names)),
            dtype="float64",
            fill_value=float("nan"),
        )
        self._waiting = np.empty((chunk, len(self.names)))
        self._filled = self._written = 0

    def write(self, block: Block) -> None:
        while len(block):
            taken = block[: len(self._waiting) - self._filled]
            self._waiting[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            block = block[len(taken) :]
            if self._filled == len(self._waiting):
                self._flush()

    def _flush(self) -> None:
        stop = self._written + self._filled
        self._array[self._written : stop] = self._waiting[: self._filled]
        self._written, self._filled = stop, 0

    def close(self) -> None:
        if self._filled:
            self._flush()


def _opened(address: str, kind: str, **options: Any) -> Any:
    """A new file, of bytes ("b") or text ("")."""
    if "://" not in address:  # in names of this machine no character means anything
        return Path(address).open(f"x{kind}", **options)
    import fsspec

    return fsspec.open(address, f"w{kind}", **options).open()


_WRITERS: dict[str, type[Writer]] = {
    ".parquet": ParquetWriter,
    ".csv": CsvWriter,
    ".npy": NpyWriter,
    ".zarr": ZarrWriter,
}


def writer_for(address: str) -> type[Writer]:
    """The writer of a file's format.

    Raises
    ------
    ParameterError
        If the ending is not one that can be written.
    """
    try:
        return _WRITERS[PurePosixPath(address).suffix.lower()]
    except KeyError:
        raise ParameterError(
            f"--out {address}: its ending must be one of {', '.join(_WRITERS)}"
        ) from None
