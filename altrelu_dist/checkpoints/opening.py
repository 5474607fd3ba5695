"""Beginning a journal in a folder, or going on with the one that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from altrelu_dist.checkpoints.fingerprint import check_same
from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.errors import CheckpointError, ExistsError, Remedy

__all__ = ["note_of", "opened"]


@contextmanager
def opened(
    address: str | os.PathLike[str] | None,
    parameters: Mapping[str, Any],
    *,
    interval: float,
    resume: bool,
    any_seed: bool = False,
    note: Mapping[str, Any] | None = None,
) -> Iterator[Journal]:
    """The journal of a run; it is saved once more when the block ends, however it does.

    Parameters
    ----------
    address : str or path, optional
        Of a folder; None: nothing is kept.
    parameters : mapping
        All that the course of the run depends on, its ``seed`` too; plain values.
    interval : float
        Seconds between two times that it is saved.
    resume : bool
        Whether to go on with what is there.
    any_seed : bool, default False
        Whether the seed does not matter: a run that goes on has the one it began with.
    note : mapping, optional
        Kept with a run that begins, for `note_of`.

    Raises
    ------
    ExistsError
        If a run is to begin where there is another one's checkpoint.
    CheckpointError
        If the folder cannot be used, another run uses it, what is there is damaged or of a run with
        other parameters, or there is nothing to go on with.
    """
    if address is None:
        journal = Journal()
        try:
            yield journal
        finally:
            journal.close()
        return
    store = CheckpointStore(address)
    with store.owned():
        found = store.load()
        if found is None and resume:
            raise CheckpointError(f"{store.address}: there is no checkpoint to go on with")
        if found is not None and not resume:
            raise ExistsError(
                f"{store.address}: holds the checkpoint of a run; name another folder",
                Remedy.RESUME,
            )
        journal = Journal(store, interval)
        if found is None:
            journal.fingerprint = {"parameters": dict(parameters), "note": note and dict(note)}
            journal.save()
        else:
            journal.resume(found)
            now = dict(parameters)
            if any_seed:
                now["seed"] = journal.fingerprint["parameters"].get("seed")
            try:
                check_same(journal.fingerprint, {"parameters": now}, {})
            except CheckpointError as error:
                raise CheckpointError(f"{store.address}: {error}") from None
        try:
            yield journal
        finally:
            journal.save()
            journal.close()


def note_of(address: str | os.PathLike[str]) -> dict[str, Any]:
    """What was noted with the run that a checkpoint is of; empty if nothing was.

    Raises
    ------
    CheckpointError
        If there is none that can be read.
    """
    store = CheckpointStore(address)
    found = store.load()
    if found is None:
        raise CheckpointError(f"{store.address}: there is no checkpoint to go on with")
    try:
        return dict(found["fingerprint"]["note"] or {})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{store.address}: is damaged: {error}") from error
