"""BLAS threads: one a task, because tasks run side by side already."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["in_threads", "n_threads", "one_blas_thread"]

T = TypeVar("T")

_lock = threading.Lock()
_users = 0
_limit: Any = None
_allowed = 1  # threads, before they were limited


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - loads SciPy's BLAS, which is a second library

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit every BLAS of this process to one thread until the last user leaves.

    The limit is the process's, so it is counted: a task that ends must not lift it for one that
    still runs beside it.
    """
    global _users, _limit, _allowed
    with _lock:
        if _users == 0:
            _allowed = _allowed_now()
            _let_any_thread_set_it()
            _limit = _controller().limit(limits=1)
            _limit.__enter__()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _let_any_thread_set_it()
                _limit.__exit__(None, None, None)
                _let_any_thread_set_it()
                _limit = None


def _let_any_thread_set_it() -> None:
    """Since threadpoolctl 3.8 only the first thread that sets a limit may, as long as it lives.

    Ours is the process's, and the thread that lifts it is mostly another one.
    """
    for library in _controller().lib_controllers:
        release = getattr(library, "clear_controlling_thread", None)
        if release is not None:
            release(force=True)


def n_threads() -> int:
    """Threads that NumPy would use here: what the environment allows BLAS, at most the cores.

    In a task of Dask, those of its worker: the loop of a job has its cluster to itself, while it
    works on rows that it holds.
    """
    with _lock:
        allowed = _allowed if _users else _allowed_now()
    return max(allowed, _of_worker())


def in_threads(work: Callable[[T], None], items: Sequence[T]) -> None:
    """Do some work for each item, on as many threads as BLAS would use now.

    Where BLAS is limited to one thread already, others work beside this one, and it is done here.

    Parameters
    ----------
    work : callable
        Of one item.
    items : sequence
    """
    with _lock:
        limited = _users > 0
    threads = 1 if limited or len(items) < 2 else min(_allowed_now(), len(items))
    if threads == 1:
        for item in items:
            work(item)
        return
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(copy_context().run, work, item) for item in items]
        try:
            for each in done:
                each.result()
        finally:  # what has not begun is not waited for
            pool.shutdown(cancel_futures=True)


def _of_worker() -> int:
    if "distributed" not in sys.modules:
        return 1
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # this is no task
        return 1


def _allowed_now() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    allowed = [library["num_threads"] for library in _controller().info()]
    return max(1, min(cores or 1, *allowed)) if allowed else cores or 1
