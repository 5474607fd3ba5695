"""A cluster that Dask lets grow and shrink while a run goes on: the same bits."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from clusters import local_cluster, until
from test_same_bits import digest, expected, few_rows_held, model_and_rows

from altrelu_dist import inputs

pytestmark = pytest.mark.cluster

LEAST, MOST = 1, 3
CHUNK = 700  # 20 chunks


@pytest.fixture
def client():
    """Of a cluster of one worker process."""
    with local_cluster(1) as client:
        yield client


@pytest.fixture(params=["streamed", "cached"])
def kept(request, monkeypatch):
    """Whether the cluster keeps the rows, or reads them each pass."""
    monkeypatch.setattr(inputs, "_CACHED_SHARE", {"streamed": 0.0, "cached": 1.0}[request.param])
    return request.param


def fitted_slowly(case, client, callback):
    """A fit whose blocks take a while to read, so that there is load to adapt to."""

    def read(block):
        time.sleep(0.1)
        return block

    model, (X, y, weight) = model_and_rows(case, CHUNK, client=client, callback=callback)
    with few_rows_held():
        return model.fit(X.map_blocks(read, dtype=X.dtype), y, weight)


def here(client):
    """How many workers there are."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


@pytest.mark.by_hand
@pytest.mark.parametrize("case", ["search", "kronecker", "damped", "alternating"])
def test_a_cluster_that_grows_with_the_load_and_shrinks_without(case, client, monkeypatch):
    monkeypatch.setattr(inputs, "_CACHED_SHARE", 0.0)
    adaptive = client.cluster.adapt(
        minimum=LEAST, maximum=MOST, interval="200ms", wait_count=2, target_duration="200ms"
    )
    seen, shrunk = {}, []

    def alone():
        # Dask decides nothing new while it waits for the end of a worker's process.
        return here(client) == len(client.cluster.workers) == LEAST and not adaptive._adapting

    def pause(progress):
        """Between passes there is no load: let the cluster shrink, when it has grown."""
        seen[progress.passes] = here(client)
        if here(client) > LEAST and len(shrunk) < 2:
            until(alone, "fewer workers")
            shrunk.append(progress.passes)

    model = fitted_slowly(case, client, pause)
    assert digest(model) == expected(case)
    print(f"{case}: workers after so many passes {seen}, shrunk after {shrunk}")
    changes = [change["status"] for _, change in adaptive.log]
    assert changes.count("up") >= 2
    assert changes.count("down") >= 2
    assert len(set(shrunk)) == 2  # and it had grown again between


@contextlib.contextmanager
def flapping(client):
    """Have all workers there, then the fewest, over and over; how often each was reached."""
    ended, reached = threading.Event(), {LEAST: 0, MOST: 0}

    def flap():
        while not ended.is_set():
            for count in (MOST, LEAST):
                client.cluster.adapt(
                    minimum=LEAST if count == LEAST else MOST, maximum=count,
                    interval="200ms", wait_count=1,
                )  # fmt: skip
                until(lambda count=count: here(client) == count, f"{count} workers")
                reached[count] += 1

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield reached
    finally:
        ended.set()
        thread.join(150)


@pytest.mark.parametrize("case", [pytest.param("damped", marks=pytest.mark.by_hand), "alternating"])
def test_workers_that_come_and_go_in_the_middle_of_passes(case, kept, client):
    del kept
    with flapping(client) as reached:

        def wait(progress):
            """Let the run not end before workers came and went twice."""
            if progress.stage == "layers" or progress.stage == "alternating":
                turns = min(2, progress.iteration or 0)
                until(lambda: min(reached.values()) >= turns, "workers that come and go")

        model = fitted_slowly(case, client, wait)
        assert min(reached.values()) >= 2
    assert digest(model) == expected(case)
