"""What a cluster fails with, as one line that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from altrelu_dist.errors import ClusterError

__all__ = ["explained"]


@contextmanager
def explained() -> Iterator[None]:
    """Raise a `ClusterError` in place of Dask's own errors where a cluster fails in the block."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            "workers died again and again, most likely for lack of memory: give each more "
            "(--memory), or start fewer (--workers)"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(
            "the connection to the scheduler is lost: it has ended, or cannot be reached; a run "
            "with a checkpoint goes on by resume=True (--resume), on another cluster too"
        ) from error
