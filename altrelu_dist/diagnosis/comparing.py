"""Making a diagnosis, in passes over all rows whose memory does not grow with them.

One pass draws a random sample, one adds up densities. The sample gives the edges of the densities,
importance and partial dependence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.class_metrics import ClassScore, evaluate_classes
from altrelu_dist.dependence import importance_of, partial_dependence
from altrelu_dist.diagnosis.figures import Calibration, Diagnosis, Residuals
from altrelu_dist.errors import DataError, MissingTargetsError
from altrelu_dist.frames import given_again
from altrelu_dist.inputs import engine_of, on_client
from altrelu_dist.losses import Repeated
from altrelu_dist.metrics import TargetScore, evaluate
from altrelu_dist.moments.rows import rows_with_target

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.network import Network

__all__ = ["diagnose"]

_SAMPLE = 2_000  # rows that importance is measured on
_DEPENDENCE_ROWS = 500
_DEPENDENCES = 6  # columns whose partial dependence is shown


def diagnose(
    network: Network,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    classes: Sequence[Any] | None = None,
    client: Client | None = None,
    random_state: int = 0,
    most_targets: int = 8,
) -> Diagnosis:
    """Compare a network's predictions with the truth, in three passes of bounded memory.

    Scores and densities are over all rows. Importance is measured on a random sample of 2,000 rows,
    partial dependence on 500 of them. Rows without a target are left out.

    Parameters
    ----------
    network : Network
    X : array-like of shape (n_rows, n_features)
        As :meth:`AltReLURegressor.fit` takes it.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Of classes their places in `classes`; of several quantiles the one target that they are of.
    sample_weight : array-like of shape (n_rows,), optional
    classes : sequence of labels, optional
        As `evaluate_classes` takes them.
    client : distributed.Client, optional
        By default the current one, for Dask and Zarr data.
    random_state : int, default 0
        Of the sample and the permutations.
    most_targets : int, default 8
        Targets of which more than the scores is wanted.

    Returns
    -------
    Diagnosis

    Raises
    ------
    DataError
        As `evaluate` and `evaluate_classes`.
    ClusterError
        If the client cannot be waited for, or does not have what was persisted of the data.
    """
    # Workers import these by their own names, also while a thread imports the package: were they a
    # part of that import, each could wait for the other.
    from altrelu_dist.diagnosis.classes import comparison_of_classes
    from altrelu_dist.diagnosis.numbers import comparison_of_numbers
    from altrelu_dist.diagnosis.sample import Draw

    X = given_again(X, "X", network.columns, network.feature_names).values
    bare = replace(network, hidden_gram=None)  # which is large, and goes to the workers
    missing: dict[str, int] = {}
    scores: list[TargetScore] | ClassScore
    with on_client(client, X=X, y=y, sample_weight=sample_weight) as client:
        engine = engine_of(X, y, sample_weight, client)
        if network.classes is not None:
            scores = evaluate_classes(network, X, y, sample_weight, classes=classes, client=client)
            engine = engine.prepared(rows_with_target)
        else:
            try:
                scores = evaluate(network, X, y, sample_weight, client=client)
            except MissingTargetsError as error:
                missing = error.counts
                y, sample_weight = _known(y, sample_weight)
                scores = evaluate(network, X, y, sample_weight, client=client)
                engine = engine_of(X, y, sample_weight, client)
            if len(network.quantiles) > 1:
                engine = engine.prepared(Repeated(len(network.quantiles)))
        known = None if network.classes is None else len(network.classes)
        sample = engine.reduce(Draw(_SAMPLE, random_state, known), "sample").sample.shuffled()
        if not len(sample.X):
            raise DataError("no row of the data is of a class that the network knows")
        residuals: tuple[Residuals, ...] = ()
        calibrations: tuple[Calibration, ...] = ()
        confusion = None
        if known is None:
            numbers = comparison_of_numbers(bare, sample, most_targets)
            sums = engine.reduce(numbers, "densities")
            names = network.target_names or tuple(f"y{t}" for t in range(network.n_targets))
            residuals = tuple(
                numbers.residuals(sums, t, name) for t, name in enumerate(names[:most_targets])
            )
            unseen = sums.unseen
        else:
            labels = comparison_of_classes(bare, sample)
            counts = engine.reduce(labels, "densities")
            calibrations, confusion = labels.calibrations(counts), labels.confusion(counts)
            unseen = counts.unseen
    importances = importance_of(bare, sample, seed=random_state)[:most_targets]
    few = sample.part(0, min(_DEPENDENCE_ROWS, len(sample.X)))
    tops = [each.order[:_DEPENDENCES].tolist() for each in importances]
    found = {
        column: each
        for column in sorted({column for top in tops for column in top})
        for each in partial_dependence(bare, few, [column])
    }
    return Diagnosis(
        scores,
        scores[0].rows if isinstance(scores, list) else scores.rows,
        len(sample.X),
        residuals,
        calibrations,
        confusion,
        tuple(importances),
        tuple(tuple(found[c] for c in top if c in found) for top in tops),
        missing,
        unseen,
    )


def _known(y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Targets and weights as `DataSet.known_targets`, of whatever holds them."""
    import dask.array as da

    from altrelu_dist.frames import given
    from altrelu_dist.inputs import is_lazy, lazy_array

    y = given(y, "y", numbers=True).values
    y = lazy_array(y, "y") if is_lazy(y) else np.asarray(y)
    y = y[:, None] if y.ndim == 1 else y
    xp = da if isinstance(y, da.Array) else np
    lost = xp.isnan(y).any(axis=1)
    if sample_weight is None:
        weight = xp.where(lost, 0.0, 1.0)
    else:
        own = given(sample_weight, "sample_weight", numbers=True).values
        own = lazy_array(own, "sample_weight") if is_lazy(own) else np.asarray(own)
        weight = xp.where(lost, 0.0, own.ravel())
    return xp.where(lost[:, None], 0.0, y), weight
