"""What a cluster fails with, as one line that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from altrelu_dist.errors import AltReLUError, ClusterError, Remedy

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["explained", "workers_of"]


@contextmanager
def explained(client: Client | None = None) -> Iterator[None]:
    """Raise a `ClusterError` in place of Dask's own errors where a cluster fails in the block.

    Parameters
    ----------
    client : distributed.Client, optional
        What is asked of one that has closed in the meantime ends in an error of no type of its own.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            "workers died again and again, most likely for lack of memory", Remedy.WORKER_MEMORY
        ) from error
    except AltReLUError:
        raise
    except Exception as error:
        lost = isinstance(error, CancelledError | CommClosedError)
        if not lost and (client is None or client.status != "closed"):
            raise
        raise _lost() from error


def workers_of(client: Client) -> list[dict[str, Any]]:
    """What the scheduler knows of each worker.

    Raises
    ------
    ClusterError
        If the connection to the scheduler is lost: Dask's client then knows nothing of any.
    """
    with explained(client):
        known = client.scheduler_info(n_workers=-1)
    if "workers" not in known:
        raise _lost()
    return list(known["workers"].values())


def _lost() -> ClusterError:
    return ClusterError(
        "the connection to the scheduler is lost: it has ended, or cannot be reached",
        Remedy.GO_ON,
    )
