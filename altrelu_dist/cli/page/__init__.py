"""A network and its diagnosis as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from altrelu_dist.cli.page.blocks import Section, cut
from altrelu_dist.cli.page.network import (
    columns_section,
    command_section,
    network_section,
    training_section,
)
from altrelu_dist.cli.page.pictures import Pictures
from altrelu_dist.cli.page.predictions import classes_section, scores_section, target_section
from altrelu_dist.cli.page.style import STYLE
from altrelu_dist.runs.about import about
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from altrelu_dist.diagnosis import Diagnosis
    from altrelu_dist.network import Network

__all__ = ["LIMIT", "page"]

LIMIT = 1_000_000  # bytes of a page
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(
    network: Network,
    model: str,
    command: str,
    diagnosis: Diagnosis | None = None,
    data: str | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """The page: of at most `LIMIT` bytes, with as many targets' pictures as there is room for.

    Parameters
    ----------
    network : Network
    model : str
        Where it was loaded from.
    command : str
        That makes the page again.
    diagnosis : Diagnosis, optional
        Of the rows of ``data``.
    data : str, optional
    remarks : sequence of str
        What is to be known of the data, in a sentence each.

    Returns
    -------
    str
    """
    told, pictures = about(network, model), Pictures()
    sections, last = [network_section(told)], [columns_section(told), command_section(command)]
    if history := network.info.get("history"):
        sections.append(training_section(history, network, pictures))
    of_targets: list[Section] = []
    if diagnosis is not None:
        sections.append(scores_section(network, diagnosis, remarks))
        if diagnosis.confusion is not None:
            sections.append(classes_section(network, diagnosis, pictures))
        of_targets = [
            target_section(t, residuals, network, diagnosis, pictures)
            for t, residuals in enumerate(diagnosis.residuals)
        ]
    while True:
        text = _whole(network, model, data, [*sections, *of_targets, *last])
        if len(text.encode()) <= LIMIT or not of_targets:
            return text
        of_targets.pop()


def _whole(network: Network, model: str, data: str | None, sections: Sequence[Section]) -> str:
    """The page of some sections."""
    targets = ", ".join(network.target_columns or ()) or "its targets"
    title = cut(f"Network that predicts {targets}")
    of = f" on {escape(data)}" if data is not None else ""
    links = "".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in sections)
    body = "\n".join(
        f'<section aria-labelledby="{s.key}"><h2 id="{s.key}">{escape(s.title)}</h2>\n'
        + "\n".join(s.parts)
        + "</section>"
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<h1>{escape(title)}</h1>
<p class="note">{escape(model)}{of}</p>
<nav aria-label="Parts of the report"><ul>{links}</ul></nav>
</header>
<main id="main">
{body}
</main>
<footer><p>Made by altrelu-dist {escape(__version__)}.</p></footer>
</body>
</html>
"""
