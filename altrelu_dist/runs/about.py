"""What a saved network is and how it was trained, in words for a screen and a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.data.classes import classes_line
from altrelu_dist.runs.output import seconds_text
from altrelu_dist.runs.scores import chosen_text, expected_classes_text, expected_text

if TYPE_CHECKING:
    from altrelu_dist.network import Network

__all__ = ["About", "about"]

_FREQUENT = 3  # levels of a column that are listed
# What the blocks of an encoder are called.
_WORDS = {
    "standard": "standardised",
    "pieces": "pieces",
    "levels": "indicators of levels",
    "times": "waves of day, week and year",
    "gaps": "an indicator of missing values",
}


@dataclass(frozen=True)
class About:
    """A saved network, told.

    Parameters
    ----------
    what : str
        Its sizes, and what it predicts.
    classes : str
        Which classes it predicts; empty if it predicts numbers.
    columns : list of dict
        Of each raw column the name (``column``), what it holds (``kind``) and what the network
        takes of it (``encoded``).
    training : list of str
        How it was trained, as far as the file says, and what it expects on new rows.
    record : dict
        All of it for JSON.
    """

    what: str
    classes: str
    columns: list[dict[str, str]]
    training: list[str]
    record: dict[str, Any]


def about(network: Network, address: str) -> About:
    """Tell of a network that was loaded from an address."""
    found, encoder = network.info, network.encoder
    sizes = np.abs(network.hidden_weights).sum(axis=0) * np.abs(network.output_weights).sum(axis=1)
    working = int(np.count_nonzero(sizes))
    columns = [
        {"column": name, "kind": kind, "encoded": encoded}
        for name, kind, encoded in _columns(network)
    ]
    record = {
        "model": address,
        "features": network.n_features,
        "encoded": None if encoder is None else encoder.n_columns,
        "hidden": network.n_hidden,
        "working": working,
        "targets": list(network.target_columns or ()),
        "columns": columns,
        **{name: value for name, value in found.items() if name != "history"},
    }
    taken = "as they are" if encoder is None else f"encoded as {encoder.n_columns:,} columns"
    size = f"{network.n_hidden:,} hidden neurons"
    if working < network.n_hidden:
        size += f" ({working:,} with weights on both sides)"
    targets = ", ".join(network.target_names or [f"y{t}" for t in range(network.n_targets)])
    classes = ""
    if network.classes is not None:
        (targets,) = network.target_columns or ("classes",)
        classes = classes_line(targets, network.classes)
    what = f"network of {network.n_features:,} features {taken}, {size}, predicts {targets}"
    training = []
    if "data" in found:
        training.append(f"trained on {found.get('rows', 0):,} rows of {found['data']}")
    if "saved" in found:
        training.append(f"saved {found['saved']}")
    if "history" in found:
        training.append(_training(found))
    if "groups" in found:
        training.append(chosen_text(network))
    if "expected_r2" in found or "expected_loss" in found:
        training.append(expected_text(found))
    if "expected_accuracy" in found:
        training.append(expected_classes_text(found))
    return About(what, classes, columns, training, record)


def _training(found: dict[str, Any]) -> str:
    """How it was trained, in a line."""
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor

    usual = AltReLUClassifier().get_params() | AltReLURegressor().get_params()
    parameters = found.get("parameters", {})
    chosen = [f"{name}={value}" for name, value in parameters.items() if value != usual.get(name)]
    last = found["history"][-1] if found["history"] else {}
    words = f"trained with {', '.join(chosen) or 'all defaults'}"
    if last:
        words += (
            f": {found.get('n_passes', '?')} passes over the data, {len(found['history'])} "
            f"iterations, {seconds_text(last['seconds'])}, ended: {found.get('stop_reason')}"
        )
    return words


def _columns(network: Network) -> list[tuple[str, str, str]]:
    """Of each raw column its name, what it holds, and what the network takes of it."""
    names = network.feature_names or [f"x{i}" for i in range(network.n_features)]
    told = []
    for i, name in enumerate(names):
        raw = None if network.columns is None else network.columns[i]
        holds = "numbers"
        if raw is not None and raw.kind == "time":
            holds = "times"
        elif raw is not None and raw.kind == "levels":
            some = ", ".join(raw.levels[:_FREQUENT])
            more = ", ..." if len(raw.levels) > _FREQUENT else ""
            holds = f"{len(raw.levels):,} levels: {some}{more}"
        if network.encoder is None:
            told.append((name, holds, "the column as it is"))
            continue
        parts = []
        for kind, block in network.encoder.named_blocks():
            count = int((block.sources == i).sum())
            if count:
                single = kind in ("standard", "gaps")
                parts.append(_WORDS[kind] if single else f"{count} {_WORDS[kind]}")
        told.append((name, holds, ", ".join(parts) or "nothing"))
    return told
