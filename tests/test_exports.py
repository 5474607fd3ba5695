"""Exports: every target predicts what the network predicts, without this package."""

from __future__ import annotations

import ctypes
import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta, timezone
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same
from sklearn.exceptions import NotFittedError
from test_encoding import mixed, sketch_of
from test_tables_fit import table
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, Encoder, Network, export
from altrelu_dist.cli.app import app
from altrelu_dist.encoding import RawColumn, sketch_columns
from altrelu_dist.encoding.standard import StandardColumns
from altrelu_dist.errors import DataError, ExistsError, ParameterError
from altrelu_dist.exports import TARGETS, made, registry
from altrelu_dist.moments import Rows

ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "sklearn": ".joblib", "numpy": ".py", "c": ".c"}
LIGHT = [name for name in TARGETS if name != "torch"]  # what tests need is installed for them
ODD_NAMES = ('a */ "b', "größe\n", "c??/", "/* d\\", "__import__('os')", "e")
COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (apt install gcc)")


def network_of(seed, *, encoder=(16,), slope=0.0, q=1, ranged=True, named=False, h=5):
    """A network on columns of all kinds; column 2 is constant, and column 0 far from zero."""
    rng = np.random.default_rng(seed)
    X = mixed(rng, 300)
    X[:, 0] += 2.0**40
    encoder = None if encoder is None else Encoder.learn(sketch_of(X), encoder)
    p = 6 if encoder is None else encoder.n_columns
    span = np.sort(rng.normal(size=(2, q)), axis=0) * 2
    network = Network(
        rng.normal(size=(p, h)),
        rng.normal(size=h),
        rng.normal(size=(h, q)),
        rng.normal(size=q),
        negative_slope=slope,
        encoder=encoder,
        target_range=span if ranged else None,
        feature_names=ODD_NAMES if named else None,
        target_names=tuple(f"{i} */" for i in range(q)) if named else None,
    )
    return network, rows_for(X, rng)


def rows_for(X, rng):
    """Training rows, extreme ones, and one row for each column and each value that is no number."""
    odd = [np.nan, np.inf, -np.inf]
    bad = np.repeat(X[:1], 18, axis=0)
    bad[np.arange(18), np.arange(18) % 6] = np.repeat(odd, 6)
    signs = rng.choice([-1.0, 1.0], size=(20, 6))
    return np.vstack([X[:60], signs * 1e30, signs * 1e30 + X[:20], X[:20] + signs * 1e6, bad])


networks = st.builds(
    network_of,
    st.integers(0, 999),
    encoder=st.sampled_from([None, (), (16,), (3, 16)]),
    slope=st.sampled_from([0.0, 0.1]),
    q=st.integers(1, 3),
    ranged=st.booleans(),
    named=st.booleans(),
    h=st.integers(1, 6),
)


def predicted(network, rows):
    with np.errstate(all="ignore"):
        return network.predict(rows)


def agree(found, network, rows, table=None):
    """Up to rounding of each row's own terms in float64; NaN and infinity in the same places."""
    wanted = predicted(network, rows if table is None else table)
    columns = rows if network.encoder is None else network.encoder.transform(rows)
    with np.errstate(all="ignore"):
        terms = np.abs(columns) @ np.abs(network.hidden_weights) + np.abs(network.hidden_bias)
        terms = terms @ np.abs(network.output_weights) + np.abs(network.output_bias)
        if network.target_range is not None:
            terms += np.abs(network.target_range).max()
    assert found.dtype == np.float64
    finite = np.isfinite(wanted)
    assert same(found[~finite], wanted[~finite])
    assert finite.any()
    assert (np.abs(found[finite] - wanted[finite]) <= 5e-15 * terms[finite]).all()


def by_onnx(model, rows):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"X": rows})[0]


def by_c(source, folder, rows, q):
    """Compile with all warnings as errors, and predict row by row."""
    library = folder / f"{source.stem}.so"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O0", "-shared", "-fPIC"]
    done = subprocess.run(
        [COMPILER, *strict, str(source), "-o", str(library), "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    predict = ctypes.CDLL(str(library)).predict
    predict.argtypes, predict.restype = [ctypes.c_void_p] * 2, None
    rows, out = np.ascontiguousarray(rows), np.empty((len(rows), q))
    for row, y in zip(rows, out, strict=True):
        predict(row.ctypes.data, y.ctypes.data)
    return out


@given(case=networks)
def test_onnx_predicts_the_same(case):
    onnx = pytest.importorskip("onnx")
    network, rows = case
    model = network.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    agree(by_onnx(model, rows), network, rows)
    assert by_onnx(model, rows[:0]).shape == (0, network.n_targets)
    known = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert known.get("feature_names") == (network.feature_names and list(network.feature_names))
    assert known.get("target_names") == (network.target_names and list(network.target_names))


@given(case=networks)
def test_numpy_predicts_the_same_bits(case):
    network, rows = case
    names = {}
    exec(compile(made(network, "numpy"), "network.py", "exec"), names)
    with np.errstate(all="ignore"):
        found = names["predict"](rows)
    assert same(found, predicted(network, rows))
    assert names["FEATURE_NAMES"] == network.feature_names
    assert names["TARGET_NAMES"] == network.target_names
    with pytest.raises(ValueError, match=r"takes 6 features, found shape \(2, 5\)"):
        names["predict"](rows[:2, :5])


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@given(case=networks)
def test_sklearn_predicts_the_same(case):
    network, rows = case
    pipeline = network.to_sklearn()
    complete = rows[np.isfinite(rows).all(axis=1)]
    found = pipeline.predict(complete)
    assert found.shape == (
        (len(complete),) if network.n_targets == 1 else (len(complete), network.n_targets)
    )
    agree(found.reshape(-1, network.n_targets), network, complete)
    single = complete.astype(np.float32)
    agree(pipeline.predict(single).reshape(-1, network.n_targets), network, single)
    with pytest.raises(ValueError, match="contains NaN"):  # as the estimator says
        pipeline.predict(np.full((1, 6), np.nan))


def test_sklearn_knows_the_columns():
    network, rows = network_of(0, named=True)
    table = pd.DataFrame(rows[:9], columns=ODD_NAMES)
    pipeline = network.to_sklearn()
    agree(pipeline.predict(table)[:, None], network, rows[:9])
    assert pipeline.feature_names_in_.tolist() == list(ODD_NAMES)
    with pytest.raises(ValueError, match="feature names"):
        pipeline.predict(table[list(ODD_NAMES[::-1])])


@needs_compiler
@settings(max_examples=12)
@given(case=networks)
def test_c_predicts_the_same(case, tmp_path_factory):
    network, rows = case
    folder = tmp_path_factory.mktemp("c")
    network.export(folder / "network.c", to="c")
    agree(by_c(folder / "network.c", folder, rows, network.n_targets), network, rows)
    text = (folder / "network.c").read_text()
    assert ("gr\\xf6\\xdfe" in text) == (network.feature_names is not None)
    for word in ("malloc", "static double column", "static double z"):
        assert word not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"slope": 0.1, "q": 2}, {"encoder": None, "ranged": False}],
    ids=["encoded", "plain"],
)
def test_torch_predicts_the_same(options, tmp_path):
    torch = pytest.importorskip("torch")
    network, rows = network_of(0, named=True, **options)
    network.export(tmp_path / "network.pt2", to="torch")
    names = {"names.json": ""}
    program = torch.export.load(tmp_path / "network.pt2", extra_files=names).module()
    agree(program(torch.from_numpy(rows)).numpy(), network, rows)
    for n in (0, 1):
        agree(program(torch.from_numpy(rows[:1])).numpy(), network, rows[:1])
        assert program(torch.from_numpy(rows[:n])).shape == (n, network.n_targets)
    assert json.loads(names["names.json"])["feature_names"] == list(ODD_NAMES)
    assert str(Path.cwd()).encode() not in (tmp_path / "network.pt2").read_bytes()


LOADERS = {
    "numpy": "import network; predict = network.predict",
    "sklearn": "import joblib; predict = joblib.load('network.joblib').predict",
    "torch": (
        "import torch; program = torch.export.load('network.pt2').module()\n"
        "predict = lambda X: program(torch.from_numpy(X)).numpy()"
    ),
}


@pytest.mark.parametrize("to", ["numpy", "sklearn", pytest.param("torch", marks=pytest.mark.slow)])
def test_files_need_not_this_package(to, tmp_path):
    if to == "torch":
        pytest.importorskip("torch")
    network, rows = network_of(1, q=2, slope=0.1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    network.export(tmp_path / f"network{ENDINGS[to]}", to=to)
    np.save(tmp_path / "X.npy", rows)
    script = (
        "import sys; sys.modules['altrelu_dist'] = None; sys.path.insert(0, '.')\n"
        "import numpy as np\n"
        f"{LOADERS[to]}\n"
        "np.save('y.npy', predict(np.load('X.npy')))\n"
        "assert not any(name.startswith('altrelu_dist.') for name in sys.modules)\n"
    )
    if to == "numpy":
        script += "assert not {'scipy', 'sklearn', 'dask'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    agree(np.load(tmp_path / "y.npy"), network, rows)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "to", [pytest.param("c", marks=needs_compiler), "onnx", "sklearn", "numpy"]
)
def test_constant_columns_and_no_neurons(to, tmp_path):
    rows = np.array([[3.0, 1.0], [3.0, -1e30]])
    encoder = Encoder.learn(sketch_of(np.full((9, 2), 3.0)))
    weights = (np.zeros((0, 2)), np.array([1.0, -1]), np.array([[2.0], [5]]), np.array([0.5]))
    for network in (
        Network(*weights, encoder=encoder),
        Network(np.zeros((2, 0)), np.zeros(0), np.zeros((0, 1)), np.array([2.5])),
    ):
        if to == "c":
            network.export(tmp_path / f"h{network.n_hidden}.c", to="c")
            found = by_c(tmp_path / f"h{network.n_hidden}.c", tmp_path, rows, 1)
        elif to == "onnx":
            found = by_onnx(network.to_onnx(), rows)
        elif to == "sklearn":
            found = network.to_sklearn().predict(rows)
        else:
            exec(made(network, "numpy"), names := {})
            found = names["predict"](rows)
        assert found.ravel().tolist() == [2.5, 2.5]


# Tables of texts, times and missing values

LEVELS = ("red", "größe", 'a"b\\', "??/", "", "red ", "line\n", "nan", "%s", "Red")
TABLE_NAMES = ("X", "y", "array0", "größe", "value1", "*/", "x2")


def frame_of(rng, kinds, n, missing):
    """Columns of the kinds, with missing values in some; times of a century, to the nanosecond."""
    columns = {}
    for name, kind, lacks in zip(TABLE_NAMES, kinds, missing, strict=False):
        if kind == "levels":
            used = LEVELS[: rng.integers(1, 11)]
            values = pd.Series(rng.choice(used, n), dtype=object)
        elif kind == "time":
            values = pd.Series(rng.integers(-(10**18), 2 * 10**18, n).astype("datetime64[ns]"))
        else:
            values = pd.Series(rng.choice([rng.normal(size=n), rng.integers(0, 3, n)]))
        columns[name] = values.mask(rng.random(n) < 0.2) if lacks else values
    return pd.DataFrame(columns)


def codes_of(frame, columns):
    """By dictionaries and integers, value by value."""
    X = np.empty(frame.shape)
    for j, (name, column) in enumerate(zip(frame, columns, strict=True)):
        for i, value in enumerate(frame[name]):
            if pd.isna(value):
                X[i, j] = np.nan
            elif column.kind == "levels":
                X[i, j] = column.levels.index(value) if value in column.levels else -1
            elif column.kind == "time":
                X[i, j] = value.value // 10**9 + value.value % 10**9 / 10**9
            else:
                X[i, j] = value
    return X


def table_network(seed, *, kinds, missing, pieces=(4,), slope=0.0, q=1, h=4):
    """A network of a table, and new rows: levels never seen, and a row for each missing value."""
    rng = np.random.default_rng(seed)
    frame = frame_of(rng, kinds, 80, missing)
    columns = tuple(
        RawColumn("levels", tuple(dict.fromkeys(frame[name].dropna())))
        if kind == "levels"
        else RawColumn(kind)
        for name, kind in zip(frame, kinds, strict=True)
    )
    X = codes_of(frame, columns)
    encoder = Encoder.learn(sketch_columns(Rows(0, X, X[:, :1])), pieces, columns)
    network = Network(
        rng.normal(size=(encoder.n_columns, h)),
        rng.normal(size=h),
        rng.normal(size=(h, q)),
        rng.normal(size=q),
        negative_slope=slope,
        encoder=encoder,
        feature_names=tuple(frame),
        columns=columns,
    )
    new = frame.iloc[: 20 + 2 * len(kinds)].copy()
    for j, kind in enumerate(kinds):
        new.iloc[20 + 2 * j, j] = np.nan
        if kind == "levels":
            new.iloc[21 + 2 * j, j] = "nowhere"
        elif kind == "number":
            new[new.columns[j]] = new.iloc[:, j].astype(float)
            new.iloc[21 + 2 * j, j] = np.inf
    return network, new


def matrix_rows(network, new):
    """Rows of numbers: those of the table, and codes and times that no table has."""
    X = codes_of(new, network.columns)
    odd = np.repeat(X[:1], 6 * X.shape[1], axis=0)
    values = np.repeat([-np.inf, np.inf, 1.5, -0.5, 70_000.0, -1e12], X.shape[1])
    odd[np.arange(len(odd)), np.arange(len(odd)) % X.shape[1]] = values
    return np.vstack([X, odd])


KINDS = ("number", "levels", "time")
tables = st.builds(
    table_network,
    st.integers(0, 999),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    missing=st.lists(st.booleans(), min_size=6, max_size=6),
    pieces=st.sampled_from([(), (4,)]),
    slope=st.sampled_from([0.0, 0.1]),
    q=st.integers(1, 2),
)
every_kind = settings(max_examples=12)


def numpy_names(network):
    names = {}
    exec(compile(made(network, "numpy"), "network.py", "exec"), names)
    return names


@every_kind
@given(case=tables)
def test_numpy_takes_tables(case):
    network, new = case
    names = numpy_names(network)
    wanted = network.predict(new)
    X = names["matrix"](new)
    assert same(X, codes_of(new, network.columns))
    assert same(names["predict"](X), wanted)
    lists = {name: [None if pd.isna(v) else v for v in new[name]] for name in new}
    for name, column in zip(new, network.columns, strict=True):
        if column.kind == "time":
            lists[name] = new[name].to_numpy()
    assert same(names["matrix"](lists), X)
    rows = matrix_rows(network, new)
    assert same(names["predict"](rows), predicted(network, rows))


def test_numpy_has_texts_of_numbers_and_seconds_of_times():
    levels = RawColumn("levels", ("3", "2.5", "1", "True"))
    columns = (levels, RawColumn("time"), RawColumn())
    weights = (np.zeros((3, 1)), np.zeros(1), np.zeros((1, 1)), np.zeros(1))
    matrix = numpy_names(Network(*weights, columns=columns))["matrix"]
    texts = [3, 3.0, np.float32(2.5), True, "3.0", pd.NA, np.int64(3), np.nan]
    times = pd.to_datetime([1.25, -0.75, *[None] * 6], unit="s")
    durations = np.array([1500, -250, *["NaT"] * 6], dtype="timedelta64[ms]")
    found = matrix([texts, times, durations])
    assert same(found[:, 0], np.array([0, 0, 1, 2, -1, np.nan, 0, np.nan]))
    assert same(found[:, 1], np.array([1.25, -0.75, *[np.nan] * 6]))
    assert same(found[:, 2], np.array([1.5, -0.25, *[np.nan] * 6]))
    zone = timezone(timedelta(hours=-5))
    later = times.tz_localize("UTC").tz_convert("Asia/Kolkata")
    for objects in (
        times.to_pydatetime().tolist(),
        [None if pd.isna(t) else t.to_pydatetime().astimezone(zone) for t in later],
        pd.Series(later),
    ):
        assert same(matrix([texts, objects, durations]), found)


def onnx_inputs(model, network, new):
    """Numbers and times as one matrix, each column of texts by itself."""
    known = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    X = codes_of(new, network.columns)
    if "texts" not in known:
        return {"X": X}
    inputs = {}
    if known["numbers"]:
        inputs["X"] = X[:, [list(new).index(name) for name in known["numbers"]]]
    for name, column in known["texts"].items():
        texts = new[column].astype(object).where(new[column].notna(), known["missing"][name])
        inputs[name] = texts.to_numpy(dtype=object)[:, None]
    return inputs


@every_kind
@given(case=tables)
def test_onnx_takes_texts(case):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    network, new = case
    model = network.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = onnx_inputs(model, network, new)
    agree(session.run(["y"], inputs)[0], network, codes_of(new, network.columns), new)
    none = {name: values[:0] for name, values in inputs.items()}
    assert session.run(["y"], none)[0].shape == (0, network.n_targets)
    # Texts are missing where they are empty, or say what the model says where that is a level.
    for name, missing in json.loads(
        {entry.key: entry.value for entry in model.metadata_props}.get("missing", "{}")
    ).items():
        levels = network.columns[list(new).index(name.rstrip("_"))].levels
        assert missing == ("<missing>" if "" in levels else "")


@needs_compiler
@settings(max_examples=8)
@given(case=tables)
def test_c_takes_texts(case, tmp_path_factory):
    network, new = case
    folder = tmp_path_factory.mktemp("c")
    network.export(folder / "network.c", to="c")
    rows = matrix_rows(network, new)
    agree(by_c(folder / "network.c", folder, rows, network.n_targets), network, rows)
    if all(column.kind != "levels" for column in network.columns):
        assert "level_of" not in (folder / "network.c").read_text()
        return
    level_of = ctypes.CDLL(str(folder / "network.so")).level_of
    for j, column in enumerate(network.columns):
        texts = [*column.levels, "nowhere", "re", "\0red"]
        found = [level_of(j, text.encode()) for text in texts]
        empty = column.levels.index("") if "" in column.levels else -1  # a text of C ends at \0
        assert found == [*range(len(column.levels)), -1, -1, empty]
    assert level_of(len(network.columns), b"red") == level_of(-1, b"red") == -1


@pytest.mark.slow
def test_torch_takes_codes(tmp_path):
    torch = pytest.importorskip("torch")
    network, new = table_network(
        3, kinds=(*KINDS, *KINDS), missing=[True] * 3 + [False] * 3, slope=0.1, q=2
    )
    network.export(tmp_path / "network.pt2", to="torch")
    names = {"names.json": ""}
    program = torch.export.load(tmp_path / "network.pt2", extra_files=names).module()
    rows = matrix_rows(network, new)
    agree(program(torch.from_numpy(rows)).numpy(), network, rows)
    told = json.loads(names["names.json"])["columns"]
    assert tuple(map(RawColumn.from_json, told)) == network.columns


@pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="text of pandas 2 is of objects, as gaps are not"
)
@every_kind
@given(case=tables)
def test_sklearn_takes_tables(case):
    network, new = case
    pipeline = network.to_sklearn()
    wanted = network.predict(new)
    whole = np.isfinite(wanted).all(axis=1)
    infinite = np.isinf(new.select_dtypes("number")).any(axis=1).to_numpy()
    for row in np.flatnonzero(~whole | infinite):
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            pipeline.predict(new.iloc[[row]])
    left = new[whole & ~infinite]
    mixed = any(column.kind != "number" for column in network.columns)
    given = left.assign(more=1)[["more", *left.columns[::-1]]] if mixed else left
    found = pipeline.predict(given)
    agree(found.reshape(-1, network.n_targets), network, codes_of(left, network.columns), left)


def test_sklearn_refuses_levels_that_numbers_may_mean():
    network, _ = table_network(0, kinds=("levels", "number"), missing=[False] * 2)
    levels = RawColumn("levels", ("red", "3"))
    network = replace(network, columns=(levels, RawColumn()))
    with pytest.raises(ParameterError, match=r"level '3' of column 'X' .*; export to onnx or tor"):
        network.to_sklearn()


@pytest.fixture(scope="module")
def trained():
    """An estimator of a table."""
    return AltReLURegressor(n_hidden=4, method="alternating", max_iter=1, random_state=0).fit(
        *table()
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "to",
    [
        "onnx",
        "sklearn",
        "numpy",
        pytest.param("c", marks=needs_compiler),
        pytest.param("torch", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_a_table_is_exported(to, trained, tmp_path):
    new, _ = table(60, seed=1)
    new.loc[:3, "colour"] = "violet"
    network = trained.network_
    X = codes_of(new, network.columns)
    if to == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        program = network.to_onnx()
        session = runtime.InferenceSession(
            program.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        [found] = session.run(["y"], onnx_inputs(program, network, new))
    elif to == "sklearn":
        network.export(tmp_path / "network.joblib", to="sklearn")
        found = joblib.load(tmp_path / "network.joblib").predict(new)[:, None]
    elif to == "numpy":
        names = numpy_names(network)
        found = names["predict"](names["matrix"](new))
    elif to == "c":
        network.export(tmp_path / "network.c", to="c")
        found = by_c(tmp_path / "network.c", tmp_path, X, 1)
    else:
        torch = pytest.importorskip("torch")
        found = network.to_torch().module()(torch.from_numpy(X)).numpy()
    assert np.isfinite(found).all()
    assert found[:, 0] == pytest.approx(trained.predict(new), rel=1e-11, abs=1e-11)
    agree(found, network, X, new)


# Kinds of encoded columns


@dataclass(frozen=True, eq=False)
class Levels(StandardColumns):
    """A kind that no target knows."""


@pytest.mark.parametrize("to", TARGETS)
def test_a_kind_that_a_target_does_not_know_is_refused(to, monkeypatch):
    network, _ = network_of(0, encoder=())
    [block] = network.encoder.blocks
    levels = Levels(block.columns, block.center, block.scale)
    network = replace(network, encoder=Encoder(6, (levels,)))
    monkeypatch.setattr(registry, "find_spec", lambda _: True)
    with pytest.raises(ParameterError, match=f"'{to}', which .* kind Levels; no target can"):
        made(network, to)
    # A kind that a target is taught is held by it, and the others name it.
    module = importlib.import_module(f"altrelu_dist.exports.{TARGETS['numpy']}")
    taught = module.TARGET.blocks | {Levels: None}
    monkeypatch.setattr(module, "TARGET", replace(module.TARGET, blocks=taught))
    if to != "numpy":
        with pytest.raises(ParameterError, match=r"kind Levels; export to numpy$"):
            made(network, to)


# Files


@pytest.mark.parametrize("texts", [False, True])
def test_every_target_writes_its_file(texts, tmp_path):
    network, _ = table_network(0, kinds=KINDS, missing=[True] * 3) if texts else network_of(0)
    for to in LIGHT:
        path = tmp_path / f"m{ENDINGS[to]}"
        assert export(network, path, to=to) == path.stat().st_size
        first = path.read_bytes()
        with pytest.raises(ExistsError, match="exists already; use overwrite=True"):
            export(network, path, to=to)
        export(replace(network, output_bias=network.output_bias + 1), path, to=to, overwrite=True)
        assert path.read_bytes() != first
        export(network, path, to=to, overwrite=True)
        assert path.read_bytes() == first  # the same bytes for the same network
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted(ENDINGS[to] for to in LIGHT)


def test_an_address_of_storage_is_written():
    fsspec = pytest.importorskip("fsspec")
    network, _ = network_of(0)
    network.export("memory://exports/m.py", to="numpy")
    assert fsspec.filesystem("memory").cat_file("/exports/m.py").decode() == made(network, "numpy")


def test_a_failed_export_leaves_what_was_there(tmp_path, monkeypatch):
    network, _ = network_of(0)
    path = tmp_path / "m.c"
    path.write_text("mine")

    def full(self, _):
        Path(self).open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="the disk is full"):
        network.export(path, to="c", overwrite=True)
    assert path.read_text() == "mine"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("name", "to", "text"),
    [
        ("m.onnx", "java", r"to is 'java'; expected one of onnx, torch, sklearn, numpy, c$"),
        ("m.txt", "c", r"m.txt: its ending must be \.c for an export to c$"),
        ("nowhere/m.c", "c", "the folder .* does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, to, text):
    network, _ = network_of(0)
    with pytest.raises((DataError, ParameterError), match=text):
        network.export(tmp_path / name, to=to)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("to", "extra"), [("onnx", "export"), ("torch", "torch")])
def test_a_missing_library_names_its_extra(to, extra, tmp_path, monkeypatch):
    network, _ = network_of(0)
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=rf"needs the package {to}: .*altrelu-dist\[{extra}\]"):
        network.export(tmp_path / f"m{ENDINGS[to]}", to=to)


# The estimator and the command


def test_an_estimator_is_exported_as_its_network(tmp_path):
    model = AltReLURegressor(n_hidden=2, method="alternating", max_iter=1, random_state=0)
    with pytest.raises(NotFittedError):
        model.to_sklearn()
    X = np.linspace(-1, 1, 60)[:, None]
    model.fit(X, np.abs(X[:, 0]))
    assert by_onnx(model.to_onnx(), X)[:, 0] == pytest.approx(model.predict(X), rel=1e-12)
    assert model.to_sklearn().predict(X) == pytest.approx(model.predict(X), rel=1e-12)
    model.export(tmp_path / "m.py", to="numpy")
    assert (tmp_path / "m.py").read_text() == made(model.network_, "numpy")


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_writes_what_the_function_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, _ = network_of(0, named=True)
    network.save("m.zarr")
    for to in LIGHT:
        out = f"m{ENDINGS[to]}"
        done = run("m.zarr", "--to", to, "-o", out, "--json")
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        assert (record["to"], record["out"], record["bytes"]) == (to, out, Path(out).stat().st_size)
        network.export(f"again{ENDINGS[to]}", to=to)
        assert Path(out).read_bytes() == Path(f"again{ENDINGS[to]}").read_bytes()
    assert "saved: m.c" in run("m.zarr", "--to", "c", "--out", "m.c", "--overwrite").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["m.zarr", "--to", "java", "-o", "m.java"], "--to is 'java'; expected one of onnx, torch"),
        (["m.zarr", "--to", "c", "-o", "m.py"], "m.py: its ending must be .c"),
        (["m.zarr", "--to", "c", "-o", "mine.c"], "mine.c: exists already; use --overwrite"),
        (["m.zarr", "--to", "c", "-o", "m.zarr/m.c"], "lies inside an input"),
        (["none.zarr", "--to", "c", "-o", "m.c"], "none.zarr: no such model"),
    ],
)
def test_the_command_refuses_in_one_line(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network_of(0)[0].save("m.zarr")
    Path("mine.c").write_text("mine")
    done = run(*words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert Path("mine.c").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.zarr", "mine.c"]
