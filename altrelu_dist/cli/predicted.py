"""What `altrelu predict` writes of a block: numbers and intervals, or classes and probabilities."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.logistic import chosen, probabilities
from altrelu_dist.prediction import intervals_about

if TYPE_CHECKING:
    from altrelu_dist.moments.rows import Floats
    from altrelu_dist.network import Network

__all__ = ["Predicted"]

_ENDS = ("low", "high")  # of an interval, after the name of the target


class Predicted:
    """The columns of an output.

    Parameters
    ----------
    network : Network
    with_probabilities : bool
        Of classes, whether a column for the probability of each is written.
    level : float, optional
        Of numbers, that of the interval whose ends follow each.
    taken : collection of str
        Names of columns that are carried through, which no other column may have.
    """

    def __init__(
        self,
        network: Network,
        *,
        with_probabilities: bool,
        level: float | None = None,
        taken: Collection[str] = (),
    ) -> None:
        self.classes = network.classes
        columns = network.target_names if self.classes is None else network.target_columns
        if columns is None:
            columns = ("y",) if self.classes else tuple(f"y{i}" for i in range(network.n_targets))
        self.targets = columns
        self.names = _all_free(columns, taken)
        self.of_classes: tuple[str, ...] = ()
        if self.classes is not None and with_probabilities:
            told = (f"{columns[0]} = {label}" for label in self.classes)
            self.of_classes = _all_free(told, {*taken, *self.names})
        self._network, self._level = network, level
        # Of each target the prediction, and the ends of its interval.
        self._numbers = self.names
        if level is not None:
            ends = _all_free(
                (f"{name}_{end}" for name in self.names for end in _ENDS), {*taken, *self.names}
            )
            pairs = zip(self.names, zip(ends[::2], ends[1::2], strict=True), strict=True)
            self._numbers = tuple(each for name, both in pairs for each in (name, *both))

    def array(self, outputs: Floats) -> Floats:
        """A block as numbers: of classes their places, or their probabilities alone."""
        if self.classes is None:
            return self._with_ends(outputs)
        if self.of_classes:
            return probabilities(outputs)
        lost = ~np.isfinite(outputs).all(axis=1)
        return np.where(lost, np.nan, chosen(outputs))[:, None]

    @property
    def array_names(self) -> tuple[str, ...]:
        """Of the columns of `array`."""
        return self.of_classes or self._numbers

    def table(self, outputs: Floats) -> dict[str, Any]:
        """A block as Arrow columns: the numbers, or the class and the probabilities."""
        import pyarrow as pa

        if self.classes is None:
            columns = (np.ascontiguousarray(column) for column in self._with_ends(outputs).T)
            return dict(zip(self._numbers, map(pa.array, columns), strict=True))
        lost = ~np.isfinite(outputs).all(axis=1)
        places = pa.array(chosen(np.nan_to_num(outputs)), mask=lost)
        made = {self.names[0]: pa.array(self.classes).take(places)}
        if self.of_classes:
            columns = (np.ascontiguousarray(column) for column in probabilities(outputs).T)
            made |= zip(self.of_classes, map(pa.array, columns), strict=True)
        return made

    @property
    def table_names(self) -> tuple[str, ...]:
        """Of the columns of `table`."""
        return (*self._numbers, *self.of_classes)

    def _with_ends(self, outputs: Floats) -> Floats:
        """Each prediction with the ends of its interval, if these are asked for."""
        if self._level is None:
            return outputs
        ends = intervals_about(self._network, outputs, self._level)
        rows: Floats = np.concatenate([outputs[:, :, None], ends], axis=2)
        return rows.reshape(len(outputs), -1)


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or another one where a column that is carried through has it."""
    while name in taken:
        name += "_predicted"
    return name


def _all_free(names: Iterable[str], taken: Collection[str]) -> tuple[str, ...]:
    """Names that are neither taken nor those of one another."""
    wanted, known, free = tuple(names), set(taken), []
    for place, name in enumerate(wanted):
        free.append(_free(name, known | set(wanted[place + 1 :]) if name in known else known))
        known.add(free[-1])
    return tuple(free)
