"""Scores on a screen and in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from altrelu_dist.data.source import listed
from altrelu_dist.runs.output import number, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from altrelu_dist.class_metrics import ClassScore
    from altrelu_dist.metrics import TargetScore
    from altrelu_dist.network import Network

    Scores = list[TargetScore] | ClassScore

__all__ = [
    "EXPECTED",
    "chosen_text",
    "class_lines",
    "class_record",
    "class_table",
    "expected_classes_text",
    "expected_text",
    "mean_scores",
    "records_of",
    "score_records",
    "score_table",
    "scores_of",
    "table_of",
]

# What the network of a committee knows of itself.
EXPECTED = (
    *("expected_r2", "expected_r2_spread", "expected_mse", "groups"),
    *("expected_accuracy", "expected_log_loss", "distilled_from", "fidelity"),
)
CLASS_SCORES = ("accuracy", "log_loss", "auc")


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


def class_record(score: ClassScore, prefix: str = "") -> dict[str, float]:
    """Every score of classes, for JSON."""
    return {prefix + name: getattr(score, name) for name in CLASS_SCORES}


def class_table(parts: dict[str, ClassScore]) -> Table:
    """A row for each part of the data."""
    made = table("", "target", "rows", "accuracy", "log loss", "AUC", words=2)
    for part, score in parts.items():
        values = (score.accuracy, score.log_loss, score.auc)
        made.add_row(part, score.target, f"{score.rows:,}", *map(number, values))
    return made


def class_lines(score: ClassScore) -> list[str]:
    """What is said of rows without a class, or of one that the network does not know."""
    lines = []
    if score.missing:
        lines.append(f"rows without a class are left out: {score.missing:,}")
    if score.unknown:
        each = listed([f"{name} ({count:,})" for name, count in score.unknown.items()])
        lines.append(
            f"classes that the network does not know: {each}; they are never predicted, which the "
            "accuracy counts, log loss and AUC do not"
        )
    return lines


def expected_classes_text(info: Mapping[str, Any], test: ClassScore | None = None) -> str:
    """The accuracy and log loss that a committee expects on new rows, and beside them a test's."""
    accuracy, loss = info["expected_accuracy"], info["expected_log_loss"]
    words = f"expected on new rows: accuracy {accuracy:.3f}, log loss {loss:.4f} (out of fold)"
    if test is None:
        return words
    return f"{words}; on the test rows: {test.accuracy:.3f}, {test.log_loss:.4f}"


def scores_of(scores: Scores, prefix: str = "") -> dict[str, float]:
    """The scores of numbers, averaged over the targets, or of classes."""
    if isinstance(scores, list):
        return mean_scores(scores, prefix)
    return class_record(scores, prefix)


def records_of(scores: Scores) -> list[dict[str, Any]]:
    """One record a target, for JSON."""
    return score_records(scores) if isinstance(scores, list) else [asdict(scores)]


def table_of(parts: Mapping[str, tuple[int, Scores]]) -> Table:
    """A row for each part of the data, and of numbers for each target."""
    of_classes = {name: one for name, (_, one) in parts.items() if not isinstance(one, list)}
    if of_classes:
        return class_table(of_classes)
    return score_table(
        {name: (n, one) for name, (n, one) in parts.items() if isinstance(one, list)}
    )


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
