"""Opening every part at an address, and learning what its columns and its classes are."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, cast

from altrelu_dist.data.classes import (
    Classes,
    Label,
    Renumbering,
    classes_in,
    numeric,
    with_classes,
)
from altrelu_dist.data.columns import LevelCounts
from altrelu_dist.data.formats import OPENERS
from altrelu_dist.data.learning import count_levels, learn_columns
from altrelu_dist.data.places import parts_at
from altrelu_dist.data.source import Source, Wanted, check_there, listed, reading
from altrelu_dist.data.tables import TableSource
from altrelu_dist.encoding.raw import RawColumn, RawColumns, all_numbers
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.outputs import recovered

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Choice", "Sources", "check_choice", "find_sources", "other_count"]


class Choice(TypedDict):
    """Of which use the columns of a table are: parameters of `find_sources`."""

    target: str | Sequence[str] | None
    weight: str | None
    categorical: Sequence[str]
    drop: Sequence[str]
    only: Sequence[str] | None
    classes: bool | None


class Sources(NamedTuple):
    """What was opened at an address.

    `ids` are columns that are not read, since their texts name the rows; `selected` those of named
    arrays that are to be used, where they are not all.
    """

    sources: list[Source]
    ids: tuple[str, ...] = ()
    selected: tuple[str, ...] | None = None
    classes: Classes | None = None

    @property
    def labels(self) -> tuple[Label, ...] | None:
        """The classes of the target, where it is classes."""
        return None if self.classes is None else self.classes.labels or None

    @property
    def renumberings(self) -> tuple[Renumbering | None, ...]:
        """How the numbers that each source has as its target become those that are used."""
        return (None,) * len(self.sources) if self.classes is None else self.classes.renumberings

    @property
    def places(self) -> list[int] | None:
        """Of the selected columns in X; None for all."""
        names = self.sources[0].feature_names
        return None if self.selected is None else [names.index(name) for name in self.selected]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns that are used."""
        return self.sources[0].feature_names if self.selected is None else self.selected

    @property
    def columns(self) -> RawColumns | None:
        """What the columns that are used were; None where all were numbers."""
        columns, places = self.sources[0].columns, self.places
        if columns is not None and places is not None:
            columns = tuple(columns[i] for i in places)
        return None if all_numbers(columns) else columns


def find_sources(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    require_target: bool = False,
    columns: RawColumns | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    only: Sequence[str] | None = None,
    categories: Literal["learn", "error"] = "learn",
    classes: bool | Sequence[Label] | None = None,
) -> Sources:
    """Open every part at an address, check that they have the same columns, and learn of these.

    The parameters are those of `open_dataset`.
    """
    check_choice("categories", categories, ("learn", "error"))
    uses = _uses(target, weight, features, categorical, drop, only)
    known = None if classes is None or isinstance(classes, bool) else tuple(classes)
    if classes and len(uses.targets) > 1:
        raise ParameterError(
            f"is for one target; found {listed(uses.targets)}", parameter="classes"
        )
    wanted = replace(
        uses,
        require_target=require_target,
        classes=known is not None or cast("bool | None", classes),
        text_allowed=categories == "learn" or columns is not None,
        known=columns is not None,
    )
    text = os.fspath(address)
    sources = _opened_or_recovered(text, wanted)
    _check_alike(sources)
    selected = _selected(text, sources[0], wanted)
    sources, counted = _of_classes(sources, known)
    ids: tuple[str, ...] = ()
    if columns is not None:
        opened = _of_known_columns(text, sources, columns, wanted.features, counted)
    elif (learnt := learn_columns(sources, categorical, text, counted)) is None:
        opened = sources
    else:
        learnt_columns, ids = learnt
        opened = [source.with_columns(learnt_columns) for source in sources]
    found = Sources(opened, ids, selected)
    made = classes_in(opened, counted, wanted.classes if known is None else known, text)
    if made is None:
        return found
    return found._replace(sources=[with_classes(one, made) for one in opened], classes=made)


def _uses(
    target: str | Sequence[str] | None,
    weight: str | None,
    features: Sequence[str] | None,
    categorical: Sequence[str],
    drop: Sequence[str],
    only: Sequence[str] | None,
) -> Wanted:
    """What each named column is used as; refuse one that is named for two uses."""
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    used = [*targets, *([weight] if weight is not None else [])]
    if len(set(used)) < len(used):
        raise ParameterError(f"named twice as target or weight: {listed(used)}")
    inputs = None if features is None else tuple(features)
    asked = (*(inputs or ()), *(only or ()), *categorical)
    if both := [name for name in used if name in asked]:
        raise ParameterError(f"named as target or weight, and a feature: {listed(both)}")
    if both := [name for name in drop if name in (*used, *asked)]:
        raise ParameterError(f"to be left out, and used: {listed(both)}")
    return Wanted(
        targets,
        weight,
        features=inputs,
        drop=tuple(drop),
        only=None if only is None else tuple(only),
        categorical=tuple(categorical),
    )


def _opened_or_recovered(address: str, wanted: Wanted) -> list[Source]:
    """Every part at an address, or where its output is found if the writer was killed."""
    try:
        return _opened(address, wanted)
    except DataError:
        other = recovered(address)
        if other is None:
            raise
        return _opened(other, wanted)


def _opened(address: str, wanted: Wanted) -> list[Source]:
    with reading(address):
        places = parts_at(address)
    return [
        OPENERS[place.format](place.address, replace(wanted, partition=place.partition))
        for place in places
    ]


def _check_alike(sources: Sequence[Source]) -> None:
    """Refuse parts that have other columns than the first."""
    first, *others = sources
    for source in others:
        for role, mine, expected in (
            ("features", source.feature_names, first.feature_names),
            ("targets", source.target_names, first.target_names),
        ):
            if mine != expected:
                differ = sorted(set(mine) ^ set(expected)) or ["their order"]
                raise DataError(
                    f"{source.address}: other {role} than {first.address}: {listed(differ)}"
                )
        if (source.dtypes[2] is None) != (first.dtypes[2] is None):
            raise DataError(f"{source.address}: weights in it or in {first.address}, not in both")


def _of_classes(
    sources: list[Source], known: Sequence[Label] | None
) -> tuple[list[Source], LevelCounts | None]:
    """The sources, and if the target is text in a table of them, where to count its levels."""
    tables = [source for source in sources if isinstance(source, TableSource)]
    if not any(table.class_coding for table in tables):
        return sources, None
    levels = RawColumn("levels")
    return [table.with_target(levels, numeric=numeric(known)) for table in tables], LevelCounts()


def _selected(address: str, first: Source, wanted: Wanted) -> tuple[str, ...] | None:
    """The columns of arrays that are wanted, where only some are: tables read no others."""
    drop, only = wanted.drop, wanted.only
    if isinstance(first, TableSource):
        return None
    if wanted.categorical:
        raise DataError(
            f"{address}: holds numbers as they are to be used; convert the table again to have "
            f"{listed(wanted.categorical)} as levels"
        )
    if not drop and only is None:
        return None
    if not first.named:
        raise DataError(f"{address}: its columns have no names to choose them by")
    check_there(address, (*drop, *(only or ())), first.feature_names)
    kept = (name for name in first.feature_names if only is None or name in only)
    if not (chosen := tuple(name for name in kept if name not in drop)):
        raise DataError(f"{address}: no feature columns left")
    return chosen


def _of_known_columns(
    address: str,
    sources: Sequence[Source],
    columns: RawColumns,
    inputs: tuple[str, ...] | None,
    counted: LevelCounts | None,
) -> list[Source]:
    """The sources with columns that are known; the levels of a target are counted all the same."""
    first = sources[0]
    names = first.feature_names if inputs is None or not first.named else inputs
    if inputs is not None and len(inputs) != len(names):
        raise other_count(address, names, inputs)
    if len(names) != len(columns):
        raise DataError(f"{address}: has {len(names)} feature columns; expected {len(columns)}")
    by_name = dict(zip(names, columns, strict=True))
    found = [source.with_columns(by_name) for source in sources]
    for table in sources:
        if counted is not None and isinstance(table, TableSource):
            count_levels(table, {table.target_names[0]: counted})
    return found


def check_choice(parameter: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of some."""
    if value not in choices:
        expected = " or ".join(map(repr, choices))
        raise ParameterError(f"is {value!r}; expected {expected}", parameter=parameter)


def other_count(address: str, names: Sequence[str], features: Sequence[str]) -> DataError:
    """Say that columns without names are not as many as expected."""
    return DataError(
        f"{address}: has {len(names)} columns without names; expected {len(features)}: "
        f"{listed(features)}"
    )
