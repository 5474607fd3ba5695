"""`altrelu convert` and `altrelu info`: data into a store to train on, and what is in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from altrelu_dist.cli.options import Data, Json, Overwrite, Quiet, Target, Weight
from altrelu_dist.runs.output import Output, bytes_text, number, seconds_text, table

if TYPE_CHECKING:
    from altrelu_dist.data import ColumnSummary

__all__ = ["convert", "info"]

_SHOWN = 40  # columns of a wide table that are listed though nothing is wrong with them


def convert(
    source: Data,
    destination: Annotated[
        str, typer.Argument(help="The store to write, NAME.zarr.", show_default=False)
    ],
    target: Target = None,
    weight: Weight = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")
    ] = False,
    impute: Annotated[
        Literal["mean"] | None, typer.Option(help="Fill missing features by their mean.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "float64"] | None,
        typer.Option(help="Of the stored numbers (default: the narrower one that is exact)."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write data of any format as a chunked store with checksums, ready to train on."""
    from altrelu_dist.data import convert as convert_data
    from altrelu_dist.runs.columns import left_out

    output = Output(quiet, as_json)
    with output.bar(f"converting {source}") as show:
        summary = convert_data(
            source,
            destination,
            target=target,
            weight=weight,
            drop_missing=drop_missing,
            impute=impute,
            dtype=dtype,
            overwrite=overwrite,
            progress=lambda _rows, share: show(share),
        )
    changed = [
        f"{count:,} {what}"
        for count, what in ((summary.dropped, "rows left out"), (summary.filled, "values filled"))
        if count
    ]
    output.result(
        asdict(summary),
        f"{summary.rows:,} rows, features: {summary.n_features}, targets: {summary.n_targets}, "
        f"{summary.dtype}, "
        f"{summary.n_chunks} chunks of {summary.chunk_rows:,} rows, "
        f"{bytes_text(summary.bytes_on_disk)}, {seconds_text(summary.seconds)}",
        *([", ".join(changed)] if changed else []),
        *left_out(summary.left_out),
        f"saved: {destination}",
    )


def info(
    data: Data,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Read every chunk once: show sizes and columns, and find damage and missing values."""
    from altrelu_dist.data import describe
    from altrelu_dist.runs.columns import left_out

    output = Output(as_json=as_json)
    with output.doing(f"reading {data}"):
        found = describe(data, target=target)
    heads = ("column", "role", "missing", "infinite", "least", "mean", "greatest", "")
    columns = table(*heads, words=2)
    shown = [
        column
        for index, column in enumerate(found.columns)
        if index < _SHOWN or column.role != "feature" or _remark(column)
    ]
    for column in shown:
        counts = (f"{count:,}" if count else "" for count in (column.missing, column.infinite))
        numbers = map(number, (column.minimum, column.mean, column.maximum))
        columns.add_row(column.name, column.role, *counts, *numbers, _remark(column))
    hidden = len(found.columns) - len(shown)
    output.result(
        asdict(found) | {"constant": [column.name for column in found.columns if column.constant]},
        f"{found.rows:,} rows, features: {found.n_features}, targets: {found.n_targets}, "
        f"{found.dtype}; {found.n_chunks} chunks of up to {found.chunk_rows:,} rows; "
        f"{bytes_text(found.bytes_on_disk)} on disk, {bytes_text(found.bytes_in_memory)} in memory",
        columns,
        *left_out(found.left_out),
        *([f"and {hidden} more features, all well (--json has them)"] if hidden else []),
        "every chunk was read, nothing is damaged",
    )


def _remark(column: ColumnSummary) -> str:
    if column.constant:
        return "constant"
    return "incomplete" if column.missing or column.infinite else ""
