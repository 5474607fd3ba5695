"""Where jobs are found by their ids: at the scheduler, and in a file of this user's."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["forget", "known", "remember"]

_AT_SCHEDULER = "altrelu-jobs"
_FILE = "jobs.json"


def remember(id_: str, address: str, client: Client | None) -> None:
    """Note where a job's folder is."""
    if client is not None:
        client.set_metadata([_AT_SCHEDULER, id_], address)
    _save(_own() | {id_: address})


def known(client: Client | None) -> dict[str, str]:
    """Folders by id: of all jobs of the scheduler since it began, and of those seen from here."""
    found = _own()
    if client is not None:
        found |= client.get_metadata([_AT_SCHEDULER], {})
    return {id_: address for id_, address in found.items() if address}


def forget(id_: str, client: Client | None) -> None:
    """Drop a job."""
    if client is not None:
        client.set_metadata([_AT_SCHEDULER, id_], "")
    own = _own()
    if own.pop(id_, None) is not None:
        _save(own)


def _file() -> Path:
    return Path(typer.get_app_dir("altrelu-dist")) / _FILE


def _own() -> dict[str, str]:
    try:
        found = json.loads(_file().read_text())
        return {str(id_): str(address) for id_, address in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _save(own: dict[str, str]) -> None:
    """A convenience: a home that cannot be written to keeps nobody from submitting."""
    with suppress(OSError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{_FILE}.{os.getpid()}")
        beside.write_text(json.dumps(own, indent=1))
        beside.replace(file)
