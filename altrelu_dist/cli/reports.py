"""Dask's own report of a run: what each worker did, and when."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from altrelu_dist.errors import ParameterError

if TYPE_CHECKING:
    from altrelu_dist.cli.cluster import ClusterChoice

__all__ = ["checked_report", "reported"]


def checked_report(address: str, cluster: ClusterChoice) -> str:
    """The address of a report that can be written.

    Raises
    ------
    ParameterError
        If there will be no cluster to report of, or the package that draws is missing.
    DataError
        If it cannot be written there.
    """
    from altrelu_dist.outputs import check_output

    if cluster.address is None and cluster.workers == 0:
        raise ParameterError("--performance-report is of a cluster, and with --workers 0 is none")
    if importlib.util.find_spec("bokeh") is None:
        raise ParameterError(
            "--performance-report needs the package bokeh: pip install 'altrelu-dist[dashboard]'"
        )
    check_output(address, overwrite=True)
    return address


@contextmanager
def reported(address: str | None) -> Iterator[None]:
    """Write the report of what the current client's cluster does in the block."""
    if address is None:
        yield
        return
    from distributed import performance_report

    with performance_report(filename=address):
        yield
