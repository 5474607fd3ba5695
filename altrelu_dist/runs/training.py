"""A training run from a data set to a saved network and its scores: what `train` does and a job."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Literal, Self

from altrelu_dist.addresses import without_secrets
from altrelu_dist.errors import AltReLUError, ClusterError, DataError, ParameterError
from altrelu_dist.interrupts import Terminated
from altrelu_dist.links import absolute
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.runs.output import Output, memory_text, number, seconds_text

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.class_metrics import ClassScore
    from altrelu_dist.data import DataSet
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor
    from altrelu_dist.memory import PeakMemory
    from altrelu_dist.metrics import TargetScore
    from altrelu_dist.runs.progress import Watch

__all__ = ["Prepared", "TrainOptions", "absolute", "prepared"]

_LEAST_ROWS = 2
_ENDINGS = {
    "converged": "stopped by itself",
    "early_stopping": "stopped early",
    "max_iter": "stopped at the most iterations asked for",
    "max_time": "stopped at the most seconds asked for",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class TrainOptions:
    """What `altrelu train` is asked for, but the machines; None leaves a choice to the estimator.

    The fields are the command's options.
    """

    store: str
    hidden: int | None
    out: str
    method: str | None = None
    max_size: int | None = None
    extrapolate: bool = False
    loss: str = SQUARES
    quantile: list[float] | None = None
    ridge: float | None = None
    negative_slope: float | None = None
    max_iter: int | None = None
    max_time: float | None = None
    seed: int = 0
    test_fraction: float | None = None
    early_stopping: bool = False
    validation_fraction: float | None = None
    target: list[str] | None = None
    weight: str | None = None
    categorical: list[str] | None = None
    drop: list[str] | None = None
    only: list[str] | None = None
    missing: Literal["keep", "error"] = "keep"
    categories: Literal["learn", "error"] = "learn"
    classes: bool | None = None
    warm_start: str | None = None
    checkpoint: str | None = None
    checkpoint_interval: float = 60.0
    overwrite: bool = False

    def note(self) -> dict[str, Any]:
        """What a checkpoint keeps of them, to be gone on with in another working folder."""
        noted = asdict(self.from_anywhere())
        del noted["checkpoint"]
        for name in ("store", "warm_start"):
            if noted[name] is not None and without_secrets(noted[name]) != noted[name]:
                del noted[name]  # not written down: it is to be given again
        return noted

    def from_anywhere(self) -> Self:
        """The same, to be read in another working folder."""
        start = None if self.warm_start is None else absolute(self.warm_start)
        out, store = absolute(self.out), absolute(self.store)
        return replace(self, store=store, out=out, warm_start=start)


def prepared(options: TrainOptions, *, resume: bool = False) -> Prepared:
    """All that can be found wrong before a process is started or a row is read.

    Raises
    ------
    ParameterError, DataError, ExistsError
    """
    from altrelu_dist.data import open_dataset
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor
    from altrelu_dist.network import FORMAT, Network
    from altrelu_dist.outputs import check_output
    from altrelu_dist.parameters import checked
    from altrelu_dist.runs.columns import in_order_of, left_out
    from altrelu_dist.runs.split import split_rows
    from altrelu_dist.warm_start import check_method

    if options.validation_fraction is not None and not options.early_stopping:
        raise ParameterError(
            "is for early stopping, which is not asked for", parameter="validation_fraction"
        )
    if options.checkpoint is not None and absolute(options.checkpoint) == absolute(options.out):
        raise ParameterError(
            "is the same folder as the output; each needs its own", parameter="checkpoint"
        )
    given: dict[str, Any] = {
        "alpha": options.ridge,
        "negative_slope": options.negative_slope,
        "validation_fraction": options.validation_fraction,
    }
    parameters = {
        "method": options.method,
        "max_size": options.max_size,
        "max_iter": options.max_iter,
        "max_time": options.max_time,
        "early_stopping": options.early_stopping,
        "random_state": options.seed,
        "checkpoint": options.checkpoint,
        "checkpoint_interval": options.checkpoint_interval,
        "resume": resume,
        **{name: value for name, value in given.items() if value is not None},
    }
    model: AltReLURegressor | AltReLUClassifier
    model = AltReLURegressor(
        options.hidden,
        extrapolate=options.extrapolate,
        loss=options.loss,
        quantile=sorted(options.quantile) if options.quantile else None,
        **parameters,
    )
    method = checked(model).method
    if options.warm_start is not None:
        check_method(method)
        model.set_params(warm_start=True)
        model.network_ = Network.load(options.warm_start)
        if model.network_.classes is not None:
            raise ParameterError(
                f"is a network of classes in {options.warm_start}; expected one of numbers, whose "
                "least squares can be gone on with",
                parameter="warm_start",
            )
        if model.network_.encoder is not None:
            raise ParameterError(
                f"is a network over encoded columns in {options.warm_start}, of a committee or a "
                "table with text, times or missing values; expected a plain one of numbers",
                parameter="warm_start",
            )
    check_output(options.out, overwrite=options.overwrite, kind=FORMAT)
    known = options.warm_start is not None and model.network_.columns
    data = open_dataset(
        options.store,
        target=options.target,
        weight=options.weight,
        features=model.network_.feature_names if known else None,
        columns=known or None,
        categorical=options.categorical or (),
        drop=options.drop or (),
        only=options.only,
        missing=options.missing,
        categories=options.categories,
        classes=options.classes,
    )
    if data.classes is not None:
        model = AltReLUClassifier(options.hidden, **parameters)
        _check_classes(options, data)
    model._note = options.note()
    remarks = left_out(data.left_out, data.ids)
    if options.warm_start is not None:
        data = in_order_of(model.network_, data, remarks.append)
    if data.X.shape[0] < _LEAST_ROWS:
        raise DataError(f"{options.store}: has a single row, which there is nothing to learn from")
    parts = {"train": data}
    if options.test_fraction is not None:
        parts["train"], parts["test"] = split_rows(data, options.test_fraction, options.seed)
    # As which the weights are known again in a table to predict for.
    info: dict[str, Any] = {} if options.weight is None else {"weight_name": options.weight}
    info |= {"data": without_secrets(options.store), "rows": int(parts["train"].X.shape[0])}
    return Prepared(options, model, parts, info, tuple(remarks))


def _check_classes(options: TrainOptions, data: DataSet) -> None:
    """Refuse what there is not for a target that is classes."""
    labels, (target,) = data.classes or (), data.target_names
    if len(labels) < 2:
        found = f"one class: {labels[0]}" if labels else "no class"
        raise DataError(f"{data.source}: target {target} has {found}; expected two or more")
    for name, given in (
        ("warm_start", options.warm_start is not None),
        ("extrapolate", options.extrapolate),
        ("loss", options.loss != SQUARES),
    ):
        if given:
            raise ParameterError(
                f"is for targets that are numbers; {target} has classes", parameter=name
            )


@dataclass(frozen=True)
class Prepared:
    """A run that can begin.

    Parameters
    ----------
    options : TrainOptions
    model : AltReLURegressor or AltReLUClassifier
        To be fitted.
    parts : dict of DataSet
        ``"train"``, and where rows are held out ``"test"``.
    info : dict
        Kept with the network.
    remarks : tuple of str
        What is not as a user may expect, each in a line.
    """

    options: TrainOptions
    model: AltReLURegressor | AltReLUClassifier
    parts: dict[str, DataSet]
    info: dict[str, Any]
    remarks: tuple[str, ...] = ()

    def run(
        self,
        output: Output,
        client: Client | None,
        watching: Callable[[], AbstractContextManager[Watch]],
    ) -> int:
        """Train, save, score and tell.

        Parameters
        ----------
        output : Output
        client : distributed.Client, optional
        watching : callable
            Opens what follows the run: the callback of the trainer, who may ask for a stop.

        Returns
        -------
        int
            The exit code: 0, or where the run was interrupted that of the signal.

        Raises
        ------
        AltReLUError
            As `AltReLURegressor.fit` and `Network.save`.
        """
        from altrelu_dist.memory import measure
        from altrelu_dist.runs.scores import undefined_lines

        options, model, parts = self.options, self.model, self.parts
        data = parts["train"]
        model.set_params(client=client)
        model._warn = model._remark = output.warn
        model._leave_out = True
        with watching() as follower:
            model.set_params(callback=follower)
            self._fit(data)
            rows = self.info["rows"] - model._rows_left_out
            info = model.network_.info | self.info | {"rows": rows}
            model.network_ = replace(model.network_, info=info)
            if model.stop_reason_ != "converged" and len(model.history_) == 1:
                if not follower.interrupts.requested:
                    raise ParameterError(
                        "was over before there was a network, nothing is saved; allow more seconds",
                        parameter="max_time",
                    )
                output.warn("interrupted before there was a network: nothing is saved")
                return follower.interrupts.exit_code
            with follower.interrupts.held():
                saved, failure = _saved(model, options.out, overwrite=options.overwrite)
        interrupted = follower.interrupts.requested
        if interrupted:
            output.warn(f"interrupted: the best network so far is in {saved}")
            parts = {}  # whoever stops a run does not wait for another pass
        try:
            scores = {name: self._scores(name, rows, client) for name, rows in parts.items()}
        except (ClusterError, KeyboardInterrupt, Terminated):
            output.warn(f"the network is in {saved}, its scores are not known")
            raise
        for name, each in scores.items():
            for line in undefined_lines(each, options.loss):
                output.warn(f"{self._part(name)}: {line}")
        memory = measure(client, model.peak_memory_)
        self._tell(output, saved, scores, memory, interrupted=interrupted)
        if failure is not None:
            raise DataError(f"{failure.finding}; the network is in {saved}")
        return follower.interrupts.exit_code if interrupted else 0

    def _fit(self, data: DataSet) -> None:
        from altrelu_dist.estimators import AltReLUClassifier

        fit: Callable[..., object]
        if isinstance(self.model, AltReLUClassifier):
            target = data.target_names[0]
            fit = partial(self.model.fit, target_name=target, classes=data.classes)
        else:
            fit = partial(self.model.fit, target_names=data.target_names)
        names, columns = data.feature_names, data.columns
        fit(data.X, data.y, data.sample_weight, feature_names=names, raw_columns=columns)

    def _scores(
        self, name: str, rows: DataSet, client: Client | None
    ) -> list[TargetScore] | ClassScore:
        from altrelu_dist.class_metrics import evaluate_classes
        from altrelu_dist.metrics import evaluate
        from altrelu_dist.runs.scores import measured_level

        network = self.model.network_
        if rows.classes is None:
            # Intervals are about rows that the network was not trained on.
            level = measured_level(network) if name == "test" else None
            return evaluate(network, rows.X, *rows.known_targets(), client=client, level=level)
        return evaluate_classes(network, rows.X, rows.y, rows.sample_weight, client=client)

    def _part(self, name: str) -> str:
        """What the scores of a part of the data are said to be of."""
        return "train, held out" if self._stopping and name == "train" else name

    @property
    def _stopping(self) -> bool:
        """Whether rows of the training are held out to choose the network."""
        from altrelu_dist.parameters import resolved

        asked = self.options
        method, _ = resolved(asked.method, asked.hidden, asked.max_size)
        return asked.early_stopping and method != "committee"

    @property
    def small(self) -> bool:
        """Whether workers are of no use: this process keeps all rows in its own memory."""
        from altrelu_dist.inputs import SMALL
        from altrelu_dist.parameters import resolved
        from altrelu_dist.planning import Shape, held_whole

        data = self.parts["train"]
        assert data.y is not None
        asked = self.options
        (n, d), q = data.X.shape, data.n_outputs * max(1, len(asked.quantile or ()))
        method, most = resolved(asked.method, asked.hidden, asked.max_size)
        whole = held_whole(Shape(n, d, q, most, data.X.dtype), method)
        return whole or int(data.X.nbytes + data.y.nbytes) <= SMALL

    @property
    def about(self) -> str:
        """What is trained on, in a line."""
        from altrelu_dist.data.classes import classes_line

        data = self.parts["train"]
        words = f"{data.X.shape[0]:,} rows, {data.X.shape[1]} features, "
        if data.classes is None:
            words += f"target {', '.join(data.target_names)}"
        else:
            words += classes_line(data.target_names[0], data.classes)
        return "; ".join([words, *self.remarks])

    def _tell(
        self,
        output: Output,
        saved: str,
        scores: Mapping[str, list[TargetScore] | ClassScore],
        memory: PeakMemory,
        *,
        interrupted: bool,
    ) -> None:
        from altrelu_dist.parameters import resolved
        from altrelu_dist.runs.scores import (
            EXPECTED,
            LOSS_WORDS,
            chosen_text,
            expected_classes_text,
            expected_text,
            loss_record,
            measured_level,
            records_of,
            scores_of,
            table_of,
        )

        options, model = self.options, self.model
        method, hidden = resolved(options.method, options.hidden, options.max_size)
        committee = method == "committee"
        stopping = self._stopping
        last, info = model.history_[-1], model.network_.info
        # The least training loss is not that of a network chosen by its validation loss.
        least = math.nan if stopping else last["loss"]
        loss = str(info.get("loss", SQUARES))
        squares = loss == SQUARES
        means: dict[str, Any] = {"mse": least, "r2": None}
        if not squares:
            means = {"mean_loss": least, "d2": None}
        if scores:
            means = scores_of(scores["train"])
        elif self.parts["train"].classes is not None:
            means = {"accuracy": None, "log_loss": None, "auc": None}
        reason = "interrupted" if interrupted else model.stop_reason_
        record = {
            "out": saved,
            "data": options.store,
            "method": method,
            "hidden": model.network_.n_hidden if committee else hidden,
            "rows": info["rows"],
            "features": int(self.parts["train"].X.shape[1]),
            **loss_record(model.network_, None),
            **means,
            **(scores_of(scores["test"], "test_") if "test" in scores else {}),
            **{name: info[name] for name in EXPECTED if name in info},
            "targets": {name: records_of(each) for name, each in scores.items()},
            "seconds": last["seconds"],
            "passes": model.n_passes_,
            "iterations": model.n_iter_,
            "last_doubling": model.last_doubling_,
            **(
                {f"validation_{'mse' if squares else 'loss'}": last["validation_loss"]}
                if stopping
                else {}
            ),
            "stop_reason": reason,
            "peak_memory": memory.total,
            "memory": memory.record(),
        }
        words = [f"{_ENDINGS[reason]} after {seconds_text(last['seconds'])}"]
        words[0] += f", {model.n_passes_} passes over the data, {model.n_iter_} iterations"
        if math.isfinite(model.last_doubling_):
            words.append(
                "the second half of that time lowered the "
                f"{'out-of-fold ' * committee}{'training ' * stopping}loss by "
                f"{100 * model.last_doubling_:.2g} %"
            )
        if stopping:
            of = LOSS_WORDS.get(loss, "MSE")
            if self.parts["train"].classes is not None:
                of = "MSE of the classes' indicators"
            words.append(
                f"kept: {model.network_.n_hidden} neurons, "
                f"{of} {number(last['validation_loss'])} on the rows held out"
            )
        if "expected_r2" in info or "expected_loss" in info:
            words.append(chosen_text(model.network_))
            test = scores.get("test")
            words.append(expected_text(info, test if isinstance(test, list) else None))
        if "expected_accuracy" in info:
            words.append(chosen_text(model.network_))
            test = scores.get("test")
            words.append(expected_classes_text(info, None if isinstance(test, list) else test))
        what = LOSS_WORDS.get(loss, "MSE")
        what = f"out-of-fold {what}" if committee else what + " and ridge" * bool(options.ridge)
        shown: Any = f"{what} {number(least)}"
        if scores:
            shown = table_of(
                {self._part(name): each for name, each in scores.items()},
                loss,
                measured_level(model.network_) if "test" in scores else None,
            )
        output.result(
            record, shown, *words, f"peak memory {memory_text(memory)}", f"saved: {saved}"
        )


def _saved(
    model: AltReLURegressor | AltReLUClassifier, out: str, *, overwrite: bool
) -> tuple[str, AltReLUError | None]:
    """Save a network where it was to go, or else where it can; the error of the first attempt."""
    try:
        model.save(out, overwrite=overwrite)
    except AltReLUError as error:
        beside, _, name = absolute(out).rstrip("/").rpartition("/")
        name = f"{name.removesuffix('.zarr')}-{secrets.token_hex(4)}.zarr"
        for folder in (beside, str(Path.cwd()), gettempdir()):
            other = f"{folder}/{name}"
            try:
                model.save(other)
            except AltReLUError:
                continue
            return other, error
        raise
    return out, None
