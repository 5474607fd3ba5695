"""What a plan says before a fit, and what the fit then takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from scale_clock import Row, seconds_of
from scale_sizes import Sizes

from altrelu_dist import AltReLURegressor, open_dataset, plan


def measure_plans(sizes: Sizes, folder: Path) -> list[Row]:
    """What `plan` says before a fit, and what the fit then takes, in threads of this process."""
    rows = []
    for n, d, h in sizes.fits:
        rng = np.random.default_rng([n, d, h])
        X = rng.standard_normal((n, d), dtype=np.float32)
        y = np.abs(X[:, :1]) - X[:, 1:2] * X[:, 2:3] + np.sin(3 * X[:, 3:4])
        y += 0.1 * rng.standard_normal((n, 1), dtype=np.float32)
        path = folder / f"fit-{n}-{d}-{h}.zarr"
        group = zarr.create_group(str(path))
        for name, values in (("X", X), ("y", y)):
            group.create_array(name, data=values, chunks=(8192, values.shape[1]))
        expected = plan(path, h).seconds
        data = open_dataset(path)
        taken = seconds_of(lambda h=h, s=data: AltReLURegressor(h, random_state=0).fit(s.X, s.y))
        rows.append(
            {
                "rows": n,
                "features": d,
                "neurons": h,
                "plan, s": expected.typical,
                "from, s": expected.least,
                "to, s": expected.most,
                "fit, s": taken,
                "plan / fit": expected.typical / taken,
            }
        )
    return rows
