"""The targets of an export, and an export to any of them."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from altrelu_dist.errors import DataError, ParameterError

if TYPE_CHECKING:
    from altrelu_dist.exports.target import Target
    from altrelu_dist.network import Network

__all__ = ["TARGETS", "check_export", "export", "made"]

# Names, and the modules of this folder that hold each one's `TARGET`.
TARGETS = {
    "onnx": "onnx_graph",
    "torch": "torch_program",
    "sklearn": "sklearn_pipeline",
    "numpy": "numpy_module",
    "c": "c_source",
}


def export(
    network: Network, path: str | os.PathLike[str], *, to: str, overwrite: bool = False
) -> int:
    """Write a network as a file that other programs run, its encoder included.

    The file is whole or not there: it is written beside ``path`` and put in place when complete.

    Parameters
    ----------
    network : Network
    path : str or path-like
        Of this machine, or an address that fsspec knows, with the ending of the target.
    to : {"onnx", "torch", "sklearn", "numpy", "c"}
        ``"onnx"``: an ONNX model (``.onnx``). ``"torch"``: a program of `torch.export` (``.pt2``).
        ``"sklearn"``: a fitted Pipeline, by joblib (``.joblib``). ``"numpy"``: a Python module with
        functions ``predict(X)`` and ``matrix(table)`` (``.py``). ``"c"``: C99 with a function
        ``predict(x, y)``, and for texts ``level_of(column, text)`` (``.c``).
    overwrite : bool, default False

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    ParameterError
        If there is no such target, the ending is not that of its files, or it cannot hold a kind
        of encoded columns that the network has. scikit-learn cannot hold levels that are texts of
        numbers.
    DataError
        If the library that the target needs is not installed, or the file cannot be written.
    ExistsError
        If ``path`` exists and is not to be overwritten.
    """
    from altrelu_dist.outputs import write_beside

    target = check_export(path, to=to, overwrite=overwrite)
    content = target.encode(made(network, to), network)
    with write_beside(path, overwrite=overwrite) as part:
        if "://" not in part:  # in names of this machine no character means anything
            Path(part).write_bytes(content)
        else:
            import fsspec

            fs, name = fsspec.core.url_to_fs(part)
            fs.pipe_file(name, content)
    return len(content)


def check_export(path: str | os.PathLike[str], *, to: str, overwrite: bool) -> Target:
    """Refuse an export that cannot be made, before the network is read; else its target."""
    from altrelu_dist.outputs import check_output

    target = _target(to)
    text = os.fspath(path)
    if PurePosixPath(text).suffix.lower() != target.ending:
        raise ParameterError(f"{text}: its ending must be {target.ending} for an export to {to}")
    check_output(path, overwrite=overwrite)
    return target


def made(network: Network, to: str) -> Any:
    """What stands for a network in a target's own library.

    Raises
    ------
    ParameterError, DataError
        As `export`.
    """
    target = _target(to)
    for block in network.encoder.blocks if network.encoder is not None else ():
        kind = type(block)
        if kind not in target.blocks:
            able = [name for name in TARGETS if kind in _module(name).blocks]
            others = f"export to {' or '.join(able)}" if able else "no target can hold them"
            raise ParameterError(
                f"is {to!r}, which cannot hold encoded columns of the kind {kind.__name__}; "
                f"{others}",
                parameter="to",
            )
    return target.make(network)


def _target(to: str) -> Target:
    """The target of some name, where its library is installed."""
    if to not in TARGETS:
        raise ParameterError(f"is {to!r}; expected one of {', '.join(TARGETS)}", parameter="to")
    target = _module(to)
    if target.package is not None and find_spec(target.package) is None:
        raise DataError(
            f"an export to {to} needs the package {target.package}: pip install {target.install}"
        )
    return target


def _module(to: str) -> Target:
    target: Target = importlib.import_module(f"altrelu_dist.exports.{TARGETS[to]}").TARGET
    return target
