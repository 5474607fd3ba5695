"""`altrelu plan`: what a training run will take, before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from altrelu_dist.cli.cluster import connect
from altrelu_dist.cli.grouped import grouped
from altrelu_dist.cli.options import (
    Categorical,
    Classes,
    Connection,
    Drop,
    Hidden,
    Json,
    Levels,
    Loss,
    MaxSize,
    Memory,
    Method,
    Only,
    Target,
    Weight,
)
from altrelu_dist.cluster_errors import workers_of
from altrelu_dist.errors import ParameterError
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.runs.output import Output, bytes_text, number, seconds_text, table

if TYPE_CHECKING:
    from distributed import Client
    from rich.table import Table

    from altrelu_dist.planning import Estimate, Plan, Range

__all__ = ["plan"]

_CLUSTER, _MADE_UP = "Cluster", "Data that are not here"
_BUSY = 1.3
_REASONS = {
    "scheduler": "Dask's scheduler, one thread, takes its time for each task: larger chunks "
    "make fewer tasks",
    "search": "the search, or the committee, runs in the process that trains and does not shrink "
    "with workers",
    "reading": "the storage gives no more",
    "tree": "the sums of the blocks are added up in a tree, level by level",
    "blocks": "there are no more blocks than threads: smaller chunks make more of them",
}


@grouped
def plan(
    store: Annotated[
        str | None,
        typer.Argument(
            help="Zarr, Parquet, CSV (.gz too), NPZ or NPY, as for train.", show_default=False
        ),
    ] = None,
    hidden: Hidden = None,
    method: Method = None,
    max_size: MaxSize = None,
    loss: Loss = "squared_error",
    quantile: Levels = None,
    rows: Annotated[
        float | None,
        typer.Option(help="As if there were so many rows, for example 1e11.", show_default=False),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(
            min=1, help="Columns, without a store.", rich_help_panel=_MADE_UP, show_default=False
        ),
    ] = None,
    targets: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Targets, without a store (1).",
            rich_help_panel=_MADE_UP,
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    weight: Weight = None,
    categorical: Categorical = None,
    drop: Drop = None,
    only: Only = None,
    classes: Classes = None,
    *,
    connection: Connection,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Plan for a cluster of so many worker processes, each thread with a core of its "
            "own, as fast as one here.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            "--threads-per-worker",
            min=1,
            help="Threads of each worker (1).",
            show_default=False,
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    memory: Memory = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Bytes a second that the storage gives to all workers together, for example "
            "10GiB (default: every thread reads as fast as one here).",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what train will do, take and hold, from a second of measuring; nothing is trained.

    Time is given as expected (from .. to): how far the search goes is up to the data.
    """
    import altrelu_dist

    output = Output(as_json=as_json)
    choice = connection.cluster(workers, threads, memory)
    limit = choice.memory_limit
    held = None if isinstance(limit, str) else limit
    if choice.address is not None:
        with connect(choice, output) as client:
            workers, threads, held = _sizes(client)
    with output.doing("measuring this machine"):
        made = altrelu_dist.plan(
            store,
            hidden,
            method=method,
            max_size=max_size,
            loss=loss,
            quantile=sorted(quantile) if quantile else None,
            rows=rows,
            features=features,
            targets=targets,
            workers=workers,
            threads=threads,
            memory=held,
            bandwidth=None if bandwidth is None else _bytes("--bandwidth", bandwidth),
            target=target,
            weight=weight,
            categorical=categorical or (),
            drop=drop or (),
            only=only,
            classes=classes,
        )
    output.result(made.record(), *_text(made))


def _sizes(client: Client | None) -> tuple[int, int, int | None]:
    """Workers of a cluster that is there, and the threads and memory of the smallest."""
    assert client is not None
    found = workers_of(client)
    limits = [worker["memory_limit"] for worker in found if worker["memory_limit"]]
    return len(found), min(worker["nthreads"] for worker in found), min(limits, default=None)


def _bytes(option: str, text: str) -> float:
    from dask.utils import parse_bytes

    try:
        count = float(parse_bytes(text))
    except ValueError as error:
        raise ParameterError(f"{option} {text}: not a size; write for example 10GiB") from error
    if not count > 0:
        raise ParameterError(f"{option} {text}: must be more than 0")
    return count


def _text(made: Plan) -> list[Table | str]:
    rates = made.rates
    most = "at most " if made.method == "committee" else ""
    what = f"targets: {made.targets}"
    if made.classes is not None:
        what = f"classes: {len(made.classes):,}"
    if len(made.levels) > 1:
        what = f"quantiles: {len(made.levels)}"
    of = "" if made.loss == SQUARES else f", loss {made.loss}"
    lines: list[Table | str] = [
        (
            f"{made.rows:,} rows, features: {made.features}, {what}, "
            f"{made.dtype}; {made.n_blocks:,} blocks of {made.block_rows:,} rows; "
            f"{most}{made.hidden:,} neurons, method {made.method}{of}"
        ),
        _stages(made),
        _clusters(made),
        f"the process that trains: {bytes_text(made.memory)} of memory",
        (
            f"measured here, one thread: {number(rates.multiply_adds / 1e9)} billion "
            f"multiply-adds a second, memory {bytes_text(rates.bandwidth)}/s, "
            f"reading {bytes_text(rates.read)}/s"
            f"{'' if made.data else ' of a small store of random numbers'}"
        ),
    ]
    if rates.busy > _BUSY:
        lines.append(
            f"other processes keep this machine busy: work takes {rates.busy:.1f} times as long as "
            f"it would alone, and so do the seconds above"
        )
    if made.cluster is not None and made.cluster.limit is not None:
        limit = made.cluster.limit
        shares = ", ".join(
            f"{name} {seconds_text(seconds)}"
            for name, seconds in limit.shares.items()
            if seconds >= 0.01 * limit.seconds
        )
        lines.append(
            f"stops scaling at about {limit.workers:,} worker{'' if limit.workers == 1 else 's'} "
            f"({seconds_text(limit.seconds)}: {shares}): {_REASONS[limit.reason]}"
        )
    return lines


def _stages(made: Plan) -> Table:
    heads = ("stage", "rows", "neurons", "rounds", "passes", "multiply-adds", "seconds here")
    shown = table(*heads)
    for stage in made.stages:
        low, high = stage.neurons
        shown.add_row(
            stage.name,
            f"{stage.rows:,}",
            "" if high == 0 else str(high) if low == high else f"{low}-{high}",
            _range(stage.rounds),
            _range(stage.passes) if stage.passes.most else "",
            f"{stage.multiply_adds.typical:.2g}",
            _seconds(stage.seconds),
        )
    shown.add_section()
    shown.add_row(
        "all",
        "",
        "",
        "",
        _range(made.passes),
        f"{made.multiply_adds.typical:.2g}",
        _seconds(made.seconds),
    )
    return shown


def _clusters(made: Plan) -> Table:
    shown = table("on", "workers", "seconds", "bytes read", "memory a worker", "of")
    for name, estimate in (("this machine", made.here), ("the cluster", made.cluster)):
        if estimate is not None:
            shown.add_row(name, *_estimate(estimate))
    return shown


def _estimate(estimate: Estimate) -> tuple[str, ...]:
    limit = estimate.memory_limit
    return (
        f"{estimate.workers:,} x {estimate.threads}",
        _seconds(estimate.seconds),
        bytes_text(estimate.bytes_read.typical),
        bytes_text(estimate.worker_memory) + (", data kept" if estimate.cached else ""),
        "" if limit is None else bytes_text(limit),
    )


def _seconds(of: Range) -> str:
    return f"{seconds_text(of.typical)} ({seconds_text(of.least)} .. {seconds_text(of.most)})"


def _range(of: Range) -> str:
    least, most = f"{of.least:,.0f}", f"{of.most:,.0f}"
    return most if least == most else f"{of.typical:,.0f} ({least} .. {most})"
