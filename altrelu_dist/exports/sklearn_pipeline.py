"""scikit-learn: a fitted pipeline of its own classes, written by joblib.

The neurons are an `MLPRegressor`. Its activation is max(z, 0) in every layer, and so

- a leaky neuron is two of them: max(z, slope z) = max(z, 0) - slope max(-z, 0);
- the range of the targets is two more layers: clip(y, low, high) = low + max((high - low) -
  max(high - y, 0), 0), which loses nothing however far y is.

Encoded columns keep NaN where their raw value is missing. An imputer makes it zero in those that
may be missing; the `MLPRegressor` refuses the rest.
"""

from __future__ import annotations

import io
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from altrelu_dist.data.columns import number_text
from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.encoding.raw import UNSEEN, all_numbers
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.errors import ParameterError
from altrelu_dist.exports.ramps import RAMPS, Ramps, ramps_of
from altrelu_dist.exports.target import Target

if TYPE_CHECKING:
    from altrelu_dist.encoding import Encoder, RawColumns
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Floats, Network

__all__ = ["TARGET"]

Mask = NDArray[np.bool_]


def _make(network: Network) -> Any:
    from sklearn.pipeline import Pipeline

    names = network.feature_names
    if network.columns is None or all_numbers(network.columns):
        steps, order = _numbers(names, network.n_features), np.arange(network.n_features)
    else:
        steps, order = _table(names, network.columns)
    hidden_weights = network.hidden_weights
    if network.encoder is None:
        hidden_weights = hidden_weights[order]
    else:
        if not network.encoder.n_columns:  # scikit-learn takes no tables without columns
            hidden_weights = np.zeros((1, network.n_hidden))
        union, chosen = _encoding(network.encoder, np.argsort(order))
        steps.append(("encoder", union))
        hidden_weights = hidden_weights[chosen]
    return Pipeline([*steps, ("network", _neurons(network, hidden_weights))])


# Raw columns


def _numbers(names: tuple[str, ...] | None, count: int) -> list[tuple[str, Any]]:
    """Steps that take a matrix: no infinite values, in float64 so that differences are kept."""
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

    one_row = np.zeros((1, count))
    check = StandardScaler(with_mean=False, with_std=False)  # does nothing else
    check.fit(one_row if names is None else pd.DataFrame(one_row, columns=list(names)))
    return [("check", check), ("numbers", _function(np.asarray, dtype="float64"))]


def _table(
    names: tuple[str, ...] | None, columns: RawColumns
) -> tuple[list[tuple[str, Any]], NDArray[np.intp]]:
    """Steps that take a table, and the raw column that each column of the result is."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    known = list(names or range(len(columns)))
    first = {"number": [0.0], "levels": [""], "time": [pd.Timestamp(0)]}
    row = pd.DataFrame({name: first[c.kind] for name, c in zip(known, columns, strict=True)})
    parts, order = [], []
    for kind in first:
        places = [j for j, column in enumerate(columns) if column.kind == kind]
        if not places:
            continue
        if kind == "number":
            made = make_pipeline(*(step for _, step in _numbers(None, len(places))))
        elif kind == "levels":
            made = _texts(known, columns, places)
        else:
            made = _seconds(len(places))
        parts.append((kind, made, places if names is None else [known[j] for j in places]))
        order += places
    return [("table", ColumnTransformer(parts).fit(row))], np.array(order)


def _texts(known: list[Any], columns: RawColumns, places: list[int]) -> Any:
    """Texts to the places of their levels; a step for one text alone would not see the others."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    for j in places:
        # A column of numbers may be given for one of such texts; scikit-learn has 3.0 as "3.0".
        if found := [level for level in columns[j].levels if number_text(level) == level]:
            raise ParameterError(
                f"is 'sklearn', which cannot tell the level {found[0]!r:.80} of column "
                f"{known[j]!r} from a number; export to onnx or torch or numpy or c",
                parameter="to",
            )
    encoder = OrdinalEncoder(
        categories=[np.array([*columns[j].levels, np.nan], dtype=object) for j in places],
        handle_unknown="use_encoded_value",
        unknown_value=UNSEEN,
        encoded_missing_value=np.nan,
    )
    plain = _function(methodcaller("astype", object))
    return make_pipeline(plain, _function(methodcaller("fillna", np.nan)), encoder)


def _seconds(count: int) -> Any:
    """Times to seconds since 1970: whole ones and the rest apart, as each of them is exact."""
    import pandas as pd
    from sklearn.pipeline import FeatureUnion, make_pipeline

    second = pd.Timedelta(seconds=1).as_unit("s")
    parts = [
        ("whole", _function(methodcaller("floordiv", second))),
        (
            "rest",
            make_pipeline(
                _function(methodcaller("mod", second)), _function(methodcaller("truediv", second))
            ),
        ),
    ]
    return make_pipeline(
        _function(methodcaller("sub", pd.Timestamp(0).as_unit("s"))),
        FeatureUnion(parts),
        _function(methodcaller("reshape", -1, 2, count)),
        _function(np.sum, axis=1),
    )


# Encoded columns


def _encoding(encoder: Encoder, place: NDArray[np.intp]) -> tuple[Any, NDArray[np.intp]]:
    """What makes the encoded columns, of columns at some places, and the order that they are in."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import FeatureUnion, Pipeline

    chains, order = [], []
    for number, block in enumerate(encoder.blocks):
        start = encoder.columns_of(number).start
        lacking = encoder.lacking[block.sources]
        for name, some in (("", ~lacking), ("_filled", lacking)):
            if some.any():
                steps = [_taken(place[block.sources[some]]), *_BLOCKS[type(block)](block, some)]
                if name:
                    fill = SimpleImputer(strategy="constant", fill_value=0.0)
                    steps.append(("fill", fill.fit(np.zeros((1, some.sum())))))
                chains.append((f"block{number}{name}", Pipeline(steps)))
                order.append(start + np.flatnonzero(some))
    if not chains:
        zeros = _function(np.sum, axis=1, keepdims=True, where=False)
        return zeros, np.zeros(1, int)
    return FeatureUnion(chains), np.concatenate(order)


def _ramps(block: ColumnBlock, some: Mask) -> list[tuple[str, Any]]:
    ramps: Ramps = ramps_of(block)
    size = int(some.sum())
    return [
        ("scale", _scaled(ramps.begin[some], ramps.length[some])),
        ("clip", _function(np.clip, a_min=ramps.low, a_max=ramps.high)),
        ("center", _scaled(ramps.center[some], np.full(size, 1 / ramps.factor))),
    ]


def _levels(block: LevelColumns, some: Mask) -> list[tuple[str, Any]]:
    # One less the distance of the places, which keeps NaN, where == has none.
    return [
        ("place", _function(methodcaller("__sub__", block.places[some].astype(float)))),
        ("distance", _function(np.absolute)),
        ("clip", _function(np.clip, a_min=0.0, a_max=1.0)),
        ("indicator", _function(methodcaller("__rsub__", 1.0))),
        ("scale", _scaled(block.center[some], block.scale[some])),
    ]


def _times(block: TimeColumns, some: Mask) -> list[tuple[str, Any]]:
    return [
        ("turns", _function(methodcaller("__truediv__", block.period[some]))),
        ("rest", _function(methodcaller("__mod__", 1.0))),
        ("angle", _function(methodcaller("__mul__", 2 * np.pi))),
        ("phase", _function(methodcaller("__add__", block.phase[some]))),
        ("wave", _function(np.sin)),
        ("scale", _scaled(block.center[some], block.scale[some])),
    ]


def _gaps(block: GapColumns, some: Mask) -> list[tuple[str, Any]]:
    return [
        ("missing", _function(np.isnan)),
        ("scale", _scaled(block.share[some], block.scale[some])),
    ]


_BLOCKS: dict[type[ColumnBlock], Any] = dict.fromkeys(RAMPS, _ramps) | {
    LevelColumns: _levels,
    TimeColumns: _times,
    GapColumns: _gaps,
}


def _taken(columns: NDArray[np.intp]) -> tuple[str, Any]:
    return "columns", _function(np.take, indices=columns, axis=1)


def _function(function: Any, **words: Any) -> Any:
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(function, kw_args=words)


def _scaled(center: Floats, scale: Floats) -> Any:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = center, scale, scale**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(center), 1
    return scaler


# The network


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
