"""The columns of a data set that a network was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from altrelu_dist.data import open_dataset
from altrelu_dist.data.source import listed
from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da

    from altrelu_dist.data import DataSet
    from altrelu_dist.network import Network

__all__ = ["columns_of", "open_for", "targets_of"]


def open_for(network: Network, address: str, target: Sequence[str] = ()) -> DataSet:
    """Open data with the network's own targets, where they are columns of it.

    A table does not say which of its columns are targets, and which is the weight; a network
    remembers what its were.
    """
    data = open_dataset(address, target=list(target) or None, require_target=False)
    names, weight = network.target_names or (), network.info.get("weight_name")
    columns = set(data.feature_names)
    if data.y is None and names and set(names) <= columns:
        target = names
    if weight not in columns or data.sample_weight is not None:
        weight = None
    if weight is None and data.y is not None:
        return data
    return open_dataset(address, target=list(target) or None, weight=weight, require_target=False)


def columns_of(network: Network, data: DataSet) -> da.Array:
    """The columns that the network takes, in its order; by position where a side has no names.

    Raises
    ------
    DataError
        If columns are missing or left over; they are named.
    """
    wanted, found = network.feature_names, data.feature_names
    if wanted is None or _made_up(wanted) or _made_up(found):
        if len(found) != network.n_features:
            raise DataError(
                f"{data.source}: the network takes {network.n_features} features, "
                f"found {len(found)}"
            )
        return data.X
    missing = [name for name in wanted if name not in set(found)]
    extra = [name for name in found if name not in {*wanted, *(network.target_names or ())}]
    if missing or extra:
        parts = [
            f"{word} {listed(names)}"
            for word, names in (("missing", missing), ("extra", extra))
            if names
        ]
        raise DataError(
            f"{data.source}: not the columns the network was trained on: {'; '.join(parts)}"
        )
    order = [found.index(name) for name in wanted]
    return data.X if order == list(range(len(found))) else data.X[:, order]


def targets_of(network: Network, data: DataSet) -> da.Array:
    """The targets that the network predicts, in its order.

    Raises
    ------
    DataError
        If there are none, or others.
    """
    if data.y is None:
        raise DataError(
            f"{data.source}: name the target column (--target), there is nothing to compare with"
        )
    wanted, found = network.target_names, data.target_names
    if len(found) != network.n_targets:
        raise DataError(
            f"{data.source}: has the targets {listed(found)}; the network predicts "
            f"{listed(wanted or ())} ({network.n_targets} in all)"
        )
    if wanted is None or set(wanted) != set(found) or wanted == found:
        return data.y  # by position, under whatever name
    return data.y[:, [found.index(name) for name in wanted]]


def _made_up(names: Sequence[str]) -> bool:
    """Whether these are the names that columns get where the source has none."""
    return list(names) == [f"x{index}" for index in range(len(names))]
