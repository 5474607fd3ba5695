"""Exports as files: where they are written, what is refused, and the command."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from test_exports import ENDINGS, LIGHT, by_onnx, network_of
from test_exports_tables import KINDS, table_network
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, Encoder, export
from altrelu_dist.cli.app import app
from altrelu_dist.encoding.standard import StandardColumns
from altrelu_dist.errors import DataError, ExistsError, ParameterError
from altrelu_dist.exports import TARGETS, made, registry


@dataclass(frozen=True, eq=False)
class Levels(StandardColumns):
    """A kind that no target knows."""


@pytest.mark.parametrize("to", TARGETS)
def test_a_kind_that_a_target_does_not_know_is_refused(to, monkeypatch):
    network, _ = network_of(0, encoder=())
    [block] = network.encoder.blocks
    levels = Levels(block.columns, block.center, block.scale)
    network = replace(network, encoder=Encoder(6, (levels,)))
    monkeypatch.setattr(registry, "find_spec", lambda _: True)
    with pytest.raises(ParameterError, match=f"'{to}', which .* kind Levels; no target can"):
        made(network, to)
    # A kind that a target is taught is held by it, and the others name it.
    module = importlib.import_module(f"altrelu_dist.exports.{TARGETS['numpy']}")
    taught = module.TARGET.blocks | {Levels: None}
    monkeypatch.setattr(module, "TARGET", replace(module.TARGET, blocks=taught))
    if to != "numpy":
        with pytest.raises(ParameterError, match=r"kind Levels; export to numpy$"):
            made(network, to)


# Files


@pytest.mark.parametrize("texts", [False, True])
def test_every_target_writes_its_file(texts, tmp_path):
    network, _ = table_network(0, kinds=KINDS, missing=[True] * 3) if texts else network_of(0)
    for to in LIGHT:
        path = tmp_path / f"m{ENDINGS[to]}"
        assert export(network, path, to=to) == path.stat().st_size
        first = path.read_bytes()
        with pytest.raises(ExistsError, match="exists already; use overwrite=True"):
            export(network, path, to=to)
        export(replace(network, output_bias=network.output_bias + 1), path, to=to, overwrite=True)
        assert path.read_bytes() != first
        export(network, path, to=to, overwrite=True)
        assert path.read_bytes() == first  # the same bytes for the same network
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted(ENDINGS[to] for to in LIGHT)


def test_an_address_of_storage_is_written():
    fsspec = pytest.importorskip("fsspec")
    network, _ = network_of(0)
    network.export("memory://exports/m.py", to="numpy")
    assert fsspec.filesystem("memory").cat_file("/exports/m.py").decode() == made(network, "numpy")


def test_a_failed_export_leaves_what_was_there(tmp_path, monkeypatch):
    network, _ = network_of(0)
    path = tmp_path / "m.c"
    path.write_text("mine")

    def full(self, _):
        Path(self).open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="the disk is full"):
        network.export(path, to="c", overwrite=True)
    assert path.read_text() == "mine"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("name", "to", "text"),
    [
        ("m.onnx", "java", r"to is 'java'; expected one of onnx, torch, sklearn, numpy, c$"),
        ("m.txt", "c", r"m.txt: its ending must be \.c for an export to c$"),
        ("nowhere/m.c", "c", "the folder .* does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, to, text):
    network, _ = network_of(0)
    with pytest.raises((DataError, ParameterError), match=text):
        network.export(tmp_path / name, to=to)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("to", "extra"), [("onnx", "export"), ("torch", "torch")])
def test_a_missing_library_names_its_extra(to, extra, tmp_path, monkeypatch):
    network, _ = network_of(0)
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=rf"needs the package {to}: .*altrelu-dist\[{extra}\]"):
        network.export(tmp_path / f"m{ENDINGS[to]}", to=to)


# The estimator and the command


def test_an_estimator_is_exported_as_its_network(tmp_path):
    model = AltReLURegressor(n_hidden=2, method="alternating", max_iter=1, random_state=0)
    with pytest.raises(NotFittedError):
        model.to_sklearn()
    X = np.linspace(-1, 1, 60)[:, None]
    model.fit(X, np.abs(X[:, 0]))
    assert by_onnx(model.to_onnx(), X)[:, 0] == pytest.approx(model.predict(X), rel=1e-12)
    assert model.to_sklearn().predict(X) == pytest.approx(model.predict(X), rel=1e-12)
    model.export(tmp_path / "m.py", to="numpy")
    assert (tmp_path / "m.py").read_text() == made(model.network_, "numpy")


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_writes_what_the_function_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, _ = network_of(0, named=True)
    network.save("m.zarr")
    for to in LIGHT:
        out = f"m{ENDINGS[to]}"
        done = run("m.zarr", "--to", to, "-o", out, "--json")
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        assert (record["to"], record["out"], record["bytes"]) == (to, out, Path(out).stat().st_size)
        network.export(f"again{ENDINGS[to]}", to=to)
        assert Path(out).read_bytes() == Path(f"again{ENDINGS[to]}").read_bytes()
    assert "saved: m.c" in run("m.zarr", "--to", "c", "--out", "m.c", "--overwrite").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["m.zarr", "--to", "java", "-o", "m.java"], "--to is 'java'; expected one of onnx, torch"),
        (["m.zarr", "--to", "c", "-o", "m.py"], "m.py: its ending must be .c"),
        (["m.zarr", "--to", "c", "-o", "mine.c"], "mine.c: exists already; use --overwrite"),
        (["m.zarr", "--to", "c", "-o", "m.zarr/m.c"], "lies inside an input"),
        (["none.zarr", "--to", "c", "-o", "m.c"], "none.zarr: no such model"),
    ],
)
def test_the_command_refuses_in_one_line(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network_of(0)[0].save("m.zarr")
    Path("mine.c").write_text("mine")
    done = run(*words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert Path("mine.c").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.zarr", "mine.c"]
