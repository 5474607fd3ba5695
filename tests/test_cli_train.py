"""`altrelu train` in this process: runs, and every bad input's one line."""

from __future__ import annotations

import contextlib
import json
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from commands import QUICK, frame, passes, refuses, run, snapshot

from altrelu_dist.data import DataSet
from altrelu_dist.estimators import AltReLURegressor
from altrelu_dist.interrupts import Interrupts
from altrelu_dist.network import Network
from altrelu_dist.runs import progress
from altrelu_dist.runs.training import Prepared, TrainOptions


@pytest.fixture(autouse=True)
def here(trained_folder):
    return trained_folder


def write_bad_inputs():
    good = frame(20)
    Path("empty.csv").touch()
    Path("not.parquet").write_text("hello")
    Path("cut.parquet").write_bytes(Path("data.parquet").read_bytes()[:-100])
    good.to_csv("good.csv", index=False)
    good.assign(target="x").to_csv("text.csv", index=False)
    good.assign(b="x").to_csv("words.csv", index=False)
    good.iloc[:0].to_csv("header.csv", index=False)
    good.iloc[:1].to_csv("single.csv", index=False)
    good[["target"]].to_csv("alone.csv", index=False)
    holes = good.copy()
    holes.iloc[4, 1] = np.nan
    holes.to_csv("holes.csv", index=False)
    np.savez("uneven.npz", X=np.zeros((5, 2)), y=np.zeros(4))


@pytest.mark.parametrize(
    ("store", "target", "words"),
    [
        ("nowhere.zarr", None, ["nowhere.zarr", "no such file"]),
        ("empty.csv", "target", ["empty"]),
        ("not.parquet", "target", ["not a Parquet file"]),
        ("cut.parquet", "target", ["cut short"]),
        ("good.csv", None, ["--target", "columns: a, b, c, target"]),
        ("good.csv", "price", ["no column price"]),
        ("text.csv", "target", ["target target has one class: x", "expected two"]),
        ("header.csv", "target", ["no rows"]),
        ("single.csv", "target", ["single row"]),
        ("alone.csv", "target", ["no feature columns"]),
        ("uneven.npz", None, ["4 rows", "5"]),
        ("model.zarr", None, ["altrelu-network", "not a data set"]),
    ],
)
def test_bad_data_is_one_line_and_writes_nothing(here, store, target, words):
    write_bad_inputs()
    before = set(here.iterdir())
    named = [] if target is None else ["--target", target]
    line = refuses("train", store, *named, "--hidden", 3, "--out", "new.zarr", *QUICK)
    for word in words:
        assert word in line
    assert set(here.iterdir()) == before


def test_who_wants_to_be_asked_is_asked_before_there_is_a_network():
    write_bad_inputs()
    of = ("--target", "target", "--hidden", 3, "--out", "new.zarr", *QUICK)
    asked = refuses("train", "words.csv", *of, "--categories", "error")
    assert "feature column" in asked
    assert "not numeric" in asked
    line = refuses("train", "holes.csv", *of, "--missing", "error")
    assert "column b has no value in row 4" in line
    assert not Path("new.zarr").exists()


def test_damaged_store_names_its_chunk():
    chunk = next(path for path in Path("data.zarr/X/c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    assert "X/c/" in refuses("info", "data.zarr")
    assert "X/c/" in refuses("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", *QUICK)
    chunk.unlink()
    assert "missing" in refuses("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", *QUICK)
    assert not Path("new.zarr").exists()


def test_existing_out_is_refused_before_the_data_is_opened(here):
    before = snapshot(here / "model.zarr")
    line = refuses("train", "nowhere.zarr", "--hidden", 3, "--out", "model.zarr")
    assert "model.zarr" in line
    assert "--overwrite" in line
    assert snapshot(here / "model.zarr") == before
    passes("train", "data.zarr", "--hidden", 2, "--out", "model.zarr", "--overwrite", *QUICK)
    assert Network.load("model.zarr").n_hidden == 2


def test_a_run_begins_with_a_network(here, monkeypatch):
    def trained(*options):
        record = passes("train", "data.zarr", "--json", "--overwrite", *options)
        return json.loads(record.stdout)["mse"]

    first = trained("--hidden", 2, "--out", "first.zarr", *QUICK)
    before = snapshot(here / "first.zarr")
    short = ("--method", "alternating", "--max-iter", 1, "--workers", 0)
    start = ("--warm-start", "first.zarr", *short)
    assert trained("--hidden", 2, "--out", "second.zarr", *start) <= first
    assert trained("--hidden", 2, "--out", "third.zarr", *short) > first
    # From a checkpoint, in another folder, without it being named again.
    trained("--hidden", 2, "--out", "second.zarr", "--checkpoint", "kept", *start)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    passes("train", "--resume", "../kept", "--overwrite", "--workers", 0)
    monkeypatch.chdir(here)
    assert "no such model" in refuses(
        "train", "data.zarr", "--hidden", 2, "--out", "new.zarr", "--warm-start", "nowhere.zarr"
    )
    line = refuses(
        *("train", "data.zarr", "--hidden", 2, "--out", "new.zarr", "--negative-slope", 0.1),
        *("--warm-start", "first.zarr"),
    )
    assert "--negative-slope is 0.1; that of the network" in line
    assert snapshot(here / "first.zarr") == before


# --- a committee ------------------------------------------------------------------------------

COMMITTEE = ("--workers", 0, "--max-iter", 1)


def test_without_hidden_a_run_says_what_it_chose_and_expects():
    words = ("train", "data.zarr", "--test-fraction", 0.3, *COMMITTEE)
    record = json.loads(passes(*words, "--out", "one.zarr", "--json").stdout)
    network = Network.load("one.zarr")
    assert record["method"] == "committee"
    assert record["hidden"] == network.n_hidden
    for name in ("expected_r2", "expected_r2_spread", "expected_mse", "groups"):
        assert record[name] == network.info[name]
    # Of a third of few rows: within some of its spreads.
    gap = abs(record["test_r2"] - record["expected_r2"])
    assert gap < 3 * record["expected_r2_spread"]

    shown = passes(*words, "--out", "two.zarr", "--extrapolate", "--early-stopping").stdout
    assert f"chosen: {network.n_hidden:,} neurons" in shown
    assert all(f"{group['name']} " in shown for group in record["groups"])
    expected = f"R2 {record['expected_r2']:.3f} +- {record['expected_r2_spread']:.3f}"
    test = f"on the test rows: {record['test_r2']:.3f}"
    assert f"expected on new rows: {expected} (out of fold); {test}" in shown
    assert network.target_range is not None
    assert Network.load("two.zarr").target_range is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--warm-start", "model.zarr"), "--warm-start is for one plain network"),
        (("--hidden", 3, "--extrapolate"), "--extrapolate is a choice for committees"),
        (("--hidden", 3, "--max-size", 9), "--max-size bounds the neurons of a committee"),
        (("--method", "damped", "--max-size", 9), "--max-size bounds the neurons of a committee"),
        (("--hidden", 3, "--method", "committee"), "--hidden is for one plain network"),
    ],
)
def test_what_is_not_for_a_committee_is_said_before_data_are_opened(options, words):
    assert words in refuses("train", "nowhere.zarr", "--out", "new.zarr", *options)


def test_a_committees_network_is_no_start():
    passes("train", "data.zarr", "--out", "many.zarr", *COMMITTEE)
    start = ("--hidden", 3, "--warm-start", "many.zarr")
    line = refuses("train", "nowhere.zarr", "--out", "new.zarr", *start)
    assert "--warm-start is a network over encoded columns in many.zarr, of a committee" in line


@pytest.mark.parametrize(("hidden", "times"), [(50, 1), (29, 0)])
def test_weights_near_the_rows_are_said_once(hidden, times):
    """5 for each neuron, and one: 151 and more are above half of 300 rows."""
    done = passes("train", "data.zarr", "--hidden", hidden, "--out", "new.zarr", *QUICK)
    assert done.output.count("may have fitted noise") == times
    assert ("50 neurons have 251 weights for 300 rows" in done.stderr) == times


def test_overwrite_replaces_nothing_but_a_network(here):
    before = snapshot(here / "data.zarr")
    for out in ("data.zarr", "data.parquet", "."):
        refuses("train", "data.zarr", "--hidden", 3, "--out", out, "--overwrite", *QUICK)
    assert snapshot(here / "data.zarr") == before


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ((), False),
        (("--workers", 1), True),
        (("--threads", 1), True),
        (("--memory", "1GiB"), True),
        (("--performance-report", "report.html"), True),
    ],
)
def test_small_data_is_trained_without_workers_unless_they_are_asked_for(
    monkeypatch, options, starts
):
    asked = []

    @contextmanager
    def no_workers(choice, output):
        del output
        asked.append(choice)
        yield None

    monkeypatch.setattr("altrelu_dist.cli.cluster._local", no_workers)
    monkeypatch.setattr("altrelu_dist.cli.profiles.tell_workers", lambda _: None)
    monkeypatch.setattr("altrelu_dist.cli.train.reported", lambda *_: nullcontext())
    done = passes("train", "data.zarr", "--hidden", 3, "--out", "new.zarr", *QUICK[2:], *options)
    assert bool(asked) == starts
    assert ("trained in this process" in done.stderr) != starts


@pytest.mark.parametrize(
    ("rows", "columns", "hidden", "small"),
    [
        (10**5, 300, 8, True),  # all rows are held for the search
        (10**6, 7, 8, True),  # 64 million bytes
        (10**6, 50, 8, False),
        (10**5, 5000, 8, False),
        (10**5, 300, None, True),
        (10**6, 100, None, False),
    ],
)
def test_what_small_data_is(rows, columns, hidden, small):
    lazy = da.zeros((rows, columns), chunks=(10**4, columns))
    data = DataSet(lazy, lazy[:, :1], None, (), (), "here")
    options = TrainOptions("here", hidden, "there")
    assert Prepared(options, None, {"train": data}, {}).small == small


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_run_stopped_before_there_is_a_network_saves_nothing(here, monkeypatch, interrupted):
    before = snapshot(here)
    options = ("train", "data.zarr", "--hidden", 3, "--out", "model.zarr", "--overwrite")
    if interrupted:
        pressed = nullcontext(Interrupts(requested=True))
        monkeypatch.setattr(progress, "catch_interrupts", lambda *_, **__: pressed)
        line = refuses(*options, "--workers", 0, code=130)
        assert line == "interrupted before there was a network: nothing is saved"
    else:
        assert "--max-time" in refuses(*options, "--workers", 0, "--max-time", 0)
    assert snapshot(here) == before


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_network_is_saved_even_where_its_place_is_taken(here, monkeypatch, elsewhere):
    """The place is taken, or its folder gone, while the training goes on."""
    fit, out = AltReLURegressor.fit, Path("runs/new.zarr")
    out.parent.mkdir()

    def taken(self, *arguments, **named):
        fit(self, *arguments, **named)
        out.parent.rmdir() if elsewhere else out.write_text("theirs")
        return self

    monkeypatch.setattr(AltReLURegressor, "fit", taken)
    done = run("train", "data.zarr", "--hidden", 3, "--out", out, *QUICK)
    assert done.exit_code == 1
    assert elsewhere or out.read_text() == "theirs"
    (saved,) = (here if elsewhere else out.parent).resolve().glob("new-*.zarr")
    assert Network.load(saved).n_hidden == 3
    assert f"saved: {saved}" in done.stdout.replace("\n", "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert line.endswith(f"the network is in {saved}")


def test_a_weight_column_is_known_again():
    weighted = frame().assign(weight=np.linspace(0.1, 2, 300))
    weighted.to_parquet("weighted.parquet", index=False)
    passes("convert", "weighted.parquet", "w.zarr", "--target", "target", "--weight", "weight")
    asked = ("--target", "target", "--weight", "weight", "--hidden", 3, "--out", "w-model.zarr")
    passes("train", "weighted.parquet", *asked, *QUICK)
    scores = [
        json.loads(passes("evaluate", "w-model.zarr", data, *target, "--json").stdout)["mse"]
        for data, target in (
            ("w.zarr", ()),
            ("weighted.parquet", ()),
            ("weighted.parquet", ("--target", "target")),
        )
    ]
    assert len(set(scores)) == 1
    passes("predict", "w-model.zarr", "weighted.parquet", "--out", "p.npy")
    expected = Network.load("w-model.zarr").predict(weighted[["a", "b", "c"]])[:, 0]
    np.testing.assert_array_equal(np.load("p.npy"), expected)
    weighted[["c", "a", "b"]].to_parquet("bare.parquet", index=False)
    passes("predict", "w-model.zarr", "bare.parquet", "--out", "bare.npy")
    np.testing.assert_array_equal(np.load("bare.npy"), expected)


def test_a_score_under_early_stopping_says_which_rows_it_is_of():
    options = ("train", "data.zarr", "--hidden", 2, "--out", "new.zarr", *QUICK)
    told = passes(*options, "--early-stopping").stdout
    assert "train, held out" in told
    assert "train, held out" not in passes(*options, "--overwrite").stdout


@pytest.mark.parametrize("folder", ["nowhere", "data.parquet", "/proc"])
def test_out_in_a_folder_that_cannot_be_written(folder):
    assert folder in refuses(
        "train", "data.zarr", "--hidden", 3, "--out", f"{folder}/new.zarr", *QUICK
    )


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--test-fraction", 1.5], "--test-fraction"),
        (["--test-fraction", 0.0001], "too few"),
        (["--negative-slope", 2], "--negative-slope is 2.0"),
        (["--memory", "lots"], "--memory lots"),
        (["--memory", "1MiB"], "at least"),
        (["--memory", "1GiB", "--workers", 10**6], "--workers 1000000: at most"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--workers"),
        (["--weight", "nope"], "nope"),
        (["--performance-report", "report.html"], "--performance-report is of a cluster"),
    ],
)
def test_bad_options(options, word):
    workers = [] if "--memory" in options else ["--workers", 0]
    line = refuses("train", "data.parquet", "--target", "target", "--hidden", 3, "--out", "n.zarr",
                   *options, *workers)  # fmt: skip
    assert word in line


REPORTED = (
    *("train", "data.zarr", "--hidden", 2, "--method", "damped", "--max-iter", 1),
    *("--out", "new.zarr", "--workers", 1, "--performance-report"),
)


def test_a_report_replaces_nothing(here):
    before = snapshot(here)
    assert "data.parquet: a report is an HTML page" in refuses(*REPORTED, "data.parquet")
    Path("report.html").write_text("mine")
    assert "report.html: exists already" in refuses(*REPORTED, "report.html")
    assert Path("report.html").read_text() == "mine"
    Path("report.html").unlink()
    assert snapshot(here) == before


@pytest.mark.cluster
@pytest.mark.usefixtures("here")
def test_a_report_that_cannot_be_drawn_takes_nothing_along(monkeypatch):
    @contextlib.contextmanager
    def undrawn(filename):
        yield
        raise RuntimeError(f"cannot draw {filename}")

    monkeypatch.setattr("distributed.performance_report", undrawn)
    done = passes(*REPORTED, "report.html")
    assert "report.html: the report cannot be written: cannot draw report.html" in done.stderr
    assert Network.load("new.zarr").n_hidden == 2


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "cannot connect to nonsense"),
        ("foo://x:1", "cannot connect to foo://x:1"),
        ("tls://127.0.0.1:1", "tls://127.0.0.1:1 takes certificates"),
    ],
)
def test_bad_scheduler_addresses(address, why):
    line = refuses("train", "data.zarr", "--hidden", 3, "--out", "n.zarr", "--scheduler", address)
    assert why in line
