"""`altrelu convert`: data into a store to train on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from altrelu_dist.cli.options import (
    Categorical,
    Categories,
    Classes,
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
from altrelu_dist.runs.output import Output, bytes_text, seconds_text

__all__ = ["convert"]


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
    classes: Classes = None,
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
    from altrelu_dist.data.classes import classes_line
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
            classes=classes,
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
        *([classes_line(summary.target_names[0], summary.classes)] if summary.classes else []),
        *([", ".join(changed)] if changed else []),
        *left_out(summary.left_out, summary.ids),
        f"saved: {destination}",
    )
