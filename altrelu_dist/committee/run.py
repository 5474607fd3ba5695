"""A committee from rows to a pool of candidates: encode, race kinds of members, weigh them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from altrelu_dist.checkpoints.fingerprint import data_fingerprint, digest
from altrelu_dist.committee.gram import hidden_gram
from altrelu_dist.committee.kind_rows import KindRows, learnt
from altrelu_dist.committee.line import (
    by_line,
    line_predictions,
    lines_of_loss,
    lines_of_loss_of_few,
    ridge_lines,
    ridge_lines_of_few,
)
from altrelu_dist.committee.members import (
    Group,
    GroupDescent,
    by_fold,
    by_member,
    hinges,
    out_of_fold,
)
from altrelu_dist.committee.pool import Candidate, Pool
from altrelu_dist.committee.settings import COMMITTEE, CommitteeSettings, Kind
from altrelu_dist.committee.side_by_side import Here, Place, SideBySide, released
from altrelu_dist.committee.tiles import EncodedTiles
from altrelu_dist.encoding import ColumnSketch, RawColumns, sketch_columns
from altrelu_dist.engine import Engine, OutOfTimeError
from altrelu_dist.losses import loss_of, positive, working
from altrelu_dist.moments.refusals import check_summary, check_validation
from altrelu_dist.moments.rows import Block, Both, Floats, Rows, Together, Weights
from altrelu_dist.moments.sample import Sampler
from altrelu_dist.moments.summary import Summary, summarise
from altrelu_dist.network import Network
from altrelu_dist.threads import one_blas_thread
from altrelu_dist.training import schedule
from altrelu_dist.training.drawing import distinct_rows, draw
from altrelu_dist.training.driver import run
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.trainer import Parameters

__all__ = ["Committee"]

_OF_TIME = 0.9  # that is left: the rest is for what comes after the steps of a round


@dataclass
class _Racer:
    """A kind that takes part, and where its members are."""

    kind: Kind
    number: int
    group: Group | None = None
    loss: float = np.inf
    resting: bool = False


class Trained(NamedTuple):
    """What the members of a kind became in a round."""

    last: Group
    best: Group  # where losses on own folds were least: of each member, or of all together
    ended: bool  # whether all steps were made


class Committee:
    """A run: the rows in memory, and the pool of what was trained on them so far.

    Parameters
    ----------
    parameters : Parameters
        ``max_size`` is the most neurons of the network, if they are bounded.
    monitor : Monitor
    settings : CommitteeSettings
    validation : Rows, optional
        That the network is to be scored on: refused if it cannot take them.
    """

    def __init__(
        self,
        parameters: Parameters,
        monitor: Monitor,
        settings: CommitteeSettings = COMMITTEE,
        validation: Rows | None = None,
    ) -> None:
        self.validation = validation
        self.parameters, self.monitor, self.settings = parameters, monitor, settings
        self.parts = 1  # that all rows are cut into at random
        self.part = 0  # which of them is in memory
        self.pool: Pool | None = None  # once there are rows
        self.loss = loss_of(parameters.loss, parameters.levels)
        self._pace = 0.0  # seconds of a step for each encoded column, once known
        self._shortened = False  # whether a round had less than all its kinds and steps
        self._values = False  # whether the ridge line gained from the values of repeated columns

    def fit(
        self,
        engine: Engine,
        dtype: np.dtype[np.floating],
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | None = None,
        raw: RawColumns | None = None,
        place: Place | None = None,
    ) -> None:
        """Train on the rows of an engine.

        Parameters
        ----------
        engine : Engine
            Of raw rows.
        dtype : dtype
            Of the rows in memory.
        feature_names, target_names : sequence of str, optional
            For messages.
        raw : tuple of RawColumn, optional
            What the columns hold; by default numbers.
        place : Place, optional
            Where members are trained; by default in this process.

        Raises
        ------
        DataError
            If a feature is infinite, a target or weight not finite, or every weight zero.
        """
        self._place: Place = place or Here()
        with one_blas_thread(), released(self._place):
            summary, sketch = self._summary(engine, feature_names, target_names)
            self.summary, self.scaler = summary, summary.scaler(np.dtype(np.float64))
            if self.loss is not None:
                self.loss.check_least(summary.targets.low)
            self.encoder, self._pieces = learnt(sketch, summary.weighted, self.settings, raw)
            check_validation(self.validation, self.encoder, feature_names)
            self.monitor.counts.unit = self.scaler.target_scale**2 / summary.targets.mean.size
            varies = bool((summary.targets.variance > 0).any())
            mean_loss = 1.0 if varies else 0.0
            self.monitor.record(loss=mean_loss if self.loss is None else math.nan)
            if not varies or not self.encoder.n_columns:
                return
            with suppress(OutOfTimeError):
                self._engine, self._dtype = engine, dtype
                self.rows = self._drawn(0)
                effective = float(self.n_rows)  # rows of equal weight
                if self.rows.weight is not None:  # one on average, or steps would be longer
                    weight = self.rows.weight.astype(np.float64)
                    self.scaler = replace(self.scaler, weight_scale=float(weight.mean()))
                    effective /= float(np.mean((weight / weight.mean()) ** 2))
                if self.loss is not None:
                    self.scaler = self.loss.scaler(self.scaler, self.rows)
                    unit = self.loss.unit(self.scaler) / self.scaler.target_center.size
                    self.monitor.counts.unit = unit
                self._race(round(effective))
                if self._shortened:
                    self.monitor.stopping.request("max_time")

    def _summary(
        self,
        engine: Engine,
        feature_names: Sequence[str] | None,
        target_names: Sequence[str] | None,
    ) -> tuple[Summary, ColumnSketch]:
        """One pass over all rows: their moments, and the distribution of each column."""
        monitor = self.monitor
        monitor.begin_stage("summary")
        begun = monitor.clock.seconds
        look = Together(summarise, sketch_columns)
        found: Both[Summary, ColumnSketch]
        if monitor.journal.kept:
            both = engine.reduce(Together(look, digest), "summary")
            found = both.first
            check_summary(found.first, feature_names, target_names, gaps=True)
            known = {"X": feature_names, "y": target_names}
            monitor.journal.is_of_data(data_fingerprint(found.first, both.second), known)
        else:
            found = engine.reduce(look, "summary")
            check_summary(found.first, feature_names, target_names, gaps=True)
        monitor.counts.count_rows(engine.n_rows, whole=True)
        monitor.clock.first_pass_seconds = monitor.clock.seconds - begun
        return found.first, found.second

    def _drawn(self, number: int) -> Rows:
        """The rows, or a random part of as many as memory is to hold, in random order.

        Each of the parts is another one, until all of them were drawn.
        """
        seed, weighted = self.parameters.seed, self.summary.weighted
        width = self.summary.features.mean.size + self.summary.targets.mean.size
        most = schedule.ROWS.in_memory(width * self._dtype.itemsize, self.settings.judged_rows)
        if weighted > schedule.ROWS.nearly_all * most:
            self.parts = -(-weighted // most)
        self.part = number % self.parts
        sampler = Sampler(1 / self.parts, seed, gaps=True, least=self.part / self.parts)
        drawn, _ = draw(self._engine, sampler, None, self.monitor)
        return distinct_rows(drawn, seed, self.monitor)

    @property
    def whole(self) -> bool:
        """Whether all rows are in memory."""
        return self.parts == 1

    def record(self, loss: float, weights: Weights, **details: Any) -> None:
        """Nothing is recorded within a descent: it is one iteration."""

    @property
    def n_rows(self) -> int:
        """Rows in memory."""
        return len(self.rows.X)

    @property
    def ready(self) -> bool:
        """Whether there is a network yet."""
        return self.pool is not None and self.pool.stack is not None

    def _race(self, effective_rows: int) -> None:
        """Train members of all kinds for a round, the best of them for longer ones.

        ``effective_rows`` is how many rows of equal weight say as much as those in memory.
        """
        settings = self.settings
        folds, self._member = settings.folds(effective_rows), settings.member_size(effective_rows)
        # Rows too few for members are enough for a line.
        self._folds = folds or min(settings.n_folds, effective_rows)
        if self._folds < 2:
            return
        few = self.n_rows <= settings.judged_rows
        self.judged = self.rows if few else self.rows.part(0, settings.judged_rows)
        self.encoded = KindRows(
            self.encoder, self.scaler, settings, self.monitor.clock.paced, self.rows, self.judged
        )
        pool = self.pool = self._begin_pool(self._folds)
        self._weigh("line", 0)
        if not folds:
            return
        racers = [_Racer(kind, number) for number, kind in enumerate(settings.taking(self._pieces))]
        # Journals of before kinds that were passed over left the race go on by the rules of then.
        journal = self.monitor.journal
        leaving = journal.step("leaving", lambda: not journal.replaying, required=False)
        self._values = self._values and leaving
        # Those of before there were hats have the weights of dense columns.
        self.encoded.sparse = journal.step("hats", lambda: not journal.replaying, required=False)
        rounds = settings.racing
        if self.parameters.max_iter is not None:
            rounds = rounds[: self.parameters.max_iter]
        for number, most in enumerate(rounds):
            if self.monitor.stopped:
                return
            before = pool.loss
            going = [racer for racer in racers if not racer.resting]
            going = sorted(going, key=lambda each: each.loss)[:most]
            begun = self._followers(racers) if number == 1 else []
            racers = [*(going if leaving else racers), *begun]
            if not going + begun:
                return
            going, most_steps = self._in_time(going, begun, number)
            found = self._train(going, number, most_steps, pool)
            # Journals of before columns were focused have a kind less.
            for racer, trained in zip(going, found, strict=False):
                self._judge(racer, number, trained, pool)
            enough = pool.loss > (1 - settings.worth_of_all) * before
            least = settings.least(settings.n_tiles(self.n_rows), linear=pool.is_linear)
            # Journals of older versions, which made more rounds, go on as they began.
            known = journal.knows("kinds") or journal.knows(f"round-{number + 1}")
            if enough and number + 1 >= least and not known:
                return
        if len(rounds) < len(settings.racing) and not self.monitor.stopped:
            self.monitor.stopping.request("max_iter")

    def _in_time(
        self, going: list[_Racer], begun: list[_Racer], number: int
    ) -> tuple[list[_Racer], float]:
        """The kinds of a round that there is time for, and their steps at most.

        A round that ends is worth more than a longer one that is cut off. If not all have time, the
        best goes first, then those that begin.
        """
        settings, clock, journal = self.settings, self.monitor.clock, self.monitor.journal
        wanted = settings.steps(number, settings.n_tiles(self.n_rows))
        order = [*going[:1], *begun, *going[1:]]
        columns = np.cumsum([self.encoded.width(racer.kind) for racer in order])

        def affordable() -> tuple[int, float]:
            if not (self._pace and order):
                return len(order), math.inf
            steps = _OF_TIME * clock.seconds_left / (self._pace * columns)
            fitting = int(np.count_nonzero(steps >= wanted))
            return max(1, fitting), math.inf if fitting else max(1.0, float(steps[0]))

        if not (clock.limited or journal.replaying):
            return going + begun, math.inf
        kinds, steps = journal.step("kinds", affordable, required=False)
        self._shortened |= clock.limited and (kinds < len(order) or steps < wanted)
        chosen = {racer.number for racer in order[:kinds]}
        return [racer for racer in going + begun if racer.number in chosen], steps

    def _followers(self, racers: list[_Racer]) -> list[_Racer]:
        """The kinds that begin after the first round."""
        pieces = min(1, self._pieces)
        coarse = [racer for racer in racers if racer.kind.pieces == pieces]
        best = min(coarse, key=lambda racer: racer.loss, default=None)
        if best is None or best.group is None:
            return []
        self.encoded.focus(best.kind, best.group, self.parameters.negative_slope)
        kinds = self.settings.followers(
            best.kind if pieces else None, self._pieces, values=self._values
        )
        return [_Racer(kind, len(racers) + more) for more, kind in enumerate(kinds)]

    def _train(self, going: list[_Racer], number: int, most: float, pool: Pool) -> list[Trained]:
        """Train the members of some kinds, all of them side by side."""
        made = partial(self._trained, going, number, most, pool)
        found = self.monitor.journal.step(f"round-{number}", made)
        return [Trained(Group(*last), Group(*best), ended) for last, best, ended in found]

    def _trained(self, going: list[_Racer], number: int, most: float, pool: Pool) -> list[Trained]:
        """The same, where it is not known from a checkpoint."""
        self._renew_rows(number)
        self.monitor.begin_stage("members")
        settings, parameters = self.settings, self.parameters
        h, folds = self._member, pool.n_folds
        parts = settings.parts(folds, h)
        self.encoded.forget_others(racer.kind for racer in going)
        descents: list[GroupDescent] = []
        groups: list[Group] = []
        by_name: dict[str, list[Block]] = {}
        for racer in going:
            tiles = self.encoded.tiles(racer.kind)
            judged = self.encoded.tiles(racer.kind, judged=True)
            if judged.name not in by_name:
                leading = list(judged.leading(settings.looked_rows))
                by_name[judged.name] = by_fold(leading, folds)
            sequence = np.random.SeedSequence([parameters.seed, racer.number, number])
            seed = int(sequence.generate_state(1)[0])
            group = racer.group
            if group is None:
                few = self._to_begin(judged.leading(settings.first_rows(h)), pool)
                group = hinges(few, folds, h, parameters.negative_slope, seed)
            descent = GroupDescent(
                tiles=tiles,
                judged=by_name[judged.name],
                n_folds=folds,
                first=0,
                alpha=parameters.alpha,
                slope=parameters.negative_slope,
                dropout=racer.kind.dropout,
                settings=settings,
                steps=int(min(most, settings.steps(number, len(tiles)))),
                seed=seed,
                loss=self.loss,
            )
            descents += [replace(descent, first=first) for first, _ in parts]
            groups += [group.part(*ends) for ends in parts]
        begun = self.monitor.clock.seconds
        states = run(SideBySide(descents, self._place), groups, self).states
        each = len(parts)
        taken = sum(
            state.taken * self.encoded.width(racer.kind)
            for racer, state in zip(going, states[::each], strict=True)
        )
        self._pace = (self.monitor.clock.seconds - begun) / max(1, taken)
        return [
            Trained(
                Group.of_parts([state.group for state in states[at : at + each]]),
                Group.of_parts([state.best for state in states[at : at + each]]),
                all(map(GroupDescent.done, descents[at : at + each], states[at : at + each])),
            )
            for at in range(0, len(states), each)
        ]

    def _renew_rows(self, number: int) -> None:
        """Take another part of the rows, if memory does not hold all; the judged ones stay."""
        if number and not self.whole:
            self.judged = self.rows = self.judged.copied()  # the others go, to make room
            self.encoded.hold(self.rows, self.judged, self.part)
            self._place.release()
            self.rows = self._drawn(number)
            self.encoded.hold(self.rows, self.judged, self.part)

    def _judge(self, racer: _Racer, number: int, trained: Trained, pool: Pool) -> None:
        """Take what a kind became into the pool."""
        settings, kind, slope = self.settings, racer.kind, self.parameters.negative_slope
        tiles = self.encoded.tiles(kind, judged=True)
        blocks, judged = self.encoded.blocks(kind), list(tiles.all())
        compared = _leading(judged, settings.compared_rows)
        losses = []
        for name, group in (("last", trained.last), ("best", trained.best)):
            if group.is_finite and (trained.ended or name == "best"):
                said = out_of_fold(judged, group, slope)
                name = f"{kind.name}-{number}-{name}"
                each = by_member(compared, group, slope)
                losses.append(pool.add(Candidate(name, tiles.encoding, blocks, group, said, each)))
        racer.group = trained.last if trained.last.is_finite else trained.best
        before, racer.loss = racer.loss, min([racer.loss, *losses])
        racer.resting = not racer.loss <= (1 - settings.worth) * before
        self._weigh(kind.name, number)

    def _to_begin(self, tiles: Iterable[tuple[int, Block]], pool: Pool) -> list[tuple[int, Block]]:
        """The tiles as dense rows; of a loss its parabolas about what the first line says."""
        dense = [(at, Block(np.asarray(x), y)) for at, (x, y) in tiles]
        if self.loss is None:
            return dense
        said = pool.candidates[0].predicted
        return [
            (at, working(self.loss, block, said[at : at + len(block.x)])) for at, block in dense
        ]

    def _lines(self, tiles: EncodedTiles, folds: int) -> Floats:
        """The line of each fold."""
        few, paced = self.n_rows < tiles.encoding.n_columns, self.monitor.clock.paced
        if self.loss is None:
            found = ridge_lines_of_few if few else ridge_lines
            return found(tiles.leading(self.n_rows), folds, paced)
        again = partial(tiles.leading, self.n_rows)
        y = (self.rows.y.astype(np.float64) - self.scaler.target_center) / self.scaler.target_scale
        weight = self.rows.weights
        start = self.loss.constant(y, weight)
        by_loss = lines_of_loss_of_few if few else lines_of_loss
        if self.pool is None:  # the first lines say how large residuals are
            loss = self.loss.with_residuals(y - start, weight)
            said = line_predictions(again(), by_loss(again, folds, loss, start, paced))
            root = np.sqrt(weight / self.scaler.weight_scale)[:, None]
            self.loss = self.loss.with_residuals(y - said / positive(root), weight)
        return by_loss(again, folds, self.loss, start, paced)

    def _begin_pool(self, folds: int) -> Pool:
        """The ridge lines: of the standardised columns, with coarse pieces, and with values too."""
        settings, slope = self.settings, self.parameters.negative_slope
        pool: Pool | None = None
        losses: list[float] = []
        has_values = self.encoder.n_pieces > self._pieces
        for kind in settings.lines(self._pieces, self.encoded.n_columns, values=has_values):
            tiles = self.encoded.dense_tiles(kind)
            lines = self._lines(tiles, folds)
            judged = list(self.encoded.dense_tiles(kind, judged=True).all())
            if pool is None:
                y = np.concatenate([block.y for _, block in judged]).astype(np.float64)
                root = np.concatenate([x[:, -1] for _, (x, _) in judged]).astype(np.float64)
                varies = self.summary.targets.variance > 0
                pool = Pool(self.encoder, self.scaler, slope, folds, y, root, varies, self.loss)
                self.pool = pool
            said = line_predictions(judged, lines)
            each = by_line(_leading(judged, settings.compared_rows), lines)
            blocks = self.encoded.blocks(kind)
            loss = pool.add(Candidate(kind.name, tiles.encoding, blocks, lines, said, each))
            self._values = kind.values and loss < (1 - settings.worth_of_values) * min(losses)
            losses.append(loss)
        assert pool is not None
        return pool

    def _weigh(self, kind: str, number: int) -> None:
        """Weigh the candidates anew, and record what that is expected to give."""
        assert self.pool is not None
        loss = self.pool.weigh(self._kept())
        self.monitor.record(loss=loss, loss_rows=self.n_rows, kind=kind, round=number)

    def _kept(self) -> int:
        """Groups that the network is made of at most, or that a smaller one is distilled from."""
        kept, most = self.settings.kept, self.parameters.max_size
        if most is None or self.pool is None:
            return kept
        lines = 2 * self.summary.targets.mean.size * self.pool.n_lines
        groups = (most - lines) // max(1, self._folds * self._member)
        return min(kept, groups) if groups > 0 else kept

    def hidden_gram(self, network: Network) -> Floats:
        """Gram matrix of the hidden features over the rows that judge, scaled to all rows."""
        weight, ridge = self.summary.features.weight, self.settings.output_ridge
        return hidden_gram(network, self.judged, self.scaler, weight, ridge)


def _leading(tiles: Sequence[tuple[int, Block]], rows: int) -> list[tuple[int, Block]]:
    """The tiles of about the first so many rows."""
    return [(start, block) for start, block in tiles if start < rows]
