"""What all tests share: how hypothesis searches, and Dask clusters that leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

from altrelu_dist.engine import DaskEngine
from altrelu_dist.training.schedule import RowSettings

# What helpers assert is shown in full, as what tests assert.
pytest.register_assert_rewrite(
    "commands", "committees", "data_files", "estimators", "kubernetes_manifests", "oracles"
)

# A shell starts what runs in the background deaf to Ctrl-C, and its children with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, so that a failure is of the change under test;
# HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile(
    "repeat",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", parent=settings.get_profile("repeat"), derandomize=False, max_examples=300
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """One BLAS thread in each of several processes that share the cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


# Files that take more than half a minute in the slow and cluster tiers, the longest first.
LONG = (
    "test_estimators.py",
    "test_same_bits.py",
    "test_cli_process.py",
    "test_deploy_docker.py",
    "test_losses.py",
    "test_jobs.py",
    "test_docs.py",
    "test_classifier.py",
    "test_out_of_core.py",
    "test_checkpoints.py",
    "test_s3.py",
    "test_several_hosts.py",
    "test_memory.py",
    "test_deploy_kubernetes.py",
    "test_fuzz.py",
    "test_faults.py",
    "test_many_at_once.py",
    "test_committee_runs.py",
    "test_faults_client.py",
    "test_members.py",
    "test_soak.py",
    "test_deploy_ssh.py",
    "test_bench_scale.py",
)


def pytest_collection_modifyitems(items):
    """Long files first: with one of them last, all other processes would wait for it."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    """Rows that an estimator learns in few steps."""
    from estimators import smooth_rows

    return smooth_rows(rng)


@pytest.fixture
def frame(data):
    """The same features with names."""
    return pd.DataFrame(data[0], columns=["height", "weight", "age"])


@pytest.fixture
def in_process(data):
    """A quick estimator of them."""
    from estimators import quick

    return quick().fit(*data)


@pytest.fixture
def dask_passes(monkeypatch):
    """The names of the passes that Dask makes."""
    names = []
    reduce = DaskEngine.reduce

    def noting(self, statistic, name, hurry=None):
        names.append(name)
        return reduce(self, statistic, name, hurry)

    monkeypatch.setattr(DaskEngine, "reduce", noting)
    return names


FEW_ROWS = RowSettings(least=2048, a_weight=1, held_a_weight=700)


@pytest.fixture
def small_samples(monkeypatch):
    """Let no more than some thousand rows be held in one place, as if data were larger."""
    from altrelu_dist.training import schedule

    monkeypatch.setattr(schedule, "ROWS", FEW_ROWS)


@pytest.fixture
def thread_client():
    """A client of two workers in this process."""
    from distributed import Client

    with Client(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as client:
        yield client


@pytest.fixture(scope="module")
def process_client():
    """A client of two workers in processes of their own, on loopback."""
    from clusters import local_cluster

    with local_cluster(2) as client:
        yield client


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory):
    """A folder with a table, a store of it and a network trained on it, by the commands."""
    from commands import make_folder

    folder = tmp_path_factory.mktemp("made")
    make_folder(folder)
    return folder


@pytest.fixture
def trained_folder(made_folder, tmp_path, monkeypatch):
    """A fresh copy of it, as the working directory."""
    shutil.copytree(made_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
