"""A layer that is looked up makes of any rows what the encoded columns times the weights are."""

import copy
import importlib
import pickle
import threading
import time
from contextlib import nullcontext
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from encoded_tables import odd_tables
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from altrelu_dist import threads
from altrelu_dist.encoding import Encoder, RawColumn, sketch_columns
from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.lookup import LookupLayer
from altrelu_dist.encoding.standard import StandardColumns
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.errors import DataError
from altrelu_dist.moments.rows import Rows
from altrelu_dist.network import Network
from altrelu_dist.prediction import predict_blocks

LEVELS = RawColumn("levels", tuple(f"level {k}" for k in range(40)))
RAW = (RawColumn(), RawColumn(), RawColumn(), LEVELS)
DAYS = 86_400.0


def table(n, seed=0, *, gaps=0.0, times=False):
    """Continuous and repeated numbers, two values or times, and places of levels."""
    rng = np.random.default_rng(seed)
    third = rng.integers(0, 700, n) * DAYS if times else rng.integers(0, 2, n)
    columns = rng.standard_normal(n), rng.integers(0, 90, n), third, rng.integers(-1, 41, n)
    X = np.column_stack(columns).astype(float)
    X[rng.random(X.shape) < gaps] = np.nan
    return X


def encoder_of(X, *, times=False):
    """Standardised columns, two blocks of pieces, values of a column, and levels."""
    raw = (*RAW[:2], RawColumn("time" if times else "number"), LEVELS)
    sketch = sketch_columns(Rows(0, X, np.zeros((len(X), 1)), None))
    return Encoder.learn(sketch, (16, 96), raw, repeated=[1], most_values=80)


def layer_of(encoder, seed=1, N=5):
    """Tables, and what they are to make of rows."""
    rng = np.random.default_rng(seed)
    weights, bias = rng.standard_normal((encoder.n_columns, N)), rng.standard_normal(N)
    return LookupLayer.of(encoder, weights, bias), lambda X: encoder.transform(X) @ weights + bias


def network_of(X, h=6):
    rng = np.random.default_rng(3)
    encoder = encoder_of(X)
    return Network(
        rng.standard_normal((encoder.n_columns, h)),
        rng.standard_normal(h),
        rng.standard_normal((h, 1)),
        rng.standard_normal(1),
        encoder=encoder,
    )


@pytest.mark.parametrize("gaps", [0.0, 0.2], ids=["whole", "gaps"])
@pytest.mark.parametrize("times", [False, True], ids=["numbers", "times"])
def test_looked_up_is_multiplied(gaps, times):
    X = table(900, gaps=gaps, times=times)
    layer, expected = layer_of(encoder_of(X, times=times))
    assert layer is not None
    # A column of two values has few encoded columns, and waves are not linear between knots.
    assert [type(block) for block in layer.rest.blocks] == [
        TimeColumns if times else StandardColumns,
        *([GapColumns] if gaps else []),
    ]
    # New rows: numbers beyond the training ones, between two places of levels, of unknown levels.
    new = table(700, 5, gaps=gaps, times=times)
    new[::3, :3] *= 1.5
    new[1::3, 3] += 0.5
    new[2::3, 3] = [-7, 40, 1e12, *[39] * (len(new[2::3]) - 3)]
    found = layer.apply(new)
    np.testing.assert_allclose(found, expected(new), rtol=1e-11, atol=1e-10)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("times", [False, True], ids=["numbers", "times"])
def test_what_is_missing_or_infinite_is_as_in_encoded_columns(times):
    X = table(600, times=times)
    X[:50, 0] = np.nan  # the others are never missing in training
    layer, expected = layer_of(encoder_of(X, times=times))
    new = table(40, 7, times=times)
    for column in range(4):
        new[4 * column, column] = np.nan
        new[4 * column + 1, column] = np.inf
        new[4 * column + 2, column] = -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(layer.apply(new), expected(new), rtol=1e-11, atol=1e-10)
    lost = np.isnan(layer.apply(new)).all(axis=1)
    assert lost[:16].tolist() == [False, True, True, False] + [True, True, True, False] * 3
    assert not lost[16:].any()


@given(
    X=odd_tables(columns=3),
    far=st.sampled_from([0.0, 1e3, -1e9, 1e15]),
    gaps=st.sampled_from([0.0, 0.1]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
@settings(max_examples=150, deadline=None)
def test_any_rows(X, far, gaps, dtype):
    X = (X + far).astype(dtype)
    X[np.random.default_rng(0).random(X.shape) < gaps] = np.nan
    sketch = sketch_columns(Rows(0, X.astype(float), np.zeros((len(X), 1)), None))
    layer, expected = layer_of(Encoder.learn(sketch, (64, 64)))
    assume(layer is not None)
    beside = [np.nextafter(X, dtype(end)) for end in (-np.inf, np.inf)]
    new = np.concatenate([X, X[::-1] * 2, *beside, np.full((1, 3), 1e30, dtype)])
    assert new.dtype == dtype
    found, right = layer.apply(new), expected(new)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(right))
    np.testing.assert_allclose(found, right, rtol=1e-11, atol=1e-9)


def test_few_encoded_columns_are_multiplied():
    X = table(500)[:, :3]
    coarse = Encoder.learn(sketch_columns(Rows(0, X, np.zeros((500, 1)), None)), (8,))
    assert layer_of(coarse)[0] is None
    nothing = Encoder.learn(sketch_columns(Rows(0, np.ones((9, 2)), np.zeros((9, 1)), None)))
    assert layer_of(nothing)[0] is None


def test_rows_are_predicted_alike_alone_and_with_others():
    X = table(3_000, gaps=0.1)
    network = network_of(X)
    assert network._lookup is not None
    expected = replace(network, encoder=None).predict(network.encoder.transform(X))
    found = network.predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-9)
    hidden = network.hidden_features(X)
    alone = np.concatenate([network.hidden_features(X[k : k + 1]) for k in range(0, 3_000, 97)])
    np.testing.assert_allclose(alone, hidden[::97], rtol=1e-12, atol=1e-12)
    for other in (X[:, :3], np.hstack([X, X]), X[0]):
        with pytest.raises(DataError, match="takes 4 features"):
            network.hidden_features(other)
    assert network.predict(X[:0]).shape == (0, 1)
    blocks = network.predict(X[:1000]), network.predict(X[1000:])
    np.testing.assert_allclose(np.concatenate(blocks), found, rtol=1e-12, atol=1e-12)


def test_the_lines_of_a_row_do_not_depend_on_other_rows():
    X = table(3_000)[:, :2]
    layer, _ = layer_of(
        Encoder.learn(sketch_columns(Rows(0, X, np.zeros((3_000, 1)), None)), (96,))
    )
    assert not layer.rest.blocks
    alone = np.concatenate([layer.apply(X[k : k + 1]) for k in range(0, 3_000, 97)])
    np.testing.assert_array_equal(alone, layer.apply(X)[::97])
    assert layer.apply(X[:0]).shape == (0, 5)


@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "plain"])
def test_threads_change_no_bit(encoded, monkeypatch):
    X = table(9_000)
    network = network_of(X)
    if not encoded:
        X = network.encoder.transform(X)
        network = replace(network, encoder=None)
    found = []
    for allowed in (1, 3):
        monkeypatch.setattr(threads, "_allowed_now", lambda allowed=allowed: allowed)
        with threads.one_blas_thread() if allowed == 1 else nullcontext():
            found.append(network.predict(X))
    np.testing.assert_array_equal(*found)


def test_work_in_threads_has_the_callers_settings_and_raises_its_errors(monkeypatch):
    monkeypatch.setattr(threads, "_allowed_now", lambda: 3)
    done = {}

    def work(item):
        if item == 70:
            raise ValueError("the seventieth")
        time.sleep(0.002)
        done[item] = threading.get_ident(), np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):  # no warning is one of the tests' errors
        threads.in_threads(work, range(20))
        assert sorted(done) == list(range(20))
        with pytest.raises(ValueError, match="the seventieth"):
            threads.in_threads(work, range(50, 500))
    assert {*range(50, 69)} < {*done}
    assert len(done) < 300  # the others were not begun
    assert threading.get_ident() not in {thread for thread, _ in done.values()}


def test_tables_stay_where_they_were_made():
    X = table(500)
    network = network_of(X)
    expected = network.predict(X)
    assert "_lookup" in vars(network)
    assert b"Lookup" not in pickle.dumps(network)
    for other in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert "_lookup" not in vars(other)
        np.testing.assert_array_equal(other.predict(X), expected)
    lazy = replace(network).predict  # new tables
    np.testing.assert_array_equal(
        da.from_array(X, chunks=(200, -1)).map_blocks(lazy, dtype=float).compute(), expected
    )


@given(chosen=hnp.arrays(bool, 4), gaps=st.booleans())
@settings(max_examples=25, deadline=None)
def test_blocks_of_some_raw_columns_are_those_columns_of_the_blocks(chosen, gaps):
    X = table(400, gaps=0.1 * gaps, times=True)
    encoder = encoder_of(X, times=True)
    assert len(encoder.named_blocks()) == 6 + gaps
    for block in encoder.blocks:
        some = block.of_columns(chosen)
        mine = chosen[block.sources]
        np.testing.assert_array_equal(some.encode(X), block.encode(X)[:, mine])
        np.testing.assert_array_equal(some.sources, block.sources[mine])


@pytest.mark.parametrize("times", [False, True], ids=["numbers", "times"])
def test_blocks_are_linear_between_the_knots_that_they_name(times):
    X = table(400, gaps=0.1, times=times)
    found = 0
    for block in encoder_of(X, times=times).blocks:
        knots_of = block.linear_between()
        if knots_of is None:
            assert isinstance(block, TimeColumns)
            continue
        assert sorted(knots_of) == sorted({*block.sources.tolist()})
        for column, knots in knots_of.items():
            whole = RAW[column].kind == "levels"
            values = np.linspace(knots[0] - 9, knots[-1] + 9, 997)
            values = np.unique(np.floor(values)) if whole else values
            mine = block.sources == column

            def encode(x, column=column, block=block, mine=mine):
                rows = np.zeros((len(x), 4))
                rows[:, column] = x
                return block.encode(rows)[:, mine]

            at_knots = encode(knots)
            for k in range(at_knots.shape[1]):
                expected = np.interp(values, knots, at_knots[:, k])
                np.testing.assert_allclose(encode(values)[:, k], expected, rtol=1e-9, atol=1e-9)
                found += 1
    assert found > 100


@pytest.mark.cluster
def test_a_worker_process_makes_its_tables_once(process_client):
    def count():
        layer = importlib.import_module("altrelu_dist.encoding.lookup").LookupLayer
        of, layer.made = layer.of, []
        layer.of = lambda *args: layer.made.append(1) or of(*args)

    def counted():
        layer = importlib.import_module("altrelu_dist.encoding.lookup").LookupLayer
        return len(layer.made)

    X = table(600)
    network = network_of(X)
    process_client.run(count)
    found = predict_blocks(network, da.from_array(X, chunks=(20, -1))).compute()
    made = process_client.run(counted)
    assert max(made.values()) == 1
    np.testing.assert_allclose(found, network.predict(X), rtol=1e-12, atol=1e-12)


def test_the_network_is_one_task_of_its_predictions():
    X = table(600)
    network = network_of(X)
    predicted = predict_blocks(network, da.from_array(X, chunks=(30, -1)))
    assert predicted.name == predict_blocks(network, da.from_array(X, chunks=(30, -1))).name
    of_network = [key for key in dict(predicted.__dask_graph__()) if "Network" in str(key)]
    assert len(of_network) == 1  # a task of its own, which comes to a worker once
    np.testing.assert_allclose(predicted.compute(), network.predict(X), rtol=1e-12, atol=1e-12)
