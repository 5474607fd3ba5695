"""Runs on a cluster under random faults, for a time: every one of them ends with the same bits.

ALTRELU_SOAK_SECONDS says for how long (30); ALTRELU_SOAK_SEED repeats the faults.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import time
from collections import Counter

import numpy as np
import pytest
from clusters import Processes
from forks import Forked
from processes import environment

import altrelu_dist
from altrelu_dist import AltReLURegressor, Network, open_dataset

SECONDS = float(os.environ.get("ALTRELU_SOAK_SECONDS", "30"))
SEED = int(os.environ.get("ALTRELU_SOAK_SEED", secrets.randbits(32)))
ROWS = 60_000
RUNS = {"alternating": 60, "damped": 60, "search": 6}  # most iterations

CLIENT = """
import sys
from distributed import Client
from altrelu_dist import AltReLURegressor, inputs, open_dataset
from altrelu_dist.training import schedule

schedule.ROWS = schedule.RowSettings(least=2048, a_weight=1, held_a_weight=700)
inputs._CACHED_SHARE = float(sys.argv[7])
_, scheduler, store, method, iterations, folder, resume, _, out = sys.argv
data = open_dataset(store)
try:
    client = Client(scheduler_file=scheduler, timeout=10)
except OSError as error:
    sys.exit(f"no cluster: {error}")
with client:
    AltReLURegressor(
        4, method=method, max_iter=int(iterations), random_state=0, client=client,
        checkpoint=folder, checkpoint_interval=0.5, resume=resume == "yes",
    ).fit(data.X, data.y).save(out, overwrite=True)
"""


class Soak:
    """Clusters, the faults done to them, and what came of the runs."""

    def __init__(self, folder, rng):
        self.folder, self.rng = folder, rng
        self.counts = Counter()
        self.begun = time.monotonic()
        self.store, self.client = folder / "data.zarr", folder / "client.py"
        self.client.write_text(CLIENT)
        self.stack = contextlib.ExitStack()
        self.cluster = None
        self.hanging = set()

    def say(self, text):
        print(f"{time.monotonic() - self.begun:7.1f} s  {text}", flush=True)

    def did(self, fault, detail=""):
        self.counts[fault] += 1
        self.say(f"fault: {fault} {detail}")

    def new_cluster(self):
        self.stack.close()
        self.hanging.clear()
        place = self.folder / f"cluster-{self.counts['clusters']}"
        place.mkdir()
        self.counts["clusters"] += 1
        settings = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "4s"}
        self.cluster = self.stack.enter_context(Processes(place, 3, settings, memory="1GiB"))

    @property
    def running(self):
        workers = self.cluster.workers.items()
        return [name for name, one in workers if one.poll() is None and name not in self.hanging]

    def worker(self):
        """One that runs, at random; another takes its place when it is gone."""
        name = self.rng.choice(self.running)
        return name, self.cluster.workers[name]

    def kill_worker(self, _):
        name, process = self.worker()
        self.did("worker killed", name)
        process.kill()
        self.cluster.add()

    def stop_worker(self, _):
        name, process = self.worker()
        seconds = self.rng.choice([1.0, 9.0])
        self.did("worker stopped", f"{name} for {seconds:.0f} s")
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def hang_worker(self, _):
        name, process = self.worker()
        self.did("worker hangs for good", name)
        process.send_signal(signal.SIGSTOP)
        self.hanging.add(name)
        self.cluster.add()

    def add_worker(self, _):
        self.did("worker joined")
        self.cluster.add()

    def kill_client(self, client):
        self.did("client killed")
        client.kill()

    def kill_scheduler(self, _):
        self.did("scheduler killed")
        self.cluster.scheduler.kill()

    def lose_chunk(self, client):
        chunk = self.store / "X/c" / str(self.rng.integers(ROWS // 4096)) / "0"
        self.did("chunk gone for a while", str(chunk.relative_to(self.folder)))
        away = chunk.with_suffix(".away")
        chunk.rename(away)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(3)
        away.rename(chunk)

    def faults(self):
        often = [self.kill_worker, self.stop_worker, self.add_worker, self.kill_client]
        return [*often, *often, self.hang_worker, self.kill_scheduler, self.lose_chunk]

    def run(self, number, method):
        """One run, with faults, gone on with until it ends."""
        out, run = self.folder / f"model-{number}.zarr", self.folder / f"run-{number}"
        cached = str(self.rng.choice([0.0, 0.4]))
        for attempt in range(60):
            if self.cluster.scheduler.poll() is not None or not 1 < len(self.running) < 8:
                self.new_cluster()
            resume = "yes" if any(run.glob("checkpoint-*")) else "no"
            file = str(self.cluster.folder / "scheduler.json")
            arguments = [file, self.store, method, RUNS[method], run, resume, cached, out]
            with Forked(self.client, arguments, env=environment()) as client:
                while client.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        client.wait(self.rng.uniform(0.5, 3.0))
                        break
                    if self.cluster.scheduler.poll() is None and self.running:
                        self.rng.choice(self.faults())(client)
                said = client.stderr.read().strip().splitlines()
            if client.returncode == 0:
                self.say(f"run {number} ({method}) ended, after {attempt} times anew")
                self.counts["runs ended"] += 1
                self.counts["runs resumed"] += attempt
                return out
            word = said[-1] if said else "killed"
            self.say(f"run {number} ({method}) cut off: {word}")
            known = (
                "connection to the scheduler is lost",
                "cannot be used: missing",
                "damaged: ",
                "no cluster: ",
            )
            assert client.returncode == -signal.SIGKILL or any(k in word for k in known), said
        raise AssertionError("a run that does not come to its end")


def digest(network):
    arrays = (network.hidden_weights, network.hidden_bias, network.output_weights)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.usefixtures("small_samples")
def test_soak(tmp_path, capsys):
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((ROWS, 4)).astype("float32")
    np.savez(tmp_path / "data.npz", X=X, y=np.abs(X[:, 0]) - X[:, 1] * X[:, 2])
    altrelu_dist.convert(tmp_path / "data.npz", tmp_path / "data.zarr", chunk_bytes=1 << 16)
    data = open_dataset(tmp_path / "data.zarr")
    expected = {}
    for method, most in RUNS.items():
        model = AltReLURegressor(4, method=method, max_iter=most, random_state=0)
        expected[method] = digest(model.fit(data.X, data.y).network_)
    soak = Soak(tmp_path, rng)
    with capsys.disabled(), contextlib.ExitStack() as stack:
        stack.callback(lambda: soak.stack.close())
        print(f"\nsoak of {SECONDS:.0f} s, ALTRELU_SOAK_SEED={SEED}")
        soak.new_cluster()
        number = 0
        while time.monotonic() - soak.begun < SECONDS:
            for method in RUNS:
                found = digest(Network.load(soak.run(number, method)))
                assert found == expected[method], (number, method)
                number += 1
        print("; ".join(f"{name}: {count}" for name, count in soak.counts.items()))
