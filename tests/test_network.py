"""The network's forward pass and its file: complete or not at all, and the same bits back."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from oracles import same

from altrelu_dist import network as module
from altrelu_dist.errors import DataError, ExistsError, ModelFileError, ParameterError
from altrelu_dist.network import Network
from altrelu_dist.outputs import local


def random_network(rng, d=4, h=3, q=2, **more):
    return Network(
        rng.standard_normal((d, h)),
        rng.standard_normal(h),
        rng.standard_normal((h, q)),
        rng.standard_normal(q),
        **more,
    )


@pytest.fixture
def network(rng):
    return random_network(rng)


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The forward pass


@given(
    n=st.integers(0, 30),
    d=st.integers(1, 5),
    h=st.integers(1, 5),
    q=st.integers(1, 3),
    slope=st.sampled_from([0.0, 0.1]),
    dtype=st.sampled_from(["float64", "float32", "int8", "uint16", "bool"]),
)
def test_predicting_is_the_definition(n, d, h, q, slope, dtype):
    rng = np.random.default_rng(n)
    network = random_network(rng, d, h, q, negative_slope=slope)
    X = (3 * rng.standard_normal((n, d))).astype(dtype)
    z = X.astype(float) @ network.hidden_weights + network.hidden_bias
    expected = np.where(z > 0, z, slope * z) @ network.output_weights + network.output_bias
    found = network.predict(X)
    assert found.dtype == np.float64
    assert found.shape == (n, q)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_many_rows_are_predicted_a_few_at_a_time(rng, network, monkeypatch):
    X = rng.standard_normal((100, 4))
    whole = network.predict(X)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    assert network.predict(X) == pytest.approx(whole, rel=1e-13)
    assert network.predict(X.tolist()) == pytest.approx(whole, rel=1e-13)


@pytest.mark.parametrize("shape", [(5, 3), (5, 5), (4,), (2, 2, 4)])
def test_other_columns_are_refused(network, shape):
    with pytest.raises(DataError, match="takes 4 features"):
        network.predict(np.zeros(shape))


@pytest.mark.parametrize(
    ("part", "shape"), [("hidden_bias", 4), ("output_weights", (4, 2)), ("output_bias", 3)]
)
def test_layers_that_do_not_fit_are_refused(network, part, shape):
    with pytest.raises(ParameterError, match="do not fit each other"):
        dataclasses.replace(network, **{part: np.zeros(shape)})


def test_sizes(network):
    assert (network.n_features, network.n_hidden, network.n_targets) == (4, 3, 2)


# Saving and loading


@given(
    d=st.integers(1, 4),
    h=st.integers(1, 4),
    q=st.integers(1, 3),
    slope=st.sampled_from([0.0, 0.1, 1 / 3]),
    seed=st.integers(0, 99),
    named=st.booleans(),
    order=st.sampled_from("CF"),
)
def test_loaded_is_saved_to_the_last_bit(tmp_path_factory, d, h, q, slope, seed, named, order):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-300, 300)
    network = Network(
        np.asarray(rng.standard_normal((d, h)) * scale, order=order),
        rng.standard_normal(h),
        np.asarray(rng.standard_normal((h, q)), order=order),
        rng.standard_normal(q),
        negative_slope=slope,
        feature_names=tuple(f"ä {i}" for i in range(d)) if named else None,
        target_names=tuple(f"y{i}" for i in range(q)) if named else None,
        info={"history": [{"loss": 0.1}], "nothing": None},
    )
    path = tmp_path_factory.mktemp("network") / "model.zarr"
    network.save(path)
    loaded = Network.load(str(path))
    for field in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert same(getattr(loaded, field), getattr(network, field))
    assert loaded.negative_slope == network.negative_slope
    assert loaded.feature_names == network.feature_names
    assert loaded.target_names == network.target_names
    assert loaded.info == network.info
    X = rng.standard_normal((50, d)) / scale
    assert same(loaded.predict(X), network.predict(X))
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.zarr"]


def test_the_file_holds_arrays_and_json_only(network, tmp_path):
    network.save(tmp_path / "model.zarr")
    for path, content in files_of(tmp_path).items():
        if path.name == "zarr.json":
            json.loads(content)
        else:
            assert path.parent.name == "0" or path.parts[-2:] == ("c", "0"), path
    attrs = zarr.open_group(tmp_path / "model.zarr", mode="r").attrs
    assert attrs["format"] == "altrelu-network"
    assert attrs["format_version"] == 3


def test_an_existing_file_is_refused_and_stays(rng, network, tmp_path):
    path = tmp_path / "model.zarr"
    network.save(path)
    before = files_of(tmp_path)
    with pytest.raises(ExistsError, match=r"model\.zarr: exists already"):
        random_network(rng).save(path)
    with pytest.raises(FileExistsError):
        random_network(rng).save(path)
    assert files_of(tmp_path) == before


def test_overwriting_swaps(rng, network, tmp_path):
    path = tmp_path / "model.zarr"
    network.save(path)
    other = random_network(rng, 2, 2, 1)
    other.save(path, overwrite=True)
    assert same(Network.load(path).hidden_weights, other.hidden_weights)
    assert [p.name for p in tmp_path.iterdir()] == ["model.zarr"]


def test_a_plain_file_is_never_replaced(network, tmp_path):
    path = tmp_path / "model.zarr"
    path.write_text("something else")
    with pytest.raises(ExistsError, match="not an altrelu-network"):
        network.save(path, overwrite=True)
    assert path.read_text() == "something else"


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(28, "No space left on device"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_while_writing_leaves_what_was(
    rng, network, tmp_path, monkeypatch, error, seen, existing
):
    path = tmp_path / "model.zarr"
    if existing:
        network.save(path)
    before = files_of(tmp_path)
    create = zarr.Group.create_array
    written = []

    def failing(self, name, **kwargs):
        if written:
            raise error
        written.append(name)
        return create(self, name, **kwargs)

    monkeypatch.setattr(zarr.Group, "create_array", failing)
    with pytest.raises(seen) as caught:
        random_network(rng).save(path, overwrite=True)
    if seen is DataError:
        assert str(caught.value) == f"{path}: the disk is full; what was written is removed"
    assert written
    assert files_of(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["model.zarr"] if existing else [])


@pytest.mark.parametrize("error", [OSError("the disk\nwent away"), KeyboardInterrupt("went away")])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [0, 1])
def test_a_failure_while_swapping_leaves_one_whole_network(
    rng, network, tmp_path, monkeypatch, error, after, at
):
    """Before or after either of the two renames, where the two cannot be exchanged in one step."""
    monkeypatch.setattr(local, "exchange", lambda *_: False)
    path = tmp_path / "model.zarr"
    other = random_network(rng)
    network.save(path)
    rename, calls = type(path).rename, []

    def failing(self, target):
        calls.append(target)
        fails = len(calls) == at + 1
        if fails and not after:
            raise error
        moved = rename(self, target)
        if fails:
            raise error
        return moved

    monkeypatch.setattr(type(path), "rename", failing)
    expected = DataError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="went away") as caught:
        other.save(path, overwrite=True)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    kept = other if at == 1 and after else network
    assert same(Network.load(path).output_weights, kept.output_weights)
    assert [p.name for p in tmp_path.iterdir()] == ["model.zarr"]


def test_overwriting_through_a_link_replaces_what_it_leads_to(rng, network, tmp_path):
    network.save(tmp_path / "model.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "model.zarr")
    other = random_network(rng, 2, 2, 1)
    other.save(tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    assert same(Network.load(tmp_path / "model.zarr").hidden_weights, other.hidden_weights)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.zarr", "model.zarr"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(network, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"model\.zarr: cannot be written: .*denied$"):
        network.save(folder / "model.zarr")
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_line(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/model\.zarr: the folder .*file does not exist$"):
        network.save(tmp_path / "file" / "model.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "model.zarr"
    network.save(path)
    return path


def chunk_of(saved, name):
    return next(p for p in (saved / name).rglob("*") if p.is_file() and p.name != "zarr.json")


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def change_attrs(saved, **changes):
    meta = json.loads((saved / "zarr.json").read_text())
    for key, value in changes.items():
        if value is None:
            del meta["attributes"][key]
        else:
            meta["attributes"][key] = value
    (saved / "zarr.json").write_text(json.dumps(meta))


ARRAYS = ["hidden_weights", "hidden_bias", "output_weights", "output_bias"]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("harm", ["bit", "truncated", "empty", "missing", "no array"])
def test_damage_is_found(saved, name, harm):
    chunk = chunk_of(saved, name)
    if harm == "bit":
        damage_bit(chunk)
    elif harm == "truncated":
        chunk.write_bytes(chunk.read_bytes()[:-7])
    elif harm == "empty":
        chunk.write_bytes(b"")
    elif harm == "missing":
        chunk.unlink()
    else:
        shutil.rmtree(saved / name)
    with pytest.raises(ModelFileError, match=r"model\.zarr is damaged: .*\S") as caught:
        Network.load(saved)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_weights_that_are_not_numbers_are_damage(network, tmp_path):
    bad = dataclasses.replace(network, output_bias=np.array([1.0, np.nan]))
    bad.save(tmp_path / "model.zarr")
    with pytest.raises(ModelFileError, match="'output_bias' holds values that are not finite"):
        Network.load(tmp_path / "model.zarr")


def test_layers_of_two_networks_are_damage(rng, saved, tmp_path):
    random_network(rng, 4, 5, 2).save(tmp_path / "other.zarr")
    shutil.rmtree(saved / "output_weights")
    shutil.copytree(tmp_path / "other.zarr" / "output_weights", saved / "output_weights")
    with pytest.raises(ModelFileError, match="damaged: its checksum does not fit"):
        Network.load(saved)


def test_a_file_of_the_first_version_has_no_checksum(saved, network):
    change_attrs(saved, format_version=1, checksum=None)
    np.testing.assert_array_equal(Network.load(saved).hidden_weights, network.hidden_weights)


@pytest.mark.parametrize(
    "change",
    [
        {"negative_slope": 0.5},
        {"info": {"a": 1}},
        {"checksum": None},
        {"checksum": "0" * 64},
        {"format_version": 1},
        {"more": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_attributes_are_damage(saved, change):
    change_attrs(saved, **change)
    with pytest.raises(ModelFileError, match="damaged: its checksum does not fit"):
        Network.load(saved)


@pytest.mark.parametrize("version", [6, 99, "1", 1.5])
def test_a_newer_format_says_to_upgrade(saved, version):
    change_attrs(saved, format_version=version)
    with pytest.raises(ModelFileError, match=f"version {version!r}.*up to 5: upgrade"):
        Network.load(saved)


def test_attributes_that_are_missing_are_damage(saved):
    change_attrs(saved, negative_slope=None)
    with pytest.raises(ModelFileError, match="damaged"):
        Network.load(saved)


@pytest.mark.parametrize("what", ["nothing", "file", "folder", "group", "array", "text metadata"])
def test_what_is_not_a_network_is_named(tmp_path, what):
    path = tmp_path / "x.zarr"
    if what == "file":
        path.write_text("hello")
    elif what == "folder":
        path.mkdir()
    elif what == "group":
        zarr.open_group(path, mode="w")
    elif what == "array":
        zarr.create_array(path, data=np.zeros(3))
    elif what == "text metadata":
        path.mkdir()
        (path / "zarr.json").write_text("{not json")
    expected = "no such model" if what == "nothing" else "not a saved network"
    with pytest.raises(ModelFileError, match=expected) as caught:
        Network.load(path)
    assert "x.zarr" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_changes_nothing(saved):
    before = files_of(saved)
    Network.load(saved)
    assert files_of(saved) == before


def test_a_folder_that_is_not_a_network_is_never_replaced(network, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(ExistsError, match="not an altrelu-network"):
        network.save(folder, overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["chapter.tex"]
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]


def test_overwriting_a_link_leaves_what_it_points_to(network, tmp_path):
    network.save(tmp_path / "model.zarr")
    before = files_of(tmp_path / "model.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "model.zarr")
    network.save(tmp_path / "link.zarr", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.zarr", "model.zarr"]
    assert files_of(tmp_path / "model.zarr") == before


def test_networks_can_be_compared_and_held_in_sets(network):
    assert network == network
    assert network != dataclasses.replace(network)
    assert len({network, dataclasses.replace(network)}) == 2


def test_names_that_do_not_fit_are_refused(network):
    names = tuple(f"t{t}" for t in range(network.n_targets + 1))
    with pytest.raises(ParameterError, match="target_names has"):
        dataclasses.replace(network, target_names=names)
    with pytest.raises(ParameterError, match="feature_names has 1 names"):
        dataclasses.replace(network, feature_names=("a",))
