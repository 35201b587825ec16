"""Decisions, as arithmetic on frozen data: what a video costs, who makes it and how well, what
follows a failure.

The entry is `plan(snapshot, policy, knowledge) -> Plan`. Nothing in this room does I/O, reads a
clock or draws a random number, and it imports only NumPy beside the standard library.

    work        counts FLOPs, pixels and bytes      stage_cost  learns seconds from them, with a p90
    cost        adds stages up; how quantiles add   profile     operating points and their quality
    menu        what each worker can offer a job    groups      equal jobs are planned together
    chains      one worker's queue as sums          trials      who gets what, at a price
    slack       better points for what is left      bound       how good any plan could be
    account     from a trial to the Plan            planner     the plan itself, on one page
    admission   the answer a person gets            retry       what follows a failure
    policy      what the owner allows               wording     sentences about plans
    link        how fast a link is, from transfers
"""

from vidplat.scheduler.admission import Answer, answer
from vidplat.scheduler.cost import CostModel, Estimate, Observation, updated_speed
from vidplat.scheduler.decision import Policy
from vidplat.scheduler.groups import Backlog
from vidplat.scheduler.menu import Knowledge
from vidplat.scheduler.planner import latest_free, plan
from vidplat.scheduler.retry import Again, after, suspects
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
    "after",
    "answer",
    "features",
    "latest_free",
    "plan",
    "suspects",
    "updated_speed",
]
