"""Which existing output a command may replace: only one of its own kind."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from altrelu_dist.errors import DataError, ExistsError
from altrelu_dist.replacing import stored_format

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_store"]


def check_store(path: Path, *, overwrite: bool, kind: str) -> None:
    """See before the work, not after it, that a result can be written as a Zarr group.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether it may exist.
    kind : str
        The format, as its attributes name it, of a group that may be replaced.

    Raises
    ------
    ExistsError
        If it exists and is not to be replaced.
    DataError
        If its folder is missing or cannot be written.
    """
    from altrelu_dist.data import check_output

    check_output(path, overwrite=overwrite)
    try:  # some folders only say that they can be written to
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise DataError(
            f"{path}: the folder {path.parent} cannot be written: {error.strerror}"
        ) from error
    if path.exists() and stored_format(path) != kind:
        raise ExistsError(f"{path}: exists and is not an {kind}, so it is not replaced")
