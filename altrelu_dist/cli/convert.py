"""`altrelu convert` and `altrelu info`: data into a store to train on, and what is in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from altrelu_dist.cli.options import (
    Categorical,
    Categories,
    Data,
    Drop,
    Json,
    Missing,
    Only,
    Overwrite,
    Quiet,
    Target,
    Weight,
)
from altrelu_dist.runs.output import Output, bytes_text, number, seconds_text, table

if TYPE_CHECKING:
    from altrelu_dist.data import ColumnSummary

__all__ = ["convert", "info"]

_FREQUENT = 3  # levels of a column that are listed
_DAY, _FAR = 86_400, 60_000_000_000  # seconds; about 1,900 years
_SHOWN = 40  # columns of a wide table that are listed though nothing is wrong with them


def convert(
    source: Data,
    destination: Annotated[
        str, typer.Argument(help="The store to write, NAME.zarr.", show_default=False)
    ],
    target: Target = None,
    weight: Weight = None,
    categorical: Categorical = None,
    drop: Drop = None,
    only: Only = None,
    missing: Missing = "keep",
    categories: Categories = "learn",
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
            categorical=categorical or (),
            drop=drop or (),
            only=only,
            missing=missing,
            categories=categories,
            drop_missing=drop_missing,
            impute=impute,
            dtype=dtype,
            overwrite=overwrite,
            progress=lambda _rows, share: show(share),
        )
    changed = [
        f"{count:,} {what}"
        for count, what in (
            (summary.dropped, "rows left out"),
            (summary.filled, "values filled"),
            (summary.missing, "values missing"),
        )
        if count
    ]
    output.result(
        asdict(summary),
        f"{summary.rows:,} rows, features: {summary.n_features}, targets: {summary.n_targets}, "
        f"{summary.dtype}, "
        f"{summary.n_chunks} chunks of {summary.chunk_rows:,} rows, "
        f"{bytes_text(summary.bytes_on_disk)}, {seconds_text(summary.seconds)}",
        *([", ".join(changed)] if changed else []),
        *left_out(summary.left_out, summary.ids),
        f"saved: {destination}",
    )


def info(
    data: Data,
    target: Target = None,
    categorical: Categorical = None,
    drop: Drop = None,
    only: Only = None,
    as_json: Json = False,
) -> None:
    """Read every chunk once: show sizes and columns, and find damage and missing values."""
    from altrelu_dist.data import describe
    from altrelu_dist.runs.columns import left_out

    output = Output(as_json=as_json)
    with output.doing(f"reading {data}"):
        found = describe(
            data, target=target, categorical=categorical or (), drop=drop or (), only=only
        )
    heads = ("column", "role", "missing", "infinite", "least", "mean", "greatest", "")
    columns = table(*heads, words=2)
    shown = [
        column
        for index, column in enumerate(found.columns)
        if index < _SHOWN or column.role != "feature" or _remark(column)
    ]
    for column in shown:
        counts = (f"{count:,}" if count else "" for count in (column.missing, column.infinite))
        columns.add_row(column.name, column.role, *counts, *_values(column), _remark(column))
    hidden = len(found.columns) - len(shown)
    output.result(
        asdict(found) | {"constant": [column.name for column in found.columns if column.constant]},
        f"{found.rows:,} rows, features: {found.n_features}, targets: {found.n_targets}, "
        f"{found.dtype}; {found.n_chunks} chunks of up to {found.chunk_rows:,} rows; "
        f"{bytes_text(found.bytes_on_disk)} on disk, {bytes_text(found.bytes_in_memory)} in memory",
        columns,
        *left_out(found.left_out, found.ids),
        *([f"and {hidden} more features, all well (--json has them)"] if hidden else []),
        "every chunk was read, nothing is damaged",
    )


def _values(column: ColumnSummary) -> tuple[str, str, str]:
    """Least, mean and greatest as a reader of the column's kind expects them."""
    of = (column.minimum, column.mean, column.maximum)
    if column.kind == "levels":
        return ("", "", "")
    least, mean, greatest = map(moment if column.kind == "time" else number, of)
    return least, mean, greatest


def moment(seconds: float) -> str:
    """A time as text; far from our days, and of day, in seconds."""
    from datetime import UTC, datetime, timedelta

    if not abs(seconds) < _FAR:
        return number(seconds)
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=round(seconds))
    return at.strftime("%Y-%m-%d" if seconds % _DAY == 0 else "%Y-%m-%d %H:%M:%S")


def _remark(column: ColumnSummary) -> str:
    if column.levels > 1:
        names = ", ".join(f"{level} ({rows:,})" for level, rows in column.frequent[:_FREQUENT])
        more = ", ..." if column.levels > _FREQUENT else ""
        return f"{column.levels:,} levels: {names}{more}"
    if column.constant:
        return "constant"
    return "incomplete" if column.missing or column.infinite else ""
