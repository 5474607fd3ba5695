"""`altrelu train`: from a file to a saved network."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from altrelu_dist.addresses import without_secrets
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
from altrelu_dist.cli.output import INTERRUPTED, Output, memory_text, number, seconds_text
from altrelu_dist.errors import AltReLUError, ClusterError, DataError, ParameterError

if TYPE_CHECKING:
    from altrelu_dist.estimators import AltReLURegressor

__all__ = ["train"]

_LEAST_ROWS = 2
_RESUMING = "Carrying on"
# Of what a run is to go on with these are given anew: they are of the machine and the moment.
_NOT_NOTED = {
    "ctx", "checkpoint", "resume", "scheduler", "workers", "threads", "memory", "quiet", "as_json",
    "tls_ca_file", "tls_cert", "tls_key",
}  # fmt: skip
_RESUMED = "altrelu_dist.resumed"  # in the context: that the options are those of the run
_ENDINGS = {
    "converged": "stopped by itself",
    "early_stopping": "stopped at --early-stopping",
    "max_iter": "stopped at --max-iter",
    "max_time": "stopped at --max-time",
    "interrupted": "interrupted",
}


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
    note = {name: value for name, value in locals().items() if name not in _NOT_NOTED}
    if not store or hidden is None or out is None:
        required = {"STORE": store, "--hidden": hidden, "--out": out}
        missing = ", ".join(name for name, value in required.items() if not value)
        raise typer.BadParameter(f"missing {missing}")
    note |= {"store": _absolute(store), "out": _absolute(out)}
    if without_secrets(store) != store:  # is not written down: it is to be given again
        del note["store"]
    from altrelu_dist.cli.progress import watch
    from altrelu_dist.cli.scores import mean_scores, score_records, score_table
    from altrelu_dist.cli.split import split_rows
    from altrelu_dist.data import open_dataset
    from altrelu_dist.estimators import AltReLURegressor
    from altrelu_dist.memory import measure
    from altrelu_dist.metrics import evaluate
    from altrelu_dist.network import FORMAT
    from altrelu_dist.outputs import check_output
    from altrelu_dist.parameters import checked

    if validation_fraction is not None and not early_stopping:
        raise ParameterError("--validation-fraction is for --early-stopping, which is not given")
    if checkpoint is not None and _absolute(checkpoint) == note["out"]:
        raise ParameterError("--checkpoint and --out name the same folder; each needs its own")
    given: dict[str, Any] = {
        "alpha": ridge,
        "negative_slope": negative_slope,
        "validation_fraction": validation_fraction,
    }
    model = AltReLURegressor(
        hidden,
        method=method,
        max_iter=max_iter,
        max_time=max_time,
        early_stopping=early_stopping,
        random_state=seed,
        checkpoint=checkpoint,
        checkpoint_interval=checkpoint_interval,
        resume=resume is not None,
        **{name: value for name, value in given.items() if value is not None},
    )
    checked(model)
    model._note = note
    output = Output(quiet, as_json)
    tls = TlsFiles(tls_ca_file, tls_cert, tls_key)
    cluster = ClusterChoice(scheduler, workers, threads, memory, tls)
    check_output(out, overwrite=overwrite, kind=FORMAT)
    data = open_dataset(store, target=target, weight=weight)
    if data.X.shape[0] < _LEAST_ROWS:
        raise DataError(f"{store}: has a single row, which there is nothing to learn from")
    parts = {"train": data}
    if test_fraction is not None:
        parts["train"], parts["test"] = split_rows(data, test_fraction, seed)
    part = parts["train"]
    output.note(
        f"{part.X.shape[0]:,} rows to train on, {part.X.shape[1]} features, "
        f"target {', '.join(data.target_names)}"
    )
    with connect(cluster, output) as client:
        model.set_params(client=client)
        with watch(output, max_time) as follower:
            model.set_params(callback=follower)
            model.fit(
                part.X,
                part.y,
                part.sample_weight,
                feature_names=data.feature_names,
                target_names=data.target_names,
            )
            if weight is not None:  # as which it is known again in a table to predict for
                info = {"weight_name": weight}
                model.network_ = replace(model.network_, info=info)
            interrupted = follower.interrupts.requested
            if model.stop_reason_ != "converged" and len(model.history_) == 1:
                _refuse_to_save(output, interrupted=interrupted)
            with follower.interrupts.held():
                saved, failure = _saved(model, out, overwrite=overwrite)
        interrupted = follower.interrupts.requested
        network, last = model.network_, model.history_[-1]
        if interrupted:
            output.warn(f"interrupted: the best network so far is in {saved}")
            parts = {}  # whoever stops a run does not wait for another pass
        try:
            scores = {
                name: evaluate(network, rows.X, rows.y, rows.sample_weight, client=client)
                for name, rows in parts.items()
            }
        except (ClusterError, KeyboardInterrupt):
            output.warn(f"the network is in {saved}, its scores are not known")
            raise
        memory_peak = measure(client, model.peak_memory_)

    # The least training loss is not that of a network chosen by its validation loss.
    least = math.nan if early_stopping else last["loss"]
    means = mean_scores(scores["train"]) if scores else {"mse": least, "r2": None}
    record = {
        "out": saved,
        "data": store,
        "method": method,
        "hidden": hidden,
        "rows": int(part.X.shape[0]),
        "features": int(part.X.shape[1]),
        **means,
        **(mean_scores(scores["test"], "test_") if "test" in scores else {}),
        "targets": {name: score_records(each) for name, each in scores.items()},
        "seconds": last["seconds"],
        "passes": model.n_passes_,
        "iterations": model.n_iter_,
        "last_doubling": model.last_doubling_,
        **({"validation_mse": last["validation_loss"]} if early_stopping else {}),
        "stop_reason": "interrupted" if interrupted else model.stop_reason_,
        "peak_memory": memory_peak.total,
        "memory": memory_peak.record(),
    }
    ending = _ENDINGS[str(record["stop_reason"])]
    words = [f"{ending} after {seconds_text(last['seconds'])}"]
    words[0] += f", {model.n_passes_} passes over the data, {model.n_iter_} iterations"
    if math.isfinite(model.last_doubling_):
        words.append(
            "the second half of that time lowered the "
            f"{'training ' * early_stopping}loss by {100 * model.last_doubling_:.2g} %"
        )
    if early_stopping:
        words.append(
            f"kept: {network.n_hidden} neurons, "
            f"MSE {number(last['validation_loss'])} on the rows held out"
        )
    output.result(
        record,
        score_table(
            {
                _part_name(n, early_stopping): (int(parts[n].X.shape[0]), e)
                for n, e in scores.items()
            }
        )
        if scores
        else f"{'MSE and ridge' if ridge else 'MSE'} {number(least)}",
        *words,
        f"peak memory {memory_text(memory_peak)}",
        f"saved: {saved}",
    )
    if failure is not None:
        raise DataError(f"{failure}; the network is in {saved}")
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


def _absolute(address: str) -> str:
    """An address that means the same in another working folder."""
    return address if "://" in address else str(Path(address).expanduser().absolute())


def _part_name(part: str, early_stopping: bool) -> str:
    """What a part of the rows is called in the table of scores."""
    return "train, held out" if early_stopping and part == "train" else part


def _refuse_to_save(output: Output, *, interrupted: bool) -> NoReturn:
    """End a run that was stopped before there was a network."""
    if not interrupted:
        raise ParameterError(
            "--max-time: over before there was a network, nothing is saved; allow more seconds"
        )
    output.warn("interrupted before there was a network: nothing is saved")
    raise typer.Exit(INTERRUPTED)


def _saved(
    model: AltReLURegressor, out: str, *, overwrite: bool
) -> tuple[str, AltReLUError | None]:
    """Save a network where it was to go, or else where it can; the error of the first attempt."""
    try:
        model.save(out, overwrite=overwrite)
    except AltReLUError as error:
        beside, _, name = _absolute(out).rstrip("/").rpartition("/")
        name = f"{name.removesuffix('.zarr')}-{secrets.token_hex(4)}.zarr"
        for folder in (beside, str(Path.cwd()), gettempdir()):
            other = f"{folder}/{name}"
            try:
                model.save(other)
            except AltReLUError:
                continue
            return other, error
        raise
    return out, None
