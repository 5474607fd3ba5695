"""The demo's picture: how the loss fell, by pass and by second, and what the network predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["draw"]

History = Sequence[Mapping[str, Any]]
_COLOURS = ("#0b6e99", "#d1495b")
_GREY = "#6b7280"


def draw(
    path: Path,
    histories: Mapping[str, History],
    linear: float,
    true: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    title: str,
) -> None:
    """Draw the demo's three panels into a PNG.

    Parameters
    ----------
    path : Path
    histories : mapping of str to list of dict
        By method: what the estimator keeps in ``history_``.
    linear : float
        Training MSE of least squares.
    true, predicted : ndarray of shape (n_rows,)
        Targets of the test rows.
    title : str
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.8), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)  # no window system, whatever the user's Matplotlib is set to
    by_pass, by_second, scatter = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    _losses(by_pass, histories, "passes", linear)
    _losses(by_second, histories, "seconds", linear)
    by_pass.set(title="Loss by pass", xlabel="passes over the data")
    by_second.set(title="Loss by second", xlabel="seconds")
    by_pass.legend(loc="upper right", edgecolor="none")
    by_pass.set_ylabel("MSE (minutes²)")
    _hexagons(scatter, true, predicted)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.savefig(path, format="png")


def _losses(axes: Axes, histories: Mapping[str, History], key: str, linear: float) -> None:
    """Loss of each method against one measure of the work."""
    lowest = linear
    for (name, history), colour in zip(histories.items(), _COLOURS, strict=True):
        entries = [entry for entry in history if not math.isnan(entry["loss"])]
        x, y = ([entry[name] for entry in entries] for name in (key, "loss"))
        axes.plot(x, y, color=colour, drawstyle="steps-post", lw=2, label=f"{name}: {y[-1]:.1f}")
        axes.plot(x[-1], y[-1], "o", color=colour, ms=6)
        lowest = min(lowest, *y)
    axes.axhline(linear, color=_GREY, ls="--", lw=1.2, label=f"least squares: {linear:.1f}")
    span = linear - lowest  # what is far above least squares, as the mean at the start, is cut off
    axes.set_ylim(lowest - 0.08 * span, linear + 0.3 * span)
    _clean(axes)


def _hexagons(axes: Axes, true: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
    import numpy as np

    low, high = np.percentile(true, [0.1, 99.5])
    box = (float(low), float(high))
    bins = axes.hexbin(
        true, predicted, gridsize=70, extent=(*box, *box), bins="log", mincnt=1, cmap="viridis",
        linewidths=0.1,
    )  # fmt: skip
    axes.plot(box, box, color="#d1495b", lw=1.2)
    axes.set(xlim=box, ylim=box, aspect="equal")
    axes.set_xlabel("true arrival delay (minutes)")
    axes.set_ylabel("predicted")
    axes.set_title(f"{len(true):,} flights not trained on")
    assert axes.figure is not None
    axes.figure.colorbar(bins, ax=axes, label="flights", shrink=0.9)
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e5e7eb", lw=0.6)
    axes.set_axisbelow(True)
