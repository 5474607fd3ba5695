"""Losses other than the square, and intervals, by the commands."""

from __future__ import annotations

import json
import re

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from commands import passes, refuses
from sklearn.metrics import (
    d2_pinball_score,
    d2_tweedie_score,
    mean_pinball_loss,
    mean_poisson_deviance,
    r2_score,
)

from altrelu_dist import AltReLUClassifier, AltReLURegressor, Network, evaluate, evaluate_classes
from altrelu_dist.dependence import importance_of
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.losses import Huber
from altrelu_dist.moments.rows import Rows

PLAIN = ("--workers", 0, "--hidden", 3, "--method", "damped", "--max-iter", 2)
HELD = (*PLAIN, "--early-stopping", "--validation-fraction", 0.3)
LEVELS = ("--loss", "quantile", "--quantile", 0.9, "--quantile", 0.1)


def frame(rows=240):
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["a", "b"])
    made["wet"] = rng.poisson(np.exp(made["a"])).astype(float)
    made["far"] = made["a"] + np.abs(made["b"]) + rng.standard_t(2, rows)
    return made


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_csv("t.csv", index=False)


def trained(target, *more):
    other = "wet" if target == "far" else "far"
    told = passes("train", "t.csv", "--target", target, "--drop", other, "--out", "m.zarr",
                  "--json", *more)  # fmt: skip
    return json.loads(told.stdout)


def evaluated(*more):
    return json.loads(passes("evaluate", "m.zarr", "t.csv", "--json", *more).stdout)


def test_scores_of_counts_are_those_of_scikit_learn():
    told = trained("wet", *PLAIN, "--loss", "poisson")
    found, y = evaluated(), frame()["wet"]
    p = AltReLURegressor.load("m.zarr").predict(frame()[["a", "b"]])
    assert found["loss"] == told["loss"] == "poisson"
    assert found["mean_loss"] == pytest.approx(mean_poisson_deviance(y, p))
    assert found["d2"] == pytest.approx(d2_tweedie_score(y, p, power=1))
    assert found["r2"] == pytest.approx(r2_score(y, p))
    assert told["mean_loss"] == pytest.approx(found["mean_loss"])
    assert "deviance" in passes("evaluate", "m.zarr", "t.csv").stdout


def test_scores_of_quantiles_are_those_of_scikit_learn_and_a_column_each_is_predicted():
    trained("far", *PLAIN, *LEVELS)
    found, y = evaluated(), frame()["far"].to_numpy()
    P = AltReLURegressor.load("m.zarr").predict(frame()[["a", "b"]])
    for level, p, score in zip((0.1, 0.9), P.T, found["targets"], strict=True):
        assert score["target"] == f"far_{level}"
        assert score["mean_loss"] == pytest.approx(mean_pinball_loss(y, p, alpha=level))
        # scikit-learn interpolates the quantile, which is never the better constant
        assert score["d2"] == pytest.approx(d2_pinball_score(y, p, alpha=level), abs=2e-3)
        assert score["share_below"] == (y <= p).mean()
    passes("predict", "m.zarr", "t.csv", "--out", "p.csv", "--keep", "far")
    table = pd.read_csv("p.csv")
    assert [*table] == ["far", "far_0.1", "far_0.9"]
    np.testing.assert_allclose(table.iloc[:, 1:], P)
    again = Network.load("m.zarr")
    assert (again.target_columns, again.target_names) == (("far",), ("far_0.1", "far_0.9"))
    text = refuses("predict", "m.zarr", "t.csv", "--out", "q.csv", "--interval", 0.8)
    assert text.startswith("error: --interval")
    assert "predicts quantiles, which are the ends of intervals" in text


def test_the_huber_loss_is_that_of_its_delta():
    trained("far", *PLAIN, "--loss", "huber")
    found, network = evaluated(), Network.load("m.zarr")
    y = frame()[["far"]].to_numpy()
    loss = Huber(tuple(network.info["delta"]))
    p = network.predict(frame()[["a", "b"]].to_numpy())
    assert found["mean_loss"] == pytest.approx(loss.value(p, y).mean())
    alone = loss.value(loss.constant(y, np.ones(len(y))), y).mean()
    assert found["d2"] == pytest.approx(1 - loss.value(p, y).mean() / alone)
    residual = np.abs(y - p)
    assert network.info["delta"][0] == pytest.approx(1.345 * 1.4826 * np.median(residual), rel=0.3)


@pytest.mark.parametrize("ending", ["csv", "parquet", "npy"])
def test_the_ends_of_an_interval_follow_the_prediction(ending):
    trained("far", *HELD)
    out = f"p.{ending}"
    keep = () if ending == "npy" else ("--keep", "far_low")
    table = frame().rename(columns={"wet": "far_low"})
    table.to_csv("kept.csv", index=False)
    passes("predict", "m.zarr", "kept.csv", "--out", out, "--interval", 0.8, *keep)
    model = AltReLURegressor.load("m.zarr")
    X = frame()[["a", "b"]]
    expected = np.column_stack([model.predict(X), model.predict_interval(X, 0.8)[:, 0]])
    if ending == "npy":
        np.testing.assert_allclose(np.load(out), expected)
        return
    found = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert [*found] == ["far_low", "far", "far_low_predicted", "far_high"]
    np.testing.assert_allclose(found.iloc[:, 1:], expected)
    assert found["far_low"].astype(float).tolist() == frame()["wet"].tolist()


def test_coverage_is_the_share_within_and_of_new_rows_where_it_trains():
    told = trained("far", *HELD, "--test-fraction", 0.2)
    assert "coverage" in told["targets"]["test"][0]
    assert "coverage" not in told["targets"]["train"][0]
    X, y = frame()[["a", "b"]], frame()["far"].to_numpy()
    ends = AltReLURegressor.load("m.zarr").predict_interval(X, 0.7).T
    found = evaluated("--interval", 0.7)
    assert found["interval"] == 0.7
    assert found["coverage"] == pytest.approx(((ends[0] <= y) & (y <= ends[1])).mean())
    assert evaluated()["interval"] == 0.9
    assert "in 70 %" in passes("evaluate", "m.zarr", "t.csv", "--interval", 0.7).stdout
    assert "enough for at most" in refuses("evaluate", "m.zarr", "t.csv", "--interval", 0.9999)


def test_weighted_and_lazy_scores_are_those_of_rows_that_are_repeated():
    X, y = frame()[["a", "b"]].to_numpy(), frame()["far"].to_numpy()
    weight = np.random.default_rng(1).integers(0, 3, len(y))
    model = AltReLURegressor(3, method="damped", max_iter=2, loss="quantile",
                             quantile=[0.2, 0.7]).fit(X, y)  # fmt: skip
    chunks = da.from_array(X, chunks=(50, 2)), da.from_array(y, chunks=50)
    one = evaluate(model.network_, *chunks, da.from_array(weight.astype(float), chunks=50))
    other = evaluate(model.network_, np.repeat(X, weight, axis=0), np.repeat(y, weight))
    for a, b in zip(one, other, strict=True):
        for name in ("mean_loss", "d2", "share_below", "mae"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--loss", "poisson"), "far goes down to|expects targets of at least 0"),
        (("--quantile", 0.1), "quantile.*is for"),
        (("--loss", "quantile", "--quantile", 1.5), "above 0 and below 1"),
        (("--loss", "huber", "--method", "alternating"), "least squares"),
        (
            ("--loss", "quantile", "--quantile", 0.5, "--quantile", 0.5),
            "has 0.5 more than once; give each level once",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(more, words):
    text = refuses("train", "t.csv", "--target", "far", "--out", "m.zarr", *PLAIN[:4], *more)
    assert re.search(words, text), text


def test_losses_and_intervals_are_not_for_classes():
    table = frame().assign(kind=np.where(frame()["far"] > 0, "x", "z"))
    table.to_csv("k.csv", index=False)
    base = ("train", "k.csv", "--target", "kind", "--only", "a", "--out", "k.zarr", *PLAIN)
    assert "kind has classes" in refuses(*base, "--loss", "huber")
    passes(*base)
    for command in (("evaluate",), ("predict", "--out", "p.csv")):
        text = refuses(command[0], "k.zarr", "k.csv", *command[1:], "--interval", 0.9)
        assert "predicts classes; take their probabilities" in text


def test_each_of_the_two_evaluations_names_the_other():
    X, y = frame()[["a", "b"]].to_numpy(), frame()["far"].to_numpy()
    quick = {"method": "damped", "max_iter": 1}
    numbers = AltReLURegressor(2, **quick).fit(X, y).network_
    classes = AltReLUClassifier(2, **quick).fit(X, y > 0).network_
    with pytest.raises(DataError, match="use evaluate_classes"):
        evaluate(classes, X, (y > 0).astype(float))
    with pytest.raises(DataError, match=r"use evaluate$"):
        evaluate_classes(numbers, X, y)
    with pytest.raises(DataError, match="no residuals"):
        evaluate(numbers, X, y, level=0.9)
    with pytest.raises(ParameterError, match="above 0"):
        evaluate(numbers, X, y, level=2)


def test_a_run_that_is_resumed_has_its_loss():
    trained("far", *PLAIN, *LEVELS, "--checkpoint", "run", "--max-time", 60)
    told = json.loads(passes("train", "--resume", "run", "--overwrite", "--json").stdout)
    assert [one["target"] for one in told["targets"]["train"]] == ["far_0.1", "far_0.9"]
    text = refuses("train", "--resume", "run", "--overwrite", "--quantile", 0.5)
    assert "levels was (0.1, 0.9) and is (0.5,)" in text


@pytest.mark.parametrize("loss", ["poisson", "huber", "quantile"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_no_share_of_the_loss_is_explained_of_a_target_that_does_not_vary(loss, value):
    X, y = frame()[["a", "b"]].to_numpy(), frame()["wet"].to_numpy()
    options = {"loss": loss, "method": "damped", "max_iter": 1, "random_state": 0}
    network = AltReLURegressor(2, **options).fit(X, y).network_
    constant, weight = np.append(np.full(len(y) - 1, value), 7.0), np.ones(len(y))
    weight[-1] = 0  # of no row that counts
    (score,) = evaluate(network, X, constant, weight)
    assert score.mean_loss > 0
    assert np.isnan(score.d2)
    (found,) = importance_of(network, Rows(0, X, constant[:, None], weight), repeats=1)
    assert np.isnan(found.mean).all()
    assert evaluate(network, X, y)[0].d2 < 1
