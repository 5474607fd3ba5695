"""The commands with targets that are classes, and columns that `predict` carries through."""

from __future__ import annotations

import json
import re
import shutil

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import passes, refuses
from oracles import same
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from altrelu_dist import AltReLUClassifier, Network, convert, describe, evaluate_classes
from altrelu_dist import open_dataset as opened
from altrelu_dist.class_metrics import RankCounts
from altrelu_dist.cli.predicted import _all_free
from altrelu_dist.data.classes import Renumbering
from altrelu_dist.errors import DataError
from altrelu_dist.model_file import load_model

QUICK = ("--workers", 0, "--hidden", 3, "--method", "damped", "--max-iter", 3)
KINDS = ("ant", "bee", "cat")


def frame(rows=240, classes=3):
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["a", "b"])
    score = made["a"] + np.abs(made["b"]) + rng.normal(size=rows) / 2
    place = np.searchsorted(np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]), score)
    made["town"] = rng.choice(["Rome", "Oslo"], rows)
    made["kind"] = np.array(KINDS)[place]
    made["code"] = 10 * place - 5
    made["is"] = place > 0
    made["id"] = [f"{i:04}" for i in range(rows)]
    return made


def others(target):
    return [name for name in ("code", "is", "kind", "id") if name != target]


def train(data, target, out="m.zarr", *more):
    drop = [word for name in others(target) for word in ("--drop", name)]
    return passes("train", data, "--target", target, *drop, "--out", out, *QUICK, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    table = frame()
    table.to_csv(folder / "t.csv", index=False)
    table.to_json(folder / "t.jsonl", orient="records", lines=True)
    table.astype({"kind": "category"}).to_parquet(folder / "t.parquet", index=False)
    table.to_feather(folder / "t.feather")
    convert(folder / "t.parquet", folder / "t.zarr", target="kind", drop=others("kind"))
    train(folder / "t.csv", "kind", folder / "m.zarr")
    return folder


@pytest.fixture(autouse=True)
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def probabilities(path="m.zarr", table="t.csv"):
    model = AltReLUClassifier.load(path)
    return model.predict_proba(pd.read_csv(table)[[*model.feature_names_in_]])


# --- which targets are classes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "classes", "labels"),
    [("kind", None, KINDS), ("is", None, (False, True)), ("code", True, (-5, 5, 15))],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "feather", "zarr"])
def test_every_format_gives_the_same_classes(ending, target, classes, labels):
    drop = others(target)
    if ending == "zarr":
        convert("t.csv", "s.zarr", target=target, drop=drop, classes=classes)
        data = opened("s.zarr", classes=None)
    else:
        data = opened(f"t.{ending}", target=target, drop=drop, classes=classes)
    assert data.classes == labels
    assert [*map(type, data.classes)] == [*map(type, labels)]
    assert [labels[int(k)] for k in data.y.compute()[:, 0]] == frame()[target].tolist()


def test_numbers_of_arrays_and_converted_ones_become_classes_on_demand():
    table = frame()
    np.savez("t.npz", X=table[["a", "b"]].to_numpy(), y=table["code"].to_numpy())
    convert("t.npz", "n.zarr")
    for address in ("t.npz", "n.zarr"):
        assert opened(address, classes=None).classes is None
        data = opened(address, classes=True)
        assert data.classes == (-5, 5, 15)
        assert (np.array(data.classes)[data.y.compute()[:, 0].astype(int)] == table["code"]).all()
    convert("t.npz", "c.zarr", classes=True)
    same(opened("c.zarr", classes=False).y.compute()[:, 0], table["code"].to_numpy("f4"))


def test_known_classes_come_first_in_their_order_and_others_follow():
    expected = frame()["kind"].tolist()
    for address, named in (("t.csv", {"target": "kind"}), ("t.zarr", {})):
        data = opened(address, classes=("cat", "ant"), **named)
        assert data.classes == ("cat", "ant", "bee")
        assert [data.classes[int(k)] for k in data.y.compute()[:, 0]] == expected


def test_a_text_target_is_no_numbers_unless_that_is_said():
    with pytest.raises(DataError, match=r"target column kind .*not numeric.*classes=True"):
        opened("t.csv", target="kind")
    with pytest.raises(DataError, match="holds the classes ant, bee, cat; expected numbers"):
        opened("t.zarr")
    assert opened("t.csv", target="is").classes is None
    with pytest.raises(DataError, match=r"kind .*not numeric; name one target"):
        opened("t.csv", target=["kind", "id"], classes=None)


@pytest.mark.parametrize(
    ("target", "words"),
    [("id", "has 240 different values in 240 rows"), ("a", "different values|fractions")],
)
def test_what_is_no_classes_is_refused(target, words):
    with pytest.raises(DataError, match=words):
        opened("t.csv", target=target, classes=True)


def test_renumbering_keeps_gaps_and_marks_others():
    y = np.array([[3.0], [np.nan], [7.0], [5.0]])
    same(Renumbering.of({3.0: 1, 5.0: 0})(y), np.float32([[1], [np.nan], [-1], [0]]))


def test_description_counts_the_classes():
    for address, named in (("t.csv", {"target": "kind"}), ("t.zarr", {})):
        (column,) = [c for c in describe(address, **named).columns if c.role == "target"]
        assert dict(column.frequent) == frame()["kind"].value_counts().to_dict()


def test_an_older_reader_is_told_of_a_store_with_classes():
    attributes = json.loads((pd.io.common.Path("t.zarr") / "zarr.json").read_text())["attributes"]
    assert (attributes["format_version"], attributes["classes"]) == (5, [*KINDS])


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1 << 20, 300])
def test_ranks_are_those_of_scikit_learn_in_any_order(most):
    rng = np.random.default_rng(0)
    score, inside = rng.normal(size=5000), rng.random(5000) < 0.3
    score = np.where(inside, score + 1, score)
    score[:1000] = score[1000:2000]  # ties
    weight = rng.integers(0, 3, 5000).astype(float)
    expected = roc_auc_score(inside, score, sample_weight=weight)
    found = []
    for order in (np.arange(5000), rng.permutation(5000)):
        parts = [
            RankCounts.of(score[i], weight[i] * inside[i], weight[i] * ~inside[i], most)
            for i in np.array_split(order, 7)
        ]
        while len(parts) > 1:
            parts.append(parts.pop(0).merge(parts.pop(0)))
        found.append(parts[0])
    assert len(found[0].keys) <= most
    same(found[0].keys, found[1].keys)
    assert (
        found[0].area == found[1].area == pytest.approx(expected, abs=1e-12 if most > 300 else 2e-3)
    )


@pytest.mark.parametrize("target", ["kind", "is", "code"])
def test_evaluate_is_scikit_learn_on_the_same_probabilities(target):
    more = ["--classes"] if target == "code" else []
    train("t.csv", target, "n.zarr", *more)
    found = json.loads(passes("evaluate", "n.zarr", "t.parquet", "--json").stdout)
    y, model = frame()[target], AltReLUClassifier.load("n.zarr")
    p = probabilities("n.zarr")
    assert found["rows"] == len(y)
    assert found["accuracy"] == accuracy_score(y, model.classes_[p.argmax(axis=1)])
    assert found["log_loss"] == pytest.approx(log_loss(y, p))
    area = roc_auc_score(y, p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr")
    assert found["auc"] == pytest.approx(area)


def test_scores_are_weighted_and_the_same_in_blocks():
    table, network = frame(), Network.load("m.zarr")
    weight = np.random.default_rng(1).integers(0, 3, len(table)).astype(float)
    data = opened("t.csv", target="kind", features=network.feature_names, columns=network.columns,
                  classes=network.classes)  # fmt: skip
    score = evaluate_classes(network, data.X, data.y, weight)
    p = probabilities()
    assert score.log_loss == pytest.approx(log_loss(table["kind"], p, sample_weight=weight))
    area = roc_auc_score(table["kind"], p, multi_class="ovr", sample_weight=weight, average="macro")
    assert score.auc == pytest.approx(area)
    X, y = (da.from_array(a.compute(), chunks=(50, -1)) for a in (data.X, data.y))
    blocks = evaluate_classes(network, X, y, da.from_array(weight, chunks=50))
    assert blocks.auc == score.auc
    assert blocks.accuracy == score.accuracy


def test_rows_of_unknown_and_without_classes_are_counted_and_named():
    table = frame()
    known = table["kind"] != "bee"
    table.loc[~known, "kind"] = "yak"
    table.loc[3, "kind"] = None
    table.to_csv("new.csv", index=False)
    result = passes("evaluate", "m.zarr", "new.csv", "--json")
    found = json.loads(result.stdout)
    n_lost, n_yak = 1, int((table["kind"] == "yak").sum())
    assert found["targets"][0]["unknown"] == {"yak": n_yak}
    assert found["targets"][0]["missing"] == n_lost
    assert found["rows"] == len(table) - n_lost
    assert "does not know: yak" in result.stderr
    assert "rows without a class are left out: 1" in result.stderr
    rows = known & table["kind"].notna()
    p = probabilities(table="new.csv")
    right = (np.array(KINDS)[p.argmax(axis=1)] == table["kind"])[table["kind"].notna()]
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["log_loss"] == pytest.approx(log_loss(table["kind"][rows], p[rows], labels=KINDS))


# --- train, and the way from and to Python ------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "feather", "zarr"])
def test_a_network_is_the_same_from_every_format(ending):
    if ending == "zarr":
        passes("train", "t.zarr", "--out", "n.zarr", *QUICK)
    else:
        train(f"t.{ending}", "kind", "n.zarr")
    same(probabilities("n.zarr"), probabilities("m.zarr"))


def test_train_says_the_classes_and_scores_a_test_part():
    result = train("t.csv", "kind", "n.zarr", "--test-fraction", 0.25, "--json")
    assert "kind has 3 classes: ant, bee, cat" in result.stderr
    record = json.loads(result.stdout)
    assert {"accuracy", "log_loss", "auc", "test_accuracy", "test_auc"} <= {*record}
    assert record["targets"]["test"][0]["rows"] == 60


def test_a_run_of_classes_goes_on_from_its_checkpoint():
    train("t.csv", "kind", "n.zarr", "--checkpoint", "c", "--checkpoint-interval", 0)
    again = passes("train", "--resume", "c", "--out", "again.zarr")
    assert "3 classes" in again.stderr
    same(probabilities("again.zarr"), probabilities("m.zarr"))


def test_weights_early_stopping_and_rows_without_a_class():
    table = frame().assign(w=1.0)
    table.loc[:9, "kind"] = None
    table.to_csv("w.csv", index=False)
    more = ("--weight", "w", "--early-stopping", "--validation-fraction", 0.3)
    result = train("w.csv", "kind", "n.zarr", *more)
    assert "rows without a class are left out: 10" in result.stderr
    assert json.loads(passes("evaluate", "n.zarr", "w.csv", "--json").stdout)["rows"] == 230


def test_networks_go_between_python_and_the_commands():
    table = frame()
    X = table[["a", "b", "town"]]
    model = AltReLUClassifier(3, method="damped", max_iter=3, random_state=0)
    model.fit(X, table["kind"]).save("py.zarr")
    assert isinstance(load_model("py.zarr"), AltReLUClassifier)
    same(model.predict_proba(X), probabilities())  # that of the command
    found = json.loads(passes("evaluate", "py.zarr", "t.csv", "--json").stdout)
    assert found["accuracy"] == model.score(X, table["kind"])
    passes("predict", "py.zarr", "t.csv", "--out", "p.csv")
    assert pd.read_csv("p.csv")["kind"].tolist() == model.predict(X).tolist()
    model.fit(X, table["kind"].to_numpy()).save("bare.zarr")
    assert "--target" in refuses("evaluate", "bare.zarr", "t.csv")
    passes("evaluate", "bare.zarr", "t.csv", "--target", "kind")
    data = opened("t.zarr", classes=True)
    model.fit(data.X, data.y, classes=data.classes, raw_columns=data.columns)
    assert [*model.classes_] == [*KINDS]


def test_info_export_and_plan_say_the_classes():
    assert "kind has 3 classes: ant, bee, cat" in passes("info", "m.zarr").stdout
    assert "kind has 3 classes: ant, bee, cat" in passes(
        "convert", "t.csv", "n.zarr", "--target", "kind"
    ).stdout  # fmt: skip
    assert "logits of ant, bee, cat" in passes(
        "export", "m.zarr", "--to", "numpy", "--out", "m.py"
    ).stdout  # fmt: skip
    planned = json.loads(passes("plan", "t.zarr", "--hidden", 4, "--json").stdout)
    assert (planned["targets"], planned["classes"]) == (3, [*KINDS])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("t.csv", "--target", "a", "--warm-start", "m.zarr"), "--warm-start is a network of"),
        (("t.csv", "--target", "kind", "--no-classes"), "not numeric; .* --classes"),
        (("one.csv", "--target", "kind"), "target kind has one class: ant; expected two"),
    ],
)
def test_what_there_is_not_for_classes_is_refused_in_one_line(words, said):
    frame()[frame()["kind"] == "ant"].to_csv("one.csv", index=False)
    assert re.search(said, refuses("train", *words, "--out", "n.zarr", *QUICK))
    extrapolated = refuses("train", "t.zarr", "--out", "n.zarr", "--extrapolate")
    assert "--extrapolate is for targets that are numbers; kind has classes" in extrapolated


def test_booleans_are_numbers_if_that_is_said():
    train("t.csv", "is", "n.zarr", "--no-classes")
    network = Network.load("n.zarr")
    assert network.classes is None
    assert "r2" in json.loads(passes("evaluate", "n.zarr", "t.parquet", "--json").stdout)


# --- predict ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predict_writes_the_class_and_probabilities(ending):
    passes("predict", "m.zarr", "t.jsonl", "--out", f"p.{ending}", "--probabilities")
    found = pd.read_csv("p.csv") if ending == "csv" else pd.read_parquet("p.parquet")
    assert [*found] == ["kind", "kind = ant", "kind = bee", "kind = cat"]
    p = probabilities()
    same(found.to_numpy()[:, 1:].astype(float), p)
    assert found["kind"].tolist() == [KINDS[k] for k in p.argmax(axis=1)]


def test_arrays_have_the_number_of_the_class_or_the_probabilities():
    p = probabilities()
    assert (
        "from 0 on: ant, bee, cat" in passes("predict", "m.zarr", "t.csv", "--out", "p.npy").stdout
    )
    same(np.load("p.npy"), p.argmax(axis=1).astype(float))
    passes("predict", "m.zarr", "t.csv", "--out", "q.npy", "--probabilities")
    same(np.load("q.npy"), p)


def test_a_row_that_cannot_be_predicted_has_no_class():
    table = frame()
    table["a"] = table["a"].astype(object)
    table.loc[5, "a"] = "inf"
    table.to_csv("gap.csv", index=False)
    result = passes("predict", "m.zarr", "gap.csv", "--out", "p.parquet")
    assert "1 rows have missing or infinite values: no class" in result.stderr
    assert pq.read_table("p.parquet")["kind"].is_null().to_pylist().count(True) == 1


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "feather"])
@pytest.mark.parametrize("out", ["p.csv", "p.parquet"])
def test_columns_are_kept_as_they_are_beside_the_prediction(ending, out):
    keep = ("--keep", "id", "--keep", "kind", "--keep", "b")
    result = passes("predict", "m.zarr", f"t.{ending}", "--out", out, *keep)
    assert "the prediction of kind is kind_predicted" in result.stderr
    found = pd.read_csv(out, dtype={"id": str}) if out == "p.csv" else pd.read_parquet(out)
    assert [*found] == ["id", "kind", "b", "kind_predicted"]
    assert found["id"].tolist() == frame()["id"].tolist()  # with the zeros before them
    same(
        found["b"].astype(float).to_numpy(), opened(f"t.{ending}", target="code").X[:, 1].compute()
    )
    assert found["kind"].tolist() == frame()["kind"].tolist()


def test_kept_columns_of_many_files_times_and_folders_are_in_the_order_of_the_rows(here):
    table = frame().assign(day=pd.date_range("2024-01-01", periods=240))
    for part, rows in enumerate(np.array_split(np.arange(240), 3)):
        folder = here / "parts" / f"area=a{part}"
        folder.mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pandas(table.iloc[rows]), folder / "x.parquet", row_group_size=11
        )
    passes("predict", "m.zarr", "parts", "--out", "p.csv", "--keep", "area", "--keep", "day",
           "--keep", "id")  # fmt: skip
    found = pd.read_csv("p.csv", dtype={"id": str}, parse_dates=["day"])
    assert found["id"].tolist() == table["id"].tolist()
    assert found["day"].tolist() == table["day"].tolist()
    assert found["area"].tolist() == [f"a{i // 80}" for i in range(240)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("t.csv", "--out", "p.npy", "--keep", "id"), "--keep is for a .parquet or .csv"),
        (("t.csv", "--out", "p.csv", "--keep", "nix"), "no column nix"),
        (("t.zarr", "--out", "p.csv", "--keep", "a"), "holds arrays"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(words, said, here):
    assert said in refuses("predict", "m.zarr", *words)
    assert not [*here.glob("p.*")]


@pytest.mark.parametrize(
    ("names", "taken", "free"),
    [
        (("y",), (), ("y",)),
        (("y", "z"), ("y",), ("y_predicted", "z")),
        (("y", "y_predicted"), ("y",), ("y_predicted_predicted", "y_predicted")),
        (("y_predicted", "y"), ("y",), ("y_predicted", "y_predicted_predicted")),
    ],
)
def test_names_of_predictions_differ(names, taken, free):
    assert _all_free(names, taken) == free
