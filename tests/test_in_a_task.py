"""Work on Dask data in a task of the cluster that has it; clients that cannot be waited for."""

from __future__ import annotations

import asyncio

import dask.array as da
import numpy as np
import pytest
from distributed import Client, get_client, worker_client
from distributed.client import futures_of

from altrelu_dist import AltReLURegressor, evaluate
from altrelu_dist.errors import ClusterError

SECONDS = 60


def model(**changed):
    usual = {"n_hidden": 4, "method": "damped", "max_iter": 3, "random_state": 0}
    return AltReLURegressor(**usual | changed)


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(240, 3))
    return X, np.abs(X[:, 0]) + X[:, 1]


@pytest.fixture(scope="module")
def lazy(data):
    return tuple(da.from_array(part, chunks=(50, -1)[: part.ndim]) for part in data)


@pytest.fixture(scope="module")
def one_thread():
    """A client of one worker with one thread: whoever waits in it waits for ever."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as client:
        yield client


def fitted(X, y):
    return model().fit(X, y)


def fitted_by_the_worker(X, y):
    with worker_client() as client:
        return model(client=client).fit(X, y)


def fitted_by_the_client(X, y):
    return model(client=get_client()).fit(X, y)


@pytest.mark.parametrize("fit", [fitted, fitted_by_the_worker, fitted_by_the_client])
def test_a_fit_in_a_task_is_the_fit_of_a_client(fit, data, lazy, one_thread):
    def task():
        return fit(*lazy).network_, int(da.ones(9, chunks=3).sum().compute())

    network, sum_after_it = one_thread.submit(task, pure=False).result(SECONDS)
    assert sum_after_it == 9, "the task is not as it was"
    expected = model().fit(*data).network_
    assert network.hidden_weights.tobytes() == expected.hidden_weights.tobytes()
    assert network.output_weights.tobytes() == expected.output_weights.tobytes()


def test_fits_of_many_tasks_at_once(data, lazy, one_thread):
    def task(seed):
        return model(random_state=seed).fit(*lazy).score(*lazy)

    scores = one_thread.gather(one_thread.map(task, range(4), pure=False))
    for seed, score in enumerate(scores):
        alone = model(random_state=seed).fit(*data).score(*data)
        assert score == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("persisted", [False, True])
def test_all_that_a_model_does_in_a_task(persisted, data, lazy, one_thread):
    X, y = data
    first = model().fit(X[:100], y[:100])

    def task(dX, dy):
        (score,) = evaluate(first.network_, dX, dy)
        folded = model().fit(X[:100], y[:100]).partial_fit(dX[100:], dy[100:])
        predicted = first.predict(dX).compute()
        return first.score(dX, dy), score.mse, folded.network_.output_weights, predicted

    given = one_thread.persist(lazy) if persisted else lazy
    # In a list, or Dask would hand over what is in the arrays.
    found = one_thread.submit(lambda: task(*given), pure=False).result(SECONDS)
    folded = model().fit(X[:100], y[:100]).partial_fit(X[100:], y[100:])
    assert found[0] == pytest.approx(first.score(X, y))
    assert found[1] == pytest.approx(np.mean((first.predict(X) - y) ** 2))
    assert found[2] == pytest.approx(folded.network_.output_weights)
    assert found[3] == pytest.approx(first.predict(X))


def test_data_in_memory_needs_no_other_place_in_the_worker(data, one_thread):
    """Fits that wait for nobody come one after the other: a search over a grid takes no more."""

    def task():
        from distributed.threadpoolexecutor import thread_state

        places = []
        model(callback=lambda _: places.append(thread_state.proceed)).fit(*data)
        return places

    assert all(one_thread.submit(task, pure=False).result(SECONDS))


# Clients that cannot be waited for


@pytest.mark.parametrize("explicit", [False, True])
def test_an_asynchronous_client_is_refused(explicit, data, lazy):
    first = model().fit(*data)

    async def calls():
        async with Client(
            processes=False, asynchronous=True, n_workers=1, dashboard_address="127.0.0.1:0"
        ) as client:
            given = {"client": client} if explicit else {}
            first.set_params(**given)
            for call in (
                lambda: model(**given).fit(*lazy),
                lambda: first.score(*lazy),
                lambda: first.partial_fit(*lazy),
                lambda: evaluate(first.network_, *lazy, **given),
            ):
                with pytest.raises(ClusterError, match="asynchronous") as raised:
                    call()
                assert "\n" not in str(raised.value)
            # In a thread it can be waited for, and data in memory needs no client.
            there = await asyncio.to_thread(lambda: model(client=client).fit(*lazy))
            here = model().fit(*data)
            return there.network_, here.network_

    there, here = asyncio.run(calls())
    assert there.hidden_weights.tobytes() == here.hidden_weights.tobytes()


def test_data_of_another_cluster_are_refused(data, lazy, one_thread):
    other = Client(
        processes=False, n_workers=1, dashboard_address="127.0.0.1:0", set_as_default=False
    )
    with other:
        X, y = other.persist(lazy)
        assert futures_of(X)
        for client in (None, one_thread):
            with pytest.raises(ClusterError, match="X is persisted on the cluster of another"):
                model(client=client).fit(X, y)
        with pytest.raises(ClusterError, match="y is persisted on the cluster of another"):
            model().fit(lazy[0], y)
        with pytest.raises(ClusterError, match="persisted on the cluster of another"):
            evaluate(model().fit(*data).network_, X, y)
        assert model(client=other).fit(X, y).score(*data) > 0
    with pytest.raises(ClusterError, match="X was persisted on workers that no longer hold it"):
        model().fit(X, y)


def test_a_second_client_of_the_same_cluster_may_have_persisted_them(data, lazy, one_thread):
    with Client(one_thread.scheduler.address, set_as_default=False) as other:
        X, y = other.persist(lazy)
        assert model(client=one_thread).fit(X, y).score(*data) > 0


def test_a_closed_client_is_refused_by_all(data, lazy):
    client = Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0")
    client.close()
    first = model().fit(*data).set_params(client=client)
    for call in (model(client=client).fit, first.score, first.partial_fit):
        for given in (lazy, data):
            if call == first.score and given is data:
                continue  # it asks for no client
            with pytest.raises(ClusterError, match="client is closed"):
                call(*given)
