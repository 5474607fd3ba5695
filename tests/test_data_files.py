"""Files as others write them: in folders and archives, compressed, of further formats."""

from __future__ import annotations

import tarfile
import zipfile

import fsspec
import numpy as np
import pandas as pd
import pytest
from data_files import ROWS, assert_reads, rows_of_numbers, write
from pyarrow import feather
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, convert, open_dataset
from altrelu_dist.cli.app import app
from altrelu_dist.errors import AltReLUError, DataError
from altrelu_dist.links import absolute, split_chain, with_path

NAN = float("nan")


@pytest.fixture
def frame(rng):
    return rows_of_numbers(rng)


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
