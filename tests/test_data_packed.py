"""What a Zarr store holds packed or marks as missing is read as xarray decodes it, or refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr

from altrelu_dist import AltReLURegressor, convert, describe, open_dataset
from altrelu_dist.data.packing import packing_of
from altrelu_dist.errors import DataError

xr = pytest.importorskip("xarray")

ROWS = 30


def written_by_xarray(folder, values, encoding, attributes, zarr_format):
    rows = xr.DataArray(values, dims=("row", "column"), attrs=attributes)
    target = xr.DataArray(np.arange(float(len(values))), dims="row")
    chunks = {"X": {**encoding, "chunks": (8, 2)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fill values that fit badly, which is what is tested
        xr.Dataset({"X": rows, "y": target}).to_zarr(
            folder / "a.zarr", zarr_format=zarr_format, consolidated=False, encoding=chunks
        )
    return folder / "a.zarr"


def read_by_xarray(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_zarr(path, consolidated=False)["X"].to_numpy()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("stored", "encoding"),
    [
        ("int16", {"scale_factor": 0.001, "add_offset": 5.0, "_FillValue": -32767}),
        ("int16", {"scale_factor": 0.01, "_FillValue": -1}),
        ("int32", {"add_offset": 3.0, "missing_value": 99999}),
        ("uint8", {"scale_factor": 0.1, "_FillValue": 255}),
        ("int8", {"scale_factor": 0.1, "_FillValue": np.int8(-1), "_Unsigned": "true"}),
        ("int64", {"_FillValue": -999}),
        ("int16", {"_FillValue": -999}),
        ("float32", {"_FillValue": np.float32(1e20)}),
        ("float64", {"_FillValue": -9999.0}),
        ("float64", {"missing_value": 1e36, "_FillValue": 1e36}),
        ("float64", {"_FillValue": np.nan}),
        ("float32", {}),
        ("int16", {"_FillValue": 0}),
    ],
    ids=str,
)
def test_packed_numbers_are_those_that_xarray_reads(tmp_path, rng, stored, encoding, zarr_format):
    values = np.round(rng.uniform(0.5, 11.5, (ROWS, 3)), 2)
    if "scale_factor" not in encoding and "add_offset" not in encoding and stored[:3] == "int":
        values = np.round(values) + 1
    values[rng.random(values.shape) < 0.2] = np.nan
    if not encoding:
        values[np.isnan(values)] = 0  # which no fill value stands for
    path = written_by_xarray(tmp_path, values, {"dtype": stored, **encoding}, {}, zarr_format)
    expected = read_by_xarray(path)
    np.testing.assert_array_equal(np.isnan(expected), np.isnan(values))
    found = open_dataset(path).X.compute(scheduler="sync")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, values, atol=0.501)
    assert sum(c.missing for c in describe(path).columns) == np.isnan(values).sum()
    if np.isnan(values).any():
        with pytest.raises(DataError, match="missing or infinite values"):
            convert(path, tmp_path / "b.zarr", missing="error")
    convert(path, tmp_path / "kept.zarr")
    np.testing.assert_array_equal(open_dataset(tmp_path / "kept.zarr").X.compute(), expected)
    convert(path, tmp_path / "b.zarr", drop_missing=True)
    whole = expected[~np.isnan(expected).any(axis=1)]
    np.testing.assert_array_equal(open_dataset(tmp_path / "b.zarr").X.compute(), whole)


def array_of(values, fill_value=None, zarr_format=3, **attributes):
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        zarr_format=zarr_format,
        fill_value=fill_value,
        attributes=attributes,
    )
    array[...] = values
    return array


NAN = np.nan


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        # Written by hand, without xarray: plain numbers as attributes.
        ([1, -9], {"_FillValue": -9}, [1, NAN]),
        ([1.0, 1e20], {"_FillValue": 1e20}, [1, NAN]),
        (np.float32([1, 1e20]), {"missing_value": 1e20}, [1, NAN]),
        ([1, 2, 3], {"missing_value": [2, 3]}, [1, NAN, NAN]),
        ([1.0, 2.0], {"_FillValue": "NaN"}, [1, 2]),
        ([1, 2], {"scale_factor": [0.5]}, [0.5, 1]),
        ([1, 2], {"_FillValue": 1.5}, [1, 2]),
        (np.uint8([255, 1]), {"_FillValue": -1}, [255, 1]),
        (np.int8([-1, 1, -2]), {"_Unsigned": "true", "_FillValue": 254}, [255, 1, NAN]),
        (np.uint8([255, 1]), {"_Unsigned": "false", "_FillValue": -1}, [NAN, 1]),
        (np.int16([-5, 7]).astype(">i2"), {"_FillValue": 7}, [-5, NAN]),
        (np.int8([-1, 7]), {"_Unsigned": "true", "scale_factor": 2}, [510, 14]),
        # Bounds are of what is stored, or of the values if they are floats and that is integers.
        ([0, 5, 11], {"valid_range": [1, 10]}, [NAN, 5, NAN]),
        ([0, 5, 11], {"valid_min": 1}, [NAN, 5, 11]),
        ([0, 5, 11], {"valid_max": 10}, [0, 5, NAN]),
        ([0, 5, 11], {"valid_range": [1, 10], "scale_factor": 0.1}, [NAN, 0.5, NAN]),
        ([0, 5, 11], {"valid_range": [0.2, 1.0], "scale_factor": 0.1}, [NAN, 0.5, NAN]),
        ([1, np.iinfo(np.int64).min], {"units": "days"}, [1, NAN]),
        # Format 2: Zarr's fill value is the missing one; 0 only where xarray wrote it.
        ([1, -9], {"fill_value": -9, "zarr_format": 2}, [1, NAN]),
        ([1, 0], {"fill_value": 0, "zarr_format": 2}, [1, 0]),
        ([1, 0], {"fill_value": 0, "zarr_format": 2, "_ARRAY_DIMENSIONS": ["a"]}, [1, NAN]),
        ([1.0, 0], {"fill_value": NAN, "zarr_format": 2}, [1, 0]),
        # Format 3: what is not written, and no more.
        ([1, -9], {"fill_value": -9}, [1, -9]),
    ],
    ids=str,
)
def test_attributes_by_hand(values, options, expected):
    array = array_of(np.asarray(values), **options)
    packing = packing_of(array, "X")
    found = array[...] if packing is None else packing.values(array[...])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert packing is None or found.dtype == packing.dtype


@pytest.mark.parametrize(
    ("attributes", "pattern"),
    [
        ({"units": "days since 2000-01-01"}, "array X holds times .*days since 2000"),
        ({"units": "hours since 1970-01-01T00:00", "calendar": "noleap"}, "holds times"),
        ({"dtype": "timedelta64[ns]", "units": "nanoseconds"}, "holds times"),
        ({"scale_factor": "big"}, "scale_factor is 'big'"),
        ({"scale_factor": [1, 2]}, r"scale_factor is \[1, 2\]"),
        ({"add_offset": {"a": 1}}, "add_offset"),
        ({"_FillValue": "none"}, "_FillValue is 'none'"),
        ({"_Unsigned": "maybe"}, "_Unsigned"),
        ({"valid_range": [1]}, "valid_range"),
    ],
    ids=str,
)
def test_what_cannot_be_decoded_is_refused_by_name(tmp_path, attributes, pattern):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    X = group.create_array("X", data=np.ones((4, 2), "int64"))
    X.attrs.update(attributes)
    group.create_array("y", data=np.ones(4))
    bystander = group.create_array("time", data=np.arange(4))
    bystander.attrs["units"] = "days since 2000-01-01"  # and is not read
    with pytest.raises(DataError, match=pattern):
        open_dataset(tmp_path / "a.zarr")
    with pytest.raises(DataError, match=pattern.replace("array X", "X")):
        AltReLURegressor(2).fit(group["X"], group["y"])
    X.attrs.put({})
    assert open_dataset(tmp_path / "a.zarr").X.shape == (4, 2)


def test_zarr_arrays_that_are_handed_over_are_decoded(rng):
    values = rng.integers(-500, 500, (60, 3)).astype("int16")
    packed = array_of(values, scale_factor=0.01, add_offset=2.0)
    target = array_of(np.abs(values[:, 0]), scale_factor=0.01)
    y = target[...] * 0.01
    model = AltReLURegressor(2, method="alternating", max_iter=3, random_state=0)
    plain = model.fit(values * 0.01 + 2, y).predict(values * 0.01 + 2)
    np.testing.assert_allclose(np.asarray(model.fit(packed, target).predict(packed)), plain)
    missing = array_of(values, _FillValue=int(values[5, 1]))
    with pytest.raises(DataError, match=r"NaN|finite|missing"):
        model.score(missing, y)
