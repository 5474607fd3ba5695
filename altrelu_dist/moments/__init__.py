"""What one block of rows contributes, and how two contributions add. NumPy alone."""

from altrelu_dist.moments.kinks import KinkBlocks, KinkMoments
from altrelu_dist.moments.loss import HiddenGram, HiddenMoments, LossAndGradient, LossGradient
from altrelu_dist.moments.pattern import PatternDelta, PatternGram, PatternMoments, packed_size
from altrelu_dist.moments.rows import Block, Floats, Rows, Scaler, Weights
from altrelu_dist.moments.sample import Sample, Sampler, distinct
from altrelu_dist.moments.summary import Summary, summarise

__all__ = [
    "Block",
    "Floats",
    "HiddenGram",
    "HiddenMoments",
    "KinkBlocks",
    "KinkMoments",
    "LossAndGradient",
    "LossGradient",
    "PatternDelta",
    "PatternGram",
    "PatternMoments",
    "Rows",
    "Sample",
    "Sampler",
    "Scaler",
    "Summary",
    "Weights",
    "distinct",
    "packed_size",
    "summarise",
]
