"""What is kept of a job in storage: written, found and removed, and nobody else's files with it."""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from altrelu_dist import Job, Network
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.cli.app import app
from altrelu_dist.errors import DataError, ExistsError, JobError, ParameterError
from altrelu_dist.jobs import job as jobs_module
from altrelu_dist.jobs.folder import JobFolder, JobSpec, JobStatus, check_apart_from_jobs
from altrelu_dist.runs.training import TrainOptions

ID, OTHER = "1f0c5a7e", "2f0c5a7e"


@pytest.fixture(params=["disk", "storage"])
def out(request, tmp_path, monkeypatch):
    """The address of an output."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    address = str(tmp_path) if request.param == "disk" else f"memory://{tmp_path.name}"
    yield f"{address}/model.zarr"
    fsspec.filesystem("memory").store.clear()


def spec(out, id_=ID):
    return JobSpec(id_, TrainOptions("data.zarr", 2, out), "me@here", time.time(), "0")


def job_at(out, *, id_=ID, state="finished", silent=0.0, **status):
    folder = JobFolder(out)
    folder.create(spec(out, id_))
    folder.write_status(JobStatus(state=state, updated=time.time() - silent, **status))
    return folder


def files(out):
    fs, root = fsspec.url_to_fs(f"{out}.job")
    return {path.removeprefix(f"{root}/") for path in fs.find(root)}


def put(address, data=b"mine"):
    fs, path = fsspec.url_to_fs(address)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, data)


def fill(folder):
    """Write all that a job writes."""
    folder.write_log("hello")
    folder.ask_to_stop()
    ones = np.ones((2, 1))
    Network(np.ones((3, 2)), np.zeros(2), ones, np.zeros(1)).save(folder.best)
    store = CheckpointStore(folder.checkpoint)
    with store.owned():
        store.save({"a": 1})
    put(f"{folder.checkpoint}/lock", b"left by a killed process")
    put(f"{folder.address}/{folder.id}/.best.1a2b3c4d.partial.zarr/zarr.json")


def test_all_that_a_job_wrote_is_removed(out):
    folder = job_at(out)
    fill(folder)
    assert len(files(out)) > 10
    folder.remove()
    assert not files(out)
    fs, root = fsspec.url_to_fs(f"{out}.job")
    assert not fs.exists(root)


FOREIGN = [
    "notes.txt", "checkpoint/checkpoint-00000001.bin", "status.json", "best.zarr/zarr.json",
    f"{ID}/notes.txt", f"{ID}/checkpoint/notes.bin", f"{ID}/best.zarr/notes/c/0",
    f"{ID}/best.zarr/hidden_weights/mine.txt", f"{OTHER}/status.json", f"{ID}/more/log.txt",
]  # fmt: skip


def test_what_others_wrote_stays(out):
    """Of a job that is forgotten, and where another one comes in its place."""
    folder = job_at(out)
    fill(folder)
    for name in FOREIGN:
        put(f"{out}.job/{name}")
    folder.remove()
    assert files(out) == set(FOREIGN)
    job_at(out, id_="3f0c5a7e")
    assert files(out) == {*FOREIGN, "job.json", "3f0c5a7e/status.json"}


def test_a_job_meets_nothing_of_before(out):
    old = job_at(out, state="running")
    fill(old)
    fs, root = fsspec.url_to_fs(f"{out}.job")
    fs.rm_file(f"{root}/job.json")  # what says that there is one
    for name in ("checkpoint/checkpoint-00000001.bin", "log.txt", "stop", "best.zarr/zarr.json"):
        put(f"{out}.job/{name}")
    new = JobFolder(out)
    new.create(spec(out, OTHER))
    assert (new.status().state, new.log(), new.asked_to_stop) == ("queued", "", False)
    assert CheckpointStore(new.checkpoint).newest == 0
    assert not fsspec.url_to_fs(new.best)[0].exists(new.best)
    assert new.is_current
    assert not old.is_current
    old.remove()  # by the process of the old one, which wakes up
    assert new.is_current
    assert new.status().state == "queued"


def test_of_two_at_once_one_is_the_job(out, monkeypatch):
    first = job_at(out, state="running")
    monkeypatch.setattr(JobFolder, "_found", lambda _: None)  # both looked before
    with pytest.raises(ExistsError, match="another job has come"):
        JobFolder(out).create(spec(out, OTHER))
    assert first.is_current
    assert files(out) == {"job.json", f"{ID}/status.json"}


def test_a_file_in_the_place_of_the_folder(out):
    put(f"{out}.job")
    with pytest.raises(ExistsError, match=r"model\.zarr\.job: is a file"):
        JobFolder(out).create(spec(out))
    assert fsspec.url_to_fs(out)[0].cat_file(f"{out}.job") == b"mine"


def test_links_are_not_followed(tmp_path):
    out = str(tmp_path / "model.zarr")
    folder = job_at(out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/checkpoint-00000001.bin").write_bytes(b"mine")
    (tmp_path / f"model.zarr.job/{ID}/checkpoint").symlink_to(tmp_path / "mine")
    folder.remove()
    assert (tmp_path / "mine/checkpoint-00000001.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["model.job", "model.job/", "m.zarr.job", ".job"])
def test_no_output_is_named_like_a_folder_of_jobs(name, out):
    with pytest.raises(ParameterError, match=r"ends in \.job.*another name"):
        check_apart_from_jobs(f"{out.rpartition('/')[0]}/{name}", None)


def test_no_output_lies_in_the_folder_of_a_job(out, tmp_path):
    check_apart_from_jobs(f"{out}.job/new.zarr", None)  # somebody's own folder
    folder = job_at(out)
    for place in (f"{out}.job/new.zarr", f"{out}.job/{ID}/a/new.zarr"):
        with pytest.raises(ParameterError, match="the folder of a job"):
            check_apart_from_jobs(place, None)
    with pytest.raises(ParameterError, match="copy the network"):
        check_apart_from_jobs(out, folder.best)
    check_apart_from_jobs(out, f"{out}.jobs/best.zarr")
    check_apart_from_jobs(f"{out.rpartition('/')[0]}/other.zarr", folder.best)
    if "://" not in out:
        (tmp_path / "link").symlink_to(tmp_path / "model.zarr.job")
        with pytest.raises(ParameterError, match="the folder of a job"):
            check_apart_from_jobs(str(tmp_path / "link/new.zarr"), None)
        check_apart_from_jobs(f"{out}.job/../new.zarr", None)


class Scheduler:
    """What a client knows of a scheduler with some tasks."""

    def __init__(self, tasks, id_="Scheduler-1", address="tcp://127.0.0.1:8786"):
        self.tasks = {key: SimpleNamespace(state=state) for key, state in tasks.items()}
        self.id = id_
        self.scheduler = SimpleNamespace(address=address)
        self.cancelled = []

    def run_on_scheduler(self, function):
        return function(dask_scheduler=self)

    def cancel(self, keys, *, force):
        assert force
        self.cancelled += keys

    def get_metadata(self, _, default):
        return default

    def set_metadata(self, *_):
        pass


KEY = f"altrelu-job-{ID}-0"
GIVEN = {"scheduler": "tcp://127.0.0.1:8786", "scheduler_id": "Scheduler-1"}


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (None, r"only its scheduler knows.*connect to that one.*model\.zarr\.job"),
        (Scheduler({KEY: "processing"}), "still has its task.*frozen.*end that worker"),
        (Scheduler({KEY: "no-worker"}), "still has its task"),
        (Scheduler({f"altrelu-job-{ID}-7": "processing"}), "still has its task"),
        (Scheduler({}, "Scheduler-2", "tcp://other:8786"), "was given to .*127.0.0.1:8786"),
    ],
)
def test_a_lost_job_that_may_live_is_not_forgotten(client, words, out, monkeypatch):
    monkeypatch.setattr(jobs_module, "current_client", lambda: None)
    fill(job_at(out, state="running", silent=100, **GIVEN))
    before = files(out)
    job = Job(out, client)
    assert job.status().state == "lost"
    with pytest.raises(JobError, match=f"may be alive: .*{words}"):
        job.forget()
    job.cancel()
    assert job.status().state == "lost"
    assert files(out) == before


@pytest.mark.parametrize(
    "client",
    [
        Scheduler({f"altrelu-job-{OTHER}-0": "processing"}),
        Scheduler({KEY: "erred"}),
        Scheduler({}, "Scheduler-2"),  # begun again at the same address
        Scheduler({}, address="tcp://tunnel:8786"),
    ],
)
def test_a_lost_job_that_its_scheduler_does_not_have_is_forgotten(client, out):
    fill(job_at(out, state="running", silent=100, **GIVEN))
    job = Job(out, client)
    job.cancel()
    assert job.status().state == "cancelled"
    job.forget()
    assert not files(out)


def test_a_lost_job_that_has_not_begun_is_cancelled_at_its_scheduler(out):
    job_at(out, state="queued", silent=100, **GIVEN)
    client = Scheduler({KEY: "queued", f"altrelu-job-{OTHER}-0": "queued"})
    Job(out, client).cancel()
    assert client.cancelled == [KEY]


DAMAGE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2), st.just({}), st.just("../../x"), st.just(10**400),
)  # fmt: skip


@pytest.mark.parametrize("file", ["job.json", f"{ID}/status.json"])
@given(st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_one_line_or_nothing(file, tmp_path, monkeypatch, data):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = tmp_path / "model.zarr"
    if not out.with_name("model.zarr.job").exists():
        job_at(str(out))
    path = tmp_path / "model.zarr.job" / file
    whole = path.read_text()
    told = json.loads(whole)
    place = data.draw(st.sampled_from([told, told["options"]] if "options" in told else [told]))
    place[data.draw(st.sampled_from([*place, "unknown"]))] = data.draw(DAMAGE)
    path.write_text(json.dumps(told))
    try:
        for command in (["status", str(out)], ["jobs"]):
            result = CliRunner().invoke(app, command)
            assert "Traceback" not in result.output
            assert "error: unexpected" not in result.output
            assert result.exit_code in (0, 1)
            assert result.stderr.count("\n") <= 1
    finally:
        path.write_text(whole)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["job.json", f"{ID}/status.json"])
def test_a_fifo_in_a_job_folder_is_refused_and_not_waited_for(name, tmp_path):
    folder = job_at(str(tmp_path / "model.zarr"))
    path = tmp_path / "model.zarr.job" / name
    assert path.exists()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        folder.spec() if name == "job.json" else folder.status()
