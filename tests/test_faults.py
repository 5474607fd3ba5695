"""What goes wrong on a cluster while a run goes on: it ends with the same bits, or says why not."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from clusters import Processes, Trap, until
from conftest import FEW_ROWS
from distributed import WorkerPlugin
from oracles import same

import altrelu_dist
from altrelu_dist import AltReLURegressor, inputs, open_dataset
from altrelu_dist.errors import ClusterError

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_samples")]

ROWS = 60_000
GIVEN_UP = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "4s"}  # without a sign of life
OPTIONS = {"n_hidden": 4, "random_state": 0, "method": "alternating", "max_iter": 6}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The address of a store of 15 chunks."""
    folder = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 4)).astype("float32")
    np.savez(folder / "data.npz", X=X, y=(np.abs(X[:, 0]) - X[:, 1] * X[:, 2]).astype("float32"))
    altrelu_dist.convert(folder / "data.npz", folder / "data.zarr", chunk_bytes=1 << 16)
    assert open_dataset(folder / "data.zarr").X.numblocks[0] == -(-ROWS // 4096)
    return folder / "data.zarr"


def fitted(store, **options):
    data = open_dataset(store)
    return AltReLURegressor(**OPTIONS | options).fit(data.X, data.y)


@pytest.fixture(scope="module")
def undisturbed(store):
    """The run without a fault, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        from altrelu_dist.training import schedule

        patch.setattr(schedule, "ROWS", FEW_ROWS)
        return fitted(store)


@pytest.fixture(params=["streamed", "cached"])
def kept(request, monkeypatch):
    """Whether the cluster keeps the rows or reads them each pass."""
    monkeypatch.setattr(inputs, "_CACHED_SHARE", {"streamed": 0.0, "cached": 1.0}[request.param])
    return request.param


@pytest.fixture
def streamed(monkeypatch):
    """Have the rows read again each pass."""
    monkeypatch.setattr(inputs, "_CACHED_SHARE", 0.0)


@pytest.fixture
def processes(tmp_path):
    """Begin clusters."""
    with contextlib.ExitStack() as stack:

        def begin(workers, settings=None, **options):
            return stack.enter_context(Processes(tmp_path, workers, settings, **options))

        yield begin


@pytest.fixture(scope="module")
def lasting(tmp_path_factory, undisturbed):
    """A cluster of several tests."""
    del undisturbed  # made without one
    with Processes(tmp_path_factory.mktemp("lasting"), 3, memory="1GiB") as cluster:
        yield cluster


@pytest.fixture
def three_workers(lasting):
    """The same cluster, with another worker in the place of the one that was killed."""
    for _ in range(3 - sum(worker.poll() is None for worker in lasting.workers.values())):
        lasting.add()
    lasting.client.wait_for_workers(3, timeout=60)
    return lasting


@contextlib.contextmanager
def trapped(cluster, trap):
    """A cluster in which a trap is set."""
    cluster.client.register_plugin(trap)
    yield
    cluster.client.unregister_worker_plugin(trap.name)


def assert_same_run(model, expected):
    for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert same(getattr(model.network_, name), getattr(expected.network_, name))
    losses = [[entry["loss"] for entry in one.history_] for one in (model, expected)]
    assert same(*map(np.array, losses))


# Reading and using a block are one task where rows are streamed; "read" is where they are kept.
PHASES = {
    "summary": ("summary", "executing"),
    "gram": ("pattern-gram", "executing"),
    "loss": ("loss", "executing"),
    "merge": ("-merge-", "executing"),
    "merged": ("-merge-", "memory"),
    "weights": ("-weights-", "memory"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_in_a_phase(phase, kept, store, undisturbed, three_workers, tmp_path):
    del kept
    word, state = PHASES[phase]
    trap = Trap(tmp_path, word, signal.SIGKILL, state)
    with trapped(three_workers, trap):
        model = fitted(store, client=three_workers.client)
    assert trap.sprung
    assert not psutil.pid_exists(trap.sprung) or psutil.Process(trap.sprung).status() == "zombie"
    assert_same_run(model, undisturbed)


@pytest.mark.usefixtures("streamed")
def test_a_worker_killed_as_it_reads_what_is_to_be_kept(
    store, undisturbed, three_workers, tmp_path, monkeypatch
):
    monkeypatch.setattr(inputs, "_CACHED_SHARE", 1.0)
    trap = Trap(tmp_path, "read-", signal.SIGKILL)
    with trapped(three_workers, trap):
        model = fitted(store, client=three_workers.client)
    assert trap.sprung
    assert_same_run(model, undisturbed)


def test_all_workers_killed_in_turn(kept, store, undisturbed, processes):
    del kept
    cluster = processes(2, memory="1GiB")
    first = list(cluster.workers.values())
    left = iter(first)

    def replace_one(progress):
        if progress.stage == "alternating" and (worker := next(left, None)):
            cluster.add()
            worker.kill()

    model = fitted(store, client=cluster.client, callback=replace_one)
    assert [worker.wait(10) for worker in first] == [-signal.SIGKILL] * 2
    assert_same_run(model, undisturbed)


@pytest.mark.usefixtures("streamed")
def test_all_workers_killed_at_once(store, undisturbed, processes, caplog, monkeypatch):
    """The run says that it waits, and goes on when there is one again."""
    monkeypatch.setattr("altrelu_dist.engine._LOOK", 1.0)
    cluster = processes(2)
    first = list(cluster.workers.values())

    def kill_all(progress):
        if progress.stage == "alternating" and first[0].poll() is None:
            for worker in first:
                worker.kill()
                worker.wait(10)
            threading.Thread(target=add_when_told).start()

    def add_when_told():
        until(lambda: "no worker is left" in caplog.text, "it says that it waits", 30)
        cluster.add()

    model = fitted(store, client=cluster.client, callback=kill_all)
    assert caplog.text.count("no worker is left") == 1
    assert_same_run(model, undisturbed)


@pytest.mark.parametrize(
    ("kept", "state"),
    [
        ("streamed", "executing"),
        ("cached", "memory"),
        pytest.param("streamed", "memory", marks=pytest.mark.by_hand),
        pytest.param("cached", "executing", marks=pytest.mark.by_hand),
    ],
    indirect=["kept"],
)
def test_a_worker_that_hangs_is_given_up(state, kept, store, undisturbed, processes):
    """In the middle of a task, or holding what others need."""
    del kept
    cluster = processes(3, GIVEN_UP, memory="1GiB")
    trap = Trap(cluster.folder, "pattern-gram", signal.SIGSTOP, state)
    cluster.client.register_plugin(trap)
    begun = time.monotonic()
    model = fitted(store, client=cluster.client)
    assert psutil.Process(trap.sprung).status() == "stopped"
    assert time.monotonic() - begun < 60
    assert_same_run(model, undisturbed)


class Slowed:
    """Lets a process run for a tenth of the time."""

    def __init__(self, pid):
        self._pid, self._ended = pid, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self):
        while not self._ended.is_set():
            os.kill(self._pid, signal.SIGSTOP)
            time.sleep(0.09)
            os.kill(self._pid, signal.SIGCONT)
            time.sleep(0.01)


@pytest.mark.usefixtures("streamed")
def test_a_worker_ten_times_slower(store, undisturbed, processes):
    cluster = processes(2)
    with Slowed(cluster.workers["worker-0"].pid):
        model = fitted(store, client=cluster.client)
    counts = tasks_done(cluster)
    assert counts["worker-0"] < counts["worker-1"]
    assert_same_run(model, undisturbed)


def tasks_done(cluster):
    """How many tasks each worker has done, by name."""

    def done(dask_worker):
        return dask_worker.name, dask_worker.state.executed_count

    return dict(cluster.client.run(done).values())


@pytest.mark.usefixtures("streamed")
def test_a_worker_that_joins_is_used_at_once_and_one_that_leaves_is_not_missed(
    store, undisturbed, processes
):
    cluster = processes(1)
    seen = []

    def change(progress):
        if progress.stage != "alternating":
            return
        if not seen:
            cluster.add()
            cluster.client.wait_for_workers(2, timeout=60)
            seen.append("joined")
        elif len(seen) == 1:
            seen.append(tasks_done(cluster)["worker-1"])
            cluster.client.retire_workers(names=["worker-0"])

    model = fitted(store, client=cluster.client, callback=change)
    assert seen[1] > 0  # in the very next pass
    assert list(tasks_done(cluster)) == ["worker-1"]
    assert_same_run(model, undisturbed)


class Hog(WorkerPlugin):
    """Fills the memory of the worker that comes first to a task, while the trap is set."""

    def __init__(self, trap):
        self.trap = trap

    def transition(self, key, start, finish, **_):
        del start
        if finish != "executing" or self.trap.word not in str(key):
            return
        with contextlib.suppress(FileNotFoundError):
            self.trap.file.rename(self.trap.file.with_suffix(".sprung"))
            self.trap.file.with_suffix(".sprung").write_text(str(os.getpid()))
            threading.Thread(target=_fill, daemon=True).start()


def _fill():
    held = []
    while True:
        held.append(np.ones(1 << 20))  # 8 MiB
        time.sleep(0.01)


@pytest.mark.parametrize(
    "kept", [pytest.param("streamed", marks=pytest.mark.by_hand), "cached"], indirect=True
)
def test_a_worker_that_runs_out_of_memory(kept, store, undisturbed, processes):
    """Its nanny ends it at its limit, and starts another."""
    del kept
    cluster = processes(2, nanny=True, memory="600MiB")
    trap = Trap(cluster.folder, "pattern-", 0)
    cluster.client.register_plugin(Hog(trap))
    model = None

    def wait_for_its_end(progress):
        if progress.stage == "alternating" and trap.sprung:
            until(lambda: not psutil.pid_exists(trap.sprung), "the end of a worker")

    model = fitted(store, client=cluster.client, callback=wait_for_its_end)
    assert trap.sprung
    cluster.client.wait_for_workers(2, timeout=60)
    assert_same_run(model, undisturbed)


@pytest.fixture
def impatient(tmp_path):
    """A cluster whose scheduler gives up on a task with the first worker that dies at it."""
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with Processes(tmp_path, 3, settings) as cluster:
        yield cluster


@pytest.mark.parametrize("phase", ["summary", "gram", "loss", "merge"])
@pytest.mark.usefixtures("streamed")
def test_a_pass_that_the_scheduler_gave_up_is_made_again(
    phase, store, undisturbed, impatient, caplog
):
    trap = Trap(impatient.folder, *PHASES[phase][:1], signal.SIGKILL)
    impatient.client.register_plugin(trap)
    model = fitted(store, client=impatient.client)
    assert trap.sprung
    assert [r.message for r in caplog.records if "made again" in r.message]
    assert_same_run(model, undisturbed)


class Deadly(WorkerPlugin):
    """Kills every worker that comes to a task."""

    name = "deadly"

    def __init__(self, word):
        self.word = word

    def transition(self, key, start, finish, **_):
        del start
        if finish == "executing" and self.word in str(key):
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("streamed")
def test_a_pass_that_kills_its_workers_every_time_is_one_error(
    store, undisturbed, impatient, tmp_path
):
    """Nothing is lost by it, and nothing of it is left on the scheduler."""
    client, kept = impatient.client, {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    client.register_plugin(Deadly("loss"))
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="workers died again and again"):
        fitted(store, client=client, **kept)
    assert time.monotonic() - begun < 60

    def tasks(dask_scheduler):
        return len(dask_scheduler.tasks)

    until(lambda: client.run_on_scheduler(tasks) == 0, "the scheduler forgets its tasks", 20)
    died = [process for process in impatient.workers.values() if process.poll() is not None]
    assert len(died) >= 2
    for _ in died:
        impatient.add()
    client.unregister_worker_plugin("deadly")
    model = fitted(store, client=client, resume=True, **kept)
    assert_same_run(model, undisturbed)
