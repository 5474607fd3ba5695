"""Networks of tables with texts, times and missing values: the same whatever the table comes in."""

from __future__ import annotations

import json

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import quickly
from sklearn.preprocessing import StandardScaler

from altrelu_dist import AltReLUClassifier, AltReLURegressor, Network, evaluate
from altrelu_dist.encoding import Encoder, RawColumn, sketch_columns
from altrelu_dist.errors import DataError, ModelFileError, ParameterError
from altrelu_dist.moments.rows import Rows

NUMBER, TIME = RawColumn(), RawColumn("time")
SECONDS_A_DAY = 86_400
QUICK = {"random_state": 0, "max_iter": 1}
BOTH = pytest.mark.parametrize("n_hidden", [None, 4])


def table(n=400, seed=0):
    """A table of every kind, and a target that needs them."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    colour = rng.choice(["red", "green", "blue", "grey"], n, p=[0.4, 0.3, 0.2, 0.1])
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, n), unit="D")
    worth = pd.Series(colour).map({"red": 3.0, "green": 0.0, "blue": -2.0, "grey": 1.0})
    weekend = pd.Series(day).dt.day_of_week >= 5
    y = size + worth.to_numpy() + 2 * weekend.to_numpy() + 0.05 * rng.normal(size=n)
    frame = pd.DataFrame({"size": size, "colour": colour, "day": day, "old": rng.random(n) < 0.5})
    frame.loc[rng.random(n) < 0.1, "colour"] = None
    frame.loc[rng.random(n) < 0.1, "size"] = np.nan
    return frame, y


def encoder_of(X, raw, pieces=()):
    X = np.asarray(X, float)
    return Encoder.learn(sketch_columns(Rows(0, X, np.zeros((len(X), 1)))), pieces, raw)


@BOTH
def test_all_tables_give_the_same_network(n_hidden, tmp_path):
    frame, y = table()
    model = AltReLURegressor(n_hidden, **QUICK).fit(frame, y)
    predicted = model.predict(frame)
    assert model.score(frame, y) > 0.8
    lazy = dd.from_pandas(frame, npartitions=3)
    assert np.allclose(model.predict(lazy).compute(), predicted, rtol=1e-9)
    assert np.array_equal(model.predict(pl.from_pandas(frame)), predicted)
    assert np.array_equal(model.network_.predict(frame)[:, 0], predicted)
    target = dd.from_pandas(pd.Series(y, name="y"), npartitions=3)
    for other in (lazy, pl.from_pandas(frame), frame.astype({"colour": "category"})):
        again = AltReLURegressor(n_hidden, **QUICK).fit(other, target if other is lazy else y)
        assert np.array_equal(again.predict(frame), predicted)
    model.save(tmp_path / "m.zarr")
    saved = AltReLURegressor.load(tmp_path / "m.zarr")
    assert saved.network_.columns == model.network_.columns
    assert np.array_equal(saved.predict(frame), predicted)


def test_the_order_of_rows_does_not_choose_the_levels():
    frame, y = table()
    order = np.random.default_rng(1).permutation(len(y))
    one = AltReLURegressor(**QUICK).fit(frame, y).network_
    two = AltReLURegressor(**QUICK).fit(frame.iloc[order].reset_index(drop=True), y[order]).network_
    assert one.columns == two.columns
    assert one.encoder.names_out(one.feature_names) == two.encoder.names_out(two.feature_names)


def test_levels_never_seen_are_none_of_those_known():
    frame, y = table()
    model = AltReLURegressor(**QUICK).fit(frame, y)
    new = frame.head(3).assign(colour=["violet", "red", "violet"])
    encoded = model.network_.encoder.transform(model._known(new).values)
    names = model.network_.encoder.names_out(model.network_.feature_names, model.network_.columns)
    red = names.index("colour = red")
    assert encoded[0, red] == encoded[2, red] < 0 < encoded[1, red]
    assert np.isfinite(model.predict(new)).all()


@BOTH
def test_missing_values_of_a_column_that_lacked_none_are_refused(n_hidden):
    frame, y = table()
    model = AltReLURegressor(n_hidden, **QUICK).fit(frame, y)
    late = frame.assign(day=frame["day"].where(frame.index != 7))
    with pytest.raises(DataError, match=r"X contains NaN or infinity: 1 values, in day \(1\)"):
        model.predict(late)
    lazy = model.predict(dd.from_pandas(late, npartitions=2)).compute()
    assert np.flatnonzero(np.isnan(lazy)).tolist() == [7]


@BOTH
def test_infinite_features_and_missing_targets_are_refused(n_hidden):
    frame, y = table()
    endless = frame.assign(size=frame["size"].where(frame.index != 5, np.inf))
    model = AltReLURegressor(n_hidden, **QUICK)
    with pytest.raises(DataError, match=r"in size \(\d+\)"):
        model.fit(endless, y)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(frame, np.where(np.arange(len(y)) == 3, np.nan, y))


@BOTH
def test_arrays_may_have_gaps(n_hidden):
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(500, 3)), 0.1 * rng.normal(size=500)
    y = X[:, 0] + np.abs(X[:, 1]) + noise
    X[rng.random(X.shape) < 0.2] = np.nan
    y = np.where(np.isnan(X[:, 2]), y + 3, y)  # that it is missing says something
    model = AltReLURegressor(n_hidden, **QUICK).fit(X, y)
    again = AltReLURegressor(n_hidden, **QUICK).fit(da.from_array(X, chunks=(190, 3)), y)
    assert np.array_equal(again.predict(X), model.predict(X))
    filled = AltReLURegressor(n_hidden, **QUICK).fit(np.nan_to_num(X), y)
    assert model.score(X, y) > filled.score(np.nan_to_num(X), y)


def test_repeated_rows_are_weights():
    frame, y = table(200)
    times = np.random.default_rng(2).integers(1, 3, 200)  # the levels stay in their order
    repeated = frame.loc[np.repeat(frame.index, times)].reset_index(drop=True)
    weighted = AltReLURegressor(4, **QUICK).fit(frame, y, times)
    twice = AltReLURegressor(4, **QUICK).fit(repeated, np.repeat(y, times))
    assert np.allclose(weighted.predict(frame), twice.predict(frame), rtol=1e-6, atol=1e-8)


def test_codes_can_be_levels():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 9, 600)
    y = rng.normal(size=9)[code]
    frame = pd.DataFrame({"code": code, "x": rng.normal(size=600)})
    model = AltReLURegressor(4, **QUICK).fit(frame, y)
    levels = AltReLURegressor(4, categorical_features=["code"], **QUICK).fit(frame, y)
    assert levels.score(frame, y) > 0.9999 > model.score(frame, y)
    assert levels.score(frame.astype({"code": float}), y) > 0.9999  # 3.0 is the level 3
    with pytest.raises(DataError, match="no column kind; columns: code, x"):
        AltReLURegressor(categorical_features=["kind"]).fit(frame, y)
    with pytest.raises(ParameterError, match="expected a table with named columns"):
        AltReLURegressor(categorical_features=["code"]).fit(frame.to_numpy(), y)


def test_texts_that_name_the_rows_are_left_out():
    frame, y = table()
    named = frame.assign(id=[f"row {i}" for i in range(len(y))])
    said = []
    model = AltReLURegressor(**QUICK)
    model._remark = said.append
    model.fit(named, y)
    assert said == ["left out, since its texts name the rows: id"]
    assert np.array_equal(model.predict(named), model.predict(frame))


def test_rows_without_weight_may_lack_anything():
    frame, y = table()
    frame = frame.assign(day=frame["day"].where(frame.index != 7))
    weight = np.where(frame.index == 7, 0.0, 1.0)
    model = AltReLURegressor(**QUICK).fit(frame, y, weight)
    kept = frame.index != 7
    scores = evaluate(model.network_, frame, y, weight)
    (score,), (other,) = scores, evaluate(model.network_, frame[kept], y[kept])
    assert np.allclose([score.mse, score.mae, score.r2], [other.mse, other.mae, other.r2])
    with pytest.raises(DataError, match=r"in day \(1\), the first in row 7"):
        evaluate(model.network_, frame, y)


@BOTH
def test_further_rows_are_folded_in(n_hidden):
    frame, y = table(600)
    model = AltReLURegressor(n_hidden, **QUICK).fit(frame[:300], y[:300])
    before = model.score(frame[300:], y[300:] + 5)
    model.partial_fit(frame[300:].reset_index(drop=True), y[300:] + 5)
    assert model.score(frame[300:], y[300:] + 5) > before


def test_a_plain_network_of_a_table_is_not_gone_on_from():
    frame, y = table()
    model = AltReLURegressor(4, warm_start=True, **QUICK).fit(frame, y)
    with pytest.raises((DataError, ParameterError), match=r"encoded|goes on"):
        model.fit(frame, y)


def test_a_run_with_a_checkpoint_goes_on(tmp_path):
    frame, y = table()
    whole = AltReLURegressor(4, random_state=0).fit(frame, y)
    folder = tmp_path / "checkpoint"
    AltReLURegressor(4, random_state=0, checkpoint=folder).fit(frame, y)
    resumed = AltReLURegressor(4, random_state=0, checkpoint=folder, resume=True).fit(frame, y)
    assert np.array_equal(resumed.predict(frame), whole.predict(frame))
    changed = frame.assign(colour=frame["colour"].map({"red": "green", "green": "red"}))
    with pytest.raises(ValueError, match=r"columns was|other data"):
        AltReLURegressor(4, random_state=0, checkpoint=folder, resume=True).fit(changed, y)


def test_what_a_file_says_of_columns_is_checked(tmp_path):
    frame, y = table()
    network = AltReLURegressor(**QUICK).fit(frame, y).network_
    network.save(tmp_path / "m.zarr")
    path = tmp_path / "m.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"red"', '"rod"'))
    with pytest.raises(ModelFileError, match="checksum does not fit"):
        Network.load(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"kind": "colour"}, "unknown"),
        ({"kind": "number", "levels": ["a"]}, "not so many different texts"),
        ({"kind": "levels", "levels": ["a", 3]}, "not so many different texts"),
        ({"kind": "levels", "levels": ["a", "b", "a"]}, "level 'a' twice"),
        ("number", "unknown"),
    ],
)
def test_columns_that_cannot_be_are_refused(found, expected):
    with pytest.raises(ValueError, match=expected):
        RawColumn.from_json(found)


def test_numbers_are_standardised_and_gaps_are_their_mean():
    X = np.array([[1.0, 5], [2, np.nan], [4, 7], [np.nan, 9]])
    out = encoder_of(X, (NUMBER, NUMBER)).transform(X)
    standard = StandardScaler().fit_transform(X)
    indicators = StandardScaler().fit_transform(np.isnan(X))
    assert np.allclose(out, np.hstack([np.nan_to_num(standard), indicators]))


def test_indicators_of_levels_are_standardised_but_for_rare_ones():
    codes = np.array([0.0] * 70 + [1] * 29 + [2])
    raw = (RawColumn("levels", ("a", "b", "c")),)
    encoder = encoder_of(codes[:, None], raw)
    out = encoder.transform(codes[:, None])
    one_hot = (codes[:, None] == np.arange(3)).astype(float)
    standard = StandardScaler().fit_transform(one_hot)
    assert np.allclose(out[:, :2], standard[:, :2])
    assert np.allclose(out[:, 2], 6 * (one_hot[:, 2] - 0.01))  # 1 % : at most 6
    unseen = encoder.transform(np.array([[-1.0]]))[0]
    assert np.allclose(unseen, [out[-1, 0], out[-1, 1], out[0, 2]])


def test_pieces_vary_as_much_as_numbers_and_indicators_of_levels(rng):
    X = np.column_stack(
        [rng.exponential(size=300), rng.choice(5, 300, p=[0.5, 0.3, 0.15, 0.04, 0.01])]
    )
    raw = (NUMBER, RawColumn("levels", tuple("abcde")))
    encoder = encoder_of(X, raw, (8, 16))
    out = encoder.transform(X)
    variances = [out[:, encoder.columns_of(block)].var(axis=0).sum() for block in range(4)]
    assert variances[1] == pytest.approx(variances[0] + variances[3])
    assert variances[2] == pytest.approx(variances[1])


def test_times_say_where_they_are_in_day_week_and_year():
    days = np.arange(0, 3 * 365) * float(SECONDS_A_DAY)
    encoder = encoder_of(days[:, None], (TIME,))
    out = encoder.transform(days[:, None])
    names = encoder.names_out(["at"])
    assert not [name for name in names if name.endswith("day")]  # all at midnight
    week = out[:, [i for i, name in enumerate(names) if name.endswith("week")]]
    assert np.allclose(week[7:], week[:-7], atol=1e-6)
    # Three harmonics are all that seven days can say: any day is a linear function of them.
    monday = (np.arange(len(days)) % 7 == 4).astype(float)
    A = np.column_stack([week, np.ones(len(days))])
    assert np.allclose(A @ np.linalg.lstsq(A, monday, rcond=None)[0], monday, atol=1e-6)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6)),
            st.one_of(st.none(), st.integers(-1, 5)),
            st.one_of(st.none(), st.integers(0, 10**9)),
        ),
        min_size=2,
        max_size=40,
    )
)
def test_encoded_training_rows_are_finite_and_centred(rows):
    X = np.array([[np.nan if v is None else float(v) for v in row] for row in rows])
    raw = (NUMBER, RawColumn("levels", tuple("abcdef")), TIME)
    encoder = encoder_of(X, raw, (4,))
    out = encoder.transform(X)
    assert np.isfinite(out).all()
    assert Encoder.from_arrays(encoder.to_arrays()) == encoder
    standard, gaps = encoder.columns_of(0), encoder.blocks[-1]
    assert (np.abs(out[:, standard].mean(axis=0)) < 1e-6).all()
    assert len(set(encoder.names_out(None, raw))) == encoder.n_columns == out.shape[1]
    assert len(gaps.sources) == gaps.n_columns


def test_a_column_that_is_all_missing_says_nothing():
    X = np.column_stack([np.arange(50.0), np.full(50, np.nan)])
    model = AltReLURegressor(**QUICK).fit(X, X[:, 0])
    assert model.network_.encoder.names_out()[0] == "x0"
    assert all(name.startswith("x0") for name in model.network_.encoder.names_out())
    other = np.column_stack([X[:, 0], np.arange(50.0)])
    assert np.array_equal(model.predict(other), model.predict(X))


def test_info_of_a_network_says_what_became_of_each_column(tmp_path):
    frame, y = table()
    AltReLURegressor(**QUICK).fit(frame.assign(same=1.0), y).save(tmp_path / "m.zarr")
    told = json.loads(quickly("info", tmp_path / "m.zarr", "--json"))
    encoded = {column["column"]: column["encoded"] for column in told["columns"]}
    assert encoded["same"] == "nothing"
    assert encoded["colour"] == "4 indicators of levels, an indicator of missing values"
    assert encoded["day"].endswith("12 waves of day, week and year")
    assert told["hidden"] >= told["working"] > 0
    plain = quickly("info", tmp_path / "m.zarr")
    assert "trained with max_iter=1, random_state=0" in plain
    assert "4 levels: red, green, blue, ..." in plain
    (tmp_path / "m.zarr" / "hidden_bias" / "c" / "0").write_bytes(b"")
    assert "is damaged" in quickly("info", tmp_path / "m.zarr", code=1)


def test_a_score_on_dask_is_that_in_memory():
    frame, y = table()
    model = AltReLURegressor(4, **QUICK).fit(frame, y)
    target = dd.from_pandas(pd.Series(y), npartitions=3)
    lazy = dd.from_pandas(frame, npartitions=3)
    assert model.score(lazy, target) == pytest.approx(model.score(frame, y))


@pytest.mark.parametrize("numbers", [False, True])
def test_a_network_refuses_columns_in_another_order(numbers):
    frame, y = table()
    frame = frame[["old", "size"]].fillna(0).astype(float) if numbers else frame
    network = AltReLURegressor(4, **QUICK).fit(frame, y).network_
    with pytest.raises(DataError, match=r"the network takes .*, in this order"):
        network.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize("hidden", [[], ["--hidden", "4", "--method", "alternating"]])
def test_a_row_without_a_target_may_lack_what_no_other_row_lacks(tmp_path, hidden):
    frame, y = table(200)
    frame = frame.assign(whole=np.arange(200.0), y=y)
    frame.loc[5, ["whole", "y"]] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "m.zarr"
    words = ["train", tmp_path / "t.csv", "--target", "y", "--out", out, "--max-iter", "1", *hidden]
    quickly(*words)
    scores = json.loads(quickly("evaluate", out, tmp_path / "t.csv", "--target", "y", "--json"))
    assert scores["rows"] == 199
    kept = frame.drop(index=5)
    expected = AltReLURegressor.load(out).score(kept.drop(columns="y"), kept["y"])
    assert scores["r2"] == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_is_of_columns_with_their_levels(tmp_path):
    code = np.repeat([0, 1, 2], [30, 20, 10])  # as numbers, what they are as places of levels
    frame, y = pd.DataFrame({"code": code, "x": np.arange(60.0)}), np.arange(60.0) + code
    folder = tmp_path / "checkpoint"
    AltReLURegressor(2, checkpoint=folder, **QUICK).fit(frame, y)
    model = AltReLURegressor(
        2, checkpoint=folder, resume=True, categorical_features=["code"], **QUICK
    )
    with pytest.raises(ValueError, match="columns was None"):
        model.fit(frame, y)


def test_the_mean_takes_what_it_was_fitted_on():
    frame, _ = table()
    model = AltReLURegressor(**QUICK).fit(frame, np.full(len(frame), 3.0))
    assert (model.predict(frame.assign(day=pd.NaT)) == 3).all()


def test_a_table_of_nothing_but_names_of_rows_is_refused():
    ids = pd.DataFrame({"id": [f"row {i}" for i in range(100)]})
    with pytest.raises(DataError, match="X has no feature: left out, since its texts"):
        AltReLURegressor().fit(ids, np.arange(100.0))
    numbered = pd.DataFrame({0: np.arange(100.0), 1: ids["id"]})
    with pytest.raises(DataError, match="X needs names of columns that are texts"):
        AltReLURegressor().fit(numbered, np.arange(100.0))


def test_the_command_says_that_a_network_tells_classes_apart(tmp_path):
    frame, y = table(200)
    model = AltReLUClassifier(**QUICK).fit(frame, np.where(y > 0, "high", "low"))
    model.save(tmp_path / "m.zarr")
    assert "has 2 classes: high, low" in quickly("info", tmp_path / "m.zarr")
    labels = np.where(y > 0, "high", "low")
    frame.assign(label=labels).to_csv(tmp_path / "t.csv", index=False)
    words = ["evaluate", tmp_path / "m.zarr", tmp_path / "t.csv", "--target", "label", "--json"]
    found = json.loads(quickly(*words))
    assert found["accuracy"] == (model.predict(frame) == labels).mean()
