"""Writing outputs whole or not at all, and never over what is not theirs to replace."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from altrelu_dist import Network
from altrelu_dist.errors import DataError, ExistsError, ModelFileError, ParameterError
from altrelu_dist.outputs import check_apart, check_output, write_beside


def names_in(folder):
    return sorted(os.listdir(folder))


def write_group(path, kind):
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("a", data=np.arange(3))
    group.attrs["format"] = kind


def kind_of(path):
    return zarr.open_group(path, mode="r").attrs["format"]


def test_the_old_one_comes_back_if_the_swap_fails(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with (
        pytest.raises(DataError, match="cannot be written"),
        write_beside(tmp_path / "a.csv", overwrite=True) as partial,
    ):
        pass  # nothing was written, so that the second rename fails
    assert (tmp_path / "a.csv").read_text() == "old"
    assert names_in(tmp_path) == ["a.csv"]
    with write_beside(tmp_path / "a.csv", overwrite=True) as partial:
        Path(partial).write_text("new")
    assert (tmp_path / "a.csv").read_text() == "new"
    assert names_in(tmp_path) == ["a.csv"]
    check_output(tmp_path / "b.csv", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_where_nothing_is(overwrite, tmp_path):
    with write_beside(tmp_path / "a.csv", overwrite=overwrite) as partial:
        assert Path(partial).suffix == ".csv"
        assert not Path(partial).exists()
        Path(partial).write_text("new")
    with write_beside(tmp_path / "b.zarr", overwrite=overwrite, kind="apple") as partial:
        write_group(Path(partial), "apple")
    assert (tmp_path / "a.csv").read_text() == "new"
    assert kind_of(tmp_path / "b.zarr") == "apple"
    assert names_in(tmp_path) == ["a.csv", "b.zarr"]


def put(path, kind):
    path.write_text(kind) if path.suffix == ".csv" else write_group(path, kind)


def written_too_late(path, *, overwrite, kind=None):
    """Write an output while another program writes something else to its place."""
    with write_beside(path, overwrite=overwrite, kind=kind) as partial:
        put(Path(partial), "apple")
        put(path, "stone")


@pytest.mark.parametrize(
    ("name", "kind", "overwrite", "words"),
    [
        ("a.csv", None, False, "has come into being in the meantime"),
        ("a.zarr", "apple", False, "has come into being in the meantime"),
        ("a.zarr", "apple", True, "is not an apple"),
    ],
)
def test_what_has_come_in_the_meantime_stays(name, kind, overwrite, words, tmp_path):
    with pytest.raises(ExistsError, match=words):
        written_too_late(tmp_path / name, overwrite=overwrite, kind=kind)
    found = tmp_path / name
    assert (kind_of(found) if found.is_dir() else found.read_text()) == "stone"
    assert names_in(tmp_path) == [name]


def test_only_its_own_kind_is_replaced(tmp_path):
    write_group(tmp_path / "apple", "apple")
    write_group(tmp_path / "stone", "stone")
    zarr.open_group(tmp_path / "bare", mode="w")
    (tmp_path / "file").write_text("text")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").touch()
    (tmp_path / "empty").mkdir()
    for name in ("apple", "empty"):
        check_output(tmp_path / name, overwrite=True, kind="apple")
        with pytest.raises(ExistsError, match="exists already"):
            check_output(tmp_path / name, overwrite=False, kind="apple")
    for name in ("stone", "bare", "file", "photos"):
        with pytest.raises(ExistsError, match=f"{name}: exists and is not an apple"):
            check_output(tmp_path / name, overwrite=True, kind="apple")
    check_output(tmp_path / "file", overwrite=True)
    for name in ("apple", "empty", "photos"):
        with pytest.raises(ExistsError, match="is a folder"):
            check_output(tmp_path / name, overwrite=True)


def test_a_reservation_that_cannot_be_filled_is_given_back(tmp_path):
    with (
        pytest.raises(DataError, match="cannot be written"),
        write_beside(tmp_path / "a.csv", overwrite=False),
    ):
        pass  # nothing was written: there is nothing to put in place
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("d.csv", "d.csv"),
        ("d.csv", "./x/../d.csv"),
        ("store", "store/part.csv"),
        ("store/out.csv", "store"),
        ("parts/c.csv", "parts/*.csv"),
        ("link.csv", "d.csv"),
    ],
)
def test_an_output_is_apart_from_what_it_is_made_from(out, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").touch()
    (tmp_path / "link.csv").symlink_to("d.csv")
    with pytest.raises(ParameterError, match="is not apart from"):
        check_apart(out, "elsewhere.csv", given)


def test_outputs_that_are_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_apart("d.csv", "d.parquet", "parts/*.csv", "s3://bucket/d.csv", "d.csv.gz")


def test_of_several_that_replace_the_same_each_is_whole(tmp_path):
    """And one that must not replace says so, and takes away nothing."""
    write_group(tmp_path / "a.zarr", "apple")
    begin, wrong = threading.Barrier(4), []

    def write(i):
        for _ in range(100):
            begin.wait(120)
            try:
                with write_beside(tmp_path / "a.zarr", overwrite=i > 0, kind="apple") as part:
                    write_group(Path(part), "apple")
            except ExistsError:
                assert i == 0
            except BaseException as error:
                wrong.append(error)
                begin.abort()
                raise

    with ThreadPoolExecutor(4) as pool:
        for _ in map(pool.submit, [write] * 4, range(4)):
            pass
    assert wrong == []
    assert kind_of(tmp_path / "a.zarr") == "apple"
    assert names_in(tmp_path) == ["a.zarr"]


def test_what_is_put_into_a_place_that_was_held_is_not_taken_away(tmp_path, monkeypatch):
    """Between holding the place and moving in, another one replaces the empty folder there."""
    replace = Path.replace

    def late(self, target):
        if target == tmp_path / "a.zarr":
            with write_beside(target, overwrite=True, kind="apple") as part:
                write_group(Path(part), "apple")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    with (
        pytest.raises(ExistsError, match="in the meantime"),
        write_beside(tmp_path / "a.zarr", overwrite=False, kind="apple") as part,
    ):
        write_group(Path(part), "apple")
    assert kind_of(tmp_path / "a.zarr") == "apple"
    assert names_in(tmp_path) == ["a.zarr"]


# --- storage ----------------------------------------------------------------------------------


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def a_network(value):
    return Network(np.full((2, 1), value), np.zeros(1), np.ones((1, 1)), np.zeros(1))


def test_a_network_in_storage_is_whole_or_not_there(memory):
    out = "memory://here/model.zarr"
    a_network(1.0).save(out)
    with pytest.raises(ExistsError, match="exists already"):
        a_network(2.0).save(out)
    assert Network.load(out).hidden_weights[0, 0] == 1
    a_network(2.0).save(out, overwrite=True)
    assert Network.load(out).hidden_weights[0, 0] == 2
    assert memory.ls("/here", detail=False) == ["/here/model.zarr"]


def test_what_cannot_be_put_in_place_in_storage_is_kept_beside(memory, monkeypatch):
    out = "memory://here/model.zarr"
    a_network(1.0).save(out)

    def broken(*_, **__):
        raise OSError("the connection is lost")

    monkeypatch.setattr(type(memory), "copy", broken)
    with pytest.raises(DataError, match="is whole at memory://here/") as told:
        a_network(2.0).save(out, overwrite=True)
    beside = str(told.value).rpartition(" ")[2]
    assert Network.load(beside).hidden_weights[0, 0] == 2
    with pytest.raises(ModelFileError):
        Network.load(out)


def test_an_interrupt_leaves_nothing_in_storage(memory):
    def interrupted():
        with write_beside("memory://here/a.csv", overwrite=False) as part:
            memory.pipe_file(part, b"1,2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not memory.find("/here")


@pytest.mark.parametrize(
    ("there", "kind", "words"),
    [("a.csv/b", None, "is a folder, which no file replaces"), ("a.zarr/b", "apple", "is not an")],
)
def test_in_storage_only_its_own_kind_is_replaced(there, kind, words, memory):
    memory.pipe_file(f"/here/{there}", b"1")
    address = f"memory://here/{there.partition('/')[0]}"
    with pytest.raises(ExistsError, match=words):
        check_output(address, overwrite=True, kind=kind)
    assert memory.cat_file(f"/here/{there}") == b"1"


def test_outputs_in_storage_are_apart_from_inputs():
    with pytest.raises(ParameterError, match="is not apart from"):
        check_apart("s3://b/rows.zarr/out.zarr", "s3://b/rows.zarr")
    check_apart("s3://b/out.zarr", "s3://b/rows.zarr", "rows.zarr")
