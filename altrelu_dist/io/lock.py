"""A lock file in a folder, local or in storage: one run at a time writes there."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from altrelu_dist.addresses import without_secrets
from altrelu_dist.errors import CheckpointError
from altrelu_dist.io.atomic import create
from altrelu_dist.io.owner import Owner
from altrelu_dist.storage import is_local, os_errors, read_whole, write_whole

__all__ = ["FolderLock", "InUseError"]

_log = logging.getLogger(__name__)
_BEAT = 5.0  # seconds between two signs of life of an owner
_WATCH = 20.0  # seconds in which a lock that does not change is seen to be a dead run's
_LOOK = 0.5  # seconds between two looks at it
_SETTLED = 1.0  # seconds after which of several that take a lock at once the last one has it


class InUseError(CheckpointError):
    """Another run owns the folder, or did a moment ago."""


class FolderLock:
    """The lock of a folder.

    The owner writes the lock anew every few seconds. A run that finds one takes it if the owner's
    process has ended, and leaves it if that process runs. Where it cannot tell, because the owner
    is on another machine or in another container, it watches for a while whether the lock changes.

    Parameters
    ----------
    fs, folder
        A file system of fsspec, and the folder's path on it.
    address : str
        The folder's, for messages.
    gone_on : callable
        Whether another run has written to the folder since this one last did.
    """

    def __init__(self, fs: Any, folder: str, address: str, gone_on: Callable[[], bool]) -> None:
        self._fs, self._path, self._address = fs, f"{folder}/lock", address
        self._gone_on = gone_on
        self._mine = Owner.this(secrets.token_hex(16))
        self._held = False
        self.taken_away = False  # as far as was seen yet

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it.

        Raises
        ------
        InUseError
            If another run does.
        OSError
            If it cannot be written.
        """
        self._take()
        self._held = True
        ended = threading.Event()
        beat = threading.Thread(target=self._stay, args=(ended,), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            if not self.lost():
                with suppress(OSError), os_errors():
                    self._fs.rm_file(self._path)
            self._held = False

    def lost(self) -> bool:
        """Whether another run has taken it, because this one stood still for so long."""
        if not self._held:
            return False
        with suppress(OSError):  # storage that is gone for a while has nobody else's lock either
            found = self._read()
            if found is None:  # the other one may have ended
                self.taken_away = self.taken_away or self._gone_on()
            elif (owner := Owner.decode(found)) is not None:
                self.taken_away = owner.token != self._mine.token
        return self.taken_away

    def _take(self) -> None:
        found = self._read()
        if found is None and is_local(self._fs):
            try:
                create(self._path, self._mine.renewed().encode())
            except FileExistsError:
                raise self._in_use(self._read()) from None
            return
        if found is not None:
            self._leave_alone_if_held(found)
        self._write()
        time.sleep(_SETTLED)
        now = self._read()
        owner = None if now is None else Owner.decode(now)
        if owner is None or owner.token != self._mine.token:
            raise self._in_use(now)

    def _leave_alone_if_held(self, found: bytes) -> None:
        owner = Owner.decode(found)
        runs = None if owner is None else owner.runs
        if owner is not None and runs and not owner.frozen:
            raise self._in_use(found)
        if runs is None:
            _log.warning(
                "%s: has the lock of another run%s; waiting for %.0f s to see whether it is alive",
                without_secrets(self._address),
                "" if owner is None else f" ({owner})",
                _WATCH,
            )
            for _ in range(round(_WATCH / _LOOK)):  # counted, should this process be stopped too
                time.sleep(_LOOK)
                now = self._read()
                if now is None:
                    return
                if now != found:
                    raise self._in_use(now)

    def _in_use(self, found: bytes | None) -> InUseError:
        owner = None if found is None else Owner.decode(found)
        by = "" if owner is None else f" ({owner})"
        return InUseError(
            f"{self._address}: is in use by another run{by}; use another one, or end that run"
        )

    def _stay(self, ended: threading.Event) -> None:
        while not ended.wait(_BEAT) and not self.lost():
            with suppress(OSError):
                self._write()

    def _read(self) -> bytes | None:
        try:
            with os_errors():
                return read_whole(self._fs, self._path)
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        write_whole(self._fs, self._path, self._mine.renewed().encode())
