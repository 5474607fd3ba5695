"""Jobs: runs that live in a cluster, whoever submitted them and whatever dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from clusters import HERE, HOME, Processes, local_cluster, until
from distributed import Client
from typer.testing import CliRunner

from altrelu_dist import AltReLURegressor, Job, Network, convert, exposure, open_dataset, submit
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.cli.app import app
from altrelu_dist.errors import (
    ClusterError,
    DataError,
    ExistsError,
    JobError,
    ModelFileError,
    ParameterError,
)
from altrelu_dist.jobs import folder as folder_module
from altrelu_dist.jobs import jobs
from altrelu_dist.jobs.folder import JobFolder, JobSpec, folder_of
from altrelu_dist.jobs.loop import _Loop, tasks_of
from altrelu_dist.planning.problem import machine_memory
from altrelu_dist.runs.training import TrainOptions
from altrelu_dist.threads import n_threads

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

N, D = 200_000, 6  # more rows than a job holds in one place
LONG = {"method": "alternating", "max_iter": 25, "checkpoint_interval": 0}
FOR_EVER = {"method": "alternating", "max_iter": 10**6, "checkpoint_interval": 3600}
SHORT = {"method": "alternating", "max_iter": 2}
WAIT = 120


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D)).astype(np.float32)
    y = np.abs(X[:, 0]) - X[:, 1] * X[:, 2]
    np.savez(folder / "rows.npz", X=X, y=y)
    convert(folder / "rows.npz", folder / "rows.zarr")
    X[N // 2, 3] = np.inf
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The registry of a user who has submitted nothing."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def undisturbed(rows, tmp_path_factory):
    """What the long job is to end with, in process."""
    out = tmp_path_factory.mktemp("undisturbed") / "model.zarr"
    options = ("--method", "alternating", "--max-iter", "25", "--workers", "0")
    result = CliRunner().invoke(
        app, ["train", f"{rows}/rows.zarr", "--hidden", "8", "--out", str(out), *options]
    )
    assert result.exit_code == 0, result.output
    return bits(out)


def bits(path):
    network = Network.load(path)
    return [getattr(network, name).tobytes() for name in ("hidden_weights", "output_weights")]


def at_work(job, iteration=2):
    def found():
        now = job.status()
        assert not now.ended, now
        return now if now.iteration >= iteration else None

    return until(found, "the job is at work", WAIT)


def test_a_job_ends_as_a_run_does_and_its_client_may_go(rows, cluster, undisturbed, tmp_path):
    out = tmp_path / "model.zarr"
    address = cluster.client.scheduler.address
    with Client(address) as client:
        began = time.monotonic()
        job = submit(rows / "rows.zarr", 8, out, client=client, **LONG)
        assert time.monotonic() - began < 10
        assert job.status().state in ("queued", "running")
    code = f"from altrelu_dist import Job; print(Job({job.id!r}).result({WAIT}).network_.n_hidden)"
    paths = os.pathsep.join([HERE, HOME])
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert other.stdout.strip() == "8", other.stderr
    now = Job(job.id).status()
    assert (now.state, now.attempts, now.error) == ("finished", 1, "")
    assert now.result["stop_reason"] == "max_iter"
    assert "stopped at the most iterations asked for" in job.log()
    assert bits(out) == undisturbed
    assert Network.load(out).info["job"] == job.id


def test_another_worker_takes_it_up(rows, tmp_path, undisturbed):
    # More deaths than Dask allows a task: a loop that came on in between is begun in a new one.
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with Processes(tmp_path, workers=4, settings=settings) as cluster:
        job = submit(rows / "rows.zarr", 8, tmp_path / "model.zarr", client=cluster.client, **LONG)
        kept = CheckpointStore(JobFolder(tmp_path / "model.zarr").checkpoint)

        def has_come_on(attempt):
            now = job.status()
            return now.attempts == attempt and kept.newest > now.resumed_from + 1

        for attempt in (1, 2, 3):
            until(lambda: has_come_on(attempt), "it comes on", WAIT)  # noqa: B023
            pids = cluster.client.run(os.getpid)
            os.kill(pids[job.status().worker], signal.SIGKILL)
            until(lambda: job.status().attempts == attempt + 1, "it is taken up", WAIT)  # noqa: B023
        job.result(WAIT)
        assert job.status().attempts == 4
        assert "taken up by" in job.log()
    assert bits(tmp_path / "model.zarr") == undisturbed


def test_two_loops_are_on_two_workers(rows, cluster, tmp_path):
    """Whatever else the workers do when the second one is submitted."""
    both = []
    for i in range(2):
        out = tmp_path / f"{i}.zarr"
        both.append(submit(rows / "rows.zarr", 8, out, client=cluster.client, **FOR_EVER))
        at_work(both[-1])
    assert len({job.status().worker for job in both}) == 2
    for job in both:
        job.cancel()
        job.result(WAIT)


def test_it_outlives_the_scheduler(rows, tmp_path, undisturbed):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    out = tmp_path / "model.zarr"
    with Processes(tmp_path / "first") as cluster:
        job = submit(rows / "rows.zarr", 8, out, client=cluster.client, **LONG)
        at_work(job, 5)
        cluster.scheduler.kill()
        until(lambda: job.status().state != "running", "it is known to have ended", 90)
        assert job.status().state == "lost"
    assert job.status().iteration >= 5
    with Processes(tmp_path / "second") as cluster:
        again = Job(str(out), cluster.client)
        assert again.id == job.id
        again.resume()
        again.result(WAIT)
    assert bits(out) == undisturbed


def test_one_that_is_cancelled_keeps_the_best_and_leaves_others_be(
    rows, cluster, undisturbed, tmp_path
):
    first = submit(rows / "rows.zarr", 8, tmp_path / "a.zarr", client=cluster.client, **LONG)
    second = submit(
        rows / "rows.zarr", 8, tmp_path / "b.zarr", client=cluster.client, **LONG | {"seed": 1}
    )
    with pytest.raises(ExistsError, match=rf"job {first.id} writes there, and is "):
        submit(rows / "rows.zarr", 8, tmp_path / "a.zarr", client=cluster.client, **SHORT)
    seen = [at_work(job, 2) for job in (first, second)]  # both at once
    assert all(now.state == "running" for now in seen)
    assert {job.id for job in jobs(cluster.client)} >= {first.id, second.id}
    with pytest.raises(JobError, match="cancel it first"):
        first.forget()
    second.cancel()
    model = second.result(WAIT)
    assert second.status().state == "cancelled"
    assert model.stop_reason_ == "interrupted"
    assert 1 < model.n_iter_ < 25
    first.result(WAIT)
    assert bits(tmp_path / "a.zarr") == undisturbed
    second.resume()
    second.result(WAIT)
    assert second.status().state == "finished"


def test_the_best_so_far_of_a_running_job(rows, cluster, tmp_path):
    options = LONG | {"max_iter": 1000}
    job = submit(rows / "rows.zarr", 8, tmp_path / "model.zarr", client=cluster.client, **options)

    def fetched():
        try:
            job.fetch(tmp_path / "best.zarr")
        except JobError:
            return False
        return True

    until(fetched, "there is a network", WAIT)
    assert Network.load(tmp_path / "best.zarr").n_hidden == 8
    job.cancel()
    until(lambda: job.status().ended, "it ends")


def test_an_id_is_of_one_job_for_ever(rows, cluster, tmp_path):
    """Also where another one writes to the same output by now."""
    out, client = tmp_path / "model.zarr", cluster.client
    old = submit(rows / "rows.zarr", 8, out, client=client, **SHORT)
    old.result(WAIT)
    new = submit(rows / "rows.zarr", 8, out, client=client, overwrite=True, **FOR_EVER)
    at_work(new)
    for of in (client, None):
        with pytest.raises(JobError, match=f"{old.id}: is forgotten; .* is {new.id}"):
            Job(old.id, of)
        assert [job.id for job in jobs(of) if job.out == str(out)] == [new.id]
    new.cancel()
    new.result(WAIT)
    shutil.rmtree(out)
    assert not new.fetch(tmp_path / "copy.zarr")  # the best so far is there still
    assert Network.load(tmp_path / "copy.zarr").n_hidden == 8


def test_a_job_that_fails_says_why(rows, cluster, tmp_path):
    job = submit(rows / "X.npy", 8, tmp_path / "model.zarr", client=cluster.client, **SHORT)
    with pytest.raises(JobError, match=r"failed: X contains NaN or infinity.*SimpleImputer"):
        job.result(WAIT)
    assert "NaN" in job.log()
    shown = CliRunner().invoke(app, ["status", job.id]).stdout
    assert re.search("X contains NaN or infinity.*altrelu convert --drop-missing", shown)
    assert "SimpleImputer" not in shown
    assert not (tmp_path / "model.zarr").exists()
    with pytest.raises(JobError, match="no network yet"):
        job.fetch(tmp_path / "copy.zarr")
    job.forget()
    assert not os.path.exists(folder_of(str(tmp_path / "model.zarr")))
    with pytest.raises(JobError, match="no such job"):
        Job(job.id, cluster.client)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n_hidden": 0}, ParameterError, "n_hidden is 0"),
        ({"data": "no.zarr"}, DataError, "no such file"),
        ({"out": "no/such/folder.zarr"}, DataError, "does not exist"),
        ({"data": "https://me:secret@x/rows.zarr"}, ParameterError, r"https://\*\*\*@x.*secret"),
        ({"metod": "search"}, ParameterError, "metod"),
        ({"checkpoint": "here"}, ParameterError, "has its own"),
    ],
)
def test_what_is_wrong_is_said_at_once(change, error, words, rows, cluster, tmp_path):
    given = {"data": rows / "rows.zarr", "n_hidden": 8, "out": tmp_path / "model.zarr"} | change
    with pytest.raises(error, match=words):
        submit(**given, client=cluster.client)
    assert not os.path.exists(folder_of(str(tmp_path / "model.zarr")))


def test_without_a_cluster(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("altrelu_dist.jobs.job.current_client", lambda: None)
    with pytest.raises(ClusterError, match="no Dask client"):
        submit(rows / "rows.zarr", 8, tmp_path / "model.zarr")


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"id": 1, "options": {"x": 1}}'])
def test_a_damaged_folder_is_one_line(text, tmp_path):
    folder = tmp_path / "model.zarr.job"
    folder.mkdir()
    (folder / "job.json").write_text(text)
    with pytest.raises(JobError, match=r"model\.zarr\.job: .*damaged"):
        Job(str(tmp_path / "model.zarr"))


def test_the_best_so_far_follows_a_network_that_grows(rows, tmp_path):
    folder = JobFolder(tmp_path / "model.zarr")
    options = TrainOptions(str(rows / "rows.zarr"), 8, str(tmp_path / "model.zarr"))
    folder.create(JobSpec("1f0c5a7e", options, by="me", submitted=time.time(), version="0"))
    loop = _Loop(folder, None, "tcp://127.0.0.1:9")
    rng = np.random.default_rng(0)
    for n_hidden in (1, 4, 8, 8):
        V = np.ones((n_hidden, 1))
        network = Network(rng.random((3, n_hidden)), np.zeros(n_hidden), V, np.zeros(1))
        so_far = SimpleNamespace(network_so_far=lambda: network)  # noqa: B023
        loop._ready = SimpleNamespace(model=so_far)
        loop._keep_best()
        assert bits(folder.best) == [
            getattr(network, name).tobytes() for name in ("hidden_weights", "output_weights")
        ]


def test_no_sign_of_life_is_a_lost_job(rows, cluster, tmp_path):
    job = submit(rows / "rows.zarr", 8, tmp_path / "model.zarr", client=cluster.client, **SHORT)
    job.result(WAIT)
    folder = JobFolder(tmp_path / "model.zarr")
    file = tmp_path / "model.zarr.job" / job.id / "status.json"
    status = json.loads(file.read_text())
    for state, silent, expected in (
        ("running", 70, "lost"), ("running", 10, "running"), ("finished", 10_000, "finished"),
    ):  # fmt: skip
        told = status | {"state": state, "updated": time.time() - silent}
        file.write_text(json.dumps(told))
        assert folder.status().state == expected


def test_the_loop_has_the_threads_and_the_memory_of_its_worker():
    """And not those of the machine."""
    with local_cluster(1, 3, memory_limit="700MiB") as client:
        assert client.submit(n_threads).result() == 3
        assert client.submit(machine_memory).result() == 700 << 20
    assert machine_memory() > 700 << 20
    assert n_threads() <= os.cpu_count()


# --- the commands -----------------------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])
    assert result.exit_code == code, result.output
    return result


def test_runs_share_a_cluster(rows, tmp_path):
    """Two jobs and a run of somebody's own process get passes, none of them nearly all."""
    seconds, least = 12, 0.15
    data = open_dataset(rows / "rows.zarr")
    own = Passes()
    with Processes(tmp_path, workers=1) as cluster:
        client = cluster.client
        both = [
            submit(rows / "rows.zarr", 8, tmp_path / f"{i}.zarr", client=client, **FOR_EVER)
            for i in range(2)
        ]
        for job in both:
            at_work(job)
        run = AltReLURegressor(8, method="alternating", max_iter=10**6, client=client, callback=own)
        thread = threading.Thread(target=run.fit, args=(data.X, data.y))
        thread.start()
        until(lambda: own.passes > 3, "the third run is at work")
        before = [job.status().passes for job in both] + [own.passes]
        time.sleep(seconds)
        after = [job.status().passes for job in both] + [own.passes]
        own.enough = True
        for job in both:
            job.cancel()
        thread.join(WAIT)
        for job in both:
            job.result(WAIT)
    made = [end - start for start, end in zip(before, after, strict=True)]
    assert min(made) > least * sum(made), made


class Passes:
    """Counts the passes of a run, and ends it."""

    passes, enough = 0, False

    def __call__(self, progress):
        self.passes = progress.passes
        return self.enough


def test_the_commands(rows, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("altrelu_dist.jobs.job.current_client", lambda: None)  # as in a new process
    where = ("--scheduler", cluster.client.scheduler.address)
    out = tmp_path / "model.zarr"
    base = ("submit", rows / "rows.zarr", "--hidden", 8, "--method", "alternating")
    id_ = run(*base, "--max-iter", 3, "--out", out, *where).stdout.strip()
    assert len(id_) == 8
    shown = run("status", id_, "--follow")
    assert "finished" in shown.stdout
    assert f"saved: {out}" in shown.stdout
    assert id_ in run("jobs", *where).stdout
    assert json.loads(run("jobs", "--json").stdout)["jobs"][0]["state"] == "finished"
    assert json.loads(run("status", id_, "--json").stdout)["result"]["hidden"] == 8
    assert "rows, " in run("logs", id_, "--follow").stdout
    assert "has ended before" in run("cancel", id_).stdout
    run("fetch", id_, tmp_path / "copy.zarr")
    assert bits(tmp_path / "copy.zarr") == bits(out)
    assert "exists already" in run("fetch", id_, tmp_path / "copy.zarr", code=1).stderr
    assert "nothing to take up" in run("take-up", id_, *where, code=1).stderr
    # Another user finds it by the scheduler, or by its output.
    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    assert "no such job" in run("status", id_, code=1).stderr
    assert id_ in run("status", id_, *where).stdout
    assert id_ in run("status", out).stdout
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.client.scheduler.address)
    assert "its output, if any, stays" in run("forget", id_, *where).stdout
    assert out.exists()
    with pytest.raises(ModelFileError):
        Network.load(folder_of(str(out)))
    long = run(*base, "--max-iter", 1000, "--out", tmp_path / "long.zarr", *where).stdout.strip()
    at_work(Job(long))
    assert "ends at its next step" in run("cancel", long).stdout
    assert "cancelled" in run("status", long, "--follow").stdout


def test_jobs_are_listed_without_a_scheduler_or_workers(rows, cluster, tmp_path):
    job = submit(rows / "rows.zarr", 8, tmp_path / "m.zarr", client=cluster.client, **SHORT)
    job.result(WAIT)
    listed = CliRunner().invoke(app, ["jobs", "--scheduler", "tcp://127.0.0.1:9"])
    assert listed.exit_code == 0
    assert job.id in listed.stdout
    assert "only the jobs that were seen from this machine: " in listed.stderr
    (tmp_path / "empty").mkdir()
    with Processes(tmp_path / "empty", workers=0) as other:
        address = other.client.scheduler.address
        listed = CliRunner().invoke(app, ["jobs", "--scheduler", address])
        assert (listed.exit_code, listed.stderr) == (0, "")
        assert job.id in listed.stdout


def test_a_scheduler_that_others_reach_is_warned_of_in_one_line(cluster, monkeypatch):
    monkeypatch.setattr(exposure, "_on_loopback", lambda _: False)
    address = cluster.client.scheduler.address
    warned = run("jobs", "--json", "--scheduler", address)
    assert warned.stderr.startswith(f"warning: everybody who reaches the scheduler at {address}")
    assert warned.stderr.count("\n") == 1
    assert "jobs" in json.loads(warned.stdout)


def test_a_frozen_job_is_not_forgotten(rows, tmp_path, monkeypatch):
    """And one that is forgotten all the same, by hand, ends without a trace when it wakes up."""
    monkeypatch.setattr(folder_module, "SILENT", 4.0)
    monkeypatch.setattr("altrelu_dist.jobs.job.current_client", lambda: None)
    with Processes(tmp_path, workers=1) as cluster:
        for by_hand in (False, True):
            out = tmp_path / f"{by_hand}.zarr"
            job = submit(rows / "rows.zarr", 8, out, client=cluster.client, **FOR_EVER)
            at_work(job)
            (worker,) = cluster.workers.values()
            os.kill(worker.pid, signal.SIGSTOP)
            until(lambda: job.status().state == "lost", "it is lost")  # noqa: B023
            for client, words in ((None, "only its scheduler"), (cluster.client, "frozen")):
                with pytest.raises(JobError, match=f"may be alive: .*{words}"):
                    Job(str(out), client).forget()
            if by_hand:
                shutil.rmtree(folder_of(str(out)))
            else:
                job.cancel()
                assert job.status().state == "lost"
            os.kill(worker.pid, signal.SIGCONT)
            until(lambda: not tasks_of(job.id, cluster.client)[1], "its task ends", WAIT)  # noqa: B023
            if not by_hand:
                assert job.status().state == "cancelled"
                job.forget()
            assert out.exists() is not by_hand
            assert not os.path.exists(folder_of(str(out)))


def test_a_job_needs_an_output(rows, cluster):
    with pytest.raises(ParameterError, match="out is missing"):
        submit(rows / "rows.zarr", client=cluster.client)


def test_submit_needs_a_cluster(rows, tmp_path):
    words = run(
        "submit", rows / "rows.zarr", "--hidden", 8, "--out", tmp_path / "m.zarr", code=1
    ).stderr
    assert "name its --scheduler" in words
    assert "missing --out" in run("submit", rows / "rows.zarr", code=2).stderr
