"""What a run will cost: counted by the trainer's rules, timed by its kernels, before it starts."""

from altrelu_dist.planning.plan import Estimate, Plan, PlannedStage, plan
from altrelu_dist.planning.work import Range

__all__ = ["Estimate", "Plan", "PlannedStage", "Range", "plan"]
