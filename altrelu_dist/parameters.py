"""What a user asks an estimator for, checked, as the parameters of a run."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

from altrelu_dist.committee import COMMITTEE
from altrelu_dist.errors import ParameterError
from altrelu_dist.loss_names import LOSSES, SQUARES
from altrelu_dist.training import METHODS, Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from altrelu_dist.estimators.base import NetworkEstimator

__all__ = [
    "check_one_target", "checked", "checked_levels", "known_method", "one_name_a_column",
    "resolved", "whole_number",
]  # fmt: skip

_MOST_ALPHA = 1e100  # sums of squares times more would not be finite


def checked(asked: NetworkEstimator) -> Parameters:
    """The parameters of a run.

    Raises
    ------
    ParameterError
        If one has a value that it cannot have.
    """
    for name in ("n_hidden", "max_size"):
        if getattr(asked, name) is not None:
            whole_number(name, getattr(asked, name), 1)
    if asked.max_iter is not None:
        whole_number("max_iter", asked.max_iter, 1)
    _real("alpha", asked.alpha, 0, _MOST_ALPHA)
    _real("negative_slope", asked.negative_slope, 0, 1)
    if asked.max_time is not None:
        _real("max_time", asked.max_time, 0, math.inf)
    _real("checkpoint_interval", asked.checkpoint_interval, 0, math.inf)
    for name in ("early_stopping", "extrapolate", "resume", "warm_start"):
        _flag(name, getattr(asked, name))
    if asked.categorical_features is not None:
        _names("categorical_features", asked.categorical_features)
    if asked.resume and asked.checkpoint is None:
        raise ParameterError("is for a checkpoint, and none is given", parameter="resume")
    if asked.early_stopping:
        _real("validation_fraction", asked.validation_fraction, 0, 1)
        if asked.validation_fraction == 0:
            raise ParameterError(
                "is 0; early stopping needs rows of its own", parameter="validation_fraction"
            )
    method, n_hidden = resolved(asked.method, asked.n_hidden, asked.max_size)
    if asked.extrapolate and method != "committee":
        raise ParameterError(
            "is a choice for committees; one plain network always extrapolates; leave it out",
            parameter="extrapolate",
        )
    return Parameters(
        n_hidden=n_hidden,
        method=method,
        alpha=float(asked.alpha),
        negative_slope=float(asked.negative_slope),
        max_iter=None if asked.max_iter is None else int(asked.max_iter),
        seed=_seed(asked.random_state),
        validation_fraction=float(asked.validation_fraction)
        if asked.early_stopping and method != "committee"
        else 0.0,
        max_size=None if asked.max_size is None else int(asked.max_size),
        loss=asked.loss,
        levels=checked_levels(asked.loss, asked.quantile, method, asked.max_size),
    )


def checked_levels(
    loss: Any, quantile: Any, method: str, max_size: int | None
) -> tuple[float, ...]:
    """The levels of the quantiles; none of another loss.

    Parameters
    ----------
    loss, quantile, max_size
        As for `AltReLURegressor`.
    method : str
        As `resolved` gives it.

    Raises
    ------
    ParameterError
        If there is no such loss or level, or two of these do not go together.
    """
    if loss not in LOSSES:
        raise ParameterError(f"is {loss!r}; expected one of {', '.join(LOSSES)}", parameter="loss")
    if loss != "quantile":
        if quantile is not None:
            raise ParameterError(
                f"is for the loss quantile, and the loss is {loss}; leave it out",
                parameter="quantile",
            )
        levels: list[Any] = []
    else:
        given = 0.5 if quantile is None else quantile
        levels = list(given) if isinstance(given, list | tuple | np.ndarray) else [given]
        for level in levels:
            number = isinstance(level, numbers.Real) and not isinstance(level, bool)
            if not number or not 0 < float(level) < 1:
                raise ParameterError(
                    f"is {level!r}; expected a level above 0 and below 1, or a list of some",
                    parameter="quantile",
                )
        if repeated := [level for level in sorted(set(levels)) if levels.count(level) > 1]:
            raise ParameterError(
                f"has {', '.join(map(str, repeated))} more than once; give each level once",
                parameter="quantile",
            )
        if not levels or sorted(set(levels)) != levels:
            raise ParameterError(f"is {levels!r}; expected levels that rise", parameter="quantile")
    if loss != SQUARES:
        if max_size is not None:
            raise ParameterError(
                f"bounds a network of least squares, and the loss is {loss!r}; leave it out",
                parameter="max_size",
            )
        if method == "alternating":
            raise ParameterError(
                f"alternating is an algorithm of least squares, and the loss is {loss!r}; "
                "use search, kronecker or damped",
                parameter="method",
            )
    return tuple(float(level) for level in levels)


def check_one_target(levels: Sequence[float], n_targets: int) -> None:
    """Refuse several levels with several targets."""
    if len(levels) > 1 and n_targets > 1:
        raise ParameterError(
            f"has {len(levels)} levels, and y has {n_targets} targets; expected one of "
            "them: fit a model for each target, or for each level",
            parameter="quantile",
        )


def resolved(
    method: str | None, n_hidden: int | None, max_size: int | None = None
) -> tuple[str, int]:
    """The method that is meant, and its neurons: of a committee the most it may have.

    Parameters
    ----------
    method : str, optional
        By default a committee, or with ``n_hidden`` the search.
    n_hidden : int, optional
        By default 64, but of a committee.
    max_size : int, optional
        Of a committee.

    Raises
    ------
    ParameterError
        If the method is unknown, or two of these do not go together.
    """
    if method is not None:
        known_method(method)
    if method == "committee" and n_hidden is not None:
        raise ParameterError(
            "is for one plain network, and a committee chooses its neurons itself; leave it out, "
            "or take another method",
            parameter="n_hidden",
        )
    if method in (None, "committee") and n_hidden is None:
        return "committee", COMMITTEE.most_neurons if max_size is None else int(max_size)
    if max_size is not None:
        raise ParameterError(
            "bounds the neurons of a committee, and one plain network is asked for; leave it out",
            parameter="max_size",
        )
    return method or "search", 64 if n_hidden is None else int(n_hidden)


def one_name_a_column(what: str, names: Sequence[object] | None, of: str, count: int) -> None:
    """Refuse names that do not fit the columns of an array."""
    if isinstance(names, str) or (names is not None and len(names) != count):
        found = f"is {names!r}" if isinstance(names, str) else f"has {len(names)} of them"
        raise ParameterError(
            f"{found}; expected one for each column of {of}, {count} in all", parameter=what
        )


def _names(what: str, value: Any) -> None:
    listed = isinstance(value, list | tuple | np.ndarray)
    if not listed or not all(isinstance(name, str) for name in value):
        raise ParameterError(f"is {value!r}; expected a list of names of columns", parameter=what)


def _seed(random_state: Any) -> int:
    if not isinstance(random_state, bool) and isinstance(random_state, numbers.Integral):
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
