"""What the estimators share: a fit, and all that follows from a network."""

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
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from altrelu_dist.checkpoints.opening import opened
from altrelu_dist.encoding import RawColumn, RawColumns
from altrelu_dist.encoding.raw import digest_of
from altrelu_dist.errors import DataError, MissingTargetsError, ParameterError
from altrelu_dist.estimators.taking import TakesData
from altrelu_dist.exports import ExportMethods
from altrelu_dist.fitting import CommitteeFit, Naming, PlainFit, fit_of
from altrelu_dist.frames import given
from altrelu_dist.inputs import is_lazy, kept, lazy_array, on_client
from altrelu_dist.interrupts import raise_for, say_stopping, stop_softly
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.memory import PeakMemory
from altrelu_dist.model_file import load_estimator, save_estimator
from altrelu_dist.moments.refusals import check_finite, check_summary
from altrelu_dist.moments.rows import Rows, rows_with_target
from altrelu_dist.moments.sample import Sampler
from altrelu_dist.moments.summary import summarise
from altrelu_dist.network import Network
from altrelu_dist.parameters import checked, one_name_a_column
from altrelu_dist.prediction import predict_blocks
from altrelu_dist.reweighting import LossFit
from altrelu_dist.tables import ids_remark
from altrelu_dist.training import Callback, Monitor, last_doubling
from altrelu_dist.version import __version__
from altrelu_dist.warm_start import check_method, digest, start_from

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.engine import Engine

__all__ = ["NetworkEstimator", "ValidationData"]

_log = logging.getLogger(__name__)

_VALIDATION_ROWS = 65_536  # as many as early stopping holds out at most
_DOUBTFUL = 0.5  # weights for each row: more may fit noise


class ValidationData(NamedTuple):
    """Rows of the user's own, whatever they come in."""

    X: Any
    y: Any
    weight: Any = None

    @classmethod
    def of(cls, X: Any, y: Any, weight: Any) -> ValidationData | None:
        """What was given; None if nothing was.

        Raises
        ------
        ParameterError
            If a part is missing.
        """
        if X is not None and y is not None:
            return cls(X, y, weight)
        if all(each is None for each in (X, y, weight)):
            return None
        raise ParameterError(
            "is missing; expected X_val and y_val together, or neither",
            parameter="X_val" if X is None else "y_val",
        )


def digest_of_rows(rows: Rows) -> str:
    """What validation rows are known by."""
    found = sha256()
    for values in (rows.X, rows.y, rows.weight):
        found.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


class NetworkEstimator(ExportMethods, TakesData):
    """An estimator that trains one network, and is saved with it."""

    n_hidden: int | None
    method: str | None
    max_size: int | None
    categorical_features: Sequence[str] | None
    alpha: float
    negative_slope: float
    max_iter: int | None
    max_time: float | None
    early_stopping: bool
    validation_fraction: float
    random_state: Any
    callback: Callback | None
    verbose: int
    client: Client | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_interval: float
    resume: bool
    _logistic = False  # whether the network's outputs are logits of classes
    _expects: tuple[str, ...] = ()  # what a committee's info says of new rows
    # Parameters that not every estimator has.
    extrapolate: bool = False
    warm_start: bool = False
    loss: str = SQUARES
    quantile: float | Sequence[float] | None = None
    _note: Mapping[str, Any] | None = None  # kept with a checkpoint, for who reads it again
    _leave_out = False  # rows without a target, which are else refused
    _rows_left_out = 0  # how many, in the last fit
    _warn: Callable[[str], object] = staticmethod(
        partial(warnings.warn, category=ConvergenceWarning, stacklevel=3)
    )

    _remark: Callable[[str], object] = staticmethod(_log.warning)

    def _train(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | None = None,
        raw_columns: RawColumns | None = None,
        validation: ValidationData | None = None,
    ) -> Self:
        """Fit, or leave everything as it was."""
        before = dict(self.__dict__)
        try:
            with on_client(self.client, X=X, y=y, sample_weight=sample_weight) as client:
                text = self._fit(
                    X,
                    y,
                    sample_weight,
                    client,
                    feature_names,
                    target_names,
                    raw_columns,
                    validation,
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
        validation: ValidationData | None,
    ) -> str | None:
        """Fit; what there is to warn of."""
        parameters = checked(self)
        self._told = 0
        begun = time.perf_counter()
        table = self._taken(X, self.categorical_features)
        if table.ids:
            self._remark(ids_remark(table.ids))
        engine, dtype, n_targets, names_of_y = self._rows(table, y, sample_weight, client)
        if engine.n_rows < 2:
            raise DataError("X has 1 sample: there is nothing to learn from a single row")
        one_name_a_column("feature_names", feature_names, "X", self.n_features_in_)
        if feature_names is not None:
            self.feature_names_in_ = np.asarray([str(name) for name in feature_names], dtype=object)
        one_name_a_column("raw_columns", raw_columns, "X", self.n_features_in_)
        raw_columns = raw_columns or table.columns
        names = getattr(self, "feature_names_in_", None)
        if table.ids:  # they are to be left out of other tables too, by the names of the others
            if names is None:
                raise DataError(
                    f"{ids_remark(table.ids)}: X needs names of columns that are texts, or leave "
                    "them out"
                )
            raw_columns = raw_columns or (RawColumn(),) * self.n_features_in_
        targets = names_of_y
        if target_names is not None:
            targets = self._outputs_named(target_names, n_targets)
        judging: Rows | None = None
        if validation is not None:
            judging = self._validation_rows(validation, raw_columns, names, n_targets, client)
        start = None
        if self.warm_start and hasattr(self, "network_"):
            check_method(parameters.method)
            start = start_from(
                self.network_, self.n_features_in_, n_targets, float(self.negative_slope), names
            )

        from altrelu_dist.planning import Shape, check_run

        sizes = Shape(engine.n_rows, self.n_features_in_, n_targets, parameters.n_hidden, dtype)
        check_run(engine, sizes, parameters.method)

        shape = {"n_samples": engine.n_rows, "n_features": self.n_features_in_}
        shape |= {"n_targets": n_targets}
        # Data with other levels may have the same numbers.
        known = {} if raw_columns is None else {"columns": digest_of(raw_columns)}
        known |= self._told_apart()
        if judging is not None:
            known["validation"] = digest_of_rows(judging)
        with opened(
            self.checkpoint,
            asdict(parameters)
            | shape
            | known
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
            logistic = self._logistic
            made = fit_of(
                parameters,
                monitor,
                naming,
                start,
                extrapolate=extrapolate,
                logistic=logistic,
                validation=judging,
            )
            self._so_far = made.so_far

            def interrupt(number: int) -> None:
                if not monitor.history.has_network:
                    raise_for(number)
                monitor.interrupt()
                say_stopping(number)

            with stop_softly(interrupt):
                network = self._trained(made, kept(engine), dtype)
            monitor.end()
        self.network_ = self._named(network)
        del self._so_far
        reason = monitor.stopping.reason or "converged"
        self.__dict__.pop("validation_loss_", None)  # of an earlier fit
        if not math.isnan(monitor.counts.validation_loss):
            self.validation_loss_ = float(monitor.counts.validation_loss)
        chosen = self.early_stopping or judging is not None
        self._told_by(monitor.history, monitor.counts.passes, reason, monitor.memory)
        working = made.n_working if isinstance(made, PlainFit | LossFit) else None
        if isinstance(made, PlainFit | LossFit) and working and not chosen:
            self._doubt(made.n_weighted)
        if isinstance(made, CommitteeFit) and not made.ready and reason == "max_time":
            return (
                f"the network predicts the mean of the targets, since the {self.max_time:g} s "
                "allowed were over before it was trained; allow more seconds"
            )
        return self._shortfall(parameters.n_hidden, working, reason, monitor, chosen)

    def _validation_rows(
        self,
        data: ValidationData,
        raw_columns: RawColumns | None,
        names: Any,
        n_targets: int,
        client: Client | None,
    ) -> Rows:
        """The validation rows, or a sample of many, in memory: of the columns of the training."""
        flat = self._flat
        known = None if names is None else [str(name) for name in names]
        try:
            X = given(data.X, "X", raw_columns, features=known, numbers=raw_columns is None)
            rows = self._rows(X, data.y, data.weight, client, reset=False)
            if rows.n_targets != n_targets or self._flat != flat:
                raise DataError(f"y has {rows.n_targets} targets; expected as many columns as y")
            check_summary(rows.engine.reduce(summarise, "validation"), known, None, gaps=True)
            share = min(1.0, _VALIDATION_ROWS / rows.engine.n_rows)
            drawn = rows.engine.reduce(Sampler(share, 0, gaps=True), "validation")
        except ValueError as error:
            raise DataError(f"X_val, y_val: {error}") from error
        return drawn.shuffled()

    def _trained(
        self, made: PlainFit | CommitteeFit | LossFit, engine: Engine, dtype: np.dtype[np.floating]
    ) -> Network:
        """Train; where rows without a target may be left out, without those."""
        self._rows_left_out = 0
        try:
            return made.train(engine, dtype)
        except MissingTargetsError as error:
            if not self._leave_out:
                raise
            self._remark(self._lost(error))
            self._rows_left_out = error.rows
        return made.train(engine.prepared(rows_with_target), dtype)

    def _lost(self, error: MissingTargetsError) -> str:
        """What is said of rows that are left out."""
        return error.remark

    def _told_apart(self) -> dict[str, Any]:
        """What a checkpoint keeps of the targets, where other ones have the same numbers."""
        return {}

    def _outputs_named(self, names: Sequence[str], n_targets: int) -> tuple[str, ...]:
        """What the outputs are called, of targets with these names."""
        one_name_a_column("target_names", names, "y", n_targets)
        return tuple(names)

    def _named(self, network: Network) -> Network:
        """The network with what the estimator alone knows of it."""
        return network

    def _restored(self, network: Network) -> None:
        """Take from a network that was read what the estimator alone knows of it."""

    def network_so_far(self) -> Network | None:
        """What a `fit` that is under way would end with now: for its callback, or another thread.

        Returns
        -------
        Network or None
            The best one so far; None before there is one, and where no `fit` is under way.
        """
        so_far = getattr(self, "_so_far", None)
        network = None if so_far is None else so_far()
        return None if network is None else self._named(network)

    def _outputs(self, X: Any) -> Any:
        """What the network makes of some rows, (n, q): lazy for Dask and Zarr data."""
        check_is_fitted(self)
        features = self._features(self._known(X), reset=False)
        if not is_lazy(features):
            return self._predicted(features)
        rows = lazy_array(features, "X", lengths=False)
        rows = rows.rechunk({1: -1}) if rows.numblocks[1] > 1 else rows
        return predict_blocks(self.network_, rows)

    def _predicted(self, features: Any) -> Any:
        encoder = self.network_.encoder
        gaps = None if encoder is None else encoder.lacking
        check_finite(features, "X", getattr(self, "feature_names_in_", None), gaps)
        return self.network_.predict(features)

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
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that :meth:`save` wrote, or a bare network.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        Self
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
        cloned: Self = super(NetworkEstimator, bare).__sklearn_clone__()
        cloned.set_params(client=self.client, callback=self.callback)
        return cloned

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__()) | {"client": None}
        state.pop("_so_far", None)  # what is under way here is not elsewhere
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
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
        self, asked: int, working: int | None, reason: str, monitor: Monitor, chosen: bool
    ) -> str | None:
        """What to warn of: too little time, or fewer neurons than were asked for.

        Not where validation rows have ``chosen`` them.
        """
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
        if reason == "max_time" and not chosen:
            return f"{has}, since the {limit} were over before it was trained; allow more seconds"
        if reason in ("converged", "max_iter") and not chosen:
            return f"{has}: no further one lowers the loss on these data"
        return None

    def _doubt(self, rows: int) -> None:
        """Say where a network has so many weights that it may have fitted noise."""
        network = self.network_
        h, q = network.n_hidden, network.n_targets
        weights = h * (len(network.hidden_weights) + 1 + q) + q
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
        for name in self._expects:
            self.__dict__.pop(f"{name}_", None)  # of an earlier fit
            if name in self.network_.info:
                setattr(self, f"{name}_", float(self.network_.info[name]))
