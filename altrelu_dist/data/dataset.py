"""Opening data of any format as Dask arrays of row blocks."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, cast
from urllib.parse import unquote
from uuid import uuid4

import numpy as np

from altrelu_dist.data.arrays import numbered
from altrelu_dist.data.arrow_files import ArrowSource
from altrelu_dist.data.classes import (
    Classes,
    Label,
    Renumbered,
    Renumbering,
    classes_in,
    numeric,
    with_classes,
)
from altrelu_dist.data.columns import LevelCounts
from altrelu_dist.data.csv_files import open_csv
from altrelu_dist.data.json_files import open_json
from altrelu_dist.data.learning import count_levels, learn_columns
from altrelu_dist.data.lines import UNPACKERS
from altrelu_dist.data.numpy_files import NumpySource, npy_partner
from altrelu_dist.data.parquet_files import ParquetSource
from altrelu_dist.data.source import (
    Array,
    Part,
    RowReader,
    Source,
    Wanted,
    check_there,
    file_name,
    files_at,
    listed,
    reading,
)
from altrelu_dist.data.tables import TableSource
from altrelu_dist.data.zarr_store import STORE_MARKS, ZarrSource
from altrelu_dist.encoding.raw import RawColumn, RawColumns, all_numbers
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.links import absolute, with_path
from altrelu_dist.outputs import recovered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da

_LINES: dict[str, Callable[[str, Wanted], Source]] = {
    ".csv": open_csv,
    ".tsv": open_csv,
    ".jsonl": open_json,
    ".ndjson": open_json,
}
_TABLES = {
    ".parquet": ParquetSource.open,
    ".pq": ParquetSource.open,
    ".feather": ArrowSource.open,
    ".arrow": ArrowSource.open,
    ".ipc": ArrowSource.open,
    **{f"{name}{packed}": open for name, open in _LINES.items() for packed in ("", *UNPACKERS)},
}
_OPENERS: dict[str, Callable[[str, Wanted], Source]] = {
    ".zarr": ZarrSource.open,
    ".npz": NumpySource.open_npz,
    ".npy": NumpySource.open_npy,
    **_TABLES,
}
_READABLE = (
    f".zarr, .parquet, .feather, .npz, .npy, and .csv, .tsv and .jsonl, also as "
    f"{', '.join(UNPACKERS)}"
)
_INSTEAD = {
    (".zip",): "name the file in it, zip://NAME::{address}",
    (
        ".tar",
        ".tar.gz",
        ".tgz",
        ".tar.bz2",
        ".tar.xz",
    ): "name the file in it, tar://NAME::{address}",
    (".xlsx", ".xls", ".xlsb", ".ods"): "save the sheet as .csv",
    (".json",): "write one object a line, as .jsonl",
    (".txt", ".dat", ".data"): "name it .csv or .tsv if it is one",
    (".pkl", ".pickle", ".joblib", ".pt"): "a pickle may run code; write .parquet or .npz",
    (".nc", ".nc4", ".h5", ".hdf5"): "write .zarr, as xarray's to_zarr does, or .npz",
    tuple(UNPACKERS): "say in the name what is in it, as in NAME.csv.gz",
}
_DEEPEST = 16  # folders in folders
_EMPTY_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # of Hive, Spark and Arrow for a missing value


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
        raise _other_count(text, names, features)
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


def _other_count(address: str, names: Sequence[str], features: Sequence[str]) -> DataError:
    return DataError(
        f"{address}: has {len(names)} columns without names; expected {len(features)}: "
        f"{listed(features)}"
    )


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
    wanted = Wanted(
        targets,
        weight,
        require_target,
        inputs,
        drop=tuple(drop),
        only=None if only is None else tuple(only),
        categorical=tuple(categorical),
        text_allowed=categories == "learn" or columns is not None,
        known=columns is not None,
    )
    known = None if classes is None or isinstance(classes, bool) else tuple(classes)
    if classes and len(targets) > 1:
        raise ParameterError(f"is for one target; found {listed(targets)}", parameter="classes")
    wanted = replace(wanted, classes=known is not None or cast("bool | None", classes))
    text = os.fspath(address)
    try:
        sources = _opened(text, wanted)
    except DataError:
        other = recovered(text)
        if other is None:
            raise
        sources = _opened(other, wanted)
    first = sources[0]
    for source in sources[1:]:
        for role, mine, others in (
            ("features", source.feature_names, first.feature_names),
            ("targets", source.target_names, first.target_names),
        ):
            if mine != others:
                differ = sorted(set(mine) ^ set(others)) or ["their order"]
                raise DataError(
                    f"{source.address}: other {role} than {first.address}: {listed(differ)}"
                )
        if (source.dtypes[2] is None) != (first.dtypes[2] is None):
            raise DataError(f"{source.address}: weights in it or in {first.address}, not in both")
    selected = _selected(text, first, wanted)
    sources, counted = _of_classes(sources, known)
    first = sources[0]
    if columns is not None:
        names = first.feature_names if inputs is None or not first.named else inputs
        if inputs is not None and len(inputs) != len(names):
            raise _other_count(text, names, inputs)
        if len(names) != len(columns):
            raise DataError(f"{text}: has {len(names)} feature columns; expected {len(columns)}")
        by_name = dict(zip(names, columns, strict=True))
        found = Sources([source.with_columns(by_name) for source in sources], (), selected)
        for table in sources:
            if counted is not None and isinstance(table, TableSource):
                count_levels(table, {table.target_names[0]: counted})
    elif (learnt := learn_columns(sources, categorical, text, counted)) is None:
        found = Sources(sources, (), selected)
    else:
        learnt_columns, ids = learnt
        found = Sources([one.with_columns(learnt_columns) for one in sources], ids, selected)
    made = classes_in(found.sources, counted, wanted.classes if known is None else known, text)
    if made is None:
        return found
    return found._replace(sources=[with_classes(one, made) for one in found.sources], classes=made)


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


def check_choice(parameter: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of some."""
    if value not in choices:
        expected = " or ".join(map(repr, choices))
        raise ParameterError(f"is {value!r}; expected {expected}", parameter=parameter)


def _opened(address: str, wanted: Wanted) -> list[Source]:
    with reading(address):
        places = _parts_at(address)
    return [
        _OPENERS[place.format](place.address, replace(wanted, partition=place.partition))
        for place in places
    ]


class _Place(NamedTuple):
    """A file or store, its format, and the columns that the folders above it stand for."""

    format: str
    address: str
    partition: tuple[tuple[str, float | str], ...]


def _parts_at(address: str) -> list[_Place]:
    """All files and stores at an address, in natural order."""
    fs, path = files_at(address)
    base = None  # the folder below which others are named for columns
    if fs.isdir(path) and not _is_store(fs, path):
        base, found = path, _inside(fs, path)
        if all(_format(p) == ".npy" for p in found):
            found = [p for p in found if npy_partner(with_path(address, p))]
        if not found:
            raise DataError(f"{address}: nothing in this folder can be read ({_READABLE})")
    elif fs.exists(path):
        found = [path]
    else:
        base = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
        found = []
        for p in fs.glob(path):
            if _name(p)[:1] != ".":
                found += _inside(fs, p) if fs.isdir(p) and not _is_store(fs, p) else [p]
        if not found:
            raise DataError(f"{address}: no such file or folder")
    formats = {p: _format(p) or (".zarr" if _is_store(fs, p) else "") for p in found}
    for p, kind in formats.items():
        if not kind:
            raise DataError(_not_read(with_path(address, p)))
        if fs.isfile(p) and fs.size(p) == 0:
            raise DataError(f"{with_path(address, p)}: is empty (0 bytes)")
    if len({_OPENERS[kind] for kind in formats.values()}) > 1:
        kinds = sorted({*formats.values()})
        raise DataError(f"{address}: several formats: {listed(kinds)}; name one by a glob")
    partitions = {} if base is None else _partitions(base, found)
    for p, keys in partitions.items():
        if keys and formats[p] not in _TABLES:
            raise DataError(
                f"{with_path(address, p)}: its folders are named for columns ({listed([*keys])}), "
                f"which an array cannot have: name the folder with the files"
            )
    return [
        _Place(formats[p], _address(address, fs, p), tuple(partitions.get(p, {}).items()))
        for p in sorted(found, key=_natural)
    ]


def _inside(fs: Any, folder: str, depth: int = 0) -> list[str]:
    """Files and stores that can be read in a folder, and in those that are named for columns."""
    found = []
    for entry in fs.ls(folder, detail=True):
        path = entry["name"].rstrip("/")
        if _name(path)[:1] in ("", ".", "_"):
            continue
        if entry["type"] == "directory" or (entry["type"] != "file" and fs.isdir(path)):
            if _is_store(fs, path):
                found.append(path)
            elif ("=" in _name(path) or _format(path)) and depth < _DEEPEST:
                found += _inside(fs, path, depth + 1)
        elif _format(path):
            found.append(path)
    return found


def _partitions(base: str, found: Sequence[str]) -> dict[str, dict[str, float | str]]:
    """Columns that the folders of each file below `base` say, as numbers where all values are."""
    texts = {}
    for p in found:
        steps = (step.partition("=") for step in p.removeprefix(base).split("/")[:-1])
        texts[p] = {unquote(key): unquote(value) for key, is_key, value in steps if is_key}
    of_text = {key for each in texts.values() for key, text in each.items() if not _numbers(text)}

    def value(key: str, text: str) -> float | str:
        return text if key in of_text and text != _EMPTY_PARTITION else _numbers(text)[0]

    return {p: {key: value(key, text) for key, text in each.items()} for p, each in texts.items()}


def _numbers(text: str) -> list[float]:
    """The number that the name of a folder gives, if it gives one."""
    if text == _EMPTY_PARTITION:
        return [math.nan]
    try:
        return [] if "_" in text else [float(text)]
    except ValueError:
        return []


def _address(given: str, fs: Any, path: str) -> str:
    """Of a path on a file system, as it is known everywhere."""
    from fsspec.implementations.local import LocalFileSystem

    if "::" in given:
        return absolute(with_path(given, path))
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _format(path: str) -> str:
    """Give the ending that tells the format of a file, empty if none."""
    name = file_name(path)
    return next((ending for ending in _OPENERS if name.endswith(ending)), "")


def _is_store(fs: Any, path: str) -> bool:
    """Whether it is a Zarr store, which may have any name."""
    if not fs.isdir(path):
        return False
    named = _name(path).lower().endswith(".zarr")
    return named or any(fs.exists(f"{path}/{mark}") for mark in STORE_MARKS)


def _not_read(address: str) -> str:
    """What to do about a file of a format that is not read."""
    name = file_name(address)
    cure = next((cure for endings, cure in _INSTEAD.items() if name.endswith(endings)), "")
    cure = cure.format(address=address)
    return f"{address}: not a format that can be read ({_READABLE})" + (f": {cure}" if cure else "")


def _natural(path: str) -> list[tuple[str, int]]:
    """Order numbers in names by value."""
    return [(word, int(number or -1)) for word, number in re.findall(r"(\D*)(\d*)", path)]


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
