"""The methods by which networks and estimators are exported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from altrelu_dist.exports.registry import export, made

if TYPE_CHECKING:
    from altrelu_dist.network import Network

__all__ = ["ExportMethods"]


class ExportMethods:
    """Exports of what has a network."""

    def _exported(self) -> Network:
        """The network to export."""
        raise NotImplementedError

    def export(self, path: str | os.PathLike[str], *, to: str, overwrite: bool = False) -> int:
        """Write a file that other programs run, the encoder included; see `export`.

        Parameters
        ----------
        path : str or path-like
            With the ending of the target.
        to : {"onnx", "torch", "sklearn", "numpy", "c"}
        overwrite : bool, default False

        Returns
        -------
        int
            Size of the file in bytes.

        Raises
        ------
        ParameterError, DataError, ExistsError
            As `export`.
        """
        return export(self._exported(), path, to=to, overwrite=overwrite)

    def to_onnx(self) -> Any:
        """ONNX model: takes ``X``, gives ``y``, both float64; takes texts column by column.

        Returns
        -------
        onnx.ModelProto
        """
        return made(self._exported(), "onnx")

    def to_torch(self) -> Any:
        """Program of PyTorch; its ``module()`` takes and gives tensors of float64, texts as codes.

        Returns
        -------
        torch.export.ExportedProgram
        """
        return made(self._exported(), "torch")

    def to_sklearn(self) -> Any:
        """Fitted pipeline of scikit-learn's own classes.

        Returns
        -------
        sklearn.pipeline.Pipeline
            Of matrices or, where the network has texts or times, of pandas DataFrames.

        Raises
        ------
        ParameterError
            If a level is the text of a number.
        """
        return made(self._exported(), "sklearn")
