"""Encoders: the one-pass sketch of columns, what is learnt from it, and its arrays."""

from __future__ import annotations

import dataclasses
import json
import shutil

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same
from test_engine import chunkings, small_tiles

from altrelu_dist import AltReLURegressor, Network, evaluate
from altrelu_dist.encoding import CAPACITY, Encoder, sketch_columns
from altrelu_dist.engine import DaskEngine, LocalEngine
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.folding import folded
from altrelu_dist.moments import Rows
from altrelu_dist.prediction import predict_blocks
from altrelu_dist.warm_start import start_from


def sketch_of(X, weight=None):
    """All rows as one tile."""
    return sketch_columns(Rows(0, X, X[:, :1], weight))


def in_the_tree(X, weight=None):
    rows = Rows(0, X, X[:, :1], weight)
    with small_tiles():
        return LocalEngine.of(rows).reduce(sketch_columns, "sketch")


def mixed(rng, n):
    """Columns: continuous, of levels, constant, of two levels, heavy-tailed, mostly zero."""
    return np.column_stack(
        [
            rng.standard_normal(n),
            rng.integers(0, 7, n),
            np.full(n, 3.5),
            rng.integers(0, 2, n),
            rng.standard_cauchy(n),
            rng.exponential(size=n) * (rng.random(n) < 0.1),
        ]
    ).astype(float)


# The sketch


@given(n=st.integers(1, 200), seed=st.integers(0, 99), weighted=st.booleans())
def test_few_distinct_values_are_kept_exactly_whatever_the_tiles(n, seed, weighted):
    rng = np.random.default_rng(seed)
    X = mixed(rng, n)
    weight = rng.integers(0, 4, n).astype(float) if weighted else None
    one, tree = sketch_of(X, weight), in_the_tree(X, weight)
    assert one.exact.all()
    assert tree.exact.all()
    for column in range(X.shape[1]):
        counted = np.ones(n) if weight is None else weight
        values = np.unique(X[counted > 0, column])
        expected = [counted[X[:, column] == value].sum() for value in values]
        for found in (one, tree):
            assert found.points(column)[0].tolist() == values.tolist()
            assert found.points(column)[1].tolist() == expected


@given(seed=st.integers(0, 99), n=st.sampled_from([40, 2500]))
def test_weights_are_repeated_rows(seed, n):
    rng = np.random.default_rng(seed)
    X, weight = mixed(rng, n), rng.integers(0, 3, n)
    weighted, repeated = sketch_of(X, weight), sketch_of(np.repeat(X, weight, axis=0))
    assert same(weighted.values, repeated.values)
    assert same(weighted.exact, repeated.exact)
    for name in ("weights", "total", "mean", "squares", "low", "high"):
        expected = getattr(repeated, name)
        assert getattr(weighted, name) == pytest.approx(expected, rel=1e-10, abs=1e-10), name


@pytest.mark.parametrize("kind", ["as it comes", "sorted", "alternating", "levels", "weighted"])
def test_ranks_are_within_the_bound(kind, monkeypatch):
    n, tile = 1 << 20, 512
    rng = np.random.default_rng(0)
    x = rng.standard_normal(n)
    if kind == "sorted":
        x.sort()
    elif kind == "alternating":
        x = np.sort(x).reshape(2, -1).T.ravel()
    elif kind == "levels":
        x = np.floor(x * 700)
    weight = rng.exponential(size=n) if kind == "weighted" else None
    monkeypatch.setattr("altrelu_dist.engine.TILE", tile)
    rows = Rows(0, x[:, None], x[:, None], weight)
    found = LocalEngine.of(rows).reduce(sketch_columns, "sketch")  # 2,048 tiles
    assert not found.exact[0]
    values, weights = found.points(0)
    assert len(values) <= CAPACITY
    order = np.argsort(x)
    ranks = np.cumsum(np.ones(n) if weight is None else weight[order])
    true = ranks[np.searchsorted(x[order], values, side="right") - 1] / ranks[-1]
    # Between two kept values nothing is known: the rank is off most just below the next.
    below = np.append(ranks, 0.0)[np.searchsorted(x[order], values) - 1] / ranks[-1]
    estimated = np.cumsum(weights) / weights.sum()
    worst = max(np.abs(true - estimated).max(), np.abs(below - np.append(0, estimated[:-1])).max())
    levels = 1 + int(np.ceil(np.log2(n / tile)))
    assert worst <= levels / (2 * CAPACITY)
    assert worst <= 0.005
    assert weights.sum() == pytest.approx(ranks[-1])


def test_values_that_are_not_finite_do_not_count():
    X = np.column_stack([np.arange(6.0), np.array([np.nan, 1, -np.inf, 2, np.inf, 2])])
    found = sketch_of(X)
    assert found.total.tolist() == [6, 3]
    assert found.points(1)[0].tolist() == [1, 2]
    assert found.points(1)[1].tolist() == [1, 2]
    assert (found.low[1], found.high[1]) == (1, 2)
    assert found.missing.tolist() == [0, 1]
    merged = found.merge(sketch_of(np.full((3, 2), np.nan)))
    assert merged.missing.tolist() == [3, 4]
    assert same(dataclasses.replace(merged, missing=found.missing), found)


@given(chunks=chunkings(most=120), weighted=st.booleans(), order=st.sampled_from("CF"))
def test_chunks_do_not_matter(chunks, weighted, order):
    n = sum(chunks)
    rng = np.random.default_rng(n)
    X = np.asarray(mixed(rng, n), order=order)
    weight = rng.random(n) if weighted else None
    arrays = [da.from_array(a, chunks=(chunks, -1)) for a in (X, X[:, :1])]
    if weighted:
        arrays.append(da.from_array(weight[:, None], chunks=(chunks, -1)))
    with small_tiles():
        here = LocalEngine.of(Rows(0, X, X[:, :1], weight)).reduce(sketch_columns, "sketch")
        there = DaskEngine(*arrays).reduce(sketch_columns, "sketch")
    assert same(here, there)
    assert Encoder.learn(here) == Encoder.learn(there)


def test_many_columns_are_those_of_each_alone(rng):
    X = np.hstack([rng.standard_normal((1500, 40)), rng.integers(0, 9, (1500, 40))])
    found = sketch_of(X).merge(sketch_of(X + 0.25))
    for column in (0, 39, 40, 63, 64, 79):
        alone = sketch_of(X[:, [column]]).merge(sketch_of(X[:, [column]] + 0.25))
        for one, other in zip(found.points(column), alone.points(0), strict=True):
            assert one.tolist() == other.tolist()


# The encoder


@given(seed=st.integers(0, 99), k=st.integers(2, 20), levels=st.integers(3, 60))
def test_what_is_linear_between_the_knots_is_linear_in_the_encoding(seed, k, levels):
    rng = np.random.default_rng(seed)
    x = rng.choice(np.sort(rng.standard_normal(levels)), 400)[:, None]
    encoder = Encoder.learn(sketch_of(x), (k,))
    pieces = encoder.blocks[1]
    assert pieces.n_columns <= k
    if len(np.unique(x)) <= k + 1:
        assert pieces.knots.tolist() == np.unique(x).tolist()
    new = rng.uniform(x.min(), x.max(), 200)
    target = np.interp(new, pieces.knots, rng.standard_normal(len(pieces.knots)))
    features = encoder.transform(new[:, None])[:, encoder.columns_of(1)]
    design = np.column_stack([features, np.ones(200)])
    fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    assert fitted == pytest.approx(target, abs=1e-8)


@given(seed=st.integers(0, 99), values=st.integers(4, 40), most=st.integers(6, 60))
def test_hats_are_1_at_their_knot_and_0_at_the_others(seed, values, most):
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.integers(0, values, 400), rng.geometric(0.1, 400), rng.random(400)])
    encoder = Encoder.learn(sketch_of(X), (4,), repeated=(0, 1), most_values=most)
    block = encoder.blocks[2]
    assert encoder.n_pieces == 2
    assert block.n_columns <= most
    assert set(block.sources) == {0, 1}
    features = encoder.transform(X)[:, encoder.columns_of(2)] @ block.hats()
    at = 0
    for column in (0, 1):
        knots = block.knots[
            at + column : at + column + np.count_nonzero(block.sources == column) + 1
        ]
        found, counts = np.unique(X[:, column], return_counts=True)
        left_out = np.setdiff1d(found, knots)
        least = counts[np.isin(found, knots)].min()
        assert counts[np.isin(found, left_out)].max(initial=0) <= least
        for place in range(1, len(knots)):
            hat = np.interp(X[:, column], knots, np.arange(len(knots)) == place)
            share = hat.mean()
            scale = max(np.sqrt(share * (1 - share)), 1 / 6)
            assert features[:, at + place - 1] == pytest.approx((hat - share) / scale, abs=1e-9)
        at += len(knots) - 1


def test_of_too_many_repeated_columns_those_with_the_fewest_values_have_hats():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 4 + column, 500) for column in range(9)]).astype(float)
    encoder = Encoder.learn(sketch_of(X), (4,), repeated=range(9), most_values=7)
    assert set(encoder.blocks[2].sources) == {0, 1, 2}
    assert encoder.blocks[2].n_columns <= 7


@given(seed=st.integers(0, 99), weighted=st.booleans())
def test_blocks_are_centred_and_have_the_same_variance(seed, weighted):
    rng = np.random.default_rng(seed)
    X = mixed(rng, 500)
    weight = rng.integers(0, 3, 500) if weighted else None
    rows = X if weight is None else np.repeat(X, weight, axis=0)
    encoder = Encoder.learn(sketch_of(X, weight), (16, 4))
    out = encoder.transform(rows)
    standard = out[:, encoder.columns_of(0)]
    varying = rows[:, [0, 1, 3, 4, 5]]
    expected = np.clip((varying - varying.mean(axis=0)) / varying.std(axis=0), -6, 6)
    assert standard == pytest.approx(expected, abs=1e-9)
    for block in (1, 2):
        features = out[:, encoder.columns_of(block)]
        assert features.mean(axis=0) == pytest.approx(0, abs=1e-9)
        assert features.var(axis=0).sum() == pytest.approx(standard.var(axis=0).sum())
        # Neither the constant column nor that of two levels is in a block of pieces.
        assert not {2, 3} & set(encoder.blocks[block].columns)


def test_quantile_knots_of_many_rows(rng, monkeypatch):
    monkeypatch.setattr("altrelu_dist.engine.TILE", 1024)
    x = rng.standard_normal(1 << 16)
    rows = Rows(0, x[:, None], x[:, None])
    encoder = Encoder.learn(LocalEngine.of(rows).reduce(sketch_columns, "sketch"))
    knots = encoder.blocks[1].knots
    assert len(knots) == 17
    assert (knots[0], knots[-1]) == (x.min(), x.max())
    shares = np.searchsorted(np.sort(x), knots[1:-1]) / len(x)
    assert shares == pytest.approx(np.arange(1, 16) / 16, abs=0.004)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_huge_offsets_keep_their_knots(dtype):
    offset = 2.0**23 if dtype == "float32" else 2.0**40
    x = (offset + np.arange(6).repeat(5)).astype(dtype)[:, None]
    encoder = Encoder.learn(sketch_of(x))
    assert encoder.blocks[1].knots.tolist() == [offset + i for i in range(6)]
    found = encoder.transform(x)[::5, 1:]
    assert len(np.unique(found, axis=0)) == 6
    small = x.astype(float) - offset
    assert found == pytest.approx(Encoder.learn(sketch_of(small)).transform(small)[::5, 1:])


def test_rows_are_encoded_one_by_one(rng):
    X = mixed(rng, 3000)
    encoder = Encoder.learn(sketch_of(X), (16, 256))
    whole = encoder.transform(X)
    assert same(np.vstack([encoder.transform(X[i : i + 7]) for i in range(0, 3000, 7)]), whole)
    assert same(encoder.transform(np.asfortranarray(X)), whole)
    assert same(encoder.transform(X, np.float32), whole.astype(np.float32))
    assert encoder.transform(X[:0]).shape == (0, encoder.n_columns)
    # Beyond the knots the pieces stay where they end.
    far = np.vstack([X.min(axis=0), X.min(axis=0) - 1e300, X.max(axis=0), X.max(axis=0) + 1e300])
    low, lower, high, higher = encoder.transform(far)[:, encoder.columns_of(1).start :]
    assert same(low, lower)
    assert same(high, higher)


def test_some_blocks_alone(rng):
    X = mixed(rng, 300)
    encoder = Encoder.learn(sketch_of(X), (16, 4))
    out = encoder.transform(X)
    part = encoder.take([0, 2])
    expected = np.hstack([out[:, encoder.columns_of(0)], out[:, encoder.columns_of(2)]])
    assert same(part.transform(X), expected)
    assert part == Encoder.from_arrays(part.to_arrays())
    assert part != encoder


def test_names_say_column_and_interval():
    X = np.array([[1.0, 0.0], [2.0, 1.0], [4.5, 0.0], [4.5, 1.0]])
    encoder = Encoder.learn(sketch_of(X), (16, 8))
    found = encoder.names_out(["age", "sex"])
    assert found[:4] == ("age", "sex", "age 1 to 2", "age 2 to 4.5")
    assert len(set(found)) == encoder.n_columns == 6
    assert encoder.names_out()[0] == "x0"


def test_constant_columns_leave_nothing():
    X = np.full((9, 2), 0.1)
    encoder = Encoder.learn(sketch_of(X))
    assert encoder.transform(X).shape == (9, 0)
    assert Encoder.from_arrays(encoder.to_arrays()) == encoder


@pytest.mark.parametrize("pieces", [(1,), (16, 0), (2.5,), (CAPACITY + 1,), (True,)])
def test_pieces_that_cannot_be_are_refused(pieces):
    with pytest.raises(ParameterError, match=r"pieces holds .*expected whole numbers from 2"):
        Encoder.learn(sketch_of(np.arange(9.0)[:, None]), pieces)


def test_other_columns_are_refused(rng):
    encoder = Encoder.learn(sketch_of(mixed(rng, 20)))
    with pytest.raises(DataError, match=r"takes 6 columns, found .*\(4, 5\)"):
        encoder.transform(np.zeros((4, 5)))


# Arrays for a file


@given(seed=st.integers(0, 99), n=st.integers(1, 60), blocks=st.integers(0, 2))
def test_arrays_and_back(seed, n, blocks):
    rng = np.random.default_rng(seed)
    X = mixed(rng, n)
    encoder = Encoder.learn(sketch_of(X), (16, 3)[:blocks])
    arrays = encoder.to_arrays()
    assert all(a.dtype == np.float64 and np.isfinite(a).all() for a in arrays.values())
    back = Encoder.from_arrays(arrays)
    assert back == encoder
    assert hash(back) == hash(encoder)
    assert same(back.transform(X), encoder.transform(X))


@given(data=st.data())
@settings(max_examples=60)
def test_arrays_that_cannot_be_are_refused(data):
    encoder = Encoder.learn(sketch_of(mixed(np.random.default_rng(0), 50)))
    arrays = {name: values.copy() for name, values in encoder.to_arrays().items()}
    name = data.draw(st.sampled_from(sorted(arrays)))
    harms = ["missing", "longer", "not finite", "two axes", "text", "renamed"]
    if not name.endswith(("center", "factor", "features")):
        harms.append("reversed")
    if not name.endswith("center"):
        harms.append("negative")
    harm = data.draw(st.sampled_from(harms))
    values = arrays.pop(name)
    if harm == "longer":
        arrays[name] = np.append(values, values[-1] + 1)
    elif harm == "not finite":
        arrays[name] = np.where(np.arange(len(values)) == 0, np.nan, values)
    elif harm == "two axes":
        arrays[name] = values[None]
    elif harm == "text":
        arrays[name] = values.astype(str)
    elif harm == "renamed":
        arrays[f"{name}x"] = values
    elif harm == "reversed":
        arrays[name] = values[::-1] if len(np.unique(values)) > 1 else -values
    elif harm == "negative":
        arrays[name] = -values - 1
    if harm == "reversed" and name.endswith("scale"):
        return  # other scales, and possible ones
    with pytest.raises(ModelFileError, match="the encoder"):
        Encoder.from_arrays(arrays)


# Networks with an encoder


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
