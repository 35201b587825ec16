"""Decisions, as arithmetic on frozen data: what a video costs, who makes it and how well, what follows a failure.

The entry is `plan(snapshot, policy, knowledge) -> Plan`. Nothing in this room does I/O, reads a clock or draws
a random number, and it imports only NumPy beside the standard library.

    work       counts FLOPs, pixels and bytes        cost       learns seconds from them, with a p90
    profile    operating points and their quality    groups     equal jobs, and each worker's rungs for them
    chains     one worker's queue, exactly           planner    the plan itself
    bound      how good any plan could be            admission  the answer a person gets
    retry      after a failure                       policy     what the owner allows
"""

from vidplat.scheduler.admission import Answer, answer
from vidplat.scheduler.cost import CostModel, Estimate, Observation, observations, updated_speed
from vidplat.scheduler.groups import Backlog, Knowledge
from vidplat.scheduler.planner import latest_free, plan
from vidplat.scheduler.policy import Policy
from vidplat.scheduler.profile import check_method
from vidplat.scheduler.retry import Again, Stop, after, suspects
from vidplat.scheduler.work import features

__all__ = [
    "Again",
    "Answer",
    "Backlog",
    "CostModel",
    "Estimate",
    "Knowledge",
    "Observation",
    "Policy",
    "Stop",
    "after",
    "answer",
    "check_method",
    "features",
    "latest_free",
    "observations",
    "plan",
    "suspects",
    "updated_speed",
]
