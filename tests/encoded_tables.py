"""Tables whose columns have many encoded ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

__all__ = ["odd_tables"]


@st.composite
def odd_tables(draw, columns):
    """Few rows of whole and real numbers, of any scale, with heavy tails; most values once."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    n = draw(st.integers(40, 90))
    kinds = (
        lambda: rng.integers(-40, 40, n),
        lambda: rng.uniform(-1e3, 1e3, n),
        lambda: rng.standard_cauchy(n) * 10.0 ** rng.integers(-12, 12),
        lambda: rng.integers(0, 2, n),
    )
    return np.column_stack([kinds[draw(st.integers(0, 3))]() for _ in range(columns)]).astype(float)
