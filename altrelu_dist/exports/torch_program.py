"""PyTorch: a program of `torch.export` in float64, which loads without the code that made it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]


def _ramps(block: ColumnBlock) -> Any:
    import torch

    ramps = ramps_of(block)

    class Ramps(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name in ("source", "begin", "length", "center"):
                self.register_buffer(name, _tensor(getattr(ramps, name)))

        def forward(self, X: Any) -> Any:
            value = (X.index_select(1, self.source) - self.begin) / self.length
            value = torch.clamp(value, ramps.low, ramps.high)  # NaN stays NaN
            return (value - self.center) * ramps.factor

    return Ramps()


_BLOCKS = dict.fromkeys(RAMPS, _ramps)


def _tensor(values: Any) -> Any:
    import torch

    kept = np.array(values, order="C")
    return torch.from_numpy(kept.astype(np.int64 if kept.dtype.kind == "i" else np.float64))


def _make(network: Network) -> Any:
    import torch

    slope = network.negative_slope
    encoder, span = network.encoder, network.target_range

    class TwoLayers(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
                self.register_buffer(name, _tensor(getattr(network, name)))
            if span is not None:
                self.register_buffer("least", _tensor(span[0]))
                self.register_buffer("greatest", _tensor(span[1]))
            blocks = () if encoder is None else encoder.blocks
            self.blocks = torch.nn.ModuleList([_BLOCKS[type(b)](b) for b in blocks])

        def forward(self, X: Any) -> Any:
            if encoder is not None:
                X = torch.where(torch.isinf(X), torch.nan, X)
                parts = [block(X) for block in self.blocks]
                X = torch.cat(parts, 1) if parts else X[:, :0]
            z = X @ self.hidden_weights + self.hidden_bias
            hidden = torch.where(z < 0, slope * z if slope else 0.0, z)
            y = hidden @ self.output_weights + self.output_bias
            return y if span is None else torch.clamp(y, self.least, self.greatest)

    rows = torch.zeros(2, network.n_features, dtype=torch.float64)
    any_number = ({0: torch.export.Dim("n_rows", min=0)},)
    program = torch.export.export(TwoLayers(), (rows,), dynamic_shapes=any_number)
    for module in program.graph_module.modules():
        for node in module.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _encode(program: Any, network: Network) -> bytes:
    import torch

    names = {"feature_names": network.feature_names, "target_names": network.target_names}
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"names.json": json.dumps(names)})
    return file.getvalue()


TARGET = Target(
    ending=".pt2",
    blocks=_BLOCKS,
    make=_make,
    encode=_encode,
    library="torch",
    install="'altrelu-dist[torch]'",
)
