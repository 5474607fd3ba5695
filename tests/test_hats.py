"""Rows as hats are the encoded rows, their zeros left out; members of them are the same."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from encoded_tables import odd_tables
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from altrelu_dist import AltReLURegressor, fitting
from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.committee.members import Group, GroupDescent, by_fold, by_member, out_of_fold
from altrelu_dist.committee.run import Committee
from altrelu_dist.committee.settings import COMMITTEE, Kind
from altrelu_dist.committee.tiles import EncodedTiles, Encoding, with_hats
from altrelu_dist.encoding import Encoder, sketch_columns
from altrelu_dist.moments.rows import Block, Rows, Scaler

SCALER = Scaler(np.dtype(float), np.zeros(4), np.ones(4), np.zeros(1), 1.0, 1.0)


def table(n, gaps=0.0, seed=0):
    """Columns of continuous and of repeated values, and one of two."""
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal(n), rng.integers(0, 90, n), rng.exponential(size=n)
    X = np.column_stack([*columns, rng.integers(0, 2, n)])
    X[rng.random(X.shape) < gaps] = np.nan
    return X


def encoded(X, *, values=False, weight=None, pieces=2):
    """An encoding as it is and as hats, and the rows."""
    rows = Rows(0, X, np.ones((len(X), 1)), weight)
    sketch = sketch_columns(rows)
    encoder = Encoder.learn(sketch, (16, 256), repeated=[1], most_values=80)
    encoder = encoder.take(encoder.with_pieces(pieces, 3 if values else pieces))
    dense = Encoding(encoder, SCALER, with_hats(encoder) if values else None)
    return dense, dense.sparse(), rows


@pytest.mark.parametrize("gaps", [0.0, 0.2], ids=["whole", "gaps"])
@pytest.mark.parametrize("values", [False, True], ids=["pieces", "values"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_products_with_hats_are_those_with_dense_rows(gaps, values, weighted):
    rng = np.random.default_rng(1)
    X = table(700, gaps)
    weight = rng.uniform(0.1, 3, len(X)) if weighted else None
    dense, sparse, rows = encoded(X, values=values, weight=weight)
    assert sparse.form is not None
    assert sparse.width < dense.n_columns
    assert sparse.row_bytes < dense.row_bytes
    expected, found = dense(rows), sparse(rows)
    order = np.append(sparse.form.order, dense.n_columns - 1)
    assert sorted(order) == list(range(dense.n_columns))
    W = rng.standard_normal((dense.n_columns, 6)).astype(np.float32)
    S = rng.standard_normal((len(X), 6)).astype(np.float32)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(np.asarray(found.x), expected.x[:, order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.x @ W[order], expected.x @ W, **close)
    np.testing.assert_allclose(found.x.T @ S, (expected.x.T @ S)[order], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.root, expected.root, rtol=1e-6)
    np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_allclose(sparse.hidden_weights(W[order]), dense.hidden_weights(W))


@given(
    X=odd_tables(columns=4),
    far=st.floats(-1e9, 1e9),
)
@settings(max_examples=60, deadline=None)
def test_hats_of_any_rows_are_their_pieces(X, far):
    rows = Rows(0, X, np.zeros((len(X), 1)), None)
    encoder = Encoder.learn(sketch_columns(rows), (64,))
    dense = Encoding(encoder, SCALER)
    sparse = dense.sparse()
    assume(sparse is not dense)
    new = Rows(0, np.vstack([X, np.full((1, 4), far)]), np.zeros((len(X) + 1, 1)), None)
    order = np.append(sparse.form.order, dense.n_columns - 1)
    np.testing.assert_allclose(
        np.asarray(sparse(new).x), dense(new).x[:, order], rtol=1e-5, atol=1e-5
    )


def test_a_value_that_no_training_row_lacked_stays_missing():
    X = table(300)
    _, sparse, _ = encoded(X)
    X[0, 0] = np.nan
    found = np.asarray(sparse(Rows(0, X, np.ones((300, 1)), None)).x)
    assert np.isnan(found[0]).any()
    assert np.isfinite(found[1:]).all()


def test_few_pieces_of_many_columns_stay_dense():
    dense, found, _ = encoded(table(300), pieces=1)
    assert found is dense


def test_rows_of_folds_are_the_same_as_hats():
    dense, sparse, rows = encoded(table(250))
    tiles = [rows.part(0, 90), rows.part(90, 250)]
    order = np.append(sparse.form.order, dense.n_columns - 1)
    expected = by_fold([(0, dense(tiles[0])), (90, dense(tiles[1]))], 3)
    found = by_fold([(0, sparse(tiles[0])), (90, sparse(tiles[1]))], 3)
    assert [len(each.x) for each in found] == [len(each.x) for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Block)
        np.testing.assert_allclose(np.asarray(one.x), other.x[:, order], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(one.y, other.y)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_committee_of_hats_says_what_one_of_dense_rows_says(weighted, monkeypatch):
    rng = np.random.default_rng(3)
    X = table(400, gaps=0.05)
    y = np.nan_to_num(X[:, 0]) ** 2 + np.sin(X[:, 1]) * np.isfinite(X[:, 1])
    y = np.where(np.isfinite(y), y, 0) + 0.05 * rng.standard_normal(400)
    weight = rng.uniform(0.2, 2, 400) if weighted else None
    settings = replace(COMMITTEE, kinds=(Kind("fine", 2),), racing=(1,), few_steps=30, n_folds=3)
    found = []
    for sparse in (Encoding.sparse, lambda self: self):
        forms = []

        def watched(self, sparse=sparse, forms=forms):
            forms.append(sparse(self).form)
            return sparse(self)

        monkeypatch.setattr(Encoding, "sparse", watched)
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "Committee", partial(Committee, settings=settings))
            model = AltReLURegressor(random_state=0).fit(X, y, sample_weight=weight)
        found.append((model.predict(X), [form is not None for form in forms]))
    (hats, as_hats), (dense, as_dense) = found
    assert any(as_hats)
    assert not any(as_dense)
    np.testing.assert_allclose(hats, dense, rtol=0, atol=1e-3 * np.ptp(y))


def committee_of_hats(**options):
    """A quick run with members of fine pieces, on rows with gaps; its network."""
    X = table(300, gaps=0.1, seed=5)
    y = np.nan_to_num(X[:, 0]) * np.nan_to_num(X[:, 2])  # no line of pieces has products
    return AltReLURegressor(random_state=0, max_iter=2, **options).fit(X, y)


@pytest.fixture
def few_kinds(monkeypatch):
    settings = replace(COMMITTEE, kinds=(Kind("fine", 2),), racing=(1, 1), few_steps=20, n_folds=3)
    monkeypatch.setattr(fitting, "Committee", partial(Committee, settings=settings))


@pytest.mark.usefixtures("few_kinds")
@pytest.mark.parametrize("older", [False, True], ids=["now", "of before there were hats"])
@pytest.mark.parametrize("cut", [6, 9])
def test_a_run_that_was_cut_goes_on_with_the_same_bits(cut, older, monkeypatch, tmp_path):
    step = Journal.step

    def without_hats(self, name, compute, *, required=True):
        return False if name == "hats" else step(self, name, compute, required=required)

    seen = []

    def stop(state):
        seen.append(state)
        return len(seen) >= cut

    kept = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    with monkeypatch.context() as patch:
        if older:
            patch.setattr(Journal, "step", without_hats)
        whole = committee_of_hats()
        assert whole.network_.n_hidden > 20  # not of lines alone
        expected = whole.predict(table(50, seed=6))
        stopped = committee_of_hats(callback=stop, **kept)
        assert stopped.stop_reason_ == "interrupted"
    found = committee_of_hats(resume=True, **kept).predict(table(50, seed=6))
    np.testing.assert_array_equal(found, expected)


def test_rows_as_hats_can_be_sent():
    rng = np.random.default_rng(2)
    dense, sparse, rows = encoded(table(80, gaps=0.1), values=True)
    block = sparse(rows)
    W = rng.standard_normal((dense.n_columns, 5)).astype(np.float32)
    expected = block.x @ W
    sent = pickle.loads(pickle.dumps(block))
    assert type(sent) is type(block)
    np.testing.assert_array_equal(sent.x @ W, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sparse))(rows).x @ W, expected)


def test_rows_without_zeros_have_no_factors():
    dense, sparse, _ = encoded(table(80))
    with pytest.raises(ValueError, match="factors"):
        replace(sparse, factors=np.ones(dense.encoder.n_columns))
    factored = replace(dense, factors=np.ones(dense.encoder.n_columns))
    assert factored.sparse() is factored


@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_steps_on_hats_are_those_on_dense_rows(q, dropout):
    dense, sparse, rows = encoded(table(240, gaps=0.1))
    y = np.nan_to_num(rows.X[:, :1]) ** 2 @ np.ones((1, q))
    scaler = replace(SCALER, target_center=np.zeros(q))
    order = np.append(sparse.form.order, dense.n_columns - 1)
    found = []
    for encoding in (dense, sparse):
        tiles = EncodedTiles(
            rows._replace(y=y), replace(encoding, scaler=scaler), 60, 0, "all", iter
        )
        descent = GroupDescent(
            tiles=tiles,
            judged=by_fold(list(tiles.all()), 3),
            n_folds=3,
            first=0,
            alpha=1e-3,
            slope=0.1,
            dropout=dropout,
            settings=COMMITTEE,
            steps=12,
            seed=4,
        )
        rng = np.random.default_rng(7)
        W = rng.standard_normal((dense.n_columns, 3 * 5)).astype(np.float32) / 20
        V, c = rng.standard_normal((3, 5, q)), np.zeros((3, q))
        begin = W if encoding is dense else W[order]
        state = descent.init(Group(begin, V.astype(np.float32), c.astype(np.float32)))
        while not descent.done(state):
            state = descent.step(state)
        said = out_of_fold(list(tiles.all()), state.group, 0.1)
        every = by_member(list(tiles.all()), state.group, 0.1)
        found.append((state.losses, said, every))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
