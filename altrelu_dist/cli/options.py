"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Data", "Json", "Memory", "Model", "Overwrite", "Quiet", "Scheduler", "Target", "Threads",
    "TlsCaFile", "TlsCert", "TlsKey", "Weight", "Workers",
]  # fmt: skip

_CLUSTER = "Cluster"

Data = Annotated[
    str,
    typer.Argument(
        help="Zarr, Parquet, CSV (.gz too), NPZ or NPY: a file, a folder of parts, a quoted glob.",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Argument(help="A network that train saved.", show_default=False)]
Target = Annotated[
    list[str] | None,
    typer.Option(help="Column to be predicted; repeat it for several. A store knows its own."),
]
Weight = Annotated[str | None, typer.Option(help="Column of sample weights.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there, once the new one is complete.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Use the Dask cluster at this address, for example tcp://10.0.0.1:8786 "
        "(default: Dask's own setting, DASK_SCHEDULER_ADDRESS).",
        rich_help_panel=_CLUSTER,
    ),
]
TlsCaFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Certificate of who signed the scheduler's, for a tls:// address "
        "(default: Dask's own settings, distributed.comm.tls).",
        rich_help_panel=_CLUSTER,
    ),
]
TlsCert = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="This client's certificate.", rich_help_panel=_CLUSTER),
]
TlsKey = Annotated[
    str | None, typer.Option(metavar="FILE", help="Its key.", rich_help_panel=_CLUSTER)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes on this machine; 0 works inside this process "
        "(default: from the number of cores).",
        rich_help_panel=_CLUSTER,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Threads of each worker.", rich_help_panel=_CLUSTER),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit of each worker, for example 2GiB (default: its share of the machine).",
        rich_help_panel=_CLUSTER,
    ),
]
