"""Damaged files of every kind, thousands of them: refused in a line, or read as they were."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from fuzzing import TARGETS, damaged, foreign, fuzz_all, read_data, write_own, write_table
from numcodecs import Blosc

from altrelu_dist import convert, open_dataset
from altrelu_dist.data import parquet_files
from altrelu_dist.errors import AltReLUError, DataError, ExistsError


def assert_nothing_found(reports):
    finds = [find for report in reports.values() for find in report.finds]
    assert not finds, "\n\n".join(finds[:10])
    for name, report in reports.items():
        assert report.outcomes["refused"] or name == "lock", name


@pytest.mark.parametrize("name", TARGETS)
def test_some_mutations_of_each_kind(name, tmp_path):
    for number, done, read in damaged(name, tmp_path, 0, range(15)):
        outcome, detail = read()
        assert outcome in ("read", "refused"), f"--first {number}: {done}: {outcome}\n{detail}"


@pytest.mark.slow
def test_four_thousand_mutations(capsys):
    with capsys.disabled():
        print()
        reports = fuzz_all(4_000, seed=0)
    assert sum(report.outcomes.total() for report in reports.values()) > 3_900
    assert_nothing_found(reports)


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_mutations(capsys):
    with capsys.disabled():
        print()
        reports = fuzz_all(100_000, seed=secrets.randbits(31))
    assert_nothing_found(reports)


# --- what it found --------------------------------------------------------------------------------


def test_an_error_is_one_printable_line():
    text = str(DataError("data.csv: Got \x00\n and \x1b[31m"))
    assert text == r"data.csv: Got \x00\n and \x1b[31m"
    assert len(str(DataError("y" * 10**6))) < 1100
    assert isinstance(ExistsError("m.zarr: exists"), AltReLUError)
    assert str(ExistsError("m.zarr: exists")) == "m.zarr: exists"


@pytest.fixture
def own(tmp_path):
    write_own(tmp_path)
    return tmp_path / "data.zarr"


def changed(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def big_endian(tree):
    (codec,) = (one for one in tree["codecs"] if one["name"] == "bytes")
    codec["configuration"]["endian"] = "big"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("X/zarr.json", big_endian),
        ("zarr.json", lambda tree: tree["attributes"]["target_names"].__setitem__(0, "z")),
        ("zarr.json", lambda tree: tree["attributes"].pop("metadata_checksum")),
    ],
    ids=["byte order", "names", "no checksum"],
)
def test_metadata_that_would_read_as_other_values(file, change, own):
    changed(own / file, change)
    with pytest.raises(DataError, match="the checksum of its metadata does not fit"):
        open_dataset(own)


def test_a_store_of_the_first_version_has_no_checksum(own, tmp_path):
    X, y, dtype, _, targets = read_data("data.zarr")(tmp_path)
    names = tuple(f"x{i}" for i in range(open_dataset(own).X.shape[1]))  # as it made them up

    def first(tree):
        del tree["attributes"]["metadata_checksum"]
        tree["attributes"].update(format_version=1, feature_names=names)

    changed(own / "zarr.json", first)
    assert read_data("data.zarr")(tmp_path) == (X, y, dtype, names, targets)


def blosc_header(change):
    def damage(chunk):
        content = bytearray(chunk.read_bytes())
        change(content)
        chunk.write_bytes(content)

    return damage


def longer(content):
    content[12:16] = (10**6).to_bytes(4, "little")


def cut_short(content):
    del content[-20:]


def no_header(content):
    del content[7:]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("change", [longer, cut_short, no_header])
def test_a_blosc_chunk_that_would_be_read_beyond_its_end(zarr_format, change, tmp_path):
    """It ended the process."""
    from zarr.codecs import BloscCodec

    kept = {2: Blosc("lz4"), 3: BloscCodec(cname="lz4")}[zarr_format]
    foreign(zarr_format, compressors=kept)(tmp_path)
    chunk = tmp_path / "data.zarr/X" / {2: "1.0", 3: "c/1/0"}[zarr_format]
    blosc_header(change)(chunk)
    with pytest.raises(DataError, match=rf"chunk file X/{'1.0' if zarr_format == 2 else 'c/1/0'}"):
        read_data("data.zarr")(tmp_path)


def test_blosc_chunks_that_are_whole_are_read(tmp_path):
    """Also those that are stored as they are, and that end beyond the last row."""
    values = np.random.default_rng(0).standard_normal((50, 3))
    group = zarr.open_group(tmp_path / "data.zarr", mode="w", zarr_format=2)
    for name, part in (("X", values), ("y", values[:, 0])):
        group.create_array(
            name, data=part, chunks=(20, *part.shape[1:]), compressors=Blosc("lz4", clevel=0)
        )
    np.testing.assert_array_equal(open_dataset(tmp_path / "data.zarr").X, values)


def test_a_row_group_of_less_than_no_rows(tmp_path, monkeypatch):
    """The sum was right all the same."""
    write_table("data.parquet")(tmp_path)
    monkeypatch.setattr(parquet_files, "_group_rows", lambda _: (100, -40))
    with pytest.raises(DataError, match=r"parquet: is damaged: a row group has -40 rows"):
        open_dataset(tmp_path / "data.parquet")


def test_a_damaged_store_is_not_converted(own, tmp_path):
    changed(own / "zarr.json", lambda tree: tree["attributes"].update(rows=61))
    with pytest.raises(DataError, match="damaged"):
        convert(own, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.slow
def test_a_find_can_be_made_again_from_the_command_line():
    arguments = ["--target", "npy", "--seed", "3", "--mutations", "200"]
    script = Path(__file__).with_name("fuzzing.py")
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "0 finds (--seed 3)" in done.stdout


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_not_damaged_is_read(name, tmp_path):
    one, again = tmp_path / "one", tmp_path / "again"
    one.mkdir()
    TARGETS[name].write(one)
    shutil.copytree(one, again)
    assert TARGETS[name].read(one) == TARGETS[name].read(again)
