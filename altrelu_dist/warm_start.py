"""A trained network as the start of another run."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.network import Network
from altrelu_dist.training.trainer import RawLayers

__all__ = ["digest", "start_from"]


def start_from(
    network: Network,
    n_features: int,
    n_targets: int,
    negative_slope: float,
    feature_names: Sequence[str] | None,
) -> RawLayers:
    """Its layers, if it fits what is to be trained.

    Raises
    ------
    DataError
        If the columns are not those that it takes.
    ParameterError
        If it has another activation.
    """
    for what, now, then in (
        ("X", n_features, network.n_features),
        ("y", n_targets, network.n_targets),
    ):
        if now != then:
            raise DataError(
                f"{what} has {now} columns, the network that warm_start goes on from {then}"
            )
    if negative_slope != network.negative_slope:
        raise ParameterError(
            f"is {negative_slope}; that of the network to go on from is {network.negative_slope}",
            parameter="negative_slope",
        )
    known = network.feature_names
    if known is not None and feature_names is not None:
        for column, (now_name, then_name) in enumerate(zip(feature_names, known, strict=True)):
            if now_name != then_name:
                raise DataError(
                    f"column {column} of X is {now_name!r}, the network that warm_start goes on "
                    f"from knows it as {then_name!r}; give the columns in its order"
                )
    return (
        network.hidden_weights,
        network.hidden_bias,
        network.output_weights,
        network.output_bias,
    )


def digest(layers: RawLayers) -> str:
    """What a start is known by."""
    return sha256(b"".join(layer.tobytes() for layer in layers)).hexdigest()
