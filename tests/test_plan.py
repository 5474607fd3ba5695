"""The plan of a run: its counts against real runs, its model against itself, its refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, convert, plan
from altrelu_dist.cli.app import app
from altrelu_dist.committee import COMMITTEE
from altrelu_dist.engine import Engine
from altrelu_dist.errors import ParameterError
from altrelu_dist.planning.arithmetic import multiply_adds
from altrelu_dist.planning.calls import Call, Range, Shape
from altrelu_dist.planning.estimates import estimate_of, steps_of
from altrelu_dist.planning.memory import _SOLVER, Blocks, solver_bytes, worker_bytes
from altrelu_dist.planning.model import Clock, Cluster, limit_of
from altrelu_dist.planning.rates import Rates
from altrelu_dist.planning.timing import Cost
from altrelu_dist.planning.work import stages_of
from altrelu_dist.training import METHODS, schedule, trainer

FLOAT32 = np.dtype(np.float32)
KERNELS = (
    "summary",
    "sample",
    "distinct",
    "prepare",
    "whiten",
    "loss",
    "loss-and-gradient",
    "output",
    "tile",
    "insert",
    "gram",
    "delta",
    "kinks",
    *("sketch", "encode", "line", "turn", "member", "judge", "weigh", "fold"),
)
DENSE = (
    *("eigen", "member-step"),
    *("choose", "iterate", "metric", "precondition", "remove", "system", "step", "solve"),
)
MANY = 10**9
TWO_LEVELS = ("--loss", "quantile", "--quantile", 0.9, "--quantile", 0.1)


def rates(shape, second=1e10):
    """Those of a machine that does so many multiply-adds a second, whatever they are for."""
    p, q, h = shape.p, shape.q, shape.h
    costs = {
        kernel: Cost(p, q, h, multiply_adds(kernel, p, q, h) / second)
        for kernel in (*KERNELS, *DENSE)
    }
    return Rates(shape, second, 1e10, 1e8, 1, 1.0, 1.0, costs)


def clock(shape, method="search", *, cluster=None, rows=1 << 17):
    blocks = Blocks(-(-shape.n // rows), min(rows, shape.n), 4 * (shape.d + shape.q))
    cluster = cluster or Cluster(8, 2)
    return Clock(shape, blocks, 0.5, method, rates(shape), cluster), stages_of(shape, method)


def wavy(n, d=2):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype("float32")
    y = np.sin(2 * X[:, 0]) + np.abs(X[:, -1]) + 0.05 * rng.standard_normal(n)
    return X, y.astype("float32")


# --- what is done -----------------------------------------------------------------------------


def run_and_plan(n, method):
    """A run on so many rows, its planned steps, and the least and the most passes of them all."""
    model = AltReLURegressor(4, method=method, random_state=0).fit(*wavy(n))
    steps = steps_of(*clock(Shape(n, 2, 1, 4, FLOAT32), method))
    least, _, most = (sum(step.passes[end] for step in steps) for end in range(3))
    return model, steps, least, most


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("method", ["search", "kronecker", "damped", "alternating"])
def test_passes_are_those_of_a_run_on_more_rows_than_are_held(method):
    model, steps, least, most = run_and_plan(20_000, method)
    assert least <= model.n_passes_ <= most
    layers = sum(entry["stage"] == "layers" for entry in model.history_)
    if method == "alternating" or (method == "damped" and layers > trainer.LAST_STEPS):
        assert model.n_passes_ == most
    recorded = dict.fromkeys(entry["stage"] for entry in model.history_)
    assert set(recorded) <= {step.name for step in steps}


@pytest.mark.parametrize("method", ["search", "kronecker", "damped", "alternating"])
def test_passes_are_those_of_a_run_on_rows_in_memory(method):
    model, _, least, most = run_and_plan(1_000, method)
    if method == "alternating":
        assert model.n_passes_ == least == most
    # A descent that has nothing left to gain ends before its least; a cycle that has begun is
    # ended, and a line search may take longer than most.
    assert least <= 2 * model.n_passes_
    assert model.n_passes_ <= 1.2 * most + 700


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("n", [1_200, 1_500, 20_000])
def test_counts_of_the_search_hold_those_of_a_run(n, monkeypatch):
    """Stage by stage: values of the loss, and the most rows that any of them saw."""
    X, y = wavy(n)
    stage, made = "", {}
    reduce = Engine.reduce

    def counting(self, statistic, name, hurry=None):
        if name in ("loss", "loss-and-gradient"):
            count, rows = made.get(stage, (0, 0))
            made[stage] = (count + 1, max(rows, self.n_rows))
        return reduce(self, statistic, name, hurry)

    def follow(progress):
        nonlocal stage
        stage = progress.stage

    monkeypatch.setattr(Engine, "reduce", counting)
    AltReLURegressor(4, random_state=0, callback=follow).fit(X, y)
    foreseen = {}
    for step in stages_of(Shape(n, 2, 1, 4, FLOAT32), "search"):
        values = [call for call in step.calls if call.kernel in ("loss", "loss-and-gradient")]
        before = foreseen.get(step.name, (0, 0))
        most = sum(call.count.most for call in values)
        rows = max((call.rows for call in values), default=0)
        foreseen[step.name] = (before[0] + most, max(before[1], rows))
    for name, (count, rows) in made.items():
        # A cycle that has begun is ended, and a line search may take longer than most.
        assert 0 < count <= 1.2 * foreseen[name][0] + 100
        assert rows == pytest.approx(foreseen[name][1], rel=0.1)


@pytest.mark.parametrize(
    ("method", "loss", "n"),
    [
        pytest.param("search", "huber", 1_000, marks=pytest.mark.slow),
        ("kronecker", "huber", 1_000),
        ("kronecker", "poisson", 1_000),
        ("damped", "huber", 400),
        ("damped", "quantile", 400),
        ("damped", "poisson", 400),
    ],
)
def test_a_fit_of_another_loss_is_foreseen_within_a_factor_of_two(method, loss, n):
    X, y = wavy(n)
    y = np.random.default_rng(0).poisson(np.exp(y)).astype("float32") if loss == "poisson" else y
    model = AltReLURegressor(4, loss=loss, method=method, random_state=0).fit(X, y)
    shape = Shape(n, 2, 1, 4, FLOAT32)
    timed, _ = clock(shape, method)
    steps = steps_of(timed, stages_of(shape, method, loss))
    recorded = dict.fromkeys(entry["stage"] for entry in model.history_)
    assert set(recorded) <= {step.name for step in steps}
    assert {step.name for step in steps} == {"summary", "squares", "reweighted"}
    assert 0.5 < sum(step.passes.typical for step in steps) / model.n_passes_ < 2


def test_a_loss_takes_more_than_squares_and_quantiles_an_output_each():
    sizes = {"rows": 2_000, "features": 3, "n_hidden": 4}
    squares, levels = plan(**sizes), plan(**sizes, loss="quantile", quantile=[0.1, 0.5, 0.9])
    assert levels.passes.typical > squares.passes.typical
    assert (levels.targets, levels.loss, levels.levels) == (3, "quantile", (0.1, 0.5, 0.9))
    committee = [stages_of(Shape(2_000, 3, 1, 64, FLOAT32), "committee", loss)
                 for loss in ("squared_error", "poisson")]  # fmt: skip
    lines = [sum(call.count.typical for call in stages[1].calls if call.kernel == "line")
             for stages in committee]  # fmt: skip
    assert lines[1] > lines[0]


def test_ranges_are_in_order():
    runs = [(method, loss) for method in METHODS for loss in ("squared_error", "huber")
            if (method, loss) != ("alternating", "huber")]  # fmt: skip
    for method, loss in runs:
        for n in (500, 100_000, MANY):
            shape = Shape(n, 20, 2, 24, FLOAT32)
            timed, _ = clock(shape, method)
            for step in steps_of(timed, stages_of(shape, method, loss)):
                for each in (step.rounds, step.passes, step.multiply_adds, step.seconds):
                    assert 0 <= each.least <= each.typical <= each.most


def test_multiply_adds_are_those_of_the_loss_of_all_rows():
    steps = {s.name: s for s in steps_of(*clock(Shape(MANY, 30, 1, 64, FLOAT32)))}
    output = 64 * 31 + 65**2 + 64
    a_row = (1 + trainer.LAST_STEPS) * 2 * 64 * 32 + output
    assert steps["layers"].multiply_adds.typical == pytest.approx(a_row * MANY, rel=0.01)


@pytest.fixture
def few_steps():
    """A race of two rounds of few steps, and few rows that weigh the groups."""
    changed = {"racing": (4, 2), "first_steps": 25, "few_steps": 25, "judged_rows": 8_000}
    before = {name: getattr(COMMITTEE, name) for name in changed}
    for name, value in changed.items():
        object.__setattr__(COMMITTEE, name, value)
    yield
    for name, value in before.items():
        object.__setattr__(COMMITTEE, name, value)


@pytest.mark.alone
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(("n", "d"), [(200, 2), (4_000, 5)])
def test_a_committee_is_foreseen_within_a_factor_of_two(n, d):
    X, y = wavy(n, d)
    model = AltReLURegressor(random_state=0)
    AltReLURegressor(random_state=0, max_iter=1).fit(X[:100], y[:100])
    with threadpool_limits(1):  # so that the processor's seconds are those of the run
        begun = time.process_time()
        model.fit(X, y)
        seconds = time.process_time() - begun
        made = plan(rows=n, features=d)
    assert 0.5 < made.seconds.typical / made.rates.busy / seconds < 2
    assert made.passes.least / 1.1 <= model.n_passes_ <= 1.1 * made.passes.most
    assert model.network_.n_hidden <= made.stages[-1].neurons[1] + 4  # those of the line
    recorded = dict.fromkeys(entry["stage"] for entry in model.history_)
    assert [*recorded] == [stage.name for stage in made.stages]


@pytest.mark.usefixtures("few_steps")
def test_a_committee_takes_other_rows_in_each_round_where_it_does_not_hold_all(monkeypatch):
    monkeypatch.setattr(schedule, "ROWS", replace(schedule.ROWS, held_bytes=1))
    steps = steps_of(*clock(Shape(20_000, 2, 1, 1024, FLOAT32), "committee"))
    least, _, most = (sum(step.passes[end] for step in steps) for end in range(3))
    assert (least, most) == (2, 1 + len(COMMITTEE.racing))
    for rounds in (1, 2):
        model = AltReLURegressor(random_state=0, max_iter=rounds).fit(*wavy(20_000))
        assert model.n_passes_ == 1 + rounds
    assert steps[-1].rows == pytest.approx(model.history_[-1]["loss_rows"], rel=0.1)


# --- the model --------------------------------------------------------------------------------


def test_twice_the_rows_double_the_passes_and_leave_the_search():
    once = Shape(MANY, 30, 1, 32, FLOAT32)
    twice = replace(once, n=2 * MANY)
    one, two = (estimate_of(*clock(shape)) for shape in (once, twice))
    assert two.bytes_read.typical == pytest.approx(2 * one.bytes_read.typical, rel=1e-3)
    assert two.worker_memory == one.worker_memory
    for a, b in zip(*(steps_of(*clock(shape)) for shape in (once, twice)), strict=True):
        assert a.name == b.name
        if a.name in ("grow", "cycle", "settle"):
            assert a.rows == b.rows
        if a.name == "grow":
            assert a.seconds == b.seconds
        elif a.name == "summary":
            assert b.seconds.typical == pytest.approx(2 * a.seconds.typical, rel=0.02)


def test_more_workers_are_faster_up_to_the_limit_and_hardly_beyond():
    shape = Shape(10**11, 32, 1, 64, FLOAT32)
    made, stages = clock(shape, cluster=Cluster(1, 2))
    limit = limit_of(made, stages)
    seconds = {
        workers: estimate_of(replace(made, cluster=Cluster(workers, 2)), stages).seconds.typical
        for workers in (1, 2, 8, 32, limit.workers, 2 * limit.workers, 100 * limit.workers)
    }
    up_to = [seconds[workers] for workers in sorted(seconds) if workers <= limit.workers]
    assert len(up_to) >= 3
    assert up_to == sorted(up_to, reverse=True)
    assert seconds[2 * limit.workers] > 0.9 * seconds[limit.workers]
    # All that hold the weights are told to each of them.
    assert seconds[100 * limit.workers] > seconds[2 * limit.workers]
    assert seconds[limit.workers] == pytest.approx(limit.seconds, rel=1e-6)
    assert sum(limit.shares.values()) == pytest.approx(limit.seconds)


def test_the_limit_has_its_reason():
    big = Shape(10**11, 32, 1, 64, FLOAT32)
    assert limit_of(*clock(big)).reason == "scheduler"
    assert limit_of(*clock(Shape(10**6, 32, 1, 64, FLOAT32))).reason == "search"
    slow = Cluster(8, 2, bandwidth=1e8)
    assert limit_of(*clock(big, cluster=slow)).reason == "reading"
    few = limit_of(*clock(Shape(10**9, 32, 1, 64, FLOAT32), "alternating", rows=1 << 25))
    assert few.reason == "blocks"


def test_cached_data_is_read_once():
    shape = Shape(10**7, 30, 1, 8, FLOAT32)
    streamed, kept = (
        estimate_of(*clock(shape, cluster=Cluster(2, 1, memory))) for memory in (1 << 30, 8 << 30)
    )
    assert (streamed.cached, kept.cached) == (False, True)
    assert kept.bytes_read.most == pytest.approx(streamed.bytes_read.most / 13)
    assert kept.seconds.typical < streamed.seconds.typical
    assert kept.worker_memory > streamed.worker_memory


def test_a_pass_reads_no_faster_than_the_storage_gives():
    shape = Shape(MANY, 30, 1, 8, FLOAT32)
    made, _ = clock(shape, cluster=Cluster(10_000, 1, bandwidth=1e8))
    call = Call("loss", shape.n, shape.h, Range.exactly(1), everywhere=True)
    assert made.one_pass(call).reading == pytest.approx(MANY * 31 * 4 * 0.5 / 1e8)
    assert made.one_pass(call).slowest == "reading"


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "n", "d", "h"),
    [
        ("committee", 4_000, 10, None),
        pytest.param("search", 20_000, 20, 8, marks=pytest.mark.slow),
        ("kronecker", 20_000, 20, 8),
        ("damped", 10_000, 30, 24),
        ("alternating", 10_000, 12, 24),
    ],
)
def test_memory_covers_a_run_and_is_not_far_above_it(method, n, d, h):
    X, y = wavy(n, d)
    model = AltReLURegressor(h, method=method, max_iter=1, random_state=0)
    AltReLURegressor(h and 1, method=method, max_iter=1, random_state=0).fit(X[:100], y[:100])
    tracemalloc.start()
    try:
        model.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    shape = Shape(n, d, 1, h or COMMITTEE.most_neurons, FLOAT32)
    foreseen = solver_bytes(shape, Blocks(1, n, 4 * (d + 1)), method, 0, 1)
    assert peak <= foreseen - _SOLVER <= 5 * peak + (16 << 20)


def test_a_workers_memory_grows_with_its_threads_and_blocks_not_with_the_rows():
    shape = Shape(MANY, 30, 1, 32, FLOAT32)
    blocks = Blocks(MANY >> 17, 1 << 17, 124)

    def needed(of=shape, threads=1, within=blocks):
        return worker_bytes(of, within, "search", 4, threads, cached=False)

    assert needed() == needed(replace(shape, n=10 * MANY))
    assert needed(threads=2) > needed()
    assert needed(within=replace(blocks, rows=1 << 19)) > needed()


# --- refusals ---------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_with_what_would():
    with pytest.raises(ParameterError, match="use search or fewer neurons"):
        plan(rows=1e6, features=300, n_hidden=64, method="alternating")
    with pytest.raises(ParameterError, match=r"store the data in chunks of at most [\d,]+ rows"):
        plan(rows=1e9, features=1, n_hidden=2, workers=2, threads=8, memory=400 << 20)
    with pytest.raises(ParameterError, match=r"give each worker .* or use the search method"):
        plan(rows=1e8, features=60, n_hidden=100, method="alternating", workers=4, memory=512 << 20)
    with pytest.raises(ParameterError, match=r"the process that trains needs .* fewer neurons"):
        plan(rows=1e9, features=1000, n_hidden=64, client_memory=200 << 20)
    with pytest.raises(ParameterError, match="without a store give rows and features"):
        plan(rows=1e9)
    with pytest.raises(ParameterError, match="expected at least 2"):
        plan(rows=math.nan, features=3)


# --- as a user has it -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    X, y = wavy(20_000, 3)
    np.savez(folder / "wavy.npz", X=X, y=y)
    convert(folder / "wavy.npz", folder / "wavy.zarr")
    return folder / "wavy.zarr"


def run(*arguments):
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_plan_of_a_store(store):
    made = plan(store, 4)
    assert (made.rows, made.features, made.targets) == (20_000, 3, 1)
    assert (made.n_blocks, made.block_rows, made.dtype) == (5, 4096, "float32")
    names = ["summary", "sample", "grow", "cycle", "settle", "layers"]
    assert [stage.name for stage in made.stages] == names
    assert made.seconds.typical == pytest.approx(
        sum(stage.seconds.typical for stage in made.stages)
    )
    on_disk = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    assert made.here.bytes_read.typical == pytest.approx(on_disk, rel=0.01) or (
        not made.here.cached and made.here.bytes_read.typical > on_disk
    )
    assert made.cluster is None
    as_if = plan(store, 4, rows=2e9, workers=10)
    assert as_if.rows == 2e9
    assert as_if.n_blocks == 500_000
    assert as_if.cluster.limit.workers >= 1


def test_the_command_has_help_with_an_example():
    shown = " ".join(run("plan", "--help").stdout.split())
    assert "Example: altrelu plan" in shown
    assert "--threads-per-worker" in shown


def test_the_command(store):
    shown = run("plan", store, "--hidden", 4, "--workers", 8, "--memory", "4GiB")
    assert shown.exit_code == 0, shown.output
    for word in ("20,000 rows", "grow", "cycle", "layers", "this machine", "8 x 1", "4.00 GiB"):
        assert word in shown.stdout
    assert "stops scaling at about" in shown.stdout


def test_the_command_for_data_that_nobody_has():
    words = ("plan", "--rows", "1e11", "--features", 8, "--hidden", 4, "--workers", 2000)
    # So slow a store that no machine has another bottleneck.
    result = run(*words, "--threads-per-worker", 2, "--bandwidth", "1MiB", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["rows"] == 1e11
    assert record["data"] is None
    assert record["cluster"]["workers"] == 2000
    assert record["cluster"]["threads"] == 2
    assert record["cluster"]["limit"]["reason"] == "reading"
    assert record["seconds"].keys() == {"least", "typical", "most"}
    cluster = record["cluster"]
    assert cluster["seconds"]["typical"] > cluster["bytes_read"]["typical"] / 2**20


def test_the_command_takes_a_loss(store):
    shown = run("plan", store, "--hidden", 4, *TWO_LEVELS)
    assert shown.exit_code == 0, shown.output
    assert "quantiles: 2" in shown.stdout
    assert "method search, loss quantile" in " ".join(shown.stdout.split())
    assert "reweighted" in shown.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--rows", "1e9", "--features", 3, "--quantile", 0.5), "--quantile is for the loss"),
        (
            ("--rows", "1e9", "--features", 3, "--loss", "poisson", "--method", "alternating"),
            "least squares",
        ),
        (
            ("--rows", "1e9", "--features", 3, "--targets", 2, *TWO_LEVELS),
            "--quantile has 2 levels, and y has 2 targets",
        ),
        (
            ("kinds.csv", "--target", "kind", *TWO_LEVELS),
            "--loss is for targets that are numbers; kind has classes",
        ),
        (("--rows", "1e9"), "give rows and features"),
        (("--rows", "1e9", "--features", 3, "--bandwidth", "fast"), "--bandwidth fast: not a size"),
        (("--rows", "1e9", "--features", 3, "--memory", "1MiB"), "at least 256MiB"),
        (("nowhere.zarr",), "no such file or folder"),
        (
            ("--rows", "1e9", "--features", 999, "--method", "alternating"),
            "--method alternating solves one system",
        ),
    ],
)
def test_errors_are_one_line(words, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "a,kind\n" + "".join(f"{row},{'uvw'[row % 3]}\n" for row in range(30))
    (tmp_path / "kinds.csv").write_text(text)
    result = run("plan", *words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert line in result.stderr.strip().splitlines()[-1]


@pytest.mark.cluster
def test_a_cluster_that_is_there(store, process_client):
    address = process_client.scheduler.address
    result = run("plan", store, "--hidden", 4, "--scheduler", address, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["cluster"]
    assert (found["workers"], found["threads"]) == (2, 1)
    assert found["memory_limit"] > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "serach"),
        ("n_hidden", 8.5),
        ("max_size", 0),
        ("features", -1),
        ("workers", -3),
        ("threads", 0),
    ],
)
def test_parameters_that_cannot_be_are_named(name, value):
    sizes = {"rows": 1e6, "features": 4} | {name: value}
    with pytest.raises(ParameterError, match=f"{name} is {value!r}; expected"):
        plan(**sizes)


def test_memory_is_what_dask_says_without_importing_its_cluster():
    code = """
        import sys
        from altrelu_dist.planning.problem import machine_memory
        found = machine_memory()
        assert "distributed" not in sys.modules
        from distributed.system import MEMORY_LIMIT
        assert found == machine_memory() == MEMORY_LIMIT
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
