"""Which column is what: matched by names, an index is none, and what nobody needs is not read."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from altrelu_dist import Network, convert, describe, open_dataset
from altrelu_dist.data.zarr_format import metadata_checksum
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.network import _checksum
from altrelu_dist.runs.columns import in_order_of, open_for, targets_of

ROWS = 12
NAMES = ("x0", "x1", "x2")
X = np.random.default_rng(0).normal(size=(ROWS, 3))
TABLES = ("csv", "parquet", "parts", "store")


def network(names=NAMES, targets=None, seed=1, n_targets=1, **info):
    rng = np.random.default_rng(seed)
    sizes = ((3, 4), (4,), (4, n_targets), (n_targets,))
    return Network(
        *(rng.normal(size=size) for size in sizes),
        feature_names=names,
        target_names=targets,
        info=info,
    )


def frame(names=NAMES, **more):
    return pd.DataFrame(X, columns=list(names)).assign(**more)


def written(table, kind, folder, **options):
    """The table as a file, a folder or a store; its address."""
    folder.mkdir(exist_ok=True)
    if kind == "csv":
        table.to_csv(folder / "t.csv", index=False)
        return folder / "t.csv"
    if kind == "parquet":
        table.to_parquet(folder / "t.parquet", index=False)
        return folder / "t.parquet"
    if kind == "parts":
        (folder / "parts").mkdir()
        table[:5].to_csv(folder / "parts" / "1.csv", index=False)
        table[5:].to_csv(folder / "parts" / "2.csv", index=False)
        return folder / "parts"
    if kind == "arrays":
        np.savez(folder / "t.npz", X=table.to_numpy(), y=np.zeros(len(table)))
        return folder / "t.npz"
    convert(written(table, "parquet", folder), folder / "t.zarr", **options)
    return folder / "t.zarr"


def aged(path):
    """What the version before wrote: format 2, and names where the data had none."""
    meta = json.loads((path / "zarr.json").read_text())
    told = meta["attributes"]
    is_network = "negative_slope" in told
    told["format_version"] = 2
    told["feature_names"] = list(told["feature_names"] or NAMES)
    del told["checksum" if is_network else "metadata_checksum"]
    if is_network:
        stored = Network.load(path)
        kept = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
        told["checksum"] = _checksum(told, {name: getattr(stored, name) for name in kept})
    else:
        told["metadata_checksum"] = metadata_checksum(str(path), told, ["X", "y"])
    (path / "zarr.json").write_text(json.dumps(meta))
    return path


def predicted(model, address):
    """Predictions for a file, and what was said of it."""
    said = []
    return model.predict(open_for(model, str(address), said.append).X.compute()), said


# --- by name ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("names", [NAMES, ("b", "a", "c")])
def test_columns_are_matched_by_name_whatever_their_order(kind, names, tmp_path):
    wanted = network(names).predict(X)
    for number, order in enumerate(permutations(names)):
        address = written(frame(names)[[*order]], kind, tmp_path / str(number))
        found, said = predicted(network(names), address)
        np.testing.assert_array_equal(found, wanted)
        assert said == []


@pytest.mark.parametrize("kind", TABLES)
def test_columns_that_nobody_needs_are_ignored_in_one_line(kind, tmp_path):
    more = {"id": np.arange(ROWS)}
    if kind != "store":
        more |= {"note": "hello", "day": pd.Timestamp("2020-01-01"), "y": "unknown"}
    address = written(frame(**more)[[*more, "x2", "x0", "x1"]], kind, tmp_path)
    found, said = predicted(network(targets=("y",)), address)
    np.testing.assert_array_equal(found, network().predict(X))
    ignored = ", ".join(name for name in more if name != "y")
    assert said == [f"columns that the network does not need are ignored: {ignored}"]
    data = open_dataset(address, features=["x1"], require_target=False)
    np.testing.assert_array_equal(data.X.compute(), X[:, [1]])
    assert data.feature_names == ("x1",)
    assert {*data.left_out} == {*more, "x0", "x2"}


@pytest.mark.parametrize("kind", TABLES)
def test_columns_that_are_needed_are_named_where_they_are_missing(kind, tmp_path):
    address = written(frame(("x0", "x2", "z")), kind, tmp_path)
    with pytest.raises(DataError, match="no column x1; columns: x0, x2, z"):
        predicted(network(), address)


def test_a_column_that_is_needed_must_be_numbers(tmp_path):
    for number, odd in enumerate(("hello", pd.Timestamp("2020-01-01"))):
        for kind in ("csv", "parquet"):
            address = written(frame().assign(x1=odd, z="any"), kind, tmp_path / f"{number}{kind}")
            with pytest.raises(DataError, match=r"feature column x1 \(.*\) not numeric$"):
                predicted(network(), address)


def test_a_feature_is_no_target(tmp_path):
    address = written(frame(), "csv", tmp_path)
    with pytest.raises(ParameterError, match="named as target or weight, and a feature: x1"):
        open_dataset(address, target="x1", features=NAMES)


def test_targets_and_weights_of_a_table_are_found_by_name(tmp_path):
    Y, w = X[:, :2] + 1, np.arange(ROWS) + 1.0
    table = frame(b=Y[:, 1], w=w, a=Y[:, 0], text="t")
    address = str(written(table, "csv", tmp_path))
    model = network(targets=("a", "b"), n_targets=2, weight_name="w")
    data = open_for(model, address, [].append, targets=())
    np.testing.assert_array_equal(targets_of(model, data).compute(), Y)
    np.testing.assert_array_equal(data.sample_weight.compute(), w)
    named = open_for(model, address, [].append, targets=["b", "a"])
    np.testing.assert_array_equal(targets_of(model, named).compute(), Y)
    with pytest.raises(DataError, match="has the targets a, w; the network predicts a, b"):
        targets_of(model, open_for(model, address, [].append, targets=["a", "w"]))
    one = network(targets=("a",))  # compared with another column, as is asked for
    other = open_for(one, address, [].append, targets=["b"])
    np.testing.assert_array_equal(targets_of(one, other).compute(), Y[:, [1]])


# --- by position ------------------------------------------------------------------------------


def test_arrays_have_no_names(tmp_path):
    address = written(frame(), "arrays", tmp_path)
    convert(address, tmp_path / "a.zarr")
    for each in (address, tmp_path / "a.zarr"):
        assert open_dataset(each).feature_names is None
        assert [column.name for column in describe(each).columns] == [*NAMES, "y"]


def test_without_names_on_one_side_columns_go_by_position(tmp_path):
    wanted = network().predict(X)
    table = written(frame(("c", "b", "a")), "csv", tmp_path / "table")
    arrays = written(frame(), "arrays", tmp_path / "arrays")
    found, said = predicted(network(None), table)
    np.testing.assert_array_equal(found, wanted)
    assert said == ["the network knows no names of columns; taken by position: c, b, a"]
    found, said = predicted(network(("c", "b", "a")), arrays)
    np.testing.assert_array_equal(found, wanted)
    assert said == ["the data has no names of columns; taken by position for c, b, a"]
    found, said = predicted(network(None), arrays)
    np.testing.assert_array_equal(found, wanted)
    assert said == []


def test_without_names_the_numbers_of_columns_must_be_equal(tmp_path):
    table = written(frame(d=1.0), "csv", tmp_path / "table")
    with pytest.raises(DataError, match=r"takes 3 features, .*found 4: x0, x1, x2, d"):
        predicted(network(None), table)
    arrays = written(frame(d=1.0), "arrays", tmp_path / "arrays")
    with pytest.raises(DataError, match="has 4 columns without names; expected 3: x0, x1, x2"):
        predicted(network(), arrays)
    with pytest.raises(DataError, match=r"takes 3 features, .*found 4$"):
        predicted(network(None), arrays)


# --- files of before --------------------------------------------------------------------------


def test_old_networks_and_stores_are_read_as_before(tmp_path):
    """Their names x0, x1, ... count where the other side has any of them, and else as made up."""
    network().save(tmp_path / "m.zarr")
    old = Network.load(aged(tmp_path / "m.zarr"))
    assert old.feature_names == NAMES
    wanted = network().predict(X)
    np.testing.assert_array_equal(old.predict(X), wanted)
    swapped = written(frame()[["x2", "x1", "x0"]], "csv", tmp_path / "swapped")
    others = written(frame(("c", "b", "a")), "csv", tmp_path / "others")
    some = written(frame(("x0", "x1", "z")), "csv", tmp_path / "some")
    convert(written(frame(), "arrays", tmp_path / "arrays"), tmp_path / "s.zarr")
    store = aged(tmp_path / "s.zarr")
    np.testing.assert_array_equal(open_dataset(store).X.compute(), X)
    for model, address in ((old, swapped), (old, others), (old, store), (network(), store),
                           (network(("c", "b", "a")), store), (network(None), store)):  # fmt: skip
        np.testing.assert_array_equal(predicted(model, address)[0], wanted)
    shuffled = network(("x2", "x0", "x1"))
    np.testing.assert_array_equal(predicted(shuffled, store)[0], shuffled.predict(X[:, [2, 0, 1]]))
    with pytest.raises(DataError, match="no column x2"):
        predicted(old, some)
    old.save(tmp_path / "again.zarr")  # nobody knows any better by then
    np.testing.assert_array_equal(
        predicted(Network.load(tmp_path / "again.zarr"), others)[0], wanted
    )


def test_new_networks_know_whether_their_names_are_made_up(tmp_path):
    network().save(tmp_path / "m.zarr")
    others = written(frame(("c", "b", "a")), "csv", tmp_path / "others")
    with pytest.raises(DataError, match="no column x0, x1, x2"):
        predicted(Network.load(tmp_path / "m.zarr"), others)


# --- further training -------------------------------------------------------------------------


def test_a_run_that_begins_with_a_network_takes_its_order(tmp_path):
    model = network()
    table = written(frame(y=1.0)[["y", "x2", "x0", "x1"]], "csv", tmp_path / "table")
    said = []
    data = in_order_of(model, open_dataset(table, target="y"), said.append)
    np.testing.assert_array_equal(data.X.compute(), X)
    assert data.feature_names == NAMES
    assert said == []
    arrays = open_dataset(written(frame(), "arrays", tmp_path / "arrays"))
    assert in_order_of(model, arrays, said.append).feature_names == NAMES
    named = open_dataset(table, target="y")
    assert in_order_of(network(None), named, said.append) is named
    assert said == [
        "the data has no names of columns; taken by position for x0, x1, x2",
        "the network knows no names of columns; taken by position: x2, x0, x1",
    ]
    wide = replace(named, X=named.X, feature_names=("x0", "x1", "z"))
    with pytest.raises(DataError, match="network to begin with: without x2 and with z"):
        in_order_of(model, wide, said.append)


# --- an index ---------------------------------------------------------------------------------


def _indexed(name):
    table = frame(list("abc"), y=1.0)
    table.index = pd.Index(np.random.default_rng(2).permutation(ROWS), name=name)
    return table


INDEXED = {
    "pandas": (lambda p: _indexed(None).to_parquet(p), ["__index_level_0__"]),
    "pandas with a name": (lambda p: _indexed("row").to_parquet(p), ["row"]),
    "pandas with levels": (
        lambda p: _indexed("row").set_index("c", append=True).reset_index("c", drop=True)
        .assign(k=1.0).set_index("k", append=True).to_parquet(p),
        ["row", "k"],
    ),
    "pandas with numbers of rows": (lambda p: frame(list("abc"), y=1.0).to_parquet(p), []),
    "dask": (
        lambda p: dd.from_pandas(frame(list("abc"), y=1.0), npartitions=2).to_parquet(p),
        ["__null_dask_index__"],
    ),
    "dask with a name": (
        lambda p: dd.from_pandas(_indexed("row"), npartitions=2).to_parquet(p),
        ["row"],
    ),
    "csv of pandas": (lambda p: _indexed(None).to_csv(p), [""]),
    "csv of pandas, twice": (
        lambda p: _indexed(None).reset_index(names="Unnamed: 0").to_csv(p),
        ["", "Unnamed: 0"],
    ),
    "csv of pandas, thrice": (
        lambda p: _indexed(None).reset_index(names="Unnamed: 0.1").to_csv(p, index=False),
        ["Unnamed: 0.1"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # Dask's, of the newest pandas
@pytest.mark.parametrize("case", INDEXED)
def test_an_index_is_not_a_feature(case, tmp_path):
    write, index = INDEXED[case]
    endings = {"csv": ".csv", "dask": "", "pandas": ".parquet"}
    address = tmp_path / f"t{endings[case.split()[0]]}"
    write(address)
    data = open_dataset(address, target="y")
    assert data.feature_names is not None
    assert {*data.feature_names} <= {*"abc"}
    assert [*data.left_out] == index
    assert describe(address, target="y").left_out == tuple(index)
    assert convert(address, tmp_path / "c.zarr", target="y").left_out == tuple(index)
    assert open_dataset(tmp_path / "c.zarr").feature_names == data.feature_names


@pytest.mark.parametrize("name", ["row", None])
def test_an_index_may_be_used_by_its_name(name, tmp_path):
    table = _indexed(name)
    table.to_parquet(tmp_path / "t.parquet")
    used = name or "__index_level_0__"
    as_target = open_dataset(tmp_path / "t.parquet", target=used)
    np.testing.assert_array_equal(as_target.y.compute()[:, 0], table.index)
    assert as_target.feature_names == ("a", "b", "c", "y")
    as_weight = open_dataset(tmp_path / "t.parquet", target="y", weight=used)
    np.testing.assert_array_equal(as_weight.sample_weight.compute(), table.index)
    as_feature = open_dataset(tmp_path / "t.parquet", target="y", features=[used, "a"])
    np.testing.assert_array_equal(as_feature.X.compute()[:, 0], table.index)


def test_columns_that_are_only_called_like_an_index_are_features(tmp_path):
    table = frame(("index", "row", "Unnamed: 1"), y=1.0)
    pq.write_table(pa.table(dict(table.items())), tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        data = open_dataset(tmp_path / name, target="y")
        assert data.feature_names == ("index", "row", "Unnamed: 1")
        assert data.left_out == ()


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"index_columns": 3}', b'{"index_columns": [3]}']
)
def test_damaged_notes_of_pandas_are_no_index(metadata, tmp_path):
    table = pa.table({"a": [1.0], "y": [2.0]}).replace_schema_metadata({b"pandas": metadata})
    pq.write_table(table, tmp_path / "t.parquet")
    assert open_dataset(tmp_path / "t.parquet", target="y").feature_names == ("a",)
