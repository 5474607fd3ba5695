"""`altrelu predict`: the predictions of a saved network, in a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from altrelu_dist.cli.cluster import connect
from altrelu_dist.cli.grouped import grouped
from altrelu_dist.cli.options import Connection, Data, Interval, Json, Model, Overwrite, Quiet
from altrelu_dist.errors import ParameterError
from altrelu_dist.runs.output import Output, bytes_text, seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from altrelu_dist.cli.predicted import Predicted
    from altrelu_dist.data import DataSet
    from altrelu_dist.data.keeping import KeptColumns
    from altrelu_dist.network import Network

__all__ = ["predict"]


@grouped
def predict(
    model: Model,
    data: Data,
    out: Annotated[
        str,
        typer.Option(help="A .parquet, .csv, .npy or .zarr for the result.", show_default=False),
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Carry this column of the data through to a .parquet or .csv; repeat it for "
            "several.",
            show_default=False,
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Of classes, also a column for each probability."),
    ] = False,
    interval: Interval = None,
    overwrite: Overwrite = False,
    *,
    connection: Connection,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Predict the targets of each row, block by block: the data need not fit in memory.

    Columns are found by their names and may be in any order; others are ignored. Of classes the
    most probable one is written; a .npy or .zarr holds its number, or the probabilities alone.
    With --interval the ends of an interval follow each prediction y, as y_low and y_high.
    """
    import numpy as np

    from altrelu_dist.cli.predicted import Predicted
    from altrelu_dist.cli.writers import PREDICTION_FORMAT, writer_for
    from altrelu_dist.data.keeping import KeptColumns
    from altrelu_dist.data.source import listed
    from altrelu_dist.memory import measure
    from altrelu_dist.network import Network
    from altrelu_dist.outputs import check_apart, check_output, write_beside
    from altrelu_dist.prediction import check_interval
    from altrelu_dist.runs.columns import open_for, unseen_lines, unseen_of

    output = Output(quiet, as_json)
    make_writer = writer_for(out)
    kind = PREDICTION_FORMAT if out.rstrip("/").lower().endswith(".zarr") else None
    if keep and not make_writer.tables:
        raise ParameterError(f"is for a .parquet or .csv, and --out is {out}", parameter="keep")
    check_apart(out, model, data)
    check_output(out, overwrite=overwrite, kind=kind)
    network = Network.load(model)
    if probabilities and network.classes is None:
        raise ParameterError(f"is for classes; {model} predicts numbers", parameter="probabilities")
    if interval is not None:
        check_interval(network, interval, "interval")
    opened = open_for(network, data, output.note, kept=keep or ())
    kept = KeptColumns(data, keep) if keep else None
    names = () if kept is None else tuple(kept.names)
    shaped = Predicted(network, with_probabilities=probabilities, level=interval, taken=names)
    for target, name in zip(shaped.targets, shaped.names, strict=True):
        if target != name:
            output.note(f"the prediction of {target} is {name}, since {target} is kept")
    columns = (*names, *shaped.table_names) if make_writer.tables else shaped.array_names
    attributes = {} if network.classes is None else {"classes": list(network.classes)}
    rows = int(opened.X.shape[0])
    start = time.perf_counter()
    with connect(connection.cluster(), output, in_process=True) as client:
        with (
            output.bar("predicting") as show,
            write_beside(out, overwrite=overwrite, kind=kind) as part,
            make_writer(part, rows, columns, attributes) as writer,
        ):
            done = incomplete = 0
            unknown = np.zeros(opened.X.shape[1], np.int64)
            for block, unseen in _predicted(network, opened):
                if writer.tables:
                    writer.write(_beside(kept, block, shaped))
                else:
                    writer.write(shaped.array(block))
                done += len(block)
                unknown += unseen
                incomplete += int((~np.isfinite(block)).any(axis=1).sum())
                show(done / rows)
        memory = measure(client)
    seconds = time.perf_counter() - start
    if incomplete:
        what = "number" if network.classes is None else "class"
        output.warn(f"{incomplete:,} rows have missing or infinite values: no {what} is predicted")
    unknown_levels = unseen_of(opened, unknown)
    for line in unseen_lines(unknown_levels):
        output.warn(line)
    told = []
    if network.classes is not None and not writer.tables and not probabilities:
        told.append("the numbers stand for the classes, from 0 on: " + listed(network.classes))
    output.result(
        {
            "model": model,
            "data": data,
            "out": out,
            "rows": rows,
            "targets": list(shaped.targets),
            "columns": list(columns),
            **attributes,
            **({} if interval is None else {"interval": interval}),
            "incomplete": incomplete,
            "unknown_levels": unknown_levels,
            "seconds": seconds,
            "passes": 1,
            "peak_memory": memory.total,
            "memory": memory.record(),
        },
        f"{rows:,} rows in {seconds_text(seconds)}, peak memory {bytes_text(memory.total)}",
        *told,
        f"saved: {out}",
    )


def _beside(kept: KeptColumns | None, block: Any, shaped: Predicted) -> Any:
    """Rows as an Arrow table: columns that are carried through, then what is predicted."""
    import pyarrow as pa

    table = {} if kept is None else kept.next(len(block))
    columns = {name: table[name] for name in (() if kept is None else kept.names)}
    return pa.table(columns | shaped.table(block))


def _predicted(network: Network, data: DataSet) -> Iterator[tuple[Any, Any]]:
    """Predictions of the blocks in order, as many at a time as there are threads to make them.

    With them comes for each column how many of its values are of levels that are not known.
    """
    from dask.base import compute
    from dask.system import CPU_COUNT

    from altrelu_dist.prediction import of_targets, predict_blocks
    from altrelu_dist.runs.columns import unseen

    predicted = of_targets(network, predict_blocks(network, data.X))
    unknown = None if data.columns is None else unseen(data)
    for first in range(0, predicted.numblocks[0], CPU_COUNT):
        some = slice(first, first + CPU_COUNT)
        if unknown is None:
            yield predicted.blocks[some].compute(), 0
        else:
            block, counts = compute(predicted.blocks[some], unknown.blocks[some])
            yield block, counts.sum(axis=0)
