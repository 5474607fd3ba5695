"""`altrelu report`: its page, its figures, and what they are drawn from."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from commands import passes, refuses
from oracles import same
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.calibration import calibration_curve
from sklearn.inspection import partial_dependence as sklearn_dependence
from sklearn.inspection import permutation_importance
from sklearn.metrics import confusion_matrix, r2_score

from altrelu_dist import AltReLURegressor, Network, diagnose, evaluate, plots
from altrelu_dist.cli import page as pages
from altrelu_dist.cli.page.blocks import number
from altrelu_dist.dependence import importance_of, partial_dependence
from altrelu_dist.diagnosis.sample import Draw
from altrelu_dist.inputs import engine_of
from altrelu_dist.moments.rows import Rows
from altrelu_dist.runs.columns import open_for, targets_of

QUICK = ("--workers", 0, "--hidden", 4, "--method", "damped", "--max-iter", 4)
ODD = 'x <b>"$1&'
VOID = {"meta", "link", "br", "hr", "img", "input"}


def frame(rows=700):
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"a": rng.normal(size=rows), ODD: rng.normal(size=rows)})
    made["town"] = rng.choice(["Rome", "Oslo", "Lima"], rows)
    made["day"] = pd.to_datetime("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, rows), "D")
    made["gap"] = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows))
    score = made["a"] ** 2 + 2 * (made["town"] == "Oslo") + made["gap"].fillna(-1)
    made["y"] = score + rng.normal(size=rows) / 5
    made["z"] = (made["a"] * 3).round()
    made["kind"] = np.array(["ant", "bee", "cat"])[np.digitize(score, [0.5, 2])]
    made["is"] = score > 1
    return made


def train(target, out, *more):
    drop = [word for name in ("y", "z", "kind", "is") if name not in target
            for word in ("--drop", name)]  # fmt: skip
    named = [word for name in target for word in ("--target", name)]
    passes("train", "t.csv", *named, *drop, "--out", out, *QUICK, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        frame().to_csv("t.csv", index=False)
        train(["y"], "y.zarr")
        train(["y", "z"], "two.zarr")
        train(["kind"], "kind.zarr")
        train(["is"], "is.zarr")
        passes("report", "y.zarr", "t.csv", "--out", "y.html")
        passes("report", "kind.zarr", "t.csv", "--out", "kind.html")
        passes("report", "two.zarr", "t.csv", "--out", "two.html")
        passes("report", "y.zarr", "--out", "bare.html")
    return folder


@pytest.fixture(autouse=True)
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(model, data="t.csv"):
    network = Network.load(model)
    found = open_for(network, data, str, targets=())
    return network, found.X, targets_of(network, found)


def in_memory(model):
    network, X, y = opened(model)
    return network, Rows(0, X.compute(), y.compute())


# --- what the figures are drawn from ------------------------------------------------------------


class Wrapped(BaseEstimator):
    """A network on its raw numbers, as scikit-learn takes one."""

    def __init__(self, network=None):
        self.network = network
        self.fitted_ = True

    def fit(self, *_):
        return self

    def predict(self, X):
        return self.network.predict(X)[:, 0]


class WrappedRegressor(RegressorMixin, Wrapped):
    pass


class WrappedClassifier(ClassifierMixin, Wrapped):
    classes_ = np.arange(3)

    def predict_proba(self, X):
        return softmax(self.network.predict(X), axis=1)


@pytest.mark.parametrize("model", ["y.zarr", "kind.zarr"])
def test_importance_is_that_of_scikit_learn(model):
    network, rows = in_memory(model)
    (found,) = importance_of(network, rows, repeats=30)
    kind, scoring = (WrappedRegressor, "r2") if model == "y.zarr" else (
        WrappedClassifier, "neg_log_loss")  # fmt: skip
    expected = permutation_importance(
        kind(network), rows.X, rows.y[:, 0], scoring=scoring, n_repeats=30, random_state=1
    )
    error = np.hypot(found.deviation, expected.importances_std) / np.sqrt(30)
    assert (np.abs(found.mean - expected.importances_mean) <= 4 * error + 1e-12).all()
    assert found.unit == ("R2" if model == "y.zarr" else "log loss")
    assert {found.names[i] for i in found.order[:3]} == {"a", "town", "gap"}


def test_importance_is_weighted():
    network, rows = in_memory("y.zarr")
    weight = np.random.default_rng(0).integers(0, 3, len(rows.X)).astype(float)
    (found,) = importance_of(network, rows._replace(weight=weight), repeats=1, seed=5)
    rng, expected = np.random.default_rng(5), []
    before = r2_score(rows.y, network.predict(rows.X), sample_weight=weight)
    for column in range(rows.X.shape[1]):
        X = rows.X.copy()
        X[:, column] = X[rng.permutation(len(X)), column]
        expected.append(before - r2_score(rows.y, network.predict(X), sample_weight=weight))
    np.testing.assert_allclose(found.mean, expected, atol=1e-12)


@pytest.mark.parametrize("model", ["y.zarr", "kind.zarr"])
def test_dependence_is_that_of_scikit_learn(model):
    network, rows = in_memory(model)
    kind = WrappedRegressor if model == "y.zarr" else WrappedClassifier
    for column in (0, 1, 3):  # numbers, and times
        (found,) = partial_dependence(network, rows, [column])
        expected = sklearn_dependence(
            kind(network), rows.X, [column], kind="average", grid_resolution=24, method="brute"
        )
        np.testing.assert_allclose(found.grid, expected["grid_values"][0], rtol=1e-6)
        np.testing.assert_allclose(found.mean.T, expected["average"], rtol=1e-4, atol=1e-6)


def test_dependence_on_levels_and_missing_values():
    network, rows = in_memory("y.zarr")
    levels, gaps = partial_dependence(network, rows, [2, 4])
    assert set(levels.levels) == {"Rome", "Oslo", "Lima"}
    table = frame()[[*network.feature_names]]
    for level, mean in zip(levels.levels, levels.mean, strict=True):
        assert mean == pytest.approx(network.predict(table.assign(town=level)).mean())
    assert levels.missing is None
    assert gaps.missing == pytest.approx(network.predict(table.assign(gap=np.nan)).mean())


def test_densities_are_those_of_numpy():
    network, X, y = opened("y.zarr")
    (found,) = diagnose(network, X, y).residuals
    true, predicted = y.compute()[:, 0], network.predict(X.compute())[:, 0]
    cells = found.predicted
    expected, _, _ = np.histogram2d(true, predicted, bins=(cells.x_edges, cells.y_edges))
    same(cells.weight, expected)
    assert cells.beyond == len(true) - expected.sum()
    assert cells.beyond < 0.02 * len(true)
    expected, _ = np.histogram(true - predicted, found.residual.edges)
    same(found.residual.weight, expected.astype(float))
    cells = found.against
    expected, _, _ = np.histogram2d(predicted, true - predicted, (cells.x_edges, cells.y_edges))
    same(cells.weight, expected)


def test_cells_of_whole_targets_hold_as_many_values_each():
    network, X, y = opened("two.zarr")
    edges = diagnose(network, X, y).residuals[1].predicted.x_edges
    assert set(np.diff(edges)) == {1.0}
    assert edges[0] % 1 == 0.5


@pytest.mark.parametrize("model", ["y.zarr", "kind.zarr"])
def test_blocks_give_the_same_as_one_piece(model):
    network, X, y = opened(model)
    X, y = X.compute(), y.compute()
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    X, y, weight = (np.concatenate([each] * 13) for each in (X, y, weight))  # of several tiles
    one = diagnose(network, X, y, weight)
    blocks = [da.from_array(each, chunks=(1000, *each.shape[1:])) for each in (X, y, weight)]
    other = diagnose(network, *blocks)
    expected = int((weight > 0).sum()), 2000
    assert (one.rows, one.sampled) == (other.rows, other.sampled) == expected
    for first, second in zip(one.residuals, other.residuals, strict=True):
        same(first.predicted.weight, second.predicted.weight)
        same(first.residual.weight, second.residual.weight)
    for first, second in zip(one.calibrations, other.calibrations, strict=True):
        same(first.share, second.share)
    same(one.importances[0].mean, other.importances[0].mean)


def test_the_sample_is_random_and_bounded_and_leaves_out_rows_without_weight():
    n = 20_000
    X, weight = np.arange(n, dtype=float)[:, None], np.ones(n)
    weight[:5000] = 0
    found = engine_of(X, X, weight).reduce(Draw(1000, 0, None), "sample")
    drawn = found.sample.drawn().X[:, 0]
    assert len(drawn) == len(set(drawn)) == 1000
    assert drawn.min() >= 5000
    assert np.histogram(drawn, 5, (5000, n))[0].min() > 150


def test_calibration_and_confusion_are_those_of_scikit_learn():
    network, X, y = opened("is.zarr")
    found = diagnose(network, X, y)
    p = softmax(np.pad(network.predict(X.compute()), ((0, 0), (1, 0))), axis=1)[:, 1]
    code = y.compute()[:, 0]
    share, mean = calibration_curve(code, p, n_bins=10)
    (one,) = found.calibrations
    there = one.weight > 0
    np.testing.assert_allclose(one.share[there], share)
    np.testing.assert_allclose(one.probability[there], mean)
    assert one.error == pytest.approx(np.average(np.abs(share - mean), weights=one.weight[there]))
    same(found.confusion.weight, confusion_matrix(code, p > 0.5).astype(float))
    assert found.confusion.true == ("False", "True")


def test_rows_without_a_class_or_of_others_are_counted_apart():
    table = frame()
    table.loc[:4, "kind"] = None
    table.loc[5:14, "kind"] = "yak"
    table.to_csv("new.csv", index=False)
    result = passes("report", "kind.zarr", "new.csv", "--out", "n.html", "--json")
    record = json.loads(result.stdout)
    assert record["rows"] == len(table) - 5
    scored = json.loads(passes("evaluate", "kind.zarr", "new.csv", "--json").stdout)
    assert record["log_loss"] == scored["log_loss"]
    text = (pd.io.common.Path("n.html")).read_text()
    assert "Rows without a class are left out: 5" in text
    assert "yak (10)" in text
    assert ">others<" in text


def test_rows_without_a_target_are_left_out_and_counted():
    table = frame()
    whole = table.iloc[30:]
    table.loc[:29, "y"] = np.nan
    table.to_csv("new.csv", index=False)
    whole.to_csv("whole.csv", index=False)
    result = passes("report", "y.zarr", "new.csv", "--out", "n.html", "--json")
    assert "rows without a target are left out: y (30)" in result.stderr
    record = json.loads(result.stdout)
    expected = json.loads(passes("evaluate", "y.zarr", "whole.csv", "--json").stdout)
    assert record["rows"] == len(whole)
    assert record["r2"] == pytest.approx(expected["r2"])
    network, X, y = opened("y.zarr", "new.csv")
    for given in ((X, y), (X.compute(), y.compute())):
        found = diagnose(network, *given)
        assert found.residuals[0].predicted.weight.sum() <= found.rows == len(whole)


# --- the page -----------------------------------------------------------------------------------


class Tree(HTMLParser):
    """Fails where tags are not nested, and keeps what there is."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=["y", "kind", "two", "bare"])
def text(request, here):
    return (here / f"{request.param}.html").read_text()


def test_the_page_is_well_formed_and_small_and_needs_nothing_else(text):
    assert len(text.encode()) < pages.LIMIT
    tree = Tree(text)
    assert len(tree.ids) == len(set(tree.ids))
    # As XML too, but for the elements without an end.
    plain = re.sub(r"<(meta [^>]*)>", r"<\1/>", text.removeprefix("<!DOCTYPE html>"))
    ElementTree.fromstring(plain)
    for tag, attributes in tree.tags:
        assert tag not in {"script", "link", "img", "iframe", "image"}
        for name, value in attributes.items():
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#")
                assert value[1:] in tree.ids
    assert not re.search(r"(?:https?:)?//|@import|url\((?!#)", text)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= {*tree.ids}


def test_the_page_can_be_read_without_seeing_it_and_in_the_dark(text):
    tree = Tree(text)
    assert tree.all("html")[0]["lang"] == "en"
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in tree.all("svg"))
    assert len(tree.all("caption")) == len(tree.all("table")) > 0
    assert all(head["scope"] in ("col", "row") for head in tree.all("th"))
    assert len(tree.all("h1")) == 1
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    # Pictures have the page's colours, and the two sets of colours the same names.
    assert set(re.findall(r"#[0-9a-f]{6}", text[text.index("</style>") :])) == set()
    light, dark, printed = (
        {*re.findall(r"--([\w-]+):", part)} for part in re.findall(r":root \{[^}]*\}", text)
    )
    assert light == dark == printed >= {*re.findall(r"var\(--([\w-]+)\)", text)}


def test_the_page_says_what_info_says_and_how_it_is_made_again(here):
    text = (here / "y.html").read_text()
    record = json.loads(passes("info", "y.zarr", "--json").stdout)
    assert (record["rows"], record["data"].rpartition("/")[2]) == (700, "t.csv")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", record["saved"])
    assert f"Saved {record['saved']}" in text
    assert "Trained on 700 rows of" in text
    assert "12 waves of day, week and year" in text
    (command,) = re.findall(r"<pre><code>(.*?)</code>", text)
    words = shlex.split(command)
    (here / "y.html").write_text("older")
    passes(*words[1:])
    assert (here / "y.html").read_text() == text


def test_names_of_the_data_are_text_and_no_markup(text):
    assert "<b>" not in text
    assert "x &lt;b&gt;" in text


def test_a_network_without_a_history_has_no_picture_of_it(here):
    bare = replace(Network.load("y.zarr"), info={})
    bare.save("old.zarr")
    passes("report", "old.zarr", "t.csv", "--target", "y", "--out", "old.html")
    text = (here / "old.html").read_text()
    assert 'id="training"' not in text
    assert 'id="scores"' in text


def test_targets_beyond_the_limit_have_scores_alone(monkeypatch, here):
    size = len((here / "two.html").read_bytes())
    monkeypatch.setattr(pages, "LIMIT", size - 20_000)
    passes("report", "two.zarr", "t.csv", "--out", "less.html")
    text = (here / "less.html").read_text()
    assert len(text.encode()) < size - 20_000
    assert ("target0" in text, "target1" in text) == (True, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("y.zarr", "t.csv", "--out", "y.html"), "exists already; use --overwrite"),
        (("y.zarr", "t.csv", "--out", "r.pdf"), r"--out r.pdf: .*\.html"),
        (("y.zarr", "--target", "y", "--out", "r.html"), "--target is for data"),
        (("none.zarr", "--out", "r.html"), "none.zarr: no such model"),
        (("y.zarr", "few.csv", "--out", "r.html"), "town"),
        (("y.zarr", "t.csv", "--out", "t.csv/r.html"), "r.html"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_one_line(words, said, here):
    frame().drop(columns="town").to_csv("few.csv", index=False)
    before = (here / "y.html").read_text()
    assert re.search(said, refuses("report", *words))
    assert not (here / "r.html").exists()
    assert (here / "y.html").read_text() == before


def test_an_older_page_stays_where_the_new_one_fails(here):
    (here / "y.html").write_text("older")
    table = frame()
    table["y"] = np.inf
    table.to_csv("bad.csv", index=False)
    refuses("report", "y.zarr", "bad.csv", "--out", "y.html", "--overwrite")
    assert (here / "y.html").read_text() == "older"


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    line = refuses("report", "y.zarr", "--out", "r.html")
    assert "a report needs the package matplotlib: pip install 'altrelu-dist[plots]'" in line


# --- figures in Python --------------------------------------------------------------------------


def test_figures_are_drawn_on_the_axes_that_are_given_or_on_new_ones():
    from matplotlib.figure import Figure

    network, X, y = opened("y.zarr")
    found = diagnose(network, X, y)
    (one,) = found.residuals
    kinds, X, y = opened("kind.zarr")
    classes = diagnose(kinds, X, y)
    for draw, what in (
        (plots.plot_training, network.info["history"]),
        (plots.plot_density, one.predicted),
        (plots.plot_residual_histogram, one.residual),
        (plots.plot_residuals, one),
        (plots.plot_importance, found.importances[0]),
        (plots.plot_dependence, found.dependences[0][0]),
        (plots.plot_calibration, classes.calibrations),
        (plots.plot_confusion, classes.confusion),
    ):
        ax = Figure().subplots()
        assert draw(what, ax) is ax
        assert ax.get_xlabel() or ax.get_ylabel()
        new = draw(what)
        assert new is not ax
        new.figure.canvas.draw()


def test_the_cells_of_a_density_are_few_paths():
    network, X, y = opened("y.zarr")
    cells = diagnose(network, X, y).residuals[0].predicted
    ax = plots.plot_density(cells)
    assert len(ax.patches) <= len(plots.STEPS)
    drawn = sum(len(patch.get_path().vertices) // 5 for patch in ax.patches)
    assert 0 < drawn <= np.count_nonzero(cells.weight)


def test_counts_are_compared_with_the_means_that_are_predicted(rng):
    X = rng.standard_normal((400, 2))
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    model = AltReLURegressor(4, loss="poisson", method="damped", max_iter=2, random_state=0)
    found = diagnose(model.fit(X, y).network_, X, y)
    predicted = model.predict(X)
    for dependence in found.dependences[0]:
        assert (dependence.mean > 0).all()
    density = found.residuals[0].predicted
    expected, *_ = np.histogram2d(y, predicted, (density.x_edges, density.y_edges))
    np.testing.assert_allclose(density.weight, expected)


def test_each_quantile_is_compared_with_their_one_target(rng):
    X = rng.standard_normal((400, 2))
    y = X[:, 0] + rng.standard_normal(400)
    options = {"loss": "quantile", "quantile": [0.1, 0.9], "method": "damped", "max_iter": 2}
    model = AltReLURegressor(2, **options, random_state=0).fit(X, y)
    for given in ((X, y), (da.from_array(X, chunks=(90, 2)), da.from_array(y, chunks=90))):
        found = diagnose(model.network_, *given)
        for p, residuals in zip(model.predict(X).T, found.residuals, strict=True):
            expected, _ = np.histogram(y - p, residuals.residual.edges)
            same(residuals.residual.weight, expected.astype(float))


@pytest.mark.parametrize("loss", ["huber", "quantile", "poisson"])
def test_importance_of_another_loss_is_what_its_own_score_loses(loss, rng):
    X = rng.standard_normal((300, 2))
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    options = {"loss": loss, "method": "damped", "max_iter": 2, "random_state": 0}
    if loss == "quantile":
        options["quantile"] = 0.8
    network = AltReLURegressor(3, **options).fit(X, y).network_
    (found,) = importance_of(network, Rows(0, X, y[:, None]), repeats=1, seed=5)
    rng, expected = np.random.default_rng(5), []
    for column in range(2):
        permuted = X.copy()
        permuted[:, column] = X[rng.permutation(len(X)), column]
        before, after = (evaluate(network, each, y)[0].d2 for each in (X, permuted))
        expected.append(before - after)
    assert found.unit == "D2"
    np.testing.assert_allclose(found.mean, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--loss", "poisson"), {"deviance": "mean_loss", "D2": "d2"}),
        (("--loss", "huber"), {"Huber loss": "mean_loss", "D2": "d2"}),
        (("--loss", "quantile"), {"pinball loss": "mean_loss", "share below": "share_below"}),
    ],
)
def test_the_page_of_another_loss_shows_its_own_scores(words, shown, here):
    frame().assign(y=frame()["y"].clip(0).round()).to_csv("t.csv", index=False)
    train(["y"], "loss.zarr", *words)
    result = passes("report", "loss.zarr", "t.csv", "--out", "loss.html", "--json")
    record = json.loads(result.stdout)
    scored = json.loads(passes("evaluate", "loss.zarr", "t.csv", "--json").stdout)
    text = (here / "loss.html").read_text()
    assert record["loss"] == words[1]
    for heading, name in shown.items():
        assert record[name] == scored[name]
        assert f"<dt>{heading}</dt><dd>{number(scored[name])}</dd>" in text
    assert "D2 lost when the values of a column are permuted" in text


def test_the_page_of_several_quantiles_says_how_many_targets_are_between_them(here):
    train(["y"], "levels.zarr", "--loss", "quantile", "--quantile", 0.1, "--quantile", 0.9)
    passes("report", "levels.zarr", "t.csv", "--out", "levels.html")
    scored = json.loads(passes("evaluate", "levels.zarr", "t.csv", "--json").stdout)["targets"]
    share = scored[1]["share_below"] - scored[0]["share_below"]
    text = (here / "levels.html").read_text()
    Tree(text)
    assert f"Between y_0.1 and y_0.9: {share:.3f} of the targets, expected 0.8" in text
    assert "Predictions of y_0.9" in text
    assert "a share of 0.9 should be at or below 0" in text
