"""What a run will cost: counted by the trainer's rules, timed by its kernels, before it starts.

Take names from here where threads may import at once: a thread that asks for one of the modules
does not wait until another has imported all of them, and may find one that is not whole.
"""

from altrelu_dist.planning.calls import Range, Shape
from altrelu_dist.planning.estimates import Estimate, PlannedStage
from altrelu_dist.planning.plan import Plan, plan
from altrelu_dist.planning.problem import machine_memory
from altrelu_dist.planning.refusals import check_run
from altrelu_dist.planning.work import held_whole

__all__ = [
    "Estimate",
    "Plan",
    "PlannedStage",
    "Range",
    "Shape",
    "check_run",
    "held_whole",
    "machine_memory",
    "plan",
]
