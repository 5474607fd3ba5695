"""Raw columns as the numbers that a network takes: learnt in one pass over the rows."""

from altrelu_dist.encoding.encoder import Encoder, numeric
from altrelu_dist.encoding.raw import RawColumn, RawColumns, all_numbers
from altrelu_dist.encoding.sketch import CAPACITY, ColumnSketch, sketch_columns

__all__ = [
    "CAPACITY",
    "ColumnSketch",
    "Encoder",
    "RawColumn",
    "RawColumns",
    "all_numbers",
    "numeric",
    "sketch_columns",
]
