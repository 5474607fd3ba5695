"""`altrelu train`: from a file to a saved network."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from altrelu_dist.cli.cluster import ClusterChoice, TlsFiles, connect
from altrelu_dist.cli.options import (
    RESUMING,
    CheckpointInterval,
    Data,
    EarlyStopping,
    Hidden,
    Json,
    MaxIter,
    MaxTime,
    Memory,
    Method,
    NegativeSlope,
    Out,
    Overwrite,
    Quiet,
    Ridge,
    Scheduler,
    Seed,
    Target,
    TestFraction,
    Threads,
    TlsCaFile,
    TlsCert,
    TlsKey,
    ValidationFraction,
    Weight,
    Workers,
)
from altrelu_dist.cli.output import INTERRUPTED, Output
from altrelu_dist.cli.reports import checked_report, reported
from altrelu_dist.cli.training import options_of, prepared

__all__ = ["train"]

_RESUMED = "altrelu_dist.resumed"  # in the context: that the options are those of the run


def train(
    ctx: typer.Context,
    store: Data = "",
    hidden: Hidden = None,
    out: Out = None,
    method: Method = "search",
    ridge: Ridge = None,
    negative_slope: NegativeSlope = None,
    max_iter: MaxIter = None,
    max_time: MaxTime = None,
    seed: Seed = 0,
    test_fraction: TestFraction = None,
    early_stopping: EarlyStopping = False,
    validation_fraction: ValidationFraction = None,
    target: Target = None,
    weight: Weight = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep what the run has found in this folder, or at an address such as s3://...",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    checkpoint_interval: CheckpointInterval = 60.0,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Go on with the run that this checkpoint is of; its options need not be repeated.",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    performance_report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write Dask's report of the run, a page in HTML.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    scheduler: Scheduler = None,
    tls_ca_file: TlsCaFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    workers: Workers = None,
    threads: Threads = None,
    memory: Memory = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network on data of any size and save it.

    Ctrl-C stops at the end of the current step and saves the best network so far.
    """
    if resume is not None and _RESUMED not in ctx.meta:
        ctx.meta[_RESUMED] = True
        train(ctx, **_remembered(ctx, resume))
        return
    options = options_of(locals())
    from altrelu_dist.cli.progress import watch

    output = Output(quiet, as_json)
    tls = TlsFiles(tls_ca_file, tls_cert, tls_key)
    cluster = ClusterChoice(scheduler, workers, threads, memory, tls)
    ready = prepared(options, resume=resume is not None)
    output.note(ready.about)
    report = None if performance_report is None else checked_report(performance_report, cluster)
    with connect(cluster, output) as client, reported(report):
        interrupted = ready.run(output, client, partial(watch, output, max_time))
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _remembered(ctx: typer.Context, checkpoint: str) -> dict[str, Any]:
    """The options that a run began with, but those that are given now."""
    from altrelu_dist.checkpoints.opening import note_of

    options = dict(ctx.params)
    for name, value in note_of(checkpoint).items():
        source = ctx.get_parameter_source(name)
        if name in options and (source is None or source.name != "COMMANDLINE"):
            options[name] = value
    return options | {"checkpoint": checkpoint}
