"""Files as others write them: in folders and archives, compressed, of further formats, special."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from pyarrow import feather
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, convert, describe, open_dataset
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.cli.app import app
from altrelu_dist.encoding.raw import RawColumn
from altrelu_dist.errors import AltReLUError, CheckpointError, DataError, ModelFileError
from altrelu_dist.links import absolute, split_chain, with_path
from altrelu_dist.network import Network

ROWS = 50
NAN = float("nan")


@pytest.fixture
def frame(rng):
    X = np.round(rng.normal(size=(ROWS, 3)), 6)
    return pd.DataFrame(X, columns=list("abc")).assign(y=np.arange(float(ROWS)))


def compress(data, ending):
    return {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda plain: pa.compress(plain, codec="zstd", asbytes=True),
    }[ending](data)


def write(frame, path):
    """Write a table in the format that a name says."""
    name = path.name
    if name.endswith((".feather", ".arrow", ".ipc")):
        feather.write_feather(frame, str(path), chunksize=7)
    elif name.endswith(".parquet"):
        frame.to_parquet(path, index=False, row_group_size=7)
    elif name.endswith(".npz"):
        np.savez_compressed(path, X=frame[[*"abc"]].to_numpy(), y=frame["y"].to_numpy())
    elif name.endswith(".zarr"):
        group = zarr.open_group(path, mode="w")
        group.create_array("X", data=frame[[*"abc"]].to_numpy(), chunks=(7, 3))
        group.create_array("y", data=frame["y"].to_numpy(), chunks=(7,))
    else:
        plain, dot, ending = name.partition(".")[2].partition(".")
        if plain in ("jsonl", "ndjson"):
            text = frame.to_json(orient="records", lines=True, double_precision=15)
        else:
            text = frame.to_csv(index=False, sep="\t" if plain == "tsv" else ",")
        path.write_bytes(compress(text.encode(), dot + ending))
    return path


def assert_reads(address, frame, tmp_path, features=("a", "b", "c")):
    """Opened, described and converted, the rows are those of the frame."""
    named = {} if ".npz" in str(address) or ".zarr" in str(address) else {"target": "y"}
    data = open_dataset(address, **named)
    expected = frame[[*features]].to_numpy(float)
    np.testing.assert_array_equal(data.X.compute(scheduler="sync"), expected)
    np.testing.assert_array_equal(data.y[:, 0].compute(scheduler="sync"), frame["y"])
    np.testing.assert_array_equal(data.X[9:23].compute(scheduler="sync"), expected[9:23])
    if named:
        assert data.feature_names == tuple(features)
    assert describe(address, **named).rows == len(frame)
    convert(address, tmp_path / "out.zarr", overwrite=True, **named)
    np.testing.assert_array_equal(open_dataset(tmp_path / "out.zarr").X.compute(), expected)


LINES = [f".{kind}{packed}" for kind in ("csv", "tsv") for packed in (".bz2", ".xz", ".zst")]
FURTHER = [".tsv", *LINES, ".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".feather", ".arrow"]


@pytest.mark.parametrize("ending", [*FURTHER, ".ipc"])
def test_further_formats_give_the_original(ending, frame, tmp_path):
    assert_reads(write(frame, tmp_path / f"rows{ending}"), frame, tmp_path)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".feather"])
def test_formats_are_read_in_blocks(ending, frame, tmp_path, monkeypatch):
    for module in ("lines", "arrow_files"):
        monkeypatch.setattr(f"altrelu_dist.data.{module}.READ_BYTES", 600)
    path = write(frame, tmp_path / f"rows{ending}")
    assert open_dataset(path, target="y").X.numblocks[0] > 2
    assert_reads(path, frame, tmp_path)


def test_what_cannot_be_cut_is_bounded(frame, tmp_path, monkeypatch):
    for module in ("lines", "arrow_files"):
        monkeypatch.setattr(f"altrelu_dist.data.{module}.PIECE_BYTES", 200)
    for ending in (".csv.xz", ".jsonl.zst"):
        path = write(frame, tmp_path / f"rows{ending}")
        with pytest.raises(DataError, match=r"unpacks to over .*convert it first"):
            open_dataset(path, target="y")
        convert(path, tmp_path / "out.zarr", target="y", overwrite=True)
    feather.write_feather(frame, str(tmp_path / "rows.feather"))
    with pytest.raises(DataError, match=f"a record batch of {ROWS} rows is over .*chunksize"):
        open_dataset(tmp_path / "rows.feather", target="y")


# --- folders that are named for columns -----------------------------------------------------------


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz", ".feather", ".jsonl", ".tsv"])
def test_hive_folders_are_columns(ending, frame, tmp_path):
    frame = frame.assign(year=2020 + np.arange(ROWS) % 3, part=np.arange(ROWS) % 2 / 4)
    frame = frame.sort_values(["year", "part"], kind="stable").reset_index(drop=True)
    for (year, part), rows in frame.groupby(["year", "part"]):
        folder = tmp_path / f"hive/year={year}/part={part}"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").touch()
        write(rows[[*"abcy"]].reset_index(drop=True), folder / f"rows{ending}")
    features = ("a", "b", "c", "year", "part")
    for address in (tmp_path / "hive", f"{tmp_path}/hive/*/*/rows{ending}", f"{tmp_path}/hi*"):
        assert_reads(address, frame, tmp_path, features)
    by_year = open_dataset(tmp_path / "hive", target=["year"], weight="part")
    np.testing.assert_array_equal(by_year.y[:, 0].compute(), frame["year"])
    np.testing.assert_array_equal(by_year.sample_weight.compute(), frame["part"])
    # One of the folders alone says nothing of those above it.
    one = open_dataset(tmp_path / "hive/year=2020", target="y")
    assert one.feature_names == ("a", "b", "c", "part")


def test_hive_folders_as_pandas_reads_them(frame, tmp_path):
    frame = frame.assign(year=2020 + np.arange(ROWS) % 3)
    frame.to_parquet(tmp_path / "rows.parquet", partition_cols=["year"], index=False)
    expected = pd.read_parquet(tmp_path / "rows.parquet")
    data = open_dataset(tmp_path / "rows.parquet", target="y")
    assert data.feature_names == ("a", "b", "c", "year")
    np.testing.assert_array_equal(
        data.X.compute(), expected[["a", "b", "c", "year"]].to_numpy(float)
    )
    path = tmp_path / "m.zarr"
    AltReLURegressor(2, method="alternating", max_iter=2).fit(
        expected[["a", "b", "c", "year"]], expected["y"]
    ).save(path)
    done = CliRunner().invoke(
        app,
        ["predict", str(path), str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "p.npy")],
    )
    assert done.exit_code == 0, done.output
    found = AltReLURegressor.load(path).predict(expected[["a", "b", "c", "year"]])
    np.testing.assert_allclose(np.load(tmp_path / "p.npy").ravel(), found)


def test_values_of_hive_folders(frame, tmp_path):
    def folders(name, *values):
        for value in values:
            folder = tmp_path / name / value
            folder.mkdir(parents=True)
            write(frame, folder / "rows.parquet")
        return tmp_path / name

    missing = open_dataset(folders("m", "k=1", "k=__HIVE_DEFAULT_PARTITION__"), target="y")
    np.testing.assert_array_equal(
        missing.X[:, 3].compute(), np.repeat([1.0, NAN], ROWS), strict=True
    )
    escaped = open_dataset(folders("e", "a%20b=1%2E5"), target="y")
    assert escaped.feature_names == ("a", "b", "c", "a b")
    assert escaped.X[0, 3].compute() == 1.5
    # A folder's value comes before that of a column of the file, as in Arrow.
    assert open_dataset(folders("o", "a=7"), target="y").X[3, -1].compute() == 7
    with pytest.raises(DataError, match=r"k \(text: '1'\) not numeric"):
        open_dataset(folders("t", "k=1", "k=north"), target="y", categories="error")
    texts = open_dataset(tmp_path / "t", target="y")
    assert texts.columns[3].levels == ("1", "north")
    np.testing.assert_array_equal(texts.X[:, 3].compute(), np.repeat([0, 1], ROWS))
    with pytest.raises(DataError, match="other features"):
        open_dataset(folders("d", "k=1", "j=1"), target="y")
    write(frame, tmp_path / "d/k=1/rows.npz")
    with pytest.raises(DataError, match=r"several formats"):
        open_dataset(tmp_path / "d", target="y")
    (tmp_path / "n/k=1").mkdir(parents=True)
    write(frame, tmp_path / "n/k=1/rows.npz")
    with pytest.raises(DataError, match=r"named for columns \(k\)"):
        open_dataset(tmp_path / "n")


# --- archives and chains --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name",
    ["t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.parquet", "t.feather", "t.npz", "d/t.zarr"],
)
def test_data_in_archives(kind, name, frame, tmp_path, monkeypatch):
    place = tmp_path / "in"
    (place / name).parent.mkdir(parents=True)
    write(frame, place / name)
    files = [path for path in place.rglob("*") if path.is_file()]
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in files:
                file.write(path, path.relative_to(place))
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as file:
            for path in files:
                file.add(path, path.relative_to(place))
    protocol = kind.partition(".")[0]
    if protocol == "tar" and name.endswith(".zarr"):
        with pytest.raises(DataError, match=r"in a tar archive .* unpack it"):
            open_dataset(f"{protocol}://{name}::{archive}")
        return
    assert_reads(f"{protocol}://{name}::{archive}", frame, tmp_path)
    monkeypatch.chdir(tmp_path)
    patterns = ["*.csv", ""] * (name == "t.csv")
    for address in (
        f"simplecache::{protocol}://{name}::{archive}",
        *(f"{protocol}://{found}::{archive.name}" for found in (name, *patterns)),
    ):
        data = open_dataset(address, target=None if name[-4:] in (".npz", "zarr") else "y")
        np.testing.assert_array_equal(data.X.compute(scheduler="sync"), frame[[*"abc"]])
    if patterns:
        with pytest.raises(DataError, match=rf"{protocol}://none\.csv::.*: no such file"):
            open_dataset(f"{protocol}://none.csv::{archive.name}", target="y")


def test_numpy_pairs_and_folders_in_archives(frame, tmp_path):
    for i in (2, 10):
        np.save(tmp_path / f"X{i}.npy", np.full((3, 2), float(i)))
        np.save(tmp_path / f"y{i}.npy", np.full(3, float(i)))
    hive = tmp_path / "h/k=3"
    hive.mkdir(parents=True)
    write(frame, hive / "rows.parquet")
    with zipfile.ZipFile(tmp_path / "Xa.zip", "w") as file:
        for path in [*tmp_path.glob("*.npy"), hive / "rows.parquet"]:
            file.write(path, path.relative_to(tmp_path))
    archive = f"::{tmp_path}/Xa.zip"
    one = open_dataset(f"zip://X2.npy{archive}")
    np.testing.assert_array_equal(one.y.compute(), np.full((3, 1), 2.0))
    both = open_dataset(f"zip://*.npy{archive}".replace("*", "X*"))
    np.testing.assert_array_equal(both.X[:, 0].compute(), [2, 2, 2, 10, 10, 10])
    data = open_dataset(f"zip://h{archive}", target="y")
    assert data.feature_names == ("a", "b", "c", "k")
    np.testing.assert_array_equal(data.X[:, 3].compute(), np.full(ROWS, 3.0))


def test_an_archive_that_is_replaced_is_read_anew(frame, tmp_path):
    for factor in (1, 2):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("t.csv", (factor * frame).to_csv(index=False))
        data = open_dataset(f"zip://t.csv::{tmp_path}/a.zip", target="y")
        np.testing.assert_allclose(data.y[:, 0].compute(), factor * frame["y"])


def test_train_and_predict_from_an_archive(frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.zip", "w") as file:
        file.writestr("t.csv", frame.to_csv(index=False))

    def run(*arguments):
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.output

    options = ("--hidden", 2, "--method", "alternating", "--max-iter", 2, "--workers", 0)
    data = "zip://t.csv::a.zip"
    run("train", data, "--target", "y", *options, "--out", "m.zarr", "--checkpoint", "run")
    run("predict", "m.zarr", data, "--out", "p.npy")
    run("evaluate", "m.zarr", data)
    assert "50 rows" in run("info", data, "--target", "y")
    model = AltReLURegressor.load("m.zarr")
    expected = model.predict(frame[[*"abc"]])
    np.testing.assert_allclose(np.load("p.npy").ravel(), expected.ravel())
    # The checkpoint's options hold wherever it is gone on with.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run("train", "--resume", "../run", "--overwrite", "--workers", 0)


@pytest.mark.parametrize(
    ("address", "link", "other"),
    [
        ("/a/b.csv", "/a/b.csv", "/p/q"),
        ("s3://b/x.csv", "s3://b/x.csv", "s3://p/q"),
        ("zip://b.csv::/a.zip", "zip://b.csv", "zip://p/q::/a.zip"),
        ("zip::/a.zip", "zip", "zip://p/q::/a.zip"),
        ("simplecache::/a/b.csv", "/a/b.csv", "simplecache::/p/q"),
        ("simplecache::s3://b/x", "s3://b/x", "simplecache::s3://p/q"),
        ("simplecache::tar://b::s3://c/a.tar", "tar://b", "simplecache::tar://p/q::s3://c/a.tar"),
    ],
)
def test_links_of_an_address(address, link, other, tmp_path, monkeypatch):
    before, found, after = split_chain(address)
    assert (found, before + found + after) == (link, address)
    path = "p/q" if "://" in other else "/p/q"
    assert with_path(address, path) == other
    monkeypatch.chdir(tmp_path)
    assert absolute(address) == address
    assert absolute("zip://t::a.zip") == f"zip://t::{tmp_path}/a.zip"
    assert absolute("a.csv") == f"{tmp_path}/a.csv"


# --- what is not a file ---------------------------------------------------------------------------


def make_fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def make_socket(path):
    path.unlink(missing_ok=True)
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def make_device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


NAMES = ("f.csv", "f.csv.gz", "f.tsv", "f.jsonl", "f.parquet", "f.feather", "f.npz", "X.npy")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_special_files_are_refused_at_once(make, frame, tmp_path):
    what = {"make_fifo": "named pipe", "make_socket": "socket", "make_device": "device"}
    pattern = rf"is a {what[make.__name__]}.*, expected a file"
    for name in NAMES:
        make(tmp_path / name)
        for address in (tmp_path / name, f"simplecache::{tmp_path / name}", tmp_path / "[Xf].*"):
            with pytest.raises(DataError, match=pattern):
                open_dataset(address, target=None if name == "X.npy" else "y")
        (tmp_path / name).unlink()
    for name in ("a.zip", "a.tar"):
        make(tmp_path / name)
        with pytest.raises(DataError, match=pattern):
            open_dataset(f"{name[2:]}://t.csv::{tmp_path / name}", target="y")
        (tmp_path / name).unlink()
    write(frame, tmp_path / "p1.parquet")
    make(tmp_path / "p2.parquet")
    with pytest.raises(DataError, match=pattern):
        describe(tmp_path, target="y")
    np.save(tmp_path / "X.npy", np.ones((3, 2)))
    make(tmp_path / "y.npy")
    with pytest.raises(DataError, match=pattern):
        open_dataset(tmp_path / "X.npy")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_special_files_in_stores_are_refused(make, compressors, zarr_format, tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    for name, shape in (("X", (40, 2)), ("y", (40,))):
        kept = {"chunks": (10, *shape[1:]), "compressors": compressors}
        group.create_array(name, data=np.ones(shape), **kept)
    chunk = tmp_path / "a.zarr/X" / ("c/2/0" if zarr_format == 3 else "2.0")
    assert chunk.exists()
    data = open_dataset(tmp_path / "a.zarr")
    make(chunk)
    for read in (data.X, open_dataset(tmp_path / "a.zarr").X):
        with pytest.raises(DataError, match=f"{chunk}: is a .*, expected a file"):
            read.compute()
    with pytest.raises(DataError, match="expected a file"):
        AltReLURegressor(2).fit(zarr.open_array(tmp_path / "a.zarr", path="X"), np.ones(40))
    metadata = sorted(
        path for path in (tmp_path / "a.zarr").rglob("*") if path.name[0] in "z." and path.is_file()
    )
    assert len(metadata) >= 3
    for path in metadata:
        kept = path.read_bytes()
        make(path)
        with pytest.raises(DataError, match=f"{path}: is a .*, expected a file"):
            open_dataset(tmp_path / "a.zarr")
        path.unlink()
        path.write_bytes(kept)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_special_files_in_networks_and_checkpoints_are_refused(make, tmp_path, rng):
    X = rng.normal(size=(60, 2))
    model = AltReLURegressor(2, method="alternating", max_iter=2, random_state=0)
    model.set_params(checkpoint=tmp_path / "run").fit(X, X[:, 0])
    model.save(tmp_path / "m.zarr")
    for path in [path for path in (tmp_path / "m.zarr").rglob("*") if path.is_file()]:
        kept = path.read_bytes()
        make(path)
        with pytest.raises(ModelFileError, match=f"{path}: is a .*, expected a file"):
            Network.load(tmp_path / "m.zarr")
        path.unlink()
        path.write_bytes(kept)
    assert Network.load(tmp_path / "m.zarr").n_features == 2
    make(tmp_path / "n.zarr")
    with pytest.raises(ModelFileError, match="expected a file"):
        Network.load(tmp_path / "n.zarr")
    newest = max((tmp_path / "run").glob("*.bin"))
    make(newest)
    with pytest.raises(CheckpointError, match=r"expected a file|not a regular file"):
        CheckpointStore(tmp_path / "run").load()
    newest.unlink()
    make(tmp_path / "run/lock")
    with (
        pytest.raises(CheckpointError, match=r"expected a file|not a regular file"),
        CheckpointStore(tmp_path / "run").owned(),
    ):
        pass


def test_standard_input_is_refused(frame):
    command = [str(Path(sys.executable).with_name("altrelu")), "info", "/dev/stdin"]
    done = subprocess.run(
        command, input=frame.to_csv(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: /dev/stdin: is a named pipe")


# --- what stands for a missing value --------------------------------------------------------------

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


def test_addresses_of_servers_are_known_by_their_path(frame, tmp_path):
    class Shop(fsspec.get_filesystem_class("memory")):
        protocol = "http"

        def _open(self, path, mode="rb", **_):
            assert path.endswith("?sig=a/b")
            return open(write(frame, tmp_path / "t.csv"), mode)

        def info(self, path, **_):
            return {"name": path, "size": 9, "type": "file"}

        @classmethod
        def _strip_protocol(cls, path):
            return path

        def unstrip_protocol(self, name):
            return name

    fsspec.register_implementation("http", Shop, clobber=True)
    try:
        data = open_dataset("http://h/t.csv?sig=a/b", target="y")
        np.testing.assert_array_equal(data.y[:, 0].compute(), frame["y"])
    except AltReLUError as error:
        pytest.fail(str(error))
    finally:
        fsspec.register_implementation(
            "http", "fsspec.implementations.http.HTTPFileSystem", clobber=True
        )
