"""What is kept of a job, in storage beside its output: it outlives every process and scheduler."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from altrelu_dist.addresses import values_without_secrets
from altrelu_dist.data.source import files_at
from altrelu_dist.errors import (
    AltReLUError,
    DataError,
    ExistsError,
    JobError,
    ParameterError,
    Remedy,
)
from altrelu_dist.runs.training import TrainOptions
from altrelu_dist.storage import os_errors, read_whole, write_whole

__all__ = ["ENDED", "JobFolder", "JobSpec", "JobStatus", "check_apart_from_jobs", "folder_of"]

_ENDING = ".job"
_SPEC = "job.json"
_ID = re.compile(r"[0-9a-f]{8}")
# What a job writes into its folder: nothing else is ever deleted.
_WRITTEN = re.compile(
    r"status\.json|log\.txt|stop|checkpoint/(?:checkpoint-\d{8}\.bin|lock)"
    r"|best\.zarr/(?:zarr\.json|(?:(?:hidden|output)_(?:weights|bias|gram)|target_range|encoder_[a-z0-9_]+)"
    r"/(?:zarr\.json|c(?:/\d+)*))"
    r"|(?:[^/]+/)?[^/]*\.partial(?:\.[^/]*)?(?:/.*)?"
)
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
    scheduler, scheduler_id : str
        The address of the scheduler that it was given to, and Dask's name of that process.
    attempts : int
        How often it was begun: more than once where workers died.
    resumed_from : int
        The number of the checkpoint that it was last begun from, 0 for none.
    error : str
        Why it failed.
    remedies : list of str
        What can be done about that: names of `Remedy`.
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
    scheduler: str = ""
    scheduler_id: str = ""
    attempts: int = 0
    resumed_from: int = 0
    error: str = ""
    remedies: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    @property
    def failure(self) -> JobError:
        """Why it failed, and what can be done about that."""
        known = (name for name in self.remedies if name in Remedy.__members__)
        return JobError(self.error or "no sign of life", *(Remedy[name] for name in known))


def folder_of(out: str) -> str:
    """The folder of the job that writes to an output."""
    return f"{out.rstrip('/')}{_ENDING}"


def check_apart_from_jobs(out: str, warm_start: str | None) -> None:
    """Refuse an output that is named like a job's folder or lies in one.

    Raises
    ------
    ParameterError
        Also if the network to begin with lies in the folder of an earlier job with this output.
    """
    fs, root = files_at(out)
    if root.rstrip("/").endswith(_ENDING):
        raise ParameterError(
            f"{out}: ends in {_ENDING}, as the folders of jobs do; give the output another name, "
            "such as model.zarr"
        )
    for parent in _parents(fs, root):
        if parent.endswith(_ENDING) and fs.exists(f"{parent}/{_SPEC}"):
            raise ParameterError(
                f"{out}: lies in {parent}, the folder of a job; name an output outside of it"
            )
    if warm_start is not None:
        folder = files_at(folder_of(out))
        if _resolved(*folder) in _parents(*files_at(warm_start)):
            raise ParameterError(
                f"{warm_start}: lies in the folder of the job before, which this one replaces; "
                "copy the network to another place first"
            )


def _resolved(fs: Any, path: str) -> str:
    return os.path.realpath(path) if _is_local(fs) else path.rstrip("/")


def _parents(fs: Any, path: str) -> list[str]:
    parts = _resolved(fs, path).split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _is_local(fs: Any) -> bool:
    return "file" in fs.protocol


class JobFolder:
    """A job's folder: ``job.json``, and in a folder named by the job's id all that it writes.

    That is ``status.json``, ``log.txt``, ``stop``, ``checkpoint`` and ``best.zarr``. A job never
    meets what another one with the same output has left.

    Parameters
    ----------
    address : str
        Of the folder, or of the output that it lies beside.
    id : str, optional
        Of the job, where ``job.json`` is not to be asked.
    """

    def __init__(self, address: str | os.PathLike[str], id: str | None = None) -> None:
        text = os.fspath(address).rstrip("/")
        self.address = text if text.endswith(_ENDING) else folder_of(text)
        self._fs, self._root = files_at(self.address)
        self._id = id

    @property
    def id(self) -> str:
        """Of the job."""
        if self._id is None:
            self._id = self.spec().id
        return self._id

    @property
    def checkpoint(self) -> str:
        """Where its checkpoints are."""
        return f"{self.address}/{self.id}/checkpoint"

    @property
    def best(self) -> str:
        """Where its best network so far is."""
        return f"{self.address}/{self.id}/best.zarr"

    def create(self, spec: JobSpec, scheduler: str = "", scheduler_id: str = "") -> None:
        """Write a new job down.

        Raises
        ------
        ExistsError
            If there is a job with this output that has not ended, or a file in the folder's place.
        DataError
            If it cannot be written.
        """
        found = self._found()
        if found is not None:
            status = self.status()
            if not status.ended:
                raise ExistsError(
                    f"{spec.options.out}: job {found.id} writes there, and is {status.state}; "
                    f"name another output, or cancel it, or take a lost one up again by its id"
                )
            self.remove()
        self._id = spec.id
        try:
            self._fs.makedirs(f"{self._root}/{spec.id}", exist_ok=True)
            self.write_status(
                JobStatus(updated=spec.submitted, scheduler=scheduler, scheduler_id=scheduler_id)
            )
            self._put(_SPEC, _json(asdict(spec)), new=True)
        except FileExistsError:
            self._remove_written()
            raise ExistsError(f"{self.address}: another job has come there just now") from None
        except Exception as error:
            if isinstance(error, AltReLUError):
                raise
            raise DataError(f"{self.address}: cannot be written: {_line(error)}") from error

    def _found(self) -> JobSpec | None:
        try:
            file = self._fs.isfile(self._root)
        except Exception as error:
            raise DataError(f"{self.address}: cannot be read: {_line(error)}") from error
        if file:
            raise ExistsError(
                f"{self.address}: is a file, where the folder of the job is to be; name another "
                "output"
            )
        try:
            return self.find()
        except JobError as error:
            raise JobError(f"{error}; name another output") from error

    def find(self) -> JobSpec | None:
        """What the job is to do; None if there is none here.

        Raises
        ------
        JobError
            If it is damaged, or of another version of this package.
        """
        told = self._read(_SPEC)
        if told is None:
            return None
        try:
            known = {f.name for f in fields(TrainOptions)}
            if unknown := told["options"].keys() - known:
                raise KeyError(f"options {', '.join(sorted(unknown))} of version {told['version']}")
            _check_types(JobSpec, {name: told[name] for name in told if name != "options"})
            spec = JobSpec(**told | {"options": TrainOptions(**told["options"])})
            # The others are checked as those of the command are.
            _check_types(TrainOptions, {"store": spec.options.store, "out": spec.options.out})
            if not _ID.fullmatch(spec.id):
                raise ValueError(f"its id is {spec.id!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise JobError(f"{self.address}: is damaged: {_line(error)}") from error
        return spec

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

    @property
    def is_current(self) -> bool:
        """Whether the job is still there: neither forgotten nor replaced by another."""
        found = self.find()
        return found is not None and found.id == self.id

    def status(self) -> JobStatus:
        """How far it is."""
        told = self._read(f"{self.id}/status.json") or {}
        try:
            _check_types(JobStatus, told)
            status = JobStatus(**told)
            if not isinstance(status.result.get("out", ""), str):
                raise TypeError(f"result is {str(status.result)[:80]!r}")
        except (TypeError, ValueError) as error:
            raise JobError(f"{self.address}: is damaged: {_line(error)}") from error
        if not status.ended and time.time() - (status.updated or 0) > SILENT:
            return JobStatus(**told | {"state": "lost"})
        return status

    def write_status(self, status: JobStatus) -> None:
        """Tell how far it is."""
        self._put(f"{self.id}/status.json", _json(values_without_secrets(asdict(status))))

    def log(self) -> str:
        """What it has said."""
        try:
            with os_errors():
                data = self._fs.cat_file(f"{self._root}/{self.id}/log.txt")
        except FileNotFoundError:
            return ""
        return str(data.decode(errors="replace"))

    def write_log(self, text: str) -> None:
        """Keep all that it has said, the beginning of a long log left out."""
        data = text.encode()
        kept = data if len(data) <= _LOG else b"[...]\n" + data[-_LOG:]
        self._put(f"{self.id}/log.txt", kept)

    def ask_to_stop(self) -> None:
        """Ask the job to end at its next step."""
        self._put(f"{self.id}/stop", b"")

    def do_not_stop(self) -> None:
        """Take that back."""
        with suppress(FileNotFoundError), os_errors():
            self._fs.rm_file(f"{self._root}/{self.id}/stop")

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody has."""
        with os_errors():
            return bool(self._fs.exists(f"{self._root}/{self.id}/stop"))

    def remove(self) -> None:
        """Forget the job; its output stays, and so does all that it has not written.

        Raises
        ------
        DataError
            If it cannot be removed.
        """
        try:
            self._remove_written()
            # What says that there is a job goes last: what is cut off can be done again.
            if self.is_current:
                self._fs.rm_file(f"{self._root}/{_SPEC}")
            self._remove_empty(self._root)
        except FileNotFoundError:
            pass
        except Exception as error:
            if isinstance(error, AltReLUError):
                raise
            raise DataError(f"{self.address}: cannot be removed: {_line(error)}") from error

    def _remove_written(self) -> None:
        """Remove what the job has written, and the folders that are empty then."""
        kept = f"{self._root}/{self.id}"
        folders = {kept, f"{kept}/checkpoint"}
        for name in list(self._files(kept)):
            if _WRITTEN.fullmatch(name):
                with suppress(FileNotFoundError):
                    self._fs.rm_file(f"{kept}/{name}")
                folders |= {f"{kept}/{name[:end]}" for end, c in enumerate(name) if c == "/"}
        for folder in sorted(folders, key=len, reverse=True):
            self._remove_empty(folder)

    def _files(self, folder: str) -> Iterator[str]:
        """The files in a folder, by their paths in it; links to folders are not followed."""
        if not _is_local(self._fs):
            for path in self._fs.find(folder):
                yield path.removeprefix(f"{folder}/")
            return
        for where, _, names in os.walk(folder):
            for name in names:
                yield os.path.relpath(os.path.join(where, name), folder)

    def _remove_empty(self, folder: str) -> None:
        """Remove a folder with nothing in it; many storages have none."""
        with suppress(OSError, NotImplementedError):
            if self._fs.isdir(folder) and not self._fs.ls(folder, detail=False):
                self._fs.rmdir(folder)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads(read_whole(self._fs, f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise JobError(f"{self.address}: {name} is damaged: {_line(error)}") from error
        except Exception as error:
            raise DataError(f"{self.address}: cannot be read: {_line(error)}") from error
        if not isinstance(found, dict):
            raise JobError(f"{self.address}: {name} is damaged")
        return found

    def _put(self, name: str, data: bytes, *, new: bool = False) -> None:
        path = f"{self._root}/{name}"
        if not new:
            write_whole(self._fs, path, data)
        elif _is_local(self._fs):
            with open(path, "xb") as file:  # of two at once one is the first
                file.write(data)
        elif self._fs.exists(path):
            raise FileExistsError(path)
        else:
            self._fs.pipe_file(path, data)


def _json(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, allow_nan=False).encode()


def _check_types(kind: type, told: dict[str, Any]) -> None:
    """See that values from a file are of the types of the fields that they are for."""
    hints = get_type_hints(kind)
    for name, value in told.items():
        if name not in hints:
            raise TypeError(f"{name!r} is not known here; of another version of this package?")
        if not _fits(value, hints[name]):
            raise TypeError(f"{name} is {str(value)[:80]!r}")


def _fits(value: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind is UnionType:
        return any(_fits(value, each) for each in get_args(hint))
    if kind is list:
        return isinstance(value, list) and all(_fits(each, *get_args(hint)) for each in value)
    if type(value) is int:
        return kind in (int, float) and abs(value) < 1 << 53
    return type(value) is kind and (kind is not float or math.isfinite(value))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
