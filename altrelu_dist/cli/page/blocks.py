"""Building blocks of the page as HTML: sections, tables, lists, and text that fits into them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from altrelu_dist.runs.output import number as plain_number

__all__ = [
    "MOST_ROWS",
    "Section",
    "bullets",
    "cut",
    "details",
    "figure_grid",
    "number",
    "score_tiles",
    "table",
]

MOST_ROWS = 200  # of a table of columns
_LARGE = 1e7
_LONGEST = 80  # characters of a name


@dataclass
class Section:
    """A part of the page under a heading."""

    key: str
    title: str
    parts: list[str] = field(default_factory=list)


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words and whose other columns are numbers."""

    def kind(i: int) -> str:
        return "" if i < words else ' class="n"'

    head = "".join(f'<th scope="col"{kind(i)}>{escape(h)}</th>' for i, h in enumerate(heads))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind(i)}>{escape(cell)}</td>" for i, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    label = escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f"<caption>{label}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "</div>"
    )


def bullets(lines: Iterable[str]) -> str:
    """Sentences, each of which begins with a capital letter."""
    items = (f"<li>{escape(cut(line[:1].upper() + line[1:], 1000))}</li>" for line in lines)
    return f"<ul>{''.join(items)}</ul>"


def score_tiles(values: Mapping[str, str]) -> str:
    """Scores that stand out, by what they are called."""
    each = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values.items()
    )
    return f'<dl class="scores">{each}</dl>'


def figure_grid(figures: Sequence[str], *, small: bool = False) -> str:
    """Figures side by side, as many as there is room for."""
    return f'<div class="figures{" small" * small}">{"".join(figures)}</div>'


def details(summary: str, parts: Sequence[str]) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def number(value: float) -> str:
    """Four significant digits, in little room."""
    return f"{value:.3e}" if math.isfinite(value) and abs(value) >= _LARGE else plain_number(value)


def cut(text: str, most: int = _LONGEST) -> str:
    """Text of so many characters at most, all of which print."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
