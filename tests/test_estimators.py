"""The scikit-learn face: its checks, parameters, saving, and what it must not load."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import subprocess
import sys
import textwrap

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from estimators import assert_same, quick
from oracles import same
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks

from altrelu_dist import AltReLURegressor, Network
from altrelu_dist.errors import (
    AltReLUError,
    DataError,
    ExistsError,
    ModelFileError,
    ParameterError,
)
from altrelu_dist.training import METHODS


@parametrize_with_checks(
    [
        AltReLURegressor(n_hidden=8, max_iter=1),
        AltReLURegressor(n_hidden=8, method="damped"),
        AltReLURegressor(max_iter=1),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        AltReLURegressor(),
        AltReLURegressor(max_size=40, max_iter=1),
        AltReLURegressor(method="alternating"),
    ]
)
def test_scikit_learns_checks_with_the_defaults(estimator, check):
    check(estimator)


# In scikit-learn's tools


def test_in_a_pipeline_and_a_grid_search(data):
    X, y = data
    model = make_pipeline(PolynomialFeatures(2, include_bias=False), quick())
    assert model.fit(X, y).score(X, y) > 0.9
    grid = GridSearchCV(quick(), {"n_hidden": [1, 6], "alpha": [0.0, 1e-3]}, cv=3).fit(X, y)
    assert grid.best_params_["n_hidden"] == 6
    assert grid.best_estimator_.n_hidden == 6
    assert cross_val_score(quick(), X, y, cv=3).min() > 0.8


def test_clone_and_parameters(data):
    def callback(progress):
        del progress

    model = quick(alpha=0.1, negative_slope=0.2, max_time=9.0, callback=callback, verbose=2)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.callback is callback
    with pytest.raises(NotFittedError):
        clone(model.fit(*data)).predict(data[0])
    assert "n_hidden" in repr(model)
    assert "AltReLURegressor" in model._repr_html_()


def test_the_notebook_representation_shows_whether_it_is_fitted(data):
    model = quick()
    before = model._repr_html_()
    assert model.fit(*data)._repr_html_() != before


@pytest.mark.filterwarnings("ignore")  # dask-ml's own, of the libraries it imports
def test_in_dask_ml(data):
    from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV
    from dask_ml.model_selection import KFold, train_test_split

    X, y = (da.from_array(part, chunks=50) for part in data)
    parts = train_test_split(X, y, test_size=0.25, random_state=0, shuffle=True)
    X_train, X_test, y_train, y_test = parts
    model = quick(6).fit(X_train, y_train)
    assert model.score(X_test, y_test) > 0.8
    assert isinstance(model.predict(X_test), da.Array)
    for train, test in KFold(n_splits=2).split(X):
        assert quick(6).fit(X[train], y[train]).score(X[test], y[test]) > 0.8
    grid = DaskGridSearchCV(quick(), {"n_hidden": [1, 6]}, cv=2).fit(X, y)
    assert grid.best_params_ == {"n_hidden": 6}


# Parameters


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"n_hidden": 0}, "n_hidden is 0; expected an int of at least 1"),
        ({"n_hidden": -3}, "n_hidden is -3"),
        ({"n_hidden": 2.0}, r"n_hidden is 2\.0"),
        ({"n_hidden": True}, "n_hidden is True"),
        ({"n_hidden": "many"}, "n_hidden is 'many'"),
        (
            {"method": "adam"},
            "method is 'adam'; expected one of committee, search, kronecker, damped, alternating",
        ),
        ({"method": 3}, "method is 3"),
        ({"n_hidden": 4, "method": "committee"}, "n_hidden is for one plain network"),
        ({"n_hidden": 4, "max_size": 9}, "max_size bounds the neurons of a committee"),
        ({"max_size": 0}, "max_size is 0; expected an int of at least 1"),
        ({"extrapolate": 1}, "extrapolate is 1; expected True or False"),
        ({"n_hidden": 8, "extrapolate": True}, "extrapolate is a choice for committees"),
        ({"alpha": -1e-9}, "alpha is -1e-09; expected a number of at least 0"),
        ({"alpha": np.nan}, "alpha is nan"),
        ({"alpha": np.inf}, "alpha is inf"),
        ({"alpha": None}, "alpha is None"),
        ({"negative_slope": 1}, "negative_slope is 1; expected a number of at least 0 and below 1"),
        ({"negative_slope": -0.1}, r"negative_slope is -0\.1"),
        ({"max_iter": 0}, "max_iter is 0"),
        ({"max_iter": 2.5}, r"max_iter is 2\.5"),
        ({"max_time": -1}, "max_time is -1"),
        ({"random_state": -1}, "random_state is -1"),
        ({"random_state": "seed"}, "random_state is 'seed'"),
    ],
)
def test_parameters_that_cannot_be_are_named(data, parameters, expected):
    X, y = data
    for rows in (X, da.from_array(X, chunks=50)):
        with pytest.raises(ValueError, match=expected) as caught:
            AltReLURegressor(**parameters).fit(rows, y)
        assert "\n" not in str(caught.value)
        if "random_state" not in parameters:
            assert isinstance(caught.value, ParameterError | AltReLUError)


def test_numpy_numbers_are_parameters_too(data):
    model = quick(np.int64(4), alpha=np.float32(0.5), max_iter=np.int32(2))
    assert model.fit(*data).network_.n_hidden == 4


@pytest.mark.parametrize("method", ["search", "kronecker", "damped", "alternating"])
def test_a_run_that_ends_at_max_iter_says_so(data, method):
    model = AltReLURegressor(4, method=method, max_iter=1, random_state=0).fit(*data)
    assert model.stop_reason_ == "max_iter"


# Saving


def test_a_saved_estimator_is_the_same_when_it_is_loaded(data, frame, tmp_path):
    X, y = data
    model = quick(alpha=1e-3, negative_slope=0.1, max_time=50.0, verbose=0)
    model.fit(frame, pd.Series(y, name="speed")).save(tmp_path / "model.zarr")
    loaded = AltReLURegressor.load(tmp_path / "model.zarr")
    assert same(loaded.predict(frame), model.predict(frame))
    assert loaded.get_params() == model.get_params()
    assert loaded.n_iter_ == model.n_iter_
    assert loaded.n_passes_ == model.n_passes_
    assert loaded.stop_reason_ == model.stop_reason_
    assert json.dumps(loaded.history_) == json.dumps(model.history_)
    assert loaded.n_features_in_ == 3
    assert loaded.feature_names_in_.tolist() == model.feature_names_in_.tolist()
    with pytest.raises(ValueError, match="same order"):
        loaded.predict(frame[["age", "height", "weight"]])
    assert same(Network.load(tmp_path / "model.zarr").predict(X)[:, 0], model.predict(frame))
    # It can be trained on, and saved once more.
    loaded.fit(frame, pd.Series(y, name="speed"))
    assert same(loaded.network_.hidden_weights, model.network_.hidden_weights)
    with pytest.raises(ExistsError):
        loaded.save(tmp_path / "model.zarr")
    loaded.save(tmp_path / "model.zarr", overwrite=True)


@pytest.mark.parametrize("columns", [None, 1, 2])
def test_loaded_predictions_have_the_shape_of_the_target(data, tmp_path, columns):
    X, y = data
    target = y if columns is None else np.stack([y] * columns, axis=1)
    model = quick().fit(X, target)
    model.save(tmp_path / "model.zarr")
    loaded = AltReLURegressor.load(tmp_path / "model.zarr")
    assert loaded.predict(X).shape == target.shape
    assert same(loaded.predict(X), model.predict(X))


def test_a_random_state_and_a_callback_are_not_saved(data, tmp_path):
    model = quick(random_state=np.random.RandomState(0), callback=print)
    model.fit(*data).save(tmp_path / "model.zarr")
    loaded = AltReLURegressor.load(tmp_path / "model.zarr")
    assert loaded.random_state is None
    assert loaded.callback is None


def test_a_bare_network_loads_as_an_estimator(data, in_process, tmp_path):
    X, _ = data
    dataclasses.replace(in_process.network_, info={}).save(tmp_path / "model.zarr")
    loaded = AltReLURegressor.load(tmp_path / "model.zarr")
    assert same(loaded.predict(X), in_process.predict(X))
    assert loaded.n_hidden == 4
    assert loaded.history_ == []


def test_saving_needs_a_fit_and_loading_a_model(tmp_path):
    with pytest.raises(NotFittedError):
        quick().save(tmp_path / "model.zarr")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelFileError, match="no such model"):
        AltReLURegressor.load(tmp_path / "model.zarr")


# Telling


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_hidden": 19}, True),  # 96 weights
        ({"n_hidden": 15}, False),
        ({"n_hidden": 19, "early_stopping": True}, False),
        ({}, False),
    ],
)
def test_more_weights_than_half_of_the_rows_are_told_to_the_log(options, told, rng, caplog):
    """Rows without weight do not count: 155 of 200 do, for 3 features and one target."""
    X, y, weight = rng.normal(size=(200, 3)), rng.normal(size=200), np.ones(200)
    weight[:45] = 0
    AltReLURegressor(**options, max_iter=1, random_state=0).fit(X, y, weight)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    expected = "19 neurons have 96 weights for 155 rows: the network may have fitted noise; "
    assert [line.startswith(expected) for line in lines] == [True] * told


def test_verbose_logs_each_iteration_of_each_fit(data, caplog, capsys):
    model = quick(verbose=1)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="altrelu_dist"):
            model.fit(*data)
        lines = [r.getMessage() for r in caplog.records if r.name.startswith("altrelu_dist")]
        assert len(lines) >= model.n_iter_ - 1
        assert "loss" in lines[0]
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="altrelu_dist"):
        quick().fit(*data)
    assert not [r for r in caplog.records if r.name.startswith("altrelu_dist")]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("options", [*({"method": name} for name in METHODS), {"early": True}])
def test_the_network_so_far_is_what_a_run_would_end_with(options, data):
    X, y = data
    losses = []

    def callback(progress):
        network = model.network_so_far()
        if network is not None:
            losses.append(np.mean((network.predict(X)[:, 0] - y) ** 2))
        return progress.iteration >= 5

    options = {"method": "search"} | options
    early = options.pop("early", False)
    options["n_hidden"] = None if options["method"] == "committee" else 8
    model = AltReLURegressor(**options, early_stopping=early, random_state=0, callback=callback)
    assert model.network_so_far() is None
    model.fit(X, y)
    assert model.network_so_far() is None
    final = np.mean((model.predict(X) - y) ** 2)
    assert losses
    assert np.isfinite(losses).all()
    if not early:
        assert final <= losses[-1] * (1 + 1e-6)
        assert losses[-1] <= min(losses) * (1 + 1e-6)
        assert losses[-1] < np.var(y)
    assert final < np.var(y)


def test_a_callback_may_keep_a_copy(data):
    def callback(_):
        assert pickle.loads(pickle.dumps(model.set_params(callback=None))).network_so_far() is None
        return True

    model = AltReLURegressor(3, method="damped", max_iter=3, callback=callback)
    model.fit(*data)
    assert np.isfinite(model.predict(data[0])).all()


def test_an_error_in_the_callback_is_the_callers(data):
    def callback(progress):
        raise LookupError(progress.stage)

    with pytest.raises(LookupError):
        quick(callback=callback).fit(*data)


def test_the_current_client_trains_lazy_data(data, in_process, thread_client):
    X, y = data
    model = quick().fit(da.from_array(X, chunks=50), da.from_array(y, chunks=50))
    assert_same(model, in_process, X)
    assert_same(quick(client=thread_client).fit(X, y), in_process, X)


# What must not be loaded


def in_a_new_interpreter(code):
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = in_a_new_interpreter(
        """
        import sys
        import altrelu_dist
        assert "AltReLURegressor" in dir(altrelu_dist)
        heavy = (
            "dask", "dask_ml", "distributed", "numba", "numpy", "pandas", "pyarrow", "rich",
            "scipy", "sklearn", "zarr",
        )
        print([name for name in heavy if name in sys.modules])
        """
    )
    assert loaded.strip() == "[]"


def test_numpy_data_starts_no_scheduler():
    loaded = in_a_new_interpreter(
        """
        import sys, threading
        import numpy as np
        from altrelu_dist import AltReLURegressor
        X = np.random.default_rng(0).standard_normal((100, 2))
        y = np.sin(3 * X[:, 0])  # which three neurons do not fit exactly
        model = AltReLURegressor(3, max_iter=1).fit(X, y)
        model.predict(X), model.score(X, y)
        assert threading.active_count() == 1
        print([name for name in ("dask", "distributed", "zarr") if name in sys.modules])
        """
    )
    assert loaded.strip() == "[]"


def test_the_numerics_never_import_dask():
    loaded = in_a_new_interpreter(
        """
        import sys
        import altrelu_dist.moments, altrelu_dist.solvers, altrelu_dist.training
        print([name for name in ("dask", "distributed", "sklearn", "zarr") if name in sys.modules])
        """
    )
    assert loaded.strip() == "[]"


def test_a_clone_shares_the_client_and_the_callback(data, thread_client):
    def callback(progress):
        del progress

    model = quick(client=thread_client, callback=callback)
    copied = clone(model)
    assert copied is not model
    assert (copied.client, copied.callback) == (thread_client, callback)
    assert (model.client, model.callback) == (thread_client, callback)
    grid = GridSearchCV(quick(client=thread_client), {"n_hidden": [2, 3]}, cv=2)
    assert grid.fit(*data).best_estimator_.client is thread_client


def test_a_pickled_estimator_leaves_its_client_behind(data, thread_client):
    model = quick(client=thread_client).fit(*data)
    back = pickle.loads(pickle.dumps(model))
    assert back.client is None
    assert model.client is thread_client
    assert same(back.predict(data[0]), model.predict(data[0]))


@pytest.mark.parametrize(
    "wrong",
    [{"history": 3}, {"history": [1]}, {"parameters": [1]}, {"n_passes": "many"}],
)
def test_a_model_of_which_the_extras_are_damaged_is_refused(data, tmp_path, wrong):
    quick().fit(*data).save(tmp_path / "model.zarr")
    group = zarr.open_group(tmp_path / "model.zarr")
    group.attrs["info"] = dict(group.attrs["info"]) | wrong
    with pytest.raises(ModelFileError, match="damaged"):
        AltReLURegressor.load(tmp_path / "model.zarr")


def test_a_fit_that_fails_leaves_what_was_fitted_before(rng):
    X, y = rng.standard_normal((50, 3)), rng.standard_normal(50)
    model = AltReLURegressor(2, random_state=0, max_iter=1).fit(X, y)
    before = model.predict(X)
    with pytest.raises(DataError, match="infinity"):
        model.fit(pd.DataFrame(np.full((50, 6), np.inf), columns=list("abcdef")), np.ones((50, 2)))
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.n_features_in_ == 3
