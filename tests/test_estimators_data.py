"""What `fit` and `predict` take: any container of rows gives the same network."""

from __future__ import annotations

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from estimators import assert_same, quick
from oracles import same

from altrelu_dist import AltReLURegressor
from altrelu_dist.errors import (
    DataError,
    ParameterError,
)


def test_numpy_in_numpy_out(data, in_process):
    X, y = data
    assert type(in_process.predict(X)) is np.ndarray
    lists = quick().fit(X.tolist(), y.tolist())
    assert_same(lists, in_process, X)
    assert_same(quick().fit(np.asfortranarray(X), y), in_process, X)


def test_dask_in_lazy_dask_out(data, in_process):
    X, y = data
    lazy, target = da.from_array(X, chunks=(60, 2)), da.from_array(y, chunks=33)
    for args in ((lazy, target), (lazy, y), (X, target)):
        assert_same(quick().fit(*args), in_process, X)
    predicted = in_process.predict(lazy)
    assert isinstance(predicted, da.Array)
    assert predicted.shape == (200,)
    assert predicted.chunks == (lazy.chunks[0],)
    assert predicted.dtype == np.float64
    assert predicted.compute() == pytest.approx(in_process.predict(X), rel=1e-12)
    assert in_process.score(lazy, target) == pytest.approx(in_process.score(X, y))
    weight = np.arange(200.0)
    assert in_process.score(lazy, target, weight) == pytest.approx(in_process.score(X, y, weight))


def test_predicting_is_lazy_until_it_is_asked_for(data, in_process):
    def fail(_):
        raise AssertionError("computed")

    lazy = da.from_array(data[0], chunks=50).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    predicted = in_process.predict(lazy)
    with pytest.raises(AssertionError, match="computed"):
        predicted.compute()


def test_predictions_of_two_models_are_computed_together(data, in_process):
    X, y = data
    other = quick(random_state=1).fit(X, -y)
    lazy = da.from_array(X, chunks=50)
    both = dask.compute(in_process.predict(lazy), other.predict(lazy))
    assert both[0] == pytest.approx(in_process.predict(X))
    assert both[1] == pytest.approx(other.predict(X))


def test_sample_weights_everywhere(data):
    X, y = data
    weight = np.random.default_rng(1).integers(0, 3, 200)
    alone = quick().fit(X, y, sample_weight=weight)
    repeated = np.repeat(np.arange(200), weight)
    assert_same(quick().fit(X[repeated], y[repeated]), alone, X)
    lazy = [da.from_array(part, chunks=70) for part in (X, y, weight)]
    assert_same(quick().fit(*lazy), alone, X)
    assert_same(quick().fit(lazy[0], lazy[1], weight), alone, X)


def test_several_targets(data):
    X, y = data
    both = np.stack([y, X[:, 2]], axis=1)
    model = quick(8).fit(X, both)
    assert model.predict(X).shape == (200, 2)
    assert model.predict(X[:1]).shape == (1, 2)
    lazy = da.from_array(X, chunks=50)
    assert model.predict(lazy).shape == (200, 2)
    assert model.predict(lazy).compute().shape == (200, 2)
    there = quick(8).fit(lazy, da.from_array(both, chunks=(50, 1)))
    assert same(there.network_.output_weights, model.network_.output_weights)
    assert model.score(lazy, both) == pytest.approx(model.score(X, both))
    column = quick().fit(X, y[:, None])
    assert column.predict(X).shape == (200, 1)
    assert column.predict(lazy).compute().shape == (200, 1)


def test_zarr_arrays(data, in_process, tmp_path):
    X, y = data
    store = zarr.open_group(tmp_path / "x.zarr", mode="w")
    for name, values in (("X", X), ("y", y)):
        store.create_array(name, data=values, chunks=(64, 2)[: values.ndim])
    assert_same(quick().fit(store["X"], store["y"]), in_process, X)
    predicted = in_process.predict(store["X"])
    assert isinstance(predicted, da.Array)
    assert predicted.compute() == pytest.approx(in_process.predict(X))
    assert in_process.score(store["X"], store["y"]) == pytest.approx(in_process.score(X, y))


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "longdouble", ">f8", "int32", "uint64", "uint8", "bool"]
)
def test_dtypes_give_the_same_network_in_memory_and_out(data, dtype):
    X, y = ((3 * part).astype(dtype) for part in data)
    model = quick().fit(X, y)
    lazy = quick().fit(da.from_array(X, chunks=50), da.from_array(y, chunks=50))
    assert_same(lazy, model, X)


def test_a_pandas_frame_keeps_and_checks_its_names(data, frame, in_process):
    X, y = data
    model = quick().fit(frame, pd.Series(y, name="speed"))
    assert model.feature_names_in_.tolist() == ["height", "weight", "age"]
    assert model.network_.feature_names == ("height", "weight", "age")
    assert model.network_.target_names == ("speed",)
    assert same(model.predict(frame), in_process.predict(X))
    with pytest.raises(ValueError, match=r"(?s)feature names.*unseen.*size.*missing.*age"):
        model.predict(frame.rename(columns={"age": "size"}))
    with pytest.raises(ValueError, match="same order"):
        model.predict(frame[["age", "height", "weight"]])
    targets = pd.DataFrame({"a": y, "b": -y})
    assert quick().fit(frame, targets).network_.target_names == ("a", "b")


def test_a_dask_frame_keeps_and_checks_its_names(data, frame, in_process):
    X, y = data
    frames = dd.from_pandas(frame, npartitions=3)
    target = dd.from_pandas(pd.Series(y, name="speed"), npartitions=3)
    model = quick().fit(frames, target)
    assert same(model.network_.hidden_weights, in_process.network_.hidden_weights)
    assert model.feature_names_in_.tolist() == ["height", "weight", "age"]
    assert model.network_.target_names == ("speed",)
    predicted = model.predict(frames)
    assert isinstance(predicted, da.Array)
    assert predicted.compute() == pytest.approx(in_process.predict(X))
    assert model.score(frames, target) == pytest.approx(in_process.score(X, y))
    with pytest.raises(ValueError, match=r"(?s)unseen.*size.*missing.*age"):
        model.predict(frames.rename(columns={"age": "size"}))
    with pytest.raises(ValueError, match="same order"):
        model.predict(frames[["age", "height", "weight"]])
    mixed = quick().fit(frame, da.from_array(y, chunks=50))
    assert mixed.feature_names_in_.tolist() == ["height", "weight", "age"]


def test_unknown_chunk_sizes_are_computed(data, frame):
    _, y = data
    frame = frame.assign(y=y)
    here = frame[frame["age"] > 0]
    kept = dd.from_pandas(frame, npartitions=4)
    kept = kept[kept["age"] > 0]
    names = ["height", "weight", "age"]
    alone = quick().fit(here[names], here["y"])
    for X, target in ((kept[names], kept["y"]), (kept[names].values, kept["y"].values)):
        model = quick().fit(X, target)
        assert same(model.network_.hidden_weights, alone.network_.hidden_weights)
    predicted = alone.predict(kept[names])
    assert np.isnan(predicted.shape[0])
    assert predicted.compute() == pytest.approx(alone.predict(here[names]))


def test_a_second_fit_forgets_the_first(data, frame):
    X, y = data
    model = quick().fit(frame, pd.Series(y, name="speed"))
    lazy = da.from_array(X[:, :2], chunks=50)
    model.fit(lazy, da.from_array(np.stack([y, y], axis=1), chunks=50))
    assert not hasattr(model, "feature_names_in_")
    assert model.network_.feature_names is None
    assert model.network_.target_names is None
    assert model.n_features_in_ == 2
    assert model.predict(lazy).shape == (200, 2)


# Bad input


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["numpy", "pandas", "dask", "dask frame"])
def test_values_that_are_not_finite_are_named(data, frame, kind, value):
    X, y = data
    X, frame = X.copy(), frame.copy()
    X[[7, 150], 1] = frame.iloc[[7, 150], 1] = value
    rows = {
        "numpy": X,
        "pandas": frame,
        "dask": da.from_array(X, chunks=50),
        "dask frame": dd.from_pandas(frame, npartitions=3),
    }[kind]
    name = "weight" if kind in ("pandas", "dask frame") else "column 1"
    expected = rf"X contains NaN or infinity: 2 values, in {name} \(2\), the first in row 7"
    if np.isnan(value):  # features may be missing; not where no training row lacked them
        model = quick().fit(np.nan_to_num(X), y)
        expected = expected.replace(name, "column 1")
        with pytest.raises(DataError, match=expected) as caught:
            model.predict(X)
    else:
        with pytest.raises(DataError, match=expected) as caught:
            AltReLURegressor().fit(rows, y)
    assert "\n" not in str(caught.value)
    bad = y.copy()
    bad[3] = value
    good = np.nan_to_num(X, nan=0, posinf=0, neginf=0)
    with pytest.raises(ValueError, match=r"y contains (NaN|infinity)"):
        AltReLURegressor().fit(da.from_array(good, chunks=50) if "dask" in kind else good, bad)


def test_predicting_refuses_what_is_not_finite_in_memory(data, in_process):
    X = data[0].copy()
    X[3, 1] = np.nan
    with pytest.raises(DataError, match=r"NaN.*column 1 \(1\), the first in row 3"):
        in_process.predict(X)


def test_sparse_blocks_are_refused_with_what_to_do(data):
    X, y = data
    lazy = da.from_array(X, chunks=50)
    with pytest.raises(DataError, match=r"sparse.*dense.*toarray\(\)"):
        quick().fit(lazy.map_blocks(scipy.sparse.csr_matrix), y)


def test_text_and_objects(data):
    X, y = data
    assert same(quick().fit(X.astype(object), y).predict(X), quick().fit(X, y).predict(X))
    with pytest.raises(DataError, match="X holds object, not numbers; encode text"):
        quick().fit(da.from_array(X, chunks=50).astype(object), y)
    for rows in (X, da.from_array(X, chunks=50)):
        with pytest.raises(DataError, match="y holds <U4, not numbers"):
            quick().fit(rows, np.full(200, "tall"))


def test_shapes_that_cannot_be_are_refused(data, in_process):
    X, y = data
    lazy = da.from_array(X, chunks=50)
    for rows in (X, lazy):
        with pytest.raises(DataError, match="X has 200 rows, y has 199"):
            quick().fit(rows, y[:-1])
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            quick().fit(rows[:, 0], y)
        with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
            quick().fit(rows[:0], y[:0])
        with pytest.raises(ValueError, match=r"Found array with 0 feature\(s\)"):
            quick().fit(rows[:, :0], y)
        with pytest.raises(ValueError, match=r"X has 2 features.*expecting 3 features"):
            in_process.predict(rows[:, :2])
        with pytest.raises(ValueError, match="Expected 2D array"):
            in_process.predict(rows[:, 0])


def test_one_row_is_refused(data):
    X, y = data
    for rows in (X[:1], da.from_array(X[:1])):
        with pytest.raises(DataError, match="1 sample"):
            AltReLURegressor().fit(rows, y[:1])


def test_bad_data_is_refused_before_any_training(data):
    X, y = data
    X = X.copy()
    X[0, 0] = np.inf
    stages = []
    with pytest.raises(DataError):
        quick(callback=lambda progress: stages.append(progress.stage)).fit(X, y)
    assert set(stages) <= {"summary"}


@pytest.mark.parametrize("names", [("a", "b"), (), "delay"])
def test_names_that_do_not_fit_are_refused_before_the_training(data, names):
    X, y = data
    for rows, targets in ((X, y), (da.from_array(X, chunks=100), y), (X, y[:, None])):
        with pytest.raises(ParameterError, match=r"target_names .*one for each column of y, 1 in"):
            quick().fit(rows, targets, target_names=names)
        with pytest.raises(ParameterError, match=r"feature_names .*one for each column of X, 3 in"):
            quick().fit(rows, targets, feature_names=names)


def test_a_target_that_does_not_vary_scores_as_in_scikit_learn(data):
    X, y = data
    model = quick().fit(X, y)
    lazy, constant = da.from_array(X, chunks=100), np.full(len(X), 2.0)
    assert model.score(lazy, constant) == model.score(X, constant) == 0.0
    flat = quick().fit(X, constant)
    assert flat.score(lazy, constant) == flat.score(X, constant) == 1.0


def test_a_frame_of_numbers_and_booleans_is_as_good_lazy(frame, data):
    mixed = frame.assign(tall=frame["height"] > 0, age=frame["age"].round().astype(int))
    lazy = dd.from_pandas(mixed, npartitions=3)
    model, other = quick().fit(mixed, data[1]), quick().fit(lazy, data[1])
    assert same(model.network_.hidden_weights, other.network_.hidden_weights)
    assert same(other.predict(lazy).compute(), model.predict(mixed))


def test_lists_of_targets_keep_their_columns(data):
    X, y = data
    lazy = da.from_array(X, chunks=100)
    assert quick().fit(lazy, y.tolist()).predict(lazy).ndim == 1
    assert quick().fit(lazy, np.c_[y, -y].tolist()).predict(lazy).shape == (len(X), 2)
