"""Networks with an encoder: predictions, files, damage to them, folding in, warm starts."""

from __future__ import annotations

import dataclasses
import json
import shutil

import dask.array as da
import numpy as np
import pytest
from oracles import same
from sketched_rows import mixed, sketch_of

from altrelu_dist import AltReLURegressor, Network, evaluate
from altrelu_dist.encoding import Encoder
from altrelu_dist.engine import DaskEngine, LocalEngine
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.folding import folded
from altrelu_dist.moments import Rows
from altrelu_dist.prediction import predict_blocks
from altrelu_dist.warm_start import start_from


def network_on(X, h=5, q=1, seed=0, **more):
    rng = np.random.default_rng(seed)
    encoder = Encoder.learn(sketch_of(X))
    return Network(
        rng.standard_normal((encoder.n_columns, h)),
        rng.standard_normal(h),
        rng.standard_normal((h, q)),
        rng.standard_normal(q),
        encoder=encoder,
        **more,
    )


@pytest.fixture
def X(rng):
    return mixed(rng, 2500)


@pytest.fixture
def network(X):
    return network_on(X, target_range=np.array([[-2.0], [3.0]]))


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("q", [1, 3])
def test_predicting_is_the_definition_on_encoded_columns(X, slope, q):
    span = np.sort(np.random.default_rng(1).standard_normal((2, q)), axis=0)
    plain = network_on(X, q=q, negative_slope=slope)
    z = plain.encoder.transform(X) @ plain.hidden_weights + plain.hidden_bias
    hidden = np.where(z > 0, z, slope * z)
    expected = hidden @ plain.output_weights + plain.output_bias
    assert plain.n_features == 6
    assert plain.hidden_features(X) == pytest.approx(hidden, rel=1e-12, abs=1e-12)
    assert plain.predict(X) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    clipped = dataclasses.replace(plain, target_range=span)
    found = clipped.predict(X)
    assert found == pytest.approx(np.clip(expected, *span), rel=1e-12, abs=1e-12)
    assert (found.min(axis=0) == span[0]).all()


def test_blocks_of_dask_are_predicted_as_rows_in_memory(X, network):
    lazy = da.from_array(X, chunks=(700, -1))
    found = predict_blocks(network, lazy).compute(scheduler="sync")
    assert found == pytest.approx(network.predict(X), rel=1e-13)


def test_values_that_are_not_finite_are_not_taken_for_far_ones(X, network):
    for bad in (np.nan, np.inf):
        rows = X[:3].copy()
        rows[1, 0] = bad
        assert np.isnan(network.predict(rows))[:, 0].tolist() == [False, True, False]
        with pytest.raises(DataError, match="NaN or infinity"):
            evaluate(network, rows, np.zeros(3))
        with pytest.raises(DataError, match="NaN or infinity"):
            folded(network, LocalEngine.of(Rows(0, rows, np.zeros((3, 1)))), 0.0)


@pytest.mark.parametrize("ranged", [False, True])
@pytest.mark.parametrize("encoded", [False, True])
def test_loaded_is_saved_to_the_last_bit(X, network, tmp_path, ranged, encoded):
    if not ranged:
        network = dataclasses.replace(network, target_range=None)
    if not encoded:
        weights = network.hidden_weights[:6]
        network = dataclasses.replace(network, encoder=None, hidden_weights=weights)
    network.save(tmp_path / "m.zarr")
    loaded = Network.load(tmp_path / "m.zarr")
    assert loaded.encoder == network.encoder
    assert same(loaded.target_range, network.target_range)
    assert same(loaded.predict(X), network.predict(X))
    # Versions from before read networks that have neither.
    attributes = json.loads((tmp_path / "m.zarr" / "zarr.json").read_text())["attributes"]
    assert attributes["format_version"] == (4 if ranged or encoded else 3)
    assert ("encoder" in attributes) == encoded


@pytest.mark.parametrize("harm", ["bit", "missing", "no array", "other"])
def test_damage_to_the_encoder_or_range_is_found(X, network, tmp_path, harm):
    network.save(tmp_path / "m.zarr")
    other = network_on(X[:90] + 1, target_range=np.array([[0.0], [1.0]]))
    other.save(tmp_path / "o.zarr")
    theirs = other.encoder.to_arrays()
    encoders = network.encoder.to_arrays().items()
    names = [f"encoder_{name}" for name, values in encoders if not same(values, theirs[name])]
    assert len(names) > 5
    for name in [*names, "target_range"]:
        path = tmp_path / f"{name}.zarr"
        shutil.copytree(tmp_path / "m.zarr", path)
        chunk = next(p for p in (path / name).rglob("*") if p.is_file() and p.name != "zarr.json")
        if harm == "bit":
            content = bytearray(chunk.read_bytes())
            content[3] ^= 1
            chunk.write_bytes(content)
        elif harm == "missing":
            chunk.unlink()
        else:
            shutil.rmtree(path / name)
        if harm == "other":
            shutil.copytree(tmp_path / "o.zarr" / name, path / name)
        with pytest.raises(ModelFileError, match="is damaged"):
            Network.load(path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_network_with_an_encoder_is_not_taken_for_a_plain_one(network, tmp_path, version):
    network.save(tmp_path / "m.zarr")
    meta = json.loads((tmp_path / "m.zarr" / "zarr.json").read_text())
    meta["attributes"]["format_version"] = version
    del meta["attributes"]["checksum"]
    (tmp_path / "m.zarr" / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(ModelFileError, match=f"damaged: version {version} has no encoder"):
        Network.load(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoder": None, "feature_names": tuple("abcdef")}, "feature_names has 6 names"),
        ({"hidden_weights": np.zeros((3, 5))}, "the encoder makes .* columns"),
        ({"target_range": np.zeros((2, 2))}, r"target_range has shape \(2, 2\), expected \(2, 1\)"),
        ({"target_range": np.array([[1.0], [0.0]])}, "target_range has a least value above"),
    ],
)
def test_parts_that_do_not_fit_are_refused(network, change, text):
    with pytest.raises(ParameterError, match=text):
        dataclasses.replace(network, **change)


@pytest.mark.parametrize("lazy", [False, True])
def test_folding_in_rows_is_least_squares_on_the_hidden_features(X, lazy, rng):
    y = np.abs(X[:, :1]) + X[:, 3:4] + rng.standard_normal((len(X), 1))
    start = network_on(X[:1000], target_range=np.array([[0.0], [1.0]]))
    weight = rng.integers(0, 3, len(X)).astype(float)
    arrays = (X, y, weight[:, None])
    dasks = [da.from_array(a, chunks=(600, -1)) for a in arrays]
    engine = DaskEngine(*dasks) if lazy else LocalEngine.of(Rows(0, X, y, weight))
    found = folded(start, engine, 0.0)
    design = np.column_stack([start.hidden_features(X), np.ones(len(X))]) * weight[:, None] ** 0.5
    expected = np.linalg.lstsq(design, y * weight[:, None] ** 0.5, rcond=None)[0]
    assert np.vstack([found.output_weights, found.output_bias]) == pytest.approx(expected, rel=1e-6)
    assert found.encoder is start.encoder
    # The range is that of all training rows.
    counted = y[weight > 0]
    assert found.target_range[:, 0].tolist() == [min(0.0, counted.min()), max(1.0, counted.max())]


def test_an_estimator_takes_a_network_with_an_encoder(X, network, tmp_path):
    network.save(tmp_path / "m.zarr")
    model = AltReLURegressor.load(tmp_path / "m.zarr")
    y = np.abs(X[:, 0])
    before = ((model.predict(X) - y) ** 2).mean()
    lazy = model.predict(da.from_array(X, chunks=(700, -1))).compute(scheduler="sync")
    assert model.predict(X) == pytest.approx(lazy, rel=1e-13)
    assert evaluate(model.network_, X, y)[0].mse == pytest.approx(before)
    model.partial_fit(X, y)
    assert ((model.predict(X) - y) ** 2).mean() < before
    model.save(tmp_path / "again.zarr")
    assert same(AltReLURegressor.load(tmp_path / "again.zarr").predict(X), model.predict(X))
    with pytest.raises(ParameterError, match=r"warm_start cannot go on from .* as they are"):
        model.set_params(n_hidden=8, warm_start=True).fit(X, y)


def test_a_warm_start_is_over_the_same_columns(X, network):
    layers = start_from(network, 6, 1, 0.0, None, network.encoder)
    assert layers[0] is network.hidden_weights
    for other in (None, Encoder.learn(sketch_of(X[:99])), network.encoder.take([0])):
        with pytest.raises(ParameterError, match="warm_start cannot go on from a network on col"):
            start_from(network, 6, 1, 0.0, None, other)


def test_networks_and_encoders_are_told_in_a_line(network):
    assert repr(network).startswith("Network(6 features encoded as ")
    assert repr(network.encoder).startswith("Encoder(6 columns to ")
    assert max(len(repr(network)), len(repr(network.encoder))) < 90
