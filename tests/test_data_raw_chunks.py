"""Chunks that are read past Zarr give what Zarr gives, and the others are left to it."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from oracles import same

from altrelu_dist.data import raw_chunks
from altrelu_dist.data.raw_chunks import read_rows

ROWS = 11


def stored(folder, values, **options):
    given = {"chunks": (4, *values.shape[1:]), "compressors": None, **options}
    written = {"write_empty_chunks": True}
    array = zarr.create_array(
        str(folder / "a.zarr"), shape=values.shape, dtype=values.dtype, config=written, **given
    )
    array[:] = values
    return array


@pytest.fixture
def values(rng):
    return rng.standard_normal((ROWS, 3)).astype("float32")


def assert_read_as_zarr_does(array):
    for start in range(ROWS + 1):
        for stop in range(start, ROWS + 1):
            assert same(read_rows(array, start, stop), np.asarray(array[start:stop]))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("columns", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_rows_of_plain_files_are_read_without_zarr(tmp_path, rng, zarr_format, columns, dtype):
    values = (rng.standard_normal((ROWS, columns or 1)) * 3).astype(dtype)
    values = values if columns else values[:, 0]
    array = stored(tmp_path, values, zarr_format=zarr_format, fill_value=1)
    assert raw_chunks._is_raw(array)
    assert same(raw_chunks._raw_rows(array, 1, ROWS), values[1:])
    assert_read_as_zarr_does(array)


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": "auto"},
        {"compressors": [zarr.codecs.Crc32cCodec()]},
        {"chunks": (4, 2)},
        {"chunks": (4, 3), "shards": (8, 3)},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"serializer": zarr.codecs.BytesCodec(endian="big")},
        {"zarr_format": 2, "order": "F"},
    ],
    ids=str,
)
def test_other_chunks_are_left_to_zarr(tmp_path, values, options):
    array = stored(tmp_path, values, **options)
    assert not raw_chunks._is_raw(array)
    assert_read_as_zarr_does(array)


def test_stores_that_are_no_folder_are_left_to_zarr(values):
    array = zarr.create_array(zarr.storage.MemoryStore(), data=values, compressors=None)
    assert not raw_chunks._is_raw(array)
    assert_read_as_zarr_does(array)


def test_a_missing_chunk_has_the_fill_value(tmp_path, values):
    array = stored(tmp_path, values, fill_value=7)
    (tmp_path / "a.zarr" / "c" / "1" / "0").unlink()
    assert (read_rows(array, 4, 8) == 7).all()
    assert_read_as_zarr_does(array)


@pytest.mark.parametrize("size", [0, 40, 60])
def test_a_chunk_of_a_wrong_size_is_an_error_of_zarr(tmp_path, values, size):
    array = stored(tmp_path, values)
    path = tmp_path / "a.zarr" / "c" / "1" / "0"
    path.write_bytes((path.read_bytes() * 2)[:size])
    with pytest.raises(Exception, match=r"."):
        array[:]
    with pytest.raises(Exception, match=r"."):
        read_rows(array, 0, ROWS)
