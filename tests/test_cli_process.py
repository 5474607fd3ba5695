"""The `altrelu` command as a user runs it: real processes, real signals, real clusters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from forks import dask_workers
from processes import (
    ALTRELU,
    certificates,
    dask_cluster,
    environment,
    listening,
    passes,
    quickly,
    run,
    scheduler_at,
    slow_reads,
    start,
    wait_for,
)  # fmt: skip

import altrelu_dist
from altrelu_dist import AltReLURegressor, data
from altrelu_dist.network import Network

QUICK = ("--hidden", 3, "--method", "alternating", "--max-iter", 2)
ENDLESS = ("--hidden", 24, "--max-time", 120)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with a store of 10,000 rows."""
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(10_000, 6)), columns=list("abcdef"))
    noise = rng.normal(size=10_000)
    made["target"] = np.maximum(made["a"], 0) * 3 + np.sin(3 * made["b"]) + noise
    monkeypatch.chdir(tmp_path)
    made.to_parquet("data.parquet", index=False)
    altrelu_dist.convert("data.parquet", "data.zarr", target="target")
    return tmp_path


def test_the_help_imports_nothing_heavy():
    heavy = "{'dask', 'distributed', 'numpy', 'pandas', 'pyarrow', 'sklearn', 'zarr'}"
    code = f"import sys, altrelu_dist.cli.app; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.cluster
def test_shell_completion():
    asked = {"_ALTRELU_COMPLETE": "complete_bash", "COMP_WORDS": "altrelu tr", "COMP_CWORD": "1"}
    done = subprocess.run(
        ALTRELU, capture_output=True, text=True, env=environment() | asked, check=True
    )
    assert done.stdout.split() == ["train"]


@pytest.mark.cluster
def test_from_a_file_to_predictions_on_a_local_cluster():
    pd.read_parquet("data.parquet").to_csv("data.csv.gz", index=False)
    passes("convert", "data.csv.gz", "new.zarr", "--target", "target")
    assert "10,000 rows" in passes("info", "new.zarr").stdout
    trained = passes(
        *("train", "new.zarr", "--hidden", 4, "--out", "model.zarr", "--max-iter", 1, "--json"),
        *("--test-fraction", 0.2, "--workers", 2, "--threads", 1, "--memory", "500MiB"),
        *("--performance-report", "report.html"),
    )
    report = Path("report.html").read_text()
    for name in ("summary", "sample"):  # what the tasks of a pass are called
        assert f'"{name}"' in report
    record = json.loads(trained.stdout)
    assert record["r2"] > 0.5
    assert record["test_r2"] > 0.5
    assert len(record["memory"]["workers"]) == 2
    total = record["memory"]["client"] + sum(record["memory"]["workers"])
    assert record["peak_memory"] == total > 100 << 20
    assert "2 workers on this machine, dashboard http://127.0.0.1:" in trained.stderr
    assert "R2" in passes("evaluate", "model.zarr", "new.zarr").stdout
    passes("predict", "model.zarr", "data.parquet", "--out", "p.parquet")
    predicted = pd.read_parquet("p.parquet")["target"]
    X = pd.read_parquet("data.parquet")[list("abcdef")]
    np.testing.assert_array_equal(predicted, Network.load("model.zarr").predict(X)[:, 0])


@pytest.mark.cluster
def test_damage_that_a_worker_finds_is_one_line():
    chunk = next(path for path in Path("data.zarr/X/c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    with dask_workers():
        said = quickly(
            *("train", "data.zarr", *QUICK, "--out", "m.zarr", "--workers", 1, "--quiet"), code=1
        )
    (line,) = said.splitlines()
    assert "X/c/" in line
    assert not Path("m.zarr").exists()


@pytest.mark.slow
def test_workers_that_cannot_hold_their_tasks_are_one_line():
    import zarr

    group = zarr.open_group("huge.zarr", mode="w")
    X = group.create_array("X", shape=(400_000, 60), chunks=(400_000, 60), dtype="float64")
    y = group.create_array("y", shape=(400_000,), chunks=(400_000,), dtype="float64")
    X[:] = np.random.default_rng(0).normal(size=X.shape)
    y[:] = X[:, 0]
    with dask_workers():
        said = quickly(
            *("train", "huge.zarr", *QUICK, "--out", "m.zarr", "--quiet"),
            *("--workers", 1, "--memory", "256MiB"),
            code=1,
        )
    (line,) = said.splitlines()
    assert "a worker needs" in line


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_saves_the_best_network(workers, number):
    with start(
        "train", "data.zarr", *ENDLESS, "--out", "m.zarr", "--workers", workers, "--json"
    ) as process:
        wait_for(process, " cycle ")
        os.killpg(process.pid, number)  # as a terminal does: the workers get it too
        asked = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - asked < 30
    assert process.returncode == 128 + number, stderr
    assert "stopping at the end of this step" in stderr
    assert "the best network so far is in m.zarr" in stderr
    assert "Traceback" not in stderr
    record = json.loads(stdout)
    assert record["stop_reason"] == "interrupted"
    data = altrelu_dist.open_dataset("data.zarr")
    (score,) = altrelu_dist.evaluate(Network.load("m.zarr"), data.X, data.y)
    assert score.r2 > 0.5


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_second_signal_stops_at_once_and_leaves_nothing(here, number, said):
    before = set(here.iterdir())
    for _ in range(3):
        with start("train", "data.zarr", *ENDLESS, "--out", "m.zarr", "--workers", 1) as process:
            wait_for(process, " cycle ")
            children = psutil.Process(process.pid).children(recursive=True)
            assert listening(process) == {"127.0.0.1"}
            os.killpg(process.pid, number)
            wait_for(process, "stopping at the end")
            os.killpg(process.pid, number)
            asked = time.monotonic()
            stdout, stderr = process.communicate(timeout=60)
        if not Path("m.zarr").exists():
            break
        shutil.rmtree("m.zarr")  # the run had ended before the second signal came
    assert time.monotonic() - asked < 10
    assert process.returncode == 128 + number
    assert stdout == ""
    assert stderr.strip().splitlines()[-1] == said
    assert "Traceback" not in stderr
    assert set(here.iterdir()) == before
    assert psutil.wait_procs(children, timeout=10)[1] == []


LONG = ("--hidden", 8, "--max-iter", 3, "--workers", 0)


def begins(process):
    """Wait until the training begins: until then there is nothing to lose; the moment."""
    wait_for(process, "rows, ")
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.by_hand)])
def test_killed_at_any_moment_it_goes_on(times):
    """The same bits, no checkpoint is torn, and no run is refused because a dead one holds it.

    The moments are spread over the whole of a training: a random one in each of its parts.
    """
    with start("train", "data.zarr", *LONG, "--out", "expected.zarr") as process:
        begun = begins(process)
        assert process.wait(240) == 0
        whole = time.monotonic() - begun  # of a training, on a machine as busy as it is
    expected = Network.load("expected.zarr")
    rng = np.random.default_rng()
    parts = rng.permutation(times)
    kills = ended = 0
    while kills < times or not ended:
        out, folder = f"m{ended}.zarr", f"run{ended}"
        options = ("data.zarr", *LONG, "--out", out, "--checkpoint", folder)
        if any(Path(folder).glob("checkpoint-*")):
            options = ("--resume", folder, "--workers", 0)
        else:
            options += ("--checkpoint-interval", 0)
        with start("train", *options) as process:
            begun = begins(process)
            if kills < times:
                moment = (parts[kills] + rng.random()) / times * whole
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, begun + moment - time.monotonic()))
                process.kill()
            said = process.stderr.read()
        assert process.returncode in (0, -signal.SIGKILL), said
        kills += process.returncode != 0
        if Path(out).exists():
            found = Network.load(out)
            for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            ended += 1
    print(f"{kills} runs killed, {ended} came to their end")


def test_a_run_goes_on_with_the_options_it_began_with(here, monkeypatch):
    """From another folder, and with others for the machine."""
    options = ("--hidden", 4, "--max-iter", 1, "--workers", 0, "--seed", 3)
    quickly("train", "data.zarr", *options, "--out", "expected.zarr")
    fit = AltReLURegressor.fit

    def cut(self, *arguments, **named):
        follower, left = self.callback, iter(range(40))

        def callback(progress):
            if next(left, None) is None:
                raise OSError("the machine went away")
            return follower(progress)

        return fit(self.set_params(callback=callback), *arguments, **named)

    monkeypatch.setattr(AltReLURegressor, "fit", cut)
    began = ("train", "data.zarr", *options, "--out", "m.zarr", "--checkpoint", "run")
    assert "went away" in quickly(*began, code=1)
    assert not Path("m.zarr").exists()
    monkeypatch.setattr(AltReLURegressor, "fit", fit)
    assert "holds the checkpoint of a run" in quickly(*began, code=1)
    refused = quickly("train", "--resume", "run", "--hidden", 5, "--workers", 0, code=1)
    assert "n_hidden was 4 and is 5" in refused
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert "saved: " in quickly("train", "--resume", here / "run", "--workers", 0)
    found, expected = Network.load(here / "m.zarr"), Network.load(here / "expected.zarr")
    np.testing.assert_array_equal(found.hidden_weights, expected.hidden_weights)
    assert "no checkpoint" in quickly("train", "--resume", "nowhere", code=1)
    assert "missing STORE, --out" in quickly("train", code=2)


def test_a_password_is_not_written_down(monkeypatch):
    """In the address of the data: it is to be given again."""
    kept = ("--out", "m.zarr", "--checkpoint", "run", "--hidden", 2, "--workers", 0)
    opened = data.open_dataset
    monkeypatch.setattr(data, "open_dataset", lambda _, **named: opened("data.zarr", **named))
    address = "https://me:tOpSeCrEt@example.org/data.zarr"
    quickly("train", address, *kept, "--max-iter", 1)
    shutil.rmtree("m.zarr")
    files = [path for path in Path("run").iterdir() if path.is_file()]
    assert files
    assert not any(b"tOpSeCrEt" in path.read_bytes() for path in files)
    assert "missing STORE" in quickly("train", "--resume", "run", code=2)
    quickly("train", address, "--resume", "run", "--workers", 0)
    assert Network.load("m.zarr").n_hidden == 2


@pytest.mark.cluster
def test_ctrl_c_before_the_training_is_an_exit_too():
    with start("train", "data.zarr", *ENDLESS, "--out", "m.zarr", "--workers", 1) as process:
        wait_for(process, "starting workers")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not Path("m.zarr").exists()


@pytest.mark.cluster
def test_ctrl_c_leaves_no_half_store(here):
    for name, shape in (("X.npy", (4_000_000, 32)), ("y.npy", (4_000_000,))):  # 1 GB of holes
        np.lib.format.open_memmap(name, mode="w+", dtype=float, shape=shape)
    before = set(here.iterdir())
    with start("convert", "X.npy", "big.zarr") as process:
        while not any(".partial" in path.name for path in here.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted"
    assert set(here.iterdir()) == before


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file become larger, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.cluster
def test_a_full_disk_leaves_the_old_file(here):
    quickly("train", "data.zarr", *QUICK, "--out", "m.zarr", "--workers", 0)
    for ending in ("csv", "parquet"):
        old = Path(f"p.{ending}")
        old.write_text("mine")
        with files_of_at_most(20_000):
            said = quickly("predict", "m.zarr", "data.zarr", "--out", old, "--overwrite", code=1)
        assert "disk is full" in said.splitlines()[-1]
        assert old.read_text() == "mine"
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


@pytest.mark.cluster
def test_a_scheduler_that_dies_is_an_error_at_once_and_another_goes_on(here):
    X = np.random.default_rng(0).normal(size=(200_000, 6)).astype("float32")
    np.savez("large.npz", X=X, y=np.abs(X[:, 0]) * X[:, 1])
    altrelu_dist.convert("large.npz", "large.zarr", chunk_bytes=1 << 18)
    options = ("train", "large.zarr", "--hidden", 6, "--method", "alternating", "--seed", 1)
    passes(*options, "--workers", 0, "--out", "expected.zarr")
    (here / "one").mkdir()
    with dask_cluster(here / "one", slow_reads(here)) as address:
        kept = ("--checkpoint", "run", "--checkpoint-interval", 0)
        with start(*options, *kept, "--out", "m.zarr", "--scheduler", address) as process:
            wait_for(process, " alternating ")
            os.kill(scheduler_at(address), signal.SIGKILL)
            killed = time.monotonic()
            _, said = process.communicate(timeout=120)
    # Between two passes Dask's client tries to reach the scheduler again, for ten seconds.
    assert time.monotonic() - killed < 30
    assert process.returncode == 1, said
    assert "connection to the scheduler is lost" in said.splitlines()[-1]
    assert not Path("m.zarr").exists()
    (here / "two").mkdir()
    with dask_cluster(here / "two") as address:
        passes("train", "--resume", "run", "--scheduler", address)
    found, expected = Network.load("m.zarr"), Network.load("expected.zarr")
    np.testing.assert_array_equal(found.hidden_weights, expected.hidden_weights)


@pytest.mark.cluster
def test_what_dask_logs_as_information_is_not_shown(here):
    # As when a connection that closes had something to send: by chance, so that it is said here.
    code = (
        "import logging, sys\n"
        "from altrelu_dist.cli.cluster import ClusterChoice, connect\n"
        "from altrelu_dist.runs.output import Output\n"
        "if sys.argv[2:]:\n"
        "    logging.getLogger('altrelu_dist').setLevel(logging.DEBUG)\n"
        "batched = logging.getLogger('distributed.batched')\n"
        "with connect(ClusterChoice(sys.argv[1]), Output()):\n"
        "    batched.info('while it is connected')\n"
        "batched.info('after it')\n"
        "batched.warning('a warning')\n"
    )
    with dask_cluster(here) as address:
        for debug, said in ((), [False, False, True]), (("debug",), [True, True, True]):
            done = subprocess.run(
                [sys.executable, "-c", code, address, *debug],
                capture_output=True, text=True, env=environment(), check=True,
            )  # fmt: skip
            told = ("while it is connected", "after it", "a warning")
            assert [words in done.stderr for words in told] == said, done.stderr


@pytest.mark.cluster
def test_a_wide_network_goes_to_the_workers_without_a_warning(here):
    code = (
        "import sys, warnings, dask, numpy as np\n"
        "from altrelu_dist.cli.cluster import ClusterChoice, connect\n"
        "from altrelu_dist.runs.output import Output\n"
        "weights = np.zeros((2050, 738))\n"
        "with connect(ClusterChoice(sys.argv[1]), Output()):\n"
        "    warnings.simplefilter('error', UserWarning)\n"
        "    print(dask.delayed(np.shape)(dask.delayed(weights)).compute())\n"
    )
    with dask_cluster(here) as address:
        done = subprocess.run(
            [sys.executable, "-c", code, address],
            capture_output=True, text=True, env=environment(),
        )  # fmt: skip
    assert done.stdout == "(2050, 738)\n", done.stderr


@pytest.mark.cluster
def test_a_scheduler_with_tls_lets_in_who_has_its_authoritys_certificate(here):
    ours, others = certificates(here, "ours"), certificates(here, "others")
    (here / "one").mkdir()
    with dask_cluster(here / "one", tls=ours) as address:
        assert address.startswith("tls://127.0.0.1")
        train = ("train", "data.zarr", *QUICK, "--seed", 1, "--scheduler", address)
        passes(*train, "--out", "m.zarr", *ours)
        passes("evaluate", "m.zarr", "data.zarr", "--scheduler", address, *ours)
        passes("predict", "m.zarr", "data.zarr", "--out", "p.npy", "--scheduler", address, *ours)
        passes("plan", "data.zarr", "--hidden", 2, "--scheduler", address, *ours)
        for refused, why in (((), "takes certificates"), (others, "ended the connection")):
            begun = time.monotonic()
            done = run(*train, "--out", "n.zarr", *refused)
            assert time.monotonic() - begun < 20
            assert done.returncode == 1
            assert f"{address} {why}" in done.stderr
        plain = run(*train[:-1], address.replace("tls", "tcp"), "--out", "n.zarr")
        assert plain.returncode == 1
        assert "ended the connection: a scheduler with TLS is at tls://" in plain.stderr
        assert not Path("n.zarr").exists()


def test_certificates_that_cannot_be_used_are_named(here):
    ca, cert, key = certificates(here, "ours")[1::2]
    train = ("train", "data.zarr", *QUICK, "--out", "m.zarr", "--scheduler", "tls://127.0.0.1:1")
    said = quickly(*train, "--tls-ca-file", ca, code=1)
    assert "--tls-cert and --tls-key not given" in said
    three = ("--tls-ca-file", ca, "--tls-cert", cert, "--tls-key")
    assert "nowhere.pem: there is no such file" in quickly(*train, *three, "nowhere.pem", code=1)
    assert "not certificates and the key" in quickly(*train, *three, "data.parquet", code=1)
    said = quickly(*train[:-1], "tcp://127.0.0.1:1", *three, key, code=1)
    assert "are for a scheduler at a tls:// address, found tcp://127.0.0.1:1" in said
    assert "and none is named" in quickly(*train[:-2], *three, key, code=1)


@pytest.mark.cluster
def test_no_scheduler_at_the_address():
    begun = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        addresses = ["tcp://127.0.0.1:1", f"tcp://127.0.0.1:{mute.getsockname()[1]}"]
        runs = [
            start("train", "data.zarr", *QUICK, "--out", "m.zarr", "--scheduler", address)
            for address in addresses
        ]
        for address, process in zip(addresses, runs, strict=True):
            _, said = process.communicate(timeout=60)
            assert process.returncode == 1
            line = f"error: no Dask scheduler answers at {address} within 10 s"
            assert said.splitlines()[-1].startswith(line)
    assert time.monotonic() - begun < 25


@pytest.mark.cluster
def test_an_existing_cluster_gives_the_same_bits(tmp_path):
    with dask_cluster(tmp_path) as address:
        there = ("--scheduler", address)
        done = quickly("train", "data.zarr", *QUICK, "--out", "far.zarr", "--json", *there)
        memory = json.loads(done)["memory"]
        assert memory["scheduler"] > 0
        assert len(memory["workers"]) == 1
        scored = quickly("evaluate", "far.zarr", "data.zarr", "--json", *there)
        quickly("predict", "far.zarr", "data.zarr", "--out", "far.npy", *there)
    quickly("train", "data.zarr", *QUICK, "--out", "near.zarr", "--workers", 0)
    quickly("predict", "near.zarr", "data.zarr", "--out", "near.npy")
    far, near = Network.load("far.zarr"), Network.load("near.zarr")
    np.testing.assert_array_equal(far.hidden_weights, near.hidden_weights)
    np.testing.assert_array_equal(np.load("far.npy"), np.load("near.npy"))
    assert json.loads(scored)["r2"] > 0.1


@pytest.mark.cluster
def test_a_worker_is_no_scheduler_and_a_scheduler_needs_workers(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr("altrelu_dist.cli.cluster.CONNECT_SECONDS", 1.0)
    options = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1"}
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0", **options) as cluster:
        (worker,) = cluster.workers.values()
        assert "is a Dask Worker, not a scheduler" in quickly(
            "train", "data.zarr", *QUICK, "--out", "m.zarr", "--scheduler", worker.address, code=1
        )
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", **options) as cluster:
        address = cluster.scheduler_address
        assert "has no workers" in quickly(
            "train", "data.zarr", *QUICK, "--out", "m.zarr", "--scheduler", address, code=1
        )


BLOCKED = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "altrelu_dist":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("sitecustomize.py", BLOCKED, "has no altrelu-dist"),
        ("altrelu_dist/__init__.py", "__version__ = '99.0'", "has altrelu-dist 99.0"),
        ("altrelu_dist/__init__.py", "raise OSError('no BLAS')", "no BLAS"),
    ],
)
def test_a_worker_without_this_package_is_named(tmp_path, module, text, said):
    other = tmp_path / "other" / module
    other.parent.mkdir(parents=True)
    other.write_text(text)
    with dask_cluster(tmp_path, first=[tmp_path / "other"]) as address:
        done = run("train", "data.zarr", *QUICK, "--out", "m.zarr", "--scheduler", address)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: worker tcp://127.0.0.1:")
    assert said in line
    assert f"altrelu-dist {altrelu_dist.__version__}" in line
    assert not Path("m.zarr").exists()


@pytest.mark.slow
def test_the_demo(tmp_path):
    begun = time.monotonic()
    done = passes("demo", "--out", tmp_path / "demo", timeout=300)
    assert time.monotonic() - begun < 300
    for words in ("least squares", "plain alternation", "committee", "altrelu train mine.csv"):
        assert words in done.stdout
    network = Network.load(tmp_path / "demo" / "flights-model.zarr")
    expected = f"R2 {network.info['expected_r2']:.3f} +- {network.info['expected_r2_spread']:.3f}"
    test = float(re.search(re.escape(expected) + r".*; on the test rows: ([\d.]+)", done.stdout)[1])
    assert test > 0.89  # of least squares
    for line in re.findall(r"^  altrelu (.*demo.*)$", done.stdout, re.M):
        passes(*shlex.split(line))
    assert (tmp_path / "demo" / "predicted.csv").exists()
    assert (tmp_path / "demo" / "flights.png").stat().st_size > 50_000
