"""Other losses than the square: their parabolas, and what is fitted by them, against references."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from oracles import same
from scipy.optimize import minimize
from sklearn.linear_model import HuberRegressor, PoissonRegressor, QuantileRegressor
from sklearn.metrics import d2_pinball_score, mean_pinball_loss, mean_poisson_deviance
from sklearn.utils.estimator_checks import parametrize_with_checks

from altrelu_dist import AltReLURegressor
from altrelu_dist.committee import line as lines_module
from altrelu_dist.committee.line import lines_of_loss, lines_of_loss_of_few
from altrelu_dist.committee.members import GroupDescent, by_fold, hinges
from altrelu_dist.committee.settings import COMMITTEE
from altrelu_dist.committee.stacking import combined, stacked_by_loss
from altrelu_dist.errors import DataError, ParameterError
from altrelu_dist.losses import Huber, Loss, Poisson, Quantile
from altrelu_dist.moments.rows import Block

EVERY = [Huber((0.7,)), Quantile((0.8,), (0.05,)), Poisson()]


def value(loss, f, y):
    """The loss that `derivatives` is of: a quantile's with its kink rounded."""
    plain = loss.value(f, y)
    if isinstance(loss, Quantile):
        (width,) = loss.width
        plain = plain - width / 2 * np.log(width + np.abs(f - y))
    return plain


def made(n=400, seed=0, kind="normal"):
    """Rows of a curved truth with its errors, or counts of a mean."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    mean = np.abs(X[:, 0]) + 0.5 * X[:, 1]
    if kind == "counts":
        return X, rng.poisson(np.exp(0.8 * mean)).astype(float)
    if kind == "tails":
        return X, mean + 0.3 * rng.standard_t(1.2, n)
    return X, mean + 0.3 * rng.standard_normal(n)


def quick(n_hidden=None, **parameters):
    usual = {"random_state": 0, "max_iter": 1}
    if n_hidden is not None:
        usual |= {"method": "damped", "max_iter": 8}
    return AltReLURegressor(n_hidden, **(usual | parameters))


# --- one loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.name)
def test_the_gradient_is_that_of_the_loss(loss):
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((2, 500, 1))
    y = np.abs(y)
    gradient, curvature = loss.derivatives(f, y)
    away = np.abs(f - y) > 1e-3
    numeric = (value(loss, f + 1e-6, y) - value(loss, f - 1e-6, y)) / 2e-6
    np.testing.assert_allclose(gradient[away], numeric[away], atol=1e-4)
    assert (curvature > 0).all()
    assert (loss.value(f, y) >= 0).all()


@pytest.mark.parametrize("loss", EVERY[:2], ids=lambda loss: loss.name)
def test_the_parabola_lies_nowhere_below_the_loss(loss):
    rng = np.random.default_rng(1)
    f, y, other = 3 * rng.standard_normal((3, 20_000, 1))
    gradient, curvature = loss.derivatives(f, y)
    step = other - f
    parabola = value(loss, f, y) + gradient * step + curvature * step**2 / 2
    assert (parabola >= value(loss, other, y) - 1e-9).all()


def test_the_losses_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    f, y = rng.standard_normal(100), rng.poisson(2, 100).astype(float)
    found = Poisson().value(f[:, None], y[:, None]).mean()
    assert found == pytest.approx(mean_poisson_deviance(y, np.exp(f)))
    found = Quantile((0.3,)).value(f[:, None], y[:, None]).mean()
    assert found == pytest.approx(mean_pinball_loss(y, f, alpha=0.3))


# --- the line, the members and the weights of a committee -----------------------------------------


def linear(n=600, kind="normal"):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, 3))
    mean = X @ [0.5, -0.3, 0.2] + 0.2
    y = rng.poisson(np.exp(mean)) if kind == "counts" else mean + rng.standard_t(2, n)
    return X, y.astype(float)


def reference(kind, X, y):
    """The loss and the coefficients of scikit-learn's linear model, the constant last."""
    if kind == "poisson":
        fitted, loss = PoissonRegressor(alpha=1e-9, tol=1e-9).fit(X, y), Poisson()
    elif kind == "quantile":
        fitted = QuantileRegressor(quantile=0.7, alpha=0.0).fit(X, y)
        loss = Quantile((0.7,), (1e-3,))
    else:
        fitted = HuberRegressor(alpha=0.0, tol=1e-8).fit(X, y)
        loss = Huber((fitted.epsilon * fitted.scale_,))
    return loss, np.append(fitted.coef_, fitted.intercept_)


@pytest.mark.parametrize("kind", ["huber", "quantile", "poisson"])
def test_each_line_is_that_of_scikit_learn_on_the_rows_of_the_other_folds(kind, monkeypatch):
    monkeypatch.setattr(lines_module, "_ENOUGH", 1e-12)
    monkeypatch.setattr(lines_module, "MOST_STEPS", 300)
    monkeypatch.setattr(lines_module, "_PENALTIES", np.array([1e-9]))
    X, y = linear(kind="counts" if kind == "poisson" else "normal")
    others = np.arange(len(X)) % 3 != 1
    loss, expected = reference(kind, X[others], y[others])
    x = np.hstack([X, np.ones((len(X), 1))])
    tiles = [(0, Block(x[:250], y[:250, None])), (250, Block(x[250:], y[250:, None]))]
    found = lines_of_loss(lambda: tiles, 3, loss, np.zeros(1))
    np.testing.assert_allclose(found[1, :, 0], expected, atol=0.02 if kind == "quantile" else 1e-3)
    # Of weights: a row of weight 2 is two rows.
    twice = np.where(np.arange(len(X)) < 100, 2.0, 1.0)
    root = np.sqrt(twice)[:, None]
    weighted = lines_of_loss(
        lambda: [(0, Block(x * root, y[:, None] * root))], 3, loss, np.zeros(1)
    )
    doubled = np.repeat(np.arange(len(X)), twice.astype(int))
    own = doubled % 3 != 1
    system = minimize(
        lambda line: value(loss, (x[doubled[own]] @ line)[:, None], y[doubled[own], None]).sum(),
        expected,
        method="BFGS",
    )
    np.testing.assert_allclose(weighted[1, :, 0], system.x, atol=2e-3)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.name)
def test_every_step_of_the_lines_lowers_their_loss(loss, monkeypatch):
    X, y = linear(kind="counts")
    x = np.hstack([X, np.ones((len(X), 1))])
    seen = []
    accept = lines_module._derivatives

    def noting(tiles, lines, by):
        seen.append(lines_module._penalised(tiles, lines, by, ridge))
        return accept(tiles, lines, by)

    ridge = 0.5 * np.append(np.ones(3), 0.0)
    monkeypatch.setattr(lines_module, "_derivatives", noting)
    begin = np.zeros((4, 4, 1)) + 0.3
    tiles = [(0, Block(x, y[:, None]))]
    lines_module._descended(lambda: tiles, begin, begin + 9, loss, 0.5, iter)
    assert len(seen) > 2
    assert (np.diff(seen, axis=0) <= 0).all()


def test_the_lines_of_few_rows_are_those_of_all_columns(monkeypatch):
    monkeypatch.setattr(lines_module, "_ENOUGH", 1e-12)
    rng = np.random.default_rng(4)
    x = np.hstack([rng.standard_normal((20, 30)), np.ones((20, 1))])
    tiles = [(0, Block(x, rng.poisson(2, (20, 1)).astype(float)))]
    one, other = (
        by(lambda: tiles, 2, Poisson(), np.zeros(1)) for by in (lines_of_loss, lines_of_loss_of_few)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


class Squares(Loss):
    """Half the square, as a loss."""

    def value(self, f, y):
        return (f - y) ** 2 / 2

    def derivatives(self, f, y):
        return f - y, np.ones_like(f)

    def constant(self, y, weight):
        return np.average(y, axis=0, weights=weight)

    def unit(self, scaler):
        return scaler.target_scale**2


class Tiles:
    def __init__(self, X, y, rows=100, weight=None):
        root = np.ones((len(X), 1)) if weight is None else np.sqrt(weight)[:, None]
        x = np.hstack([X, np.ones((len(X), 1))]) * root
        self.starts = list(range(0, len(X) + 1, rows))
        self.blocks = [
            (at, Block(*(v[at : at + rows].astype(np.float32) for v in (x, y * root))))
            for at in self.starts[:-1]
        ]

    def __getitem__(self, number):
        return self.blocks[number][1]


def descent(tiles, loss, steps=60):
    begin = hinges(tiles.blocks, 4, 8, 0.0, 0)
    judged = by_fold(tiles.blocks, 4)
    made = GroupDescent(tiles, judged, 4, 0, 0.0, 0.0, 0.0, COMMITTEE, steps, 0, loss)
    state = first = made.init(begin)
    while not made.done(state):
        state = made.step(state)
    return first, state


def test_members_of_the_square_as_a_loss_are_those_of_least_squares():
    X, y = made()
    y = np.stack([y, X[:, 2]], axis=1)
    tiles = Tiles(X, y, weight=np.random.default_rng(5).integers(1, 4, len(X)))
    (_, plain), (_, other) = descent(tiles, None), descent(tiles, Squares())
    for one, two in zip(plain.group, other.group, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(plain.losses, 2 * other.losses, rtol=1e-4)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.name)
def test_members_end_with_less_of_their_loss(loss):
    X, y = made(kind="counts")
    first, last = descent(Tiles(X, y[:, None] / y.mean()), loss)
    assert (last.losses <= first.losses).all()
    assert last.losses.mean() < 0.97 * first.losses.mean()


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.name)
def test_weights_are_the_non_negative_ones_of_least_loss(loss):
    rng = np.random.default_rng(6)
    f = 0.5 * rng.standard_normal((400, 1))
    y = rng.poisson(np.exp(f)).astype(float)
    said = [f + 0.3 * rng.standard_normal((400, 1)) for _ in range(2)] + [-f]
    weight = rng.integers(1, 3, 400).astype(float)
    root = np.sqrt(weight)
    rows = [each * root[:, None] for each in said]
    stack = stacked_by_loss(rows, y * root[:, None], root, [True] * 3, 3, loss)

    def total(weights):
        f = sum(w * p for w, p in zip(weights, said, strict=True))
        return float(weight @ value(loss, f, y)[:, 0])

    assert (stack.weights >= 0).all()
    best = minimize(total, [0.5, 0.5, 0.0], bounds=[(0, None)] * 3)
    found = float(weight @ value(loss, combined(rows, stack) / root[:, None], y)[:, 0])
    assert found <= best.fun + 2e-3 * abs(best.fun)


# --- what a fit gives -------------------------------------------------------------------------


@pytest.mark.parametrize("n_hidden", [None, 8])
def test_means_of_counts(n_hidden):
    X, y = made(1200, kind="counts")
    train, new = slice(400), slice(400, None)
    model = quick(n_hidden, loss="poisson").fit(X[train], y[train])
    predicted = model.predict(X[new])
    assert (predicted > 0).all()
    assert same(predicted, np.exp(model.network_.predict(X[new])[:, 0]))
    found = mean_poisson_deviance(y[new], predicted)
    truth = mean_poisson_deviance(y[new], np.exp(0.8 * (np.abs(X[new, 0]) + 0.5 * X[new, 1])))
    assert found < 1.25 * truth
    assert 0.3 < model.score(X[new], y[new]) < 1
    if n_hidden is None:
        assert model.expected_loss_ == pytest.approx(found, rel=0.2)
        assert not hasattr(model, "expected_r2_")


@pytest.mark.parametrize("n_hidden", [None, 8])
def test_heavy_tails_move_huber_less(n_hidden):
    X, y = made(250, kind="tails")
    truth = np.abs(X[:, 0]) + 0.5 * X[:, 1]
    errors = [
        np.abs(quick(n_hidden, loss=loss).fit(X, y).predict(X) - truth).mean()
        for loss in ("huber", "squared_error")
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("n_hidden", [None, 4])
def test_quantiles_cover_and_do_not_cross(n_hidden):
    X, y = made(1300, seed=7)
    train, new = slice(400), slice(400, None)
    levels = [0.1, 0.5, 0.9]
    model = quick(n_hidden, loss="quantile", quantile=levels).fit(X[train], y[train])
    predicted = model.predict(X[new])
    assert predicted.shape == (900, 3)
    assert (np.diff(predicted, axis=1) >= 0).all()
    covered = (y[new, None] <= predicted).mean(axis=0)
    np.testing.assert_allclose(covered, levels, atol=0.05)
    for level, column in zip(levels, predicted.T, strict=True):
        assert d2_pinball_score(y[new], column, alpha=level) > 0.2
    with pytest.raises(ParameterError, match="several levels"):
        model.score(X, y)
    lazy = model.predict(da.from_array(X[new], chunks=(100, 3)))
    np.testing.assert_allclose(lazy.compute(), predicted, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "kind"), [("huber", "tails"), ("quantile", "normal"), ("poisson", "counts")]
)
def test_every_fit_of_a_plain_network_lowers_the_loss(loss, kind):
    X, y = made(kind=kind)
    model = quick(6, loss=loss).fit(X, y)
    fits = [entry["loss"] for entry in model.history_ if "fit" in entry]
    assert len(fits) > 1
    assert (np.diff(fits) < 0).all()
    if loss == "poisson":
        assert fits[-1] == pytest.approx(mean_poisson_deviance(y, model.predict(X)))
    if loss == "quantile":
        assert fits[-1] == pytest.approx(mean_pinball_loss(y, model.predict(X)))


def test_two_neurons_are_at_least_as_good_as_the_linear_model():
    X, y = linear(kind="counts")
    model = quick(2, method="kronecker", loss="poisson").fit(X, y)
    other = PoissonRegressor(alpha=0).fit(X, y)
    assert mean_poisson_deviance(y, model.predict(X)) <= 1.001 * mean_poisson_deviance(
        y, other.predict(X)
    )


@pytest.mark.parametrize("n_hidden", [None, 4])
def test_early_stopping_judges_by_the_loss_of_rows_held_out(n_hidden):
    X, y = made(kind="counts")
    model = quick(n_hidden, loss="poisson", early_stopping=True).fit(X, y)
    if n_hidden is not None:
        assert model.stop_reason_ == "early_stopping"
        least = [e["validation_loss"] for e in model.history_ if "fit" in e]
        assert (np.diff(least) < 0).all()


@pytest.mark.parametrize("n_hidden", [None, 4])
@pytest.mark.parametrize("loss", ["poisson", "quantile"])
def test_a_file_holds_all_and_chunks_change_nothing(n_hidden, loss, tmp_path):
    X, y = made(120, kind="counts")
    parameters = {"loss": loss} | ({"quantile": [0.2, 0.7]} if loss == "quantile" else {})
    model = quick(n_hidden, **parameters).fit(X, y)
    model.save(tmp_path / "model.zarr")
    again = AltReLURegressor.load(tmp_path / "model.zarr")
    assert same(again.predict(X), model.predict(X))
    assert again.loss == loss
    lazy = quick(n_hidden, **parameters).fit(
        da.from_array(X, chunks=(50, 2)), da.from_array(y, chunks=30)
    )
    assert same(lazy.network_.predict(X), model.network_.predict(X))


@pytest.mark.parametrize("n_hidden", [None, 4])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(n_hidden, tmp_path):
    X, y = made(120, kind="counts")
    whole = quick(n_hidden, loss="poisson").fit(X, y)
    seen = []

    def stop(progress):
        seen.append(progress)
        return len(progress_of_fits(seen)) > 2

    def progress_of_fits(seen):
        return [each for each in seen if each.stage in ("reweighted", "members")]

    cut = {"checkpoint": tmp_path / "run", "checkpoint_interval": 0}
    quick(n_hidden, loss="poisson", callback=stop, **cut).fit(X, y)
    again = quick(n_hidden, loss="poisson", resume=True, **cut).fit(X, y)
    assert same(again.network_.predict(X), whole.network_.predict(X))


def test_the_command_predicts_what_the_model_predicts(tmp_path):
    from typer.testing import CliRunner

    from altrelu_dist.cli.app import app

    X, y = made(80, kind="counts")
    model = quick(4, loss="poisson").fit(X, y)
    model.save(tmp_path / "model.zarr")
    np.savetxt(tmp_path / "new.csv", X, delimiter=",", header="x0,x1,x2", comments="")
    names = [str(tmp_path / name) for name in ("model.zarr", "new.csv")]
    out = tmp_path / "out.csv"
    done = CliRunner().invoke(app, ["predict", *names, "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = np.loadtxt(out, delimiter=",", skiprows=1)
    np.testing.assert_allclose(found, model.predict(X), rtol=1e-9)


def test_several_targets_have_a_loss_each():
    X, y = made(kind="counts")
    both = np.stack([y, 3 * y[::-1]], axis=1)
    model = quick(loss="poisson").fit(X, both)
    assert model.predict(X).shape == both.shape
    np.testing.assert_allclose(model.predict(X).mean(axis=0), both.mean(axis=0), rtol=0.1)


@pytest.mark.parametrize("n_hidden", [None, 4])
def test_what_does_not_vary_is_a_constant(n_hidden):
    X = np.ones((50, 2))
    y = np.arange(50.0)
    model = quick(n_hidden, loss="quantile", quantile=0.9).fit(X, y)
    assert model.predict(X[:1])[0] == pytest.approx(44, abs=1)
    counts = quick(n_hidden, loss="poisson").fit(X, y)
    assert counts.predict(X[:1])[0] == pytest.approx(y.mean())
    assert quick(n_hidden, loss="poisson").fit(X, 0 * y).predict(X[:1])[0] == pytest.approx(
        0, abs=1e-6
    )


def test_texts_are_taken_by_a_plain_network_too():
    pd = pytest.importorskip("pandas")
    X, y = made(kind="counts")
    table = pd.DataFrame(X, columns=list("abc")).assign(d=np.where(X[:, 0] > 0, "high", "low"))
    table.loc[3, "a"] = np.nan
    model = quick(4, loss="poisson").fit(table, y)
    assert mean_poisson_deviance(y, model.predict(table)) < mean_poisson_deviance(
        y, np.full(len(y), y.mean())
    )


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"loss": "absolute"}, "loss"),
        ({"quantile": 0.5}, "quantile"),
        ({"loss": "quantile", "quantile": 1.5}, "quantile"),
        ({"loss": "quantile", "quantile": [0.9, 0.1]}, "quantile"),
        ({"loss": "quantile", "quantile": []}, "quantile"),
        ({"loss": "huber", "max_size": 8}, "max_size"),
        ({"loss": "huber", "method": "alternating"}, "method"),
    ],
)
def test_what_cannot_be_asked_for(parameters, what):
    X, y = made(40)
    with pytest.raises(ParameterError) as found:
        AltReLURegressor(**parameters).fit(X, y)
    assert found.value.parameter == what


def test_targets_that_a_loss_is_not_for():
    X, y = made(60, kind="counts")
    y[7] = -2
    with pytest.raises(DataError, match=r"-2 in row 7; .* at least 0"):
        quick(loss="poisson").fit(X, y)
    for n_hidden in (None, 4):
        with pytest.raises(DataError, match=r"down to -2; .* at least 0"):
            quick(n_hidden, loss="poisson").fit(da.from_array(X), da.from_array(y))
    with pytest.raises(ParameterError, match="one of them"):
        quick(loss="quantile", quantile=[0.1, 0.9]).fit(X, np.stack([y, y], axis=1))
    with pytest.raises(AttributeError, match="partial_fit") as found:
        quick(4, loss="huber").fit(X, y).partial_fit(X, y)
    assert "use fit" in str(found.value.__cause__)
    assert not hasattr(quick(4, loss="huber"), "partial_fit")


@pytest.mark.slow
@parametrize_with_checks(
    [
        AltReLURegressor(n_hidden=4, method="damped", max_iter=1, loss="huber"),
        AltReLURegressor(n_hidden=4, method="damped", max_iter=1, loss="poisson"),
        AltReLURegressor(max_iter=1, loss="quantile", quantile=0.3),
    ],
    expected_failed_checks=lambda estimator: (
        {"check_regressor_multioutput": "its targets are negative"}
        if estimator.loss == "poisson"
        else {}
    ),
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_counts_that_are_next_to_never_there_keep_a_curvature():
    f = np.array([-1e4, -1e2, 0.0, 1e2, 1e4], np.float32)
    y = np.array([0, 200, 1, 0, 3], np.float32)
    gradient, curvature = Poisson().derivatives(f, y)
    assert (curvature > 0).all()
    assert np.isfinite(gradient.astype(float) ** 2 / curvature).all()
    assert np.isfinite(Poisson().value(f, y)).all()
