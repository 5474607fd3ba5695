"""A tree of plain values and arrays as bytes and back: no code in it, and a flipped bit is found.

Layout: magic, SHA-256 of the rest, length of the JSON, JSON, the arrays one after the other. In the
JSON an array is ``{"$array": [dtype, shape, order, offset]}``, a dataclass of this package
``{"$Name": {field: value}}``, a tuple ``{"$tuple": [...]}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields
from typing import Any, Literal

import numpy as np

from altrelu_dist.errors import CheckpointError
from altrelu_dist.moments.loss import LossGradient
from altrelu_dist.moments.rows import Weights

__all__ = ["decode", "encode"]

_MAGIC = b"altrelu-checkpoint-1\n"
_SUM = hashlib.sha256().digest_size
_LENGTH = 8
_TYPES: dict[str, type[Any]] = {t.__name__: t for t in (Weights, LossGradient)}
_DTYPE = re.compile(r"[<>|=][fiub][0-9]{1,2}")  # of arrays


def encode(tree: Any) -> bytes:
    """Bytes of a tree of None, bool, int, float, str, list, tuple, dict, arrays and our records."""
    arrays: list[bytes] = []
    offset = 0

    def plain(value: Any) -> Any:
        nonlocal offset
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, np.ndarray):
            # Products round otherwise where an array lies otherwise in memory.
            order: Literal["C", "F"] = "F" if value.flags.fnc else "C"
            data = value.tobytes(order)
            at, offset = offset, offset + len(data)
            arrays.append(data)
            return {"$array": [value.dtype.str, list(value.shape), order, at]}
        kind = type(value).__name__
        if _TYPES.get(kind) is type(value):
            return {f"${kind}": {f.name: plain(getattr(value, f.name)) for f in fields(value)}}
        if isinstance(value, tuple):
            return {"$tuple": [plain(item) for item in value]}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        raise TypeError(f"cannot be kept in a checkpoint: {kind}")

    text = json.dumps(plain(tree)).encode()
    payload = b"".join([len(text).to_bytes(_LENGTH, "little"), text, *arrays])
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def decode(data: bytes) -> Any:
    """The tree again.

    Raises
    ------
    CheckpointError
        If the bytes are not whole, or not as they were written.
    """
    head = len(_MAGIC)
    payload = memoryview(data)[head + _SUM :]
    if data[:head] != _MAGIC:
        raise CheckpointError("is not a checkpoint, or one of another version")
    if hashlib.sha256(payload).digest() != data[head : head + _SUM]:
        raise CheckpointError("is damaged: its checksum does not fit")
    length = int.from_bytes(payload[:_LENGTH], "little")
    arrays = payload[_LENGTH + length :]

    def full(value: Any) -> Any:
        if isinstance(value, list):
            return [full(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == "$array":
                return _array(arrays, *inner)
            if key == "$tuple":
                return tuple(full(item) for item in inner)
            if key[:1] == "$" and key[1:] in _TYPES:
                return _TYPES[key[1:]](**full(inner))
        return {key: full(item) for key, item in value.items()}

    try:
        return full(json.loads(bytes(payload[_LENGTH : _LENGTH + length])))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"is damaged: {error}") from error


def _array(arrays: memoryview, dtype: str, shape: list[int], order: Any, offset: int) -> Any:
    if not _DTYPE.fullmatch(dtype):  # NumPy evaluates some texts
        raise ValueError(f"an array of {dtype}")
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.frombuffer(arrays, np.dtype(dtype), count, offset)
    return flat.reshape(shape, order=order).copy("K")
