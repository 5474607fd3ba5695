"""`altrelu report`: a page on a saved network, and on how it predicts some data."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from altrelu_dist.addresses import without_secrets
from altrelu_dist.cli.cluster import connect
from altrelu_dist.cli.grouped import grouped
from altrelu_dist.cli.options import Connection, Json, Model, Overwrite, Quiet, Target
from altrelu_dist.errors import ParameterError
from altrelu_dist.runs.output import Output, bytes_text, memory_text, seconds_text

__all__ = ["report"]

_ENDINGS = (".html", ".htm")


@grouped
def report(
    model: Model,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Rows with targets to score it on, in any format that train takes.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        str, typer.Option("--out", "-o", help="The page, an .html file.", show_default=False)
    ],
    target: Target = None,
    overwrite: Overwrite = False,
    connection: Connection,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page on a network: what it is, its training, and how it predicts some data.

    With data it has the scores, predictions against true values or classes, and importance and
    partial dependence of the columns. The page needs no other file and no network.
    """
    from altrelu_dist.cli.page import page
    from altrelu_dist.diagnosis import diagnose
    from altrelu_dist.loss_names import SQUARES
    from altrelu_dist.memory import measure
    from altrelu_dist.network import Network
    from altrelu_dist.outputs import check_apart, check_output, write_beside
    from altrelu_dist.plots import require_matplotlib
    from altrelu_dist.runs.columns import open_for, targets_of, unseen_lines, unseen_of
    from altrelu_dist.runs.scores import loss_record, records_of, score_lines, scores_of

    output = Output(quiet, as_json)
    require_matplotlib("a report")
    if not out.lower().endswith(_ENDINGS):
        raise ParameterError(
            f"{out}: a report is an HTML page; name it with the ending {_ENDINGS[0]}",
            parameter="out",
        )
    if data is None and target:
        raise ParameterError("is for data, and none is given", parameter="target")
    check_apart(out, model, *([] if data is None else [data]))
    check_output(out, overwrite=overwrite)
    start = time.perf_counter()
    network = Network.load(model)
    words = ["altrelu", "report", model, *([] if data is None else [data])]
    for name in target or ():
        words += ["--target", name]
    command = without_secrets(shlex.join([*words, "--out", out, "--overwrite"]))
    shown_model = without_secrets(model)
    record: dict[str, object] = {}
    lines: list[str] = []
    if data is None:
        text = page(network, shown_model, command)
    else:
        remarks: list[str] = []

        def note(line: str) -> None:
            remarks.append(without_secrets(line))
            output.note(line)

        opened = open_for(network, data, note, targets=target or ())
        X, y = opened.X, targets_of(network, opened)
        with (
            connect(connection.cluster(), output, in_process=True) as client,
            output.doing(f"predicting {data}"),
        ):
            found = diagnose(
                network, X, y, opened.sample_weight, classes=opened.classes, client=client
            )
            memory = measure(client)
        warned = unseen_lines(unseen_of(opened, found.unseen))
        if found.missing_targets:
            each = ", ".join(f"{name} ({n:,})" for name, n in found.missing_targets.items())
            warned.append(f"rows without a target are left out: {each}")
        warned += score_lines(found.scores, network.info.get("loss", SQUARES))
        for line in warned:
            output.warn(line)
        text = page(
            network, shown_model, command, found, without_secrets(data), [*remarks, *warned]
        )
        record = {
            "rows": found.rows,
            **loss_record(network, None),
            **scores_of(found.scores),
            "targets": records_of(found.scores),
            "peak_memory": memory.total,
            "memory": memory.record(),
        }
        lines.append(f"{found.rows:,} rows, peak memory {memory_text(memory)}")
    with write_beside(out, overwrite=overwrite) as part:
        _write(part, text)
    size, seconds = len(text.encode()), time.perf_counter() - start
    output.result(
        {"model": model, "data": data, "out": out, **record, "bytes": size, "seconds": seconds},
        *lines,
        f"{bytes_text(size)}, {seconds_text(seconds)}",
        f"saved: {out}",
    )


def _write(address: str, text: str) -> None:
    if "://" not in address:
        Path(address).write_text(text, encoding="utf-8")
        return
    import fsspec

    with fsspec.open(address, "w", encoding="utf-8") as file:
        file.write(text)
