"""A plain network of another loss than the square: fits of least squares, one after the other.

Each fit is of the parabolas of the loss about the network so far (`altrelu_dist.losses`), goes on
from that network, and is kept if the loss itself falls; else the parabolas are made steeper, which
shortens the step. So the loss falls with every network that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.checkpoints.fingerprint import data_fingerprint, digest
from altrelu_dist.encoding import Encoder
from altrelu_dist.engine import Engine
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.losses import MOST_FITS, MOST_STEEP, Loss, Quantile, loss_of
from altrelu_dist.moments.refusals import check_summary
from altrelu_dist.moments.rows import Additive, Both, Floats, Rows, Scaler, Together
from altrelu_dist.moments.sample import Sampler, distinct
from altrelu_dist.moments.summary import Summary, summarise
from altrelu_dist.network import Network
from altrelu_dist.prediction import residuals_of
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.progress import Progress
from altrelu_dist.training.trainer import Parameters, RawLayers
from altrelu_dist.training.validation import HeldOut, OfTraining

if TYPE_CHECKING:
    from altrelu_dist.fitting import Naming, PlainFit

__all__ = ["LossFit", "TotalLoss"]

_SAMPLE = 65_536  # rows that the constants of a loss are from
_STEEPER = 4.0  # times as steep, where a fit did not lower the loss
_ENOUGH = 1e-3  # of the loss: a fit that takes less off it is the last one


@dataclass(frozen=True)
class _Standard:
    """A loss, and what its outputs and targets are standardised by."""

    loss: Loss
    scaler: Scaler

    def targets(self, rows: Rows) -> Floats:
        """Standardised targets of raw rows."""
        y: Floats = rows.y.astype(np.float64) - self.scaler.target_center
        return y / self.scaler.target_scale

    def raw(self, outputs: Floats) -> Floats:
        """Outputs of a network, from standardised ones."""
        scale, offset = self.loss.units(self.scaler)
        return outputs * scale + offset

    def outputs(self, network: Network, rows: Rows) -> Floats:
        """Standardised outputs of a network."""
        scale, offset = self.loss.units(self.scaler)
        return (network.predict(rows.X) - offset) / scale


@dataclass(frozen=True)
class Begin(_Standard):
    """Raw rows with the targets of the first fit."""

    def __call__(self, rows: Rows) -> Rows:
        """Give the rows."""
        return rows._replace(y=self.raw(self.loss.begin(self.targets(rows))))


@dataclass(frozen=True)
class WorkingRows(_Standard):
    """Raw rows with working targets and weights about a network."""

    network: Network
    steeper: float = 1.0

    def __call__(self, rows: Rows) -> Rows:
        """Give the rows."""
        f = self.outputs(self.network, rows)
        gradient, curvature = self.loss.derivatives(f, self.targets(rows))
        most = self.steeper * curvature.max(axis=1)  # a row has one weight for all its targets
        weight = most if rows.weight is None else most * rows.weight.astype(np.float64)
        return rows._replace(y=self.raw(f - gradient / most[:, None]), weight=weight)


@dataclass(frozen=True)
class LossTotal(Additive):
    """Sum of losses, and of weights, of some rows."""

    loss: float
    weight: float

    @property
    def mean(self) -> float:
        """Of a row, in standardised units."""
        return self.loss / self.weight if self.weight > 0 else np.nan


@dataclass(frozen=True)
class TotalLoss(_Standard):
    """The loss of a network on raw rows."""

    network: Network

    def __call__(self, rows: Rows) -> LossTotal:
        """Contribute some rows."""
        values = self.loss.value(self.outputs(self.network, rows), self.targets(rows)).sum(axis=1)
        weight = rows.weights
        return LossTotal(float(weight @ values), float(weight.sum()))


@dataclass(frozen=True)
class _OfHeldOut:
    """The loss of a network on the rows held out of a tile."""

    held_out: HeldOut
    total: TotalLoss

    def __call__(self, rows: Rows) -> LossTotal:
        """Contribute one tile."""
        own = self.held_out.validation(rows).drawn()
        return self.total(Rows(rows.start, own.X, own.y, own.weight))


@dataclass
class LossFit:
    """One plain network of another loss than the square.

    Parameters
    ----------
    parameters : Parameters
    monitor : Monitor
    naming : Naming
    squares : callable
        `PlainFit`.
    start : tuple of ndarray, optional
        Layers to go on from.
    validation : Rows, optional
        Of the user, raw.
    """

    parameters: Parameters
    monitor: Monitor
    naming: Naming
    squares: Callable[..., PlainFit]
    start: RawLayers | None = None
    validation: Rows | None = None
    n_working: int = 0
    n_weighted: int = 0
    _latest: Network | None = field(default=None, init=False)

    def so_far(self) -> Network | None:
        """The best network so far."""
        return self._latest

    def train(self, engine: Engine, dtype: np.dtype[np.floating]) -> Network:
        """Train on the raw rows of an engine."""
        monitor, parameters = self.monitor, self.parameters
        found = loss_of(parameters.loss, parameters.levels)
        assert found is not None
        self._engine, self._dtype = engine, dtype
        self._held_out: HeldOut | None = None
        if parameters.validation_fraction and self.validation is None:
            share = parameters.validation_fraction
            self._held_out = HeldOut.of(share, engine.n_rows, parameters.seed)
        summary = self._summary()
        found.check_least(summary.targets.low)
        share = min(1.0, _SAMPLE / engine.n_rows)
        drawn = engine.reduce(Sampler(share, parameters.seed, gaps=True), "sample")
        monitor.counts.count_rows(engine.n_rows, whole=True)
        rows = distinct(drawn.shuffled(), parameters.seed)
        weight = rows.weights
        scaler = found.scaler(summary.scaler(np.dtype(np.float64)), rows)
        self._info = found.info(scaler.target_scale)
        monitor.counts.unit = found.unit(scaler) / len(summary.targets.mean)
        monitor.record()
        begin = Begin(found, scaler)

        def first() -> Network:
            network = self._fitted(begin, parameters, self.start)
            if self.start is not None:
                return network
            shift = found.shift(begin.outputs(network, rows), begin.targets(rows), weight)
            scale, _ = found.units(scaler)
            return replace(network, output_bias=network.output_bias + shift * scale)

        monitor.begin_stage("squares")
        network = self._step("squares", first)
        residuals = begin.targets(rows) - begin.outputs(network, rows)
        loss = found.with_residuals(residuals, weight)
        self._info = loss.info(scaler.target_scale)
        network = replace(network, info=self._info)
        network = self._descended(network, loss, scaler)
        validation = self.validation
        if self._held_out is not None:
            validation = engine.reduce(self._held_out.validation, "held-out").shuffled()
        if validation is None:
            return network
        monitor.stopping.request("early_stopping")
        if isinstance(loss, Quantile):
            return network
        return replace(network, residuals=residuals_of(network, validation))

    def _summary(self) -> Summary:
        """One pass over all rows."""
        monitor, naming = self.monitor, self.naming
        monitor.begin_stage("summary")
        names = naming.feature_names, naming.target_names
        if monitor.journal.kept:
            both = self._engine.reduce(Together(summarise, digest), "summary")
            summary: Summary = both.first
            check_summary(summary, *names, gaps=True)
            known = dict(zip(("X", "y"), names, strict=True))
            monitor.journal.is_of_data(data_fingerprint(summary, both.second), known)
        else:
            summary = self._engine.reduce(summarise, "summary")
            check_summary(summary, *names, gaps=True)
        monitor.counts.count_rows(self._engine.n_rows, whole=True)
        return summary

    def _descended(self, network: Network, loss: Loss, scaler: Scaler) -> Network:
        """Fits as long as they are worth it."""
        monitor, parameters = self.monitor, self.parameters
        method = "damped" if parameters.method == "damped" else "kronecker"
        short = replace(parameters, method=method, max_iter=None if method == "damped" else 1)
        most = MOST_FITS if parameters.max_iter is None else parameters.max_iter
        least = self._measured(network, loss, scaler)
        self._kept(network, 0)
        monitor.begin_stage("reweighted")
        steeper = 1.0
        for number in range(most):
            before = least
            for _ in range(MOST_STEEP):
                if monitor.stopped:
                    return network
                rows = WorkingRows(loss, scaler, network, steeper)
                fit = partial(self._fitted, rows, short, _layers(network), network.encoder)
                trial = self._step("reweighted", fit)
                found = self._measured(trial, loss, scaler)
                if found < least:
                    network, least = trial, found
                    break
                steeper *= _STEEPER
            else:
                break
            self._kept(network, number + 1)
            monitor.counts.fraction = (number + 1) / most
            if least > (1 - _ENOUGH) * before:
                break
        else:
            if parameters.max_iter is not None:
                monitor.stopping.request("max_iter")
        return network

    def _measured(self, network: Network, loss: Loss, scaler: Scaler) -> float:
        """The loss on the rows that judge: those of validation, or else all."""
        total, engine = TotalLoss(loss, scaler, network), self._engine
        judged: LossTotal | None = None
        if self.validation is not None:
            judged = total(self.validation)
        if self._held_out is not None:
            both: Both[LossTotal, LossTotal] = engine.reduce(
                Together(OfTraining(self._held_out, total), _OfHeldOut(self._held_out, total)),
                "loss",
            )
            found, judged = both.first, both.second
        else:
            found = engine.reduce(total, "loss")
        self.monitor.counts.count_rows(engine.n_rows, whole=True)
        self._loss = found.mean
        self._validation_loss = math.nan if judged is None else judged.mean
        return found.mean if judged is None else judged.mean

    def _kept(self, network: Network, number: int) -> None:
        """Record a network that is kept."""
        monitor = self.monitor
        self._latest = network
        monitor.counts.validation_loss = self._validation_loss * monitor.counts.unit
        monitor.counts.loss = math.nan  # under validation it may rise
        monitor.record(loss=self._loss, loss_rows=self._engine.n_rows, fit=number)

    def _fitted(
        self,
        rows: _Standard,
        parameters: Parameters,
        start: RawLayers | None,
        encoder: Encoder | None = None,
    ) -> Network:
        """A network of least squares on the rows that ``rows`` makes of the raw ones."""
        assert callable(rows)
        monitor = self.monitor
        left = monitor.clock.seconds_to_the_end
        inner = self.squares(
            naming=self.naming,
            parameters=replace(parameters, loss=SQUARES, levels=()),
            monitor=Monitor(self._passed_on, None if math.isinf(left) else left),
            start=start,
            encoder=encoder,
            validation=None if self.validation is None else rows(self.validation),
        )
        network = inner.train(self._engine.prepared(rows), self._dtype)
        monitor.counts.count_rows(inner.monitor.counts.rows, whole=False)
        monitor.counts.passes += inner.monitor.counts.passes
        self.n_working, self.n_weighted = inner.n_working, inner.n_weighted
        return replace(network, hidden_gram=None, residuals=None, info=self._info)

    def _step(self, name: str, fit: Callable[[], Network]) -> Network:
        """A fit, or what is known of it from a run that was cut off."""
        made: list[Network] = []

        def kept() -> dict[str, Any]:
            made.append(fit())
            encoder = made[0].encoder
            return {
                "layers": _layers(made[0]),
                "encoder": None if encoder is None else encoder.to_arrays(),
                "neurons": (self.n_working, self.n_weighted),
            }

        known = self.monitor.journal.step(name, kept)
        if made:
            return made[0]
        self.n_working, self.n_weighted = known["neurons"]
        hidden, hidden_bias, output, output_bias = known["layers"]
        encoder = known["encoder"]
        return Network(
            hidden,
            hidden_bias,
            output,
            output_bias,
            **self.naming._asdict(),
            info=self._info,
            encoder=None if encoder is None else Encoder.from_arrays(encoder),
        )

    def _passed_on(self, _: Progress) -> bool:
        """Tell the callback of the run that it goes on; whether it is to stop."""
        self.monitor.notify()
        return self.monitor.stopping.interrupted


def _layers(network: Network) -> RawLayers:
    """Its layers."""
    return (
        network.hidden_weights,
        network.hidden_bias,
        network.output_weights,
        network.output_bias,
    )
