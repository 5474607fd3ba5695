"""Writing outputs whole or not at all, and never over what is not theirs to replace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from processes import environment

from altrelu_dist import Network, convert
from altrelu_dist.data import open_dataset
from altrelu_dist.errors import DataError, ExistsError, ModelFileError, ParameterError
from altrelu_dist.io.owner import Owner
from altrelu_dist.outputs import check_apart, check_output, local, recovered, write_beside


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
        ("a.csv", None, False, "was created meanwhile"),
        ("a.zarr", "apple", False, "was created meanwhile"),
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
    with pytest.raises(ParameterError, match=r"an input|the inputs"):
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


@pytest.mark.parametrize("can_exchange", [False, True])
def test_what_is_put_into_a_place_at_the_last_moment_is_not_taken_away(
    can_exchange, tmp_path, monkeypatch
):
    rename = Path.rename

    def late(self, target):
        monkeypatch.undo()
        if not can_exchange:
            monkeypatch.setattr(local, "exchange", lambda *_: False)
        with write_beside(target, overwrite=True, kind="apple") as part:
            write_group(Path(part), "apple")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with (
        pytest.raises(ExistsError, match="was created meanwhile"),
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
    for address in (beside, out):
        assert Network.load(address).hidden_weights[0, 0] == 2
    memory.rm(beside, recursive=True)
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
    with pytest.raises(ParameterError, match="lies inside an input"):
        check_apart("s3://b/rows.zarr/out.zarr", "s3://b/rows.zarr")
    check_apart("s3://b/out.zarr", "s3://b/rows.zarr", "rows.zarr")


@pytest.mark.parametrize("found", ["elsewhere", "../m.zarr", "s3://other/m.zarr", "", 1, None])
def test_no_reader_is_led_to_what_a_file_in_storage_names(found, memory):
    """But to a copy beside the place, of the name that a writer gives."""
    mark = {"format": "apple", "whole": found}
    memory.pipe_file("/here/m.zarr/altrelu-incomplete.json", json.dumps(mark).encode())
    assert recovered("memory://here/m.zarr") is None
    mark["whole"] = f".m.{'0' * 16}.partial.zarr"
    memory.pipe_file("/here/m.zarr/altrelu-incomplete.json", json.dumps(mark).encode())
    assert recovered("memory://here/m.zarr") == f"memory://here/.m.{'0' * 16}.partial.zarr"


# --- killed -----------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
from altrelu_dist.outputs import local, recovered, write_beside

folder, can_exchange, existing, is_file = Path(sys.argv[1]), *map(int, sys.argv[2:])
STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "exchange"}
kind = None if is_file else "apple"
place = folder / ("p.csv" if is_file else "m.zarr")
left = None  # steps until this process is killed

def step(name, arguments=()):
    global left
    if left is not None and name in STEPS:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

exchange = local.exchange
def observed(*names):
    step("exchange")
    return exchange(*names) if can_exchange else False
local.exchange = observed
sys.addaudithook(step)

def write(text, overwrite):
    with write_beside(place, overwrite=overwrite, kind=kind) as part:
        if is_file:
            Path(part).write_text(text)
            return
        Path(part, "c").mkdir(parents=True)
        Path(part, "c", "0").write_text(text)
        Path(part, "zarr.json").write_text(json.dumps({"attributes": {"format": kind}}))

def found():
    if not place.exists():
        recovered(place)
    if not place.exists():
        return None
    if is_file:
        return place.read_text()
    assert sorted(os.listdir(place)) == ["c", "zarr.json"]
    return (place / "c" / "0").read_text()

def write_and_die(steps):
    global left
    child = os.fork()
    if child == 0:
        left = steps
        write("new", existing)
        left = None
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0

killed, seen, steps = True, set(), 0
while killed:
    local._remove(folder)
    folder.mkdir()
    if existing:
        write("old", False)
    killed = write_and_die(steps)
    seen.add(now := found())
    assert killed or now == "new", now
    write("newer", True)
    assert found() == "newer"
    rest = [path for path in folder.iterdir() if path != place]
    assert not any(os.path.getsize(file) for path in rest for file in path.iterdir()), rest
    steps += 1
assert steps > 8, steps
assert seen == {"old" if existing else None, "new"}, seen
"""


@pytest.mark.parametrize(
    ("can_exchange", "existing", "is_file"),
    [(1, 1, 0), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 1)],
)
def test_a_writer_that_is_killed_at_any_step_leaves_the_old_or_the_new_one(
    can_exchange, existing, is_file, tmp_path
):
    """And the next one removes what it left."""
    flags = map(str, (can_exchange, existing, is_file))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "f", *flags],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def swap_cut_off(path):
    """What a process leaves that is killed between the two renames of an exchange."""
    folder = path.with_name(f".{path.name}.abcd1234.partial")
    folder.mkdir()
    path.rename(folder / f"{path.name}.old")
    return folder


def test_a_reader_puts_right_what_a_killed_writer_left(tmp_path):
    place = tmp_path / "m.zarr"
    a_network(1.0).save(place)
    folder = swap_cut_off(place)
    assert recovered(place) is None  # the new one is not there: the old one was removed since
    a_network(2.0).save(folder / "m.zarr")
    assert recovered(tmp_path / "m") is None
    with pytest.raises(ExistsError, match="exists already"):
        check_output(place, overwrite=False, kind="any")
    assert Network.load(place).hidden_weights[0, 0] == 2


def test_data_are_found_too(tmp_path):
    np.savez(tmp_path / "d.npz", X=np.ones((3, 2)), y=np.ones(3))
    convert(tmp_path / "d.npz", tmp_path / "d.zarr")
    folder = swap_cut_off(tmp_path / "d.zarr")
    convert(tmp_path / "d.npz", folder / "d.zarr")
    assert open_dataset(tmp_path / "d.zarr").X.shape == (3, 2)


def test_a_writer_that_was_taken_for_dead_between_its_renames_is_content(tmp_path, monkeypatch):
    place = tmp_path / "m.zarr"
    a_network(1.0).save(place)
    monkeypatch.setattr(local, "exchange", lambda *_: False)
    rename = Path.rename

    def frozen(self, target):
        if target == place:
            monkeypatch.setattr(Path, "rename", rename)
            assert Network.load(place).hidden_weights[0, 0] == 2
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", frozen)
    a_network(2.0).save(place, overwrite=True)
    assert Network.load(place).hidden_weights[0, 0] == 2
    assert names_in(tmp_path) == ["m.zarr"]


def test_only_folders_of_dead_writers_are_removed(tmp_path):
    place = tmp_path / "m.zarr"
    dead = replace(Owner.this(), started="1")
    for name, owner in (("dead0000", dead), ("alive000", Owner.this()), ("elsewher", None)):
        folder = tmp_path / f".m.zarr.{name}.partial"
        folder.mkdir()
        (folder / "m.zarr").touch()
        owner = owner or replace(dead, host="elsewhere")
        (folder / "m.zarr.owner").write_bytes(owner.encode())
    (tmp_path / ".m.zarr.nobodys0.partial").mkdir()
    (tmp_path / ".m.zarr.link0000.partial").symlink_to(tmp_path / ".m.zarr.dead0000.partial")
    a_network(1.0).save(place)
    assert names_in(tmp_path) == [
        f".m.zarr.{name}.partial" for name in ("alive000", "elsewher", "link0000", "nobodys0")
    ] + ["m.zarr"]


@pytest.mark.timeout(60)
def test_a_fifo_for_metadata_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / "m.zarr").mkdir()
    os.mkfifo(tmp_path / "m.zarr" / "zarr.json")
    with pytest.raises(ExistsError, match="is not an altrelu-dist network"):
        check_output(tmp_path / "m.zarr", overwrite=True, kind="altrelu-dist network")
