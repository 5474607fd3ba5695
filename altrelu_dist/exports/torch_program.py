"""PyTorch: a program of `torch.export` in float64, which loads without the code that made it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.exports.filling import filling_of
from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]


def _ramps(block: ColumnBlock) -> Any:
    import torch

    ramps = ramps_of(block)

    def encode(own: Any, X: Any) -> Any:
        value = (X.index_select(1, own.source) - own.begin) / own.length
        value = torch.clamp(value, ramps.low, ramps.high)  # NaN stays NaN
        return (value - own.center) * ramps.factor

    names = ("source", "begin", "length", "center")
    return _module(encode, **{name: getattr(ramps, name) for name in names})


def _levels(block: LevelColumns) -> Any:
    import torch

    def encode(own: Any, X: Any) -> Any:
        codes = X.index_select(1, own.source)
        found = (torch.floor(codes) == own.place).double()
        return (torch.where(torch.isnan(codes), torch.nan, found) - own.center) / own.scale

    return _module(
        encode, source=block.sources, place=block.places, center=block.center, scale=block.scale
    )


def _times(block: TimeColumns) -> Any:
    import torch

    def encode(own: Any, X: Any) -> Any:
        turns = X.index_select(1, own.source) / own.period
        wave = torch.sin(2 * np.pi * (turns - torch.floor(turns)) + own.phase)
        return (wave - own.center) / own.scale

    names = ("period", "phase", "center", "scale")
    return _module(encode, source=block.sources, **{name: getattr(block, name) for name in names})


def _gaps(block: GapColumns) -> Any:
    import torch

    def encode(own: Any, X: Any) -> Any:
        missing = torch.isnan(X.index_select(1, own.source)).double()
        return (missing - own.share) / own.scale

    return _module(encode, source=block.sources, share=block.share, scale=block.scale)


def _module(encode: Callable[[Any, Any], Any], **arrays: Any) -> Any:
    """A module that encodes columns with some arrays."""
    import torch

    class Columns(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, values in arrays.items():
                self.register_buffer(name, _tensor(values))

        def forward(self, X: Any) -> Any:
            return encode(self, X)

    return Columns()


_BLOCKS: dict[type[ColumnBlock], Any] = dict.fromkeys(RAMPS, _ramps) | {
    LevelColumns: _levels,
    TimeColumns: _times,
    GapColumns: _gaps,
}


def _tensor(values: Any) -> Any:
    import torch

    kept = np.array(values, order="C")
    if kept.dtype.kind == "b":
        return torch.from_numpy(kept)
    return torch.from_numpy(kept.astype(np.int64 if kept.dtype.kind == "i" else np.float64))


def _make(network: Network) -> Any:
    import torch

    slope = network.negative_slope
    encoder, span = network.encoder, network.target_range
    filling = None if encoder is None else filling_of(encoder)

    class TwoLayers(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
                self.register_buffer(name, _tensor(getattr(network, name)))
            if span is not None:
                self.register_buffer("least", _tensor(span[0]))
                self.register_buffer("greatest", _tensor(span[1]))
            if filling is not None:
                self.register_buffer("source", _tensor(filling.source))
                self.register_buffer("lacking", _tensor(filling.lacking))
            blocks = () if encoder is None else encoder.blocks
            self.blocks = torch.nn.ModuleList([_BLOCKS[type(b)](b) for b in blocks])

        def forward(self, X: Any) -> Any:
            if encoder is not None:
                infinite = torch.isinf(X)
                X = torch.where(infinite, torch.nan, X)
                parts = [block(X) for block in self.blocks]
                X = torch.cat(parts, 1) if parts else X[:, :0]
                if filling is not None:
                    X = torch.where(torch.isnan(X) & self.lacking, 0.0, X)
                    X = torch.where(infinite.index_select(1, self.source), torch.nan, X)
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

    raw = network.columns
    names = {
        "feature_names": network.feature_names,
        "target_names": network.target_names,
        "columns": None if raw is None else [column.to_json() for column in raw],
    }
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"names.json": json.dumps(names)})
    return file.getvalue()


TARGET = Target(
    ending=".pt2",
    blocks=_BLOCKS,
    make=_make,
    encode=_encode,
    package="torch",
    install="'altrelu-dist[torch]'",
)
