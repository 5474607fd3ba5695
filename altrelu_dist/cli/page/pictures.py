"""Pictures of the page: drawn by Matplotlib, as SVG in the colours of the page's style."""

from __future__ import annotations

import re
import warnings
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

from altrelu_dist import plots
from altrelu_dist.cli.page.style import COLOURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

__all__ = ["SIZE", "Pictures"]

SIZE = (4.0, 3.0)  # inches


class Pictures:
    """Draws pictures, each with identifiers of its own."""

    def __init__(self) -> None:
        self._drawn = 0

    def figure(
        self,
        draw: Callable[[Axes], object],
        alt: str,
        caption: str = "",
        size: tuple[float, float] = SIZE,
    ) -> str:
        """A picture with its caption; `alt` says what it shows to those who do not see it."""
        self._drawn += 1
        svg = _svg(draw, f"f{self._drawn}-", alt, size)
        told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return f"<figure>{svg}{told}</figure>"


def _svg(draw: Callable[[Axes], object], prefix: str, alt: str, size: tuple[float, float]) -> str:
    """A picture as an element of the page, in its colours."""
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": "altrelu", "font.size": 9.5,
        "text.color": plots.INK, "axes.labelcolor": plots.INK, "axes.edgecolor": plots.FAINT,
        "xtick.color": plots.FAINT, "ytick.color": plots.FAINT, "xtick.labelcolor": plots.INK,
        "ytick.labelcolor": plots.INK, "axes.titlesize": 10, "axes.titleweight": "bold",
        "axes.formatter.limits": (-4, 5),
    }  # fmt: skip
    file = StringIO()
    with warnings.catch_warnings(), style.context(["default", settings]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    inner = text[text.index(">") + 1 :]
    inner = re.sub(r'\bid="', f'id="{prefix}', inner)
    inner = re.sub(r'xlink:href="#', f'href="#{prefix}', inner)
    inner = re.sub(r"url\(#", f"url(#{prefix}", inner)
    inner = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda found: f"var(--{COLOURS[found[0]]})" if found[0] in COLOURS else found[0],
        inner,
    )
    inner = re.sub(r"(?<= d=\")[^\"]*", lambda found: _rounded(found[0]), inner)
    inner = re.sub(r">\s+<", "><", inner)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">{inner}'


def _rounded(path: str) -> str:
    path = re.sub(r"(\.\d\d)\d+", r"\1", path)
    return " ".join(path.split())
