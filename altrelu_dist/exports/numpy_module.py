"""NumPy: a Python module that holds the arrays to the last bit, and needs NumPy alone."""

from __future__ import annotations

import base64
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.encoding.raw import RawColumn
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.exports.filling import filling_of
from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]

_LINE = 96  # characters

_MODULE = '''\
"""A two-layer ReLU network as a function of NumPy: `predict(X)`, or `predict(matrix(table))`.

Written by altrelu-dist {version}; everything is in this file.
"""

import base64
import datetime

import numpy as np

FEATURE_NAMES = {features}
TARGET_NAMES = {targets}
N_FEATURES = {n_features}
N_TARGETS = {n_targets}

# What each feature is: a number, seconds since 1970, or the place of a text in its levels.
KINDS = {kinds}
LEVELS = {levels}

_NEGATIVE_SLOPE = {slope!r}
_ROWS_AT_ONCE = 1024


def predict(X):
    """Predict the targets, (n_rows, N_TARGETS), of rows (n_rows, N_FEATURES), in float64.

    A missing value is NaN, a text the place of its level and -1 where it is none. A row has
    predictions that are NaN where a value in a column that counts is infinite, or missing though no
    training row lacked it.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != N_FEATURES:
        raise ValueError(f"the network takes {{N_FEATURES}} features, found shape {{X.shape}}")
    y = np.empty((len(X), N_TARGETS))
    for start in range(0, len(X), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        columns = _encoded(X[rows].astype(np.float64))
        z = columns @ _ARRAYS["hidden_weights"] + _ARRAYS["hidden_bias"]
        hidden = np.maximum(z, _NEGATIVE_SLOPE * z if _NEGATIVE_SLOPE else 0.0)
        y[rows] = hidden @ _ARRAYS["output_weights"] + _ARRAYS["output_bias"]
    if "target_range" in _ARRAYS:
        np.clip(y, *_ARRAYS["target_range"], out=y)
    return y


def matrix(table):
    """The rows (n_rows, N_FEATURES) that `predict` takes of a table, as a dict or a DataFrame.

    Its columns hold numbers, texts and times (datetime64 or datetime, in UTC), and None where a
    value is missing. They are found by FEATURE_NAMES, or without names by 0, 1, and so on.
    """
    X = []
    for j in range(N_FEATURES):
        values = table[j if FEATURE_NAMES is None else FEATURE_NAMES[j]]
        levels = LEVELS.get(j)
        if levels is None:
            X.append(_numbers(values, KINDS[j]))
        else:
            places = {{text: place for place, text in enumerate(levels)}}
            texts = [_text(value) for value in values]
            X.append([np.nan if text is None else places.get(text, -1) for text in texts])
    return np.array(X, dtype=np.float64).reshape(N_FEATURES, -1).T.copy()


def _missing(value):
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _text(value):
    """The text of a value of a column of levels; None where it is missing."""
    if isinstance(value, str):
        return value
    if _missing(value):
        return None
    if isinstance(value, (bool, np.bool_)) or float(value).is_integer():
        return str(int(value))
    return str(value)


def _time(value):
    """The time of an object of pandas or datetime, in UTC."""
    if _missing(value):
        return np.datetime64("NaT")
    if hasattr(value, "to_datetime64"):
        return value.to_datetime64()
    if getattr(value, "tzinfo", None) is not None:
        value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return np.datetime64(value)


def _numbers(values, kind):
    """Numbers, and times and durations in seconds, as float64."""
    values = np.asarray(values)
    if values.dtype.kind in "OU" and kind == "time":
        values = np.array([_time(value) for value in values])
    if values.dtype.kind == "M":
        values = values - np.datetime64(0, "s")
    if values.dtype.kind != "m":
        return values.astype(np.float64)
    out = np.full(values.shape, np.nan)
    known = ~np.isnat(values)
    seconds, rest = np.divmod(values[known], np.timedelta64(1, "s"))
    out[known] = seconds + rest / np.timedelta64(1, "s")
    return out


def _encoded(X):
    """The columns that the hidden layer takes."""
{encoded}


def _ramps(X, source, begin, length, center, low, high, factor):
    """Linear in a raw column between two ends, constant beyond."""
    with np.errstate(over="ignore"):
        value = (X[:, source] - begin) / length
    return (np.clip(value, low, high) - center) * factor


def _levels(X, source, place, center, scale):
    """Standardised indicators of levels."""
    codes = X[:, source]
    return np.where(np.isnan(codes), np.nan, (np.floor(codes) == place) - center) / scale


def _times(X, source, period, phase, center, scale):
    """Standardised waves."""
    return (np.sin(2 * np.pi * np.mod(X[:, source] / period, 1.0) + phase) - center) / scale


def _gaps(X, source, center, scale):
    """Standardised indicators of missing values."""
    return (np.isnan(X[:, source]) - center) / scale


def _filled(X, columns, source, lacking):
    """Missing values are the mean, zero, in columns of which training rows lacked some."""
    columns[np.isnan(columns) & (lacking != 0)] = 0.0
    columns[np.isinf(X)[:, source]] = np.nan
    return columns


def _array(kind, shape, text):
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape)


_ARRAYS = {{
{arrays}}}
'''


class _Arrays:
    """Arrays by their names, as the module's text."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, name: str, values: Any) -> str:
        """The text that stands for an array."""
        kept = np.asarray(values)
        kind = "<i8" if kept.dtype.kind == "i" else "<f8"
        encoded = base64.b64encode(kept.astype(kind).tobytes()).decode()
        content = "\n".join(encoded[at : at + _LINE] for at in range(0, len(encoded), _LINE))
        self.text += f'    "{name}": _array("{kind}", {kept.shape}, """\n{content}\n"""),\n'
        return f'_ARRAYS["{name}"]'


def _ramps(block: ColumnBlock, number: int, arrays: _Arrays) -> str:
    """The call that makes a block of ramps."""
    ramps = ramps_of(block)
    given = {field.name: getattr(ramps, field.name) for field in fields(ramps)}
    return _call("_ramps", number, arrays, given)


def _levels(block: LevelColumns, number: int, arrays: _Arrays) -> str:
    given = {"source": block.sources, "place": block.places}
    return _call("_levels", number, arrays, given | {"center": block.center, "scale": block.scale})


def _times(block: TimeColumns, number: int, arrays: _Arrays) -> str:
    given = {name: getattr(block, name) for name in ("period", "phase", "center", "scale")}
    return _call("_times", number, arrays, {"source": block.sources} | given)


def _gaps(block: GapColumns, number: int, arrays: _Arrays) -> str:
    given = {"source": block.sources, "center": block.share, "scale": block.scale}
    return _call("_gaps", number, arrays, given)


def _call(function: str, number: int, arrays: _Arrays, given: dict[str, Any]) -> str:
    """The call that makes a block."""
    words = [
        f"{value!r}" if isinstance(value, float) else arrays.add(f"block{number}_{name}", value)
        for name, value in given.items()
    ]
    lines = ",\n            ".join(["X", *words])
    return f"        {function}(\n            {lines},\n        ),\n"


_BLOCKS: dict[type[ColumnBlock], Any] = dict.fromkeys(RAMPS, _ramps) | {
    LevelColumns: _levels,
    TimeColumns: _times,
    GapColumns: _gaps,
}


def _make(network: Network) -> str:
    arrays = _Arrays()
    for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias", "target_range"):
        if (values := getattr(network, name)) is not None:
            arrays.add(name, values)
    encoded = "    return X"
    if network.encoder is not None:
        parts = "".join(
            _BLOCKS[type(block)](block, number, arrays)
            for number, block in enumerate(network.encoder.blocks)
        )
        encoded = (
            "    given = X\n"
            "    X = np.where(np.isfinite(X), X, np.nan)\n"
            f"    parts = [\n        X[:, :0],\n{parts}    ]\n"
            "    columns = np.concatenate(parts, axis=1)\n"
        )
        if filling := filling_of(network.encoder):
            names = [arrays.add(f.name, getattr(filling, f.name) * 1) for f in fields(filling)]
            encoded += f"    columns = _filled(given, columns, {', '.join(names)})\n"
        encoded += "    return columns"
    raw = network.columns or (RawColumn(),) * network.n_features
    return _MODULE.format(
        version=__version__,
        features=ascii(network.feature_names),
        targets=ascii(network.target_names),
        n_features=network.n_features,
        n_targets=network.n_targets,
        kinds=ascii([column.kind for column in raw]),
        levels=ascii({j: c.levels for j, c in enumerate(raw) if c.kind == "levels"}),
        slope=float(network.negative_slope),
        encoded=encoded,
        arrays=arrays.text,
    )


def _encode(text: str, network: Network) -> bytes:
    del network
    return text.encode("ascii")


TARGET = Target(ending=".py", blocks=_BLOCKS, make=_make, encode=_encode)
