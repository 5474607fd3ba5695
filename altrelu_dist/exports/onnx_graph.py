"""ONNX: a graph of plain operators in float64, which takes texts as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.encoding.raw import UNSEEN
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.exports.filling import Filling, filling_of
from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]

_OPSET, _ML_OPSET, _IR_VERSION = 17, 2, 8  # of 2022: programs in use read them


class _Graph:
    """Nodes and arrays of a graph, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self._names = {"X", "y"}

    def name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        while wanted in self._names:
            wanted += "_"
        self._names.add(wanted)
        return wanted

    def array(self, values: Any) -> str:
        """A constant."""
        from onnx import numpy_helper

        name = self.name(f"array{len(self.arrays)}")
        # Not contiguous ones would be cut short or refused.
        self.arrays.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node; the name of its output."""
        from onnx import helper

        out = name or self.name(f"value{len(self.nodes)}")
        self.nodes.append(helper.make_node(operator, [*inputs], [out], **attributes))
        return out

    def taken(self, X: str, columns: Any) -> str:
        """Some columns, by their numbers."""
        return self.add("Gather", X, self.array(columns.astype(np.int64)), axis=1)

    def scaled(self, value: str, center: Any, scale: Any) -> str:
        """Standardised."""
        return self.add("Div", self.add("Sub", value, self.array(center)), self.array(scale))

    def number(self, condition: str) -> str:
        """Zero or one."""
        from onnx import TensorProto

        return self.add("Cast", condition, to=TensorProto.DOUBLE)

    def clipped(self, value: str, low: Any, high: Any) -> str:
        """As `numpy.clip`; NaN stays NaN, which `Clip` and `Max` do not promise."""
        least, most = self.array(low), self.array(high)
        value = self.add("Where", self.add("Less", value, least), least, value)
        return self.add("Where", self.add("Greater", value, most), most, value)


@dataclass(frozen=True)
class _Raw:
    """The raw columns: as they are, with infinite values as NaN, and where these are."""

    given: str
    clean: str
    infinite: str


def _ramps(graph: _Graph, X: _Raw, block: ColumnBlock) -> str:
    ramps = ramps_of(block)
    value = graph.scaled(graph.taken(X.clean, ramps.source), ramps.begin, ramps.length)
    value = graph.clipped(value, ramps.low, ramps.high)
    value = graph.add("Sub", value, graph.array(ramps.center))
    return graph.add("Mul", value, graph.array(ramps.factor))


def _levels(graph: _Graph, X: _Raw, block: LevelColumns) -> str:
    codes = graph.taken(X.clean, block.sources)
    places = graph.array(block.places.astype(np.float64))
    found = graph.number(graph.add("Equal", graph.add("Floor", codes), places))
    value = graph.add("Where", graph.add("IsNaN", codes), graph.array(np.nan), found)
    return graph.scaled(value, block.center, block.scale)


def _times(graph: _Graph, X: _Raw, block: TimeColumns) -> str:
    turns = graph.add("Div", graph.taken(X.clean, block.sources), graph.array(block.period))
    turns = graph.add("Sub", turns, graph.add("Floor", turns))
    angle = graph.add("Mul", turns, graph.array(2 * np.pi))
    wave = graph.add("Sin", graph.add("Add", angle, graph.array(block.phase)))
    return graph.scaled(wave, block.center, block.scale)


def _gaps(graph: _Graph, X: _Raw, block: GapColumns) -> str:
    missing = graph.number(graph.add("IsNaN", graph.taken(X.given, block.sources)))
    return graph.scaled(missing, block.share, block.scale)


def _filled(graph: _Graph, X: _Raw, value: str, filling: Filling) -> str:
    missing = graph.add("And", graph.add("IsNaN", value), graph.array(filling.lacking))
    value = graph.add("Where", missing, graph.array(0.0), value)
    infinite = graph.taken(X.infinite, filling.source)
    return graph.add("Where", infinite, graph.array(np.nan), value)


_BLOCKS: dict[type[ColumnBlock], Any] = dict.fromkeys(RAMPS, _ramps) | {
    LevelColumns: _levels,
    TimeColumns: _times,
    GapColumns: _gaps,
}


@dataclass(frozen=True)
class _Inputs:
    """What a graph takes: ``X``, if anything is a number or a time, and texts column by column.

    `names` and `missing` are by the number of the raw column: the name of its input, and the text
    that stands for a missing one.
    """

    names: dict[int, str]
    missing: dict[int, str]
    others: list[int]

    @classmethod
    def of(cls, graph: _Graph, network: Network) -> _Inputs:
        columns = network.columns or ()
        known = network.feature_names or [f"x{j}" for j in range(network.n_features)]
        names, missing = {}, {}
        for j, column in enumerate(columns):
            if column.kind == "levels":
                names[j] = graph.name(known[j] or f"x{j}")
                missing[j] = ""
                while missing[j] in column.levels:
                    missing[j] = f"<{missing[j] or 'missing'}>"
        return cls(names, missing, [j for j in range(network.n_features) if j not in names])

    def infos(self) -> list[Any]:
        """Of the model."""
        from onnx import TensorProto, helper

        infos = []
        if self.others or not self.names:
            infos = [
                helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["n_rows", len(self.others)])
            ]
        return infos + [
            helper.make_tensor_value_info(name, TensorProto.STRING, ["n_rows", 1])
            for name in self.names.values()
        ]

    def matrix(self, graph: _Graph, network: Network) -> str:
        """The raw columns, side by side."""
        from onnx import TensorProto

        if not self.names:
            return "X"
        parts = ["X"] if self.others else []
        for j, name in self.names.items():
            levels = network.columns[j].levels  # type: ignore[index]
            code = graph.add(
                "LabelEncoder",
                name,
                domain="ai.onnx.ml",
                keys_strings=[self.missing[j], *levels],
                values_floats=[np.nan, *map(float, range(len(levels)))],
                default_float=float(UNSEEN),
            )
            parts.append(graph.add("Cast", code, to=TensorProto.DOUBLE))
        order = np.argsort([*self.others, *self.names])
        return graph.taken(graph.add("Concat", *parts, axis=1), order)


def _make(network: Network) -> Any:
    from onnx import TensorProto, helper

    graph = _Graph()
    inputs = _Inputs.of(graph, network)
    value = inputs.matrix(graph, network)
    if network.encoder is not None:
        infinite = graph.add("IsInf", value)
        clean = graph.add("Where", infinite, graph.array(np.nan), value)
        raw = _Raw(value, clean, infinite)
        parts = [
            _BLOCKS[type(block)](graph, raw, block)
            for block in network.encoder.blocks
            if block.n_columns
        ]
        if parts:
            value = graph.add("Concat", *parts, axis=1)
        if filling := filling_of(network.encoder):
            value = _filled(graph, raw, value, filling)
    hidden_weights = network.hidden_weights
    if not len(hidden_weights):  # no runtime multiplies by nothing: by zeros instead
        hidden_weights = np.zeros((network.n_features, network.n_hidden))
        value = graph.clipped(clean, 0.0, 0.0)
    z = graph.add("MatMul", value, graph.array(hidden_weights))
    z = graph.add("Add", z, graph.array(network.hidden_bias))
    zero = graph.array(0.0)
    slope = network.negative_slope
    left = graph.add("Mul", z, graph.array(slope)) if slope else zero
    hidden = graph.add("Where", graph.add("Less", z, zero), left, z)
    y = graph.add("MatMul", hidden, graph.array(network.output_weights))
    y = graph.add("Add", y, graph.array(network.output_bias))
    if network.target_range is not None:
        y = graph.clipped(y, *network.target_range)
    graph.add("Identity", y, name="y")
    kind = TensorProto.DOUBLE
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            inputs.infos(),
            [helper.make_tensor_value_info("y", kind, ["n_rows", network.n_targets])],
            graph.arrays,
        ),
        opset_imports=[
            helper.make_opsetid("", _OPSET),
            *([helper.make_opsetid("ai.onnx.ml", _ML_OPSET)] if inputs.names else []),
        ],
        ir_version=_IR_VERSION,
        producer_name="altrelu-dist",
        producer_version=__version__,
    )
    told: dict[str, Any] = {
        "feature_names": network.feature_names,
        "target_names": network.target_names,
    }
    if inputs.names:
        features = network.feature_names or range(network.n_features)
        told["numbers"] = [features[j] for j in inputs.others]
        told["texts"] = {name: features[j] for j, name in inputs.names.items()}
        told["missing"] = {name: inputs.missing[j] for j, name in inputs.names.items()}
    known = {key: json.dumps(value) for key, value in told.items() if value is not None}
    helper.set_model_props(model, known)
    return model


def _encode(model: Any, network: Network) -> bytes:
    del network
    content: bytes = model.SerializeToString(deterministic=True)
    return content


TARGET = Target(
    ending=".onnx",
    blocks=_BLOCKS,
    make=_make,
    encode=_encode,
    package="onnx",
    install="'altrelu-dist[export]'",
)
