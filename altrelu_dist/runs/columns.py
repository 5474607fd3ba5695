"""The columns of data that a network takes: found by name; by position where there are no names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.dataset import DataSet, column_names, open_dataset
from altrelu_dist.data.source import listed
from altrelu_dist.encoding.raw import UNSEEN, RawColumn
from altrelu_dist.errors import DataError, Remedy
from altrelu_dist.tables import ids_remark

if TYPE_CHECKING:
    import dask.array as da

    from altrelu_dist.network import Network

__all__ = [
    "in_order_of", "left_out", "open_for", "targets_of", "unseen", "unseen_lines", "unseen_of",
]  # fmt: skip

Say = Callable[[str], object]


def open_for(
    network: Network,
    address: str,
    say: Say,
    targets: Sequence[str] | None = None,
    *,
    kept: Sequence[str] = (),
) -> DataSet:
    """Open the columns that a network takes, in its order; others are not read.

    Parameters
    ----------
    network : Network
    address : str
    say : callable
        Is told, in a line each, what is not as a user may expect.
    targets : sequence of str, optional
        Columns to compare with, where targets are needed; empty for those that the network was
        trained on. By default none are, and none of a table are read.
    kept : sequence of str
        Further columns that the caller reads.

    Returns
    -------
    DataSet

    Raises
    ------
    DataError
        If columns are missing or are not numbers: they are named. Where the network or the data
        has no names, if the numbers of columns differ.
    """
    found, wanted = column_names(address), network.feature_names
    # Files of before names were known for certain: made up, where the data has none of them.
    if wanted is not None and network.names_unclear and {*wanted}.isdisjoint(found or wanted):
        wanted = None
    known = {*(found or ())} - {*(wanted or ())}
    names = network.target_columns or ()
    target: Sequence[str] = names if known.issuperset(names) else ()
    weight = network.info.get("weight_name")
    if targets is None and wanted is not None:
        target, weight = (), None
    elif targets:
        target = targets
    if weight not in known or weight in target:
        weight = None
    columns = network.columns
    if columns is None and wanted is not None:
        columns = (RawColumn(),) * len(wanted)  # all numbers
    data = open_dataset(
        address,
        target=list(target),
        weight=weight,
        features=wanted,
        require_target=False,
        columns=columns,
        categories="error",
        classes=False if network.classes is None else network.classes,
    )
    if data.X.shape[1] != network.n_features:
        there = "" if data.feature_names is None else f": {listed(data.feature_names)}"
        raise DataError(
            f"{address}: the network takes {network.n_features} features, which have no names; "
            f"found {data.X.shape[1]}{there}"
        )
    _say_if_by_position(wanted, data.feature_names, say)
    if wanted is None:
        for line in left_out(data.left_out, data.ids):
            say(line)
        return data
    own = {*names, *kept, network.info.get("weight_name")}
    if ignored := [name for name in data.left_out if name not in own]:
        say(f"columns that the network does not need are ignored: {listed(ignored)}")
    return data


def in_order_of(network: Network, data: DataSet, say: Say) -> DataSet:
    """Data to train further on, with the columns in the order of the network to begin with.

    Where the data has no names, they get those of the network.

    Raises
    ------
    DataError
        If it has other columns: they are named.
    """
    wanted, found = network.feature_names, data.feature_names
    if len(wanted or found or ()) == data.X.shape[1] == network.n_features:
        _say_if_by_position(wanted, found, say)
    if wanted is None or wanted == found:
        return data
    if found is None:  # the numbers of columns are compared where the run begins
        return replace(data, feature_names=wanted) if len(wanted) == data.X.shape[1] else data
    missing = [name for name in wanted if name not in found]
    further = [name for name in found if name not in wanted]
    if missing or further:
        parts = [
            f"{word} {listed(names)}"
            for word, names in (("without", missing), ("with", further))
            if names
        ]
        raise DataError(
            f"{data.source}: not the columns of the network to begin with: {' and '.join(parts)}"
        )
    places = [found.index(name) for name in wanted]
    columns = None if data.columns is None else tuple(data.columns[i] for i in places)
    return replace(data, X=data.X[:, places], feature_names=wanted, columns=columns)


def targets_of(network: Network, data: DataSet) -> da.Array:
    """The targets that the network predicts, in its order.

    Raises
    ------
    DataError
        If there are none, or others.
    """
    if data.y is None:
        raise DataError(
            f"{data.source}: no target column is named, there is nothing to compare with",
            Remedy.TARGET,
        )
    wanted, found = network.target_columns, data.target_names
    if network.classes is not None or len(network.quantiles) > 1:
        if data.y.shape[1] != 1:
            what = "quantiles" if network.classes is None else "classes"
            raise DataError(
                f"{data.source}: has the targets {listed(found)}; the network predicts the {what} "
                "of one"
            )
        return data.y  # under whatever name
    same = wanted is not None and {*wanted} == {*found}
    numbered = network.feature_names is None or network.names_unclear or data.feature_names is None
    if len(found) != network.n_targets or not (
        same or wanted is None or numbered or len(found) == 1
    ):
        raise DataError(
            f"{data.source}: has the targets {listed(found)}; the network predicts "
            f"{listed(wanted or ())} ({network.n_targets} in all)"
        )
    if wanted is None or not same or wanted == found:
        return data.y  # by position, under whatever name
    return data.y[:, [found.index(name) for name in wanted]]


def left_out(index: Sequence[str], ids: Sequence[str]) -> list[str]:
    """What is said of columns that are an index, or of text that names the rows."""
    lines = [f"left out, as an index: {listed(index)}"] if index else []
    return [*lines, ids_remark(ids)] if ids else lines


def unseen(data: DataSet) -> da.Array:
    """Values of each column, block by block, whose levels are none of those that are known.

    Returns
    -------
    dask.array.Array of shape (blocks, columns)
    """
    return data.X.map_blocks(
        _unseen, dtype=np.int64, chunks=((1,) * data.X.numblocks[0], data.X.shape[1])
    )


def _unseen(block: Any) -> Any:
    return (block == UNSEEN).sum(axis=0, keepdims=True)


def unseen_of(data: DataSet, counts: Any) -> dict[str, int]:
    """Of the columns of text that have such values, how many: `counts` is of all columns."""
    names = data.feature_names or ()
    return {
        name: int(count)
        for name, column, count in zip(names, data.columns or (), counts, strict=False)
        if column.kind == "levels" and count
    }


def unseen_lines(counts: Mapping[str, int]) -> list[str]:
    """What is said of such values."""
    if not counts:
        return []
    each = listed([f"{name} ({count:,})" for name, count in counts.items()])
    return [f"values of levels that the network does not know: {each}"]


def _say_if_by_position(
    wanted: Sequence[str] | None, found: Sequence[str] | None, say: Say
) -> None:
    if wanted is None and found is not None:
        say(f"the network knows no names of columns; taken by position: {listed(found)}")
    elif wanted is not None and found is None:
        say(f"the data has no names of columns; taken by position for {listed(wanted)}")
