"""What a user asks an estimator for, checked, as the parameters of a run."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

from altrelu_dist.errors import ParameterError
from altrelu_dist.training import METHODS, Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from altrelu_dist.estimators import AltReLURegressor

__all__ = ["checked", "known_method", "one_name_a_column", "whole_number"]

_MOST_ALPHA = 1e100  # sums of squares times more would not be finite


def checked(asked: AltReLURegressor) -> Parameters:
    """The parameters of a run.

    Raises
    ------
    ParameterError
        If one has a value that it cannot have.
    """
    whole_number("n_hidden", asked.n_hidden, 1)
    if asked.max_iter is not None:
        whole_number("max_iter", asked.max_iter, 1)
    _real("alpha", asked.alpha, 0, _MOST_ALPHA)
    _real("negative_slope", asked.negative_slope, 0, 1)
    if asked.max_time is not None:
        _real("max_time", asked.max_time, 0, math.inf)
    _real("checkpoint_interval", asked.checkpoint_interval, 0, math.inf)
    for name in ("early_stopping", "resume", "warm_start"):
        _flag(name, getattr(asked, name))
    if asked.resume and asked.checkpoint is None:
        raise ParameterError("is for a checkpoint, and none is given", parameter="resume")
    if asked.early_stopping:
        _real("validation_fraction", asked.validation_fraction, 0, 1)
        if asked.validation_fraction == 0:
            raise ParameterError(
                "is 0; early stopping needs rows of its own", parameter="validation_fraction"
            )
    known_method(asked.method)
    return Parameters(
        n_hidden=int(asked.n_hidden),
        method=asked.method,
        alpha=float(asked.alpha),
        negative_slope=float(asked.negative_slope),
        max_iter=None if asked.max_iter is None else int(asked.max_iter),
        seed=_seed(asked.random_state),
        validation_fraction=float(asked.validation_fraction) if asked.early_stopping else 0.0,
    )


def one_name_a_column(what: str, names: Sequence[str] | None, of: str, count: int) -> None:
    """Refuse names that do not fit the columns of an array."""
    if isinstance(names, str) or (names is not None and len(names) != count):
        found = f"is {names!r}" if isinstance(names, str) else f"has {len(names)} names"
        raise ParameterError(
            f"{found}; expected one for each column of {of}, {count} in all", parameter=what
        )


def _seed(random_state: Any) -> int:
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        whole_number("random_state", random_state, 0)
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError as error:
        raise ParameterError(
            f"is {random_state!r}; expected None, an int or a numpy RandomState",
            parameter="random_state",
        ) from error


def known_method(method: Any) -> None:
    """Refuse what is no method."""
    if not isinstance(method, str) or method not in METHODS:
        raise ParameterError(
            f"is {method!r}; expected one of {', '.join(METHODS)}", parameter="method"
        )


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(f"is {value!r}; expected True or False", parameter=name)


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuse what is no int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ParameterError(f"is {value!r}; expected an int of at least {least}", parameter=name)


def _real(name: str, value: Any, low: float, high: float) -> None:
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    plain = value.item() if isinstance(value, np.generic) else value
    if not fits or not low <= plain < high:
        bound = f"at least {low}" + (f" and below {high:g}" if math.isfinite(high) else "")
        raise ParameterError(f"is {value!r}; expected a number of {bound}", parameter=name)
