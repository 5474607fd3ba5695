"""Data, networks, checkpoints and predictions in object storage: a real S3 server on loopback."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import s3fs
import zarr
from numcodecs import Blosc
from s3 import BUCKET, KEY, SECRET, environment, faulty, s3_server
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, Network, convert, open_dataset
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.cli.app import app
from altrelu_dist.errors import CheckpointError, DataError, ExistsError, ModelFileError

pytestmark = [
    pytest.mark.cluster,
    # Connections are closed when Python collects the file systems, which fsspec keeps.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
]

N, CHUNK = 20_000, 2048
NETWORK = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """The server behind a proxy; each test sets what that does."""
    with s3_server(tmp_path_factory.mktemp("s3")) as port, faulty(port) as (proxy, faults):
        yield proxy, faults


@pytest.fixture(autouse=True)
def storage(behind, monkeypatch):
    proxy, faults = behind
    for name, value in environment(proxy).items():
        monkeypatch.setenv(name, value)
    faults.injected = 0
    yield faults
    faults.rule = lambda *_: None


@pytest.fixture
def files():
    return s3fs.S3FileSystem(use_listings_cache=False)


def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 3))
    return X, np.abs(X[:, 0]) - X[:, 1]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    X, y = rows()
    file = tmp_path_factory.mktemp("table") / "rows.parquet"
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)
    frame.to_parquet(file, row_group_size=CHUNK, index=False)
    return file


def run(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in arguments])
    assert result.exit_code == code, result.output
    return result


def network_of(address):
    network = Network.load(address)
    return [getattr(network, name).tobytes() for name in NETWORK]


QUICK = ("--hidden", 6, "--method", "damped", "--max-iter", 3, "--workers", 0)


def test_everything_in_storage_is_as_on_this_machine(table, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {}
    for place in (f"s3://{BUCKET}/all", str(tmp_path)):
        run("convert", table, f"{place}/rows.zarr", "--target", "y")
        assert "nothing is damaged" in run("info", f"{place}/rows.zarr").stdout
        kept = ("--checkpoint", f"{place}/checkpoint")
        run("train", f"{place}/rows.zarr", "--out", f"{place}/model.zarr", *QUICK, *kept)
        run("evaluate", f"{place}/model.zarr", f"{place}/rows.zarr")
        for ending in ("parquet", "csv", "npy", "zarr"):
            out = f"{place}/predicted.{ending}"
            run("predict", f"{place}/model.zarr", f"{place}/rows.zarr", "--out", out)
        found[place] = network_of(f"{place}/model.zarr")
    assert found[f"s3://{BUCKET}/all"] == found[str(tmp_path)]
    for name in ("predicted.parquet", "predicted.csv", "predicted.npy"):
        assert files.cat_file(f"{BUCKET}/all/{name}") == (tmp_path / name).read_bytes()
    for name in ("rows.zarr", "model.zarr", "predicted.zarr"):
        there = {key.partition("/all/")[2] for key in files.find(f"{BUCKET}/all/{name}")}
        here = {str(file.relative_to(tmp_path)) for file in (tmp_path / name).rglob("*.*")}
        assert here <= there | {name}
    left = {key.split("/")[2] for key in files.find(f"{BUCKET}/all")}
    assert not [name for name in left if name.startswith(".")]


def test_a_run_goes_on_from_storage(table):
    address = f"s3://{BUCKET}/resumed"
    convert(table, f"{address}/rows.zarr", target="y")
    data = open_dataset(f"{address}/rows.zarr")
    options = {"n_hidden": 6, "method": "damped", "random_state": 0, "max_iter": 6}
    whole = AltReLURegressor(**options).fit(data.X, data.y)
    kept = {"checkpoint": f"{address}/checkpoint", "checkpoint_interval": 0}

    def stop(progress):
        return progress.iteration >= 3

    AltReLURegressor(**options, **kept, callback=stop).fit(data.X, data.y)
    again = AltReLURegressor(**options, **kept, resume=True).fit(data.X, data.y)
    for name in NETWORK:
        assert np.array_equal(getattr(again.network_, name), getattr(whole.network_, name))


@pytest.mark.parametrize(
    "options",
    [
        {"zarr_format": 2, "compressors": Blosc("lz4")},
        {"zarr_format": 3, "compressors": zarr.codecs.GzipCodec()},
        {"zarr_format": 3, "shards": (4 * CHUNK,), "compressors": zarr.codecs.ZstdCodec()},
        {"zarr_format": 3, "compressors": None},
    ],
    ids=["v2 Blosc", "v3 gzip", "v3 shards zstd", "v3 plain"],
)
@pytest.mark.parametrize("consolidated", [False, True])
def test_stores_of_others(options, consolidated, request):
    address = f"s3://{BUCKET}/{request.node.callspec.id.replace(' ', '-')}.zarr"
    kept = {name: value for name, value in options.items() if name != "zarr_format"}
    group = zarr.open_group(address, mode="w", zarr_format=options["zarr_format"])
    X, y = rows()
    for name, values in (("X", X), ("y", y)):
        tail = values.shape[1:]
        sharded = {"shards": (*kept["shards"], *tail)} if "shards" in kept else {}
        group.create_array(name, data=values, chunks=(CHUNK, *tail), **kept | sharded)
    if consolidated:
        zarr.consolidate_metadata(address)
    data = open_dataset(address)
    assert np.array_equal(data.X.compute(), X)
    assert np.array_equal(data.y.compute().ravel(), y)


def test_many_parquet_files_without_a_conversion(files, tmp_path):
    X, y = rows()
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)
    for i in range(8):
        frame[i::8].to_parquet(tmp_path / f"part-{i}.parquet", index=False)
        files.put(str(tmp_path / f"part-{i}.parquet"), f"{BUCKET}/parts/part-{i}.parquet")
    order = np.concatenate([np.arange(i, N, 8) for i in range(8)])
    for address in (f"s3://{BUCKET}/parts", f"s3://{BUCKET}/parts/*.parquet"):
        data = open_dataset(address, target="y")
        assert np.array_equal(data.X.compute(), X[order])
    out = f"s3://{BUCKET}/of-parts.zarr"
    run("train", f"s3://{BUCKET}/parts", "--target", "y", "--out", out, *QUICK)
    assert Network.load(out).feature_names == ("a", "b", "c")


# --- faults -----------------------------------------------------------------------------------


def every_third_read(how):
    """Of chunks; one that is tried again is given."""
    seen = Counter()

    def rule(method, path):
        if method != "GET" or "/c/" not in path:
            return None
        seen[path] += 1
        return how if sum(seen.values()) % 3 == 0 else None

    return rule


@pytest.mark.parametrize("how", ["503", "slow", "cut"])
def test_reads_that_fail_or_dawdle_change_nothing(how, table, storage):
    address = f"s3://{BUCKET}/{how}.zarr"
    convert(table, address, target="y")
    data = open_dataset(address)
    options = {"n_hidden": 4, "method": "alternating", "random_state": 0, "max_iter": 1}
    expected = AltReLURegressor(**options).fit(data.X, data.y).network_
    storage.rule = every_third_read(how)
    found = AltReLURegressor(**options).fit(data.X, data.y).network_
    assert storage.injected >= 3
    for name in NETWORK:
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_storage_that_is_away_for_a_while_changes_nothing(table, storage, caplog):
    """No connection comes about, where the rows are read."""
    convert(table, f"s3://{BUCKET}/away.zarr", target="y")
    data = open_dataset(f"s3://{BUCKET}/away.zarr")
    gone = threading.Event()

    def away():
        with storage.away():
            gone.set()
            time.sleep(10)

    def trained():
        model = AltReLURegressor(6, method="damped", max_iter=2, random_state=0)
        model.fit(data.X, data.y)
        return [getattr(model.network_, name).tobytes() for name in NETWORK]

    undisturbed = trained()
    thread = threading.Thread(target=away)
    thread.start()
    gone.wait()
    assert trained() == undisturbed
    thread.join()
    assert "trying again" in caplog.text


def test_no_run_ends_for_a_checkpoint_that_cannot_be_written(storage, caplog):
    store = CheckpointStore(f"s3://{BUCKET}/away")
    with store.owned():
        store.save({"n": 1})
        with storage.away():
            store.save({"n": 2})
            with pytest.raises(CheckpointError, match="cannot be read: Could not connect"):
                _ = store.newest
        assert "no checkpoint could be written" in caplog.text
        assert store.load() == {"n": 1}
        store.save({"n": 3})
    assert store.load() == {"n": 3}


def test_writes_that_fail_are_tried_again(table, storage, tmp_path):
    seen = Counter()

    def rule(method, path):
        seen[method, path] += method == "PUT"
        return "503" if seen[method, path] == 1 else None

    storage.rule = rule
    out = f"s3://{BUCKET}/written.zarr"
    run("train", table, "--target", "y", "--out", out, *QUICK)
    run("train", table, "--target", "y", "--out", tmp_path / "model.zarr", *QUICK)
    assert storage.injected > 5
    assert network_of(out) == network_of(tmp_path / "model.zarr")


def test_what_is_there_stays_where_the_new_one_cannot_be_written(storage):
    out = f"s3://{BUCKET}/kept.zarr"
    model = AltReLURegressor(2, method="alternating", max_iter=1, random_state=0).fit(*rows())
    model.save(out)
    before = network_of(out)
    with pytest.raises(ExistsError, match="exists already"):
        model.save(out)
    storage.rule = lambda _, path: "denied" if "output_bias" in path else None
    with pytest.raises(DataError, match="cannot be written"):
        model.save(out, overwrite=True)
    storage.rule = lambda *_: None
    assert network_of(out) == before
    other = f"s3://{BUCKET}/other.zarr"
    zarr.open_group(other, mode="w")
    with pytest.raises(ExistsError, match="is not an altrelu-network"):
        model.save(other, overwrite=True)


def test_wrong_credentials_are_one_line_without_a_secret(table, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    s3fs.S3FileSystem.clear_instance_cache()
    address = f"s3://{BUCKET}/none.zarr"
    began = time.monotonic()
    for arguments in (
        ("info", address),
        ("train", address, "--out", "m.zarr", *QUICK),
        ("train", table, "--target", "y", "--out", address, *QUICK),
        ("train", table, "--target", "y", "--out", "m.zarr", "--checkpoint", address, *QUICK),
        ("evaluate", address, table),
        ("predict", address, table, "--out", "p.csv"),
        ("convert", table, address, "--target", "y"),
    ):
        result = run(*arguments, code=1)
        line = result.stderr.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert address in line
        assert not [word for word in (KEY, SECRET, "AKIAWRONG") if word in result.output]
    s3fs.S3FileSystem.clear_instance_cache()
    assert time.monotonic() - began < 60


def test_a_bucket_that_is_not_there(table):
    address = "s3://no-such-bucket/x.zarr"
    assert "no-such-bucket" in run("info", address, code=1).stderr
    words = run("convert", table, address, "--target", "y", code=1).stderr
    assert "bucket does not exist" in words
    with pytest.raises(ModelFileError, match="no-such-bucket"):
        Network.load(address)


def test_a_network_that_was_being_put_in_place_is_put_there_again(storage, files):
    """Its process died when some of the files were there."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    model = AltReLURegressor(2, method="damped", max_iter=1).fit(X, X[:, 0])
    address, kept = f"s3://{BUCKET}/torn.zarr", f"{BUCKET}/torn.zarr"
    storage.rule = lambda how, path: (
        "denied" if how == "PUT" and path == f"/{kept}/zarr.json" else None
    )
    for overwrite in (False, True):
        with pytest.raises(DataError, match="cannot be put in place"):
            model.save(address, overwrite=overwrite)
        assert files.exists(f"{kept}/altrelu-incomplete.json")
        # What is whole beside it is read meanwhile.
        assert network_of(address) == [getattr(model.network_, n).tobytes() for n in NETWORK]
        storage.rule, denied = (lambda *_: None), storage.rule
        model.save(address)
        assert network_of(address) == [getattr(model.network_, n).tobytes() for n in NETWORK]
        assert not files.exists(f"{kept}/altrelu-incomplete.json")
        with pytest.raises(ExistsError):
            model.save(address)
        storage.rule = denied


def test_an_address_that_would_stand_for_many():
    model = AltReLURegressor(2, method="alternating", max_iter=1).fit(*rows())
    with pytest.raises(DataError, match="would stand for many files"):
        model.save(f"s3://{BUCKET}/*.zarr", overwrite=True)
