"""Rows that cannot be fitted or scored: what is wrong, and in which column and row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding import Encoder
from altrelu_dist.encoding.raw import RawColumns, all_numbers
from altrelu_dist.errors import DataError, MissingTargetsError, MissingValuesError, Remedy
from altrelu_dist.moments.rows import Rows
from altrelu_dist.moments.summary import Columns, Summary, columns_of

__all__ = ["check_finite", "check_summary", "check_validation"]

_MOST_WEIGHT = 1e220  # of all rows together


def check_finite(
    values: NDArray[Any],
    what: str,
    names: Sequence[str] | None,
    gaps: NDArray[np.bool_] | None = None,
) -> None:
    """Refuse an array of numbers, of one or two dimensions, that are not all finite.

    In the columns that ``gaps`` marks values may be NaN.

    Raises
    ------
    DataError
        Names the columns and the first row.
    """
    fine = np.isfinite(values)
    if gaps is not None and not fine.all():
        values = np.where(np.isnan(values) & gaps, 0.0, values)
        fine = np.isfinite(values)
    if not fine.all():
        table = values.reshape(len(values), -1)
        raise _not_finite(what, columns_of(table, np.ones(len(table)), 0), names)


def check_validation(rows: Rows | None, encoder: Encoder, names: Sequence[str] | None) -> None:
    """Refuse validation rows that lack values where no training row does.

    Raises
    ------
    DataError
    """
    if rows is not None:
        check_finite(rows.X, "X_val", names, encoder.lacking)


def check_summary(
    summary: Summary,
    feature_names: Sequence[str] | None,
    target_names: Sequence[str] | None,
    *,
    gaps: bool | NDArray[np.bool_] = False,
    kinds: RawColumns | None = None,
) -> None:
    """Refuse rows that cannot be fitted or scored; ``gaps`` says which features may be missing.

    Their mean is advised for those that are missing only if it can fill them all: not where one
    lacks every value, or is of texts or times by its ``kinds``.

    Raises
    ------
    MissingValuesError, MissingTargetsError
        If features or targets are missing, and nothing else is wrong with them.
    DataError
        For values that are not finite or too large, and for weights that cannot be.
    """
    parts = (("X", summary.features, feature_names), ("y", summary.targets, target_names))
    for what, columns, names in parts:
        if columns.infinite.any():
            raise _not_finite(what, columns, names)
    lost = np.flatnonzero(summary.targets.bad)
    if lost.size:
        error = _not_finite("y", summary.targets, target_names, MissingTargetsError)
        assert isinstance(error, MissingTargetsError)
        error.counts = {_name(int(t), target_names): int(summary.targets.bad[t]) for t in lost}
        error.rows = summary.without_target
        raise error
    missing = np.where(gaps, 0.0, summary.features.bad)
    if missing.any():
        features = replace(summary.features, bad=missing)
        filled = not (missing == summary.rows).any() and all_numbers(
            [kinds[j] for j in np.flatnonzero(missing)] if kinds is not None else None
        )
        raise _not_finite("X", features, feature_names, MissingValuesError, filled=filled)
    if summary.bad_weights or summary.low_weight < 0:
        raise DataError("sample_weight holds values that are negative or not finite; remove them")
    if not summary.features.weight > 0:
        raise DataError(
            "no row counts: every sample weight is zero, or no row has a target; there is nothing "
            "to fit"
        )
    if not 1 / _MOST_WEIGHT <= summary.features.weight <= _MOST_WEIGHT:
        raise DataError(
            f"the sample weights sum to {summary.features.weight:.3g}, too far from 1 for sums of "
            "squares; rescale them: only their ratios matter"
        )
    for what, columns, names in parts:
        large = np.flatnonzero(~np.isfinite(columns.variance))
        if large.size:
            raise DataError(
                f"{what} holds values that are too large to be squared, up to "
                f"{np.abs([columns.low, columns.high]).max():.3g}, in {_name(large[0], names)}; "
                f"rescale them, or remove them if they stand for missing values"
            )


def _name(column: int, names: Sequence[str] | None) -> str:
    return f"column {column}" if names is None else str(names[column])


def _not_finite(
    what: str,
    columns: Columns,
    names: Sequence[str] | None,
    kind: type[DataError] = DataError,
    *,
    filled: bool = True,
) -> DataError:
    """The error for columns with values not finite; ``filled`` if means can replace them."""
    found = np.flatnonzero(columns.bad)
    listed = ", ".join(f"{_name(i, names)} ({int(columns.bad[i])})" for i in found[:5])
    more = f" and {len(found) - 5} more columns" if len(found) > 5 else ""
    first = int(columns.first_bad[found].min())
    # A target that is made up teaches nothing.
    fill = (Remedy.IMPUTE,) if what == "X" and filled else ()
    return kind(
        f"{what} contains NaN or infinity: {int(columns.bad.sum())} values, in {listed}{more}, the "
        f"first in row {first}",
        Remedy.DROP_ROWS,
        *fill,
    )
