"""Classification: the link, scikit-learn's checks, and what must not change a result."""

from __future__ import annotations

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from oracles import same
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from altrelu_dist import AltReLUClassifier, AltReLURegressor, logistic
from altrelu_dist.errors import CheckpointError, DataError, ModelFileError, ParameterError
from altrelu_dist.logistic import Judged, chosen, fit_link


@parametrize_with_checks([AltReLUClassifier(n_hidden=4, method="damped", max_iter=1)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        AltReLUClassifier(max_iter=1),
        AltReLUClassifier(max_iter=1, max_size=40),
        AltReLUClassifier(n_hidden=8, max_iter=1),
    ]
)
def test_scikit_learns_checks_of_committees(estimator, check):
    check(estimator)


def quick(n_hidden=None, **parameters):
    usual = {"random_state": 0, "max_iter": 1}
    if n_hidden is not None:
        usual |= {"method": "damped", "max_iter": 5}
    return AltReLUClassifier(n_hidden, **(usual | parameters))


def rows(n=150, classes=3, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    score = X[:, 0] + np.abs(X[:, 1]) + 0.5 * rng.standard_normal(n)
    cuts = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return X, np.array(["ant", "bee", "cat", "dog"])[np.searchsorted(cuts, score)]


def bits(model, X):
    return model.decision_function(X)


# The link


@pytest.mark.parametrize(("classes", "penalty"), [(2, np.inf), (3, np.inf), (3, 0.0), (3, 1e-3)])
def test_the_link_is_that_of_scikit_learn_and_every_step_lowers_the_loss(
    classes, penalty, monkeypatch
):
    monkeypatch.setattr(logistic, "_RIDGE", 0.0)
    rng = np.random.default_rng(0)
    code = rng.integers(classes, size=400)
    weight = rng.integers(1, 4, 400).astype(float)
    Y = np.eye(classes)[code]
    scores = 0.3 * Y + 0.2 * rng.standard_normal((400, classes)) + np.arange(classes)
    if classes == 2:
        Y, scores = Y[:, 1:], scores[:, 1:]
    path: list[float] = []
    logits = fit_link(Judged(scores, Y, weight), penalty, path)(scores)
    assert (np.diff(path) < 0).all()
    assert len(path) < 12
    other = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(scores, code, weight)
    least = log_loss(code, other.predict_proba(scores), sample_weight=weight)
    found = np.average(logistic.log_loss(logits, Y), weights=weight)
    if classes == 2 or penalty == 0:
        assert found == pytest.approx(least, rel=1e-9)
        probability = logistic.probabilities(logits)
        np.testing.assert_allclose(probability, other.predict_proba(scores), atol=1e-4)
    else:  # less free, and a scale of one is then best for its own logits
        assert least < found < least + 0.02
        again = fit_link(Judged(logits, Y, weight))
        np.testing.assert_allclose(again(logits), logits, atol=0.1 if penalty < np.inf else 1e-6)


def test_a_link_of_classes_that_scores_separate_is_finite():
    scores = np.linspace(-1, 1, 40)[:, None]
    link = fit_link(Judged(scores, (scores > 0).astype(float), np.ones(40)))
    assert 0 < link.matrix[0, 0] < 100
    assert (chosen(link(scores)) == (scores[:, 0] > 0)).all()


# What a fit says


@pytest.mark.parametrize("n_hidden", [None, 6])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_network_gives_logits_and_these_the_probabilities(n_hidden, classes):
    X, y = rows(classes=classes)
    model = quick(n_hidden).fit(X, y)
    probability = model.predict_proba(X)
    assert probability.shape == (len(X), classes)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
    logits = model.network_.predict(X)
    assert same(logits if classes > 2 else logits[:, 0], model.decision_function(X))
    assert same(model.predict(X), model.classes_[probability.argmax(axis=1)])
    assert model.score(X, y) == np.mean(model.predict(X) == y) > 0.7
    assert model.network_.info["classes"] == sorted(set(y))
    assert model.network_.info["link"] == "logistic"
    assert model.network_.target_range is None


def test_what_to_expect_on_new_rows():
    X, y = rows(2400)
    train, new = slice(400), slice(400, None)
    model = quick().fit(X[train], y[train])
    found = log_loss(y[new], model.predict_proba(X[new]))
    assert abs(model.expected_log_loss_ - found) < 0.08
    assert abs(model.expected_accuracy_ - model.score(X[new], y[new])) < 0.05
    assert not hasattr(model, "expected_r2_")


@pytest.mark.slow
def test_a_small_network_follows_the_probabilities_of_a_committee():
    X, y = rows(2400)
    train, new = slice(400), slice(400, None)
    model = quick().fit(X[train], y[train])
    small = quick(max_size=12).fit(X[train], y[train])
    assert small.network_.n_hidden <= 12
    assert small.expected_log_loss_ >= model.expected_log_loss_
    assert log_loss(y[new], small.predict_proba(X[new])) < small.expected_log_loss_ + 0.08


def test_a_run_that_goes_on_says_probabilities_too():
    X, y = rows()
    seen = []
    for n_hidden in (None, 4):
        model = quick(n_hidden)
        model.set_params(callback=lambda _, m=model: seen.append(m.network_so_far()) and False)
        model.fit(X, y)
        last = [network for network in seen if network is not None][-1]
        assert last.info["classes"] == ["ant", "bee", "cat"]
        np.testing.assert_allclose(last.predict(X), model.network_.predict(X), atol=1e-8)


# The same result


@pytest.mark.parametrize("n_hidden", [None, 4])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_same_bits_in_any_chunks_and_containers(n_hidden, classes):
    X, y = rows(classes=classes)
    whole = bits(quick(n_hidden).fit(X, y), X)
    lazy = da.from_array(X, chunks=60)
    text = da.from_array(y.astype(object), chunks=100)
    model = quick(n_hidden).fit(lazy, text)
    assert same(bits(model, X), whole)
    for predict in (model.predict, model.predict_proba, model.decision_function):
        found, expected = predict(lazy).compute(), predict(X)
        if found.dtype == np.float64:  # blocks of few rows sum in another order
            np.testing.assert_allclose(found, expected, atol=1e-12)
        else:
            assert same(found, expected)
    assert model.score(lazy, text) == model.score(X, y)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    kinds = [pd.Series(y), pd.Series(y).astype("category"), pd.array(y)]
    for labels in kinds if n_hidden else ():  # a committee takes longer, and is no other in this
        assert same(bits(quick(n_hidden).fit(frame, labels), frame), whole)
    both = dd.from_pandas(frame.assign(y=y), npartitions=3)
    model = quick(n_hidden).fit(both[["a", "b", "c"]], both["y"])
    assert same(bits(model, frame), whole)
    assert model.score(both[["a", "b", "c"]], both["y"]) == model.score(frame, y)


@pytest.mark.parametrize("n_hidden", [None, 4])
def test_repeated_rows_are_weights_and_so_are_classes(n_hidden):
    X, y = rows()
    times = np.random.default_rng(0).integers(1, 4, len(X))
    weighted = quick(n_hidden).fit(X, y, times)
    repeated = quick(n_hidden).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(bits(weighted, X), bits(repeated, X), atol=1e-4)
    by_class = {"ant": 1, "bee": 2, "cat": 3}
    own = np.array([by_class[label] for label in y])
    one = quick(n_hidden, class_weight={"bee": 2, "cat": 3}).fit(X, y, times)
    assert same(bits(one, X), bits(quick(n_hidden).fit(X, y, times * own), X))
    keep = (y != "cat") | (np.arange(len(y)) % 3 == 0)
    X, y, times = X[keep], y[keep], times[keep]
    sums = {label: times[y == label].sum() for label in by_class}
    own = np.array([times.sum() / (3 * sums[label]) for label in y])
    balanced = quick(n_hidden, class_weight="balanced").fit(X, y, times)
    assert same(bits(balanced, X), bits(quick(n_hidden).fit(X, y, times * own), X))


@pytest.mark.parametrize("classes", [2, 3])
def test_other_labels_are_other_columns(classes):
    X, y = rows(classes=classes)
    other = np.array([{"ant": "z", "bee": "y", "cat": "x"}[label] for label in y])
    one, two = quick(4).fit(X, y), quick(4).fit(X, other)
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X)[:, ::-1], atol=0.05)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 1.0}])
@pytest.mark.parametrize("n_hidden", [None, 4])
def test_a_saved_classifier_is_the_same(tmp_path, n_hidden, class_weight):
    X, y = rows(classes=2)
    y = (y == "bee").astype(int)
    model = quick(n_hidden, class_weight=class_weight).fit(X, y)
    model.save(tmp_path / "m.zarr")
    again = AltReLUClassifier.load(tmp_path / "m.zarr")
    assert same(again.predict_proba(X), model.predict_proba(X))
    assert same(again.predict(X), model.predict(X))
    assert again.get_params() | {"client": None} == model.get_params()
    assert again.network_.info["expected_log_loss" if n_hidden is None else "link"]
    with pytest.raises(ModelFileError, match="holds a classifier"):
        AltReLURegressor.load(tmp_path / "m.zarr")


# Labels


@pytest.mark.parametrize("kind", [int, float, bool, str, object])
def test_labels_of_any_type_come_back(kind):
    X, y = rows(classes=2)
    y = y.astype(object) if kind is object else np.where(y == "bee", 1, 0).astype(kind)
    model = quick(4).fit(X, y)
    assert same(np.sort(np.unique(y)), model.classes_)
    assert model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.7


def test_tables_with_texts_and_gaps():
    X, y = rows()
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(kind=np.where(X[:, 0] > 0, "up", None))
    frame.iloc[::7, 1] = np.nan
    model = quick().fit(frame, y)
    assert model.score(frame, y) > 0.7


def test_a_class_with_one_row():
    X, y = rows()
    y = y.astype(object)
    y[5] = "rare"
    for n_hidden in (None, 4):
        probability = quick(n_hidden).fit(X, y).predict_proba(X)
        assert np.isfinite(probability).all()
        assert probability[:, 3].mean() < 0.05


def test_a_label_that_was_not_there_is_never_right():
    X, y = rows()
    model = quick(4).fit(X, y)
    new = np.where(np.arange(len(y)) < 40, "new", y)
    assert model.score(X, new) == np.mean(model.predict(X) == new)
    assert model.score(da.from_array(X), da.from_array(new)) == model.score(X, new)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        (lambda y: np.full(len(y), "ant"), DataError, "y has one class: 'ant' alone"),
        (lambda y: np.where(y == "ant", None, y), DataError, "y contains NaN"),
        (lambda y: np.arange(len(y)) + 0.5, ValueError, "Unknown label type: continuous"),
        (lambda y: np.where(y == "ant", 3, y.astype(object)), DataError, "labels of several types"),
    ],
)
def test_labels_that_cannot_be_are_refused(changed, error, text, lazy):
    X, y = rows()
    bad = changed(y)
    data = (da.from_array(X, chunks=90), da.from_array(bad, chunks=90)) if lazy else (X, bad)
    with pytest.raises(error, match=text) as caught:
        quick(4).fit(*data)
    assert "\n" not in str(caught.value)
    model = quick(4).fit(X, y)
    if text == "y contains NaN":
        with pytest.raises(DataError, match="y has no label in 50 rows"):
            model.score(*data)


@pytest.mark.parametrize(
    ("class_weight", "text"),
    [
        ("even", "class_weight is 'even'"),
        (3, "class_weight is 3"),
        ({"cow": 1}, "class_weight has the label 'cow', which y has not"),
        ({"ant": -1}, "class_weight is -1 for 'ant'"),
    ],
)
def test_class_weights_that_cannot_be_are_named(class_weight, text):
    with pytest.raises(ParameterError, match=text):
        quick(4, class_weight=class_weight).fit(*rows())


def test_only_one_class_with_weight_is_refused():
    X, y = rows()
    with pytest.raises(DataError, match="only one class has rows of positive weight"):
        quick(4).fit(X, y, (y == "ant").astype(float))


def test_a_committee_without_time_gives_the_shares_of_the_classes():
    X, y = load_iris(return_X_y=True)
    model = quick(max_time=0)
    with pytest.warns(UserWarning, match="mean of the targets|a single pass"):
        model.fit(X[:120], y[:120])
    np.testing.assert_allclose(model.predict_proba(X[:1]), [[50 / 120, 50 / 120, 20 / 120]])


@pytest.mark.parametrize("many", [False, True])
def test_a_run_on_other_labels_of_the_same_numbers_is_not_gone_on_with(tmp_path, many):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    place = np.arange(60) % (12 if many else 2)
    names = np.array([f"c{i:02}" for i in range(12)])
    others = names.copy()
    others[place.max()] = "z"  # the last one still
    usual = {"method": "damped", "max_iter": 1, "random_state": 0, "checkpoint": tmp_path / "run"}
    model = AltReLUClassifier(2, **usual).fit(X, names[place])
    again = AltReLUClassifier(2, resume=True, **usual)
    with pytest.raises(CheckpointError, match=r"other parameters: classes was .*'c01'.* and is"):
        again.fit(X, others[place])
    same(again.fit(X, names[place]).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("n_hidden", [None, 3])
def test_validation_rows_are_scored_by_their_log_loss(n_hidden):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    y = np.array(["a", "b", "c"])[np.digitize(X[:, 0] + rng.standard_normal(200) / 2, [-1, 1])]
    weight = rng.uniform(0.1, 2, 50)
    new = slice(150, None)
    usual = {"method": "damped"} if n_hidden else {}
    model = quick(n_hidden, class_weight={"b": 3.0}, **usual)
    model.fit(X[:150], y[:150], X_val=X[new], y_val=y[new], sample_weight_val=weight)
    own = weight * np.where(y[new] == "b", 3, 1)  # as the rows of the training
    expected = log_loss(y[new], model.predict_proba(X[new]), sample_weight=own)
    assert model.validation_loss_ == pytest.approx(expected, rel=1e-5)
    lazy = quick(n_hidden, class_weight={"b": 3.0}, **usual)
    rows = {"X_val": da.from_array(X[new], chunks=20), "y_val": da.from_array(y[new], chunks=20)}
    lazy.fit(X[:150], y[:150], sample_weight_val=weight, **rows)
    assert lazy.validation_loss_ == pytest.approx(model.validation_loss_, rel=1e-6)
    assert model.classes_.tolist() == ["a", "b", "c"]


def test_validation_rows_may_lack_classes_and_have_no_others():
    X = np.linspace(-1, 1, 60)[:, None]
    y = np.repeat(["a", "b", "c"], 20)
    model = quick(2, method="damped").fit(X, y, X_val=X[:10], y_val=y[:10])
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.stop_reason_ in ("early_stopping", "max_iter", "converged")
    with pytest.raises(DataError, match=r"X_val, y_val: y has the label 'd' .*classes of the fit"):
        quick(2, method="damped").fit(X, y, X_val=X[:2], y_val=["a", "d"])
    with pytest.raises(DataError, match="X_val, y_val: y contains NaN"):
        quick(2, method="damped").fit(X, y, X_val=X[:2], y_val=np.array(["a", None], dtype=object))
    with pytest.raises(ParameterError, match="y_val is missing"):
        quick(2, method="damped").fit(X, y, X_val=X[:2])
