"""scikit-learn: a fitted pipeline of its own classes, written by joblib.

The neurons are an `MLPRegressor`. Its activation is max(z, 0) in every layer, and so

- a leaky neuron is two of them: max(z, slope z) = max(z, 0) - slope max(-z, 0);
- the range of the targets is two more layers: clip(y, low, high) = low + max((high - low) -
  max(high - y, 0), 0), which loses nothing however far y is.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.exports.ramps import RAMPS, Ramps, ramps_of
from altrelu_dist.exports.target import Target

if TYPE_CHECKING:
    from altrelu_dist.encoding import Encoder
    from altrelu_dist.network import Floats, Network

__all__ = ["TARGET"]

_BLOCKS = dict.fromkeys(RAMPS, ramps_of)


def _make(network: Network) -> Any:
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    # In float64 whatever comes, so that columns far from zero keep their differences.
    numbers = FunctionTransformer(np.asarray, kw_args={"dtype": "float64"}, validate=True)
    numbers.n_features_in_ = network.n_features
    if network.feature_names is not None:
        numbers.feature_names_in_ = np.array(network.feature_names, dtype=object)
    steps = [("numbers", numbers)]
    hidden_weights = network.hidden_weights
    if network.encoder is not None:
        if not network.encoder.n_columns:  # scikit-learn takes no tables without columns
            hidden_weights = np.zeros((1, network.n_hidden))
        steps += _encoding(network.encoder)
    return Pipeline([*steps, ("network", _neurons(network, hidden_weights))])


def _encoding(encoder: Encoder) -> list[tuple[str, Any]]:
    """Steps that make the encoded columns."""
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    blocks = [_BLOCKS[type(block)](block) for block in encoder.blocks if block.n_columns]
    if not blocks:
        one, zero = np.ones(1), np.zeros(1)
        blocks = [Ramps(np.zeros(1, dtype=np.intp), zero, one, zero, 0.0, 0.0, 1.0)]

    def joined(name: str) -> Floats:
        """A field of all blocks, one value a column."""
        values = [np.broadcast_to(getattr(b, name), b.source.shape) for b in blocks]
        return np.concatenate(values)

    def scaled(center: Floats, scale: Floats) -> StandardScaler:
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_, scaler.var_ = center, scale, scale**2
        scaler.n_features_in_, scaler.n_samples_seen_ = len(center), 1
        return scaler

    chosen = {"indices": joined("source"), "axis": 1}
    ends = {"a_min": joined("low"), "a_max": joined("high")}
    return [
        ("columns", FunctionTransformer(np.take, kw_args=chosen)),
        ("scale", scaled(joined("begin"), joined("length"))),
        ("clip", FunctionTransformer(np.clip, kw_args=ends)),
        ("center", scaled(joined("center"), 1 / joined("factor"))),
    ]


def _neurons(network: Network, hidden_weights: Floats) -> Any:
    """The network over encoded columns."""
    from sklearn.neural_network import MLPRegressor

    weights = [hidden_weights, network.output_weights]
    biases = [network.hidden_bias, network.output_bias]
    if network.negative_slope:
        left = -network.negative_slope * weights[1]
        weights = [np.hstack([weights[0], -weights[0]]), np.vstack([weights[1], left])]
        biases[0] = np.concatenate([biases[0], -biases[0]])
    if network.target_range is not None:
        low, high = network.target_range
        one = np.eye(network.n_targets)
        weights = [weights[0], -weights[1], -one, one]
        biases = [biases[0], high - biases[1], high - low, low]
    sizes = [len(bias) for bias in biases]
    made = MLPRegressor(hidden_layer_sizes=tuple(sizes[:-1]), activation="relu")
    made.coefs_, made.intercepts_ = weights, biases
    made.n_layers_, made.n_outputs_, made.out_activation_ = len(sizes) + 1, sizes[-1], "identity"
    made.n_features_in_ = len(hidden_weights)
    return made


def _encode(pipeline: Any, network: Network) -> bytes:
    import joblib

    del network
    file = io.BytesIO()
    joblib.dump(pipeline, file)
    return file.getvalue()


TARGET = Target(ending=".joblib", blocks=_BLOCKS, make=_make, encode=_encode)
