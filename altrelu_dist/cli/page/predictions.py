"""Sections on how the network predicts some data: its scores, each target, its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from altrelu_dist import plots
from altrelu_dist.cli.page.blocks import (
    Section,
    bullets,
    cut,
    details,
    figure_grid,
    number,
    score_tiles,
    table,
)
from altrelu_dist.cli.page.importance import explained
from altrelu_dist.cli.page.pictures import SIZE
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.runs.scores import CLASS_SCORES, between_text, shown_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from altrelu_dist.cli.page.pictures import Pictures
    from altrelu_dist.diagnosis import Diagnosis, Residuals
    from altrelu_dist.network import Network

__all__ = ["classes_section", "scores_section", "target_section"]

_TARGETS = 200  # in the table of scores


def scores_section(network: Network, diagnosis: Diagnosis, remarks: Sequence[str]) -> Section:
    """The scores on some data, and what is to be known of the data."""
    parts = [f"<p>On {diagnosis.rows:,} rows.</p>"]
    scores = diagnosis.scores
    if not isinstance(scores, list):
        names = ("accuracy", "log loss", "AUC")
        tiles = {
            name: number(getattr(scores, key))
            for name, key in zip(names, CLASS_SCORES, strict=True)
        }
        if len(diagnosis.calibrations) == 1:
            tiles["calibration error"] = number(diagnosis.calibrations[0].error)
        parts.append(score_tiles(tiles))
    else:
        shown = shown_scores(str(network.info.get("loss", SQUARES)))
        if len(scores) == 1:
            parts.append(score_tiles({k: number(getattr(scores[0], v)) for k, v in shown.items()}))
        else:
            rows = [
                (cut(one.target), *(number(getattr(one, name)) for name in shown.values()))
                for one in scores[:_TARGETS]
            ]
            more = len(scores) - len(rows)
            of = "quantile" if len(network.quantiles) > 1 else "target"
            caption = f"Scores of each {of}" + (f"; {more:,} more are left out" if more else "")
            parts.append(table(caption, (of, *shown), rows))
            if len(network.quantiles) > 1:
                parts.append(bullets([between_text(scores, network.quantiles)]))
    parts.append(bullets(remarks) if remarks else "")
    return Section("scores", "Scores", parts)


def target_section(
    t: int, residuals: Residuals, network: Network, diagnosis: Diagnosis, pictures: Pictures
) -> Section:
    """Predictions of one target against the truth, and what they depend on."""
    name = cut(residuals.target)
    section = Section(f"target{t}", f"Predictions of {name}")
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
    section.parts.append(figure_grid(figures))
    dependences = diagnosis.dependences[t]
    section.parts += explained(diagnosis.importances[t], dependences, {"prediction": t}, pictures)
    return section


def _beyond(weight: float) -> str:
    return f"; beyond the picture: {weight:,.6g}" if weight > 0 else ""


def classes_section(network: Network, diagnosis: Diagnosis, pictures: Pictures) -> Section:
    """Calibration, confusion, and what the predicted classes depend on."""
    confusion, calibrations = diagnosis.confusion, diagnosis.calibrations
    assert confusion is not None
    assert network.classes is not None
    section = Section("classes", "Predicted classes")
    errors = ", ".join(f"{cut(each.label)} {each.error:.3f}" for each in calibrations)
    side = min(4.2, max(SIZE[1], 1.2 + 0.35 * len(confusion.true)))
    section.parts.append(
        figure_grid(
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
                    (SIZE[0], side),
                ),
            ]
        )
    )
    rows = [
        (f"{low:.1f} to {high:.1f}", f"{w:,.6g}", number(p), number(s))
        for each in calibrations[:1]
        for low, high, w, p, s in zip(
            each.edges[:-1], each.edges[1:], each.weight, each.probability, each.share, strict=True
        )
    ]
    heads = ("true class", *map(cut, confusion.predicted))
    counts = [
        (cut(name), *(f"{w:,.6g}" for w in row))
        for name, row in zip(confusion.true, confusion.weight, strict=True)
    ]
    caption = "Rows of each true class (down) by the predicted class (across)"
    of = cut(calibrations[0].label)
    tables = [
        table(caption, heads, counts),
        table(
            f"Calibration of {of}",
            ("predicted probability", "rows", "mean probability", "share of the class"),
            rows,
        ),
    ]
    section.parts.append(details("The numbers of these pictures", tables))
    labels = [str(label) for label in network.classes]
    outputs = {each.label: labels.index(each.label) for each in calibrations}
    section.parts += explained(
        diagnosis.importances[0], diagnosis.dependences[0], outputs, pictures
    )
    return section
