"""The parts of the command: progress, Ctrl-C, output, writers, the split, and the demo's."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from altrelu_dist.cli.app import app
from altrelu_dist.cli.baselines import linear_baselines
from altrelu_dist.cli.writers import ZarrWriter
from altrelu_dist.data import DataSet
from altrelu_dist.errors import ParameterError
from altrelu_dist.interrupts import Interrupts, Terminated, catch_interrupts
from altrelu_dist.memory import PeakMemory, measure
from altrelu_dist.runs.output import Output, bytes_text, memory_text, number, seconds_text
from altrelu_dist.runs.progress import Watch, watch
from altrelu_dist.runs.split import split_rows
from altrelu_dist.training.progress import Progress

NAN = math.nan


def progress(**changes):
    usual = {
        "stage": "cycle", "iteration": 7, "loss": 12.5, "sample_loss": NAN, "passes": 3,
        "rows": 1000, "seconds": 10.0, "fraction": 0.25,
    }  # fmt: skip
    return Progress(**usual | changes)


def output(*, terminal=False, **options):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    return Output(progress=console, **options)


def dataset(n=1000, chunks=(400, 400, 200), weight=False):
    rng = np.random.default_rng(1)
    X = da.from_array(rng.normal(size=(n, 3)), chunks=(chunks, 3))
    y = da.from_array(np.arange(n, dtype=float)[:, None], chunks=(chunks, 1))
    w = da.from_array(np.arange(n, dtype=float), chunks=(chunks,)) if weight else None
    return DataSet(X, y, w, ("a", "b", "c"), ("t",), "here")


# --- progress ---------------------------------------------------------------------------------


def test_plain_lines_say_all_there_is_to_know():
    out = output()
    with watch(out) as follow:
        follow(progress(seconds=1.0, rows=0))
        follow(progress(seconds=4.0, rows=6_000_000, sample_loss=11.0, fraction=0.5))
    first, second = out.progress.file.getvalue().splitlines()
    assert first.split() == [
        *("1.0", "s", "cycle", "iteration", "7", "loss", "12.5", "passes", "3", "?", "rows/s"),
    ]
    assert second.endswith("about 6.0 s left")  # at three seconds a quarter
    assert "on sample 11" in second
    assert "2M rows/s" in second


def test_plain_lines_come_seldom_and_at_each_stage():
    out = output()
    with watch(out) as follow:
        for step in range(1000):
            follow(progress(seconds=step / 100, stage="grow" if step < 500 else "cycle"))
    lines = out.progress.file.getvalue().splitlines()
    assert 3 <= len(lines) <= 7
    assert sum("grow" in line for line in lines) >= 2
    assert sum("cycle" in line for line in lines) >= 2


def test_quiet_shows_nothing():
    out = output(quiet=True)
    with watch(out) as follow, out.doing("much"), out.bar("bar") as show:
        follow(progress())
        show(0.5)
        out.note("note")
    assert out.progress.file.getvalue() == ""


def test_the_live_display_shows_bar_times_and_facts():
    out = output(terminal=True)
    with watch(out) as follow:
        follow(progress(rows=0, seconds=8.0))
        follow(progress(rows=4_000, seconds=10.0, fraction=0.5))
        out.progress.print("-")  # has the display drawn
    shown = out.progress.file.getvalue()
    for words in ("cycle", "iteration 7", "loss 12.5", "passes 3", "2k rows/s", "elapsed", "left"):
        assert words in shown


def test_unknown_ends_are_not_guessed():
    with catch_interrupts(lambda _: None, exiting=True) as interrupts:
        follow = Watch(interrupts)
        assert math.isnan(follow.left)
        for now in (progress(fraction=NAN), progress(fraction=0.2), progress(fraction=0.21)):
            follow(now)
            assert math.isnan(follow.left)
        follow(progress(seconds=20.0, fraction=0.6))
        assert follow.left == pytest.approx(10, abs=0.5)
        follow(progress(seconds=40.0, fraction=0.61))
        assert math.isnan(follow.left), "a guess that was wrong is not shown any longer"
        follow = Watch(interrupts, max_time=14)
        for seconds, fraction in ((10, NAN), (10, 0.5), (11, 0.8)):
            follow(progress(seconds=seconds, fraction=fraction))
        assert follow.left == pytest.approx(2 / 3, abs=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_the_time_left_never_climbs(seed, monkeypatch):
    """Whatever the speed of the run: it is hidden, or no more than before."""
    rng = np.random.default_rng(seed)
    now = 0.0
    monkeypatch.setattr("altrelu_dist.runs.progress.time.monotonic", lambda: now)
    follow, fraction, shown = Watch(Interrupts(), max_time=[None, 900.0][seed % 2]), NAN, []
    for _ in range(300):
        now += rng.exponential()
        if rng.random() < 0.3:
            fraction = min(1.0, (0 if math.isnan(fraction) else fraction) + rng.exponential(0.01))
        stage = "grow" if now < 20 else "cycle" if now < 150 else "settle"
        follow(progress(seconds=now, fraction=fraction, stage=stage))
        shown += [each for each in (follow.left,) if not math.isnan(each)]
    assert len(shown) > 20
    assert shown == sorted(shown, reverse=True)


def test_the_time_left_of_a_steady_run_is_true(monkeypatch):
    now = 0.0
    monkeypatch.setattr("altrelu_dist.runs.progress.time.monotonic", lambda: now)
    follow = Watch(Interrupts())
    for step in range(1, 101):
        now = 30 + step  # after half a minute of reading
        follow(progress(seconds=now, fraction=step / 100))
        if step > 3:
            assert follow.left == pytest.approx(100 - step)


# --- Ctrl-C -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)],
)
def test_the_first_signal_asks_and_the_second_raises(number, error, code):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with catch_interrupts(lambda _: None, exiting=True) as interrupts:
            follow = Watch(interrupts)
            assert not follow(progress())
            os.kill(os.getpid(), number)
            assert follow(progress())
            assert interrupts.exit_code == code
            with pytest.raises(error):
                os.kill(os.getpid(), number)
        for each in before:
            assert signal.getsignal(each) is signal.SIG_IGN  # while it clears up
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_as_before_afterwards(number):
    before = signal.getsignal(number)
    with catch_interrupts(lambda _: None):
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before


def test_a_command_without_a_step_to_end_clears_up_and_ends_with_143(tmp_path, monkeypatch):
    """SIGTERM in the middle of a conversion: what was written so far goes, one line is said."""
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", X=np.zeros((9, 2)), y=np.arange(9.0))

    def terminated(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("altrelu_dist.data.zarr_writer.StoreWriter.append", terminated)
    before = signal.getsignal(signal.SIGTERM)
    done = CliRunner().invoke(app, ["convert", "data.npz", "new.zarr"])
    assert done.exit_code == 143
    assert done.stderr.splitlines()[-1] == "terminated"
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]
    assert signal.getsignal(signal.SIGTERM) is before


# --- words and numbers ------------------------------------------------------------------------


def test_json_has_no_nan(capsys):
    Output(as_json=True).result({"r2": NAN, "mse": np.float64(2), "deep": [{"x": math.inf}]}, "no")
    assert json.loads(capsys.readouterr().out) == {"r2": None, "mse": 2.0, "deep": [{"x": None}]}


def test_numbers_are_short():
    assert [number(x) for x in (0.123456, 12.3456, 1234567.8, NAN)] == [
        *("0.1235", "12.35", "1,234,568", "?")
    ]
    assert [seconds_text(s) for s in (1.26, 75, 3725, NAN)] == ["1.3 s", "1:15", "1:02:05", "?"]
    assert [bytes_text(b) for b in (12, 3 << 20, 5 << 29)] == ["12 B", "3 MiB", "2.50 GiB"]


def test_peak_memory_adds_up():
    peak = PeakMemory(1 << 20, 2 << 20, {"a:1": 3 << 20, "b:2": 4 << 20})
    assert peak.total == 10 << 20
    assert memory_text(peak) == "10 MiB (this process 1 MiB; scheduler 2 MiB; workers 3 MiB, 4 MiB)"
    held = np.ones(30 << 17)  # 30 MiB
    assert measure(None).total > held.nbytes


# --- writers and the split --------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1000], [1] * 40, [7, 500, 3, 490]])
def test_zarr_predictions_are_whole_chunks_whatever_the_blocks(tmp_path, monkeypatch, sizes):
    import zarr

    monkeypatch.setattr("altrelu_dist.cli.writers._CHUNK_BYTES", 64 * 16)
    values = np.arange(2.0 * sum(sizes)).reshape(-1, 2)
    with ZarrWriter(tmp_path / "p.zarr", len(values), ["a", "b"]) as writer:
        start = 0
        for size in sizes:
            writer.write(values[start : start + size])
            start += size
    found = zarr.open_group(tmp_path / "p.zarr", mode="r")["y"]
    np.testing.assert_array_equal(found[...], values)
    assert found.chunks[0] <= 64


@pytest.mark.filterwarnings("ignore")  # dask-ml's own imports
@pytest.mark.parametrize("weight", [False, True])
def test_split_takes_each_row_once(weight):
    data = dataset(weight=weight)
    train, test = split_rows(data, 0.25, seed=3)
    assert train.X.shape == (750, 3)
    assert test.X.shape == (250, 3)
    taken = np.concatenate([train.y.compute(), test.y.compute()])[:, 0]
    assert sorted(taken) == list(range(1000))
    X = data.X.compute()
    np.testing.assert_array_equal(test.X.compute(), X[test.y.compute()[:, 0].astype(int)])
    if weight:
        np.testing.assert_array_equal(test.sample_weight.compute(), test.y.compute()[:, 0])
    again = split_rows(data, 0.25, seed=3)[1]
    np.testing.assert_array_equal(again.y.compute(), test.y.compute())
    other = split_rows(data, 0.25, seed=4)[1]
    assert not np.array_equal(other.y.compute(), test.y.compute())


@pytest.mark.filterwarnings("ignore")
def test_split_of_tiny_chunks_and_bad_fractions():
    train, test = split_rows(dataset(1000, (990, 1, 2, 7)), 0.1, seed=0)
    assert train.X.shape[0] + test.X.shape[0] == 1000
    for fraction in (0, 1, -0.1, NAN):
        with pytest.raises(ParameterError, match=r"test_fraction is .* above 0 and below 1"):
            split_rows(dataset(), fraction, seed=0)
    with pytest.raises(ParameterError, match="too few"):
        split_rows(dataset(3, (3,)), 0.1, seed=0)


# --- the demo ---------------------------------------------------------------------------------


def test_linear_baselines_are_numpys():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)) * [1, 1e4, 1e-3] + [0, 2000, 5]
    X = np.column_stack([X, X[:, 0] + 1])  # collinear
    y = X @ [[1.0], [2e-4], [3.0], [0.0]] + rng.normal(size=(500, 1))
    data = DataSet(
        da.from_array(X, chunks=(200, 4)), da.from_array(y, chunks=(200, 1)), None, (), (), ""
    )
    mean, linear = linear_baselines(data)
    A = np.column_stack([X, np.ones(500)])
    wanted = A @ np.linalg.lstsq(A, y, rcond=None)[0]
    np.testing.assert_allclose(linear.predict(X), wanted, rtol=1e-6)
    np.testing.assert_allclose(mean.predict(X), np.full((500, 1), y.mean()))


def test_the_flights_are_all_there():
    from altrelu_dist.cli.flights import TARGET, flights

    found = flights()
    assert found.shape == (325_724, 25)
    assert found[TARGET].mean() == pytest.approx(6.8835, abs=1e-3)
    assert np.isfinite(found.to_numpy()).all()


def test_the_picture_is_drawn(tmp_path):
    from altrelu_dist.cli.plot import draw

    history = [
        {"passes": i, "seconds": float(i), "loss": 10 / i, "sample_loss": NAN if i > 2 else 8 / i}
        for i in range(1, 5)
    ]
    true = np.random.default_rng(0).normal(size=500)
    draw(
        tmp_path / "p.png", {"search": history, "alternating": history}, 5.0, true, true * 0.9, "t"
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_without_its_extra_is_one_line(monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from altrelu_dist.cli import flights
    from altrelu_dist.cli.app import app

    monkeypatch.setattr(flights, "find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 1
    assert "pip install 'altrelu-dist[demo]'" in result.stderr
    assert not Path(tmp_path / "demo").exists()
