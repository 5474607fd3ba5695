"""Exports of networks of tables: texts, times and missing values, as each target takes them."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from datetime import timedelta, timezone

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same
from test_exports import agree, by_c, needs_compiler, predicted
from test_tables_fit import table

from altrelu_dist import AltReLURegressor, Encoder, Network
from altrelu_dist.encoding import RawColumn, sketch_columns
from altrelu_dist.errors import ParameterError
from altrelu_dist.exports import made
from altrelu_dist.moments import Rows

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
