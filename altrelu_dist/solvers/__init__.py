"""The small dense systems, one layer a file."""

from altrelu_dist.solvers.hidden_layer import LayerStep, LevenbergMarquardtSystem, solve_hidden
from altrelu_dist.solvers.output_layer import Removal, output_squares, solve_output

__all__ = [
    "LayerStep",
    "LevenbergMarquardtSystem",
    "Removal",
    "output_squares",
    "solve_hidden",
    "solve_output",
]
