"""The steps of a run and what each ended in.

A run is the same to the last bit whenever it is made again, so what it has come to is known from
the results of its steps: a run that goes on is made anew from its start, each step that is in the
journal gives what it gave, and the first that is not is made. Steps hold steps; once the outer one
has ended the inner ones are forgotten. Within a step a long loop sets save points, at which it can
go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from altrelu_dist.checkpoints.fingerprint import check_same
from altrelu_dist.errors import CheckpointError

if TYPE_CHECKING:
    from altrelu_dist.checkpoints.store import CheckpointStore

__all__ = ["Journal", "Part", "RandomState"]

T = TypeVar("T")


class Part(Protocol):
    """What changes as a run goes on, beside the results of its steps."""

    def state(self) -> Any:
        """What it is, of values that a checkpoint can hold."""

    def restore(self, state: Any) -> None:
        """Make it so again."""


class RandomState:
    """The state of a generator of random numbers, as a part of a run."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._bits = rng.bit_generator

    def state(self) -> Any:
        """The numbers that it has to come."""
        return self._bits.state

    def restore(self, state: Any) -> None:
        """Give the same ones."""
        self._bits.state = state


class Journal:
    """Of one run; without a store nothing is kept, and steps are just made.

    Parameters
    ----------
    store : CheckpointStore, optional
        Where it is saved.
    interval : float
        Seconds between two times that it is saved, but at the end of a stage.
    """

    def __init__(self, store: CheckpointStore | None = None, interval: float = 60.0) -> None:
        self._store = store
        self._interval = interval
        self._saved_at = time.monotonic()
        self._saved_stage: str | None = None
        self.fingerprint: dict[str, Any] = {}
        self._parts: dict[str, Part] = {}
        self._with_steps: set[str] = set()
        self._path: list[str] = []
        self._counts: list[dict[str, int]] = [{}]
        self._records: dict[str, Any] = {}  # by path, in the order in which the steps ended
        self._last: str | None = None  # record up to which the run is known
        self._point: tuple[str, Any] | None = None  # later than all records
        self._at_point = False  # whether the run is known up to the save point
        self._states: dict[str, Any] = {}  # of the parts, at the last record or save point
        self._stopped: Callable[[], bool] = lambda: False
        self._late = False  # whether a step was begun when the run was being ended already

    @property
    def replaying(self) -> bool:
        """Whether steps are still known from the journal."""
        return self._last is not None or self._at_point

    def stops_with(self, stopped: Callable[[], bool]) -> None:
        """Say what tells whether the run is being ended: a step that was cut short is no result."""
        self._stopped = stopped

    @property
    def kept(self) -> bool:
        """Whether it is saved anywhere."""
        return self._store is not None

    def attach(self, name: str, part: Part, *, with_steps: bool = True) -> None:
        """Have a part's state kept and restored: with each step, or only as of the last one."""
        self._parts[name] = part
        if with_steps:
            self._with_steps.add(name)

    def is_of_data(
        self, data: Mapping[str, Any], names: Mapping[str, Sequence[str] | None]
    ) -> None:
        """Note what data the run is on; see that it is what it was, if it goes on.

        Raises
        ------
        CheckpointError
            If it is not.
        """
        now = self.fingerprint | {"data": dict(data)}
        try:
            check_same(self.fingerprint, now, names)
        except CheckpointError as error:
            raise CheckpointError(f"{self._address}: {error}") from None
        self.fingerprint = now

    def resume(self, found: Any) -> None:
        """Go on with a journal that was loaded."""
        try:
            self.fingerprint = dict(found["fingerprint"])
            self._records = dict(found["records"])
            self._states = found["states"]
            point = found["mark"]
            self._point = None if point is None else (str(point[0]), point[1])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{self._address}: is damaged: {error}") from error
        self._last = next(reversed(self._records), None)
        self._at_point = self._point is not None

    def step(self, name: str, compute: Callable[[], T], *, required: bool = True) -> T:
        """What a step ends in: as it is known, or by making it.

        Parameters
        ----------
        name : str
        compute : callable
            Makes the step. Its result is of values that a checkpoint can hold.
        required : bool, default True
            False for a step that journals of older versions do not have: it is made then.
        """
        if self._store is None:
            return compute()
        with self._entered(name) as path:
            if path in self._records:
                result, states = self._records[path]
                self._restore(states)
                if path == self._last:
                    self._last = None
                    if not self._at_point:
                        self._restore(self._states)
                return result  # type: ignore[no-any-return]
            leads_on = any(known.startswith(f"{path}/") for known in self._records)
            if self._last is not None and not leads_on and required:
                raise CheckpointError(f"{self._address}: does not fit: it has no step {path!r}")
            self._late = self._late or self._stopped()
            made = compute()
        if self.replaying or self._stopped():
            return made
        states = {name: part.state() for name, part in self._parts.items()}
        for inner in [known for known in self._records if known.startswith(f"{path}/")]:
            del self._records[inner]
        self._records[path] = (made, {k: v for k, v in states.items() if k in self._with_steps})
        self._point, self._states = None, states
        stage = None if self._path else name
        if self._due() or (stage is not None and stage != self._saved_stage):
            self.save()
            self._saved_stage = stage
        return made

    def knows(self, name: str) -> bool:
        """Whether the next step of a name, or a part of it, is known from the journal."""
        path = "/".join([*self._path, f"{name}-{self._counts[-1].get(name, 0) + 1}"])
        known = [*self._records, *([] if self._point is None else [self._point[0]])]
        return any(f"{each}/".startswith(f"{path}/") for each in known)

    def save_point(self, state: Callable[[], Any], *, stopping: bool = False) -> None:
        """Save where the loop of this step is, if it is time to, or the run is ``stopping``.

        Parameters
        ----------
        state : callable
            Gives what `restore_point` is to give back.
        """
        if self._store is None or self.replaying or not (stopping or self._due()):
            return
        if self._late:  # a run that goes on does so before what only brings its end in order
            return
        self._point = ("/".join(self._path), state())
        self._states = {name: part.state() for name, part in self._parts.items()}
        self.save()

    def restore_point(self) -> Any:
        """Where the loop of this step goes on; None: at its start."""
        if self._point is None or not self._at_point or self._point[0] != "/".join(self._path):
            return None
        if self._last is not None:
            raise CheckpointError(f"{self._address}: does not fit: steps in another order")
        self._at_point = False
        self._restore(self._states)
        return self._point[1]

    def save(self) -> None:
        """Save it now, if there is anything to save that is known."""
        if self._store is None or self.replaying:
            return
        self._saved_at = time.monotonic()
        self._store.save(
            {
                "fingerprint": self.fingerprint,
                "records": self._records,
                "states": self._states,
                "mark": self._point,
            }
        )

    def close(self) -> None:
        """Let go of the parts: they hold the rows, and rows that a cluster keeps for them."""
        self._parts.clear()
        self._stopped = lambda: False

    @contextmanager
    def _entered(self, name: str) -> Iterator[str]:
        counts = self._counts[-1]
        counts[name] = counts.get(name, 0) + 1
        self._path.append(f"{name}-{counts[name]}")
        self._counts.append({})
        try:
            yield "/".join(self._path)
        finally:
            self._path.pop()
            self._counts.pop()

    @property
    def _address(self) -> str:
        return "" if self._store is None else self._store.address

    def _restore(self, states: dict[str, Any]) -> None:
        try:
            for name, state in states.items():
                self._parts[name].restore(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{self._address}: is damaged: {error}") from error

    def _due(self) -> bool:
        if self._store is not None and self._store.taken_away:
            return True  # to be told so
        return time.monotonic() - self._saved_at >= self._interval
