"""Raw columns as the numbers that a network takes: learnt in one pass over the rows."""

from altrelu_dist.encoding.encoder import Encoder
from altrelu_dist.encoding.sketch import CAPACITY, ColumnSketch, sketch_columns

__all__ = ["CAPACITY", "ColumnSketch", "Encoder", "sketch_columns"]
