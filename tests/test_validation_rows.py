"""Validation rows of the user's own: what they decide, and what is refused."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from oracles import same
from sklearn.metrics import mean_pinball_loss, mean_poisson_deviance, mean_squared_error

from altrelu_dist import AltReLURegressor
from altrelu_dist.errors import DataError, ParameterError


def made(n=90, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    return X, np.abs(X[:, 0]) + 0.5 * X[:, 1] + 0.5 * rng.standard_normal(n)


X, y = made()
X_val, y_val = made(80, seed=1)


def quick(n_hidden=None, **parameters):
    usual = {"random_state": 0, "max_iter": 1}
    if n_hidden is not None:
        usual |= {"method": "damped", "max_iter": 30}
    return AltReLURegressor(n_hidden, **(usual | parameters))


@pytest.mark.parametrize("n_hidden", [None, 20])
@pytest.mark.parametrize("loss", ["squared_error", "quantile", "poisson"])
def test_the_loss_on_them_is_reported(n_hidden, loss):
    own, own_val = (np.exp(y), np.exp(y_val)) if loss == "poisson" else (y, y_val)
    weight = np.arange(80.0)
    model = quick(n_hidden, loss=loss)
    model.fit(X, own, X_val=X_val, y_val=own_val, sample_weight_val=weight)
    score = {
        "squared_error": mean_squared_error,
        "quantile": mean_pinball_loss,
        "poisson": mean_poisson_deviance,
    }[loss]
    found = score(own_val, model.predict(X_val), sample_weight=weight)
    assert model.validation_loss_ == pytest.approx(found, rel=1e-4)
    assert model.history_[-1]["validation_loss"] == model.validation_loss_
    model.fit(X, own)
    assert not hasattr(model, "validation_loss_")


def test_a_plain_network_is_chosen_by_them_and_trained_on_all_rows():
    without = quick(20).fit(X, y)
    model = quick(20).fit(X, y, X_val=X_val, y_val=y_val)
    assert model.score(X_val, y_val) > without.score(X_val, y_val)
    # Other rows are those of the training, and nothing else is decided by early_stopping.
    again = quick(20, early_stopping=True).fit(X, y, X_val=X_val, y_val=y_val)
    assert same(model.network_.hidden_weights, again.network_.hidden_weights)
    least = min(e["validation_loss"] for e in model.history_ if np.isfinite(e["validation_loss"]))
    assert model.validation_loss_ == least
    interval = model.predict_interval(X_val)
    covered = (interval[:, 0] <= y_val) & (y_val <= interval[:, 1])
    assert covered.mean() == pytest.approx(0.9, abs=0.03)


def test_a_committee_is_only_scored_on_them():
    model, without = quick().fit(X, y, X_val=X_val, y_val=y_val), quick().fit(X, y)
    assert same(model.network_.hidden_weights, without.network_.hidden_weights)
    assert same(model.predict(X), without.predict(X))


@pytest.mark.parametrize("n_hidden", [None, 6])
def test_tables_and_chunks_are_taken_as_those_of_the_training(n_hidden):
    table = pd.DataFrame(X, columns=list("abc")).assign(d=np.where(X[:, 2] > 0, "high", "low"))
    new = pd.DataFrame(X_val, columns=list("abc")).assign(d=np.where(X_val[:, 2] > 0, "high", "x"))
    table.loc[3, "a"] = np.nan
    model = quick(n_hidden).fit(table, y, X_val=new, y_val=pd.Series(y_val))
    found = mean_squared_error(y_val, model.predict(new))
    assert model.validation_loss_ == pytest.approx(found, rel=1e-5)
    in_memory = quick(n_hidden).fit(X, y, X_val=X_val, y_val=y_val)
    lazy = quick(n_hidden).fit(
        X, y, X_val=da.from_array(X_val, chunks=(30, 3)), y_val=da.from_array(y_val, chunks=50)
    )
    assert lazy.validation_loss_ == pytest.approx(in_memory.validation_loss_, rel=1e-9)


def test_a_run_goes_on_with_the_same_rows_alone(tmp_path):
    cut = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    quick(6, **cut).fit(X, y, X_val=X_val, y_val=y_val)
    quick(6, resume=True, **cut).fit(X, y, X_val=X_val, y_val=y_val)
    with pytest.raises(ValueError, match="validation"):
        quick(6, resume=True, **cut).fit(X, y, X_val=X_val, y_val=y_val + 1)


@pytest.mark.parametrize("n_hidden", [None, 6])
def test_what_does_not_fit_is_refused(n_hidden):
    model = quick(n_hidden)
    for given in ({"X_val": X_val}, {"y_val": y_val}, {"sample_weight_val": y_val}):
        with pytest.raises(ParameterError, match="together"):
            model.fit(X, y, **given)
    gaps = np.where(X_val == X_val[5, 1], np.nan, X_val)
    for wrong, what in (
        ({"X_val": X_val[:, :2], "y_val": y_val}, "X_val, y_val: X has 2 features"),
        ({"X_val": X_val, "y_val": y_val[:-1]}, "X_val, y_val: "),
        ({"X_val": X_val, "y_val": np.stack([y_val, y_val], axis=1)}, "X_val, y_val: y has 2"),
        ({"X_val": X_val, "y_val": np.where(y_val > 2, np.inf, y_val)}, "X_val, y_val: y contains"),
        ({"X_val": gaps, "y_val": y_val}, "X_val contains NaN"),
    ):
        with pytest.raises(DataError, match=what):
            model.fit(X, y, **wrong)
    table = pd.DataFrame(X, columns=list("abc"))
    with pytest.raises(DataError, match="X_val, y_val: "):
        model.fit(table, y, X_val=table.rename(columns={"a": "z"}), y_val=y)
