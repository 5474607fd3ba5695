"""Whatever holds columns (pandas, Arrow, polars, xarray, masked arrays) as arrays with names."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.errors import DataError

__all__ = [
    "Given",
    "dask_dtype",
    "given",
    "is_dask_frame",
    "not_numbers",
    "pandas_values",
    "real_numbers",
    "unmasked",
]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")
_LISTED = 5  # columns that a message names
# What pandas says of objects that are all numbers, or missing.
_NUMBER_OBJECTS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")


class Given(NamedTuple):
    """Data as a user handed it over, without its container."""

    values: Any  # an array, what NumPy makes one of, a Dask collection or a Zarr array
    names: list[Any] | None = None  # of its columns, where the container has such

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The names as texts; None without names, and for a nameless Series."""
        if self.names is None or any(name is None for name in self.names):
            return None
        return tuple(str(name) for name in self.names)


def given(data: Any, what: str) -> Given:
    """Take data out of its container: in memory as numbers, missing and masked values as NaN.

    Parameters
    ----------
    data : object
        A pandas, polars or Arrow table or column, whatever else exports Arrow data, an xarray
        object, a NumPy array or what can become one. What is lazy stays lazy.
    what : str
        Its name in messages.

    Raises
    ------
    DataError
        If it is sparse, has names twice, or columns that are not numbers: these are named.
    """
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
        return Given(data, _columns_of_pandas(data, what) if is_dask_frame(data) else None)
    if _is_a(data, "pandas", "DataFrame") or _is_a(data, "pandas", "Series"):
        return _of_pandas(data, what)
    if _is_a(data, "polars", "LazyFrame"):
        data = data.collect()
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return _of_arrow(data, what)
    if hasattr(data, "toarray") or hasattr(data, "todense"):
        raise _sparse(data, what)
    if isinstance(data, np.ma.MaskedArray):
        data = unmasked(data)
    if isinstance(data, np.ndarray) and data.dtype.kind in "mMSUV":
        raise not_numbers(what, {None: data.dtype})
    return Given(data)


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
    return _common([_pandas_number(dtype) or _FLOAT64 for dtype in dtypes], what)


def pandas_values(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A pandas DataFrame or Series of numbers as an array, missing values as NaN."""
    values: NDArray[Any] = (
        data.to_numpy(dtype=dtype, na_value=np.nan)
        if dtype.kind == "f"
        else data.to_numpy(dtype=dtype)
    )
    return values


def not_numbers(what: str, found: Mapping[Any, Any]) -> DataError:
    """The error for columns, or for a whole array (its name None), of something else."""
    kinds = [str(kind) for kind in found.values()]
    cures = []
    if any(word in kind for kind in kinds for word in ("date", "time", "period", "duration")):
        cures.append("take numbers from dates and times, such as .dt.year or .dt.dayofyear")
    if not cures or len(kinds) > 1:
        cures.append(
            "encode text and categories as numbers, for example with "
            "sklearn.preprocessing.OneHotEncoder(sparse_output=False)"
        )
    cure = ", ".join(cures)
    if None in found:
        return DataError(f"{what} holds {kinds[0]}, not numbers; {cure}")
    listed = ", ".join(f"{name} ({kind})" for name, kind in list(found.items())[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    them = "them" if len(found) > 1 else "it"
    columns = "columns that are" if len(found) > 1 else "a column that is"
    return DataError(f"{what} has {columns} not numbers: {listed}{more}; {cure}, or drop {them}")


def _is_a(data: Any, package: str, name: str) -> bool:
    """Whether data is of a class of a package, which need not be there."""
    module = sys.modules.get(package)
    return module is not None and isinstance(data, getattr(module, name))


def _distinct(names: Sequence[Any], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and isinstance(name, str)]
    if twice:
        more = f" and {len(twice) - 1} more names" if len(twice) > 1 else ""
        raise DataError(f"{what} has two columns named {twice[0]!r}{more}; rename or drop one")


def _common(dtypes: Sequence[np.dtype[Any]], what: str) -> np.dtype[Any]:
    if not dtypes:
        raise DataError(
            f"Found array with 0 feature(s): {what} has no columns, expected one at least"
        )
    common = np.result_type(*dtypes)
    return _FLOAT64 if common.itemsize > _FLOAT64.itemsize else common


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
    _common([v.dtype for v in variables.values()], what)
    # NumPy hands on to Dask where a variable is lazy.
    columns = [unmasked(v) if isinstance(v, np.ma.MaskedArray) else v for v in variables.values()]
    return Given(np.stack(columns, axis=1), list(variables))


def _of_pandas(data: Any, what: str) -> Given:
    names = _columns_of_pandas(data, what)
    columns = [data] if data.ndim == 1 else [data.iloc[:, i] for i in range(len(names))]
    dtypes = [_pandas_number(c.dtype) or _FLOAT64 for c in columns]
    return Given(pandas_values(data, _common(dtypes, what)), names)


def _columns_of_pandas(data: Any, what: str) -> list[Any]:
    """Names of the columns of a pandas or Dask DataFrame or Series, which must be numbers."""
    names = [data.name] if data.ndim == 1 else list(data.columns)
    _distinct(names, what)
    dtypes = [data.dtype] if data.ndim == 1 else list(data.dtypes)
    bad = {}
    for i, (name, dtype) in enumerate(zip(names, dtypes, strict=True)):
        if _pandas_number(dtype) is not None:
            continue
        kind = str(dtype)
        if str(dtype) == "object" and not hasattr(data, "__dask_graph__"):
            from pandas.api.types import infer_dtype

            kind = infer_dtype(data if data.ndim == 1 else data.iloc[:, i], skipna=True)
            if kind in _NUMBER_OBJECTS:
                continue
            kind = f"object: {kind}"
        bad[what if name is None else name] = kind
    if bad:
        raise not_numbers(what, bad)
    return names


def _pandas_number(dtype: Any) -> np.dtype[Any] | None:
    """The dtype of a pandas column of numbers as an array; None if it is of something else."""
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories  # None where Dask does not know them
        known = categories is not None and _pandas_number(categories.dtype) is not None
        return _FLOAT64 if known else None
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    if isinstance(dtype, np.dtype):
        return dtype if dtype.kind in "biuf" else None
    types = pd.api.types
    return _FLOAT64 if types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype) else None


def _of_arrow(data: Any, what: str) -> Given:
    """A table, or a single column, that exports itself as Arrow data."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from altrelu_dist.data.tables import arrow_kind

    table = pa.chunked_array(data)
    flat = not pa.types.is_struct(table.type)
    if flat:
        table = pa.table([table], names=[getattr(data, "name", None) or ""])
    else:
        table = pa.Table.from_struct_array(table)
    names = table.column_names
    _distinct(names, what)
    kinds = {name: arrow_kind(table.schema.field(name).type) for name in names}
    bad = {name or what: kind for name, kind in kinds.items() if isinstance(kind, str)}
    if bad:
        raise not_numbers(what, bad)
    common = _common([kind for kind in kinds.values() if not isinstance(kind, str)], what)
    dtype = _FLOAT32 if common == _FLOAT32 else _FLOAT64
    values = np.empty((table.num_rows, len(names)), dtype)
    for j, column in enumerate(table.columns):  # missing values become NaN
        values[:, j] = pc.cast(column, pa.from_numpy_dtype(dtype), safe=False).to_numpy()
    if flat:
        return Given(values[:, 0], [names[0] or None])
    return Given(values, names)
