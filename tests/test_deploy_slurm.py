"""The files of deploy/slurm on a real SLURM: limits, kills and jobs that go, to the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clusters import until
from processes import HOME, environment, passes
from slurm import NODES, Slurm

import altrelu_dist
from altrelu_dist.network import Network

# Queues and jobs have limits of time: alone.
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.alone]

DEPLOY = Path(HOME) / "deploy" / "slurm"
SEARCH = ("--hidden", 4, "--seed", 3)
# The trainer dawdles at each report until a file is there: so that there is time to end it.
PACED = """\
import sys, time
from pathlib import Path
if {{"train", {jobqueue!r}}} & set(sys.orig_argv):
    from altrelu_dist.estimators import AltReLURegressor
    fit = AltReLURegressor.fit
    def paced(self, *arguments, **named):
        follower = self.callback
        def callback(progress):
            if not Path({go!r}).exists():
                time.sleep({seconds})
            return follower is not None and follower(progress)
        return fit(self.set_params(callback=callback), *arguments, **named)
    AltReLURegressor.fit = paced
"""


@pytest.fixture(scope="module")
def slurm():
    with Slurm() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store, and the network that an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("slurm")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5_000, 4))
    y = np.maximum(X[:, 0], 0) * 3 + np.sin(3 * X[:, 1]) + rng.normal(size=5_000)
    np.savez(folder / "data.npz", X=X, y=y)
    altrelu_dist.convert(folder / "data.npz", folder / "data.zarr", chunk_bytes=1 << 14)
    out = folder / "expected.zarr"
    passes("train", folder / "data.zarr", *SEARCH, "--workers", 0, "--out", out)
    return folder / "data.zarr", Network.load(out)


@pytest.fixture
def paced(tmp_path):
    """The environment of jobs whose trainer is slow, and the file that ends it."""
    return slowed(tmp_path, 0.2)


def slowed(tmp_path, seconds):
    go, first = tmp_path / "go", tmp_path / "paced"
    first.mkdir()
    (first / "sitecustomize.py").write_text(
        PACED.format(jobqueue=str(DEPLOY / "jobqueue.py"), go=str(go), seconds=seconds)
    )
    mine = environment(first)
    # `python3` is found as it is where an environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        name: mine[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    } | {"ALTRELU_INTERFACE": "lo", "PATH": path}, go


def submit(slurm, store, out, settings, *options):
    """Submit the batch script; the job's number and the file of what it says."""
    said = out.with_suffix(".log")
    number = slurm.run(
        *("sbatch", "--parsable", "--cpus-per-task=1", "--mem=1500M", f"--output={said}"),
        *(*options, DEPLOY / "train.sbatch", store, out, *SEARCH),
        env=settings,
    )
    return number, said


def wait_for_word(slurm, said, word, seconds=180):
    """Wait until a job has said it."""
    try:
        until(lambda: said.exists() and word in said.read_text(), word, seconds)
    except AssertionError:
        print(said.read_text() if said.exists() else "it said nothing", slurm.tell())
        raise


def ended(slurm, number, said):
    """Wait until a job has come to its end; what SLURM knows of it, and what it said."""
    over = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"}
    until(lambda: slurm.job(number)["JobState"] in over, "the job's end", 240)
    text = said.read_text()
    assert slurm.job(number)["JobState"] == "COMPLETED", text + slurm.tell()
    return slurm.job(number), text


def assert_same(network, expected):
    for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        np.testing.assert_array_equal(getattr(network, name), getattr(expected, name))


def test_at_its_time_limit_a_job_is_requeued_and_ends_with_the_same_bits(
    slurm, trained, paced, tmp_path
):
    (store, expected), (settings, go) = trained, paced
    out = tmp_path / "model.zarr"
    # SLURM signals up to a minute early: 30 to 90 seconds after the start, when there is a network
    # on slow machines too.
    number, said = submit(slurm, store, out, settings, "--time=2", "--signal=B:USR1@30")
    wait_for_word(slurm, said, "back into the queue")
    first = said.read_text()
    assert f"workers on {' '.join(NODES)}" in first
    assert "scheduler at tls://127.0.0.1:" in first
    assert "stopping at the end of this step" in first
    assert "interrupted: the best network so far is in" in first
    assert "goes on from" not in first
    assert Network.load(out).n_hidden <= 4
    with pytest.raises(AssertionError):  # it was stopped on its way
        assert_same(Network.load(out), expected)
    go.touch()
    job, text = ended(slurm, number, said)
    assert int(job["Restarts"]) == text.count("back into the queue") >= 1
    assert "goes on from" in text
    assert "was killed" not in text
    assert_same(Network.load(out), expected)
    assert {path.name for path in (tmp_path / "model-run").iterdir()} == {
        "checkpoint",
        "scheduler.log",
        "workers.log",
    }  # fmt: skip: no key is left


@pytest.mark.by_hand
def test_a_step_too_long_for_the_limit_is_cut_off_and_made_again(slurm, trained, tmp_path):
    store, expected = trained
    settings, go = slowed(tmp_path, 300)
    out = tmp_path / "model.zarr"
    settings |= {"ALTRELU_GRACE": "3"}
    number, said = submit(slurm, store, out, settings, "--time=2", "--signal=B:USR1@100")
    wait_for_word(slurm, said, "back into the queue")
    assert "stopping at the end of this step" in said.read_text()
    assert not out.exists()
    go.touch()
    job, text = ended(slurm, number, said)
    assert int(job["Restarts"]) >= 1
    assert "the run before was killed" in text
    assert "goes on from" in text
    assert_same(Network.load(out), expected)


@pytest.mark.by_hand
def test_a_job_that_was_killed_and_requeued_goes_on_to_the_same_bits(
    slurm, trained, paced, tmp_path
):
    """As at a preemption, or when a node fails: without a word before."""
    (store, expected), (settings, go) = trained, paced
    out = tmp_path / "model.zarr"
    number, said = submit(slurm, store, out, settings, "--time=30")
    wait_for_word(slurm, said, " grow ")
    slurm.run("scontrol", "requeue", number)
    until(lambda: slurm.job(number)["JobState"] == "PENDING", "the end of all its processes", 60)
    # Here one sees that the lock's owner is dead; on another node only that it gives no sign.
    lock = tmp_path / "model-run" / "checkpoint" / "lock"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"host": "elsewhere"}))
    go.touch()
    job, text = ended(slurm, number, said)
    assert job["Restarts"] == "1"
    assert "back into the queue" not in text
    assert "the run before was killed" in text
    assert "goes on from" in text
    assert_same(Network.load(out), expected)


@pytest.mark.by_hand
def test_other_options_for_the_same_run_are_refused(slurm, trained, paced, tmp_path):
    (store, expected), (settings, go) = trained, paced
    go.touch()
    out = tmp_path / "model.zarr"
    number, said = submit(slurm, store, out, settings, "--time=30")
    ended(slurm, number, said)
    assert_same(Network.load(out), expected)
    again, said = submit(slurm, store, out, settings, "--time=30")
    ended(slurm, again, said)  # with the same ones it only comes to its end once more
    assert_same(Network.load(out), expected)
    other = slurm.run(
        *("sbatch", "--parsable", "--cpus-per-task=1", "--mem=1500M", f"--output={said}"),
        *(DEPLOY / "train.sbatch", store, out, "--hidden", 5),
        env=settings,
    )
    until(lambda: slurm.job(other)["JobState"] == "FAILED", "a refusal", 120)
    assert "n_hidden was 4 and is 5" in said.read_text()
    assert_same(Network.load(out), expected)


@contextlib.contextmanager
def jobqueue(slurm, store, out, settings, log, *options):
    """Run jobqueue.py; what fails is printed, and nothing is left."""
    command = [
        *(sys.executable, DEPLOY / "jobqueue.py", store, "--out", out, *SEARCH),
        *("--cores", 1, "--memory", "1200MiB", "--minutes", 30, "--interface", "lo"),
        *("--patience", 120, *options),
    ]
    with log.open("w") as file:
        process = subprocess.Popen(
            list(map(str, command)), stdout=file, stderr=file, cwd=out.parent,
            env=os.environ | slurm.environment | settings,
        )  # fmt: skip
    try:
        yield process
    except AssertionError:
        print(log.read_text(), slurm.tell())
        raise
    finally:
        process.kill()
        process.wait(30)


def test_workers_that_are_jobs_come_again_and_the_bits_are_the_same(
    slurm, trained, paced, tmp_path
):
    (store, expected), (settings, go) = trained, paced
    out = tmp_path / "model.zarr"
    log, run = tmp_path / "jobqueue.log", tmp_path / "model-run"

    def running():
        """Numbers of the worker jobs that run."""
        line = ("squeue", "-h", "-t", "RUNNING", "-n", "altrelu-worker", "-o", "%i")
        return set(slurm.run(*line).split())

    def working():
        """Whether all workers have come, and a checkpoint was written."""
        logs = [file.read_text() for file in (run / "workers").glob("*.err")]
        came = sum("Registered to:" in log for log in logs)
        return came == 3 and any((run / "checkpoint").glob("checkpoint-*"))

    with jobqueue(slurm, store, out, settings, log) as process:
        until(working, "three workers, and work", 120)
        until(lambda: "grow" in log.read_text(), "a network", 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
    until(lambda: not slurm.run("squeue", "-h"), "no job that is left", 120)
    with pytest.raises(AssertionError):  # it was stopped on its way
        assert_same(Network.load(out), expected)
    shutil.rmtree(run / "workers")
    with jobqueue(slurm, store, out, settings, log, "--hidden", 5) as process:
        assert process.wait(120) == 1
        told = log.read_text()
        assert "n_hidden was 4 and is 5" in told
        assert "Traceback" not in told
    shutil.rmtree(run / "workers")
    with jobqueue(slurm, store, out, settings, log) as process:
        until(working, "three workers, and work", 120)
        before = running()
        assert len(before) == 3
        gone = min(before, key=int)
        slurm.run("scancel", gone)
        until(lambda: len(running() - {gone}) == 3, "another worker", 120)
        assert len(running() - before) == 1
        go.touch()
        assert process.wait(120) == 0, log.read_text()
    assert "scheduler at tls://127.0.0.1:" in log.read_text()
    assert "saved: " in log.read_text()
    assert_same(Network.load(out), expected)
    until(lambda: not slurm.run("squeue", "-h"), "no job that is left", 120)


def test_what_jobqueue_refuses_is_one_line_and_makes_nothing(trained, tmp_path):
    store, _ = trained
    (tmp_path / "there.zarr").mkdir()
    (tmp_path / "empty").touch()
    for options, code, told in (
        ((store, "--out", tmp_path / "there.zarr"), 1, "there.zarr exists"),
        ((tmp_path / "none.zarr", "--out", tmp_path / "m.zarr"), 1, "no such file or folder"),
        ((store, "--out", tmp_path / "empty" / "m.zarr"), 1, "Not a directory"),
        ((store, "--out", tmp_path / "m.zarr", "--interface", "nix"), 2, "'nix' is not a valid"),
    ):
        done = subprocess.run(
            [sys.executable, DEPLOY / "jobqueue.py", *options], capture_output=True, text=True,
            env=environment(), timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert told in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"there.zarr", "empty"}
