"""Which columns matter to the predictions, and how: importance and partial dependence."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from altrelu_dist import plots
from altrelu_dist.cli.page.blocks import MOST_ROWS, cut, details, figure_grid, number, table
from altrelu_dist.cli.page.pictures import SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from altrelu_dist.cli.page.pictures import Pictures
    from altrelu_dist.dependence import Dependence, Importance

__all__ = ["explained"]

_SMALL = (3.4, 2.6)  # inches
_LEAST_HEIGHT, _BAR_HEIGHT = 1.6, 0.25
_MISSING = ", dotted lines are for a missing value"


def explained(
    importance: Importance,
    dependences: Sequence[Dependence],
    outputs: Mapping[str, int],
    pictures: Pictures,
) -> list[str]:
    """Importance and partial dependence."""
    gained = f"{importance.unit} {'gained' if importance.unit == 'log loss' else 'lost'}"
    top = importance.order[:MOST_ROWS]
    first = ", ".join(cut(importance.names[i]) for i in top[:3])
    bars = min(len(importance.names), plots.BARS)
    note = (
        f"{gained[0].upper()}{gained[1:]} when the values of a column are permuted: mean and "
        f"standard deviation of {importance.repeats} permutations of a random sample of "
        f"{importance.rows:,} rows."
    )
    rows = [
        (cut(importance.names[i]), number(importance.mean[i]), number(importance.deviation[i]))
        for i in top
    ]
    parts = ["<h3>Importance of the columns</h3>", f"<p>{escape(note)}</p>"]
    picture = pictures.figure(
        lambda ax: plots.plot_importance(importance, ax),
        f"Bars: permutation importance; the most important columns are {first}",
        "Permutation importance",
        (SIZE[0], max(_LEAST_HEIGHT, 0.75 + _BAR_HEIGHT * bars)),
    )
    heads = ("column", gained, "deviation")
    listed = table("Permutation importance", heads, rows)
    few = len(rows) <= plots.BARS
    parts.append(figure_grid([picture, listed] if few else [picture]))
    if not few:
        parts.append(details("The numbers of this picture", [listed]))
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
            figure_grid(
                [
                    pictures.figure(
                        lambda ax, each=each: plots.plot_dependence(  # type: ignore[misc]
                            each, ax, outputs=outputs, limits=limits
                        ),
                        f"Partial dependence of the prediction on {cut(each.name)}",
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
