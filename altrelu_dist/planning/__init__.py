"""What a run will cost: counted by the trainer's rules, timed by its kernels, before it starts."""

from altrelu_dist.planning.calls import Range
from altrelu_dist.planning.estimates import Estimate, PlannedStage
from altrelu_dist.planning.plan import Plan, plan

__all__ = ["Estimate", "Plan", "PlannedStage", "Range", "plan"]
