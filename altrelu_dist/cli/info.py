"""`altrelu info`: what is in data, or in a saved network."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from altrelu_dist.cli.options import Categorical, Classes, Data, Drop, Json, Only, Target
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.runs.output import Output, bytes_text, number, seconds_text, table

if TYPE_CHECKING:
    from rich.table import Table

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
    import numpy as np

    from altrelu_dist.data.classes import classes_line
    from altrelu_dist.runs.scores import chosen_text, expected_classes_text, expected_text

    found = network.info
    sizes = np.abs(network.hidden_weights).sum(axis=0) * np.abs(network.output_weights).sum(axis=1)
    working = int(np.count_nonzero(sizes))
    encoder = network.encoder
    columns = [
        {"column": name, "kind": kind, "encoded": encoded}
        for name, kind, encoded in _columns(network)
    ]
    record = {
        "model": address,
        "features": network.n_features,
        "encoded": None if encoder is None else encoder.n_columns,
        "hidden": network.n_hidden,
        "working": working,
        "targets": list(network.target_columns or ()),
        "columns": columns,
        **{name: value for name, value in found.items() if name != "history"},
    }
    taken = "as they are" if encoder is None else f"encoded as {encoder.n_columns:,} columns"
    size = f"{network.n_hidden:,} hidden neurons"
    if working < network.n_hidden:
        size += f" ({working:,} with weights on both sides)"
    shown = table("column", "holds", "the network takes", words=3)
    for column in columns:
        shown.add_row(*column.values())
    targets = ", ".join(network.target_names or [f"y{t}" for t in range(network.n_targets)])
    if network.classes is not None:
        (targets,) = network.target_columns or ("classes",)
    first = f"network of {network.n_features:,} features {taken}, {size}, predicts {targets}"
    lines: list[str | Table] = [first, shown]
    if "history" in found:
        lines.append(_training(found))
    if "groups" in found:
        lines.append(chosen_text(network))
    if "expected_r2" in found or "expected_loss" in found:
        lines.append(expected_text(found))
    if network.classes is not None:
        lines.insert(1, classes_line(targets, network.classes))
    if "expected_accuracy" in found:
        lines.append(expected_classes_text(found))
    output.result(record, *lines)


def _training(found: dict[str, Any]) -> str:
    """How it was trained, in a line."""
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor

    usual = AltReLUClassifier().get_params() | AltReLURegressor().get_params()
    parameters = found.get("parameters", {})
    chosen = [f"{name}={value}" for name, value in parameters.items() if value != usual.get(name)]
    last = found["history"][-1] if found["history"] else {}
    words = f"trained with {', '.join(chosen) or 'all defaults'}"
    if last:
        words += (
            f": {found.get('n_passes', '?')} passes over the data, {len(found['history'])} "
            f"iterations, {seconds_text(last['seconds'])}, ended: {found.get('stop_reason')}"
        )
    return words


def _columns(network: Network) -> list[tuple[str, str, str]]:
    """Of each raw column its name, what it holds, and what the network takes of it."""
    names = network.feature_names or [f"x{i}" for i in range(network.n_features)]
    told = []
    for i, name in enumerate(names):
        raw = None if network.columns is None else network.columns[i]
        holds = "numbers"
        if raw is not None and raw.kind == "time":
            holds = "times"
        elif raw is not None and raw.kind == "levels":
            some = ", ".join(raw.levels[:_FREQUENT])
            more = ", ..." if len(raw.levels) > _FREQUENT else ""
            holds = f"{len(raw.levels):,} levels: {some}{more}"
        if network.encoder is None:
            told.append((name, holds, "the column as it is"))
            continue
        parts = []
        for kind, block in network.encoder.named_blocks():
            count = int((block.sources == i).sum())
            if count:
                single = kind in ("standard", "gaps")
                parts.append(_WORDS[kind] if single else f"{count} {_WORDS[kind]}")
        told.append((name, holds, ", ".join(parts) or "nothing: it does not vary"))
    return told


# What the blocks of an encoder are called.
_WORDS = {
    "standard": "standardised",
    "pieces": "pieces",
    "levels": "indicators of levels",
    "times": "waves of day, week and year",
    "gaps": "an indicator of missing values",
}
