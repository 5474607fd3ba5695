"""The scikit-learn face: `AltReLURegressor`."""

from __future__ import annotations

import logging
import math
import numbers
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_is_fitted,
    validate_data,
)

from altrelu_dist.checkpoints.opening import opened
from altrelu_dist.encoding import RawColumn, RawColumns
from altrelu_dist.errors import DataError, MissingTargetsError, ParameterError
from altrelu_dist.exports import ExportMethods
from altrelu_dist.fitting import CommitteeFit, Naming, PlainFit, fit_of
from altrelu_dist.folding import folded
from altrelu_dist.frames import Given, dask_dtype, given, is_dask_frame, real_numbers
from altrelu_dist.inputs import engine_of, is_lazy, kept, lazy_array, on_client
from altrelu_dist.interrupts import raise_for, say_stopping, stop_softly
from altrelu_dist.memory import PeakMemory
from altrelu_dist.model_file import load_estimator, save_estimator
from altrelu_dist.moments.refusals import check_finite
from altrelu_dist.moments.rows import rows_with_target
from altrelu_dist.network import Network
from altrelu_dist.parameters import checked, one_name_a_column
from altrelu_dist.prediction import predict_blocks
from altrelu_dist.training import Callback, Monitor, last_doubling
from altrelu_dist.version import __version__
from altrelu_dist.warm_start import check_method, digest, start_from

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.engine import Engine

__all__ = ["AltReLURegressor"]

_log = logging.getLogger(__name__)

_DOUBTFUL = 0.5  # weights for each row: more may fit noise

_FLOAT32: np.dtype[np.floating] = np.dtype(np.float32)
_FLOAT64: np.dtype[np.floating] = np.dtype(np.float64)


class _Rows(NamedTuple):
    """Rows to train on, and what the estimator says of them."""

    engine: Engine
    dtype: np.dtype[np.floating]
    n_targets: int
    target_names: tuple[str, ...] | None


class AltReLURegressor(ExportMethods, RegressorMixin, BaseEstimator):  # type: ignore[misc]
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
        lines: 1,028 with one target. A network of fewer neurons than the committee has is trained
        on what the committee says of the rows (distillation); ``network_.info`` says how well it
        follows.
    extrapolate : bool, default False
        Let a committee predict any distance beyond the range of the training targets. By default
        its predictions are clipped at a quarter of that range beyond it; those of a plain network
        never are.
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
        R2 to expect on new rows of the same kind, the mean over targets, from the weighted
        out-of-fold predictions. Only of a committee.
    expected_r2_spread_ : float
        1.645 standard deviations of that R2 over the folds: nine of ten folds are within, if they
        are spread as normal numbers are. Only of a committee.
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
    Members of a committee are trained on the rows that fit in memory (320 MiB), a random sample of
    more. The first pass is over all rows. Folds are random: where several rows are of the same
    unit, or follow each other in time, and new rows are of other units or later, the expected R2
    is too high.

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

    network_: Network
    _note: Mapping[str, Any] | None = None  # kept with a checkpoint, for who reads it again
    _leave_out = False  # rows without a target, which are else refused
    _warn: Callable[[str], object] = staticmethod(
        partial(warnings.warn, category=ConvergenceWarning, stacklevel=2)
    )

    _remark: Callable[[str], object] = staticmethod(_log.warning)

    def __init__(
        self,
        n_hidden: int | None = None,
        *,
        method: str | None = None,
        max_size: int | None = None,
        extrapolate: bool = False,
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
        before = dict(self.__dict__)
        try:
            with on_client(self.client, X=X, y=y, sample_weight=sample_weight) as client:
                text = self._fit(
                    X, y, sample_weight, client, feature_names, target_names, raw_columns
                )
        except BaseException:
            # What was fitted before is still what it was.
            self.__dict__ = before
            raise
        if text is not None:
            self._warn(text)
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        client: Client | None,
        feature_names: Sequence[str] | None,
        target_names: Sequence[str] | None,
        raw_columns: RawColumns | None,
    ) -> str | None:
        """Fit; what there is to warn of."""
        parameters = checked(self)
        self._told = 0
        begun = time.perf_counter()
        table = self._taken(X, self.categorical_features)
        if table.ids:
            self._remark(
                f"left out, since nearly all texts in it are different: {', '.join(table.ids)}"
            )
        engine, dtype, n_targets, names_of_y = self._rows(table, y, sample_weight, client)
        if engine.n_rows < 2:
            raise DataError("X has 1 sample: there is nothing to learn from a single row")
        one_name_a_column("feature_names", feature_names, "X", self.n_features_in_)
        one_name_a_column("target_names", target_names, "y", n_targets)
        if feature_names is not None:
            self.feature_names_in_ = np.asarray([str(name) for name in feature_names], dtype=object)
        one_name_a_column("raw_columns", raw_columns, "X", self.n_features_in_)
        raw_columns = raw_columns or table.columns
        if raw_columns is None and table.ids:  # they are to be left out of other tables too
            raw_columns = (RawColumn(),) * self.n_features_in_
        names = getattr(self, "feature_names_in_", None)
        targets = names_of_y if target_names is None else tuple(target_names)
        start = None
        if self.warm_start and hasattr(self, "network_"):
            check_method(parameters.method)
            start = start_from(
                self.network_, self.n_features_in_, n_targets, float(self.negative_slope), names
            )

        from altrelu_dist.planning.refusals import check_run
        from altrelu_dist.planning.work import Shape

        sizes = Shape(engine.n_rows, self.n_features_in_, n_targets, parameters.n_hidden, dtype)
        check_run(engine, sizes, parameters.method)

        shape = {"n_samples": engine.n_rows, "n_features": self.n_features_in_}
        shape |= {"n_targets": n_targets}
        with opened(
            self.checkpoint,
            asdict(parameters)
            | shape
            | {"dtype": str(dtype), "version": __version__, "warm_start": start and digest(start)},
            interval=self.checkpoint_interval,
            resume=self.resume,
            any_seed=not isinstance(self.random_state, numbers.Integral),
            note=self._note,
        ) as journal:
            monitor = Monitor(self._follow, self.max_time, journal, engine.client, begun)
            if journal.kept:
                parameters = replace(parameters, seed=journal.fingerprint["parameters"]["seed"])

            naming = Naming(
                float(self.negative_slope),
                None if names is None else tuple(str(name) for name in names),
                targets,
                raw_columns,
            )
            extrapolate = bool(self.extrapolate)
            made = fit_of(parameters, monitor, naming, start, extrapolate=extrapolate)
            self._so_far = made.so_far

            def interrupt(number: int) -> None:
                if not monitor.history.has_network:
                    raise_for(number)
                monitor.interrupt()
                say_stopping(number)

            with stop_softly(interrupt):
                network = self._trained(made, kept(engine), dtype)
            monitor.end()
        self.network_ = network
        del self._so_far
        reason = monitor.stopping.reason or "converged"
        self._told_by(monitor.history, monitor.counts.passes, reason, monitor.memory)
        working = made.n_working if isinstance(made, PlainFit) else None
        if isinstance(made, PlainFit) and working and not self.early_stopping:
            self._doubt(made.n_weighted)
        if isinstance(made, CommitteeFit) and not made.ready and reason == "max_time":
            return (
                f"the network predicts the mean of the targets, since the {self.max_time:g} s "
                "allowed were over before it was trained; allow more seconds"
            )
        return self._shortfall(parameters.n_hidden, working, reason, monitor)

    def _trained(
        self, made: PlainFit | CommitteeFit, engine: Engine, dtype: np.dtype[np.floating]
    ) -> Network:
        """Train; where rows without a target may be left out, without those."""
        try:
            return made.train(engine, dtype)
        except MissingTargetsError as error:
            if not self._leave_out:
                raise
            self._remark(error.remark)
        return made.train(engine.prepared(rows_with_target), dtype)

    def network_so_far(self) -> Network | None:
        """What a `fit` that is under way would end with now: for its callback, or another thread.

        Returns
        -------
        Network or None
            The best one so far; None before there is one, and where no `fit` is under way.
        """
        so_far = getattr(self, "_so_far", None)
        return None if so_far is None else so_far()

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
            Lazy for Dask and Zarr data.
        """
        check_is_fitted(self)
        features = self._features(self._known(X), reset=False)
        if not is_lazy(features):
            return self._predicted(features)
        rows = lazy_array(features, "X", lengths=False)
        rows = rows.rechunk({1: -1}) if rows.numblocks[1] > 1 else rows
        out = predict_blocks(self.network_, rows)
        return out[:, 0] if self._flat else out

    def _predicted(self, features: Any) -> Any:
        encoder = self.network_.encoder
        gaps = None if encoder is None else encoder.lacking
        check_finite(features, "X", getattr(self, "feature_names_in_", None), gaps)
        out = self.network_.predict(features)
        return out[:, 0] if self._flat else out

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination, the mean over targets.

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
        features = self._features(self._known(X), reset=False)
        target, names = self._target(y)
        if not (is_lazy(features) or is_lazy(target)):
            check_finite(target, "y", names)
            weight = None if sample_weight is None else given(sample_weight, "sample_weight").values
            return float(r2_score(target, self._predicted(features), sample_weight=weight))
        from altrelu_dist.metrics import evaluate

        with on_client(self.client, X=X, y=y, sample_weight=sample_weight) as client:
            scores = evaluate(self.network_, features, target, sample_weight, client)
        # As scikit-learn has it where the target does not vary.
        r2 = [float(score.mse == 0) if math.isnan(score.r2) else score.r2 for score in scores]
        return float(np.mean(r2))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the network, the parameters and the history; see :meth:`Network.save`.

        Parameters
        ----------
        path : str or path-like
        overwrite : bool, default False
        """
        check_is_fitted(self)
        save_estimator(self, path, overwrite=overwrite)

    def _exported(self) -> Network:
        check_is_fitted(self)
        return self.network_

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AltReLURegressor:
        """Read an estimator that :meth:`save` wrote, or a bare network.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        AltReLURegressor
            Fitted.

        Raises
        ------
        ModelFileError
            As :meth:`Network.load`.
        """
        return load_estimator(cls, path)

    def __sklearn_clone__(self) -> Self:
        # A client is a connection and a callback may hold a display: neither can be copied.
        bare = copy(self).set_params(client=None, callback=None)
        cloned: Self = super(AltReLURegressor, bare).__sklearn_clone__()
        cloned.set_params(client=self.client, callback=self.callback)
        return cloned

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__()) | {"client": None}
        state.pop("_so_far", None)  # what is under way here is not elsewhere
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.input_tags.allow_nan = True
        return tags

    def _follow(self, progress: Any) -> bool:
        if self.verbose and progress.iteration > self._told:
            self._told = progress.iteration
            if not _log.hasHandlers():  # nobody has said where messages go: stderr, as print would
                package = logging.getLogger("altrelu_dist")
                package.addHandler(logging.StreamHandler())
                package.setLevel(logging.INFO)
            _log.info(
                "%s: iteration %d, loss %.6g, %d passes, %.1f s",
                progress.stage,
                progress.iteration,
                progress.loss,
                progress.passes,
                progress.seconds,
            )
        return bool(self.callback(progress)) if self.callback is not None else False

    def _shortfall(
        self, asked: int, working: int | None, reason: str, monitor: Monitor
    ) -> str | None:
        """What to warn of: too little time, or fewer neurons than were asked for."""
        limit = f"{self.max_time:g} s allowed" if self.max_time is not None else ""
        has = f"the network has {working} of {asked} neurons"
        if limit and monitor.clock.first_pass_seconds > float(self.max_time or 0):
            result = "the network is what one pass gives" if working is None else has
            return (
                f"a single pass over the data takes {monitor.clock.first_pass_seconds:.3g} s, "
                f"more than the {limit}: {result}; allow more time"
            )
        if working is None or working >= asked:
            return None
        if reason == "max_time" and not self.early_stopping:
            return f"{has}, since the {limit} were over before it was trained; allow more seconds"
        if reason in ("converged", "max_iter") and not self.early_stopping:
            return f"{has}: no further one lowers the loss on these data"
        return None

    def _doubt(self, rows: int) -> None:
        """Say where a network has so many weights that it may have fitted noise."""
        network = self.network_
        h, q = network.n_hidden, network.n_targets
        weights = h * (network.n_features + 1 + q) + q
        if weights > _DOUBTFUL * rows:
            self._remark(
                f"{h} neurons have {weights:,} weights for {rows:,} rows: the network may have "
                f"fitted noise; leave the number of neurons out for a network for new rows"
            )

    def _told_by(
        self, history: list[dict[str, Any]], passes: int, reason: str, memory: PeakMemory
    ) -> None:
        """Set what a run tells of itself."""
        self.history_ = list(history)
        self.n_iter_ = len(history)
        self.n_passes_ = passes
        self.stop_reason_ = reason
        self.peak_memory_ = memory
        self.last_doubling_ = last_doubling(history)
        for name in ("expected_r2", "expected_r2_spread"):
            self.__dict__.pop(f"{name}_", None)  # of an earlier fit
            if name in self.network_.info:
                setattr(self, f"{name}_", float(self.network_.info[name]))

    def _known(self, X: Any) -> Given:
        """Take a table whose columns are those of the network."""
        names = getattr(self, "feature_names_in_", None)
        known = None if names is None else [str(name) for name in names]
        raw = self.network_.columns
        return given(X, "X", raw, features=known, numbers=raw is None)

    def _taken(self, X: Any, categorical: Sequence[str] | None) -> Given:
        """Take a table whose columns are to be learnt."""
        if isinstance(categorical, str):
            raise ParameterError(
                f"is {categorical!r}; expected a list of names", parameter="categorical_features"
            )
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
    ) -> _Rows:
        """Take data for training, whatever it comes in, as rows of an engine."""
        features = self._features(X, reset=reset)
        target, target_names = self._target(y)
        lazy = is_lazy(features) or is_lazy(target)
        if sample_weight is not None and not lazy:
            sample_weight = given(sample_weight, "sample_weight").values
            if np.iscomplexobj(np.asarray(sample_weight)):
                raise DataError("sample_weight holds complex numbers; expected real ones")
            sample_weight = _check_sample_weight(sample_weight, features, dtype=np.float64)
        self._flat = np.ndim(target) == 1
        n_targets = 1 if self._flat else int(np.shape(target)[1])
        dtype = dask_dtype(features, "X") if is_dask_frame(features) else features.dtype
        return _Rows(
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

    def _target(self, y: Any) -> tuple[Any, tuple[str, ...] | None]:
        """Give y without its container, as numbers unless it is lazy, and its names."""
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
