"""Exports: every target predicts what the network predicts of numbers, without this package."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import same
from sketched_rows import mixed, sketch_of

from altrelu_dist import Encoder, Network
from altrelu_dist.exports import TARGETS, made

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
    encoder=st.sampled_from([None, (), (16,), (3, 16), (16, 96)]),
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
def test_numpy_predicts_the_same_bits_where_nothing_is_looked_up(case):
    network, rows = case
    names = {}
    exec(compile(made(network, "numpy"), "network.py", "exec"), names)
    with np.errstate(all="ignore"):
        found = names["predict"](rows)
    agree(found, network, rows)
    if network._lookup is None:
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
