"""The demo's picture: how the loss fell, by pass and by second, and what the network predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from altrelu_dist import plots
from altrelu_dist.diagnosis import Density

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["draw"]

History = Sequence[Mapping[str, Any]]


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
    by_pass.legend(loc="upper right", edgecolor="none")
    by_pass.set_ylabel("MSE (minutes²)")
    plots.plot_density(Density.of(true, predicted), scatter)
    scatter.set(aspect="equal", title=f"{len(true):,} flights not trained on")
    scatter.set(xlabel="true arrival delay (minutes)", ylabel="predicted")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.savefig(path, format="png")


def _losses(
    axes: Axes, histories: Mapping[str, History], by: Literal["passes", "seconds"], linear: float
) -> None:
    """Loss of each method against one measure of the work."""
    lowest = linear
    for (name, history), colour in zip(histories.items(), plots.LINES, strict=False):
        losses = [entry["loss"] for entry in history if not math.isnan(entry["loss"])]
        label = f"{name}: {losses[-1]:.1f}"
        plots.plot_training(history, axes, by=by, color=colour, label=label)
        lowest = min(lowest, *losses)
    label = f"least squares: {linear:.1f}"
    axes.axhline(linear, color=plots.FAINT, ls="--", lw=1.2, label=label)
    span = linear - lowest  # what is far above least squares, as the mean at the start, is cut off
    axes.set_yscale("linear")
    axes.set_ylim(lowest - 0.08 * span, linear + 0.3 * span)
    axes.set_title("Loss by pass" if by == "passes" else "Loss by second")
