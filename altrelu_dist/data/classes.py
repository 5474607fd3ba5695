"""Targets that are classes: which there are, and their numbers in place of what a file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from altrelu_dist.data.columns import FEW_ROWS, ID_SHARE, LevelCounts, number_text
from altrelu_dist.data.source import READ_BYTES, Array, DType, RowReader, listed, rows_in
from altrelu_dist.data.tables import TableSource
from altrelu_dist.encoding.raw import MOST_LEVELS, UNSEEN, RawColumn
from altrelu_dist.errors import DataError, Remedy

if TYPE_CHECKING:
    from altrelu_dist.data.source import Source

__all__ = [
    "Classes", "Label", "Renumbered", "Renumbering", "class_text", "classes_in", "classes_line",
    "numeric", "with_classes",
]  # fmt: skip

Label = str | int | float | bool

_NAMED = 8  # classes that a line names


class Classes(NamedTuple):
    """The classes of a target, sorted, and how the numbers in each source become theirs.

    Those that were known to the caller come first. `renumberings` are None where a source gives
    the numbers of the classes itself.
    """

    labels: tuple[Label, ...]
    renumberings: tuple[Renumbering | None, ...]


@dataclass(frozen=True)
class Renumbering:
    """Numbers that stand for others; those that are not known become `UNSEEN`, and NaN stays."""

    values: Array  # sorted
    numbers: Array

    @classmethod
    def of(cls, pairs: Mapping[float, float]) -> Renumbering:
        """From the numbers as they are to what they become."""
        values = sorted(pairs)
        return cls(np.array(values, float), np.array([pairs[value] for value in values], float))

    @property
    def dtype(self) -> DType:
        """The narrower one that holds the numbers."""
        narrow = np.array_equal(self.numbers, self.numbers.astype(np.float32))
        return np.dtype(np.float32 if narrow else np.float64)

    def __call__(self, y: Array) -> Array:
        """Numbers of any shape."""
        places = np.searchsorted(self.values, y).clip(0, len(self.values) - 1)
        found = np.where(self.values[places] == y, self.numbers[places], UNSEEN)
        return np.where(np.isnan(y), np.nan, found).astype(self.dtype)


@dataclass(frozen=True)
class Renumbered(RowReader):
    """Rows of another reader, renumbered."""

    rows: RowReader
    renumbering: Renumbering

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop."""
        return self.renumbering(self.rows[start:stop])


def classes_line(target: str, labels: Sequence[object]) -> str:
    """What is said of a target that is classes."""
    return f"{target} has {len(labels):,} classes: {listed([*map(str, labels)], _NAMED)}"


def class_text(label: Label) -> str:
    """The text by which a class is known in a file: of a number the same whatever its type."""
    return label if isinstance(label, str) else number_text(str(label)) or str(label)


def numeric(labels: Sequence[Label] | None) -> bool:
    """Whether the labels are numbers or booleans."""
    return labels is not None and not any(isinstance(label, str) for label in labels)


def classes_in(
    sources: Sequence[Source],
    counted: LevelCounts | None,
    asked: bool | tuple[Label, ...] | None,
    what: str,
) -> Classes | None:
    """The classes of the target of some sources, if it is classes.

    Parameters
    ----------
    sources : sequence of Source
    counted : LevelCounts, optional
        Texts of the target, of tables in which it is classes.
    asked : bool or tuple of labels, optional
        As `open_dataset` takes it.
    what : str
        The address in messages.

    Raises
    ------
    DataError
        If there are too many different values, or a source has other columns than one.
    """
    arrays = {i: one for i, one in enumerate(sources) if not isinstance(one, TableSource)}
    own: dict[int, dict[float, Label]] = {}
    for i, source in arrays.items():
        if source.classes is not None:
            own[i] = dict(enumerate(source.classes))
        elif asked or any(one.classes is not None for one in arrays.values()):
            own[i] = _distinct(source, what)
    if asked is False:
        return _as_numbers(sources, own, what) if own else None
    if counted is None and not own:
        return None
    known = None if asked is True or asked is None else asked
    target = sources[0].target_names[0]
    if known is None and counted is not None and counted.is_id:
        different = "too many" if counted.counts is None else f"{len(counted.counts):,}"
        raise DataError(
            f"{what}: target {target} has {different} different values in {counted.rows:,} rows; "
            "expected classes, each of many rows"
        )
    labels = _labels(sources, counted, own, known)
    if known is None and (broken := [one for one in labels if isinstance(one, float)]):
        raise DataError(
            f"{what}: target {target} holds numbers with fractions, as {broken[0]}; expected "
            "classes, which are whole numbers or texts"
        )
    places = {class_text(label): float(k) for k, label in enumerate(labels)}
    renumberings = [
        Renumbering.of({value: places[class_text(label)] for value, label in own[i].items()})
        if i in own
        else None
        for i in range(len(sources))
    ]
    return Classes(labels, tuple(renumberings))


def with_classes(source: Source, classes: Classes) -> Source:
    """A table whose target is read as the numbers of the classes; any other as it is."""
    if not isinstance(source, TableSource):
        return source
    texts = tuple(map(class_text, classes.labels))
    return source.with_target(RawColumn("levels", texts), numeric=numeric(classes.labels))


def _labels(
    sources: Sequence[Source],
    counted: LevelCounts | None,
    own: Mapping[int, Mapping[float, Label]],
    known: tuple[Label, ...] | None,
) -> tuple[Label, ...]:
    """All classes in their order."""
    texts = {*(counted.counts or ())} if counted is not None else set()
    texts |= {class_text(label) for pairs in own.values() for label in pairs.values()}
    if known is not None:
        return (*known, *sorted(texts - {*map(class_text, known)}))
    of_arrays = [label for pairs in own.values() for label in pairs.values()]
    found = [
        one.found[one.target_names[0]]
        for one in sources
        if isinstance(one, TableSource) and not one.found[one.target_names[0]].empty
    ]
    if any(one.kind != "number" for one in found) or not numeric(of_arrays):
        return tuple(sorted(texts))
    if all(one.dtype == np.bool_ for one in found) and all(type(b) is bool for b in of_arrays):
        return tuple(sorted(text != "0" for text in texts))
    return tuple(sorted(map(_number, texts)))


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _distinct(source: Source, what: str) -> dict[float, Label]:
    """The different numbers of the target of arrays, as they are and as labels."""
    if len(source.target_names) != 1:
        raise DataError(f"{what}: has {len(source.target_names)} targets; expected one of classes")
    found: set[float] = set()
    rows = 0
    for part in source.parts():
        if part.y is None:
            return {}
        step = rows_in(READ_BYTES, 1, part.y.dtype)
        for start in range(0, part.y.shape[0], step):
            values = np.asarray(part.y[start : start + step])
            rows += int(np.isfinite(values).sum())
            found.update(np.unique(values[np.isfinite(values)]).tolist())
            if len(found) > MOST_LEVELS:
                break
    if len(found) > MOST_LEVELS or (rows > FEW_ROWS and len(found) > ID_SHARE * rows):
        raise DataError(
            f"{what}: target {source.target_names[0]} has {len(found):,} different values in "
            f"{rows:,} rows; expected classes, each of many rows"
        )
    return {value: _number(number_text(str(value)) or str(value)) for value in found}


def _as_numbers(
    sources: Sequence[Source], own: Mapping[int, Mapping[float, Label]], what: str
) -> Classes:
    """Classes that are to be taken as the numbers that they are."""
    for pairs in own.values():
        if not numeric([*pairs.values()]):
            raise DataError(
                f"{what}: the target {sources[0].target_names[0]} holds the classes "
                f"{listed([*map(str, pairs.values())])}; expected numbers",
                Remedy.CLASSES,
            )
    made = [
        Renumbering.of({value: float(label) for value, label in own[i].items()})
        if i in own
        else None
        for i in range(len(sources))
    ]
    return Classes((), tuple(made))
