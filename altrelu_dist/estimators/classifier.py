"""The scikit-learn face for targets that are classes: `AltReLUClassifier`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, check_is_fitted

from altrelu_dist.data.source import listed
from altrelu_dist.encoding import RawColumns
from altrelu_dist.errors import DataError, MissingTargetsError, ParameterError
from altrelu_dist.estimators.base import NetworkEstimator, ValidationData
from altrelu_dist.estimators.labels import (
    Indicators,
    SumClasses,
    check_known,
    class_numbers,
    column_name,
    known_classes,
    labels_of,
)
from altrelu_dist.estimators.taking import TrainingRows
from altrelu_dist.frames import Given
from altrelu_dist.inputs import engine_of, is_lazy, on_client
from altrelu_dist.logistic import chosen, probabilities
from altrelu_dist.moments.rows import Additive, Floats, Rows
from altrelu_dist.network import Network
from altrelu_dist.training import Callback

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["AltReLUClassifier"]

_LISTED = 10  # classes that a checkpoint, and its error, names


class AltReLUClassifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
    """Two-layer ReLU network that tells classes apart, with nothing to tune.

    It is trained as `AltReLURegressor` is, by least squares, on indicators of the classes. Then
    its outputs become logits: one scale and a bias for each class, fitted to the logistic loss by
    Newton's method, of a committee on its out-of-fold predictions. Both are folded into the output
    layer, so that it stays one network, and its probabilities are the softmax of its outputs; with
    two classes it has one output, and they are its sigmoid.

    It has no ``partial_fit`` and no ``warm_start``, unlike `AltReLURegressor`: both go on from an
    output layer of least squares, and this one is of logits. For further rows call `fit` on all
    rows together; a run that was cut off goes on from its ``checkpoint``.

    Parameters
    ----------
    n_hidden, method, max_size : optional
        As for `AltReLURegressor`: by default a committee is trained.
    class_weight : {"balanced"} or dict, optional
        Weight of the rows of each class, beside their own: by label, 1 where it is not given.
        ``"balanced"`` gives all classes the same sum of weights. Probabilities are then those of
        rows weighted so.
    categorical_features, alpha, negative_slope : optional
        As for `AltReLURegressor`, and so are all that follow.
    max_iter, max_time, early_stopping, validation_fraction, random_state : optional
    callback, verbose, client, checkpoint, checkpoint_interval, resume : optional

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    network_ : Network
        Its outputs are logits, as those of its exports are. Its ``info`` has the ``"classes"``, and
        ``"link"``: ``"logistic"``.
    expected_log_loss_, expected_accuracy_ : float
        To expect on new rows of the same kind, from the out-of-fold predictions: of each fold under
        the logits that the others give. Only of a committee.
    validation_loss_ : float
        Log loss of the network on validation rows; that of ``early_stopping`` without rows of your
        own is least squares.
    history_, n_iter_, n_passes_, stop_reason_, peak_memory_, last_doubling_
        As of `AltReLURegressor`; losses are those of least squares.
    n_features_in_, feature_names_in_
        As of `AltReLURegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from altrelu_dist import AltReLUClassifier
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> y = np.where(np.abs(X[:, 0]) < 0.5, "inside", "outside")
    >>> model = AltReLUClassifier(random_state=0, max_iter=1).fit(X, y)  # one round: quick
    >>> bool(model.score(X, y) > 0.95)
    True
    >>> model.predict([[0.0]])
    array(['inside'], dtype='<U7')
    """

    classes_: NDArray[Any]
    _logistic = True
    _given: tuple[Sequence[Any] | None, str | None] = (None, None)  # the classes, and their name
    _expects = ("expected_log_loss", "expected_accuracy")
    _class_factors: Floats | None = None  # of the weights of the rows of each class

    def __init__(
        self,
        n_hidden: int | None = None,
        *,
        method: str | None = None,
        max_size: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        categorical_features: Sequence[str] | None = None,
        alpha: float = 0.0,
        negative_slope: float = 0.0,
        max_iter: int | None = None,
        max_time: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        callback: Callback | None = None,
        verbose: int = 0,
        client: Client | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_interval: float = 60.0,
        resume: bool = False,
    ) -> None:
        self.n_hidden = n_hidden
        self.method = method
        self.max_size = max_size
        self.class_weight = class_weight
        self.categorical_features = categorical_features
        self.alpha = alpha
        self.negative_slope = negative_slope
        self.max_iter = max_iter
        self.max_time = max_time
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.callback = callback
        self.verbose = verbose
        self.client = client
        self.checkpoint = checkpoint
        self.checkpoint_interval = checkpoint_interval
        self.resume = resume

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        feature_names: Sequence[str] | None = None,
        raw_columns: RawColumns | None = None,
        target_name: str | None = None,
        classes: Sequence[Any] | None = None,
    ) -> Self:
        """Train the network; for signals, errors and warnings see :meth:`AltReLURegressor.fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As :meth:`AltReLURegressor.fit` takes it.
        y : array-like of shape (n_samples,)
            Labels: texts, whole numbers, booleans or categories. Of Dask and Zarr data the
            different ones are found by a pass over y.
        sample_weight : array-like of shape (n_samples,), optional
        X_val, y_val, sample_weight_val : array-like, optional
            Validation rows of your own, as for :meth:`AltReLURegressor.fit`; the labels are among
            those of y, and weighted by ``class_weight`` too. A plain network is chosen by least
            squares on them. The log loss of the result on them is ``validation_loss_``.
        feature_names : sequence of str, optional
        raw_columns : tuple of RawColumn, optional
            As for :meth:`AltReLURegressor.fit`.
        target_name : str, optional
            What the labels are called; by default the name of a column of a table.
        classes : sequence of labels, optional
            The labels, sorted, if y (and y_val) hold their places here, as `DataSet` has them; by
            default they hold labels.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter has a value that it cannot have.
        DataError
            If the data cannot be trained on: a label is missing, or there are not two classes.
        """
        self._given = classes, column_name(y) if target_name is None else target_name
        return self._train(
            X,
            y,
            sample_weight,
            feature_names=feature_names,
            raw_columns=raw_columns,
            validation=ValidationData.of(X_val, y_val, sample_weight_val),
        )

    def predict(self, X: Any) -> Any:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray or dask.array.Array of shape (n_samples,)
            Labels; lazy for Dask and Zarr data.
        """
        out = self._outputs(X)
        if not is_lazy(out):
            return self.classes_[chosen(out)]
        return out.map_blocks(
            _labels, self.classes_, drop_axis=1, dtype=self.classes_.dtype, meta=self.classes_[:0]
        )

    def predict_proba(self, X: Any) -> Any:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray or dask.array.Array of shape (n_samples, n_classes)
            In the order of ``classes_``; lazy for Dask and Zarr data.
        """
        out = self._outputs(X)
        if not is_lazy(out):
            return probabilities(out)
        chunks = (out.chunks[0], (len(self.classes_),))
        return out.map_blocks(probabilities, dtype=np.float64, chunks=chunks, meta=np.empty((0, 0)))

    def decision_function(self, X: Any) -> Any:
        """Predict the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray or dask.array.Array of shape (n_samples,) or (n_samples, n_classes)
            With two classes the logit of the second. Lazy for Dask and Zarr data.
        """
        out = self._outputs(X)
        return out[:, 0] if len(self.classes_) == 2 else out

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy: the share of rows of which the class is predicted.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            A label that was not there in training is never predicted.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        float

        Raises
        ------
        DataError
            If a label is missing.
        """
        check_is_fitted(self)
        features = self._features(self._known(X), reset=False)
        numbers = class_numbers(labels_of(y), self.classes_)
        hits = _Hits(replace(self.network_, hidden_gram=None))
        if is_lazy(features) or is_lazy(numbers):
            with on_client(self.client, X=X, y=y, sample_weight=sample_weight) as client:
                engine = engine_of(features, numbers, sample_weight, client)
                found = engine.reduce(hits, "scores")
        else:
            check_consistent_length(features, numbers)
            weight = _check_sample_weight(sample_weight, features, dtype=np.float64)
            found = _Found.of(chosen(self._predicted(features)), numbers, weight)
        if found.missing:
            raise DataError(f"y has no label in {found.missing} rows; give one, or leave them out")
        if not found.weight > 0:
            raise DataError("every sample weight is zero: there is nothing to score")
        return float(found.right / found.weight)

    def _rows(
        self, X: Given, y: Any, sample_weight: Any, client: Client | None, *, reset: bool = True
    ) -> TrainingRows:
        rows = super()._rows(X, y, sample_weight, client, reset=reset)
        n_classes = len(self.classes_)
        if reset:
            self._class_factors = None
        if reset and (self.class_weight is not None or sample_weight is not None):
            sums = rows.engine.reduce(SumClasses(n_classes), "classes").weight
            factors = self._factors(sums)
            if np.isfinite(sums).all() and np.count_nonzero(sums * factors) < 2:
                raise DataError("only one class has rows of positive weight; expected two or more")
            self._class_factors = factors
        names = tuple(str(label) for label in self.classes_[-1:])
        if n_classes > 2:
            names = tuple(str(label) for label in self.classes_)
        return rows._replace(
            engine=rows.engine.prepared(
                Indicators(n_classes, None if self.class_weight is None else self._class_factors)
            ),
            n_targets=len(names),
            target_names=names,
        )

    def _target(self, y: Any, *, reset: bool = True) -> tuple[Any, tuple[str, ...] | None]:
        """Learn the classes, or know them, and give their numbers."""
        labels = labels_of(y)
        classes, _ = self._given
        if not reset:
            numbers = labels if classes is not None else class_numbers(labels, self.classes_)
            check_known(labels, numbers, self.classes_)
        elif classes is None:
            self.classes_ = known_classes(labels)
            numbers = class_numbers(labels, self.classes_)
        else:
            self.classes_, numbers = np.asarray(classes), labels
            if len(self.classes_) < 2:
                raise DataError(f"y has one class: {[*classes]}; expected two classes or more")
        if not is_lazy(numbers) and np.isnan(numbers).any():
            lost = np.flatnonzero(np.isnan(numbers))
            raise DataError(
                f"y contains NaN: no label in {len(lost)} rows, the first in row {lost[0]}; give "
                "one, or leave these rows out"
            )
        return numbers, None

    def _factors(self, sums: Floats) -> Floats:
        """The weights of the classes, from the sums of the weights of their rows."""
        asked, classes = self.class_weight, self.classes_
        if asked is None:
            return np.ones(len(classes))
        if isinstance(asked, str):
            if asked != "balanced":
                raise ParameterError(
                    f'is {asked!r}; expected "balanced" or a dict', parameter="class_weight"
                )
            balanced: Floats = sums.sum() / (len(classes) * np.where(sums > 0, sums, np.inf))
            return balanced
        if not isinstance(asked, Mapping):
            raise ParameterError(
                f'is {asked!r}; expected "balanced" or a dict', parameter="class_weight"
            )
        labels = classes.tolist()
        for label, weight in asked.items():
            if label not in labels:
                raise ParameterError(
                    f"has the label {label!r}, which y has not; its labels are "
                    f"{', '.join(map(repr, labels[:10]))}",
                    parameter="class_weight",
                )
            if not 0 <= weight < np.inf:
                raise ParameterError(
                    f"is {weight!r} for {label!r}; expected a number of at least 0",
                    parameter="class_weight",
                )
        return np.array([float(asked.get(label, 1.0)) for label in labels])

    def _lost(self, error: MissingTargetsError) -> str:
        return f"rows without a class are left out: {max(error.counts.values()):,}"

    def _told_apart(self) -> dict[str, Any]:
        labels = self.classes_.tolist()
        if len(labels) <= _LISTED:
            return {"classes": labels}
        digest = sha256(json.dumps(labels).encode()).hexdigest()
        return {"classes": f"{listed([*map(repr, labels[:_LISTED])])} ({len(labels):,}; {digest})"}

    def _named(self, network: Network) -> Network:
        info = network.info | {"classes": self.classes_.tolist(), "link": "logistic"}
        if self._given[1] is not None:
            info["target_name"] = self._given[1]
        return replace(network, info=info)

    def _restored(self, network: Network) -> None:
        self.classes_ = np.asarray(network.info["classes"])
        self._given = None, network.info.get("target_name")
        weights: Any = self.class_weight
        if isinstance(weights, list):  # a dict of labels that are no texts
            self.class_weight = dict(map(tuple, weights))


@dataclass(frozen=True)
class _Found(Additive):
    """How many rows are predicted as they are labelled."""

    right: float
    weight: float
    missing: int

    @classmethod
    def of(cls, predicted: NDArray[np.intp], numbers: Floats, weight: Floats) -> _Found:
        """Of some rows; weights that are zero are of rows that do not count."""
        missing = int(np.count_nonzero(np.isnan(numbers) & (weight != 0)))
        return cls(float(weight @ (predicted == numbers)), float(weight.sum()), missing)


@dataclass(frozen=True)
class _Hits:
    """Contribute rows with the numbers of classes."""

    network: Network

    def __call__(self, rows: Rows) -> _Found:
        number = rows.y[:, 0].astype(np.float64)
        weight = rows.weights
        return _Found.of(chosen(self.network.predict(rows.X)), number, weight)


def _labels(logits: Floats, classes: NDArray[Any]) -> NDArray[Any]:
    """The most probable class of some rows."""
    labels: NDArray[Any] = classes[chosen(logits)]
    return labels
