"""Numbers that a Zarr array holds packed or marks as missing, by the CF conventions.

As xarray decodes them, without xarray; beyond it, values outside a ``valid_range`` are missing too.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.source import Array, DType, float_dtype
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Packing", "packing_of"]

_DATE = re.compile(r"\S+\s+since\s+\S+")
_DURATIONS = {
    f"{unit}{s}"
    for unit in ("day", "hour", "minute", "second", "millisecond", "microsecond", "nanosecond")
    for s in ("", "s")
}
_NAT = np.iinfo(np.int64).min  # not a time, in NumPy's integers


@dataclass(frozen=True)
class Packing:
    """How the values of an array follow from what is stored.

    Attributes
    ----------
    integers : dtype, optional
        What the stored integers are to be read as, where that is another type (``_Unsigned``).
    missing : tuple of int or float
        Stored values that stand for a missing one.
    scale, offset : float, optional
        A value is ``stored * scale + offset``.
    low, high : float
        Bounds of what is valid, of the stored numbers or, with `bounds_of_values`, of the values.
    dtype : dtype
        Of the values.
    """

    integers: DType | None
    missing: tuple[float, ...]
    scale: float | None
    offset: float | None
    low: float
    high: float
    bounds_of_values: bool
    dtype: DType

    def values(self, block: Array) -> Array:
        """Decode a block of stored numbers; missing values are NaN."""
        if self.integers is not None:
            block = block.astype(block.dtype.newbyteorder("="), copy=False).view(self.integers)
        missing = np.zeros(block.shape, bool)
        for value in self.missing:
            missing |= block == value
        values = block.astype(self.dtype)
        if self.scale is not None:
            values *= self.scale
        if self.offset is not None:
            values += self.offset
        bounded = values if self.bounds_of_values else block
        if self.low > -math.inf:
            missing |= bounded < self.low
        if self.high < math.inf:
            missing |= bounded > self.high
        values[missing] = np.nan
        return values


def packing_of(array: Any, what: str) -> Packing | None:
    """How a Zarr array is packed; None where its numbers are the values.

    Parameters
    ----------
    array : zarr.Array
    what : str
        Its name in messages.

    Raises
    ------
    DataError
        It holds times, or an attribute cannot be understood.
    """
    stored, attributes = np.dtype(array.dtype), dict(array.attrs)
    if stored.kind not in "biuf":
        return None  # refused by its dtype
    units = str(attributes.get("units", ""))
    kind = str(attributes.get("dtype", ""))
    if _DATE.fullmatch(units.strip()) or kind.startswith(("datetime64", "timedelta64")):
        raise DataError(
            f"{what} holds times (units {units!r}), not numbers: convert them to numbers first"
        )
    integers = _integers(stored, attributes, what)
    missing = tuple(dict.fromkeys(_missing(array, stored, integers, attributes, what)))
    scale, offset = (_number(attributes, name, what) for name in ("scale_factor", "add_offset"))
    low, high = _bounds(attributes, what)
    packed = scale is not None or offset is not None
    if (
        stored.itemsize == np.dtype(np.int64).itemsize
        and stored.kind == "i"
        and units in _DURATIONS
    ):
        missing = (*missing, _NAT)
    if integers is None and not missing and not packed and (low, high) == (-math.inf, math.inf):
        return None
    plain = stored if integers is None else integers
    return Packing(
        integers=integers,
        missing=missing,
        scale=scale,
        offset=offset,
        low=low,
        high=high,
        bounds_of_values=packed and plain.kind != "f" and _fractional(attributes),
        dtype=np.dtype(np.float64) if packed else float_dtype([plain]),
    )


def _integers(stored: DType, attributes: dict[str, Any], what: str) -> DType | None:
    if "_Unsigned" not in attributes or stored.kind not in "iu":
        return None
    text = str(attributes["_Unsigned"]).lower()
    if text not in ("true", "false"):
        raise _not_understood(what, "_Unsigned", attributes["_Unsigned"])
    wanted = np.dtype(f"{'u' if text == 'true' else 'i'}{stored.itemsize}")
    return None if wanted == stored.newbyteorder("=") else wanted


def _missing(
    array: Any, stored: DType, integers: DType | None, attributes: dict[str, Any], what: str
) -> Iterator[float]:
    """Stored values, or those that they are read as, that stand for missing ones."""
    for name in ("_FillValue", "missing_value"):
        value = attributes.get(name)
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                number = _decoded(each, stored)
                if number is None:
                    raise _not_understood(what, name, each)
                yield from _as_stored(number, stored, integers)
    fill = array.fill_value
    if array.metadata.zarr_format != 2 or fill is None:
        return
    # In the second format the fill value is xarray's _FillValue. Zero is what Zarr itself takes
    # where nobody chose one, so that it counts only in arrays that xarray wrote.
    if fill != 0 or "_ARRAY_DIMENSIONS" in attributes:
        yield from _as_stored(fill.item() if hasattr(fill, "item") else fill, stored, integers)


def _decoded(value: Any, stored: DType) -> float | None:
    """A fill value of an attribute; xarray writes those of floats in base 64 in format 3."""
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        pass
    try:
        number: float = struct.unpack("<d", base64.b64decode(value, validate=True))[0]
    except (ValueError, struct.error):
        return None
    return number if stored.kind == "f" else None


def _as_stored(number: float, stored: DType, integers: DType | None) -> Iterator[float]:
    """The number in the type that it is compared in; none where no element can be equal to it."""
    if math.isnan(number):
        return
    if stored.kind == "f":
        with np.errstate(over="ignore"):
            yield float(np.asarray(number).astype(stored))
        return
    if isinstance(number, float) and not number.is_integer():
        return
    of = stored.newbyteorder("=") if integers is None else integers
    if integers is not None:  # given as it is stored, or as it is read
        number = int(number) % 2 ** (8 * of.itemsize)
        number -= 2 ** (8 * of.itemsize) if of.kind == "i" and number > np.iinfo(of).max else 0
    if of.kind == "b" or np.iinfo(of).min <= number <= np.iinfo(of).max:
        yield int(number)


def _number(attributes: dict[str, Any], name: str, what: str) -> float | None:
    value = attributes.get(name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise _not_understood(what, name, value)
    return float(value)


def _bounds(attributes: dict[str, Any], what: str) -> tuple[float, float]:
    pair = attributes.get("valid_range")
    if pair is not None:
        if not isinstance(pair, list) or len(pair) != 2:
            raise _not_understood(what, "valid_range", pair)
        attributes = {"valid_min": pair[0], "valid_max": pair[1]}
    low, high = (_number(attributes, name, what) for name in ("valid_min", "valid_max"))
    return -math.inf if low is None else low, math.inf if high is None else high


def _fractional(attributes: dict[str, Any]) -> bool:
    """Whether the bounds are floats: of the values then, where the stored numbers are integers."""
    given = [attributes.get(name) for name in ("valid_range", "valid_min", "valid_max")]
    flat = [each for one in given for each in (one if isinstance(one, list) else [one])]
    return any(isinstance(each, float) for each in flat)


def _not_understood(what: str, name: str, value: object) -> DataError:
    return DataError(
        f"{what}: its attribute {name} is {value!r}, which cannot be understood: correct it, or "
        "write the array decoded"
    )
