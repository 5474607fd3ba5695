"""The regressors that `new_rows.py` compares: each as it comes, in one thread, without output.

``fit`` trains one of them and gives a function that predicts, and what else there is to tell. A
package that is not installed is not imported: `PACKAGES` names it.

    ours         AltReLURegressor, its defaults
    small        the same with ``max_size=64``: at most so many neurons
    hist         scikit-learn's HistGradientBoostingRegressor, its defaults
    xgboost      XGBoost's defaults
    xgboost-es   XGBoost at a rate of .05: as many trees, up to 5,000, as a tenth of the rows says
    lightgbm     LightGBM's defaults
    catboost     CatBoost's defaults
    mlp          scikit-learn's MLPRegressor, its defaults, standardised inputs and targets
    adam         PyTorch's Adam on 64 neurons: best moment, and best of five rates, on a tenth
    realmlp      pytabkit's RealMLP with its tuned defaults
    ridge        a linear model, its penalty by leave-one-out, standardised columns

Boosting has one model a target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from collections.abc import Callable

    Predict = Callable[[np.ndarray], Any]
    Facts = dict[str, Any]

OURS = ("ours", "small")
BOOSTING = ("hist", "xgboost", "xgboost-es", "lightgbm", "catboost")
NETWORKS = ("mlp", "adam", "realmlp")
OTHERS = (*BOOSTING, *NETWORKS, "ridge")
PACKAGES = {"xgboost": "xgboost", "xgboost-es": "xgboost", "lightgbm": "lightgbm"}
PACKAGES |= {"catboost": "catboost", "adam": "torch", "realmlp": "pytabkit"}
RATES = (1e-2, 3e-3, 1e-3, 3e-2, 3e-4)  # Adam's
HIDDEN = 64  # neurons of `adam` and of `small`
VALIDATION = 0.1  # share of the training rows that `xgboost-es` and `adam` hold out


def settings(method: str) -> list[float]:
    """What a method is run with, the best of which on validation rows counts."""
    return list(RATES) if method == "adam" else [0.0]


def fit(
    method: str, X: np.ndarray, y: np.ndarray, seed: int, setting: float, quick: bool
) -> tuple[Predict, Facts]:
    """Train on X (n, d) and y (n, q). ``quick``: of Adam only a few steps."""
    if method in OURS:
        return _ours(X, y, seed, None if method == "ours" else HIDDEN)
    if method == "adam":
        return _adam(X, y, seed, setting, quick)
    if method in BOOSTING:
        models = [_boosted(method, X, target, seed) for target in y.T]
        return lambda rows: np.column_stack([predict(rows) for predict in models]), {}
    model = _realmlp(seed) if method == "realmlp" else _scaled(method, seed)
    model.fit(X, _targets(y))
    return model.predict, {}


def _targets(y: np.ndarray) -> np.ndarray:
    return y if y.shape[1] > 1 else y.ravel()


def _ours(
    X: np.ndarray, y: np.ndarray, seed: int, most_neurons: int | None
) -> tuple[Predict, Facts]:
    from altrelu_dist import AltReLURegressor

    model = AltReLURegressor(random_state=seed, max_size=most_neurons).fit(X, _targets(y))
    told = {
        name: getattr(model, f"{name}_", None) for name in ("expected_r2", "expected_r2_spread")
    }
    facts = {name: None if value is None else float(value) for name, value in told.items()}
    return model.predict, facts | {"neurons": model.network_.n_hidden}


def _boosted(method: str, X: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    model: Any
    if method == "hist":
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(random_state=seed).fit(X, y)
    elif method == "lightgbm":
        from lightgbm import LGBMRegressor

        model = LGBMRegressor(random_state=seed, n_jobs=1, verbosity=-1).fit(X, y)
    elif method == "catboost":
        from catboost import CatBoostRegressor

        silent = {"verbose": False, "allow_writing_files": False}
        model = CatBoostRegressor(random_seed=seed, thread_count=1, **silent).fit(X, y)
        return lambda rows: model.predict(rows, thread_count=1)
    else:
        from xgboost import XGBRegressor

        common: dict[str, Any] = {"random_state": seed, "n_jobs": 1, "verbosity": 0}
        if method == "xgboost":
            model = XGBRegressor(**common).fit(X, y)
        else:
            X, held_X, y, held_y = train_test_split(X, y, test_size=VALIDATION, random_state=seed)
            common |= {"learning_rate": 0.05, "n_estimators": 5000, "early_stopping_rounds": 50}
            model = XGBRegressor(**common)
            model.fit(X, y, eval_set=[(held_X, held_y)], verbose=False)
    predict: Predict = model.predict
    return predict


def _scaled(method: str, seed: int) -> Any:
    """A model of scikit-learn on standardised inputs and targets."""
    if method == "mlp":
        model = MLPRegressor(random_state=seed)
    else:
        model = RidgeCV(np.logspace(-2, 6, 33), alpha_per_target=True)
    pipeline = make_pipeline(StandardScaler(), model)
    return TransformedTargetRegressor(pipeline, transformer=StandardScaler())


def _realmlp(seed: int) -> Any:
    from pytabkit import RealMLP_TD_Regressor

    return RealMLP_TD_Regressor(device="cpu", random_state=seed, n_threads=1, verbosity=0)


def _adam(
    X: np.ndarray, y: np.ndarray, seed: int, rate: float, quick: bool
) -> tuple[Predict, Facts]:
    import baselines
    import torch

    torch.set_num_threads(1)
    inputs, targets = StandardScaler().fit(X), StandardScaler().fit(y)
    X, y = inputs.transform(X), targets.transform(y)
    X, held_X, y, held_y = train_test_split(X, y, test_size=VALIDATION, random_state=seed)
    steps = 200 if quick else None
    held = (held_X, held_y)
    run = baselines.descend("adam", X, y, HIDDEN, rate=rate, seed=seed, steps=steps, held_out=held)
    best = run.best
    facts = {"validation": run.validation, "seconds": run.validations[-1][0], "neurons": HIDDEN}
    if best is None:
        return lambda rows: np.broadcast_to(targets.mean_, (len(rows), len(targets.mean_))), facts
    return (
        lambda rows: targets.inverse_transform(baselines.predict(best, inputs.transform(rows)))
    ), facts
