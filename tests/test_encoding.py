"""Encoders: what they learn from a sketch, the columns they make, and their arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same
from sketched_rows import mixed, sketch_of

from altrelu_dist.encoding import CAPACITY, Encoder, sketch_columns
from altrelu_dist.engine import LocalEngine
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.moments import Rows


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
