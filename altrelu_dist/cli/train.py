"""`altrelu train`: from a file to a saved network."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Annotated, Any, Literal

import typer

from altrelu_dist.cli.cluster import ClusterChoice, TlsFiles, connect
from altrelu_dist.cli.options import (
    Data,
    Json,
    Memory,
    Overwrite,
    Quiet,
    Scheduler,
    Target,
    Threads,
    TlsCaFile,
    TlsCert,
    TlsKey,
    Weight,
    Workers,
)
from altrelu_dist.cli.output import INTERRUPTED, Output
from altrelu_dist.cli.training import TrainOptions, prepared

__all__ = ["train"]

_RESUMING = "Carrying on"
_RESUMED = "altrelu_dist.resumed"  # in the context: that the options are those of the run


def train(
    ctx: typer.Context,
    store: Data = "",
    hidden: Annotated[
        int | None, typer.Option(min=1, help="Number of hidden neurons.", show_default=False)
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Where the network goes (a Zarr folder, also at s3://...).", show_default=False
        ),
    ] = None,
    method: Annotated[
        Literal["search", "damped", "alternating"],
        typer.Option(help="search is the deepest; alternating is the paper's plain algorithm."),
    ] = "search",
    ridge: Annotated[
        float | None, typer.Option(min=0.0, help="Ridge penalty of both layers.")
    ] = None,
    negative_slope: Annotated[
        float | None,
        typer.Option(min=0.0, help="Slope left of the kink, below 1 (leaky ReLU)."),
    ] = None,
    max_iter: Annotated[int | None, typer.Option(min=1, help="Most iterations.")] = None,
    max_time: Annotated[float | None, typer.Option(min=0.0, help="Most seconds.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
    test_fraction: Annotated[
        float | None,
        typer.Option(help="Hold out this share of the rows, at random, and score on them too."),
    ] = None,
    early_stopping: Annotated[
        bool,
        typer.Option(
            "--early-stopping",
            help="Hold rows out, keep the network that is best on them, stop when none is better.",
        ),
    ] = False,
    validation_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the rows that --early-stopping holds out (0.1).", show_default=False
        ),
    ] = None,
    target: Target = None,
    weight: Weight = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep what the run has found in this folder, or at an address such as s3://...",
            rich_help_panel=_RESUMING,
        ),
    ] = None,
    checkpoint_interval: Annotated[
        float,
        typer.Option(
            min=0, help="Most seconds between two checkpoints.", rich_help_panel=_RESUMING
        ),
    ] = 60.0,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Go on with the run that this checkpoint is of; its options need not be repeated.",
            rich_help_panel=_RESUMING,
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
    if not store or hidden is None or out is None:
        required = {"STORE": store, "--hidden": hidden, "--out": out}
        missing = ", ".join(name for name, value in required.items() if not value)
        raise typer.BadParameter(f"missing {missing}")
    given = locals()
    options = TrainOptions(**{field.name: given[field.name] for field in fields(TrainOptions)})
    from altrelu_dist.cli.progress import watch

    output = Output(quiet, as_json)
    tls = TlsFiles(tls_ca_file, tls_cert, tls_key)
    cluster = ClusterChoice(scheduler, workers, threads, memory, tls)
    ready = prepared(options, resume=resume is not None)
    output.note(ready.about)
    with connect(cluster, output) as client:
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
