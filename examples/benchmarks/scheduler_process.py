"""A scheduler in a process of its own, which counts what it sends and gets, and its workers.

The workers live in the process that measures: real ones, or stubs that answer as real ones would
and compute nothing, so that the scheduler is what a pass waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import pickle
import threading
import time
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, Scheduler, Worker
from distributed.comm import connect, tcp
from distributed.core import Status
from scale_clock import tasks_run

from altrelu_dist.engine import TILE

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTS: Counter[str] = Counter()  # of the scheduler's process
_WAIT = 60  # seconds for anything to start or to end


def random_tile(block_id: tuple[int, int], columns: int) -> np.ndarray:
    """A block's rows.

    A task names this function and its block's number alone, as one that reads does: a function of
    the script itself would travel with every task, and twice the scheduler's seconds with it.
    """
    rng = np.random.default_rng([block_id[0], columns])
    return rng.standard_normal((TILE, columns), dtype=np.float32)


# --- in the scheduler's process ---------------------------------------------------------------


def serve(sender: Any) -> None:
    """Run a scheduler until the process is ended."""
    quiet()
    _count()

    async def run() -> None:
        # Without plots, as most large clusters' schedulers are too busy for them.
        quietly = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        async with Scheduler(host="127.0.0.1", port=0, **quietly) as scheduler:
            sender.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(run())


def quiet() -> None:
    """Hundreds of workers that come and go are no news."""
    for name in ("distributed", "distributed.worker"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _count() -> None:
    """Count messages and bytes of all connections, the client's and the workers' apart."""
    write, read, from_frames = tcp.TCP.write, tcp.TCP.read, tcp.from_frames
    reader: ContextVar[str] = ContextVar("reader")

    def whose(comm: Any) -> str:
        return "client" if "Client" in (comm.name or "") else "workers"

    def note(peer: str, way: str, messages: int, n_bytes: int) -> None:
        COUNTS[f"{peer} {way} messages"] += messages
        COUNTS[f"{peer} {way} writes"] += bool(messages)
        COUNTS[f"{peer} {way} bytes"] += n_bytes

    async def counted_write(self: Any, msg: Any, *args: Any, **kwargs: Any) -> int:
        n_bytes = await write(self, msg, *args, **kwargs)
        note(whose(self), "out", _messages(msg), n_bytes)
        return int(n_bytes)

    async def counted_read(self: Any, *args: Any, **kwargs: Any) -> Any:
        reader.set(whose(self))
        msg = await read(self, *args, **kwargs)
        note(whose(self), "in", _messages(msg), 0)
        return msg

    async def counted_frames(frames: Any, *args: Any, **kwargs: Any) -> Any:
        note(reader.get("workers"), "in", 0, sum(memoryview(frame).nbytes for frame in frames))
        return await from_frames(frames, *args, **kwargs)

    tcp.TCP.write, tcp.TCP.read, tcp.from_frames = counted_write, counted_read, counted_frames


def _messages(msg: Any) -> int:
    return len(msg) if isinstance(msg, list | tuple) else 1


def snapshot(dask_scheduler: Any) -> dict[str, float]:
    """What the scheduler's process has done so far."""
    done = {"seconds": time.process_time(), "tasks": tasks_run(dask_scheduler)}
    return {**done, "clock": time.perf_counter(), "left": len(dask_scheduler.tasks), **COUNTS}


def collect(dask_scheduler: Any) -> None:
    """Collect garbage now, not in the pass that is measured next."""
    del dask_scheduler
    gc.collect()


# --- workers ----------------------------------------------------------------------------------


class Stub:
    """A worker to the scheduler: each task is done at once, and its result is nowhere."""

    def __init__(self, scheduler: str, number: int) -> None:
        # Nobody listens there: sums stay where they are, as no task is really run.
        self.address = f"tcp://127.0.0.1:{number + 1}"
        self._scheduler, self._number = scheduler, number
        self._held: set[Any] = set()
        self._type = pickle.dumps(list)

    async def start(self) -> None:
        self._comm = await connect(self._scheduler)
        await self._comm.write(
            {
                "op": "register-worker",
                "reply": False,
                "address": self.address,
                "status": Status.running.name,
                "nthreads": 1,
                "name": f"stub-{self._number}",
                "now": time.time(),
                "resources": {},
                "memory_limit": 1 << 34,
                "local_directory": "",
                "services": {},
                "nanny": None,
                "pid": 0,
                "versions": {},
                "metrics": _metrics(),
                "extra": {},
                "stimulus_id": f"stub-{self._number}",
                "server_id": f"stub-{self._number}",
            },
            serializers=["msgpack"],
        )
        answer = await self._comm.read()
        assert answer["status"] == "OK", answer
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._comm.abort()
        with contextlib.suppress(OSError):
            await self._running

    async def _run(self) -> None:
        while True:
            answers = []
            for message in await self._comm.read():
                answers += self._answered(message)
            if answers:
                await self._comm.write(answers)

    def _answered(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        key, stimulus = message.get("key"), message.get("stimulus_id")
        if message["op"] == "free-keys":
            self._held.difference_update(map(_hashable, message["keys"]))
        if message["op"] == "steal-request":
            return [{"op": "steal-response", "key": key, "state": None, "stimulus_id": stimulus}]
        if message["op"] != "compute-task":
            return []
        answers: list[dict[str, Any]] = []
        # A worker tells which results it now holds beside those it made itself.
        fetched = [k for k in map(_hashable, message["who_has"]) if k not in self._held]
        if fetched:
            answers.append({"op": "add-keys", "keys": fetched, "stimulus_id": stimulus})
        now = time.time()
        answers.append(
            {
                "op": "task-finished",
                "status": "OK",
                "key": key,
                "run_id": message["run_id"],
                "nbytes": 1000,
                "type": self._type,
                "typename": "list",
                "metadata": {},
                "thread": 1,
                "startstops": [{"action": "compute", "start": now, "stop": now}],
                "stimulus_id": stimulus,
            }
        )
        self._held.update([*fetched, _hashable(key)])
        return answers


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _metrics() -> dict[str, Any]:
    return {
        "task_counts": {},
        "bandwidth": {"total": 1e8, "workers": {}, "types": {}},
        "digests_total_since_heartbeat": {},
        "managed_bytes": 0,
        "spilled_bytes": {"memory": 0, "disk": 0},
        "transfer": {},
        "event_loop_interval": 0.02,
        "cpu": 0.0,
        "memory": 1 << 27,
        "time": time.time(),
    }


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_WAIT)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT)


class Cluster:
    """A scheduler in a process of its own, a client, and workers that come and go."""

    def __enter__(self) -> Cluster:
        quiet()
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=serve, args=(sender,), daemon=True)
        self._process.start()
        if not receiver.poll(_WAIT):
            raise TimeoutError("the scheduler did not start")
        self.address = receiver.recv()
        self._loop = _Loop()
        self.client = Client(self.address, timeout=_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close(timeout=10)
        self._loop.close()
        self._process.terminate()
        self._process.join(_WAIT)

    @contextlib.contextmanager
    def workers(self, count: int, *, real: bool) -> Iterator[None]:
        """So many of them, with one thread each, in this process."""
        made: list[Any] = []

        async def start() -> None:
            made.extend(
                _real(self.address) if real else Stub(self.address, number)
                for number in range(count)
            )
            for at in range(0, count, 20):  # as many at once as a listener lets wait
                await asyncio.gather(*(worker.start() for worker in made[at : at + 20]))

        async def close() -> None:
            await asyncio.gather(*(worker.close() for worker in made), return_exceptions=True)

        try:
            self._loop.run(start())
            self.client.wait_for_workers(count, timeout=_WAIT)
            yield
        finally:
            self._loop.run(close())
            self._until(lambda: not self.client.scheduler_info(n_workers=-1)["workers"])

    def snapshot(self) -> Counter[str]:
        return Counter(self.client.run_on_scheduler(snapshot))

    def settled(self) -> Counter[str]:
        """The snapshot when every task is forgotten."""
        found: Counter[str] = Counter(left=1)

        def forgotten() -> bool:
            found.clear()
            found.update(self.snapshot())
            return not found["left"]

        self._until(forgotten)
        return found

    @staticmethod
    def _until(condition: Any) -> None:
        ends = time.monotonic() + _WAIT
        while not condition():
            if time.monotonic() > ends:
                raise TimeoutError(f"not within {_WAIT} s")
            time.sleep(0.05)


def _real(address: str) -> Worker:
    return Worker(address, nthreads=1, memory_limit=0, dashboard=False, host="127.0.0.1")
