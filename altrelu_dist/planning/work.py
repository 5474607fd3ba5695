"""What a run will do, in passes over rows and neurons: from the trainer's own rules and constants.

How many iterations a descent takes and how many cycles pay is known only to the data. What is
counted is the least and the most that the trainer's rules allow, and a typical count between them.
"""

from __future__ import annotations

from dataclasses import replace

from altrelu_dist.engine import TILE
from altrelu_dist.loss_names import SQUARES
from altrelu_dist.losses import MOST_FITS, MOST_STEEP
from altrelu_dist.moments.pattern import WIDE
from altrelu_dist.planning import committee
from altrelu_dist.planning.calls import Call, Range, Shape, Stage
from altrelu_dist.training import damped, kronecker, neurons, schedule, trainer
from altrelu_dist.training.alternating import ITERATIONS
from altrelu_dist.training.pattern_state import REBUILD_AFTER
from altrelu_dist.training.search import TOLD

__all__ = ["held_whole", "stages_of"]

_BUILDS = REBUILD_AFTER + 1  # as often moments are built anew at least
# Damped steps that are made where they may be many; they end when five of them gain little.
_STEPS = 65
# Function values that one iteration of the quasi-Newton method takes, its line search included.
_VALUES_AN_ITERATION = 1.03
# Rounds of Kronecker-factored steps: each makes twice the steps of the one before.
_ROUNDS = (2, 3)
# Typical of another loss, from runs of it on few rows: fits after that of squares, and the damped
# steps of each, which goes on from a network.
_FITS = {"quantile": 8, "huber": 4, "poisson": 4}
_STEPS_AGAIN = 15


def held_whole(shape: Shape, method: str) -> bool:
    """Whether the process that trains holds all rows, and works on nothing else."""
    if method == "committee":
        return committee.sizes_of(shape).whole
    return schedule.ROWS.stages(shape.p, shape.q, shape.h, shape.dtype, shape.n).whole


def stages_of(shape: Shape, method: str, loss: str = SQUARES) -> tuple[Stage, ...]:
    """The stages of a run.

    Parameters
    ----------
    shape : Shape
        Its targets are the network's outputs.
    method, loss : str

    Raises
    ------
    ParameterError
        If the method cannot hold its system.
    """
    h, p, n = shape.h, shape.p, shape.n
    if method == "alternating":
        trainer.check_alternation(h, p)
    if method == "committee":
        held = committee.sizes_of(shape).held
        drawn = _drawing(n, held, ("distinct",))
        return committee.stages(shape, (_look("summary", n), drawn), by_loss=loss != SQUARES)
    if loss != SQUARES:
        return _reweighted(shape, method, loss)
    return _plain(shape, method)


def _plain(shape: Shape, method: str, *, again: bool = False) -> tuple[Stage, ...]:
    """The stages of a plain network of squares; again: of a fit that goes on from a network."""
    h, p, q, n = shape.h, shape.p, shape.q, shape.n
    sizes = schedule.ROWS.stages(p, q, h, shape.dtype, n)
    whole = sizes.whole
    made = [_look("summary", n)]
    held = n if whole else sizes.drawn(method)
    if whole or method != "alternating":
        made.append(_drawing(n, held, ("distinct", "prepare") if whole else ("prepare",)))
    few = schedule.ROWS.part(sizes.few, held)
    fewest = schedule.ROWS.part(schedule.ROWS.fewest(h), few)
    if method == "alternating":
        return (*made, _alternation(shape, local=whole))
    if method == "kronecker":
        made.append(_rounds(shape, held, held if whole else few, again=again))
        return tuple(made) if whole else (*made, _last_steps(shape, few, local=False))
    if method == "damped":
        steps = trainer.DAMPED_STEPS
        if few < held or not whole:
            hinges = not again
            made.append(
                _steps("sample", shape, few, few, steps, local=True, hinges=hinges, again=again)
            )
            steps = trainer.LAST_STEPS
        hinges = whole and not again
        last = _steps("layers", shape, n, few, steps, local=whole, hinges=hinges, again=again)
        return (*made, last)
    return (
        *made,
        *_search(shape, fewest, held, held if whole else few, told=not whole),
        _last_steps(shape, few, local=whole),
    )


def _last_steps(shape: Shape, few: int, *, local: bool) -> Stage:
    """Over all rows: layer solves, or steps of L-BFGS where the network is too wide for them."""
    n, h, steps = shape.n, shape.h, trainer.LAST_STEPS
    if h * shape.p <= trainer.MOST_BLOCKS * damped.LARGEST_SYSTEM:
        return _steps("layers", shape, n, few, steps, local=local)
    calls = _descent(n, h, steps, None, everywhere=not local)
    return Stage("layers", n, (h, h), Range.exactly(steps), tuple(calls))


def _reweighted(shape: Shape, method: str, loss: str) -> tuple[Stage, ...]:
    """A fit of squares, and fits of the parabolas of the loss: each a run of its own."""
    n, h = shape.n, shape.h
    squares = [call for stage in _plain(shape, method) for call in stage.calls]
    method = "damped" if method == "damped" else "kronecker"
    one = [call for stage in _plain(shape, method, again=True) for call in stage.calls]
    # The rows of each pass over the data are predicted for their working targets and weights.
    one += [replace(call, kernel="loss", neurons=h, rides=True) for call in one if call.everywhere]
    once = Range.exactly(1)
    one.append(Call("loss", n, h, once, everywhere=True))
    fits = Range(1, _FITS[loss], MOST_FITS + MOST_STEEP)
    return (
        _look("summary", n),
        Stage("squares", n, (h, h), once, (*_look("sample", n).calls, *squares)),
        Stage("reweighted", n, (h, h), fits, tuple(call.times(fits) for call in one)),
    )


def _rounds(shape: Shape, held: int, judging: int, *, again: bool) -> Stage:
    """Kronecker-factored steps in rounds of ever more from hinges, or one from a network."""
    settings, h = kronecker.SETTINGS, shape.h
    tile = _tile(held)
    made: list[float] = [0.0]  # steps after so many rounds
    descents = [0]
    for number in range(settings.most_rounds):
        racing = len(settings.racing(number, 0))
        made.append(made[-1] + racing * settings.round_steps(number, held))
        descents.append(descents[-1] + racing)
    rounds = Range.exactly(1) if again else Range(*_ROUNDS, settings.most_rounds)
    steps = Range(*(made[int(count)] for count in rounds))
    losses = Range(*(float(descents[int(count)] + 1) for count in rounds))
    calls = [
        Call("whiten", held, 0, Range.exactly(1)),
        *([] if again else _insertion(held, h)),
        Call("loss", judging, h, losses),
        Call("output", held, h, rounds),
        Call("tile", held, h, steps.times(tile / held)),
        Call("precondition", 0, h, steps),
    ]
    return Stage("rounds", held, (h, h), rounds, tuple(calls))


def _look(name: str, n: int) -> Stage:
    call = Call(name, n, 0, Range.exactly(1), everywhere=True)
    return Stage(name, n, (0, 0), Range.exactly(1), (call,))


def _drawing(n: int, held: int, kernels: tuple[str, ...]) -> Stage:
    """The pass that draws, and what becomes of the rows that were drawn."""
    calls = [Call(kernel, held, 0, Range.exactly(1)) for kernel in kernels]
    return replace(_look("sample", n), calls=(*_look("sample", n).calls, *calls))


def _descent(
    rows: int, h: int, least: int, most: int | None, *, everywhere: bool = False
) -> list[Call]:
    """A quasi-Newton descent, the output layer refitted before and after."""
    # Most descents end at their least: few go on lowering the loss as fast as going on asks for.
    values = Range(least, least, most or least).times(_VALUES_AN_ITERATION)
    return [
        Call("loss-and-gradient", rows, h, values, everywhere),
        Call("iterate", 0, h, values),
        Call("metric", 0, h, values),
        Call("output", rows, h, Range.exactly(2), everywhere),
    ]


def _search(shape: Shape, few: int, held: int, judging: int, *, told: bool) -> list[Stage]:
    """The race of lengths, the cycles, and L-BFGS to settle."""
    settings, h = schedule.SEARCH, shape.h
    racing = len(kronecker.SETTINGS.lengths)
    raced = settings.raced(settings.share(held))
    race = [
        Call("whiten", held, 0, Range.exactly(1)),
        *_insertion(few, h),
        Call("output", few, h, Range.exactly(1)),
        *_kronecker(held, h, racing * raced),
        Call("loss", few, h, Range.exactly(racing)),
        Call("loss", judging, h, Range.exactly(1)),
        *_refit(few, held, h),
    ]
    cycles = Range(settings.least_cycles, settings.most_cycles, settings.most_cycles)
    calls = [
        replace(call, count=Range(*(float(number < ends) for ends in cycles)).times(call.count))
        for number in range(settings.most_cycles)
        for call in _cycle(shape, few, held, judging, number)
    ]
    if told:
        tell = Call("loss", shape.n, h, Range.exactly(1), everywhere=True)
        most = Range(*(min(TOLD, ends) for ends in cycles))
        calls.append(replace(tell, count=most._replace(least=0)))
    settle = _descent(held, h, settings.settling, settings.most_settling)
    if judging < held:
        settle.append(Call("loss", judging, h, Range.exactly(1)))
    once = Range.exactly(1)
    return [
        Stage("grow", held, (0, h), once, tuple(race)),
        Stage("cycle", held, (h, 2 * h), cycles, tuple(calls)),
        Stage("settle", held, (h, h), once, tuple(settle)),
    ]


def _refit(few: int, held: int, h: int) -> list[Call]:
    """The output layer refitted, where few rows are all."""
    return [Call("output", held, h, Range.exactly(1))] if few == held else []


def _cycle(shape: Shape, few: int, held: int, judging: int, number: int) -> list[Call]:
    """Neurons are added, then pruned with descents between."""
    settings, h = schedule.SEARCH, shape.h
    grown, scale = settings.grown(h, number), settings.scale(number, held)
    legs = settings.legs(grown, h, scale)
    calls = [*_insertion(few, grown if number == 0 else h)]
    calls.append(Call("output", few, h, Range.exactly(1)))
    ends = 2 if number == 0 else 1  # the last descents, of which two race in the first cycle
    if number > 0:
        calls += _kronecker(held, h, settings.raced(scale))
        calls.append(Call("loss", judging, h, Range.exactly(1)))
    before = grown
    for leg in legs:
        if leg.neurons < before:
            calls.append(Call("output", few, before, Range.exactly(1)))
            calls.append(Call("remove", 0, before, Range.exactly(1)))
        before = leg.neurons
        calls += _kronecker(held, leg.neurons, leg.steps * (ends if leg is legs[-1] else 1))
    calls.append(Call("loss", judging, h, Range.exactly(ends)))
    return calls + _refit(few, held, h)


def _kronecker(held: int, h: int, steps: int) -> list[Call]:
    """Kronecker-factored steps on tiles."""
    return [
        Call("tile", held, h, Range.exactly(steps * _tile(held) / held)),
        Call("precondition", 0, h, Range.exactly(steps)),
    ]


def _tile(held: int) -> float:
    """Rows of a step: the rows are in tiles of equal size."""
    return held / max(1, round(held / kronecker.SETTINGS.tile_rows(held)))


def _insertion(rows: int, h: int) -> list[Call]:
    """Of some neurons, so that there are h."""
    part = min(rows, neurons.CANDIDATE_TILES * TILE)
    return [Call("insert", part, h, Range.exactly(1)), Call("choose", 0, h, Range.exactly(1))]


def _steps(
    name: str,
    shape: Shape,
    n: int,
    few: int,
    steps: int,
    *,
    local: bool,
    hinges: bool = False,
    again: bool = False,
) -> Stage:
    """Damped steps; loss and gradient from all rows, curvature from few of them."""
    h, p = shape.h, shape.p
    width = max(1, min(h, damped.LARGEST_SYSTEM // p))
    everywhere = not local
    # A step that is refused costs one pass; one that counts needs the curvature again. The last
    # steps are so few that most are made; where there are many, those that gain little end them.
    tried = Range(min(6, steps), steps, steps)
    counted = Range(1, tried.typical / 2, tried.most)
    if steps > trainer.LAST_STEPS:
        typical = _STEPS_AGAIN if again else _STEPS
        tried = Range(min(6, steps), min(typical, steps), steps)
        counted = Range(5, 0.75 * tried.typical, tried.most)
    # Of other neurons each time, or of many columns, moments are built anew.
    if width < h or p > WIDE:
        built, changes = counted, Range.exactly(0)
    else:
        built = Range(*(1 + (count - 1) / _BUILDS for count in counted))
        changes = Range(*(count - each for count, each in zip(counted, built, strict=True)))
    calls = [
        Call("loss-and-gradient", n, h, tried.plus(Range.exactly(1)), everywhere),
        Call("gram", few, width, built),
        Call("delta", few, width, changes),
        Call("kinks", few, width, counted),
        Call("system", 0, width, counted),
        Call("step", 0, width, tried),
    ]
    if hinges:
        calls = [*_insertion(few, h), Call("output", few, h, Range.exactly(1)), *calls]
    if name == "layers":
        calls.append(Call("output", n, h, Range.exactly(1), everywhere))
    return Stage(name, n, (h, h), tried, tuple(calls))


def _alternation(shape: Shape, *, local: bool) -> Stage:
    """The paper's iterations: the moments of a pattern, and the true loss in the same pass."""
    n, h, times = shape.n, shape.h, ITERATIONS
    everywhere = not local
    # Early patterns change so much that an update costs what building anew does.
    built = Range(1 + times / _BUILDS, (1 + times) / 2, 1 + times)
    if shape.p > WIDE:
        built = Range.exactly(1 + times)
    changes = Range(*(1 + times - count for count in built))
    calls = [
        Call("gram", n, h, built, everywhere),
        Call("delta", n, h, changes, everywhere),
        Call("loss", n, h, Range.exactly(1), everywhere),
        Call("loss", n, h, Range.exactly(times), everywhere, rides=True),
        Call("solve", 0, h, Range.exactly(times)),
    ]
    if not local:  # what further rows would be weighed against
        calls.append(Call("output", n, h, Range.exactly(1), everywhere))
    return Stage("alternating", n, (h, h), Range.exactly(times), tuple(calls))
