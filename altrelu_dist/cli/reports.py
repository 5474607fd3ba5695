"""Dask's own report of a run: what each worker did, and when."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from altrelu_dist.errors import ParameterError

if TYPE_CHECKING:
    from altrelu_dist.cli.cluster import ClusterChoice
    from altrelu_dist.runs.output import Output

__all__ = ["check_report", "reported"]

_ENDINGS = (".html", ".htm")


def check_report(address: str, cluster: ClusterChoice, *, overwrite: bool) -> None:
    """Refuse a report that cannot be made, or written there.

    Raises
    ------
    ParameterError
        If there will be no cluster to report of, the package that draws is missing, or it is to
        be named as something else than a page.
    ExistsError, DataError
        As `check_output`.
    """
    from altrelu_dist.outputs import check_output

    if cluster.address is None and cluster.workers == 0:
        raise ParameterError("--performance-report is of a cluster, and --workers 0 starts none")
    if importlib.util.find_spec("bokeh") is None:
        raise ParameterError(
            "--performance-report needs the package bokeh: pip install 'altrelu-dist[dashboard]'"
        )
    if not address.lower().endswith(_ENDINGS):
        raise ParameterError(
            f"--performance-report {address}: a report is an HTML page; name it with the ending "
            f"{_ENDINGS[0]}"
        )
    check_output(address, overwrite=overwrite)


@contextmanager
def reported(address: str | None, output: Output) -> Iterator[None]:
    """Write the report of what the current client's cluster does in the block.

    What was done stands without it: where it cannot be written, that is said.
    """
    if address is None:
        yield
        return
    from distributed import performance_report

    report = ExitStack()
    report.enter_context(performance_report(filename=address))
    try:
        yield
    finally:
        try:
            report.close()
        except Exception as error:  # noqa: BLE001 - whatever draws it, and wherever it goes
            output.warn(f"{address}: the report cannot be written: {' '.join(str(error).split())}")
