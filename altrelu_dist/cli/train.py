"""`altrelu train`: from a file to a saved network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from altrelu_dist.cli.cluster import ClusterChoice, connect
from altrelu_dist.cli.files import check_store
from altrelu_dist.cli.options import (
    Data,
    Json,
    Memory,
    Overwrite,
    Quiet,
    Scheduler,
    Target,
    Threads,
    Weight,
    Workers,
)
from altrelu_dist.cli.output import INTERRUPTED, Output, number, seconds_text
from altrelu_dist.errors import DataError, ParameterError

__all__ = ["train"]

_LEAST_ROWS = 2
_ENDINGS = {
    "converged": "stopped by itself",
    "early_stopping": "stopped at --early-stopping",
    "max_iter": "stopped at --max-iter",
    "max_time": "stopped at --max-time",
    "interrupted": "interrupted",
}


def train(
    store: Data,
    hidden: Annotated[int, typer.Option(min=1, help="Number of hidden neurons.")],
    out: Annotated[
        Path, typer.Option(help="Where the network goes (a Zarr folder).", show_default=False)
    ],
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
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
    overwrite: Overwrite = False,
    scheduler: Scheduler = None,
    workers: Workers = None,
    threads: Threads = None,
    memory: Memory = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network on data of any size and save it.

    Ctrl-C stops at the end of the current step and saves the best network so far.
    """
    from altrelu_dist.cli.memory import measure
    from altrelu_dist.cli.progress import watch
    from altrelu_dist.cli.scores import mean_scores, score_records, score_table
    from altrelu_dist.cli.split import split_rows
    from altrelu_dist.data import open_dataset
    from altrelu_dist.estimators import AltReLURegressor
    from altrelu_dist.metrics import evaluate
    from altrelu_dist.network import FORMAT

    if validation_fraction is not None and not early_stopping:
        raise ParameterError("--validation-fraction is for --early-stopping, which is not given")
    output = Output(quiet, as_json)
    cluster = ClusterChoice(scheduler, workers, threads, memory)
    check_store(out, overwrite=overwrite, kind=FORMAT)
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
            client=client,
            **{name: value for name, value in given.items() if value is not None},
        )
        with watch(output, max_time) as follower:
            model.set_params(callback=follower)
            model.fit(
                part.X,
                part.y,
                part.sample_weight,
                feature_names=data.feature_names,
                target_names=data.target_names,
            )
            network = model.network_
            with follower.interrupts.held():
                model.save(out, overwrite=overwrite)
        interrupted = follower.interrupts.requested
        last = model.history_[-1]
        if interrupted:
            output.warn(f"interrupted: the best network so far is in {out}")
            parts = {}  # whoever stops a run does not wait for another pass
        scores = {
            name: evaluate(network, rows.X, rows.y, rows.sample_weight, client=client)
            for name, rows in parts.items()
        }
        memory_peak = measure(client)

    # The least training loss is not that of a network chosen by its validation loss.
    least = math.nan if early_stopping else last["loss"]
    means = mean_scores(scores["train"]) if scores else {"mse": least, "r2": None}
    record = {
        "out": str(out),
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
            f"the second half of that time lowered the loss by {100 * model.last_doubling_:.2g} %"
        )
    if early_stopping:
        words.append(
            f"kept: {network.n_hidden} neurons, "
            f"MSE {number(last['validation_loss'])} on the rows held out"
        )
    output.result(
        record,
        score_table({n: (int(parts[n].X.shape[0]), each) for n, each in scores.items()})
        if scores
        else f"MSE {number(least)}",
        *words,
        f"peak memory {memory_peak}",
        f"saved: {out}",
    )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
