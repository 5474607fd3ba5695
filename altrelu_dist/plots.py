"""Pictures of a training and of what a network predicts, as Matplotlib axes.

Every function draws on the axes that it is given, or on those of a new figure without a window
system, and returns them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from altrelu_dist.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from altrelu_dist.dependence import Dependence, Importance
    from altrelu_dist.diagnosis import Calibration, Confusion, Density, Histogram, Residuals
    from altrelu_dist.moments.rows import Floats

__all__ = [
    "plot_calibration", "plot_confusion", "plot_density", "plot_dependence", "plot_importance",
    "plot_residual_histogram", "plot_residuals", "plot_training", "require_matplotlib",
]  # fmt: skip

History = Sequence[Mapping[str, Any]]

INK, FAINT, GRID = "#1f2933", "#6b7281", "#e5e7ec"
LINES = ("#0b6e99", "#c8553e", "#5b8c3a", "#8a5fb0")
# Of few rows to many.
STEPS = ("#d3e5ee", "#98c4d8", "#539dbe", "#1b7199", "#0a4058")
ON_WEAK, ON_STRONG = "#101820", "#fefefe"  # text on the first steps, and on the last two
_KEY: Mapping[str, Any] = {
    "frameon": False, "fontsize": "small", "title_fontsize": "small", "handlelength": 1.0,
    "columnspacing": 1.0, "handletextpad": 0.4, "labelspacing": 0.3,
}  # fmt: skip
_LOG_FROM = 10  # times the least loss that the greatest is
_MOST_POINTS = 200  # of a line
BARS = 15
_LONGEST, _IN_KEY = 22, 13  # characters of a name, and of one in a key
_NUMBERED = 8  # classes whose cells hold numbers


def require_matplotlib(what: str = "drawing") -> None:
    """Refuse to begin without Matplotlib.

    Raises
    ------
    ParameterError
        If it is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ParameterError(
            f"{what} needs the package matplotlib: pip install 'altrelu-dist[plots]'"
        )


def plot_training(
    history: History,
    ax: Axes | None = None,
    *,
    by: Literal["seconds", "passes"] = "seconds",
    color: str | None = None,
    label: str | None = None,
) -> Axes:
    """Draw the loss of a training against its seconds, or its passes over the rows.

    It begins with the first network: what comes before is the loss of predicting the mean.

    Parameters
    ----------
    history : sequence of dict
        What an estimator keeps in ``history_``, and its file in ``network.info["history"]``.
    ax : matplotlib.axes.Axes, optional
    by : {"seconds", "passes"}
    color, label : str, optional
        Of the line.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    color = color or LINES[0]
    x, y = _points(history, by, "loss")
    if len(x):
        ax.plot(x, y, color=color, drawstyle="steps-post", lw=1.8, label=label or "training")
        ax.plot(x[-1], y[-1], "o", color=color, ms=5)
        if min(y) > 0 and max(y) > _LOG_FROM * min(y):
            ax.set_yscale("log")
    x, y = _points(history, by, "validation_loss")
    if len(x):
        ax.plot(x, y, color=LINES[1], drawstyle="steps-post", lw=1.4, label="rows held out")
        ax.legend(frameon=False)
    ax.set_xlabel("seconds" if by == "seconds" else "passes over the rows")
    ax.set_ylabel("loss")
    return _clean(ax)


def plot_density(density: Density, ax: Axes | None = None) -> Axes:
    """Draw predictions against true values, and the line where both are equal.

    Parameters
    ----------
    density : Density
        As `Residuals.predicted`, or `Density.of` values in memory.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    _cells(ax, density, "upper left")
    low = max(density.x_edges[0], density.y_edges[0])
    high = min(density.x_edges[-1], density.y_edges[-1])
    ax.plot([low, high], [low, high], color=LINES[1], lw=1.2)
    ax.set(xlabel="true", ylabel="predicted")
    return _clean(ax)


def plot_residual_histogram(histogram: Histogram, ax: Axes | None = None) -> Axes:
    """Draw how often residuals, true values less predictions, are of what size.

    Parameters
    ----------
    histogram : Histogram
        As `Residuals.residual`.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    ax.stairs(histogram.weight, histogram.edges, fill=True, color=STEPS[2])
    ax.axvline(0.0, color=LINES[1], lw=1.2)
    ax.set(xlabel="true less predicted", ylabel="rows", ylim=(0, None))
    ax.set_xlim(histogram.edges[0], histogram.edges[-1])
    return _clean(ax)


def plot_residuals(residuals: Residuals, ax: Axes | None = None) -> Axes:
    """Draw residuals against predictions.

    Parameters
    ----------
    residuals : Residuals
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    _cells(ax, residuals.against, "upper center", columns=3)
    ax.axhline(0.0, color=LINES[1], lw=1.2)
    ax.set(xlabel="predicted", ylabel="true less predicted")
    low, high = residuals.against.y_edges[[0, -1]]
    ax.set_ylim(low, high + 0.36 * (high - low))  # room for the key
    return _clean(ax)


def plot_importance(importance: Importance, ax: Axes | None = None) -> Axes:
    """Draw the permutation importance of the most important columns, and its standard deviation.

    Parameters
    ----------
    importance : Importance
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    top = importance.order[:BARS]
    places = np.arange(len(top))
    ax.barh(places, importance.mean[top], height=0.66, color=STEPS[2])
    ax.errorbar(
        importance.mean[top], places, xerr=importance.deviation[top], fmt="none", ecolor=INK, lw=1.2
    )
    ax.set_yticks(places, [_name(importance.names[i]) for i in top])
    ax.invert_yaxis()
    ax.set_xlabel("log loss gained" if importance.unit == "log loss" else f"{importance.unit} lost")
    _clean(ax)
    ax.grid(visible=False, axis="y")
    return ax


def plot_dependence(
    dependence: Dependence,
    ax: Axes | None = None,
    *,
    outputs: Mapping[str, int] | None = None,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw the partial dependence of predictions on one column.

    Parameters
    ----------
    dependence : Dependence
    ax : matplotlib.axes.Axes, optional
    outputs : mapping of str to int, optional
        What is drawn, at most four: names, and the columns of `Dependence.mean`. By default the
        first.
    limits : tuple of float, optional
        Least and greatest mean prediction that are shown, so that columns can be compared.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    outputs = outputs or {"prediction": 0}
    levels = dependence.kind == "levels"
    for (name, t), color in zip(outputs.items(), LINES, strict=False):
        mean, label = dependence.mean[:, t], _name(name, _IN_KEY)
        if levels:
            ax.plot(mean, np.arange(len(mean)), "o", color=color, ms=6, label=label)
        else:
            ax.plot(_values(dependence), mean, color=color, lw=1.8, label=label)
        if dependence.missing is not None:
            if levels:
                ax.plot(dependence.missing[t], len(mean), "D", color=color, ms=5)
            else:
                missing = "missing" if len(outputs) == 1 else None
                ax.axhline(dependence.missing[t], color=color, lw=1.2, ls=":", label=missing)
    what = "prediction" if "prediction" in outputs else "probability"
    if levels:
        names = [_name(level) for level in dependence.levels]
        names += [] if dependence.missing is None else ["(missing)"]
        ax.set_yticks(np.arange(len(names)), names)
        ax.set(xlabel=f"mean {what}", xlim=limits, ylim=(len(names) - 0.5, -0.5))
    else:
        ax.set(ylabel=f"mean {what}", ylim=limits)
        for at in _values(dependence, dependence.deciles):
            ax.axvline(at, 0, 0.03, color=FAINT, lw=1)
    if dependence.kind == "time":
        _dates(ax)
    else:
        ax.locator_params(axis="x", nbins=5)
    handles, labels = ax.get_legend_handles_labels()
    lines = 0
    if len(handles) > 1:
        across = min(len(handles), 3 if max(map(len, labels)) <= 10 else 2)
        lines = -(-len(handles) // across)
        above: Any = (0.0, 1.0)
        ax.legend(
            loc="lower left", bbox_to_anchor=above, ncols=across, borderaxespad=0.0,
            borderpad=0.2, **_KEY,
        )  # fmt: skip
    ax.set_title(_name(dependence.name), loc="left", pad=6 + 13 * lines)
    return _clean(ax)


def plot_calibration(calibrations: Sequence[Calibration], ax: Axes | None = None) -> Axes:
    """Draw the share of a class against its predicted probability, larger where more rows are.

    Parameters
    ----------
    calibrations : sequence of Calibration
        At most four are drawn.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], color=FAINT, lw=1.2, ls="--")
    for each, color in zip(calibrations, LINES, strict=False):
        there = each.weight > 0
        p, share = each.probability[there], each.share[there]
        ax.plot(p, share, color=color, lw=1.6, label=_name(each.label, _IN_KEY))
        ax.scatter(p, share, 8 + 50 * each.weight[there] / each.weight.max(), color=color)
    ax.set(xlabel="predicted probability", ylabel="share of the class", xlim=(0, 1), ylim=(0, 1))
    ax.legend(frameon=False, loc="upper left")
    return _clean(ax)


def plot_confusion(confusion: Confusion, ax: Axes | None = None) -> Axes:
    """Draw which classes are predicted for the rows of each class, as shares of these rows.

    Parameters
    ----------
    confusion : Confusion
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If Matplotlib is not installed.
    """
    ax = _axes(ax)
    totals = confusion.weight.sum(axis=1, keepdims=True)
    share = confusion.weight / np.where(totals > 0, totals, 1.0)
    step = np.minimum((share * len(STEPS)).astype(int), len(STEPS) - 1)
    step = np.where(confusion.weight > 0, step, -1)
    n, m = share.shape
    _rectangles(ax, np.arange(m + 1) - 0.5, np.arange(n + 1) - 0.5, step.T)
    if max(n, m) <= _NUMBERED:
        for i in range(n):
            for j in range(m):
                if confusion.weight[i, j] > 0:
                    color = ON_STRONG if step[i, j] >= 3 else ON_WEAK
                    ax.text(j, i, f"{share[i, j]:.0%}", ha="center", va="center", color=color)
    _clean(ax)
    ax.grid(visible=False)
    slant = 40 if max(map(len, confusion.predicted)) * m > 40 else 0
    ax.set_xticks(
        np.arange(m), [_name(name, 12) for name in confusion.predicted],
        rotation=slant, ha="right" if slant else "center",
    )  # fmt: skip
    ax.set_yticks(np.arange(n), [_name(name, 16) for name in confusion.true])
    ax.set(
        xlabel="predicted class", ylabel="true class", xlim=(-0.5, m - 0.5), ylim=(n - 0.5, -0.5)
    )
    return ax


def _axes(ax: Axes | None) -> Axes:
    require_matplotlib()
    if ax is not None:
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)  # no window system, whatever the user's Matplotlib is set to
    return figure.subplots()


def _clean(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    return ax


def _points(history: History, by: str, what: str) -> tuple[list[float], list[float]]:
    """Of a line; of many points some, the last one among them."""
    found = [
        (float(entry[by]), float(entry[what]))
        for entry in history
        if entry.get(what) is not None and math.isfinite(entry[what])
    ]
    found = found[1:] or found  # the first is that of the mean
    step = max(1, -(-len(found) // _MOST_POINTS))
    kept = found[::-step][::-1]
    return [x for x, _ in kept], [y for _, y in kept]


def _cells(
    ax: Axes,
    density: Density,
    where: Literal["upper left", "upper center"],
    columns: int = 1,
) -> None:
    """Cells with rows, in a few steps of equal ratios, and what each step stands for."""
    from matplotlib.patches import Patch

    weight = density.weight
    most = float(weight.max(initial=0.0))
    there = weight[weight > 0]
    least = float(there.min()) if there.size else 1.0
    n = len(STEPS) if most > least else 1
    bounds = np.geomspace(least, most, n + 1) if n > 1 else np.array([least, most])
    whole = bool((there == np.round(there)).all())
    if whole:
        bounds = np.unique(np.floor(bounds))
    n = max(1, len(bounds) - 1)
    colors = _spread(n)
    step = np.searchsorted(bounds[1:-1], weight, side="right")
    _rectangles(ax, density.x_edges, density.y_edges, np.where(weight > 0, step, -1), colors)
    handles = []
    for k, color in enumerate(colors):
        low, high = bounds[k], bounds[min(k + 1, len(bounds) - 1)]
        if whole:
            last = high if k == n - 1 else high - 1
            text = _count(low) if last <= low else f"{_count(low)}–{_count(last)}"
        else:
            text = f"{low:.2g}–{high:.2g}"
        handles.append(Patch(color=color, label=text))
    title = "rows in a cell" if whole else "weight in a cell"
    ax.legend(handles=handles, title=title, loc=where, ncols=columns, **_KEY)
    ax.set_xlim(density.x_edges[0], density.x_edges[-1])
    ax.set_ylim(density.y_edges[0], density.y_edges[-1])


def _count(rows: float) -> str:
    """A number of rows in little room."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rows >= size:
            return f"{rows / size:.3g}{unit}"
    return f"{rows:.0f}"


def _spread(n: int) -> list[str]:
    """So many of the colours, from the first to the last."""
    if n == 1:
        return [STEPS[2]]
    return [STEPS[round(k * (len(STEPS) - 1) / (n - 1))] for k in range(n)]


def _rectangles(ax: Axes, x: Floats, y: Floats, step: Any, colors: Sequence[str] = STEPS) -> None:
    """One path for each step, of runs of equal cells; a step of -1 is not drawn."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    for k, color in enumerate(colors):
        corners: list[tuple[float, float]] = []
        codes: list[Any] = []
        for i, column in enumerate(step):
            own = np.concatenate([[0], (column == k).astype(int), [0]])
            change = np.flatnonzero(np.diff(own))
            for low, high in zip(change[::2], change[1::2], strict=True):
                left, right, bottom, top = x[i], x[i + 1], y[low], y[high]
                corners += [(left, bottom), (right, bottom), (right, top), (left, top), (0, 0)]
                codes += [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
        if corners:
            ax.add_patch(PathPatch(Path(corners, codes), facecolor=color, edgecolor=color, lw=0.3))


def _values(dependence: Dependence, of: Floats | None = None) -> Any:
    values = dependence.grid if of is None else of
    if dependence.kind != "time":
        return values
    return np.round(values).astype("datetime64[s]")


def _dates(ax: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_formatter(formatter)


def _name(text: str, most: int = _LONGEST) -> str:
    """A name of the data, cut, and not taken for a formula."""
    shown = "".join(c if c.isprintable() else "�" for c in text)
    if len(shown) > most:
        shown = f"{shown[: most - 1]}…"
    return shown.replace("$", r"\$")
