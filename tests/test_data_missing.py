"""What stands for a missing value in each format, and what is refused as no number."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import rows_of_numbers
from pyarrow import feather

from altrelu_dist import describe, open_dataset
from altrelu_dist.encoding.raw import RawColumn
from altrelu_dist.errors import DataError

NAN = float("nan")


@pytest.fixture
def frame(rng):
    return rows_of_numbers(rng)


TOKENS = [
    "", "NA", "N/A", "NULL", "null", "None", "nan", "NaN", "<NA>", "NaT", "-", "--", ".", "?", " ",
    " NA", "- ", "\\N", "#N/A",
]  # fmt: skip


@pytest.mark.parametrize("first", [True, False])
def test_tokens_for_missing_values_in_csv(first, tmp_path):
    values = ["1.5"] * len(TOKENS) if not first else []
    lines = [f"{i},{value}" for i, value in enumerate([*values, *TOKENS, "2.5"])]
    (tmp_path / "a.csv").write_text("\n".join(["y,a", *lines, ""]))
    found = open_dataset(tmp_path / "a.csv", target="y").X[:, 0].compute()
    expected = [1.5] * len(values) + [NAN] * len(TOKENS) + [2.5]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("column", "row", "named"),
    [
        (["1", "NA", "abc", "3"], 2, "abc"),
        (["NA", "-", "None", "x1"], 3, "x1"),
        (["1", "?", "1_000"], 2, "1_000"),
        (["NULL", "1,5"], 1, "1,5"),
    ],
)
def test_the_value_that_is_wrong_is_named(column, row, named, tmp_path):
    lines = [f'{i},"{value}"' for i, value in enumerate(column)]
    (tmp_path / "a.csv").write_text("\n".join(["y,a", *lines, ""]))
    with pytest.raises(DataError, match=rf"a \(text: '{named}' in row {row}\)"):
        open_dataset(tmp_path / "a.csv", target="y", categories="error")


def test_a_wrong_value_far_behind_is_named(tmp_path):
    lines = ["1,1.5"] * 200_000 + ["1,NA", "1,abc", "1,xyz"]
    (tmp_path / "a.csv").write_text("\n".join(["y,a", *lines, ""]))
    with pytest.raises(DataError, match="column a, row 200001: 'abc' is not a number"):
        open_dataset(tmp_path / "a.csv", target="y").X.compute()
    lines = ['{"a": 1, "y": 2}'] * 80_000 + ['{"a": null, "y": 2}', '{"a": "abc", "y": 2}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="column a, row 80001: a string, not a number"):
        open_dataset(tmp_path / "a.jsonl", target="y").X.compute()


def test_json_as_people_write_it(tmp_path):
    lines = [
        '\ufeff{"id": "u1", "a": 1, "y": 0, "ok": true}',
        "",
        '{"y": 1, "a": 2.5, "ok": false, "tags": ["p"]}',
        '{"a": NaN, "y": 2, "more": {"deep": 1}}',
        '{"a": null, "y": 3, "ok": null}',
    ]
    (tmp_path / "a.jsonl").write_text("\r\n".join(lines))
    with pytest.raises(DataError, match=r"columns tags \(list.*more \(struct.*not numeric"):
        open_dataset(tmp_path / "a.jsonl", target="y")
    (tmp_path / "b.jsonl").write_text('{"a": 1, "ok": true, "y": 0}\n\n{"y": 1, "a": 1e2}\n')
    data = open_dataset(tmp_path / "b.jsonl", target="y")
    np.testing.assert_array_equal(data.X.compute(), [[1, 1], [100, NAN]])


MISSING = {
    "int": pa.array([1, None, 3], pa.int64()),
    "short": pa.array([1, None, 3], pa.int8()),
    "flag": pa.array([True, None, False]),
    "decimal": pa.array([1, None, 3], pa.decimal128(9, 2)),
    "half": pa.array(np.arange(3, dtype="f2"), mask=np.array([False, True, False])),
    "code": pa.array([5, None, 7]).dictionary_encode(),
    "of null": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array([5.0, None])),
    "none": pa.nulls(3),
}


@pytest.mark.parametrize("ending", ["parquet", "feather"])
@pytest.mark.parametrize("kind", MISSING)
def test_nulls_of_arrow_are_missing(kind, ending, tmp_path):
    if (kind, ending) == ("of null", "parquet"):
        pytest.skip("Arrow writes no such Parquet")
    table = pa.table({"a": MISSING[kind], "y": [0.0, 1.0, 2.0]})
    path = tmp_path / f"a.{ending}"
    (pq.write_table if ending == "parquet" else feather.write_feather)(table, str(path))
    expected = [NAN if v is None else float(v) for v in MISSING[kind].to_pylist()]
    data = open_dataset(path, target="y")
    np.testing.assert_array_equal(data.X[:, 0].compute(), expected)
    assert describe(path, target="y").columns[0].missing == sum(map(np.isnan, expected))


TIMES = {
    "timestamp": pa.array([0, None], pa.timestamp("ns")),
    "date32": pa.array([0, None], pa.date32()),
    "time64": pa.array([0, None], pa.time64("us")),
    "text": pa.array(["1", None]),
    "list": pa.array([[1], None]),
}


@pytest.mark.parametrize("ending", ["parquet", "feather"])
@pytest.mark.parametrize("kind", TIMES)
def test_times_and_others_of_arrow_are_no_numbers(kind, ending, tmp_path):
    table = pa.table({"a": TIMES[kind], "b": [0.0, 1.0], "y": [0.0, 1.0]})
    path = tmp_path / f"a.{ending}"
    (pq.write_table if ending == "parquet" else feather.write_feather)(table, str(path))
    with pytest.raises(DataError, match=rf"feature column a \({kind}.*not numeric"):
        open_dataset(path, target="y", features=["a", "b"], columns=(RawColumn(),) * 2)
    with pytest.raises(DataError, match=rf"target column a \({kind}.*not numeric"):
        open_dataset(path, target="a")
    if kind == "list":
        with pytest.raises(
            DataError, match=r"\(list.*not numeric; leave such columns out with drop"
        ):
            open_dataset(path, target="y")


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_extension_types_are_not_their_storage(ending, tmp_path):
    """A process that does not know the type sees integers, which are no numbers of anything."""
    field = pa.field(
        "a",
        pa.int64(),
        metadata={"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": "{}"},
    )
    columns = [pa.array([600, None]), pa.array([0.0, 1.0]), pa.array([0.0, 1.0])]
    schema = pa.schema([field, ("b", pa.float64()), ("y", pa.float64())])
    table = pa.Table.from_arrays(columns, schema=schema)
    path = tmp_path / f"a.{ending}"
    (pq.write_table if ending == "parquet" else feather.write_feather)(table, str(path))
    code = (
        "import sys; from altrelu_dist import open_dataset\n"
        "try: open_dataset(sys.argv[1], target='y')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "a (pandas.period) not numeric" in done.stdout


@pytest.mark.parametrize(
    "dtype", ["datetime64[ns]", "timedelta64[s]", [("p", "f8"), ("q", "f8")], "S3", "c16", "O"]
)
def test_numpy_files_of_other_things_are_refused(dtype, tmp_path):
    y = np.zeros(3, dtype)
    np.savez(tmp_path / "a.npz", X=np.ones((3, 2)), y=y)
    np.save(tmp_path / "X.npy", np.ones((3, 2)))
    np.save(tmp_path / "y.npy", y)
    for name in ("a.npz", "X.npy"):
        with pytest.raises(DataError, match=r"array y holds .*, not numbers"):
            open_dataset(tmp_path / name)


def test_masked_arrays_are_no_numbers(tmp_path):
    masked = np.ma.masked_array(np.ones((3, 2)), mask=np.eye(3, 2))
    masked.dump(tmp_path / "X.npy")  # a pickle, as NumPy writes masks
    with pytest.raises(DataError, match=r"X\.npy: not an \.npy file"):
        open_dataset(tmp_path / "X.npy", require_target=False)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("a.xlsx", r"save the sheet as \.csv"),
        ("a.json", "one object a line"),
        ("a.pkl", "a pickle may run code"),
        ("a.nc", "to_zarr"),
        ("a.zip", r"zip://NAME::.*a\.zip"),
        ("a.tar.gz", r"tar://NAME::.*a\.tar\.gz"),
        ("a.gz", r"NAME\.csv\.gz"),
        ("a.txt", r"\.csv or \.tsv"),
        ("a.orc", "not a format that can be read"),
    ],
)
def test_other_formats_are_refused_with_a_cure(name, cure, tmp_path):
    (tmp_path / name).write_bytes(b"some content")
    with pytest.raises(DataError, match=cure):
        open_dataset(tmp_path / name, target="y")


def test_other_arrow_files_are_refused_with_a_cure(frame, tmp_path):
    table = pa.Table.from_pandas(frame)
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as stream,
    ):
        stream.write_table(table)
    (tmp_path / "b.feather").write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    for name, pattern in (("a.arrow", "is an Arrow stream"), ("b.feather", "version 1")):
        with pytest.raises(DataError, match=pattern):
            open_dataset(tmp_path / name, target="y")
