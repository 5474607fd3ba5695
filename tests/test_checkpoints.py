"""Checkpoints: a run that was cut off goes on, and ends as if it had not been."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import secrets

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from altrelu_dist import AltReLURegressor
from altrelu_dist.checkpoints.codec import decode, encode
from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.engine import LocalEngine
from altrelu_dist.errors import CheckpointError, ExistsError, ParameterError
from altrelu_dist.moments.rows import Weights
from altrelu_dist.training import damped, pattern_state


def data(n=3000, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, 0]) * X[:, 1] + 0.1 * rng.standard_normal(n)


class CutError(Exception):
    """Stands for a process that ends."""


def cut_after(reports):
    """A callback that ends the run without a word after so many reports."""
    left = iter(range(reports))

    def callback(_):
        if next(left, None) is None:
            raise CutError

    return callback


def weights_of(model):
    network = model.network_
    return [network.hidden_weights, network.hidden_bias, network.output_weights]


def assert_same_run(model, expected):
    for found, wanted in zip(weights_of(model), weights_of(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for name in ("stage", "loss", "sample_loss", "validation_loss", "iteration"):
        np.testing.assert_array_equal(
            [entry[name] for entry in model.history_],
            [entry[name] for entry in expected.history_],
        )
    assert model.stop_reason_ == expected.stop_reason_


RUNS = [
    {"method": "search", "max_iter": 1},
    {"method": "search", "max_iter": 1, "early_stopping": True},
    pytest.param({"method": "search", "max_iter": 3}, marks=pytest.mark.slow),
    pytest.param(
        {"method": "search", "max_iter": 2, "early_stopping": True}, marks=pytest.mark.slow
    ),
    {"method": "damped", "max_iter": 30},
    {"method": "kronecker", "max_iter": 2},
    {"method": "alternating", "max_iter": 12},
]


def cut_and_resumed(options, X, y, folder, cuts):
    """The run that goes on after each cut, and how many reports the last one made."""
    kept = {"checkpoint": folder, "checkpoint_interval": 0}
    for i, cut in enumerate(cuts):
        model = AltReLURegressor(**options, **kept, resume=i > 0, callback=cut_after(cut))
        with contextlib.suppress(CutError):
            model.fit(X, y)
    reports = []
    model = AltReLURegressor(**options, **kept, resume=True, callback=reports.append)
    return model.fit(X, y), len(reports)


@pytest.mark.parametrize("options", RUNS)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(options, tmp_path):
    X, y = data()
    options = {"n_hidden": 3, "random_state": 0, **options}
    reports = []
    expected = AltReLURegressor(**options, callback=reports.append).fit(X, y)
    share = len(reports) // 5
    model, left = cut_and_resumed(options, X, y, tmp_path / "run", [share, 1, share + 3, share])
    assert_same_run(model, expected)
    # What was known was not made again, but for what moments that are not kept stand on.
    assert left <= len(reports) - (2 * share if options["method"] == "search" else 1)
    again, left = cut_and_resumed(options, X, y, tmp_path / "run", [])
    assert_same_run(again, expected)
    assert left <= 6


@pytest.mark.parametrize("options", RUNS)
@pytest.mark.usefixtures("small_samples")
def test_the_same_where_not_all_rows_are_held(options, tmp_path):
    X, y = data(12_000)
    arrays = da.from_array(X, chunks=(5000, -1)), da.from_array(y, chunks=5000)
    options = {"n_hidden": 3, "random_state": 0, **options}
    reports = []
    expected = AltReLURegressor(**options, callback=reports.append).fit(X, y)
    cuts = [len(reports) // 2, 3, len(reports) // 4]
    model, _ = cut_and_resumed(options, *arrays, tmp_path / "run", cuts)
    assert_same_run(model, expected)


@pytest.mark.parametrize("options", RUNS)
@pytest.mark.parametrize(
    "share", [0.6, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.15, 0.4, 0.8, 0.95))]
)
@pytest.mark.usefixtures("small_samples")
def test_a_run_that_was_asked_to_stop_goes_on(share, options, tmp_path):
    """It ends in good order, by what is left of its stages: none of that is of the run to come."""
    X, y = data(12_000)
    options = {"n_hidden": 3, "random_state": 0, **options}
    reports = []
    expected = AltReLURegressor(**options, callback=reports.append).fit(X, y)
    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    left = itertools.count(int(share * len(reports)), -1)
    stopped = AltReLURegressor(**options, **kept, callback=lambda _: next(left) <= 0).fit(X, y)
    assert stopped.stop_reason_ == "interrupted"
    assert_same_run(AltReLURegressor(**options, **kept, resume=True).fit(X, y), expected)


@pytest.mark.cluster
@pytest.mark.usefixtures("small_samples")
def test_it_goes_on_elsewhere(tmp_path, process_client):
    """Begun in this process, gone on with in threads, ended on a cluster, in other chunks."""
    X, y = data(12_000)
    options = {"n_hidden": 4, "random_state": 0, "max_iter": 3}
    reports = []
    expected = AltReLURegressor(**options, callback=reports.append).fit(X, y)
    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    for chunk, cut in ((None, len(reports) // 3), (5000, len(reports) // 3), (3001, None)):
        arrays = (X, y) if chunk is None else (da.from_array(v, chunks=chunk) for v in (X, y))
        model = AltReLURegressor(**options, **kept, resume=chunk is not None)
        if cut is None:
            model.set_params(client=process_client)
        else:
            model.set_params(callback=cut_after(cut))
        with contextlib.suppress(CutError):
            model.fit(*arrays)
    assert_same_run(model, expected)


@pytest.mark.parametrize("method", ["damped", "alternating"])
@pytest.mark.parametrize("most_kept", [2**27, 0])
def test_little_is_made_twice(method, most_kept, tmp_path, monkeypatch):
    """Cut anywhere, no step but the one that was cut off is made again, where moments are kept."""
    monkeypatch.setattr(pattern_state, "_MOST_KEPT", most_kept)
    X, y = data()
    options = {"n_hidden": 5, "random_state": 0, "method": method, "max_iter": 24}
    passes, stops_at = [], [math.inf]
    reduce = LocalEngine.reduce

    def counted(self, statistic, name, hurry=None):
        if len(passes) >= stops_at[0]:
            raise CutError
        passes.append(name)
        return reduce(self, statistic, name, hurry)

    monkeypatch.setattr(LocalEngine, "reduce", counted)
    expected = AltReLURegressor(**options).fit(X, y)
    total = len(passes)
    assert "pattern-delta" in passes
    kept = {"checkpoint_interval": 0}
    begin = ["summary", "sample", "summary"]  # is always made, to know the data again
    step = 3 if method == "damped" else 1  # passes: kinks, pattern, loss
    most = 0
    for at in range(len(begin) + 1, total, 3):
        kept["checkpoint"] = tmp_path / f"{method}-{at}"
        passes.clear()
        stops_at[0] = at
        with pytest.raises(CutError):
            AltReLURegressor(**options, **kept).fit(X, y)
        stops_at[0] = math.inf
        model = AltReLURegressor(**options, **kept, resume=True).fit(X, y)
        assert_same_run(model, expected)
        again = len(passes) - total - len(begin)
        most = max(most, again)
    assert most <= step if most_kept else most > step


def test_of_several_blocks_of_neurons(tmp_path, monkeypatch):
    """They are drawn anew at each step: the draws go on too."""
    monkeypatch.setattr(damped, "LARGEST_SYSTEM", 12)
    X, y = data()
    options = {"n_hidden": 6, "random_state": 0, "method": "damped", "max_iter": 25}
    expected = AltReLURegressor(**options).fit(X, y)
    model, _ = cut_and_resumed(options, X, y, tmp_path / "run", [14, 8])
    assert_same_run(model, expected)


def test_an_interrupted_run_goes_on(tmp_path):
    """Stopped softly, it loses nothing; and time is counted in all."""
    X, y = data()
    options = {"n_hidden": 3, "random_state": 0, "max_iter": 2}
    expected = AltReLURegressor(**options).fit(X, y)
    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 1e6}
    stop = iter([False] * 100)
    first = AltReLURegressor(**options, **kept, callback=lambda _: next(stop, True)).fit(X, y)
    assert first.stop_reason_ == "interrupted"
    seen = []
    model = AltReLURegressor(**options, **kept, resume=True, callback=seen.append).fit(X, y)
    assert_same_run(model, expected)
    begun = next(report for report in seen if report.stage != "summary")
    assert begun.seconds > 0.9 * first.history_[-1]["seconds"]
    late = AltReLURegressor(**options, **kept, resume=True, max_time=1e-2).fit(X, y)
    assert late.network_.n_hidden == 3


def test_a_seed_that_nobody_named_is_kept(tmp_path):
    X, y = data(500)
    options = {"n_hidden": 3, "max_iter": 1}
    model, _ = cut_and_resumed(options, X, y, tmp_path / "run", [60])
    again, _ = cut_and_resumed(options, X, y, tmp_path / "run", [])
    assert_same_run(again, model)


def changed(X, y, how):
    """Data that differs in one respect."""
    X, y = X.copy(), y.copy()
    if how == "value":
        X[1234, 1] += 1e-9
    elif how == "target":
        y[7] += 1.0
    elif how == "order":
        X[[3, 4]], y[[3, 4]] = X[[4, 3]], y[[4, 3]]
    elif how == "rows":
        X, y = X[1:], y[1:]
    return X, y


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("value", "X has other values in b$"),
        ("target", "y has other values in column 0"),
        ("order", "its rows are in another order"),
        ("rows", "n_samples was 3000 and is 2999"),
    ],
)
def test_other_data_is_refused(how, words, tmp_path):
    X, y = data()
    kept = {"checkpoint": tmp_path / "run", "random_state": 0, "max_iter": 1}
    names = {"feature_names": ["a", "b", "c"]}
    AltReLURegressor(3, **kept).fit(X, y, **names)
    before = files_in(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        AltReLURegressor(3, **kept, resume=True).fit(*changed(X, y, how), **names)
    assert {name for name, _ in files_in(tmp_path)} == {name for name, _ in before}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"n_hidden": 4}, "n_hidden was 3 and is 4"),
        ({"alpha": 0.1}, "alpha was 0.0 and is 0.1"),
        ({"random_state": 1}, "seed was 0 and is 1"),
        ({"method": "damped"}, "method was 'search' and is 'damped'"),
    ],
)
def test_other_parameters_are_refused(other, words, tmp_path):
    X, y = data(500)
    kept = {"checkpoint": tmp_path / "run", "random_state": 0, "max_iter": 1, "n_hidden": 3}
    AltReLURegressor(**kept).fit(X, y)
    before = files_in(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        AltReLURegressor(**kept | other, resume=True).fit(X, y)
    assert files_in(tmp_path) == before


def files_in(folder):
    return sorted((path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_a_new_run_does_not_replace_another_ones_checkpoint(tmp_path):
    X, y = data(500)
    kept = {"checkpoint": tmp_path / "run", "random_state": 0, "max_iter": 1}
    with pytest.raises(CheckpointError, match="there is no checkpoint to go on with"):
        AltReLURegressor(3, **kept, resume=True).fit(X, y)
    AltReLURegressor(3, **kept).fit(X, y)
    before = files_in(tmp_path)
    with pytest.raises(ExistsError, match="holds the checkpoint of a run"):
        AltReLURegressor(3, **kept).fit(X, y)
    assert files_in(tmp_path) == before
    with pytest.raises(ParameterError, match="resume is for a checkpoint"):
        AltReLURegressor(3, resume=True).fit(X, y)


# --- the folder -------------------------------------------------------------------------------


def test_the_one_before_is_used_where_the_newest_is_damaged(tmp_path, caplog):
    store = CheckpointStore(tmp_path)
    for number in range(4):
        store.save({"number": number})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000003.bin", "checkpoint-00000004.bin",
    ]  # fmt: skip
    path = tmp_path / "checkpoint-00000004.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert CheckpointStore(tmp_path).load() == {"number": 2}
    assert "the one before is used" in caplog.text
    again = CheckpointStore(tmp_path)
    again.load()
    again.save({"number": 5})
    assert CheckpointStore(tmp_path).load() == {"number": 5}
    for file in tmp_path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="checkpoint-0000000"):
        CheckpointStore(tmp_path).load()


@pytest.mark.parametrize("folder", ["rows.zarr", "rows.zarr/more"])
def test_a_store_of_arrays_takes_no_checkpoint(folder, tmp_path):
    zarr.create_group(tmp_path / "rows.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"rows\.zarr is a Zarr store; name a folder beside"):
        AltReLURegressor(3, checkpoint=tmp_path / folder).fit(*data(100))
    assert sorted(tmp_path.rglob("*")) == before


def test_in_memory_of_fsspec():
    """Any address goes, not only a local one."""
    X, y = data(500)
    options = {"n_hidden": 3, "random_state": 0, "max_iter": 1}
    expected = AltReLURegressor(**options).fit(X, y)
    model, _ = cut_and_resumed(options, X, y, f"memory://{secrets.token_hex(4)}/run", [60, 80])
    assert_same_run(model, expected)


def test_a_run_goes_on_where_no_checkpoint_can_be_written(tmp_path, monkeypatch, caplog):
    X, y = data(500)
    write = CheckpointStore._write

    def full(self, name, content):
        if name != "lock":
            raise OSError(28, "No space left on device")
        write(self, name, content)

    monkeypatch.setattr(CheckpointStore, "_write", full)
    model = AltReLURegressor(3, random_state=0, max_iter=1, checkpoint=tmp_path / "run")
    model.fit(X, y)
    assert_same_run(model, AltReLURegressor(3, random_state=0, max_iter=1).fit(X, y))
    assert caplog.text.count("no checkpoint could be written: No space left on device") == 1


@pytest.mark.parametrize("address", ["nothing://a/b", "/proc/self/run"])
def test_a_folder_that_cannot_be_is_refused_at_once(address):
    with pytest.raises(CheckpointError, match=address):
        AltReLURegressor(3, checkpoint=address).fit(*data(100))


# --- the bytes --------------------------------------------------------------------------------

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner) | st.tuples(inner),
)


@given(TREES)
def test_a_tree_comes_back(tree):
    assert decode(encode(tree)) == tree


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u8", "?"])
@pytest.mark.parametrize("shape", [(1,), (0,), (3, 0), (2, 3)])
def test_arrays_come_back(dtype, shape, rng):
    array = (rng.standard_normal(shape) * 3).astype(dtype)
    weights = Weights(np.asfortranarray(rng.standard_normal((3, 2))), np.ones((2, 1)), np.ones(1))
    found = decode(encode({"a": [array], "w": weights, "n": (np.float64("nan"), np.inf)}))
    np.testing.assert_array_equal(found["a"][0], array)
    assert found["a"][0].dtype == array.dtype
    np.testing.assert_array_equal(found["w"].W, weights.W)
    assert found["w"].W.flags.f_contiguous
    np.testing.assert_array_equal(found["n"], (np.nan, np.inf))


def test_nothing_with_code_is_kept():
    with pytest.raises(TypeError, match="cannot be kept"):
        encode({"a": print})


@pytest.mark.parametrize("dtype", [b"|O8", b",f8", b"<M8", b"<Z8", b"f4,"])
def test_arrays_of_anything_but_numbers_are_refused(dtype):
    data = encode({"a": np.zeros(1)})
    head = data[: data.index(b"\n") + 1]
    payload = data[len(head) + 32 :].replace(b"<f8", dtype)
    with pytest.raises(CheckpointError, match="damaged: an array of"):
        decode(head + hashlib.sha256(payload).digest() + payload)


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_flipped_bit_is_found(at, bit, cut):
    data = bytearray(encode({"a": np.arange(5.0), "b": "text"}))
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    with pytest.raises(CheckpointError, match=r"damaged|not a checkpoint"):
        decode(bytes(data))


# --- the journal ------------------------------------------------------------------------------


def test_a_journal_of_nothing_makes_every_step():
    journal = Journal()
    assert [journal.step("a", lambda i=i: i) for i in range(3)] == [0, 1, 2]
    journal.save_point(lambda: pytest.fail("there is nowhere to keep it"))
    assert journal.restore_point() is None
    assert not journal.replaying


def test_a_journal_knows_steps_and_parts_of_them(tmp_path):
    store = CheckpointStore(tmp_path)
    journal = Journal(store, 0.0)
    assert not journal.knows("a")

    def long():
        journal.step("part", lambda: 2)
        journal.save_point(lambda: 3)
        raise CutError

    journal.step("a", lambda: 1)
    journal.step("a", lambda: 1)
    with pytest.raises(CutError):
        journal.step("long", long)
    resumed = Journal(store)
    resumed.resume(store.load())
    for _ in range(2):
        assert resumed.knows("a")
        assert resumed.knows("long")
        resumed.step("a", lambda: pytest.fail("it is known"))
    assert not resumed.knows("a")


def test_a_journal_knows_steps_by_their_whole_names():
    journal = Journal()
    journal.resume({"fingerprint": {}, "records": {"a-10": (1, {})}, "states": {}, "mark": None})
    assert not journal.knows("a")


def test_a_journal_knows_a_step_that_is_at_a_save_point(tmp_path):
    store = CheckpointStore(tmp_path)
    journal = Journal(store, 0.0)
    journal.step("a", lambda: journal.save_point(lambda: 1))
    journal.step("b", lambda: journal.save_point(lambda: 1) or journal.save())
    with pytest.raises(CutError):
        journal.step("c", lambda: journal.save_point(lambda: 1) or cut_after(0)(None))
    resumed = Journal(store)
    resumed.resume(store.load())
    assert resumed.knows("c")
    assert not resumed.knows("d")


def test_steps_of_another_run_do_not_fit(tmp_path):
    store = CheckpointStore(tmp_path)
    journal = Journal(store, 0.0)
    journal.step("a", lambda: 1)
    resumed = Journal(store)
    resumed.resume(store.load())
    with pytest.raises(CheckpointError, match="does not fit"):
        resumed.step("b", lambda: 2)
    with pytest.raises(CheckpointError, match="is damaged"):
        Journal(store).resume({"records": 3})
