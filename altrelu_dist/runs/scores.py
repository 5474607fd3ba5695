"""Scores on a screen and in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from altrelu_dist.runs.output import number, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from altrelu_dist.metrics import TargetScore

__all__ = ["mean_scores", "score_records", "score_table"]


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
