"""What the commands count where they score, and what they say of scores that are not defined."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from commands import passes, refuses

from altrelu_dist import Network

QUICK = ("--workers", 0, "--hidden", 3, "--method", "damped", "--max-iter", 2)
LOST = {"y": range(30), "z": range(20, 40)}  # rows without this target


def frame(rows=300):
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"a": rng.normal(size=rows), "town": rng.choice([*"xyz"], rows)})
    made["y"] = made["a"] + (made["town"] == "x") + rng.normal(size=rows) / 9
    made["z"] = rng.poisson(2, rows).astype(float)
    made["kind"] = np.where(made["a"] > 0, "up", "down")
    return made


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_csv("t.csv", index=False)
    lacking = frame()
    for name, rows in LOST.items():
        lacking.loc[[*rows], name] = np.nan
    lacking.to_csv("lacking.csv", index=False)


def train(data, *targets, options=QUICK):
    named = [word for name in targets for word in ("--target", name)]
    drop = [word for name in ("y", "z", "kind") if name not in targets
            for word in ("--drop", name)]  # fmt: skip
    return passes("train", data, *named, *drop, "--out", "m.zarr", "--overwrite", *options)


def evaluated(data, *more):
    return passes("evaluate", "m.zarr", data, *more)


@pytest.mark.parametrize("targets", [("y",), ("y", "z")])
def test_rows_without_a_target_are_no_rows_of_training_or_of_scores(targets):
    result = train("lacking.csv", *targets, options=(*QUICK, "--test-fraction", 0.2, "--json"))
    assert "to train on" not in result.stderr
    told = json.loads(result.stdout)
    known = 300 - len({row for name in targets for row in LOST[name]})
    tested = told["targets"]["test"][0]["rows"]
    assert told["rows"] == told["targets"]["train"][0]["rows"] == known - tested
    assert 0 < tested <= 60
    assert Network.load("m.zarr").info["rows"] == told["rows"]
    assert json.loads(evaluated("lacking.csv", "--json").stdout)["rows"] == known


@pytest.mark.parametrize(("data", "passes_made"), [("t.csv", 2), ("lacking.csv", 4)])
def test_the_passes_that_evaluate_says_are_those_that_it_made(data, passes_made, dask_passes):
    train("t.csv", "y")
    dask_passes.clear()
    told = json.loads(evaluated(data, "--json").stdout)
    assert (
        told["passes"] == len(dask_passes) + 1 == passes_made
    )  # and one for levels that are not known


def test_why_a_score_is_not_defined_is_said():
    train("t.csv", "z", options=(*QUICK, "--loss", "poisson"))
    frame().assign(z=frame()["z"] - 1).to_csv("negative.csv", index=False)
    assert "no deviance and no D2 of z: it has negative values" in evaluated("negative.csv").stderr
    result = passes("report", "m.zarr", "negative.csv", "--out", "r.html")
    assert "no deviance and no D2 of z" in result.stderr
    frame().head(1).to_csv("one.csv", index=False)
    assert "no D2 and no R2 of z: there is one row" in evaluated("one.csv").stderr
    assert evaluated("t.csv").stderr.count("no ") == 0


@pytest.mark.parametrize(("loss", "words"), [("squared_error", "no R2"), ("quantile", "no D2"),
                                             ("huber", "no D2 and no R2")])  # fmt: skip
def test_only_scores_that_are_shown_are_explained(loss, words):
    train("t.csv", "y", options=(*QUICK, "--loss", loss))
    frame().assign(y=3.0).to_csv("constant.csv", index=False)
    result = evaluated("constant.csv")
    said = [line for line in result.stderr.splitlines() if line.startswith("no ")]
    assert said == [f"{words} of y: it does not vary in these rows"]
    assert result.stdout.count("?") == len(words.split(" and "))


def test_train_says_of_which_part_a_score_is_not_defined():
    made = frame().assign(kind=["down", *["up"] * 299], y=3.0)
    made.to_csv("t.csv", index=False)
    options = (*QUICK, "--test-fraction", 0.2)
    told = train("t.csv", "kind", options=options).stderr
    assert [line for line in told.splitlines() if "not defined" in line] == [
        "test: AUC is not defined: the rows are of one class"
    ]
    told = train("t.csv", "y", options=options).stderr
    lines = [line for line in told.splitlines() if "no R2" in line]
    assert [line.partition(":")[0] for line in lines] == ["train", "test"]


def test_classes_of_which_none_is_known_are_no_scores():
    train("t.csv", "kind")
    frame().assign(kind="sideways").to_csv("other.csv", index=False)
    line = refuses("evaluate", "m.zarr", "other.csv")
    assert "it knows down, up; found sideways (300)" in line
    up = frame()[frame()["kind"] == "up"]
    up.to_csv("up.csv", index=False)
    assert "AUC is not defined: the rows are of one class" in evaluated("up.csv").stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("predict", "--out", "p.npy", "--keep", "a"), "--keep is for a .parquet or .csv, and"),
        (("predict", "--out", "t.csv"), "t.csv: is one of the inputs (t.csv); choose another"),
        (("predict", "--out", "m.zarr/p.csv"), "m.zarr/p.csv: lies inside an input (m.zarr)"),
        (("report", "-o", "a.txt"), "--out a.txt: a report is an HTML page; name it with the end"),
        (
            ("evaluate", "--interval", 0.9),
            "--interval is for networks that predict means, and this one predicts classes",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(words, line):
    train("t.csv", "kind")
    command, *options = words
    assert line in refuses(command, "m.zarr", "t.csv", *options)
