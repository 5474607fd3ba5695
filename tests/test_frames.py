"""Tables and arrays in memory, whatever holds them: the numbers NumPy has, or a refusal by name."""

from __future__ import annotations

import datetime
import decimal

import dask.bag as db
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import sparse
import xarray as xr
from oracles import same
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from altrelu_dist import AltReLURegressor
from altrelu_dist.errors import DataError
from altrelu_dist.frames import given
from altrelu_dist.metrics import evaluate

N = 60
DAY = datetime.date(2026, 1, 1)


def quick():
    return AltReLURegressor(3, method="damped", max_iter=3, random_state=0)


@pytest.fixture
def frame(rng):
    return pd.DataFrame(
        {"a": rng.standard_normal(N), "b": rng.integers(0, 9, N), "c": rng.random(N) > 0.5}
    )


@pytest.fixture
def target(frame):
    return pd.Series(np.abs(frame["a"]) - frame["b"], name="speed")


TABLES = {
    "polars": pl.from_pandas,
    "polars lazy": lambda frame: pl.from_pandas(frame).lazy(),
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "arrow batch": lambda frame: pa.RecordBatch.from_pandas(frame, preserve_index=False),
    "nullable": lambda frame: frame.convert_dtypes(),
    "arrow-backed": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "xarray": lambda frame: xr.Dataset({name: ("row", frame[name].to_numpy()) for name in frame}),
    "xarray on Dask": lambda frame: TABLES["xarray"](frame).chunk({"row": 17}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_as_good_as_one_of_pandas(frame, target, kind):
    make = TABLES[kind]
    X, y = make(frame), make(target.to_frame())
    model, expected = quick().fit(X, y), quick().fit(frame, target.to_frame())
    assert same(model.network_.hidden_weights, expected.network_.hidden_weights)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.network_.feature_names == ("a", "b", "c")
    assert model.network_.target_names == ("speed",)
    predicted = np.asarray(model.predict(X))
    assert predicted == pytest.approx(expected.predict(frame), rel=1e-12)
    assert predicted.shape == (N, 1)
    assert model.score(X, y) == pytest.approx(expected.score(frame, target))
    assert evaluate(model.network_, X, y)[0].mse == pytest.approx(
        evaluate(model.network_, frame, target)[0].mse
    )
    folded = model.partial_fit(X, y).network_.output_weights
    assert folded == pytest.approx(
        expected.partial_fit(frame, target.to_frame()).network_.output_weights
    )
    other = make(frame[["b", "a", "c"]])
    with pytest.raises(ValueError, match="same order"):
        model.predict(other)
    with pytest.raises(DataError, match="X has the columns b, a, c; the network takes a, b, c"):
        evaluate(model.network_, other, y)


@pytest.mark.parametrize(
    "make",
    [
        lambda y: pl.Series("speed", y),
        lambda y: pa.chunked_array([y.to_numpy()[:20], y.to_numpy()[20:]]),
        lambda y: pa.array(y.to_numpy()),
        lambda y: xr.DataArray(y.to_numpy(), dims="row"),
        lambda y: y.astype("Float64"),
        lambda y: y.astype(object),
        lambda y: np.ma.array(y.to_numpy()),
    ],
)
def test_a_column_is_as_good_as_a_series(frame, target, make):
    y = make(target)
    model = quick().fit(frame, y, sample_weight=make(target - target.min()))
    expected = quick().fit(frame, target, sample_weight=target - target.min())
    assert same(model.predict(frame), expected.predict(frame))
    assert model.network_.target_names in (("speed",), None)
    assert model.score(frame, y) == expected.score(frame, target)


def test_an_xarray_array_is_as_good_as_one_of_numpy(frame, target):
    X, y = frame.to_numpy(float), target.to_numpy()
    held, column = xr.DataArray(X, dims=("row", "column")), xr.DataArray(y, dims="row")
    expected = quick().fit(X, y).predict(X)
    for rows, of in ((held, column), (held.chunk({"row": 13}), column.chunk({"row": 20}))):
        model = quick().fit(rows, of)
        assert not hasattr(model, "feature_names_in_")
        assert np.asarray(model.predict(rows)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), [[1], [np.nan]]),
        (pd.DataFrame({"a": pd.array([True, None], dtype="boolean"), "b": [1, 2]}), None),
        (pd.DataFrame({"a": pd.Categorical([3, None])}), [[3], [np.nan]]),
        (pd.DataFrame({"a": [decimal.Decimal("1.5"), None]}), [[1.5], [np.nan]]),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 2.0])}), [[0], [2]]),
        (pl.DataFrame({"a": [1, None]}), [[1], [np.nan]]),
        (pl.DataFrame({"a": [None, None]}), [[np.nan], [np.nan]]),
        (pl.DataFrame({"a": [decimal.Decimal("1.5"), None]}), [[1.5], [np.nan]]),
        (pa.table({"a": pa.array([7, None]).dictionary_encode()}), [[7], [np.nan]]),
        (pl.Series("a", [1, None]), [1, np.nan]),
        (pa.array([1, None]), [1, np.nan]),
        (np.ma.array([[1], [2]], mask=[[0], [1]]), [[1], [np.nan]]),
        (np.ma.array([[1.0], [2.0]], mask=[[1], [0]], fill_value=-9), [[np.nan], [2]]),
        (
            xr.Dataset({"a": ("row", np.ma.array([1, 2], mask=[0, 1]))}),
            [[1], [np.nan]],
        ),
    ],
)
def test_what_is_missing_or_masked_is_never_a_number(data, expected):
    values = np.asarray(given(data, "X").values)
    if expected is None:
        expected = [[1, 1], [np.nan, 2]]
    np.testing.assert_array_equal(values, expected)


def test_float32_stays_float32_where_all_columns_allow_it():
    columns = {"a": np.float32([1.5, 2.5]), "b": np.int8([1, 2])}
    for table in (pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns)):
        assert given(table, "X").values.dtype == np.float32
    wide = {**columns, "b": np.int32([1, 2])}
    for table in (pd.DataFrame(wide), pl.DataFrame(wide), pa.table(wide)):
        assert given(table, "X").values.dtype == np.float64


def test_numbers_that_other_machines_lack_are_rounded_at_once():
    for data in (pd.DataFrame({"a": np.array([1, 2], "g")}), np.array([[1], [2]], "g")):
        assert quick()._features(given(data, "X"), reset=True).dtype == np.float64


BAD = [
    ("sold", pd.date_range("2026-01-01", periods=2), "datetime64", r"\.dt\.year"),
    ("sold", pd.date_range("2026-01-01", periods=2, tz="UTC"), "UTC", r"\.dt\.year"),
    ("sold", pd.to_timedelta([1, 2], unit="s"), "timedelta64", r"\.dt\.year"),
    ("sold", pd.period_range("2026-01", periods=2, freq="M"), "period", r"\.dt\.year"),
    ("town", ["Bern", "Oslo"], "str|string", "OneHotEncoder"),
    ("town", pd.Categorical(["Bern", "Oslo"]), "category", "OneHotEncoder"),
    ("town", pd.Series([1, "Oslo"], dtype=object), "object: mixed", "OneHotEncoder"),
    ("sold", pd.Series([DAY, DAY], dtype=object), "object: date", r"\.dt\.year"),
    ("z", np.array([1j, 2]), "complex128", "encode"),
]


@pytest.mark.parametrize(("name", "column", "dtype", "cure"), BAD)
def test_a_column_of_something_else_is_named(name, column, dtype, cure):
    frame = pd.DataFrame({"a": [1.0, 2.0], name: column})
    expected = rf"has a column that is not numbers: {name} \([^)]*({dtype}).*{cure}.*drop it"
    with pytest.raises(DataError, match="X " + expected) as caught:
        given(frame, "X", numbers=True)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
    with pytest.raises(DataError, match="y " + expected):
        quick().fit(frame[["a"]], frame[name])
    model = quick().fit(frame[["a"]].assign(**{name: [3.0, 4.0]}), [1.0, 2.0])
    if dtype == "timedelta64":  # is numbers, of seconds
        expected_of = model.predict(frame.assign(sold=[1.0, 2.0]))
        np.testing.assert_array_equal(model.predict(frame), expected_of)
    else:
        numbers = f"{name} holds .*; expected numbers, as in .* fit|holds 1 .int. and 'Oslo'"
        with pytest.raises(DataError, match=numbers):
            model.predict(frame)
        with pytest.raises(DataError, match=numbers):
            evaluate(model.network_, frame, [1.0, 2.0])
    with pytest.raises(DataError, match="y " + expected):
        model.score(frame[["a"]].assign(**{name: [3.0, 4.0]}), frame[name])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pl.Series(["Bern", "Oslo"]), "text"),
        (pl.Series(["Bern", "Oslo"], dtype=pl.Categorical), "text"),
        (pl.Series([DAY, DAY]), r"date32\[day\]"),
        (pl.Series([datetime.timedelta(1), None]), r"duration\[us\]"),
        (pl.Series([[1], [2]]), "list"),
    ],
)
def test_a_column_of_something_else_is_named_in_other_tables(column, kind):
    table = pl.DataFrame({"a": [1.0, 2.0], "odd": column})
    for data in (table, table.lazy(), table.to_arrow()):
        with pytest.raises(DataError, match=rf"X has a column that is not numbers: odd \(.*{kind}"):
            given(data, "X", numbers=True)
    with pytest.raises(DataError, match=rf"y has a column that is not numbers: odd \(.*{kind}"):
        quick().fit(table.select("a"), table["odd"])


def test_times_and_text_in_arrays_are_no_numbers():
    times = np.array([["2026-01-01"], ["NaT"]], "M8[D]")
    for data in (times, xr.DataArray(times), xr.DataArray(times).chunk()):
        with pytest.raises(DataError, match=r"X holds datetime64\[.*\], not numbers.*\.dt\.year"):
            quick().fit(data, [1.0, 2.0])
    with pytest.raises(DataError, match=r"y holds timedelta64\[s\], not numbers"):
        quick().fit([[1.0], [2.0]], np.array([1, 2], "m8[s]"))
    with pytest.raises(DataError, match="X holds <U4, not numbers; encode"):
        quick().fit(np.array([["Bern"], ["Oslo"]]), [1.0, 2.0])


def test_many_columns_of_something_else_are_counted():
    frame = pd.DataFrame({f"t{i}": ["Bern"] for i in range(7)})
    with pytest.raises(DataError, match=r"t0 \(.*t4 \([\w: ]+\) and 2 more; .*or drop them"):
        given(frame, "X", numbers=True)


def test_names_that_are_there_twice_are_refused(frame, target):
    double = pd.concat([frame, frame[["b"]]], axis=1)
    with pytest.raises(DataError, match="X has two columns named 'b'; rename or drop one"):
        quick().fit(double, target)
    arrow = pa.Table.from_arrays([pa.array([1.0, 2.0])] * 2, names=["b", "b"])
    with pytest.raises(DataError, match="y has two columns named 'b'"):
        quick().fit([[1.0], [2.0]], arrow)
    # Numbers for names are no names, as in scikit-learn.
    plain = pd.DataFrame(np.hstack([frame.to_numpy(float)] * 2), columns=[0, 1, 2] * 2)
    assert not hasattr(quick().fit(plain, target), "feature_names_in_")


def test_sparse_rows_are_refused_with_their_size_and_what_to_do():
    rows = scipy.sparse.eye(1000, format="csr")
    for data, method in (
        (rows, "toarray"),
        (scipy.sparse.csr_array(rows), "toarray"),
        (rows.tocoo(), "toarray"),
        (sparse.COO.from_scipy_sparse(rows), "todense"),
    ):
        with pytest.raises(DataError, match=rf"X is sparse .*\(1000, 1000\).*{method}.* 7\.6 MiB"):
            quick().fit(data, np.ones(1000))
        with pytest.raises(DataError, match="y is sparse"):
            quick().fit(np.ones((1000, 1)), data)
    towns = pd.DataFrame({"town": ["Bern", "Oslo", "Rome"] * 20})
    y = np.arange(60.0)
    with pytest.raises(DataError, match=r"X is sparse.*sparse_output=False.*sparse_threshold=0"):
        make_pipeline(OneHotEncoder(), quick()).fit(towns, y)
    dense = make_column_transformer((OneHotEncoder(), ["town"]), sparse_threshold=0)
    for encoder in (dense, OneHotEncoder(sparse_output=False)):
        assert make_pipeline(encoder, quick()).fit(towns, y).predict(towns).shape == (60,)


def test_an_xarray_dataset_that_is_no_table_is_refused():
    uneven = xr.Dataset({"a": ("row", [1.0, 2.0]), "b": (("row", "level"), [[1.0], [2.0]])})
    with pytest.raises(DataError, match=r"variable b has the dimensions .*expected variables over"):
        quick().fit(uneven, [1.0, 2.0])
    text = xr.Dataset({"a": ("row", [1.0, 2.0]), "town": ("row", ["Bern", "Oslo"])})
    with pytest.raises(DataError, match="X has a column that is not numbers: town"):
        quick().fit(text, [1.0, 2.0])


@pytest.mark.parametrize("name", ["scale_factor", "add_offset", "_FillValue", "missing_value"])
def test_xarray_data_that_was_not_decoded_is_refused(name):
    packed = xr.DataArray(np.int16([[1], [2]]), dims=("row", "column"), attrs={name: 2})
    with pytest.raises(DataError, match=rf"X was opened without decoding.*{name}.*decode_cf"):
        quick().fit(packed, [1.0, 2.0])
    with pytest.raises(DataError, match=r"X, a was opened without decoding"):
        quick().fit(xr.Dataset({"a": packed[:, 0]}), [1.0, 2.0])


def test_what_is_missing_is_named_by_column_and_row(frame, target):
    holes = frame.astype(float)
    holes.iloc[7, 1] = np.nan
    model = quick().fit(frame, target)
    for use in (model.fit, model.score, model.partial_fit):
        if use != model.fit:
            with pytest.raises(DataError, match=r"X contains NaN.*b \(1\).*row 7;.*SimpleImputer"):
                use(holes, target)
        bad = target.copy()
        bad[9] = np.inf
        with pytest.raises(DataError, match=r"y contains NaN.*in speed \(1\).*row 9; drop these"):
            use(frame, bad)
    for rows in (holes, holes.to_numpy()):
        assert np.isfinite(quick().fit(rows, target).predict(rows)).all()
    with pytest.raises(DataError, match=r"X contains NaN.*in b \(1\).*row 7;.*SimpleImputer"):
        model.predict(holes)
    with pytest.raises(DataError, match=r"X contains NaN.*in b \(1\).*row 7"):
        evaluate(model.network_, holes, target)


def test_what_is_no_array_is_refused():
    with pytest.raises(DataError, match=r"X is a dask\.bag\..*expected an array or a table"):
        quick().fit(db.from_sequence([1, 2]), [1.0, 2.0])
    with pytest.raises(DataError, match="requires y to be passed, but the target y is None"):
        quick().fit([[1.0], [2.0]], None)
