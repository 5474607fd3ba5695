"""1. NumPy arrays on a laptop: no cluster, no files, nothing to tune.

python examples/01_numpy.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from altrelu_dist import AltReLURegressor


def main(rows: int = 5_000) -> None:
    random = np.random.default_rng(0)
    X = random.uniform(size=(rows, 6))
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 5 * X[:, 3]
    y += random.normal(size=rows)
    train, test = slice(0, rows * 4 // 5), slice(rows * 4 // 5, rows)

    model = AltReLURegressor(n_hidden=16, random_state=0).fit(X[train], y[train])

    last = model.history_[-1]
    print(f"training MSE {last['loss']:.3f} (the noise: 1) after {last['seconds']:.1f} s")
    print(f"R2 on {rows - test.start} rows it has not seen: {model.score(X[test], y[test]):.3f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.zarr"
        model.save(path)
        again = AltReLURegressor.load(path)
    same = np.array_equal(again.predict(X[test]), model.predict(X[test]))
    print(f"saved, loaded, same predictions: {same}")


if __name__ == "__main__":
    main()
