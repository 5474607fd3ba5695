"""A trained network as the start of another run."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from altrelu_dist.encoding import Encoder
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.network import Network
from altrelu_dist.training.trainer import RawLayers

__all__ = ["check_method", "digest", "start_from"]


def check_method(method: str) -> None:
    """Refuse to let a committee go on from a network.

    Raises
    ------
    ParameterError
    """
    if method == "committee":
        raise ParameterError(
            "is for one plain network, and a committee is always trained anew; say how many "
            "neurons the plain network is to have",
            parameter="warm_start",
        )


def start_from(
    network: Network,
    n_features: int,
    n_targets: int,
    negative_slope: float,
    feature_names: Sequence[str] | None,
    encoder: Encoder | None = None,
) -> RawLayers:
    """Its layers, if it fits what is to be trained.

    Parameters
    ----------
    network : Network
    n_features, n_targets : int
        Of the data.
    negative_slope : float
    feature_names : sequence of str, optional
        Of the data.
    encoder : Encoder, optional
        Under which the network is to be trained: the layers are over its columns. By default it is
        trained on the columns as they are.

    Raises
    ------
    DataError
        If the columns are not those that it takes.
    ParameterError
        If it has another activation, or its hidden layer is over columns encoded otherwise.
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
    if network.encoder != encoder:
        raise ParameterError(
            f"cannot go on from a network on {_columns(network.encoder)} with one on "
            f"{_columns(encoder)}; use warm_start=False, or partial_fit, which keeps its columns",
            parameter="warm_start",
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


def _columns(encoder: Encoder | None) -> str:
    """In words."""
    if encoder is None:
        return "the columns as they are, which are numbers and not missing"
    return f"columns encoded as {encoder.n_columns} numbers ({encoder.digest()[:8]})"


def digest(layers: RawLayers) -> str:
    """What a start is known by."""
    return sha256(b"".join(layer.tobytes() for layer in layers)).hexdigest()
