"""A scheduler and three workers on four hosts: the same bits, whatever becomes of the network.

The hosts are network namespaces, which root makes with iproute2. They share a folder with the data,
and the one that trains runs beside the scheduler.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time

import numpy as np
import pytest
from clusters import until
from distributed import Client, WorkerPlugin
from hosts import ClusterOnHosts, Conversation, Network
from test_same_bits import digest, few_rows_held

import altrelu_dist
from altrelu_dist import AltReLURegressor, inputs, open_dataset
from altrelu_dist.planning.calls import Shape
from altrelu_dist.planning.memory import contribution_bytes

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

WORKERS = 3
OPTIONS = {"n_hidden": 4, "random_state": 0, "method": "alternating", "max_iter": 6}
CASES = {
    "search": {"method": "search", "max_iter": 1},
    "damped": {"method": "damped", "max_iter": 6},
    "alternating": {},
}


# --- what runs on the first host --------------------------------------------------------------


def train(file, store, kept, options, held):
    """Train, saying how far it is, and how it ended; a worker may be held in a task meanwhile."""
    data = open_dataset(store)
    inputs._CACHED_SHARE = {"streamed": 0.0, "cached": 1.0}[kept]
    with few_rows_held(), Client(scheduler_file=file, timeout=60) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        if held is not None:
            client.register_plugin(HeldInATask(*held))
        say({"stage": "connected"})
        model = AltReLURegressor(**options, client=client, callback=tell)
        begun = time.monotonic()
        model.fit(data.X, data.y)
        say(
            {
                "stage": "done",
                "digest": digest(model),
                "passes": model.n_passes_,
                "seconds": time.monotonic() - begun,
                "tasks": dict(client.run(tasks_done, on_error="ignore").values()),
            }
        )


def tell(progress):
    say({"stage": progress.stage, "iteration": progress.iteration})


def say(what):
    """Say it, and wait until it was heard."""
    print(json.dumps(what), flush=True)
    sys.stdin.readline()


def tasks_done(dask_worker):
    return dask_worker.name, dask_worker.state.executed_count


class HeldInATask(WorkerPlugin):
    """Keeps a worker in the middle of a task until the cable is cut.

    Parameters
    ----------
    folder : str
        The file `armed` in it lets the next task be held, `held` says that it is, `cut` lets go.
    worker : str
    word : str
        In the key of the task.
    """

    name = "held-in-a-task"

    def __init__(self, folder, worker, word):
        self.folder, self.worker, self.word = folder, worker, word

    def setup(self, worker):
        self.here = worker.name == self.worker

    def transition(self, key, start, finish, **_):
        del start
        if not self.here or finish != "executing" or self.word not in str(key):
            return
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{self.folder}/armed", f"{self.folder}/held")
            ends = time.monotonic() + 30
            while not os.path.exists(f"{self.folder}/cut") and time.monotonic() < ends:
                time.sleep(0.01)


# --- the tests --------------------------------------------------------------------------------


def make_store(folder, rows, features, chunk_bytes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, features)).astype("float32")
    y = (np.abs(X[:, 0]) - X[:, 1] * X[:, 2]).astype("float32")
    np.savez(folder / "data.npz", X=X, y=y)
    altrelu_dist.convert(folder / "data.npz", folder / "data.zarr", chunk_bytes=chunk_bytes)
    return folder / "data.zarr"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """60,000 rows in 15 chunks."""
    return make_store(tmp_path_factory.mktemp("hosts"), 60_000, 4, 1 << 16)


def in_process(store, **options):
    """The digest of the run on rows in the memory of this process."""
    data = open_dataset(store)
    with few_rows_held():
        return digest(AltReLURegressor(**options).fit(data.X.compute(), data.y.compute()))


@pytest.fixture(scope="module")
def undisturbed(store):
    return in_process(store, **OPTIONS)


@pytest.fixture
def network():
    with Network(1 + WORKERS) as network:
        yield network


@pytest.fixture
def cluster(network, tmp_path):
    with ClusterOnHosts(network.hosts, tmp_path) as cluster:
        yield cluster


def training(cluster, store, kept="streamed", held=None, limit=240, **options):
    """A run on the first host, which says how far it is."""
    arguments = [str(cluster.file), str(store), kept, OPTIONS | options, held]
    script = cluster.folder / "train.py"
    script.write_text(f"import test_several_hosts as tests; tests.train(*{arguments!r})")
    return Conversation(cluster.hosts[0], script, limit)


def trained(*arguments, **options):
    """How such a run ended."""
    with training(*arguments, **options) as run:
        *_, done = run
    return done


@pytest.mark.parametrize("kept", ["streamed", pytest.param("cached", marks=pytest.mark.by_hand)])
def test_four_hosts_give_the_same_bits_as_one_process(kept, cluster, store):
    for options in CASES.values():
        before = [host.bytes for host in cluster.hosts]
        done = trained(cluster, store, kept, **options)
        assert done["digest"] == in_process(store, **OPTIONS | options)
        after = [host.bytes for host in cluster.hosts]
        assert len(done["tasks"]) == WORKERS
        assert min(done["tasks"].values()) > 0
        assert all(np.subtract(after, before).min(axis=1) > 10_000)  # it was there that they met


def cut_in_the_middle(cluster, store, kept, end, back=None):
    """Cut one worker's cable while the worker is in the middle of a task, for some seconds."""
    host, folder = cluster.hosts[2], cluster.folder
    held = (str(folder), "worker-2", "pattern-")
    cut_at, mending = None, contextlib.ExitStack()

    def cut():
        nonlocal cut_at
        until((folder / "held").exists, "a task on the worker")
        host.cut(end)
        cut_at = time.monotonic()
        (folder / "cut").touch()
        if back is not None:
            timer = threading.Timer(back, host.mend, [end])
            mending.callback(timer.join)
            timer.start()

    with mending, training(cluster, store, kept, held) as run:
        for said in run:
            if said["stage"] == "alternating" and said["iteration"] == 3:
                (folder / "armed").touch()
                cutting = threading.Thread(target=cut)
                mending.callback(cutting.join)
                cutting.start()
    assert cut_at is not None
    print(f"{kept}, {end}, {back}: done {time.monotonic() - cut_at:.0f} s after the cut; {said}")
    return said, time.monotonic() - cut_at


@pytest.mark.parametrize("end", ["switch", pytest.param("host", marks=pytest.mark.by_hand)])
@pytest.mark.parametrize("kept", ["streamed", pytest.param("cached", marks=pytest.mark.by_hand)])
def test_a_host_that_is_cut_off_for_twenty_seconds_is_waited_for(
    kept, end, cluster, store, undisturbed
):
    done, seconds = cut_in_the_middle(cluster, store, kept, end, back=20)
    assert done["digest"] == undisturbed
    assert 20 < seconds < 90
    assert len(done["tasks"]) == WORKERS


@pytest.mark.parametrize("end", ["switch", pytest.param("host", marks=pytest.mark.by_hand)])
@pytest.mark.parametrize("kept", ["streamed", pytest.param("cached", marks=pytest.mark.by_hand)])
def test_a_host_that_is_cut_off_for_good_is_done_without(kept, end, cluster, store, undisturbed):
    done, seconds = cut_in_the_middle(cluster, store, kept, end)
    assert done["digest"] == undisturbed
    assert seconds < 150
    assert set(done["tasks"]) == {"worker-1", "worker-3"}


# --- what crosses the network -----------------------------------------------------------------

SLOW_LINK = "20mbit"  # bits a second
FEATURES, BLOCKS, BLOCK_ROWS = 20, 24, 8192
FAN_IN = 8  # partial sums that meet in one task
A_TASK = 4_000  # bytes to the scheduler and from it for a task, at most
A_SECOND = 10_000  # bytes of heartbeats a second and link, at most

# The rows of a block, in so many times 8192, and the options.
RUNS = {
    "once": (1, {"n_hidden": 8, "max_iter": 4}),
    "twice the rows": (2, {"n_hidden": 8, "max_iter": 4}),
    "more passes": (1, {"n_hidden": 8, "max_iter": 10}),
    "twice the neurons": (1, {"n_hidden": 16, "max_iter": 4}),
}


@pytest.fixture(scope="module")
def wide_stores(tmp_path_factory):
    """16 MiB of rows in 24 chunks, and twice as many rows in as many chunks."""
    made = {}
    for times in (1, 2):
        folder = tmp_path_factory.mktemp(f"wide-{times}")
        rows = times * BLOCK_ROWS
        made[times] = make_store(folder, BLOCKS * rows, FEATURES, times * 720_000)
        assert open_dataset(made[times]).X.chunks[0] == (rows,) * BLOCKS
    return made


def crossed(cluster, store, **options):
    """How a run ended, and the bytes that came in and went out at each worker meanwhile."""
    with training(cluster, store, **options) as run:
        for said in run:
            if said["stage"] == "connected":
                before = [host.bytes for host in cluster.hosts]
    after = [host.bytes for host in cluster.hosts]
    return said, np.subtract(after, before)[1:]


def most_that_may_cross(done, n_hidden, max_iter):
    """Bytes that may come in at all workers together, or go out: from the sizes of the sums."""
    shape = Shape(BLOCKS * BLOCK_ROWS, FEATURES, 1, n_hidden, np.dtype("f4"))
    # Each block's sum goes to where it is merged, and so on. What is left goes to the scheduler:
    # two sums, as 24 blocks are no power of two.
    moved, level, tasks = 2, BLOCKS, BLOCKS
    while level > 1:
        moved += level
        level = -(-level // FAN_IN)
        tasks += level
    grams = (1 + max_iter) * moved * contribution_bytes(shape, "alternating")
    weights = WORKERS * 8 * n_hidden * (FEATURES + 2)
    # The sums of all passes but those for Gram matrices are smaller than what is said of a task.
    other = done["passes"] * (tasks * A_TASK + weights) + WORKERS * done["seconds"] * A_SECOND
    return 1.1 * (grams + other)  # with the headers of packets


@pytest.mark.parametrize("delay", [None, "20ms"])
def test_only_sums_cross_a_slow_network(delay, network, cluster, wide_stores):
    """However many rows there are; in proportion to the passes and to the size of the sums."""
    if delay is not None and not network.delays:
        pytest.skip("the kernel has no netem")
    for host in network.hosts:
        host.limit(SLOW_LINK, delay)
    shares = []
    for name, (times, options) in RUNS.items():
        store = wide_stores[times]
        done, links = crossed(cluster, store, **options)
        assert done["digest"] == in_process(store, **OPTIONS | options)
        most = most_that_may_cross(done, **options)
        data = open_dataset(store).X.nbytes * done["passes"]
        print(
            f"{name}, delay {delay}: {done['passes']} passes in {done['seconds']:.1f} s; bytes "
            f"in and out {links.tolist()}, at most {most:.0f}, read {data}"
        )
        one_way = links.sum(axis=0).max()
        assert one_way < most < data / 2
        shares.append(one_way / most)
    # All four in the same proportion, but for which worker happened to merge what.
    assert max(shares) < 1.8 * min(shares)
    assert all(min(host.held_back) > 0 for host in network.hosts[1:])
