"""Sections on the network itself: what it is, its training, its columns, the page's command."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from altrelu_dist import plots
from altrelu_dist.cli.page.blocks import (
    MOST_ROWS,
    Section,
    bullets,
    cut,
    figure_grid,
    number,
    table,
)
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.runs.scores import LOSS_WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from altrelu_dist.cli.page.pictures import Pictures
    from altrelu_dist.network import Network
    from altrelu_dist.runs.about import About

__all__ = ["columns_section", "command_section", "network_section", "training_section"]


def network_section(told: About) -> Section:
    """What the network is, and how it was trained."""
    lines = [told.what, *([told.classes] if told.classes else []), *told.training]
    return Section("network", "The network", [bullets(lines)])


def training_section(
    history: Sequence[Mapping[str, Any]], network: Network, pictures: Pictures
) -> Section:
    """How the loss fell, by second and by pass."""
    known = [
        {key: float("nan") if value is None else value for key, value in entry.items()}
        for entry in history
    ]
    losses = [entry["loss"] for entry in known if entry["loss"] == entry["loss"]]
    what = LOSS_WORDS.get(str(network.info.get("loss", SQUARES)), "MSE")
    if network.classes is not None:
        what = "MSE of the classes' indicators"
    if "groups" in network.info:
        what += ", out of fold"
    fell = f"from {number(losses[0])} to {number(losses[-1])}" if losses else "unknown"
    note = f"The loss ({what}) of the best network so far: {fell} in {len(known):,} iterations."
    figures = [
        pictures.figure(
            lambda ax, by=by: plots.plot_training(known, ax, by=by),  # type: ignore[misc]
            f"Line: the loss of the training by {words}, {fell}",
            f"Loss by {words}",
        )
        for by, words in (("seconds", "second"), ("passes", "pass"))
    ]
    parts = (
        [f"<p>{escape(note)}</p>", figure_grid(figures)] if losses else [f"<p>{escape(note)}</p>"]
    )
    return Section("training", "Training", parts)


def columns_section(told: About) -> Section:
    """What each column holds, and what the network takes of it."""
    rows = [(cut(c["column"]), cut(c["kind"]), cut(c["encoded"])) for c in told.columns[:MOST_ROWS]]
    more = len(told.columns) - len(rows)
    caption = "What each column holds, and what the network takes of it"
    if more:
        caption += f"; {more:,} more are in altrelu info --json"
    heads = ("column", "holds", "the network takes")
    return Section("columns", "Columns", [table(caption, heads, rows, words=3)])


def command_section(command: str) -> Section:
    """The command that makes the page again."""
    return Section(
        "command",
        "The command that makes this page",
        [f"<pre><code>{escape(command)}</code></pre>"],
    )
