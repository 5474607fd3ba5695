"""Scores on a screen and in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from altrelu_dist.runs.output import number, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from altrelu_dist.metrics import TargetScore
    from altrelu_dist.network import Network

__all__ = [
    "EXPECTED",
    "chosen_text",
    "expected_text",
    "mean_scores",
    "score_records",
    "score_table",
]

# What the network of a committee knows of itself.
EXPECTED = (
    *("expected_r2", "expected_r2_spread", "expected_mse", "groups"),
    *("distilled_from", "fidelity"),
)


def mean_scores(scores: Sequence[TargetScore], prefix: str = "") -> dict[str, float]:
    """Every score averaged over the targets."""
    names = ("mse", "rmse", "mae", "r2")
    return {
        prefix + name: sum(getattr(score, name) for score in scores) / len(scores) for name in names
    }


def score_table(parts: dict[str, tuple[int, Sequence[TargetScore]]]) -> Table:
    """A row for each part of the data and each target."""
    made = table("", "target", "rows", "MSE", "RMSE", "MAE", "R2", words=2)
    for part, (rows, scores) in parts.items():
        for score in scores:
            values = (score.mse, score.rmse, score.mae, score.r2)
            made.add_row(part, score.target, f"{rows:,}", *map(number, values))
    return made


def score_records(scores: Sequence[TargetScore]) -> list[dict[str, Any]]:
    """One record a target, for JSON."""
    return [asdict(score) for score in scores]


def chosen_text(network: Network) -> str:
    """What a committee chose: neurons, and each group of members with its share."""
    weights = {group["name"]: sum(group["weight"]) for group in network.info["groups"]}
    total = sum(weights.values()) or 1.0
    groups = ", ".join(f"{name} {weight / total:.0%}" for name, weight in weights.items())
    info = network.info
    if "distilled_from" in info:
        return (
            f"chosen: {network.n_hidden:,} neurons that follow {info['distilled_from']:,} "
            f"({groups}); R2 of following on rows held out: {info['fidelity']:.4f}"
        )
    return f"chosen: {network.n_hidden:,} neurons ({groups})"


def expected_text(info: Mapping[str, Any], test: Sequence[TargetScore] | None = None) -> str:
    """The R2 that a committee expects on new rows, and beside it that of a test."""
    expected, spread = info["expected_r2"], info["expected_r2_spread"]
    words = f"expected on new rows: R2 {expected:.3f} +- {spread:.3f} (out of fold)"
    if test is None:
        return words
    return f"{words}; on the test rows: {mean_scores(test)['r2']:.3f}"
