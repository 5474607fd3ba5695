"""NumPy: a Python module that holds the arrays to the last bit, and needs NumPy alone."""

from __future__ import annotations

import base64
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]

_LINE = 96  # characters

_MODULE = '''\
"""A two-layer ReLU network as a function of NumPy: `predict`.

Written by altrelu-dist {version}; everything is in this file.
"""

import base64

import numpy as np

FEATURE_NAMES = {features}
TARGET_NAMES = {targets}
N_FEATURES = {n_features}
N_TARGETS = {n_targets}

_NEGATIVE_SLOPE = {slope!r}
_ROWS_AT_ONCE = 1024


def predict(X):
    """Predict the targets, (n_rows, N_TARGETS), of rows (n_rows, N_FEATURES), in float64.

    A row with a missing or infinite value in a column that counts has predictions that are NaN.
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


def _encoded(X):
    """The columns that the hidden layer takes."""
{encoded}


def _ramps(X, source, begin, length, center, low, high, factor):
    """Linear in a raw column between two ends, constant beyond."""
    with np.errstate(over="ignore"):
        value = (X[:, source] - begin) / length
    return (np.clip(value, low, high) - center) * factor


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
    given = [
        f"{value!r}"
        if isinstance(value := getattr(ramps, field.name), float)
        else arrays.add(f"block{number}_{field.name}", value)
        for field in fields(ramps)
    ]
    lines = ",\n            ".join(["X", *given])
    return f"        _ramps(\n            {lines},\n        ),\n"


_BLOCKS = dict.fromkeys(RAMPS, _ramps)


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
            "    X = np.where(np.isfinite(X), X, np.nan)\n"
            f"    parts = [\n        X[:, :0],\n{parts}    ]\n"
            "    return np.concatenate(parts, axis=1)"
        )
    return _MODULE.format(
        version=__version__,
        features=ascii(network.feature_names),
        targets=ascii(network.target_names),
        n_features=network.n_features,
        n_targets=network.n_targets,
        slope=float(network.negative_slope),
        encoded=encoded,
        arrays=arrays.text,
    )


def _encode(text: str, network: Network) -> bytes:
    del network
    return text.encode("ascii")


TARGET = Target(ending=".py", blocks=_BLOCKS, make=_make, encode=_encode)
