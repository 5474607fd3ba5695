"""Errors of the library in the command's words: its options in place of Python's parameters."""

from __future__ import annotations

from altrelu_dist.errors import AltReLUError, Remedy

__all__ = ["said"]

_OPTIONS = {
    "alpha": "--ridge",
    "categorical_features": "--categorical",
    "n_hidden": "--hidden",
    "random_state": "--seed",
}
_REMEDIES = {
    Remedy.CATEGORICAL: "if it holds text, say so with --categorical COLUMN",
    Remedy.CLASSES: "take its values as classes with --classes",
    Remedy.CONVERT: "convert it first (altrelu convert)",
    Remedy.CONVERT_WITH_TARGET: "convert it again with --target NAME",
    Remedy.DROP_MISSING: "leave such rows out with --drop-missing",
    Remedy.DROP_ROWS: "leave such rows out (altrelu convert --drop-missing)",
    Remedy.DROP_COLUMNS: "leave such columns out with --drop COLUMN",
    Remedy.ENCODE: "encode such columns as numbers, or leave them out of the table",
    Remedy.FLOAT64: "use --dtype float64",
    Remedy.GO_ON: "a run with a checkpoint goes on by --resume, a job by altrelu take-up, "
    "on any cluster",
    Remedy.IMPUTE: "fill features by their mean (altrelu convert --impute mean)",
    Remedy.IMPUTE_MEAN: "fill features with --impute mean",
    Remedy.ONE_TARGET: Remedy.ONE_TARGET.value,
    Remedy.OVERWRITE: "use --overwrite to replace it",
    Remedy.RESUME: "go on with it by --resume",
    Remedy.TARGET: "name it with --target NAME",
    Remedy.WORKER_MEMORY: "give each more memory (--memory), or start fewer (--workers)",
}


def said(error: AltReLUError) -> str:
    """One line about an error."""
    return error.worded(_option, _REMEDIES.__getitem__)


def _option(parameter: str) -> str:
    return _OPTIONS.get(parameter, f"--{parameter.replace('_', '-')}")
