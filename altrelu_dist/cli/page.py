"""A network and its diagnosis as one HTML page that needs nothing else."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from altrelu_dist import plots
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.runs.about import About, about
from altrelu_dist.runs.output import number as plain_number
from altrelu_dist.runs.scores import CLASS_SCORES, LOSS_WORDS, between_text, shown_scores
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from altrelu_dist.dependence import Dependence, Importance
    from altrelu_dist.diagnosis import Diagnosis, Residuals
    from altrelu_dist.network import Network

__all__ = ["LIMIT", "page"]

LIMIT = 1_000_000  # bytes of a page
_ROWS = 200  # of a table of columns
_TARGETS = 200  # in the table of scores
_LARGE = 1e7
_LONGEST = 80  # characters of a name
_SIZE = (4.0, 3.0)  # inches
_SMALL = (3.4, 2.6)
_MISSING = ", dotted lines are for a missing value"
_LEAST_HEIGHT, _BAR_HEIGHT = 1.6, 0.25

# The colours of a picture by their names in the page's style, which has them light and dark.
_COLOURS = {
    plots.INK: "ink", plots.FAINT: "faint", plots.GRID: "grid",
    plots.ON_WEAK: "on-weak", plots.ON_STRONG: "on-strong",
    **{color: f"line{k}" for k, color in enumerate(plots.LINES)},
    **{color: f"step{k}" for k, color in enumerate(plots.STEPS)},
}  # fmt: skip

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f8fa; --ink: #1f2933;
  --faint: #5d6673; --grid: #e3e7ec; --edge: #d5dbe1; --link: #0b5f86;
  --on-weak: #101820; --on-strong: #ffffff;
  --line0: #0b6e99; --line1: #c8553e; --line2: #4d7d2e; --line3: #8a5fb0;
  --step0: #d3e5ee; --step1: #98c4d8; --step2: #539dbe; --step3: #1b7199; --step4: #0a4058; }
@media (prefers-color-scheme: dark) { :root { --paper: #12171d; --card: #1a2129; --ink: #e3e8ee;
  --faint: #9aa6b3; --grid: #29323c; --edge: #34404c; --link: #7cc4e6; --on-weak: #f2f6f9;
  --on-strong: #0b1218; --line0: #5bb8e0; --line1: #f08a73; --line2: #9ccc78; --line3: #c3a1e6;
  --step0: #1e3a4a; --step1: #27566e; --step2: #3d86aa; --step3: #72bcdf; --step4: #d2eefb; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; padding-top: .5rem;
  border-top: 1px solid var(--edge); overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p, ul { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--line0);
  outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0;
  max-width: none; }
.scores { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .6rem;
  margin: .6rem 0; }
.scores div { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem;
  padding: .5rem .7rem; }
dt { color: var(--faint); font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1rem; align-items: start; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--edge); border-radius: .4rem;
  padding: .6rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 30rem; margin: 0 auto; }
figure text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans",
  sans-serif; }
figcaption, .note { color: var(--faint); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; color: var(--faint); padding: .2rem 0; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--edge);
  vertical-align: top; }
thead th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 6rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; padding: .4rem 0; }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem; padding: .7rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 2rem; color: var(--faint); font-size: .9rem; }
@media print { :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000;
  --faint: #444; --grid: #ddd; --edge: #bbb; --link: #000; --on-weak: #101820; --on-strong: #fff;
  --line0: #0b6e99; --line1: #c8553e; --line2: #4d7d2e; --line3: #8a5fb0;
  --step0: #d3e5ee; --step1: #98c4d8; --step2: #539dbe; --step3: #1b7199; --step4: #0a4058; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav, .skip { display: none; }
  figure, tr, pre { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } .small { grid-template-columns: 1fr 1fr 1fr; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass
class _Section:
    """A part of the page under a heading."""

    key: str
    title: str
    parts: list[str] = field(default_factory=list)


class _Pictures:
    """Draws pictures, each with identifiers of its own."""

    def __init__(self) -> None:
        self._drawn = 0

    def figure(
        self,
        draw: Callable[[Axes], object],
        alt: str,
        caption: str = "",
        size: tuple[float, float] = _SIZE,
    ) -> str:
        """A picture with its caption; `alt` says what it shows to those who do not see it."""
        self._drawn += 1
        svg = _svg(draw, f"f{self._drawn}-", alt, size)
        told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return f"<figure>{svg}{told}</figure>"


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
    told, pictures = about(network, model), _Pictures()
    sections, last = [_network(told)], [_columns(told), _again(command)]
    if history := network.info.get("history"):
        sections.append(_training(history, network, pictures))
    of_targets: list[_Section] = []
    if diagnosis is not None:
        sections.append(_scores(network, diagnosis, remarks))
        if diagnosis.confusion is not None:
            sections.append(_classes(network, diagnosis, pictures))
        of_targets = [
            _target(t, residuals, network, diagnosis, pictures)
            for t, residuals in enumerate(diagnosis.residuals)
        ]
    while True:
        text = _whole(network, model, data, [*sections, *of_targets, *last])
        if len(text.encode()) <= LIMIT or not of_targets:
            return text
        of_targets.pop()


def _whole(network: Network, model: str, data: str | None, sections: Sequence[_Section]) -> str:
    """The page of some sections."""
    targets = ", ".join(network.target_columns or ()) or "its targets"
    title = _cut(f"Network that predicts {targets}")
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
<style>{_STYLE}</style>
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


def _network(told: About) -> _Section:
    lines = [told.what, *([told.classes] if told.classes else []), *told.training]
    return _Section("network", "The network", [_list(lines)])


def _training(
    history: Sequence[Mapping[str, Any]], network: Network, pictures: _Pictures
) -> _Section:
    known = [
        {key: float("nan") if value is None else value for key, value in entry.items()}
        for entry in history
    ]
    losses = [entry["loss"] for entry in known if entry["loss"] == entry["loss"]]
    what = LOSS_WORDS.get(_loss(network), "MSE")
    if network.classes is not None:
        what = "MSE of the classes' indicators"
    if "groups" in network.info:
        what += ", out of fold"
    fell = f"from {_number(losses[0])} to {_number(losses[-1])}" if losses else "unknown"
    note = f"The loss ({what}) of the best network so far: {fell} in {len(known):,} iterations."
    figures = [
        pictures.figure(
            lambda ax, by=by: plots.plot_training(known, ax, by=by),  # type: ignore[misc]
            f"Line: the loss of the training by {words}, {fell}",
            f"Loss by {words}",
        )
        for by, words in (("seconds", "second"), ("passes", "pass"))
    ]
    parts = [f"<p>{escape(note)}</p>", _figures(figures)] if losses else [f"<p>{escape(note)}</p>"]
    return _Section("training", "Training", parts)


def _loss(network: Network) -> str:
    return str(network.info.get("loss", SQUARES))


def _scores(network: Network, diagnosis: Diagnosis, remarks: Sequence[str]) -> _Section:
    parts = [f"<p>On {diagnosis.rows:,} rows.</p>"]
    scores = diagnosis.scores
    if not isinstance(scores, list):
        names = ("accuracy", "log loss", "AUC")
        tiles = {
            name: _number(getattr(scores, key))
            for name, key in zip(names, CLASS_SCORES, strict=True)
        }
        if len(diagnosis.calibrations) == 1:
            tiles["calibration error"] = _number(diagnosis.calibrations[0].error)
        parts.append(_tiles(tiles))
    else:
        shown = shown_scores(_loss(network))
        if len(scores) == 1:
            parts.append(_tiles({k: _number(getattr(scores[0], v)) for k, v in shown.items()}))
        else:
            rows = [
                (_cut(one.target), *(_number(getattr(one, name)) for name in shown.values()))
                for one in scores[:_TARGETS]
            ]
            more = len(scores) - len(rows)
            of = "quantile" if len(network.quantiles) > 1 else "target"
            caption = f"Scores of each {of}" + (f"; {more:,} more are left out" if more else "")
            parts.append(_table(caption, (of, *shown), rows))
            if len(network.quantiles) > 1:
                parts.append(_list([between_text(scores, network.quantiles)]))
    parts.append(_list(remarks) if remarks else "")
    return _Section("scores", "Scores", parts)


def _target(
    t: int, residuals: Residuals, network: Network, diagnosis: Diagnosis, pictures: _Pictures
) -> _Section:
    name = _cut(residuals.target)
    section = _Section(f"target{t}", f"Predictions of {name}")
    beyond = [
        _beyond(each.beyond)
        for each in (residuals.predicted, residuals.residual, residuals.against)
    ]
    below = ""
    if network.quantiles:
        level = network.quantiles[min(t, len(network.quantiles) - 1)]
        below = f"; a share of {level:.3g} should be at or below 0"
    figures = [
        pictures.figure(
            lambda ax: plots.plot_density(residuals.predicted, ax),
            f"Density: predictions of {name} against true values, and the line where both are "
            "equal",
            f"Predicted against true, all rows{beyond[0]}",
        ),
        pictures.figure(
            lambda ax: plots.plot_residual_histogram(residuals.residual, ax),
            f"Histogram: residuals of {name}, true less predicted",
            f"Residuals, all rows{below}{beyond[1]}",
        ),
        pictures.figure(
            lambda ax: plots.plot_residuals(residuals, ax),
            f"Density: residuals of {name} against predictions",
            f"Residuals against predictions, all rows{beyond[2]}",
        ),
    ]
    section.parts.append(_figures(figures))
    dependences = diagnosis.dependences[t]
    section.parts += _explained(diagnosis.importances[t], dependences, {"prediction": t}, pictures)
    return section


def _classes(network: Network, diagnosis: Diagnosis, pictures: _Pictures) -> _Section:
    confusion, calibrations = diagnosis.confusion, diagnosis.calibrations
    assert confusion is not None
    assert network.classes is not None
    section = _Section("classes", "Predicted classes")
    errors = ", ".join(f"{_cut(each.label)} {each.error:.3f}" for each in calibrations)
    side = min(4.2, max(_SIZE[1], 1.2 + 0.35 * len(confusion.true)))
    section.parts.append(
        _figures(
            [
                pictures.figure(
                    lambda ax: plots.plot_calibration(calibrations, ax),
                    "Lines: the share of a class against its predicted probability; calibrated "
                    "ones are on the diagonal",
                    f"Calibration, all rows; expected calibration error: {errors}",
                ),
                pictures.figure(
                    lambda ax: plots.plot_confusion(confusion, ax),
                    "Cells: the share of the rows of each class for which each class is predicted",
                    "Confusion, all rows: shares of the rows of each true class",
                    (_SIZE[0], side),
                ),
            ]
        )
    )
    rows = [
        (f"{low:.1f} to {high:.1f}", f"{w:,.6g}", _number(p), _number(s))
        for each in calibrations[:1]
        for low, high, w, p, s in zip(
            each.edges[:-1], each.edges[1:], each.weight, each.probability, each.share, strict=True
        )
    ]
    heads = ("true class", *map(_cut, confusion.predicted))
    counts = [
        (_cut(name), *(f"{w:,.6g}" for w in row))
        for name, row in zip(confusion.true, confusion.weight, strict=True)
    ]
    caption = "Rows of each true class (down) by the predicted class (across)"
    of = _cut(calibrations[0].label)
    tables = [
        _table(caption, heads, counts),
        _table(
            f"Calibration of {of}",
            ("predicted probability", "rows", "mean probability", "share of the class"),
            rows,
        ),
    ]
    section.parts.append(_details("The numbers of these pictures", tables))
    labels = [str(label) for label in network.classes]
    outputs = {each.label: labels.index(each.label) for each in calibrations}
    section.parts += _explained(
        diagnosis.importances[0], diagnosis.dependences[0], outputs, pictures
    )
    return section


def _explained(
    importance: Importance,
    dependences: Sequence[Dependence],
    outputs: Mapping[str, int],
    pictures: _Pictures,
) -> list[str]:
    """Importance and partial dependence."""
    gained = f"{importance.unit} {'gained' if importance.unit == 'log loss' else 'lost'}"
    top = importance.order[:_ROWS]
    first = ", ".join(_cut(importance.names[i]) for i in top[:3])
    bars = min(len(importance.names), plots.BARS)
    note = (
        f"{gained[0].upper()}{gained[1:]} when the values of a column are permuted: mean and "
        f"standard deviation of {importance.repeats} permutations of a random sample of "
        f"{importance.rows:,} rows."
    )
    rows = [
        (_cut(importance.names[i]), _number(importance.mean[i]), _number(importance.deviation[i]))
        for i in top
    ]
    parts = ["<h3>Importance of the columns</h3>", f"<p>{escape(note)}</p>"]
    picture = pictures.figure(
        lambda ax: plots.plot_importance(importance, ax),
        f"Bars: permutation importance; the most important columns are {first}",
        "Permutation importance",
        (_SIZE[0], max(_LEAST_HEIGHT, 0.75 + _BAR_HEIGHT * bars)),
    )
    heads = ("column", gained, "deviation")
    listed = _table("Permutation importance", heads, rows)
    few = len(rows) <= plots.BARS
    parts.append(_figures([picture, listed] if few else [picture]))
    if not few:
        parts.append(_details("The numbers of this picture", [listed]))
    if dependences:
        limits = _limits(dependences, [*outputs.values()])
        note = (
            "The mean prediction over a random sample of "
            f"{dependences[0].rows:,} rows, with the column set to one value in all of them. Short "
            "lines at the bottom are the deciles of the column"
            f"{_MISSING if any(d.missing is not None for d in dependences) else ''}."
        )
        parts += ["<h3>Dependence on the most important columns</h3>", f"<p>{escape(note)}</p>"]
        parts.append(
            _figures(
                [
                    pictures.figure(
                        lambda ax, each=each: plots.plot_dependence(  # type: ignore[misc]
                            each, ax, outputs=outputs, limits=limits
                        ),
                        f"Partial dependence of the prediction on {_cut(each.name)}",
                        size=_SMALL,
                    )
                    for each in dependences
                ],
                small=True,
            )
        )
    return parts


def _limits(dependences: Sequence[Dependence], outputs: Sequence[int]) -> tuple[float, float]:
    """The range of all mean predictions, and a margin."""
    found = [each.mean[:, outputs] for each in dependences]
    found += [each.missing[None, outputs] for each in dependences if each.missing is not None]
    low, high = min(m.min() for m in found), max(m.max() for m in found)
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _columns(told: About) -> _Section:
    rows = [(_cut(c["column"]), _cut(c["kind"]), _cut(c["encoded"])) for c in told.columns[:_ROWS]]
    more = len(told.columns) - len(rows)
    caption = "What each column holds, and what the network takes of it"
    if more:
        caption += f"; {more:,} more are in altrelu info --json"
    heads = ("column", "holds", "the network takes")
    return _Section("columns", "Columns", [_table(caption, heads, rows, words=3)])


def _again(command: str) -> _Section:
    return _Section(
        "command",
        "The command that makes this page",
        [f"<pre><code>{escape(command)}</code></pre>"],
    )


def _number(value: float) -> str:
    """Four significant digits, in little room."""
    return f"{value:.3e}" if math.isfinite(value) and abs(value) >= _LARGE else plain_number(value)


def _beyond(weight: float) -> str:
    return f"; beyond the picture: {weight:,.6g}" if weight > 0 else ""


def _cut(text: str, most: int = _LONGEST) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _list(lines: Iterable[str]) -> str:
    items = (f"<li>{escape(_cut(line[:1].upper() + line[1:], 1000))}</li>" for line in lines)
    return f"<ul>{''.join(items)}</ul>"


def _tiles(values: Mapping[str, str]) -> str:
    each = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values.items()
    )
    return f'<dl class="scores">{each}</dl>'


def _figures(figures: Sequence[str], *, small: bool = False) -> str:
    return f'<div class="figures{" small" * small}">{"".join(figures)}</div>'


def _details(summary: str, parts: Sequence[str]) -> str:
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def _table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1
) -> str:
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
        lambda found: f"var(--{_COLOURS[found[0]]})" if found[0] in _COLOURS else found[0],
        inner,
    )
    inner = re.sub(r"(?<= d=\")[^\"]*", lambda found: _rounded(found[0]), inner)
    inner = re.sub(r">\s+<", "><", inner)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">{inner}'


def _rounded(path: str) -> str:
    path = re.sub(r"(\.\d\d)\d+", r"\1", path)
    return " ".join(path.split())
