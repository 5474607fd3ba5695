"""Labels of classes, of any type and in any container, as the numbers of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from altrelu_dist.data.source import listed
from altrelu_dist.errors import DataError
from altrelu_dist.frames import is_dask_frame
from altrelu_dist.inputs import is_lazy, lazy_array
from altrelu_dist.moments.rows import Additive, Floats, Rows

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = [
    "ClassSums", "Indicators", "SumClasses", "check_known", "class_numbers", "column_name",
    "known_classes", "labels_of",
]  # fmt: skip

_UNKNOWN = -1.0  # the number of a label that is none of the classes


def labels_of(y: Any) -> Any:
    """Labels out of their container, (n,): an array in memory, or what is lazy.

    Raises
    ------
    DataError
        If there are none, or several columns of them.
    """
    if y is None:
        raise DataError("fit requires y to be passed, but the target y is None")
    if not is_lazy(y):
        masked = isinstance(y, np.ma.MaskedArray)
        values = np.ma.filled(y.astype(object), None) if masked else np.asarray(y)
        if values.dtype.kind == "c":
            raise DataError("y holds complex numbers; expected labels of classes")
        column: NDArray[Any] = column_or_1d(values, warn=True)
        return column
    if is_dask_frame(y):
        if y.ndim == 2 and len(y.columns) != 1:
            raise DataError(f"y has {len(y.columns)} columns; expected one, of labels")
        return y if y.ndim == 1 else y[y.columns[0]]
    import dask.array as da

    array = y if isinstance(y, da.Array) else lazy_array(y, "y")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"y has the shape {array.shape}; expected (n_samples,)")
    return array


def column_name(y: Any) -> str | None:
    """The name of a column of labels, where it has one: of a table, not of an array."""
    columns = getattr(y, "columns", None)
    if columns is not None and len(columns) == 1:
        return str(next(iter(columns)))
    name = getattr(y, "name", None)
    own = is_dask_frame(y) or not is_lazy(y)  # an array of Dask has one that means nothing
    return name if own and isinstance(name, str) and name else None


def known_classes(labels: Any) -> NDArray[Any]:
    """The different labels, sorted; of lazy ones by a pass over them.

    Raises
    ------
    ValueError
        If the labels are numbers of a continuous target, or of types that cannot be compared.
    DataError
        If there are fewer than two.
    """
    if is_lazy(labels):
        import dask

        blocks = np.ravel(np.asarray(labels.to_delayed(), dtype=object))
        parts = dask.compute(*[dask.delayed(_distinct)(block) for block in blocks])
        found = np.concatenate([part for part in parts if len(part)] or [np.empty(0)])
    else:
        found = labels
    present = _distinct(found)
    try:
        classes = np.unique(present)
    except TypeError as error:
        raise DataError(
            "y has labels of several types, which have no order; make all of them texts"
        ) from error
    if classes.dtype.kind == "f" and np.isinf(classes).any():
        raise DataError("y contains infinity; expected labels of classes")
    check_classification_targets(classes)
    if len(classes) < 2:
        what = f"{classes.tolist()[0]!r} alone" if len(classes) else "no label at all"
        raise DataError(f"y has one class: {what}; expected two classes or more")
    return classes


def class_numbers(labels: Any, classes: NDArray[Any]) -> Any:
    """The number of each label among the classes: -1 where it is none of them, NaN where missing.

    Lazy for lazy labels.
    """
    if not is_lazy(labels):
        return _numbers(labels, classes)
    if is_dask_frame(labels):
        return labels.map_partitions(_numbers_of_series, classes, meta=(labels.name, np.float64))
    return labels.map_blocks(_numbers, classes, dtype=np.float64, meta=np.empty(0))


def check_known(labels: Any, numbers: Any, classes: NDArray[Any]) -> None:
    """Refuse labels in memory that are none of the classes; lazy ones `Indicators` refuses.

    Raises
    ------
    DataError
    """
    if is_lazy(numbers):
        return
    if (other := np.flatnonzero(numbers == _UNKNOWN)).size:
        label = np.asarray(labels)[other[0]]
        raise DataError(
            f"y has the label {str(label)!r} in row {other[0]}; expected classes of the fit: "
            f"{listed([str(one) for one in classes])}"
        )


def _distinct(labels: Any) -> NDArray[Any]:
    """The different labels that are not missing."""
    import pandas as pd

    return np.asarray(pd.factorize(np.asarray(labels))[1])


def _numbers(labels: Any, classes: NDArray[Any]) -> Floats:
    import pandas as pd

    codes, distinct = pd.factorize(np.asarray(labels))
    places: dict[Hashable, int] = {label: k for k, label in enumerate(classes.tolist())}
    numbers = [places.get(label, _UNKNOWN) for label in np.asarray(distinct).tolist()]
    return np.array([*numbers, np.nan])[codes]  # the code of what is missing is -1: the last one


def _numbers_of_series(labels: Any, classes: NDArray[Any]) -> Any:
    import pandas as pd

    return pd.Series(_numbers(labels, classes), index=labels.index, name=labels.name)


@dataclass(frozen=True)
class Indicators:
    """Rows with the numbers of classes as rows with an indicator of each; of two the second's.

    Parameters
    ----------
    n_classes : int
    factors : ndarray of shape (n_classes,), optional
        Of the weights of the rows of each class.
    """

    n_classes: int
    factors: Floats | None = None

    def __call__(self, rows: Rows) -> Rows:
        """Prepare some rows."""
        number = rows.y[:, 0].astype(np.float64)
        if (number == _UNKNOWN).any():
            raise DataError("y has a label that is none of the classes of the fit")
        lost = np.isnan(number)
        y = number[:, None]
        if self.n_classes > 2:
            y = np.where(lost[:, None], np.nan, y == np.arange(self.n_classes))
        weight = rows.weight
        if self.factors is not None:
            own = np.ones(len(number)) if weight is None else weight.astype(np.float64)
            weight = own * self.factors[np.where(lost, 0, number).astype(np.intp)]
        return rows._replace(y=y.astype(np.float32), weight=weight)


@dataclass(frozen=True)
class ClassSums(Additive):
    """Sum of the weights of each class, (n_classes,)."""

    weight: Floats


@dataclass(frozen=True)
class SumClasses:
    """Contribute rows with the numbers of classes."""

    n_classes: int

    def __call__(self, rows: Rows) -> ClassSums:
        """Of some rows; missing labels do not count."""
        number = rows.y[:, 0].astype(np.float64)
        weight = rows.weights
        known = ~np.isnan(number)
        codes = number[known].astype(np.intp)
        sums = np.bincount(codes, weight[known], self.n_classes)
        return ClassSums(sums.astype(np.float64))
