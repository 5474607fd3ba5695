"""What a call of `fit` trains, as a network: one plain network, or a committee that becomes one."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from altrelu_dist.committee.distilling import distilled, held_out
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.stacking import Stack
from altrelu_dist.encoding import Encoder, RawColumns, all_numbers, sketch_columns
from altrelu_dist.engine import Engine
from altrelu_dist.errors import DataError, MissingValuesError
from altrelu_dist.intervals import ResidualQuantiles
from altrelu_dist.logistic import (
    Judged,
    Link,
    chosen,
    chosen_penalty,
    fit_link,
    log_loss,
    out_of_fold,
    prior,
)
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.losses import Loss, Poisson, Quantile
from altrelu_dist.moments.refusals import check_summary, check_validation
from altrelu_dist.moments.rows import Floats, Rows, Scaler, Together, Weights
from altrelu_dist.moments.sample import Sampler, distinct
from altrelu_dist.moments.summary import summarise
from altrelu_dist.network import Network
from altrelu_dist.on_workers import OnWorkers
from altrelu_dist.prediction import of_targets, residuals_of
from altrelu_dist.reweighting import LossFit, TotalLoss
from altrelu_dist.threads import one_blas_thread
from altrelu_dist.training import Monitor, Parameters, Progress, train
from altrelu_dist.training.trainer import RawLayers

__all__ = ["CommitteeFit", "Naming", "PlainFit", "fit_of"]


_BEYOND = 0.25  # of the range of the training targets: new rows may lie somewhat outside
_DISTILLING = 0.1  # of the time allowed is kept for the network that follows a committee
_INTERRUPTED = 5.0  # seconds for it, at most, in a run that is being stopped
_OF_SQUARES = ("expected_r2", "expected_r2_spread", "expected_mse")  # of the scores of a classifier
_MOST_ROWS = 65_536  # that it is trained on, and of which the scores of a plain network are judged


class Naming(NamedTuple):
    """What a network knows of itself beside its layers."""

    negative_slope: float
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None
    columns: RawColumns | None = None


@dataclass(frozen=True)
class _Encoded:
    """Raw rows as encoded ones."""

    encoder: Encoder
    dtype: np.dtype[np.floating]

    def __call__(self, rows: Rows) -> Rows:
        return rows._replace(X=self.encoder.transform(rows.X, self.dtype))


@dataclass
class PlainFit:
    """One network of as many neurons as were asked for.

    It takes the columns as they are, if they are numbers and none is missing; else encoded ones,
    without pieces.
    """

    parameters: Parameters
    monitor: Monitor
    naming: Naming
    start: RawLayers | None = None
    logistic: bool = False  # whether outputs are to be logits of classes
    n_working: int = 0
    n_weighted: int = 0  # rows that count
    encoder: Encoder | None = None
    judging: Rows | None = None  # those that the logits are fitted to
    validation: Rows | None = None  # of the user, raw

    def train(self, engine: Engine, dtype: np.dtype[np.floating]) -> Network:
        """Train on the raw rows of an engine."""
        self._engine = engine
        network = self._scoring(engine, dtype)
        if self.logistic:
            network = self._linked(network)
            if self.validation is not None:
                self.monitor.counts.validation_loss = _log_loss(network, self.validation)
            return network
        validation = self.monitor.validation
        if validation is None:
            return network
        bare = replace(network, encoder=None, feature_names=None, columns=None)
        return replace(network, residuals=residuals_of(bare, validation.rows))

    def _scoring(self, engine: Engine, dtype: np.dtype[np.floating]) -> Network:
        """The network of least squares."""
        if self.encoder is not None:
            return self._trained(engine, dtype, _Encoded(self.encoder, dtype))
        lacking = self.validation is not None and np.isnan(self.validation.X).any()
        if all_numbers(self.naming.columns) and not lacking:
            with suppress(MissingValuesError):
                return self._trained(engine, dtype)
        names = self.naming.feature_names
        if self.start is not None:
            raise DataError(
                "warm_start goes on from a network of numbers that are all there; X has texts, "
                "times or missing values"
            )
        self.monitor.begin_stage("columns")
        look = engine.reduce(Together(summarise, sketch_columns), "columns")
        check_summary(look.first, names, self.naming.target_names, gaps=True)
        self.monitor.counts.count_rows(engine.n_rows, whole=True)
        self.encoder = Encoder.learn(look.second, (), self.naming.columns)
        if not self.encoder.n_columns:
            raise DataError("X has no column that varies: there is nothing to learn from")
        return self._trained(engine, dtype, _Encoded(self.encoder, dtype))

    def _trained(
        self, engine: Engine, dtype: np.dtype[np.floating], encode: _Encoded | None = None
    ) -> Network:
        naming = self.naming
        if self.encoder is not None:
            check_validation(self.validation, self.encoder, naming.feature_names)
        trained = train(
            engine,
            self.parameters,
            self.monitor,
            dtype,
            naming.feature_names if self.encoder is None else self._encoded_names(self.encoder),
            naming.target_names,
            self.start,
            encode,
            self.validation,
        )
        self.n_working = trained.weights.n_working
        self.n_weighted = trained.summary.weighted
        return self._network(trained.weights, trained.scaler, trained.hidden_gram)

    def so_far(self) -> Network | None:
        """The best network so far."""
        best, scaler = self.monitor.best_weights(), self.monitor.scaler
        if best is None or scaler is None:
            return None
        network = self._network(best, scaler, None)
        return self._linked(network) if self.logistic else network

    def _linked(self, network: Network) -> Network:
        """The network with logits as outputs, by what it says of rows that it was trained on."""
        if self.judging is None:
            engine = self._engine
            sampler = Sampler(min(1.0, _MOST_ROWS / engine.n_rows), self.parameters.seed, gaps=True)
            drawn = engine.reduce(sampler, "link").shuffled()
            self.judging = distinct(drawn, self.parameters.seed)
        rows = self.judging
        with one_blas_thread():
            judged = _judged(network.predict(rows.X), rows)
            return fit_link(judged).folded(network)

    def _network(self, weights: Weights, scaler: Scaler, gram: Floats | None) -> Network:
        layers = scaler.to_raw(weights)
        naming = self.naming._asdict()
        return Network(*layers, **naming, hidden_gram=gram, encoder=self.encoder)

    def _encoded_names(self, encoder: Encoder) -> tuple[str, ...]:
        return encoder.names_out(self.naming.feature_names, self.naming.columns)


@dataclass
class CommitteeFit:
    """A committee that is folded into one network over encoded columns."""

    parameters: Parameters
    monitor: Monitor
    naming: Naming
    extrapolate: bool = False
    logistic: bool = False  # whether outputs are to be logits of classes
    validation: Rows | None = None  # of the user, raw: the network is scored on them

    def __post_init__(self) -> None:
        self._committee = Committee(self.parameters, self.monitor, validation=self.validation)
        self._latest: tuple[Stack | None, Network | None] = None, None  # with logits

    def train(self, engine: Engine, dtype: np.dtype[np.floating]) -> Network:
        """Train on the raw rows of an engine."""
        network = self._trained(engine, dtype)
        if self.validation is not None:
            counts = self.monitor.counts
            counts.validation_loss = self._loss(network, self.validation)
            self.monitor.history[-1]["validation_loss"] = counts.validation_loss
        return network

    def _loss(self, network: Network, rows: Rows) -> float:
        """Mean loss of a network on raw rows, in units of the targets; of classes the log loss."""
        if self.logistic:
            return _log_loss(network, rows)
        loss, scaler = self._committee.loss, self._committee.scaler
        if loss is not None:
            total = TotalLoss(loss, scaler, network)(rows)
            return total.mean * loss.unit(scaler) / network.n_targets
        squares = (network.predict(rows.X) - rows.y.astype(np.float64)) ** 2
        return float(np.average(squares.mean(axis=1), weights=rows.weights))

    def _trained(self, engine: Engine, dtype: np.dtype[np.floating]) -> Network:
        committee, naming = self._committee, self.naming
        if self.parameters.max_size is not None:
            self.monitor.clock.keep_share(_DISTILLING)
        place = None if engine.client is None else OnWorkers(engine.client, self.monitor.clock)
        names = naming.feature_names, naming.target_names
        committee.fit(engine, dtype, *names, naming.columns, place)
        if not committee.ready:
            return (
                self._mean() if committee.loss is None else self._constant(committee.loss, engine)
            )
        network, most = self._network(), self.parameters.max_size
        scores = self._scores() if self.logistic else None
        said = None if self.logistic else self._out_of_fold()
        whole = network
        if most is not None and network.n_hidden > most:
            network = self._small(whole, most)
        if scores is not None:
            if "distilled_from" in network.info:
                return self._linked(network, scores, whole)
            return self._linked(network, scores if network is whole else self._scores())
        if said is None or not (network is whole or "distilled_from" in network.info):
            said = self._out_of_fold()  # of the lines alone
        network = self._with_residuals(network, whole, said)
        if network.hidden_gram is not None or committee.loss is not None:
            return network
        return replace(network, hidden_gram=committee.hidden_gram(network))

    def _out_of_fold(self) -> tuple[Floats, Floats | float]:
        """What the weighed candidates say of the judged rows, and the factor of its residuals."""
        committee = self._committee
        assert committee.pool is not None
        with one_blas_thread():
            poisson = isinstance(committee.loss, Poisson)  # which is not about squares
            return committee.pool.scores(), 1.0 if poisson else committee.pool.shrinkage()

    def _with_residuals(
        self, network: Network, whole: Network, out_of_fold: tuple[Floats, Floats | float]
    ) -> Network:
        """The network with the residuals of what was said of each row out of its fold.

        Of a network that follows the committee, ``whole``, they are of the rows that it was not
        trained on, with what it misses.
        """
        committee = self._committee
        if isinstance(committee.loss, Quantile):
            return network
        with one_blas_thread():
            said, factor = out_of_fold
            rows = committee.judged.part(0, len(said))
            if "distilled_from" in network.info:
                held = held_out(min(len(said), _MOST_ROWS))
                weight = None if rows.weight is None else rows.weight[: len(held)][held]
                X, y = (values[: len(held)][held] for values in (rows.X, rows.y))
                small, large = (
                    replace(each, target_range=None).predict(X) for each in (network, whole)
                )
                rows, said = Rows(0, X, y, weight), said[: len(held)][held] + small - large
        if network.target_range is not None:
            said = np.clip(said, *network.target_range)
        targets: Floats = rows.y.astype(np.float64)
        found = ResidualQuantiles.of(of_targets(network, said), targets, rows.weights, factor)
        return replace(network, residuals=found)

    def _small(self, network: Network, most: int) -> Network:
        """A network of at most so many neurons: one that follows the committee, or the line."""
        committee, monitor = self._committee, self.monitor
        monitor.begin_stage("distil")
        left = monitor.clock.seconds_to_the_end
        if monitor.stopping.interrupted:
            own = Monitor(max_time=min(left, _INTERRUPTED))
        else:
            own = Monitor(self._passed_on, left)
        rows = committee.judged
        weight_sum = committee.summary.features.weight
        small = distilled(network, rows, self.parameters, own, weight_sum)
        assert committee.pool is not None
        committee.pool.weigh_lines()
        line = self._network()
        if line.n_hidden <= most and line.info["expected_r2"] >= small.info["expected_r2"]:
            small = line
        mse = small.info["expected_mse"]
        monitor.counts.loss = math.nan  # that of the committee is not that of this network
        loss = mse / monitor.counts.unit
        monitor.record(loss=loss, loss_rows=committee.n_rows, kind="distilled")
        return small

    def _passed_on(self, _: Progress) -> bool:
        """Tell the callback of the run that it goes on; whether it is to stop."""
        self.monitor.notify()
        return self.monitor.stopping.interrupted

    @property
    def ready(self) -> bool:
        """Whether there is more than the mean of the targets."""
        return self._committee.ready

    def so_far(self) -> Network | None:
        """What the candidates so far fold into, whatever ``max_size`` is."""
        if not self._committee.ready:
            return None
        if not self.logistic:
            return self._network()
        pool = self._committee.pool
        assert pool is not None
        stack, network = self._latest
        if network is None or stack is not pool.stack:  # it is asked for many times a second
            stack = pool.stack
            network = self._linked(self._network(), self._scores())
            self._latest = stack, network
        return network

    def _scores(self) -> Floats:
        """What the weighed candidates say of the judged rows, each out of its fold."""
        pool = self._committee.pool
        assert pool is not None
        return pool.scores()

    def _linked(self, network: Network, scores: Floats, whole: Network | None = None) -> Network:
        """The network with logits as outputs, and what to expect of them on new rows.

        Where it follows another one, ``whole``, the loss that this costs is added.
        """
        committee = self._committee
        assert committee.pool is not None
        with one_blas_thread():
            judged = _judged(scores, committee.judged)
            folds = committee.pool.n_folds
            penalty = chosen_penalty(judged, folds)
            link = fit_link(judged, penalty)
            expected = _scored(out_of_fold(judged, folds, penalty), judged)
            if whole is not None:
                held = held_out(len(committee.judged.X))
                rows = committee.judged
                weight = None if rows.weight is None else rows.weight[held]
                rows = Rows(0, rows.X[held], rows.y[held], weight)
                small, large = (
                    _scored(link(judged.scores), judged)
                    for judged in (
                        _judged(replace(each, target_range=None).predict(rows.X), rows)
                        for each in (network, whole)
                    )
                )
                expected = (
                    expected[0] + max(0.0, small[0] - large[0]),
                    expected[1] - max(0.0, large[1] - small[1]),
                )
        info = {k: v for k, v in network.info.items() if k not in _OF_SQUARES}
        info |= {"expected_log_loss": expected[0], "expected_accuracy": expected[1]}
        return replace(link.folded(network), info=info)

    def _network(self) -> Network:
        committee = self._committee
        assert committee.pool is not None
        with one_blas_thread():
            layers, expected = committee.pool.layers(), committee.pool.expected()
        info: dict[str, Any] = {
            "expected_r2": expected.r2,
            "expected_r2_spread": expected.spread,
            "expected_mse": expected.mse,
            "groups": committee.pool.groups(),
        }
        if committee.loss is not None:
            loss, share = committee.pool.expected_loss()
            info = {"expected_loss": loss, "expected_d2": share, "groups": info["groups"]}
            info |= committee.loss.info(committee.scaler.target_scale)
        return Network(
            layers.hidden,
            layers.hidden_bias,
            layers.output,
            layers.output_bias,
            **self.naming._asdict(),
            info=info,
            encoder=layers.encoder,
            target_range=self._range(),
        )

    def _mean(self) -> Network:
        """The mean of the targets: all that is known where columns or targets do not vary."""
        columns, targets = self._committee.summary.features, self._committee.summary.targets
        gram = np.zeros((2, 2))
        gram[-1, -1] = columns.weight
        d, q = columns.mean.size, targets.mean.size
        network = Network(
            np.zeros((0, 1)),
            np.zeros(1),
            np.zeros((1, q)),
            targets.mean,
            encoder=Encoder(d, ()),  # whatever the columns hold, or lack
            **self.naming._asdict(),
            hidden_gram=gram,
            target_range=self._range(),
        )
        return (
            Link(np.zeros((q, q)), prior(targets.mean)).folded(network)
            if self.logistic
            else network
        )

    def _constant(self, loss: Loss, engine: Engine) -> Network:
        """The output of least loss for all rows, or for a sample of them."""
        network = self._mean()
        share = min(1.0, _MOST_ROWS / engine.n_rows)
        drawn = engine.reduce(Sampler(share, self.parameters.seed, gaps=True), "sample")
        rows = drawn.shuffled()
        scaler = self._committee.scaler = loss.scaler(self._committee.scaler, rows)
        y = (rows.y.astype(np.float64) - scaler.target_center) / scaler.target_scale
        scale, offset = loss.units(scaler)
        bias = loss.constant(y, rows.weights) * scale + offset
        return replace(
            network, output_bias=bias, hidden_gram=None, info=loss.info(scaler.target_scale)
        )

    def _range(self) -> Floats | None:
        """What predictions are clipped to: the range of the targets, and a quarter beyond."""
        if self.extrapolate:
            return None
        targets = self._committee.summary.targets
        beyond = _BEYOND * (targets.high - targets.low)
        low, high = targets.low - beyond, targets.high + beyond
        loss = self._committee.loss
        return np.stack([low, high]) if loss is None else loss.range(low, high)


def _judged(scores: Floats, rows: Rows) -> Judged:
    """Scores of rows whose targets are indicators of classes."""
    weight = rows.weights
    return Judged(scores, rows.y.astype(np.float64), weight)


def _log_loss(network: Network, rows: Rows) -> float:
    """The log loss of a network of classes on raw rows."""
    logits = network.predict(rows.X)
    return _scored(logits, _judged(logits, rows))[0]


def _scored(logits: Floats, judged: Judged) -> tuple[float, float]:
    """Log loss and accuracy."""
    right = chosen(logits) == chosen(judged.indicators - 0.5)
    return (
        float(np.average(log_loss(logits, judged.indicators), weights=judged.weight)),
        float(np.average(right, weights=judged.weight)),
    )


def fit_of(
    parameters: Parameters,
    monitor: Monitor,
    naming: Naming,
    start: RawLayers | None,
    *,
    extrapolate: bool,
    logistic: bool = False,
    validation: Rows | None = None,
) -> PlainFit | CommitteeFit | LossFit:
    """The run that the parameters ask for."""
    if parameters.method == "committee":
        return CommitteeFit(parameters, monitor, naming, extrapolate, logistic, validation)
    if parameters.loss != SQUARES:
        return LossFit(parameters, monitor, naming, PlainFit, start, validation)
    return PlainFit(parameters, monitor, naming, start, logistic, validation=validation)
