"""The scikit-learn face for targets that are numbers: `AltReLURegressor`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from altrelu_dist.encoding import RawColumns
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.estimators.base import NetworkEstimator, ValidationData
from altrelu_dist.estimators.taking import TrainingRows
from altrelu_dist.folding import folded
from altrelu_dist.frames import Given, given
from altrelu_dist.inputs import is_lazy, on_client
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.losses import Poisson, Repeated
from altrelu_dist.moments.refusals import check_finite
from altrelu_dist.network import Network
from altrelu_dist.parameters import check_one_target, checked, one_name_a_column
from altrelu_dist.prediction import check_interval, intervals, of_targets
from altrelu_dist.training import Callback

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["AltReLURegressor"]


def _of_levels(name: str | None, levels: Sequence[float]) -> tuple[str, ...]:
    """What the quantiles of a target are called."""
    return tuple(f"{name or 'y'}_{level!r}" for level in levels)


def _of_squares(model: AltReLURegressor) -> bool:
    if model.loss != SQUARES:
        raise AttributeError(f"partial_fit is about squares; the loss is {model.loss!r}: use fit")
    return True


class AltReLURegressor(RegressorMixin, NetworkEstimator):  # type: ignore[misc]
    """Two-layer ReLU regression network for new rows, with nothing to tune.

    By default a committee is trained: an ensemble of networks over encoded columns, each trained
    on all rows but those of its own fold. Non-negative least squares over their out-of-fold
    predictions weights them, beside ridge lines, and the weighted members are folded into one
    network.
    With ``n_hidden`` one plain network of that many neurons is fitted to the training rows, on the
    columns as they are: the setting of [1]_, for a low training loss.

    Parameters
    ----------
    n_hidden : int, optional
        Neurons of one plain network. By default a committee is trained, which chooses its neurons.
    method : {"committee", "search", "kronecker", "damped", "alternating"}, optional
        By default ``"committee"``, or with ``n_hidden`` ``"search"``. All methods but the first
        train one plain network, of 64 neurons if ``n_hidden`` is not given. ``"search"`` inserts
        and removes neurons in closed form, with descents between: many cheap layer solves, each on
        a tile of rows with Kronecker-factored curvature. It ends with damped layer solves on all
        rows. ``"kronecker"`` makes these descents alone, from one start, and neither adds nor
        removes a neuron. ``"damped"`` only solves the layers with damping, from one start.
        ``"alternating"`` is the algorithm of [1]_ to the letter, the best network kept.
    max_size : int, optional
        Most neurons of a committee's network. By default two groups of 512 neurons and the ridge
        lines, 1,030 with one target; from 100,000 rows on twice as many. A network of fewer neurons
        than the committee has is trained on what the committee says of the rows (distillation);
        ``network_.info`` says how well it follows.
    extrapolate : bool, default False
        Let a committee predict any distance beyond the range of the training targets. By default
        its predictions are clipped at a quarter of that range beyond it; those of a plain network
        never are.
    loss : {"squared_error", "huber", "quantile", "poisson"}, default "squared_error"
        What is made small: ``"huber"`` is the square near the prediction and linear beyond 1.345
        robust deviations of the residuals; ``"quantile"`` predicts quantiles (pinball loss),
        ``"poisson"`` means of counts or other targets of at least 0, by their logarithms. Not with
        ``max_size``, the method ``"alternating"`` and :meth:`partial_fit`.
    quantile : float or list of float, optional
        Level, by default 0.5, or levels that rise, of ``loss="quantile"``. Several are outputs of
        one network, sorted so that they do not cross; then there is one target alone.
    categorical_features : list of str, optional
        Columns of a table whose numbers are codes: each different number is a level. Texts and
        categories always are.
    alpha : float, default 0
        Ridge of both layers, relative to the mean square over rows, for standardised features and
        targets. Biases are not penalised. Of a committee it is the ridge of its members.
    negative_slope : float, default 0
        Slope of the activation left of its kink, in [0, 1); above 0 it is a leaky ReLU.
    max_iter : int, optional
        Most iterations: of ``"committee"`` the rounds, of ``"search"`` the cycles that add and
        prune neurons, of ``"kronecker"`` the rounds, of ``"damped"`` the steps, of
        ``"alternating"`` the alternations (30 by default). By default the run stops by itself.
    max_time : float, optional
        Seconds after which the run stops, counted from the call of :meth:`fit`. What would take
        longer is not begun, or cut short. The first pass over all rows alone is always made to its
        end; a `ConvergenceWarning` says where it takes longer than that.
    early_stopping : bool, default False
        Hold a part of the rows out, and return the network with the least loss on them of all
        that the run came through: it may have fewer neurons than ``n_hidden``. The run stops when
        none was better for six iterations over all training rows, a third of the work or more. A
        committee always stops by its folds: for it nothing changes.
    validation_fraction : float, default 0.1
        Share of the rows that early stopping holds out, at random by their numbers; never more
        than 65,536 rows.
    random_state : int, RandomState instance or None, default None
        An int makes the run repeatable to the last bit, whatever the chunks and the workers.
    callback : callable, optional
        Gets a `Progress` many times a second; a true return stops the run at the end of the
        current step, and the best network so far is kept.
    verbose : int, default 0
        Above 0 each iteration is logged, at level INFO, by the logger ``altrelu_dist``: to stderr
        where no logging is set up.
    client : distributed.Client, optional
        Where Dask and Zarr data is trained; by default the current client, else this process.
        Data in memory goes to a cluster only if the client is given. A clone shares it, as it
        does the callback; a pickled estimator leaves it behind. dask-ml's `GridSearchCV` takes
        estimators without one: there the fits are tasks of the current client.
    checkpoint : str or path, optional
        Folder, local or any address that fsspec knows, where what the run has found is kept: at the
        end of each stage and, in between, every ``checkpoint_interval`` seconds. Files are replaced
        as a whole, and the one before the newest is kept. One run at a time may use it.
    checkpoint_interval : float, default 60
    resume : bool, default False
        Go on with the run that ``checkpoint`` is of. It ends with the same network, to the last
        bit, as if it had not been cut off. Refused if the data or the parameters are others;
        ``max_time``, which counts the time before too, may be another.
    warm_start : bool, default False
        Let :meth:`fit` go on from the plain network that is there, on the same data or on other.
        It never ends above what that network makes of the new data, unless it had more neurons
        than ``n_hidden``, or early stopping has the last word. Neurons are added, or the cheapest
        pruned, where ``n_hidden`` has changed. A committee cannot go on from a network: it is
        refused.

    Attributes
    ----------
    network_ : Network
        The trained network; takes raw features. That of a committee has an ``encoder``, and in its
        ``info`` the ``"groups"`` it is made of: name, neurons, weight for each target.
    expected_r2_ : float
        R2 to expect on new rows of the same kind, the mean over targets: of the weighted
        out-of-fold predictions, and what averaging the members of a group adds. Only of a
        committee.
    expected_r2_spread_ : float
        Nine of ten further folds would be within so much of it, if the R2 of folds are spread as
        normal numbers are. Only of a committee.
    expected_loss_ : float
        Mean loss to expect on new rows, in place of ``expected_r2_`` where the loss is another:
        out of fold, without what averaging the members adds. The pinball loss, the Poisson
        deviance as scikit-learn defines it, or the Huber loss in squared units.
    expected_d2_ : float
        The share of the loss of the best constant that the predictions take off: D2, which is R2
        for squares.
    validation_loss_ : float
        Mean loss on the validation rows, if there were some: those held out, or ``X_val``. The mean
        square over targets, or the loss that was asked for as in ``expected_loss_``.
    history_ : list of dict
        One entry an iteration: the fields of `Progress`, details of the stage, and
        ``peak_memory``: bytes, the sum of ``peak_memory_`` as it was known then. The loss of a
        committee is out of fold.
    n_iter_ : int
        Iterations recorded.
    n_passes_ : int
        Passes over all rows. Where all rows fit in memory the search, or the rounds of a committee,
        pass over them too.
    stop_reason_ : {"converged", "max_iter", "max_time", "early_stopping", "interrupted"}
    peak_memory_ : PeakMemory
        Peak resident memory of this process (``client``), the scheduler and each worker, in bytes,
        each over the life of its process; measured at the begin of each stage and at the end.
    last_doubling_ : float
        Share of the loss that the second half of the run's time took off it, from 0 to 1: what
        as much time again might be worth. NaN where losses over the same rows do not tell.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X was a table with names that are all strings.

    Notes
    -----
    Members of a committee are trained on the rows that fit in memory (320 MiB); of more, each
    round takes other random rows. The first pass is over all rows. Folds are random: where several
    rows are of the same unit, or follow each other in time, and new rows are of other units or
    later, the expected R2 is too high.

    References
    ----------
    .. [1] A. Barbu, "Training a Two-Layer ReLU Network Analytically", Sensors 2023, 23(8), 4072.

    Examples
    --------
    >>> import numpy as np
    >>> from altrelu_dist import AltReLURegressor
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> y = np.abs(X[:, 0])
    >>> model = AltReLURegressor(random_state=0, max_iter=1).fit(X, y)  # one round: quick
    >>> bool(model.expected_r2_ > 0.99)
    True
    >>> plain = AltReLURegressor(n_hidden=4, random_state=0).fit(X, y)
    >>> bool(plain.score(X, y) > 0.999)
    True
    """

    _expects = ("expected_r2", "expected_r2_spread", "expected_loss", "expected_d2")
    _target_name: str | None = None  # of which several quantiles are predicted

    def __init__(
        self,
        n_hidden: int | None = None,
        *,
        method: str | None = None,
        max_size: int | None = None,
        extrapolate: bool = False,
        loss: str = "squared_error",
        quantile: float | Sequence[float] | None = None,
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
        warm_start: bool = False,
    ) -> None:
        self.n_hidden = n_hidden
        self.method = method
        self.max_size = max_size
        self.extrapolate = extrapolate
        self.loss = loss
        self.quantile = quantile
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
        self.warm_start = warm_start

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
        target_names: Sequence[str] | None = None,
        raw_columns: RawColumns | None = None,
    ) -> Self:
        """Train the network.

        The first Ctrl-C or SIGTERM stops at the end of the current step: the best network so far
        is kept, and ``stop_reason_`` is ``"interrupted"``. A second one, or a first one before
        there is a network, raises at once: `KeyboardInterrupt` for Ctrl-C, for SIGTERM
        `SystemExit` with exit code 143. So it is in the main thread, for each signal of which the
        program has set no handler, and for SIGTERM not in a child of `multiprocessing`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A pandas, polars, Arrow or Dask table, or any that exports Arrow data (a polars
            LazyFrame is collected), of numbers, texts, categories and times; or dense numbers: a
            NumPy, Dask or Zarr array, an xarray DataArray, or a Dataset of variables over the rows.
            Features may be missing (NaN, null). Categories that are numbers are taken as such. A
            column of texts of which nearly all are different names the rows, and is left out.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), optional
        X_val, y_val : array-like of shapes (n_val, n_features) and as y, optional
            Validation rows of your own, with the columns of X; at most 65,536 of them are used, at
            random. A plain network is chosen by them, as by the rows that ``early_stopping`` would
            hold out of X. A committee is chosen by its folds: it is only scored on them. The loss
            on them is ``validation_loss_``.
        sample_weight_val : array-like of shape (n_val,), optional
        feature_names, target_names : sequence of str, optional
            Names of columns that are arrays; those of a table are known.
        raw_columns : tuple of RawColumn, optional
            What the numbers of X stand for, where it is an array that was made of a table:
            ``DataSet.columns``.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter has a value that it cannot have, or a worker of the cluster cannot hold
            what a task needs; the text says what would do.
        DataError
            If the data cannot be trained on; the text names what was found and where.
        ClusterError
            If the client is closed or asynchronous, or the data was persisted on another cluster.

        Warns
        -----
        ConvergenceWarning
            If the network ends with fewer working neurons than ``n_hidden``: because ``max_time``
            was over, or because no further one lowers the loss. Not where early stopping chose it.
        """
        return self._train(
            X,
            y,
            sample_weight,
            feature_names=feature_names,
            target_names=target_names,
            raw_columns=raw_columns,
            validation=ValidationData.of(X_val, y_val, sample_weight_val),
        )

    @available_if(_of_squares)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fold further rows into the network, without the rows of before.

        The first call, where there is no network yet, is `fit`. From then on the hidden layer
        stays as it is, and one pass over the new rows puts the output layer where it is optimal:
        at the least squares over all rows so far, whatever the blocks they came in. What it does
        not do is to move or add neurons; where the new rows have something to say that the
        neurons of before cannot express, `fit` on all rows, or with ``warm_start``, says it.

        The rows that `fit` was given count by the Gram matrix of their hidden features. Where it
        held a sample of them in memory, that is the sample's, scaled to all of them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), optional
            On the scale of those of before.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If the data cannot be folded in; the network is then as it was.
        """
        if not hasattr(self, "network_"):
            return self.fit(X, y, sample_weight)
        alpha = checked(self).alpha
        n_targets, flat = self.network_.n_targets, self._flat
        before = dict(self.__dict__)
        try:
            with on_client(self.client, X=X, y=y, sample_weight=sample_weight) as client:
                table = self._known(X)
                engine, _, found, _ = self._rows(table, y, sample_weight, client, reset=False)
                if found != n_targets or self._flat != flat:
                    shapes = [
                        "(n_samples,)" if f else f"(n_samples, {n})"
                        for f, n in ((self._flat, found), (flat, n_targets))
                    ]
                    raise DataError(
                        f"y has the shape {shapes[0]}, the network was trained on one of "
                        f"{shapes[1]}"
                    )
                self.network_ = folded(self.network_, engine, alpha)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def predict(self, X: Any) -> Any:
        """Predict the targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray or dask.array.Array of shape (n_samples,) or (n_samples, n_targets)
            Of several quantiles (n_samples, n_levels). Lazy for Dask and Zarr data.
        """
        out = self._outputs(X)
        out = of_targets(self.network_, out)
        return out[:, 0] if self._flat and out.shape[1] == 1 else out

    def predict_interval(self, X: Any, level: float = 0.9) -> Any:
        """Predict an interval that holds the target of a new row with a chance of ``level``.

        The chance is that of rows like those of the training, taken together. The interval is
        wider where residuals of rows with predictions nearby are larger. They are those of a
        committee's out-of-fold predictions, or of the validation rows of a plain network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        level : float, default 0.9
            Above 0 and below 1; the share of targets below the interval is that above it.

        Returns
        -------
        ndarray or dask.array.Array of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Least and greatest value. Lazy for Dask and Zarr data.

        Raises
        ------
        ParameterError
            If the level is none, or needs more residuals than there are, or the loss is that of
            quantiles.
        DataError
            If there are no residuals: a plain network without validation rows, one that
            `partial_fit` or a file of an earlier version of this package left without.
        """
        check_is_fitted(self)
        network = self.network_
        check_interval(network, level, "level")
        out = intervals(network, self._outputs(X), float(level))
        return out[:, 0] if self._flat else out

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination of the predictions, the mean over targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        float
        """
        check_is_fitted(self)
        if len(self.network_.quantiles) > 1:
            raise ParameterError(
                "has several levels, and score is the R2 of one prediction a row; use "
                "sklearn.metrics.mean_pinball_loss for each level",
                parameter="quantile",
            )
        features = self._features(self._known(X), reset=False)
        target, names = self._target(y)
        if not (is_lazy(features) or is_lazy(target)):
            check_finite(target, "y", names)
            weight = None if sample_weight is None else given(sample_weight, "sample_weight").values
            predicted = of_targets(self.network_, self._predicted(features))
            return float(r2_score(target, predicted, sample_weight=weight))
        from altrelu_dist.metrics import evaluate

        with on_client(self.client, X=X, y=y, sample_weight=sample_weight) as client:
            scores = evaluate(self.network_, X, target, sample_weight, client)
        # As scikit-learn has it where the target does not vary.
        r2 = [float(score.mse == 0) if math.isnan(score.r2) else score.r2 for score in scores]
        return float(np.mean(r2))

    def _rows(
        self, X: Given, y: Any, sample_weight: Any, client: Client | None, *, reset: bool = True
    ) -> TrainingRows:
        rows = super()._rows(X, y, sample_weight, client, reset=reset)
        levels = self._levels()
        if len(levels) < 2:
            return rows
        check_one_target(levels, rows.n_targets)
        if reset:
            self._target_name = None if rows.target_names is None else rows.target_names[0]
        return rows._replace(
            engine=rows.engine.prepared(Repeated(len(levels))),
            n_targets=len(levels),
            target_names=_of_levels(self._target_name, levels),
        )

    def _levels(self) -> Sequence[float]:
        """The levels of the quantiles, where there is a list of them."""
        return self.quantile if isinstance(self.quantile, list | tuple | np.ndarray) else ()

    def _outputs_named(self, names: Sequence[str], n_targets: int) -> tuple[str, ...]:
        if len(levels := self._levels()) < 2:
            return super()._outputs_named(names, n_targets)
        one_name_a_column("target_names", names, "y", 1)
        self._target_name = str(names[0])
        return _of_levels(self._target_name, levels)

    def _named(self, network: Network) -> Network:
        if len(network.quantiles) < 2 or self._target_name is None:
            return network
        return replace(network, info=network.info | {"target_name": self._target_name})

    def _restored(self, network: Network) -> None:
        self._target_name = network.info.get("target_name")

    def _target(self, y: Any, *, reset: bool = True) -> tuple[Any, tuple[str, ...] | None]:
        target, names = super()._target(y, reset=reset)
        if self.loss == "poisson" and isinstance(target, np.ndarray):
            Poisson().check(target)
        return target, names

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags
