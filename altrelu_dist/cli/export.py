"""`altrelu export`: a saved network as a file that other programs run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from altrelu_dist.cli.options import Json, Model, Overwrite, Quiet
from altrelu_dist.exports.registry import TARGETS
from altrelu_dist.runs.output import Output, bytes_text, seconds_text

if TYPE_CHECKING:
    from altrelu_dist.network import Network

__all__ = ["export"]


def export(
    model: Model,
    to: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help=f"What is to run it: {', '.join(TARGETS)}.",
            autocompletion=lambda: [*TARGETS],
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="The file: .onnx, .pt2 (torch), .joblib (sklearn), .py (numpy), .c.",
            show_default=False,
        ),
    ],
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a network, its encoder included, as a file that other programs run without altrelu."""
    from altrelu_dist.exports.registry import check_export
    from altrelu_dist.exports.registry import export as export_network
    from altrelu_dist.network import Network
    from altrelu_dist.outputs import check_apart

    output = Output(quiet, as_json)
    check_apart(out, model)
    check_export(out, to=to, overwrite=overwrite)
    network = Network.load(model)
    start = time.perf_counter()
    with output.doing(f"exporting {model}"):
        size = export_network(network, out, to=to, overwrite=overwrite)
    seconds = time.perf_counter() - start
    output.result(
        {
            "model": model,
            "to": to,
            "out": out,
            "bytes": size,
            "n_features": network.n_features,
            "n_hidden": network.n_hidden,
            "n_targets": network.n_targets,
            **({} if network.classes is None else {"classes": list(network.classes)}),
            "seconds": seconds,
        },
        f"{network.n_features} features, {network.n_hidden} neurons, {network.n_targets} targets, "
        f"{bytes_text(size)}, {seconds_text(seconds)}",
        *_outputs(network),
        f"saved: {out}",
    )


def _outputs(network: Network) -> list[str]:
    """What the outputs of a network of classes are."""
    if network.classes is None:
        return []
    from altrelu_dist.data.source import listed

    labels = [*map(str, network.classes)]
    if len(labels) == 2:
        return [f"its output is the logit of {labels[1]}; its probability is the sigmoid of it"]
    return [f"its outputs are the logits of {listed(labels)}; a softmax gives their probabilities"]
