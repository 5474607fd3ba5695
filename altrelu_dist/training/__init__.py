"""The training loop over an engine: methods, stages, history."""

from altrelu_dist.training.history import last_doubling
from altrelu_dist.training.monitor import Monitor
from altrelu_dist.training.progress import Callback, Progress
from altrelu_dist.training.trainer import METHODS, Parameters, Trained, train

__all__ = [
    "METHODS",
    "Callback",
    "Monitor",
    "Parameters",
    "Progress",
    "Trained",
    "last_doubling",
    "train",
]
