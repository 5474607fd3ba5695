"""`altrelu info`: what is in data, or in a saved network."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from altrelu_dist.cli.options import Categorical, Classes, Data, Drop, Json, Only, Target
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.runs.output import Output, bytes_text, number, table

if TYPE_CHECKING:
    from altrelu_dist.data import ColumnSummary
    from altrelu_dist.network import Network

__all__ = ["info"]

_FREQUENT = 3  # levels of a column that are listed
_DAY, _FAR = 86_400, 60_000_000_000  # seconds; about 1,900 years
_SHOWN = 40  # columns of a wide table that are listed though nothing is wrong with them


def info(
    data: Data,
    target: Target = None,
    categorical: Categorical = None,
    drop: Drop = None,
    only: Only = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Show what is in data, every chunk of which is read once, or in a saved network.

    Of data the sizes and columns, with damage and missing values; of a network how it was trained,
    what it expects on new rows, and what became of each column.
    """
    from altrelu_dist.data import describe
    from altrelu_dist.network import FORMAT, Network
    from altrelu_dist.runs.columns import left_out

    output = Output(as_json=as_json)
    try:
        with output.doing(f"reading {data}"):
            found = describe(
                data,
                target=target,
                categorical=categorical or (),
                drop=drop or (),
                only=only,
                classes=classes,
            )
    except DataError as error:
        if FORMAT not in error.finding:
            raise
        if target or categorical or drop or only or classes is not None:
            raise ParameterError(
                f"{data} is a network: --target, --categorical, --drop, --only and --classes are "
                "for data"
            ) from None
        _tell_of_network(output, Network.load(data), data)
        return
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


def _tell_of_network(output: Output, network: Network, address: str) -> None:
    """What a saved network is, and how it was trained."""
    from altrelu_dist.runs.about import about

    found = about(network, address)
    shown = table("column", "holds", "the network takes", words=3)
    for column in found.columns:
        shown.add_row(*column.values())
    classes = [found.classes] if found.classes else []
    output.result(found.record, found.what, *classes, shown, *found.training)
