"""What a run will cost, before it is started."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from altrelu_dist.errors import ParameterError
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.parameters import check_one_target, checked_levels, resolved, whole_number
from altrelu_dist.planning.calls import Range
from altrelu_dist.planning.estimates import Estimate, PlannedStage, estimate_of, steps_of
from altrelu_dist.planning.memory import resident, solver_bytes
from altrelu_dist.planning.model import Clock, Cluster
from altrelu_dist.planning.problem import machine_memory, problem_of, this_machine
from altrelu_dist.planning.rates import Rates, measure
from altrelu_dist.planning.refusals import check_solver, check_worker
from altrelu_dist.planning.work import stages_of
from altrelu_dist.threads import n_threads

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """What a run will do, take and hold.

    Attributes
    ----------
    data : str or None
        Address of the data, if there are any.
    rows, features, targets, hidden : int
        Of a committee, the most neurons.
    dtype : str
        In which blocks are computed.
    method : str
    n_blocks, block_rows : int
        Blocks of rows, each read by one task, and rows of the largest.
    stages : tuple of PlannedStage
    passes, multiply_adds, seconds : Range
        Of all stages; seconds on this machine.
    memory : int
        Peak bytes of the process that trains.
    here : Estimate
        On this machine, with workers as `altrelu train` starts them.
    cluster : Estimate or None
        On the cluster that was asked for.
    rates : Rates
        What was measured here.
    classes : tuple, or None
        Of the target, where it is classes; `targets` are then the network's outputs.
    loss : str
    levels : tuple of float
        Of the quantiles, where it is of these; `targets` are then the network's outputs.
    """

    data: str | None
    rows: int
    features: int
    targets: int
    hidden: int
    dtype: str
    method: str
    n_blocks: int
    block_rows: int
    stages: tuple[PlannedStage, ...]
    passes: Range
    multiply_adds: Range
    seconds: Range
    memory: int
    here: Estimate
    cluster: Estimate | None
    rates: Rates
    classes: tuple[str | int | float | bool, ...] | None = None
    loss: str = SQUARES
    levels: tuple[float, ...] = ()

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        record: dict[str, Any] = _plain(asdict(self))
        del record["rates"]["shape"], record["rates"]["costs"]  # which only the code can read
        return record


def plan(
    store: str | os.PathLike[str] | None = None,
    n_hidden: int | None = None,
    *,
    method: str | None = None,
    max_size: int | None = None,
    loss: str = SQUARES,
    quantile: float | Sequence[float] | None = None,
    rows: float | None = None,
    features: int | None = None,
    targets: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    bandwidth: float | None = None,
    client_memory: int | None = None,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    only: Sequence[str] | None = None,
    classes: bool | None = None,
) -> Plan:
    """Say what training will do, take and hold, from about a second of measuring.

    The counts come from the trainer's own rules, the speeds from its own kernels, timed here on
    made-up rows of the right shape, and from reading a few blocks of the store.

    Parameters
    ----------
    store : str or path, optional
        The data, as `open_dataset` takes them. Without it give rows, features and targets.
    n_hidden : int, optional
    method : {"committee", "search", "kronecker", "damped", "alternating"}, optional
    max_size : int, optional
        These three as for `AltReLURegressor`: by default a committee.
    loss : {"squared_error", "huber", "quantile", "poisson"}, default "squared_error"
    quantile : float or list of float, optional
        These too.
    rows : float, optional
        Plan for so many rows like those of the store.
    features, targets : int, optional
        Columns of data that are not here; float32 in blocks of 16 MiB.
    workers, threads : int, optional
        A cluster to plan for: processes, and threads of each (by default 1), each thread with a
        core as fast as one of this machine.
    memory : int, optional
        Bytes that each worker may hold.
    bandwidth : float, optional
        Bytes a second that the storage gives to all workers together; by default each thread
        reads as fast as one does here.
    client_memory : int, optional
        Bytes that the process which trains may hold; by default this machine's memory.
    target, weight, categorical, drop, only
        As for `open_dataset`.
    classes : bool, optional
        As for `convert`.

    Returns
    -------
    Plan

    Raises
    ------
    ParameterError
        If a parameter has a value that it cannot have, two do not go together, the run cannot fit
        in memory (the text says what would), or the method cannot hold its system.
    DataError
        As `open_dataset`.
    """
    sizes = {"n_hidden": n_hidden, "max_size": max_size, "features": features}
    for name, value in {
        **sizes,
        "targets": targets,
        "workers": workers,
        "threads": threads,
    }.items():
        if value is not None:
            whole_number(name, value, 1)
    method, most = resolved(method, n_hidden, max_size)
    levels = checked_levels(loss, quantile, method, max_size)
    n_levels = max(1, len(levels))
    data, shape, blocks, stored = problem_of(
        store,
        most,
        rows,
        features,
        targets,
        n_levels,
        target=target,
        weight=weight,
        categorical=categorical,
        drop=drop,
        only=only,
        classes=classes,
    )
    if data is not None and data.classes is not None and loss != SQUARES:
        raise ParameterError(
            f"is for targets that are numbers; {data.target_names[0]} has classes",
            parameter="loss",
        )
    check_one_target(levels, shape.q // n_levels)
    stages = stages_of(shape, method, loss)  # refuses before anything is measured
    solver = solver_bytes(shape, blocks, method, resident(), n_threads())
    check_solver(shape, solver, client_memory or machine_memory())
    here = this_machine()
    wanted = None
    if (workers, threads, memory, bandwidth) != (None, None, None, None):
        wanted = Cluster(workers or 1, threads or 1, memory, None, bandwidth or math.inf)
    check_worker(shape, blocks, method, wanted or here)
    kernels = {call.kernel for stage in stages for call in stage.calls}
    rates = measure(shape, kernels | {"prepare"}, data)
    clock = Clock(shape, blocks, stored, method, rates, here)
    asked = None if wanted is None else estimate_of(replace(clock, cluster=wanted), stages)
    planned = steps_of(clock, stages)
    return Plan(
        data=None if store is None else os.fspath(store),
        rows=shape.n,
        features=shape.d,
        targets=shape.q,
        hidden=shape.h,
        dtype=str(shape.dtype),
        method=method,
        n_blocks=blocks.count,
        block_rows=blocks.rows,
        stages=planned,
        passes=Range.total(stage.passes for stage in planned),
        multiply_adds=Range.total(stage.multiply_adds for stage in planned),
        seconds=Range.total(stage.seconds for stage in planned),
        memory=solver,
        here=estimate_of(clock, stages),
        cluster=asked,
        rates=rates,
        classes=None if data is None else data.classes,
        loss=loss,
        levels=levels,
    )


def _plain(value: Any) -> Any:
    """Named tuples by name: as plain ones they would be lists in JSON."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
