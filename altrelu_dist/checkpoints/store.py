"""A folder of checkpoints, local or at any address that fsspec knows; one run at a time owns it."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec

from altrelu_dist.addresses import without_secrets
from altrelu_dist.checkpoints.codec import decode, encode
from altrelu_dist.errors import CheckpointError
from altrelu_dist.links import check_regular
from altrelu_dist.storage import os_errors, write_whole

__all__ = ["CheckpointStore", "InUseError"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"checkpoint-(\d{8})\.bin$")
_KEPT = 2  # the newest and the one before, for the case that the newest is damaged
_LOCK = "lock"
_BEAT = 10.0  # seconds between two signs of life of an owner
_DEAD = 60.0  # seconds without one after which its lock does not hold
_WRITTEN = 1.0  # seconds after which a lock that is being written is there to be read
_NOBODY = {"token": "", "host": "", "pid": 0, "time": 0.0}


class InUseError(CheckpointError):
    """Another run owns the folder, or did a moment ago."""


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
        self._local = isinstance(self._fs, fsspec.implementations.local.LocalFileSystem)
        self._number = 0
        self._warned = False
        self._token = secrets.token_hex(8)

    def save(self, tree: Any) -> None:
        """Keep a checkpoint, the newest from now on; where that fails it is said, and no error.

        A run of days does not end for a disk that is full for an hour.

        Raises
        ------
        CheckpointError
            If another run has taken over, because this one stood still for so long.
        """
        if self._lost():
            raise CheckpointError(
                f"{self.address}: another run goes on with it, because this one gave no sign of "
                f"life for {_DEAD:.0f} s"
            )
        number = self._number + 1
        data = encode(tree)
        try:
            with os_errors():
                self._write(f"checkpoint-{number:08}.bin", data)
                for old, name in self._found():
                    if old <= number - _KEPT:
                        self._fs.rm_file(name)
        except OSError as error:
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
                    data = self._fs.cat_file(name)
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
            self._take()
        except OSError as error:
            raise CheckpointError(f"{self.address}: cannot be written: {_line(error)}") from error
        ended = threading.Event()
        beat = threading.Thread(target=self._stay, args=(ended,), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            if not self._lost():
                with suppress(OSError), os_errors():
                    self._fs.rm_file(self._path(_LOCK))

    @property
    def _parent(self) -> str:
        return str(self._fs._parent(self._folder))

    def _is_zarr(self, folder: str) -> bool:
        from altrelu_dist.data.zarr_store import STORE_MARKS

        return any(self._fs.exists(f"{folder.rstrip('/')}/{name}") for name in STORE_MARKS)

    def _lost(self) -> bool:
        """Whether the lock is another run's."""
        try:
            owner = self._owner()
        except OSError:  # storage that is gone for a while has nobody else's lock either
            return False
        return owner is not None and owner != _NOBODY and owner["token"] != self._token

    def _take(self) -> None:
        owner = self._owner()
        if owner == _NOBODY:
            time.sleep(_WRITTEN)
            owner = self._owner()
        if owner is not None and _lives(owner):
            raise InUseError(
                f"{self.address}: is in use by another run (process {owner['pid']} on "
                f"{owner['host']}); use another one, or end that run"
            )
        if owner is None and self._local:  # of two that start at once, one gets it
            try:
                with open(self._path(_LOCK), "x") as file:
                    file.write(self._lock())
            except FileExistsError:
                raise InUseError(f"{self.address}: is in use by another run") from None
            return
        self._write(_LOCK, self._lock().encode())
        now = self._owner()
        if now is None or now["token"] != self._token:
            raise InUseError(f"{self.address}: is in use by another run")

    def _stay(self, ended: threading.Event) -> None:
        while not ended.wait(_BEAT) and not self._lost():
            with suppress(OSError):
                self._write(_LOCK, self._lock().encode())

    def _lock(self) -> str:
        now = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        return json.dumps({"token": self._token} | now)

    def _owner(self) -> dict[str, Any] | None:
        """Whose it is; None if there is no lock, nobody's if there is one that cannot be read."""
        try:
            with os_errors():
                check_regular(self._path(_LOCK), CheckpointError)
                data = self._fs.cat_file(self._path(_LOCK))
        except FileNotFoundError:
            return None
        try:
            found = json.loads(data)
            return {
                "token": str(found["token"]),
                "host": str(found["host"]),
                "pid": int(found["pid"]),
                "time": float(found["time"]),
            }
        except (ValueError, KeyError, TypeError):
            return _NOBODY

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


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the owner of a lock is still there: on this machine its process tells."""
    if owner["host"] == socket.gethostname():
        import psutil

        try:  # one that nobody has waited for is dead all the same
            if psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            pass
    return bool(time.time() - owner["time"] < _DEAD)


def _line(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
