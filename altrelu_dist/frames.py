"""Whatever holds columns (pandas, Arrow, polars, xarray, masked arrays) as arrays with names."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.encoding.raw import RawColumn, RawColumns
from altrelu_dist.errors import DataError
from altrelu_dist.tables import (
    NUMBER_OBJECTS,
    Taking,
    arrow_column,
    common,
    not_numbers,
    pandas_column,
    pandas_number,
    pandas_values,
)

__all__ = [
    "Given",
    "dask_dtype",
    "given",
    "given_again",
    "is_dask_frame",
    "not_numbers",
    "real_numbers",
    "unmasked",
]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")


class Given(NamedTuple):
    """Data as a user handed it over, without its container."""

    values: Any  # an array, what NumPy makes one of, a Dask collection or a Zarr array
    names: list[Any] | None = None  # of its columns, where the container has such
    columns: RawColumns | None = None  # what they were; None where all were numbers
    ids: tuple[str, ...] = ()  # columns of text that are left out, since they name the rows

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The names as texts; None without names, and for a nameless Series."""
        if self.names is None or any(name is None for name in self.names):
            return None
        return tuple(str(name) for name in self.names)


def given(
    data: Any,
    what: str,
    columns: RawColumns | None = None,
    categorical: Sequence[str] = (),
    *,
    features: Sequence[str] | None = None,
    categories: Literal["learn", "error"] = "learn",
    numbers: bool = False,
) -> Given:
    """Take data out of its container: in memory as numbers, missing and masked values as NaN.

    Of the X of a table, texts become the places of their levels, and times seconds since 1970. What
    is no table must be numbers, and so must targets and weights.

    Parameters
    ----------
    data : object
        A pandas, polars or Arrow table or column, whatever else exports Arrow data, an xarray
        object, a NumPy array or what can become one. What is lazy stays lazy.
    what : str
        Its name in messages: ``"X"``, ``"y"`` or ``"sample_weight"``.
    columns : tuple of RawColumn, optional
        What the columns of a table are, as it was learnt from another. By default it is learnt, of
        a Dask DataFrame in a pass over its columns of text.
    categorical : sequence of str
        Columns of which each number is a level.
    features : sequence of str, optional
        The names that go with `columns`, which else are by position; where some are texts, further
        columns of text are left out. Without `columns` all are numbers.
    categories : {"learn", "error"}
        Whether columns of text are taken, or refused.
    numbers : bool
        Whether all that is not numbers is refused; with `features`, they were numbers in the fit.

    Raises
    ------
    DataError
        If it is sparse, has names twice, or columns that cannot be taken: these are named.
    """
    taking = None
    if features is not None and columns is None:
        columns = (RawColumn(),) * len(features)
    if what == "X" and (columns is not None or not numbers):
        names = None if features is None else tuple(features)
        taking = Taking(columns, names, tuple(categorical), text=categories == "learn")
    if _is_a(data, "xarray", "DataArray"):
        data = _decoded(data, what)
    if _is_a(data, "xarray", "Dataset"):
        return _of_dataset(data, what)
    if hasattr(data, "__dask_graph__"):
        if not hasattr(data, "ndim"):
            raise DataError(
                f"{what} is a {type(data).__module__}.{type(data).__name__}; expected an array or "
                f"a table, in memory, of Dask or of Zarr"
            )
        return _of_dask(data, what, taking) if is_dask_frame(data) else Given(data)
    if _is_a(data, "pandas", "DataFrame") or _is_a(data, "pandas", "Series"):
        return _of_pandas(data, what, taking)
    if _is_a(data, "polars", "LazyFrame"):
        data = data.collect()
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return _of_arrow(data, what, taking)
    if hasattr(data, "toarray") or hasattr(data, "todense"):
        raise _sparse(data, what)
    if isinstance(data, np.ma.MaskedArray):
        data = unmasked(data)
    if isinstance(data, np.ndarray) and data.dtype.kind in "mMSUV":
        raise not_numbers(what, {None: data.dtype})
    return Given(data)


def given_again(
    data: Any, what: str, columns: RawColumns | None, feature_names: Sequence[str] | None
) -> Given:
    """As `given`, of data whose columns are known.

    Raises
    ------
    DataError
        As `given`, or if a table has other columns, or has them in another order.
    """
    taken = given(data, what, columns, features=feature_names, numbers=columns is None)
    if None not in (taken.texts, feature_names) and taken.texts != tuple(feature_names or ()):
        raise DataError(
            f"{what} has the columns {', '.join(taken.texts or ())}; the network takes "
            f"{', '.join(feature_names or ())}, in this order"
        )
    return taken


def is_dask_frame(data: Any) -> bool:
    """Whether it is a Dask DataFrame or Series."""
    return hasattr(data, "to_dask_array") and hasattr(data, "map_partitions")


def real_numbers(data: Any, what: str) -> Any:
    """An array of real numbers that every machine has, from a NumPy or a Dask one.

    Raises
    ------
    DataError
        If it holds anything else.
    """
    if data.dtype.kind not in "biuf":
        raise not_numbers(what, {None: data.dtype})
    if data.dtype.kind == "f" and data.dtype.itemsize > _FLOAT64.itemsize:
        with np.errstate(over="ignore"):  # an infinity is found, and named
            return data.astype(_FLOAT64)
    return data


def unmasked(data: Any) -> NDArray[Any]:
    """A masked array as a plain one: what is masked is NaN."""
    if data.dtype.kind in "biu":
        data = data.astype(_FLOAT64)
    return np.ma.filled(data, np.nan) if data.dtype.kind in "fO" else np.ma.getdata(data)


def dask_dtype(data: Any, what: str) -> np.dtype[Any]:
    """The dtype that a Dask DataFrame or Series of numbers has as an array."""
    dtypes = data.dtypes if data.ndim == 2 else [data.dtype]
    return common([pandas_number(dtype) or _FLOAT64 for dtype in dtypes], what)


def _is_a(data: Any, package: str, name: str) -> bool:
    """Whether data is of a class of a package, which need not be there."""
    module = sys.modules.get(package)
    return module is not None and isinstance(data, getattr(module, name))


def _distinct(names: Sequence[Any], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and isinstance(name, str)]
    if twice:
        more = f" and {len(twice) - 1} more names" if len(twice) > 1 else ""
        raise DataError(f"{what} has two columns named {twice[0]!r}{more}; rename or drop one")


def _sparse(data: Any, what: str) -> DataError:
    dense = "toarray" if hasattr(data, "toarray") else "todense"
    size = int(np.prod(data.shape)) * _FLOAT64.itemsize
    return DataError(
        f"{what} is sparse ({type(data).__name__} of shape {tuple(data.shape)}), dense numbers are "
        f"needed; use sparse_output=False in OneHotEncoder and the like, sparse_threshold=0 in "
        f"ColumnTransformer, or .{dense}(), which takes {size / 2**20:,.1f} MiB"
    )


def _decoded(data: Any, what: str) -> Any:
    """The array of an xarray DataArray, unless its numbers stand for others."""
    # What xarray has decoded is no longer in the attributes.
    if packed := [name for name in _PACKING if name in data.attrs]:
        raise DataError(
            f"{what} was opened without decoding: it has the attribute {packed[0]}; open it with "
            f"mask_and_scale=True, or use xarray.decode_cf"
        )
    return data.data


def _of_dataset(data: Any, what: str) -> Given:
    """Variables of an xarray Dataset as columns."""
    variables = {name: _decoded(v, f"{what}, {name}") for name, v in data.data_vars.items()}
    dims = {name: variable.dims for name, variable in data.data_vars.items()}
    first = next(iter(dims.values()), ())
    for name, found in dims.items():
        if len(found) != 1 or found != first:
            raise DataError(
                f"{what} is an xarray Dataset of which variable {name} has the dimensions {found}; "
                f"expected variables over one dimension, the rows, in common: stack the others, "
                f"or give a DataArray of two dimensions"
            )
    bad = {n: v.dtype for n, v in variables.items() if v.dtype.kind not in "biufc"}
    if bad:
        raise not_numbers(what, bad)
    common([v.dtype for v in variables.values()], what)
    # NumPy hands on to Dask where a variable is lazy.
    columns = [unmasked(v) if isinstance(v, np.ma.MaskedArray) else v for v in variables.values()]
    return Given(np.stack(columns, axis=1), list(variables))


def _of_pandas(data: Any, what: str, taking: Taking | None) -> Given:
    names = [data.name] if data.ndim == 1 else list(data.columns)
    columns = [data] if data.ndim == 1 else [data.iloc[:, i] for i in range(len(names))]
    _distinct(names, what)
    dtypes = [pandas_number(column.dtype) for column in columns]
    plain = all(dtype is not None for dtype in dtypes)
    if data.ndim == 2 and taking is not None and not (taking.plain and plain):
        pairs = zip(names, columns, strict=True)
        taken = taking.take([pandas_column(n, c) for n, c in pairs], len(data), what)
        return Given(*taken)
    _check_numbers(data, names, what)
    return Given(pandas_values(data, common([d or _FLOAT64 for d in dtypes], what)), names)


def _of_dask(data: Any, what: str, taking: Taking | None) -> Given:
    """A Dask DataFrame or Series; what is no number in it is one when it is computed."""
    names = [data.name] if data.ndim == 1 else list(data.columns)
    _distinct(names, what)
    dtypes = [data.dtype] if data.ndim == 1 else list(data.dtypes)
    plain = all(pandas_number(dtype) is not None for dtype in dtypes)
    if data.ndim == 2 and taking is not None and not (taking.plain and plain):
        from altrelu_dist.dask_frames import take

        return Given(*take(data, what, taking))
    _check_numbers(data, names, what)
    return Given(data, names)


def _check_numbers(data: Any, names: Sequence[Any], what: str) -> None:
    """Refuse columns of a pandas or Dask DataFrame or Series that are no numbers."""
    dtypes = [data.dtype] if data.ndim == 1 else list(data.dtypes)
    bad = {}
    for i, (name, dtype) in enumerate(zip(names, dtypes, strict=True)):
        if pandas_number(dtype) is not None:
            continue
        kind = str(dtype)
        if str(dtype) == "object" and not hasattr(data, "__dask_graph__"):
            from pandas.api.types import infer_dtype

            kind = infer_dtype(data if data.ndim == 1 else data.iloc[:, i], skipna=True)
            if kind in NUMBER_OBJECTS:
                continue
            kind = f"object: {kind}"
        bad[what if name is None else name] = kind
    if bad:
        raise not_numbers(what, bad)


def _of_arrow(data: Any, what: str, taking: Taking | None) -> Given:
    """A table, or a single column, that exports itself as Arrow data."""
    import pyarrow as pa

    table = pa.chunked_array(data)
    flat = not pa.types.is_struct(table.type)
    if flat:
        table = pa.table([table], names=[getattr(data, "name", None) or ""])
    else:
        table = pa.Table.from_struct_array(table)
    names = table.column_names
    _distinct(names, what)
    columns = [arrow_column(*pair) for pair in zip(names, table.columns, strict=True)]
    bad = {c.name or what: c.found.words for c in columns if not c.found.is_plain}
    if not flat and taking is not None and not (taking.plain and not bad):
        taken = taking.take(columns, table.num_rows, what)
        return Given(*taken)
    if bad:
        raise not_numbers(what, bad)
    of_all = common([column.found.dtype for column in columns], what)
    values = np.empty((table.num_rows, len(names)), _FLOAT32 if of_all == _FLOAT32 else _FLOAT64)
    for j, column in enumerate(columns):  # missing values become NaN
        values[:, j] = column.numbers(values.dtype)
    if flat:
        return Given(values[:, 0], [names[0] or None])
    return Given(values, names)
