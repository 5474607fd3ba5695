"""`altrelu train`: from a file to a saved network."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from altrelu_dist.cli.cluster import connect
from altrelu_dist.cli.grouped import grouped
from altrelu_dist.cli.options import (
    RESUMING,
    Connection,
    Json,
    Memory,
    Quiet,
    Threads,
    Training,
    Workers,
)
from altrelu_dist.cli.reports import check_report, reported
from altrelu_dist.runs.output import Output
from altrelu_dist.runs.training import prepared

__all__ = ["train"]

_RESUMED = "altrelu_dist.resumed"  # in the context: that the options are those of the run


@grouped
def train(
    ctx: typer.Context,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep what the run has found in this folder, or at an address such as s3://...",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Go on with the run that this checkpoint is of; its options need not be repeated.",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    *,
    training: Training,
    performance_report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write Dask's report of the run, a page in HTML.",
            show_default=False,
        ),
    ] = None,
    connection: Connection,
    workers: Workers = None,
    threads: Threads = None,
    memory: Memory = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network on data of any size and save it.

    Ctrl-C or SIGTERM stops at the end of the current step and saves the best network so far.
    """
    if resume is not None and _RESUMED not in ctx.meta:
        ctx.meta[_RESUMED] = True
        train(ctx=ctx, **_remembered(ctx, resume))
        return
    options = training.options(checkpoint)
    from altrelu_dist.runs.progress import watch

    output = Output(quiet, as_json)
    cluster = connection.cluster(workers, threads, memory)
    ready = prepared(options, resume=resume is not None)
    output.note(ready.about)
    if performance_report is not None:
        check_report(performance_report, cluster, overwrite=options.overwrite)
    alone = ready.small and not cluster.sized and performance_report is None
    if alone and cluster.address is None:
        output.note("small data: trained in this process (--workers N starts N worker processes)")
    with connect(cluster, output, in_process=alone) as client, reported(performance_report, output):
        code = ready.run(output, client, partial(watch, output, options.max_time))
    if code:
        raise typer.Exit(code)


def _remembered(ctx: typer.Context, checkpoint: str) -> dict[str, Any]:
    """The options that a run began with, but those that are given now."""
    from altrelu_dist.checkpoints.opening import note_of

    options = dict(ctx.params)
    for name, value in note_of(checkpoint).items():
        source = ctx.get_parameter_source(name)
        if name in options and (source is None or source.name != "COMMANDLINE"):
            options[name] = value
    return options | {"checkpoint": checkpoint}
