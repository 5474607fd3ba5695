"""A folder of checkpoints, local or at any address that fsspec knows; one run at a time owns it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import fsspec

from altrelu_dist.addresses import without_secrets
from altrelu_dist.checkpoints.codec import decode, encode
from altrelu_dist.errors import CheckpointError
from altrelu_dist.io.atomic import remove_temporaries
from altrelu_dist.io.lock import FolderLock, InUseError
from altrelu_dist.links import check_regular
from altrelu_dist.storage import is_local, os_errors, read_whole, write_whole

__all__ = ["CheckpointStore", "InUseError"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"checkpoint-(\d{8})\.bin$")
_KEPT = 2  # the newest and the one before, for the case that the newest is damaged
_FILES = r"lock|checkpoint-\d{8}\.bin"  # the files of a folder


class CheckpointStore:
    """Checkpoints of one run.

    Parameters
    ----------
    address : str or path
        Of a folder; it is made where it is missing.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = os.fspath(address)
        try:
            self._fs, self._folder = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except (ValueError, ImportError, OSError) as error:
            raise CheckpointError(f"{self.address}: cannot be used: {_line(error)}") from error
        self._number = 0
        self._warned = False
        self._lock = FolderLock(self._fs, self._folder, self.address, self._gone_on)

    def save(self, tree: Any) -> None:
        """Keep a checkpoint, the newest from now on; where that fails it is said, and no error.

        A run of days does not end for a disk that is full for an hour.

        Raises
        ------
        CheckpointError
            If another run has taken over, because this one stood still for so long.
        """
        number = self._number + 1
        data = encode(tree)
        self._check_mine()
        try:
            with os_errors():
                self._write(f"checkpoint-{number:08}.bin", data)
                for old, name in self._found():
                    if old <= number - _KEPT:
                        self._fs.rm_file(name)
        except OSError as error:
            self._check_mine()
            if not self._warned:
                _log.warning(
                    "%s: no checkpoint could be written: %s; the run goes on, and tries again",
                    without_secrets(self.address),
                    without_secrets(_line(error)),
                )
            self._warned = True
            return
        self._number, self._warned = number, False

    @property
    def taken_away(self) -> bool:
        """Whether another run was seen to have taken over; the next `save` says so."""
        return self._lock.taken_away

    @property
    def newest(self) -> int:
        """The number of the newest checkpoint, whole or not; 0 if there is none."""
        try:
            with os_errors():
                return max((number for number, _ in self._found()), default=0)
        except OSError as error:
            raise CheckpointError(f"{self.address}: cannot be read: {_line(error)}") from error

    def load(self) -> Any:
        """The newest checkpoint that is whole; None where there is none at all.

        Raises
        ------
        CheckpointError
            If there are some, and none of them is whole.
        """
        problem = ""
        try:
            with os_errors():
                found = sorted(self._found(), reverse=True)
            self._number = found[0][0] if found else 0
            for _, name in found:
                with os_errors():
                    check_regular(name, CheckpointError)
                    data = read_whole(self._fs, name)
                try:
                    return decode(data)
                except CheckpointError as error:
                    problem = problem or f"{name}: {error}"
                    _log.warning("%s: %s; the one before is used", without_secrets(name), error)
        except OSError as error:
            raise CheckpointError(f"{self.address}: cannot be read: {_line(error)}") from error
        if found:
            raise CheckpointError(problem)
        return None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Be the only run that uses it.

        Raises
        ------
        CheckpointError
            If another one does, it cannot be written, or it is part of a Zarr store.
        """
        try:
            with os_errors():
                store = next(filter(self._is_zarr, (self._folder, self._parent)), None)
            if store is not None:
                raise CheckpointError(
                    f"{self.address}: {store} is a Zarr store; name a folder beside it"
                )
            with os_errors():
                self._fs.makedirs(self._folder, exist_ok=True)
            lock = ExitStack()
            lock.enter_context(self._lock.held())
        except OSError as error:
            raise CheckpointError(f"{self.address}: cannot be written: {_line(error)}") from error
        with lock:
            if is_local(self._fs):
                with suppress(OSError):
                    remove_temporaries(self._folder, _FILES)
            yield

    @property
    def _parent(self) -> str:
        return str(self._fs._parent(self._folder))

    def _is_zarr(self, folder: str) -> bool:
        from altrelu_dist.data.zarr_store import STORE_MARKS

        return any(self._fs.exists(f"{folder.rstrip('/')}/{name}") for name in STORE_MARKS)

    def _check_mine(self) -> None:
        if self._lock.lost():
            raise CheckpointError(
                f"{self.address}: another run goes on with it, because this one gave no sign of "
                f"life; this one ends and writes nothing more"
            )

    def _gone_on(self) -> bool:
        with os_errors():
            return max((number for number, _ in self._found()), default=0) > self._number

    def _found(self) -> list[tuple[int, str]]:
        """Numbers and paths of the checkpoints that there are."""
        try:
            names = self._fs.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        matches = ((_NAME.search(name), name) for name in names)
        return [(int(match[1]), name) for match, name in matches if match]

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _write(self, name: str, data: bytes) -> None:
        write_whole(self._fs, self._path(name), data)


def _line(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
