"""What is kept of a job, in storage beside its output: it outlives every process and scheduler."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from altrelu_dist.addresses import values_without_secrets
from altrelu_dist.data.source import files_at
from altrelu_dist.errors import AltReLUError, DataError, ExistsError, JobError
from altrelu_dist.runs.training import TrainOptions
from altrelu_dist.storage import os_errors, write_whole

__all__ = ["ENDED", "JobFolder", "JobSpec", "JobStatus", "folder_of"]

_ENDING = ".job"
ENDED = ("finished", "failed", "cancelled")
SILENT = 60.0  # seconds without a sign of life, after which a job is taken for lost
_LOG = 256 << 10  # bytes of a log that are kept: its newest


@dataclass(frozen=True)
class JobSpec:
    """What a job is to do.

    Parameters
    ----------
    id : str
    options : TrainOptions
    by : str
        Who submitted it: user and machine.
    submitted : float
        When, in seconds since 1970.
    version : str
        Of this package where it was submitted.
    """

    id: str
    options: TrainOptions
    by: str
    submitted: float
    version: str


@dataclass(frozen=True)
class JobStatus:
    """How far a job is.

    Attributes
    ----------
    state : str
        ``"queued"``, ``"running"``, ``"finished"``, ``"failed"``, ``"cancelled"`` or ``"lost"``:
        it should be running, and has given no sign of life for a minute.
    stage : str
        As in `Progress`.
    iteration, passes : int
    loss : float or None
    fraction : float or None
        Share of the expected work that is done.
    seconds : float
        Of training, since the job was begun or last taken up.
    expected_end : float or None
        In seconds since 1970.
    started, updated : float or None
        When, in seconds since 1970.
    worker : str
        The address of the worker that runs the loop.
    attempts : int
        How often it was begun: more than once where workers died.
    resumed_from : int
        The number of the checkpoint that it was last begun from, 0 for none.
    error : str
        Why it failed.
    result : dict
        As `altrelu train --json` prints it.
    """

    state: str = "queued"
    stage: str = ""
    iteration: int = 0
    passes: int = 0
    loss: float | None = None
    fraction: float | None = None
    seconds: float = 0.0
    expected_end: float | None = None
    started: float | None = None
    updated: float | None = None
    worker: str = ""
    attempts: int = 0
    resumed_from: int = 0
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


def folder_of(out: str) -> str:
    """The folder of the job that writes to an output."""
    return f"{out.rstrip('/')}{_ENDING}"


class JobFolder:
    """A job's folder: ``job.json``, ``status.json``, ``log.txt``, ``checkpoint``, ``best.zarr``.

    Parameters
    ----------
    address : str
        Of the folder, or of the output that it lies beside.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        text = os.fspath(address).rstrip("/")
        self.address = text if text.endswith(_ENDING) else folder_of(text)
        self._fs, self._root = files_at(self.address)

    @property
    def checkpoint(self) -> str:
        """Where its checkpoints are."""
        return f"{self.address}/checkpoint"

    @property
    def best(self) -> str:
        """Where its best network so far is."""
        return f"{self.address}/best.zarr"

    def create(self, spec: JobSpec) -> None:
        """Write a new job down.

        Raises
        ------
        ExistsError
            If there is a job with this output that has not ended.
        DataError
            If it cannot be written.
        """
        found = self.find()
        if found is not None:
            status = self.status()
            if not status.ended:
                raise ExistsError(
                    f"{spec.options.out}: job {found.id} writes there, and is {status.state}; "
                    f"name another output, or cancel it, or take a lost one up again by its id"
                )
            self.remove()
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            self._write("status.json", asdict(JobStatus(updated=spec.submitted)))
            self._write("job.json", asdict(spec), new=True)
        except FileExistsError:
            raise ExistsError(f"{self.address}: another job has come there just now") from None
        except Exception as error:
            if isinstance(error, AltReLUError):
                raise
            raise DataError(f"{self.address}: cannot be written: {_line(error)}") from error

    def find(self) -> JobSpec | None:
        """What the job is to do; None if there is none here.

        Raises
        ------
        JobError
            If it is damaged, or of another version of this package.
        """
        told = self._read("job.json")
        if told is None:
            return None
        try:
            known = {f.name for f in fields(TrainOptions)}
            if unknown := told["options"].keys() - known:
                raise KeyError(f"options {', '.join(sorted(unknown))} of version {told['version']}")
            return JobSpec(**told | {"options": TrainOptions(**told["options"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise JobError(f"{self.address}: is damaged: {_line(error)}") from error

    def spec(self) -> JobSpec:
        """The same.

        Raises
        ------
        JobError
            If there is no job here.
        """
        found = self.find()
        if found is None:
            raise JobError(f"{self.address}: there is no job")
        return found

    def status(self) -> JobStatus:
        """How far it is."""
        told = self._read("status.json") or {}
        try:
            status = JobStatus(**told)
            silent = time.time() - float(status.updated or 0)
        except (TypeError, ValueError) as error:
            raise JobError(f"{self.address}: is damaged: {_line(error)}") from error
        if not status.ended and silent > SILENT:
            return JobStatus(**told | {"state": "lost"})
        return status

    def write_status(self, status: JobStatus) -> None:
        """Tell how far it is."""
        self._write("status.json", values_without_secrets(asdict(status)))

    def log(self) -> str:
        """What it has said."""
        try:
            with os_errors():
                return str(self._fs.cat_file(f"{self._root}/log.txt").decode(errors="replace"))
        except FileNotFoundError:
            return ""

    def write_log(self, text: str) -> None:
        """Keep all that it has said, the beginning of a long log left out."""
        data = text.encode()
        self._put("log.txt", data if len(data) <= _LOG else b"[...]\n" + data[-_LOG:])

    def ask_to_stop(self) -> None:
        """Ask the job to end at its next step."""
        self._put("stop", b"")

    def do_not_stop(self) -> None:
        """Take that back."""
        with suppress(FileNotFoundError), os_errors():
            self._fs.rm_file(f"{self._root}/stop")

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody has."""
        with os_errors():
            return bool(self._fs.exists(f"{self._root}/stop"))

    def remove(self) -> None:
        """Forget the job; its output stays."""
        try:
            # What says that there is a job goes last: what is cut off can be done again.
            for path in self._fs.ls(self._root, detail=False):
                if not path.endswith("/job.json"):
                    self._fs.rm(path, recursive=True)
            self._fs.rm(self._root, recursive=True)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise DataError(f"{self.address}: cannot be removed: {_line(error)}") from error

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise JobError(f"{self.address}: {name} is damaged: {_line(error)}") from error
        except Exception as error:
            raise DataError(f"{self.address}: cannot be read: {_line(error)}") from error
        if not isinstance(found, dict):
            raise JobError(f"{self.address}: {name} is damaged")
        return found

    def _write(self, name: str, tree: dict[str, Any], *, new: bool = False) -> None:
        self._put(name, json.dumps(tree, allow_nan=False).encode(), new=new)

    def _put(self, name: str, data: bytes, *, new: bool = False) -> None:
        path = f"{self._root}/{name}"
        if not new:
            write_whole(self._fs, path, data)
        elif "file" in self._fs.protocol:
            with open(path, "xb") as file:  # of two at once one is the first
                file.write(data)
        elif self._fs.exists(path):
            raise FileExistsError(path)
        else:
            self._fs.pipe_file(path, data)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
