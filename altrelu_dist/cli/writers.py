"""Predictions to a file, block by block: Parquet, CSV, NPY or Zarr by the file's ending."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from altrelu_dist.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PREDICTION_FORMAT", "Writer", "writer_for"]

PREDICTION_FORMAT = "altrelu-prediction"
_CHUNK_BYTES = 4 << 20

Block = npt.NDArray[np.float64]


class Writer(ABC):
    """Takes the blocks of a (rows, columns) float64 array in order.

    Parameters
    ----------
    address : str
        Of a file, or of a folder for Zarr.
    rows : int
        All rows that will come.
    names : sequence of str
        Names of the columns.
    """

    def __init__(self, address: str, rows: int, names: Sequence[str]) -> None:
        self.address, self.rows, self.names = address, rows, list(names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def write(self, block: Block) -> None:
        """Append rows."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""


class ParquetWriter(Writer):
    """One row group a block."""

    def __init__(self, address: str, rows: int, names: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(address, rows, names)
        self._schema = pa.schema([(name, pa.float64()) for name in names])
        self._sink = _opened(address, "b")
        self._file = pq.ParquetWriter(self._sink, self._schema)

    def write(self, block: Block) -> None:
        import pyarrow as pa

        columns = [pa.array(np.ascontiguousarray(column)) for column in block.T]
        self._file.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._file.close()
        self._sink.close()


class CsvWriter(Writer):
    """A header line, then the shortest text of each number that reads back as the same one."""

    def __init__(self, address: str, rows: int, names: Sequence[str]) -> None:
        import csv

        super().__init__(address, rows, names)
        self._file = _opened(address, "", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(names)

    def write(self, block: Block) -> None:
        self._csv.writerows(block.tolist())

    def close(self) -> None:
        self._file.close()


class NpyWriter(Writer):
    """One (rows, columns) array; of shape (rows,) where there is a single column."""

    def __init__(self, address: str, rows: int, names: Sequence[str]) -> None:
        super().__init__(address, rows, names)
        shape = (rows,) if len(self.names) == 1 else (rows, len(self.names))
        self._file = _opened(address, "b")
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, block: Block) -> None:
        self._file.write(np.ascontiguousarray(block, dtype="<f8").data)

    def close(self) -> None:
        self._file.close()


class ZarrWriter(Writer):
    """A group with the array ``y``, written in whole chunks only."""

    def __init__(self, address: str, rows: int, names: Sequence[str]) -> None:
        import zarr

        super().__init__(address, rows, names)
        chunk = max(1, min(rows, _CHUNK_BYTES // (8 * len(self.names))))
        group = zarr.open_group(address, mode="w-", zarr_format=3)
        group.attrs.update({"format": PREDICTION_FORMAT, "target_names": self.names})
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


_WRITERS: dict[str, Callable[[str, int, Sequence[str]], Writer]] = {
    ".parquet": ParquetWriter,
    ".csv": CsvWriter,
    ".npy": NpyWriter,
    ".zarr": ZarrWriter,
}


def writer_for(address: str) -> Callable[[str, int, Sequence[str]], Writer]:
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
