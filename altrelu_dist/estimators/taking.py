"""Whatever a user hands over, taken by an estimator: features, targets and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, check_array, validate_data

from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.frames import Given, dask_dtype, given, is_dask_frame, real_numbers
from altrelu_dist.inputs import engine_of, is_lazy

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.engine import Engine
    from altrelu_dist.network import Network

__all__ = ["TakesData"]

_FLOAT32: np.dtype[np.floating] = np.dtype(np.float32)
_FLOAT64: np.dtype[np.floating] = np.dtype(np.float64)


class TrainingRows(NamedTuple):
    """Rows to train on, and what the estimator says of them."""

    engine: Engine
    dtype: np.dtype[np.floating]
    n_targets: int
    target_names: tuple[str, ...] | None


class TakesData(BaseEstimator):  # type: ignore[misc]
    """The part of an estimator that takes data."""

    network_: Network
    _flat: bool  # whether y has one dimension

    def _known(self, X: Any) -> Given:
        """Take a table whose columns are those of the network."""
        names = getattr(self, "feature_names_in_", None)
        known = None if names is None else [str(name) for name in names]
        raw = self.network_.columns
        return given(X, "X", raw, features=known, numbers=raw is None)

    def _taken(self, X: Any, categorical: Sequence[str] | None) -> Given:
        """Take a table whose columns are to be learnt."""
        table = given(X, "X", categorical=tuple(categorical or ()))
        if categorical and table.names is None:
            raise ParameterError(
                f"names columns of a table, and X is a {type(X).__name__}; expected a table with "
                "named columns",
                parameter="categorical_features",
            )
        return table

    def _rows(
        self, X: Given, y: Any, sample_weight: Any, client: Client | None, *, reset: bool = True
    ) -> TrainingRows:
        """Take data for training, whatever it comes in, as rows of an engine."""
        features = self._features(X, reset=reset)
        target, target_names = self._target(y, reset=reset)
        lazy = is_lazy(features) or is_lazy(target)
        if sample_weight is not None and not lazy:
            sample_weight = given(sample_weight, "sample_weight").values
            if np.iscomplexobj(np.asarray(sample_weight)):
                raise DataError("sample_weight holds complex numbers; expected real ones")
            sample_weight = _check_sample_weight(sample_weight, features, dtype=np.float64)
        self._flat = np.ndim(target) == 1
        n_targets = 1 if self._flat else int(np.shape(target)[1])
        dtype = dask_dtype(features, "X") if is_dask_frame(features) else features.dtype
        return TrainingRows(
            engine_of(features, target, sample_weight, client),
            _FLOAT32 if dtype == _FLOAT32 else _FLOAT64,
            n_targets,
            target_names,
        )

    def _features(self, X: Given, *, reset: bool) -> Any:
        """Check the names and columns of X, and make floats of it unless it is lazy."""
        values, lazy = X.values, is_lazy(X.values)
        # The summary of the rows finds what is not finite, and names it.
        options = {"dtype": [np.float64, np.float32], "ensure_all_finite": False}
        if lazy and values.ndim != 2:
            raise ValueError(
                f"Expected 2D array, got {values.ndim}D array instead. Reshape your data: "
                f"X.reshape(-1, 1) if it has a single feature"
            )
        if X.names is not None and values.ndim == 2:
            import pandas as pd

            # Every version of scikit-learn knows the names of this, not of each kind of table.
            # Those that are no strings are none to it, but may be there twice.
            strings = any(isinstance(name, str) for name in X.names)
            named = pd.DataFrame(columns=X.names if strings else range(len(X.names)))
            validate_data(self, named, reset=reset, skip_check_array=True)
        elif not lazy:
            return validate_data(self, values, reset=reset, **options)
        else:
            if reset:
                self.__dict__.pop("feature_names_in_", None)  # of an earlier fit
                self.n_features_in_ = int(values.shape[1])
            elif values.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"X has {values.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input"
                )
        return values if lazy else check_array(values, input_name="X", estimator=self, **options)

    def _target(self, y: Any, *, reset: bool = True) -> tuple[Any, tuple[str, ...] | None]:
        """Give y without its container, as numbers unless it is lazy, and its names.

        What the estimator knows of targets is learnt from it, if it is to be ``reset``.
        """
        del reset
        if y is None:
            raise DataError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        target = given(y, "y")
        if is_lazy(target.values):
            return target.values, target.texts
        values = check_array(
            target.values, ensure_2d=False, ensure_all_finite=False, input_name="y", estimator=self
        )
        return real_numbers(values, "y"), target.texts
