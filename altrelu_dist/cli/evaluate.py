"""`altrelu evaluate`: how well a saved network predicts the targets of some data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from altrelu_dist.cli.cluster import connect
from altrelu_dist.cli.grouped import grouped
from altrelu_dist.cli.options import Connection, Data, Interval, Json, Model, Target
from altrelu_dist.errors import MissingTargetsError
from altrelu_dist.runs.output import Output, memory_text, seconds_text

if TYPE_CHECKING:
    from altrelu_dist.class_metrics import ClassScore
    from altrelu_dist.metrics import TargetScore

__all__ = ["evaluate"]


@grouped
def evaluate(
    model: Model,
    data: Data,
    target: Target = None,
    interval: Interval = None,
    *,
    connection: Connection,
    as_json: Json = False,
) -> None:
    """Print MSE, RMSE, MAE and R2 of a saved network for each target; of classes other scores.

    These are accuracy, log loss and AUC (of more than two classes the mean of each against the
    others). A network of another loss than the square has that loss and its D2 instead, one of
    quantiles the share of targets below them. "in 90 %" is the share of targets that lie within
    their interval, where the network has intervals; --interval chooses another level than 0.9.
    """
    from altrelu_dist.class_metrics import evaluate_classes
    from altrelu_dist.loss_names import SQUARES
    from altrelu_dist.memory import measure
    from altrelu_dist.metrics import evaluate as evaluate_numbers
    from altrelu_dist.network import Network
    from altrelu_dist.runs.columns import open_for, targets_of, unseen, unseen_lines, unseen_of
    from altrelu_dist.runs.scores import (
        loss_record,
        measured_level,
        records_of,
        rows_of,
        score_lines,
        scores_of,
        table_of,
    )

    output = Output(as_json=as_json)
    network = Network.load(model)
    level = measured_level(network, interval)
    opened = open_for(network, data, output.note, targets=target or ())
    X, y = opened.X, targets_of(network, opened)
    passes, start = 1, time.perf_counter()
    with connect(connection.cluster(), output, in_process=True) as client:
        scores: list[TargetScore] | ClassScore
        try:
            if network.classes is not None:
                scores = evaluate_classes(
                    network, X, y, opened.sample_weight, classes=opened.classes, client=client
                )
            else:
                scores = evaluate_numbers(
                    network, X, y, opened.sample_weight, client=client, level=level
                )
        except MissingTargetsError as error:
            output.warn(error.remark)
            known, weight = replace(opened, y=y).known_targets()
            scores = evaluate_numbers(network, X, known, weight, client=client, level=level)
            passes += 2  # one that names the targets, and the scores again
        unknown = {}
        if opened.columns is not None:
            unknown = unseen_of(opened, unseen(opened).sum(axis=0).compute())
            passes += 1
        memory = measure(client)
    seconds = time.perf_counter() - start
    loss = network.info.get("loss", SQUARES)
    for line in [*unseen_lines(unknown), *score_lines(scores, loss)]:
        output.warn(line)
    output.result(
        {
            "model": model,
            "data": data,
            "rows": rows_of(scores),
            **loss_record(network, level),
            **scores_of(scores),
            "targets": records_of(scores),
            "unknown_levels": unknown,
            "seconds": seconds,
            "passes": passes,
            "peak_memory": memory.total,
            "memory": memory.record(),
        },
        table_of({"all": scores}, loss, level),
        f"{seconds_text(seconds)}, peak memory {memory_text(memory)}",
    )
