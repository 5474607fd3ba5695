"""Every kind of data that cannot be used gets one line that names the file and the trouble."""

from __future__ import annotations

import gzip
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import zarr

from altrelu_dist.data import convert, describe, open_dataset
from altrelu_dist.errors import DataError

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 0.125], "y": [1.0, 0.0, 1.0]})


def refused(make, tmp_path, *, target="y", **options):
    """Refusals of opening (or computing), of describing and of converting; one line each."""
    (tmp_path / "data").mkdir()
    address = make(tmp_path / "data")
    (tmp_path / "old.zarr").mkdir()
    before = '{"attributes": {"format": "altrelu-dataset"}, "note": "as it was"}'
    (tmp_path / "old.zarr/zarr.json").write_text(before)
    messages = []
    for act in (
        lambda: open_dataset(address, target=target).X.compute(scheduler="sync"),
        lambda: describe(address, target=target),
        lambda: convert(address, tmp_path / "old.zarr", target=target, overwrite=True, **options),
    ):
        try:
            act()
        except DataError as error:
            messages.append(str(error))
    assert (tmp_path / "old.zarr/zarr.json").read_text() == before
    assert not list(tmp_path.glob(".*partial*"))
    assert all("\n" not in message for message in messages)
    return messages


def csv(text):
    def make(folder):
        (folder / "a.csv").write_text(text)
        return folder / "a.csv"

    return make


def file(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def frame(name, table, **options):
    def make(folder):
        save = table.to_parquet if name.endswith(".parquet") else table.to_csv
        save(folder / name, **options)
        return folder / name

    return make


def cut(make, keep):
    def shorter(folder):
        path = make(folder)
        content = path.read_bytes()
        path.write_bytes(content[: keep if keep > 0 else len(content) + keep])
        return path

    return shorter


def npz(**arrays):
    def make(folder):
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return make


def npy(X, y):
    def make(folder):
        np.save(folder / "X.npy", X)
        np.save(folder / "y.npy", y)
        return folder / "X.npy"

    return make


def in_zarr(**arrays):
    def make(folder):
        group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
        for name, values in arrays.items():
            group.create_array(name, shape=values.shape, dtype=values.dtype)[...] = values
        return folder / "a.zarr"

    return make


def gz(text, keep=None):
    return file("a.csv.gz", gzip.compress(text)[:keep])


def folder_of(**files):
    def make(folder):
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)
        return folder

    return make


LONG_CSV = b"a,y\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(5000))

ALWAYS = {
    "missing file": (lambda folder: folder / "none.csv", "no such file or folder"),
    "missing store": (lambda folder: folder / "none.zarr", "no such file or folder"),
    "empty glob": (lambda folder: folder / "*.csv", "no such file or folder"),
    "empty folder": (lambda folder: folder, "nothing in this folder"),
    "empty csv": (file("a.csv", b""), "is empty"),
    "empty parquet": (file("a.parquet", b""), "is empty"),
    "empty npz": (file("a.npz", b""), "is empty"),
    "empty gzip": (gz(b""), "no column names"),
    "unknown ending": (file("a.xlsx", b"PK"), "not a format that can be read"),
    "mixed folder": (folder_of(a_csv="a,y\n1,2", b_parquet="PAR1"), "several formats"),
    "csv that is parquet": (
        lambda folder: frame("a.parquet", FRAME)(folder).rename(folder / "a.csv"),
        "a.csv: .*CSV",
    ),
    "csv of one line": (csv("a,y"), "has no rows"),
    "csv of a header": (csv("a,y\n\n\n"), "has no rows"),
    "csv without a header": (csv("1,2\n3,4\n"), "first line holds numbers"),
    "csv in latin-1": (file("a.csv", "größe,y\n1,2\n".encode("latin-1")), "a.csv: .*decode"),
    "csv with two equal names": (csv("a,y,a\n1,2,3\n"), "two columns are named a"),
    "csv with a short row": (csv("a,b,y\n1,2,3\n4,5\n"), "after row 0.*Expected 3 columns, got 2"),
    "csv with text late": (
        file("a.csv", b"a,y\n" + b"123456,7.5\n" * 100_000 + b"oops,1\n"),
        r"a.csv: column a, row 100000: 'oops' is not a number",
    ),
    "csv without the target": (csv("a,b\n1,2\n"), "no column y; columns: a, b"),
    "csv of only the target": (csv("y\n1\n"), "no feature columns"),
    "csv with texts that all differ": (
        csv("c,y\n" + "".join(f"town {i},2\n" for i in range(60))),
        "a.csv: no feature columns left: all are texts that name their rows",
    ),
    "gzip that is not": (file("a.csv.gz", b"a,y\n1,2\n"), "a.csv.gz: .*gzip"),
    "gzip cut short": (gz(LONG_CSV, 5000), "a.csv.gz: .*end-of-stream"),
    "parquet that is csv": (file("a.parquet", b"a,y\n1,2\n3,4\n"), "not a Parquet file"),
    "parquet cut short": (cut(frame("a.parquet", FRAME), -30), "not a Parquet file, or cut short"),
    "parquet of no rows": (frame("a.parquet", FRAME[:0]), "has no rows"),
    "parquet without the target": (frame("a.parquet", FRAME[["a"]]), "no column y"),
    "parquet with bytes that are no text": (
        frame("a.parquet", FRAME.assign(t=[b"\xff\xfe"] * 3)),
        r"a.parquet: cannot be read: .*UTF8",
    ),
    "parquet with a list": (frame("a.parquet", FRAME.assign(v=[[1]] * 3)), r"v \(list"),
    "npz that is not": (file("a.npz", b"hello"), "not an .npz file"),
    "npz cut short": (cut(npz(X=np.eye(3), y=np.ones(3)), -100), "not an .npz file, or cut short"),
    "npz without X": (npz(data=np.eye(3), y=np.ones(3)), "no array X; arrays: data, y"),
    "npz without the target": (npz(X=np.eye(3)), "no array y"),
    "npz with text": (npz(X=np.eye(2), y=np.array(["a", "b"])), "array y holds <U1, not numbers"),
    "npz with objects": (npz(X=np.eye(2).astype(object), y=np.ones(2)), "holds object"),
    "npz with complex numbers": (npz(X=np.eye(2) * 1j, y=np.ones(2)), "holds complex128"),
    "npz with other rows": (npz(X=np.eye(3), y=np.ones(2)), "array y has 2 rows, X has 3"),
    "npz with one axis": (npz(X=np.ones(3), y=np.ones(3)), r"array X has shape \(3,\)"),
    "npz with three axes": (npz(X=np.eye(3), y=np.ones((3, 1, 1))), "array y has shape"),
    "npz of no rows": (npz(X=np.ones((0, 2)), y=np.ones(0)), "has no rows"),
    "npz of no features": (npz(X=np.ones((3, 0)), y=np.ones(3)), "array X has no columns"),
    "npz of no targets": (npz(X=np.eye(3), y=np.ones((3, 0))), "array y has no columns"),
    "npy with other rows": (npy(np.eye(3), np.ones(4)), "y has 4 rows, X has 3"),
    "npy cut short": (cut(npy(np.eye(9), np.ones(9)), -8), "cut short: 768 of 776 bytes"),
    "npy that is not": (file("X.npy", b"hello, this is text"), "not an .npy file"),
    "zarr that is a file": (file("a.zarr", b"hello"), "not a Zarr store"),
    "zarr without X": (in_zarr(data=np.eye(3), y=np.ones(3)), "no array X; arrays: "),
    "zarr without the target": (in_zarr(X=np.eye(3)), "no array y|no target array"),
    "zarr with other rows": (in_zarr(X=np.eye(3), y=np.ones(2)), "array y has 2 rows"),
    "zarr with text": (in_zarr(X=np.eye(2), y=np.array(["a", "b"])), "not numbers"),
    "zarr of no rows": (in_zarr(X=np.ones((0, 2)), y=np.ones(0)), "has no rows"),
    "foreign scheme": (lambda _: "nothere://bucket/a.csv", "nothere"),
}


@pytest.mark.parametrize("case", ALWAYS)
def test_refused_by_every_way_in(case, tmp_path):
    make, pattern = ALWAYS[case]
    messages = refused(make, tmp_path, target=None if case.startswith("npy") else "y")
    assert len(messages) == 3
    for message in messages:
        assert re.search(pattern, message), message


@pytest.fixture
def store(tmp_path):
    """A store of three chunks."""
    X = np.random.default_rng(0).normal(size=(10_000, 3))
    np.savez(tmp_path / "a.npz", X=X, y=X[:, 0])
    convert(tmp_path / "a.npz", tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
    ],
    ids=["a bit flipped", "cut short", "emptied"],
)
@pytest.mark.parametrize(
    ("chunk", "rows"), [("X/c/1/0", "4096 to 8191"), ("y/c/2/0", "8192 to 9999")]
)
def test_damaged_chunk_is_found_and_named(damage, chunk, rows, store):
    damage(store / chunk)
    pattern = f"a.zarr: array {chunk[0]}, rows {rows}: chunk file {chunk} cannot be used: ."
    with pytest.raises(DataError, match=pattern):
        describe(store)
    with pytest.raises(DataError, match=pattern):
        convert(store, store.parent / "b.zarr")
    assert not (store.parent / "b.zarr").exists()


def test_lost_chunk_is_found_on_opening_and_on_reading(store):
    dataset = open_dataset(store)
    (store / "y/c/1/0").unlink()
    with pytest.raises(DataError, match=r"array y, rows 4096 to 8191: chunk file y/c/1/0.*missing"):
        dataset.y.compute(scheduler="sync")
    with pytest.raises(DataError, match="1 of 3 chunks missing, first y/c/1/0"):
        open_dataset(store)


def test_damaged_chunk_of_another_store_is_named(tmp_path):
    path = in_zarr(X=np.random.default_rng(0).normal(size=(100, 2)), y=np.ones(100))(tmp_path)
    (path / "X/0.0").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"array X, rows 0 to 99: chunk file X/0.0"):
        describe(path)


def edit(store, **attributes):
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"] |= attributes
    (store / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("attributes", "pattern"),
    [
        ({"format_version": 6}, "format version 6 is newer than 5.*install"),
        ({"format_version": None}, "damaged"),
        ({"feature_names": ["a"]}, "damaged: its metadata contradict"),
        ({"feature_names": 3}, "damaged"),
        ({"feature_names": ["a", "b", 3]}, "damaged"),
        ({"rows": 5}, "damaged: its metadata contradict"),
        ({"target_names": []}, "damaged|without a target"),
        ({"format": "altrelu-network"}, "format altrelu-network, not a data set"),
    ],
)
def test_metadata_that_do_not_fit(attributes, pattern, store):
    edit(store, **attributes)
    with pytest.raises(DataError, match=pattern):
        open_dataset(store)


@pytest.mark.parametrize("name", ["zarr.json", "X/zarr.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0\1\2"])
def test_metadata_that_cannot_be_read(name, content, store):
    (store / name).write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zarr: "):
        open_dataset(store)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"10000", b"999999999999999999"),
        (b"10000", b"-1"),
        (b"4096", b"0"),
        (b"4096", b"4095"),
        (b"float64", b"float32"),
    ],
)
@pytest.mark.parametrize("name", ["X", "y"])
def test_metadata_that_are_wrong(old, new, name, store):
    """A damaged size is found, and neither believed nor allocated."""
    path = store / name / "zarr.json"
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(DataError, match=r"a\.zarr: "):
        describe(store)


@pytest.mark.parametrize("shape", [(-1, 2), (0, 10**18), (10**18, 1), (5, -3)])
def test_npy_of_a_shape_that_cannot_be(shape, tmp_path):
    with (tmp_path / "X.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(80))
    with pytest.raises(DataError, match=r"X\.npy: |X has"):
        open_dataset(tmp_path / "X.npy", require_target=False)


def test_store_of_another_target(store):
    with pytest.raises(DataError, match="has the target y, not price: convert it again"):
        open_dataset(store, target="price")


def test_data_that_changes_after_it_was_opened(store):
    dataset = open_dataset(store)
    np.savez(store.parent / "a.npz", X=np.eye(3), y=np.ones(3))
    convert(store.parent / "a.npz", store, overwrite=True)
    with pytest.raises(DataError, match="has changed since it was opened"):
        dataset.X.compute(scheduler="sync")
    for name, save in (("b.parquet", FRAME.to_parquet), ("b.csv", FRAME.to_csv)):
        path = store.parent / name
        save(path, index=False)
        dataset = open_dataset(path, target="y")
        getattr(FRAME[:1], save.__name__)(path, index=False)
        with pytest.raises(DataError, match="has changed since it was opened"):
            dataset.X.compute(scheduler="sync")
    path.unlink()
    with pytest.raises(DataError, match=r"b\.csv: cannot be read"):
        dataset.X.compute(scheduler="sync")


def test_parts_that_differ(tmp_path):
    FRAME.to_parquet(tmp_path / "p1.parquet")
    FRAME.rename(columns={"b": "c"}).to_parquet(tmp_path / "p2.parquet")
    with pytest.raises(DataError, match=r"p2\.parquet: other features than .*p1\.parquet: b, c"):
        open_dataset(tmp_path, target="y")
    FRAME[["b", "a", "y"]].to_parquet(tmp_path / "p2.parquet")
    with pytest.raises(DataError, match="their order"):
        open_dataset(tmp_path, target="y")
    (tmp_path / "p2.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"p2\.parquet: is empty"):
        open_dataset(tmp_path, target="y")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_member_of_an_npz(save, tmp_path):
    save(tmp_path / "a.npz", X=np.random.default_rng(0).normal(size=(2000, 2)), y=np.ones(2000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[9000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: "):
        describe(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz: damaged"):
        convert(tmp_path / "a.npz", tmp_path / "a.zarr")


def test_damaged_page_of_a_parquet_file(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(3000, 2)), columns=["a", "y"])
    table.to_parquet(tmp_path / "a.parquet", write_page_checksum=True)
    flip(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: rows 0 to 2999 cannot be read: ."):
        describe(tmp_path / "a.parquet", target="y")
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read: ."):
        convert(tmp_path / "a.parquet", tmp_path / "a.zarr", target="y")


def test_npy_without_a_partner_has_no_target(tmp_path):
    np.save(tmp_path / "data.npy", np.eye(2))
    with pytest.raises(DataError, match=r"data\.npy: no target array y"):
        open_dataset(tmp_path / "data.npy")


def test_one_row_can_be_opened(tmp_path):
    FRAME[:1].to_csv(tmp_path / "a.csv", index=False)
    assert open_dataset(tmp_path / "a.csv", target="y").X.shape == (1, 2)
    assert convert(tmp_path / "a.csv", tmp_path / "a.zarr", target="y").rows == 1


def test_store_of_any_name_and_through_a_link(store):
    """A store is known by what is in it, whatever its name."""
    shutil.move(store, store.parent / "plain")
    assert open_dataset(store.parent / "plain").X.shape == (10_000, 3)
    (store.parent / "link").symlink_to(store.parent / "plain")
    assert open_dataset(store.parent / "link").X.shape == (10_000, 3)
