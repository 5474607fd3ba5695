"""ONNX: a graph of plain operators in float64."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]

_OPSET, _IR_VERSION = 17, 8  # of 2022: programs in use read them


class _Graph:
    """Nodes and arrays of a graph, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []

    def array(self, values: Any) -> str:
        """A constant."""
        from onnx import numpy_helper

        name = f"array{len(self.arrays)}"
        # Not contiguous ones would be cut short or refused.
        self.arrays.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node; the name of its output."""
        from onnx import helper

        out = name or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [*inputs], [out], **attributes))
        return out

    def clipped(self, value: str, low: Any, high: Any) -> str:
        """As `numpy.clip`; NaN stays NaN, which `Clip` and `Max` do not promise."""
        least, most = self.array(low), self.array(high)
        value = self.add("Where", self.add("Less", value, least), least, value)
        return self.add("Where", self.add("Greater", value, most), most, value)


def _ramps(graph: _Graph, X: str, block: ColumnBlock) -> str:
    ramps = ramps_of(block)
    value = graph.add("Gather", X, graph.array(ramps.source.astype(np.int64)), axis=1)
    value = graph.add("Sub", value, graph.array(ramps.begin))
    value = graph.add("Div", value, graph.array(ramps.length))
    value = graph.clipped(value, ramps.low, ramps.high)
    value = graph.add("Sub", value, graph.array(ramps.center))
    return graph.add("Mul", value, graph.array(ramps.factor))


_BLOCKS = dict.fromkeys(RAMPS, _ramps)


def _make(network: Network) -> Any:
    from onnx import TensorProto, helper

    graph = _Graph()
    value = "X"
    if network.encoder is not None:
        clean = graph.add("Where", graph.add("IsInf", "X"), graph.array(np.nan), "X")
        parts = [
            _BLOCKS[type(block)](graph, clean, block)
            for block in network.encoder.blocks
            if block.n_columns
        ]
        if parts:
            value = graph.add("Concat", *parts, axis=1)
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
            [helper.make_tensor_value_info("X", kind, ["n_rows", network.n_features])],
            [helper.make_tensor_value_info("y", kind, ["n_rows", network.n_targets])],
            graph.arrays,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="altrelu-dist",
        producer_version=__version__,
    )
    names = {"feature_names": network.feature_names, "target_names": network.target_names}
    known = {key: json.dumps(value) for key, value in names.items() if value is not None}
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
    library="onnx",
    install="'altrelu-dist[export]'",
)
