"""The process that owns a lock or a temporary folder, and whether it still runs."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

import psutil

__all__ = ["Owner"]

_FROZEN = 60.0  # seconds without a sign of life after which a stopped process may be passed over
_ZOMBIE = ("Z", "X", psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_STOPPED = ("T", "t", psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True)
class Owner:
    """A process, told apart from all others without a comparison of two machines' clocks.

    Parameters
    ----------
    token : str
        Random, of what it owns.
    host : str
        The name of its machine.
    pid : int
    machine : str
        The boot of its kernel and its namespace of process ids; empty if not known.
    started : str
        When the process started, in the kernel's count.
    beat : float
        The last sign of life, by a clock that all processes of a machine share and nobody sets.
    """

    token: str
    host: str
    pid: int
    machine: str
    started: str
    beat: float

    @classmethod
    def this(cls, token: str = "") -> Self:
        """The process that calls."""
        pid = os.getpid()
        machine = _machine()
        started = _look(pid)[1] if machine else ""
        return cls(token, socket.gethostname(), pid, machine, started, time.monotonic())

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """As it was encoded; None for anything else."""
        try:
            found = json.loads(data)
            owner = cls(**{field.name: found[field.name] for field in fields(cls)})
            owner = replace(owner, pid=int(owner.pid), beat=float(owner.beat))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return None
        return owner if owner.pid > 0 else None

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    def renewed(self) -> Self:
        """With a sign of life of now."""
        return replace(self, beat=time.monotonic())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def runs(self) -> bool | None:
        """Whether its process is there; None where this process cannot tell."""
        found = self._found()
        return found if found is None else bool(found)

    @property
    def frozen(self) -> bool:
        """Whether its process is stopped, and has been for a while."""
        return self._found() in _STOPPED and time.monotonic() - self.beat > _FROZEN

    def _found(self) -> str | None:
        """The state of its process; empty if it has ended, None where that cannot be seen."""
        if not self.machine or (self.host, self.machine) != (socket.gethostname(), _machine()):
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return ""
        except PermissionError:
            pass
        try:
            state, started = _look(self.pid)
        except psutil.Error:
            return None
        return state if started == self.started and state not in _ZOMBIE else ""


def _machine() -> str:
    """Name this boot of the kernel and this namespace of process ids; empty if not known."""
    if not sys.platform.startswith("linux"):
        return sys.platform
    with suppress(OSError):
        if os.readlink("/proc/self") == str(os.getpid()):  # else /proc is of another namespace
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _look(pid: int) -> tuple[str, str]:
    """State and start of a process.

    On Linux the start is not psutil's, which moves when the clock is set.
    """
    with suppress(OSError):
        told = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return told[0].decode(), told[19].decode()
    process = psutil.Process(pid)
    return process.status(), repr(process.create_time())
