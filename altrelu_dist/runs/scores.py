"""Scores on a screen and in JSON."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from typing import TYPE_CHECKING, Any

from altrelu_dist.data.source import listed
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.prediction import check_interval
from altrelu_dist.runs.output import number, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from altrelu_dist.class_metrics import ClassScore
    from altrelu_dist.metrics import TargetScore
    from altrelu_dist.network import Network

    Scores = list[TargetScore] | ClassScore

__all__ = [
    "CLASS_SCORES",
    "EXPECTED",
    "LOSS_WORDS",
    "between_text",
    "chosen_text",
    "class_record",
    "class_table",
    "expected_classes_text",
    "expected_text",
    "loss_record",
    "mean_scores",
    "measured_level",
    "records_of",
    "rows_of",
    "score_lines",
    "score_records",
    "score_table",
    "scores_of",
    "shown_scores",
    "table_of",
    "undefined_lines",
]

# What the network of a committee knows of itself.
EXPECTED = (
    *("expected_r2", "expected_r2_spread", "expected_mse", "groups"),
    *("expected_accuracy", "expected_log_loss", "distilled_from", "fidelity"),
    *("expected_loss", "expected_d2"),
)
# What each loss is called, and the scores that are shown of a network of it.
LOSS_WORDS = {"huber": "Huber loss", "quantile": "pinball loss", "poisson": "deviance"}
_SQUARES_SHOWN = {"MSE": "mse", "RMSE": "rmse", "MAE": "mae", "R2": "r2"}
_OWN_SHOWN = {"D2": "d2", "MAE": "mae", "R2": "r2"}
_QUANTILES_SHOWN = {"D2": "d2", "share below": "share_below"}
CLASS_SCORES = ("accuracy", "log_loss", "auc")
USUAL_LEVEL = 0.9  # of intervals


def mean_scores(scores: Sequence[TargetScore], prefix: str = "") -> dict[str, float]:
    """Every score averaged over the targets."""
    records = score_records(scores)
    return {
        prefix + name: sum(record[name] for record in records) / len(records)
        for name in records[0]
        if name not in ("target", "rows")
    }


def shown_scores(loss: str = SQUARES) -> dict[str, str]:
    """The scores that are shown of a network of a loss: their names in `TargetScore` by heading."""
    if loss not in LOSS_WORDS:
        return _SQUARES_SHOWN
    own = _QUANTILES_SHOWN if loss == "quantile" else _OWN_SHOWN
    return {LOSS_WORDS[loss]: "mean_loss"} | own


def between_text(scores: Sequence[TargetScore], quantiles: Sequence[float]) -> str:
    """The share of targets between the lowest and the highest of several quantiles."""
    low, high = scores[0], scores[-1]
    assert low.share_below is not None
    assert high.share_below is not None
    return (
        f"between {low.target} and {high.target}: {high.share_below - low.share_below:.3f} of the "
        f"targets, expected {quantiles[-1] - quantiles[0]:.3g}"
    )


def score_table(
    parts: Mapping[str, Sequence[TargetScore]],
    loss: str = SQUARES,
    level: float | None = None,
) -> Table:
    """A row for each part of the data and each target.

    The columns are those of a network's loss, and of the coverage of intervals of a level.
    """
    shown = shown_scores(loss)
    if level is not None:
        shown = shown | {f"in {100 * level:g} %": "coverage"}
    made = table("", "target", "rows", *shown, words=2)
    for part, scores in parts.items():
        for score in scores:
            values = (getattr(score, name) for name in shown.values())
            texts = ("" if value is None else number(value) for value in values)
            made.add_row(part, score.target, f"{score.rows:,}", *texts)
    return made


def score_records(scores: Sequence[TargetScore]) -> list[dict[str, Any]]:
    """One record a target, for JSON: without the scores that its network has not."""
    records = (asdict(score) for score in scores)
    return [{name: value for name, value in one.items() if value is not None} for one in records]


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


def _class_lines(score: ClassScore) -> list[str]:
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


def undefined_lines(scores: Scores, loss: str = SQUARES) -> list[str]:
    """Why scores that are shown of a network of a loss are not defined by these rows."""
    if not isinstance(scores, list):
        return ["AUC is not defined: the rows are of one class"] if isnan(scores.auc) else []
    shown = shown_scores(loss)
    targets: dict[str, list[str]] = {}  # by what is said of them
    for one in scores:
        names = {name: heading for heading, name in shown.items() if _lost(one, name)}
        if "mean_loss" in names:
            negative = [names.pop(name) for name in ("mean_loss", "d2") if name in names]
            said = f"no {' and no '.join(negative)} of {{}}: it has negative values"
            targets.setdefault(said, []).append(one.target)
        if names:
            why = "there is one row" if one.rows == 1 else "it does not vary in these rows"
            said = f"no {' and no '.join(names.values())} of {{}}: {why}"
            targets.setdefault(said, []).append(one.target)
    return [said.format(listed(of)) for said, of in targets.items()]


def _lost(score: TargetScore, name: str) -> bool:
    value = getattr(score, name)
    return value is not None and isnan(value)


def score_lines(scores: Scores, loss: str = SQUARES) -> list[str]:
    """What is said of rows that do not count, and of scores that these rows do not define."""
    of_rows = [] if isinstance(scores, list) else _class_lines(scores)
    return [*of_rows, *undefined_lines(scores, loss)]


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


def rows_of(scores: Scores) -> int:
    """How many rows were scored."""
    return scores[0].rows if isinstance(scores, list) else scores.rows


def records_of(scores: Scores) -> list[dict[str, Any]]:
    """One record a target, for JSON."""
    return score_records(scores) if isinstance(scores, list) else [asdict(scores)]


def table_of(parts: Mapping[str, Scores], loss: str = SQUARES, level: float | None = None) -> Table:
    """A row for each part of the data, and of numbers for each target: see `score_table`."""
    of_classes = {name: one for name, one in parts.items() if not isinstance(one, list)}
    if of_classes:
        return class_table(of_classes)
    of_numbers = {name: one for name, one in parts.items() if isinstance(one, list)}
    return score_table(of_numbers, loss, level)


def loss_record(network: Network, level: float | None) -> dict[str, Any]:
    """What scores are of, for JSON: a loss that is not the square, and the level of intervals."""
    loss = network.info.get("loss")
    told = {} if loss is None else {"loss": loss}
    return told if level is None else told | {"interval": level}


def measured_level(network: Network, asked: float | None = None) -> float | None:
    """The level of the intervals whose coverage is measured: 0.9 where the network has them.

    Raises
    ------
    ParameterError, DataError
        If one is asked for that the network has not.
    """
    if asked is not None:
        check_interval(network, asked, "interval")
        return asked
    known = None if network.classes is not None else network.residuals
    return None if known is None or known.most() < USUAL_LEVEL else USUAL_LEVEL


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
    """The R2, or the loss, that a committee expects on new rows, and beside it that of a test."""
    if "expected_loss" in info:
        loss, share = info["expected_loss"], info["expected_d2"]
        word = LOSS_WORDS[info["loss"]]
        words = f"expected on new rows: {word} {number(loss)}, D2 {share:.3f} (out of fold)"
        if test is None:
            return words
        means = mean_scores(test)
        return f"{words}; on the test rows: {number(means['mean_loss'])}, {means['d2']:.3f}"
    expected, spread = info["expected_r2"], info["expected_r2_spread"]
    words = f"expected on new rows: R2 {expected:.3f} +- {spread:.3f} (out of fold)"
    if test is None:
        return words
    return f"{words}; on the test rows: {mean_scores(test)['r2']:.3f}"
