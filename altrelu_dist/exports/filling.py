"""Which encoded columns are filled where a raw value is missing, for all targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from altrelu_dist.encoding import Encoder

__all__ = ["Filling", "filling_of"]


@dataclass(frozen=True)
class Filling:
    """What `Encoder.transform` does once all columns are encoded.

    First what is NaN becomes zero in columns that may be missing, then what is made of an infinite
    raw value becomes NaN.

    Parameters
    ----------
    source : ndarray of int of shape (n_columns,)
        Number of the raw column of each encoded one.
    lacking : ndarray of bool of shape (n_columns,)
        Whether the raw column may be missing.
    """

    source: NDArray[np.intp]
    lacking: NDArray[np.bool_]


def filling_of(encoder: Encoder) -> Filling | None:
    """None where no encoded column is filled: then NaN and infinite values are NaN as they are."""
    source = np.concatenate([np.zeros(0, np.intp), *(block.sources for block in encoder.blocks)])
    lacking = encoder.lacking[source]
    return Filling(source, lacking) if lacking.any() else None
