"""Every way to a Dask DataFrame trains, predicts and scores as pandas does, and reads once."""

from __future__ import annotations

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.diagnostics import Callback
from oracles import same

from altrelu_dist import AltReLURegressor
from altrelu_dist.dask_frames import read_together
from altrelu_dist.errors import DataError
from altrelu_dist.inputs import engine_of, lazy_array
from altrelu_dist.moments import Sampler

# Dask's own, with newer versions of pandas.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

N, FILES = 240, 8
X = ["a", "b", "c"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((N, 9)), columns=list("abcdefghi"))
    table["y"] = np.abs(table["a"]) - table["b"]
    table["weight"] = rng.random(N) + 0.1
    table["year"] = np.repeat([2024, 2025, 2026], N // 3)
    return table


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    """The table in many files: of Parquet, of CSV, of folders by year."""
    folder = tmp_path_factory.mktemp("tables")
    for name in ("parquet", "csv"):
        (folder / name).mkdir()
    for i in range(FILES):
        part = table.iloc[i * N // FILES : (i + 1) * N // FILES]
        part.to_parquet(folder / f"parquet/{i:02}.parquet", index=False)
        part.to_csv(folder / f"csv/{i:02}.csv", index=False)
    table.to_parquet(folder / "years", partition_cols=["year"], index=False)
    return folder


def quick():
    return AltReLURegressor(3, method="damped", max_iter=3, random_state=0)


def parquet(folder, **options):
    return dd.read_parquet(folder / "parquet", **options)


def csv(folder):
    return dd.read_csv(folder / "csv/*.csv", float_precision="round_trip")


def some(frame):
    return frame[frame["a"] > 0]


# From a folder the features and the target, and what pandas makes of the table for each.
ROUTES = {
    "a few columns": (lambda f: (parquet(f)[X], parquet(f)["y"]), lambda t: (t[X], t["y"])),
    "all but some": (
        lambda f: (parquet(f).drop(columns=["y", "weight"]), parquet(f)["y"]),
        lambda t: (t.drop(columns=["y", "weight"]), t["y"]),
    ),
    "a frame of one target": (
        lambda f: (parquet(f)[["a"]], parquet(f)[["y"]]),
        lambda t: (t[["a"]], t[["y"]]),
    ),
    "two targets": (
        lambda f: (parquet(f)[X], parquet(f)[["y", "d"]]),
        lambda t: (t[X], t[["y", "d"]]),
    ),
    "CSV": (lambda f: (csv(f)[X], csv(f)["y"]), lambda t: (t[X], t["y"])),
    "two sources": (lambda f: (csv(f)[X], parquet(f)["y"]), lambda t: (t[X], t["y"])),
    "other partitions": (
        lambda f: (parquet(f)[X].repartition(npartitions=5), csv(f)["y"]),
        lambda t: (t[X], t["y"]),
    ),
    "a filter": (
        lambda f: (some(parquet(f))[X], some(parquet(f))["y"]),
        lambda t: (some(t)[X], some(t)["y"]),
    ),
    "a filter while reading": (
        lambda f: (
            parquet(f, filters=[("a", ">", 0)])[X],
            parquet(f, filters=[("a", ">", 0)])["y"],
        ),
        lambda t: (some(t)[X], some(t)["y"]),
    ),
    "folders by year": (
        lambda f: (dd.read_parquet(f / "years")[[*X, "year"]], dd.read_parquet(f / "years")["y"]),
        lambda t: (t[[*X, "year"]].astype({"year": "category"}), t["y"]),
    ),
    "arrays of its values": (
        lambda f: (parquet(f)[["a"]].values, parquet(f)[["y", "d", "e"]].values),
        lambda t: (t[["a"]].to_numpy(), t[["y", "d", "e"]].to_numpy()),
    ),
    "a frame and an array": (
        lambda f: (parquet(f)[["a"]], parquet(f)["y"].values),
        lambda t: (t[["a"]], t["y"].to_numpy()),
    ),
    "what is optimised already": (
        lambda f: (parquet(f)[["a"]].optimize(), parquet(f)["y"].optimize()),
        lambda t: (t[["a"]], t["y"]),
    ),
    "a whole source and a column of it": (
        lambda f: (parquet(f, columns=["a", "y"]), parquet(f, columns=["a", "y"])["y"]),
        lambda t: (t[["a", "y"]], t["y"]),
    ),
    "persisted": (
        lambda f: (parquet(f).persist()[X], parquet(f).persist()["y"]),
        lambda t: (t[X], t["y"]),
    ),
    "computed columns": (
        lambda f: (parquet(f).assign(k=lambda t: 2 * t["a"])[["k", "b"]], parquet(f)["y"] + 1),
        lambda t: (t.assign(k=2 * t["a"])[["k", "b"]], t["y"] + 1),
    ),
    "a sorted index": (
        lambda f: (parquet(f).set_index("d")[X], parquet(f).set_index("d")["y"]),
        lambda t: (t.sort_values("d")[X], t.sort_values("d")["y"]),
    ),
    "nullable columns": (
        lambda f: (
            parquet(f, dtype_backend="numpy_nullable")[X],
            parquet(f, dtype_backend="pyarrow")["y"],
        ),
        lambda t: (t[X], t["y"]),
    ),
    "float32 columns": (
        lambda f: (parquet(f)[X].astype("f4"), parquet(f)["y"]),
        lambda t: (t[X].astype("f4"), t["y"]),
    ),
}


def assert_as_pandas(lazy, held):
    rows, target = lazy
    model, expected = quick().fit(rows, target), quick().fit(*held)
    assert same(model.network_.hidden_weights, expected.network_.hidden_weights)
    assert model.network_.feature_names == expected.network_.feature_names
    assert model.network_.target_names == expected.network_.target_names
    predicted = model.predict(rows)
    assert isinstance(predicted, da.Array)
    assert predicted.compute() == pytest.approx(expected.predict(held[0]), rel=1e-12)
    assert model.score(rows, target) == pytest.approx(expected.score(*held))
    folded = model.partial_fit(rows, target).network_.output_weights
    assert folded == pytest.approx(expected.partial_fit(*held).network_.output_weights)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_what_pandas_gives(folder, table, route):
    lazy, held = ROUTES[route]
    assert_as_pandas(lazy(folder), held(table))


@pytest.mark.cluster
@pytest.mark.parametrize("route", ["all but some", "two sources", "folders by year", "a filter"])
def test_on_a_cluster_too(folder, table, route, process_client):
    assert process_client.status == "running"
    lazy, held = ROUTES[route]
    assert_as_pandas(lazy(folder), held(table))


def test_weights_of_the_same_source(folder, table):
    frame = parquet(folder)
    model = quick().fit(frame[X], frame["y"], frame["weight"])
    expected = quick().fit(table[X], table["y"], table["weight"])
    assert same(model.network_.hidden_weights, expected.network_.hidden_weights)
    for weight in (frame[["weight"]], table["weight"]):
        assert model.score(frame[X], frame["y"], weight) == pytest.approx(
            expected.score(table[X], table["y"], table["weight"])
        )


READ = []  # parts of the table, each time that one is made


def made(part, table):
    READ.append(part)
    return table.iloc[part * N // FILES : (part + 1) * N // FILES]


def test_x_and_y_of_one_source_are_read_once_a_pass(table):
    frame = dd.from_map(made, range(FILES), table=table, meta=table.iloc[:0])
    READ.clear()
    with dask.config.set(scheduler="sync"):
        engine = engine_of(frame[X], frame["y"], frame["weight"])
        assert sorted(READ) == list(range(FILES))  # the lengths of all three
        READ.clear()
        sample = engine.reduce(Sampler(1.0, 0), "all").drawn()
    assert sorted(READ) == list(range(FILES))
    np.testing.assert_array_equal(sample.X, table[X].to_numpy())
    np.testing.assert_array_equal(sample.weight, table["weight"].to_numpy())


def test_lengths_of_parquet_take_no_column(folder):
    read = []

    class Watch(Callback):
        def _posttask(self, _, result, *__):
            if isinstance(result, pd.DataFrame):
                read.append(list(result.columns))

    with Watch(), dask.config.set(scheduler="sync"):
        rows = lazy_array(parquet(folder)[["a", "b"]], "X")
    assert not any(read)
    assert rows.chunks == ((N // FILES,) * FILES, (2,))


def test_random_rows_stay_in_step(folder):
    """A different sample and order at every pass, of X and y alike."""

    def shuffled(part):
        return part.sample(frac=1, random_state=np.random.default_rng())

    frame = parquet(folder).map_partitions(shuffled)
    both = engine_of(frame[["a", "b"]], frame["y"]).reduce(Sampler(1.0, 0), "all").drawn()
    np.testing.assert_allclose(both.y[:, 0], np.abs(both.X[:, 0]) - both.X[:, 1])


def test_partitions_without_rows(folder, table):
    frame = parquet(folder)
    frame = frame[frame["year"] == 2025]
    held = table[table["year"] == 2025]
    engine = engine_of(frame[X], frame["y"])
    assert engine.n_rows == len(held)
    found = engine.reduce(Sampler(1.0, 0), "all").drawn().X
    np.testing.assert_array_equal(found, held[X].to_numpy())
    with pytest.raises(DataError, match="0 sample"):
        quick().fit(frame[frame["year"] == 1][X], frame[frame["year"] == 1]["y"])


@pytest.mark.parametrize(
    ("column", "kind", "cure"),
    [
        (pd.date_range("2026-01-01", periods=4), "datetime64", "dt.year"),
        (["Bern", "Oslo", "Rome", "Lima"], "str|string|object", "OneHotEncoder"),
        (pd.Categorical(["x", "y", "x", "y"]), "category", "OneHotEncoder"),
        (np.array([1j, 2, 3, 4]), "complex128", "encode"),
    ],
)
def test_columns_of_something_else_are_named(column, kind, cure):
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2, 3, 4], "odd": column}), npartitions=2)
    expected = rf"has a column that is not numbers: odd \(({kind}).*{cure}"
    with pytest.raises(DataError, match="X " + expected):
        lazy_array(frame, "X")
    with pytest.raises(DataError, match="y " + expected):
        quick().fit(frame[["a"]], frame["odd"])


def test_categories_that_nobody_has_counted_are_named():
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2], "b": pd.Categorical([1, 2])}), 1)
    assert lazy_array(frame, "X").compute().tolist() == [[1, 1], [2, 2]]
    frame["b"] = frame["b"].cat.as_unknown()
    with pytest.raises(DataError, match=r"b \(category\)"):
        lazy_array(frame, "X")


def test_names_that_are_there_twice_are_refused(folder):
    frame = parquet(folder)
    with pytest.raises(DataError, match="X has two columns named 'a'"):
        quick().fit(frame[["a", "b"]].rename(columns={"b": "a"}), frame["y"])


def test_a_frame_without_columns_is_refused(folder):
    with pytest.raises(DataError, match=r"0 feature\(s\)"):
        read_together({"X": parquet(folder)[[]]})


def test_what_is_missing_is_named_by_column_and_row(folder, table):
    frame = parquet(folder)
    holes = frame[X].mask(frame["a"] == table["a"][37])
    with pytest.raises(DataError, match=r"X contains NaN.*a \(1\), b \(1\).*row 37"):
        quick().fit(frame[X], frame["y"]).score(holes, frame["y"])
