"""Opening data of any format as Dask arrays of row blocks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np

from altrelu_dist.data.arrays import numbered
from altrelu_dist.data.classes import Label, Renumbered, Renumbering
from altrelu_dist.data.finding import Sources, check_choice, find_sources, other_count
from altrelu_dist.data.source import Array, Part, RowReader, check_there
from altrelu_dist.encoding.raw import RawColumns, all_numbers
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da


@dataclass(frozen=True)
class DataSet:
    """Rows to train on or to predict for, as Dask arrays with the same row chunks.

    Attributes
    ----------
    X : dask.array.Array, shape (n, d)
        Features, in one column chunk.
    y : dask.array.Array, shape (n, q), or None
        Targets, float32 or float64.
    sample_weight : dask.array.Array, shape (n,), or None
        Weights, float32 or float64.
    feature_names : tuple of str, or None
        Names of the columns of X; None where the source has none.
    target_names : tuple of str
        Names of the columns of y; y, or y0, y1, ..., where the source has none.
    source : str
        The address it was opened from.
    left_out : tuple of str
        Columns of the source that are not read: an index of pandas or Dask, and those that
        `features` does not name.
    columns : tuple of RawColumn, or None
        What the columns of X were in the source, and the levels of text; None where all are
        numbers. A text is in X as the place of its level, a time as seconds since 1970.
    ids : tuple of str
        Columns of text that are not read, since their values name the rows: nearly all differ, or
        there are more than a column of levels can have.
    classes : tuple of labels, or None
        Where the target is classes, their labels: y, (n, 1), holds their places here. Labels are
        texts, booleans or numbers.
    """

    X: da.Array
    y: da.Array | None
    sample_weight: da.Array | None
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...]
    source: str
    left_out: tuple[str, ...] = ()
    columns: RawColumns | None = None
    ids: tuple[str, ...] = ()
    classes: tuple[Label, ...] | None = None

    @property
    def n_outputs(self) -> int:
        """Outputs of a network of these targets: of two classes one, of more one each."""
        if self.classes is None:
            return len(self.target_names)
        return 1 if len(self.classes) == 2 else max(1, len(self.classes))

    def known_targets(self) -> tuple[da.Array, da.Array]:
        """The targets and the weights: where a target is NaN, zero and a weight of zero.

        Returns
        -------
        y : dask.array.Array of shape (n, q)
        sample_weight : dask.array.Array of shape (n,)
        """
        import dask.array as da

        assert self.y is not None
        lost = da.isnan(self.y).any(axis=1)
        weight = da.where(lost, 0.0, 1.0 if self.sample_weight is None else self.sample_weight)
        return da.where(lost[:, None], 0, self.y), weight


def open_dataset(
    address: str | os.PathLike[str],
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    require_target: bool = True,
    columns: RawColumns | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    only: Sequence[str] | None = None,
    missing: Literal["keep", "error"] = "keep",
    categories: Literal["learn", "error"] = "learn",
    classes: bool | Sequence[Label] | None = False,
) -> DataSet:
    """Open data as Dask arrays; rows are read when they are computed, in the worker.

    Parameters
    ----------
    address : str or path
        A .zarr store, a .parquet, .feather, .arrow, .csv, .tsv, .jsonl, .npz or .npy file, on this
        machine or at an address that fsspec knows, also in an archive (``zip://NAME::data.zip``);
        CSV, TSV and JSON also compressed (.gz, .bz2, .xz, .zst). A folder of such parts, or a glob;
        parts are put together in natural order (part-2 before part-10). Folders in it that are
        named like ``year=2020`` add a column to the tables in them.
    target : str or sequence of str, optional
        Target columns of a table; the target array of an .npz or Zarr group (default ``y``); the
        file with the targets for an .npy (default: the same name with y in place of X).
    weight : str, optional
        Column, array or file of sample weights; arrays named ``sample_weight`` need no naming.
    features : sequence of str, optional
        The features, in the order that X is to have them; other columns are not read, and may hold
        anything. By default all columns but the target, the weight and an index. Columns without
        names are taken as they are, where there are as many.
    require_target : bool
        Whether data without a target is refused.
    columns : tuple of RawColumn, optional
        What the features are, as a network or another `DataSet` knows them. By default the levels
        of text are counted, in one pass over these columns; columns whose texts name the rows are
        left out (`ids`).
    categorical : sequence of str
        Columns of which each number, or each text, is a level, however many there are.
    drop : sequence of str
        Columns that are no features.
    only : sequence of str, optional
        The only columns that are features.
    missing : "keep" or "error"
        Whether missing features are NaN, or refused where rows are read.
    categories : "learn" or "error"
        Whether text is taken as levels, or refused.
    classes : bool or sequence of labels, optional
        Whether the target is classes: by default it is numbers, and text is refused. True takes
        texts, booleans and whole numbers as classes; None texts and booleans, and what was
        converted so, as the commands do. Or the labels themselves, as a network knows them; further
        ones follow them in `DataSet.classes`.

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        The data is missing, empty, damaged, of another format than its name says, lacks a column
        or array, or holds something that cannot be learnt from.
    ParameterError
        A parameter has no such value.
    """
    check_choice("missing", missing, ("keep", "error"))
    found = find_sources(
        address,
        target=target,
        weight=weight,
        features=features,
        require_target=require_target,
        columns=columns,
        categorical=categorical,
        drop=drop,
        only=only,
        categories=categories,
        classes=classes,
    )
    data = dataset_of(found, address, features)
    if missing == "keep":
        return data
    names = data.feature_names or numbered("x", data.X.shape[1])
    return replace(data, X=_all_there(data.X, data.source, names))


def column_names(address: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Names of all columns at an address, but a store's targets and weight; None without names."""
    first = find_sources(address, features=()).sources[0]
    return (*first.feature_names, *first.unread) if first.named else None


def dataset_of(
    found: Sources, address: str | os.PathLike[str], features: Sequence[str] | None = None
) -> DataSet:
    """Put opened sources with the same columns together."""
    import dask.array as da

    sources = found.sources
    parts = [
        part if renumbering is None else part._replace(y=_renumbered(part, renumbering))
        for source, renumbering in zip(sources, found.renumberings, strict=True)
        for part in source.parts()
        if part.X.shape[0]
    ]
    if not parts:
        raise DataError(f"{address}: has no rows")
    arrays: list[da.Array | None] = []
    for role in ("X", "y", "weight"):
        readers = [getattr(part, role) for part in parts]
        if readers[0] is None:
            arrays.append(None)
            continue
        dtype = np.result_type(*(reader.dtype for reader in readers))
        blocks = [
            _dask_array(reader, part.chunks, role).astype(dtype)
            for reader, part in zip(readers, parts, strict=True)
        ]
        arrays.append(da.concatenate(blocks) if len(blocks) > 1 else blocks[0])
    X, y, weights = arrays
    assert X is not None
    text, first = os.fspath(address), sources[0]
    names, left_out, columns = first.feature_names, first.unread, first.columns
    features = features if found.selected is None else found.selected
    if features is not None and not first.named and len(features) != len(names):
        raise other_count(text, names, features)
    if features is not None and first.named and names != tuple(features):  # an array has them all
        check_there(text, features, names)
        places = [names.index(name) for name in features]
        X = X[:, places]
        asked = {*features, *(names if found.selected is not None else ())}
        left_out = tuple(name for name in names if name not in asked)
        names = tuple(features)
        columns = None if columns is None else tuple(columns[i] for i in places)
    return DataSet(
        X,
        y,
        weights,
        names if first.named else None,
        first.target_names,
        text,
        left_out,
        None if all_numbers(columns) else columns,
        found.ids,
        found.labels,
    )


def _renumbered(part: Part, renumbering: Renumbering) -> Renumbered:
    assert part.y is not None
    return Renumbered(part.y.address, part.y.shape, renumbering.dtype, part.y, renumbering)


def _all_there(X: da.Array, address: str, names: Sequence[str]) -> da.Array:
    """The same rows, refused where a value is missing."""

    def checked(block: Array, block_info: Any = None) -> Array:
        if (missing := np.isnan(block)).any():
            row, column = np.argwhere(missing)[0]
            start = block_info[0]["array-location"][0][0] if block_info else 0
            raise DataError(
                f"{address}: column {names[column]} has no value in row {start + row}; expected "
                "one in every row"
            )
        return block

    return X.map_blocks(checked, dtype=X.dtype, meta=X._meta) if X.dtype.kind == "f" else X


def _dask_array(reader: RowReader, chunks: tuple[int, ...], role: str) -> da.Array:
    import dask.array as da

    array: da.Array = da.from_array(
        reader,
        chunks=(chunks, *((n,) for n in reader.shape[1:])),
        name=f"read-{role}-{uuid4().hex}",
        asarray=True,
        fancy=False,
        meta=np.empty((0,) * reader.ndim, reader.dtype),
        inline_array=True,
    )
    return array
