"""A fitted estimator as a file: a network's, and in its info what else the estimator knows."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from altrelu_dist.errors import ModelFileError
from altrelu_dist.memory import PeakMemory
from altrelu_dist.network import Network

if TYPE_CHECKING:
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor
    from altrelu_dist.estimators.base import NetworkEstimator

__all__ = ["load_estimator", "load_model", "save_estimator"]

Kind = TypeVar("Kind", bound="NetworkEstimator")

_NOT_SAVED = ("client", "callback", "random_state", "checkpoint", "checkpoint_interval", "resume")


def save_estimator(
    model: NetworkEstimator, path: str | os.PathLike[str], *, overwrite: bool
) -> None:
    """Save the network, and the parameters, the history and the time with it."""
    parameters = model.get_params(deep=False)
    kept = {name: value for name, value in parameters.items() if name not in _NOT_SAVED}
    if isinstance(model.random_state, numbers.Integral):
        kept["random_state"] = int(model.random_state)
    info = model.network_.info | {
        "parameters": {name: _plain(value) for name, value in kept.items()},
        "history": [{k: _plain(v) for k, v in entry.items()} for entry in model.history_],
        "n_passes": model.n_passes_,
        "stop_reason": model.stop_reason_,
        "peak_memory": asdict(model.peak_memory_),
        "flat": model._flat,
        "saved": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    replace(model.network_, info=info).save(path, overwrite=overwrite)


def load_estimator(kind: type[Kind], path: str | os.PathLike[str]) -> Kind:
    """A fitted estimator, of what was saved or of a bare network.

    Raises
    ------
    ModelFileError
        As `Network.load`, if it is of another kind of estimator, or if the parameters or the
        history are damaged.
    """
    network = Network.load(path)
    if (network.classes is not None) != kind._logistic:
        other = "a regressor" if kind._logistic else "a classifier"
        raise ModelFileError(f"{path} holds {other}; {kind.__name__} cannot load it")
    try:
        return _estimator(kind, network)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged: its history or parameters: {error}") from error


def load_model(path: str | os.PathLike[str]) -> AltReLURegressor | AltReLUClassifier:
    """The fitted estimator of a network, whichever it is.

    Raises
    ------
    ModelFileError
        As `load_estimator`.
    """
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor

    if Network.load(path).classes is None:
        return AltReLURegressor.load(path)
    return AltReLUClassifier.load(path)


def _estimator(kind: type[Kind], network: Network) -> Kind:
    info = network.info
    known = set(kind._get_param_names())
    parameters = {k: v for k, v in info.get("parameters", {}).items() if k in known}
    n_hidden = None if network.encoder is not None else network.n_hidden  # None: a committee
    model = kind(**{"n_hidden": n_hidden} | parameters)
    model.network_ = network
    model._restored(network)
    history = [
        {k: math.nan if v is None else v for k, v in entry.items()}
        for entry in info.get("history", [])
    ]
    memory = PeakMemory(**info.get("peak_memory", {}))
    reason = info.get("stop_reason", "converged")
    model._told_by(history, int(info.get("n_passes", 0)), reason, memory)
    model._flat = bool(info.get("flat", network.n_targets == 1))
    model.n_features_in_ = network.n_features
    if network.feature_names is not None:
        model.feature_names_in_ = np.asarray(network.feature_names, dtype=object)
    return model


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, Mapping):  # by keys of any type
        return [[_plain(key), _plain(of)] for key, of in value.items()]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
