"""Decisions as arithmetic on frozen data: what a video costs, who makes it, what follows a failure.

The entry is `plan(snapshot, policy, knowledge) -> Plan`. Nothing in this room does I/O, reads a
clock or draws a random number, and it imports only NumPy beside the standard library.

    work        counts FLOPs, pixels and bytes      stage_cost  learns seconds from them, with a p90
    cost        adds stages up; how quantiles add   profile     operating points and their quality
    menu        what each worker can offer a job    groups      equal jobs are planned together
    chains      one worker's queue as sums          trials      who gets what, at a price
    slack       better points for what is left      bound       how good any plan could be
    account     from a trial to the Plan            planner     the plan itself, on one page
    admission   the answer a person gets            retry       what follows a failure
    link        how fast a link is, from transfers  wording     sentences about plans
"""

from vidplat.scheduler.admission import answer
from vidplat.scheduler.planner import latest_free, plan
from vidplat.scheduler.retry import after, suspects

__all__ = ["after", "answer", "latest_free", "plan", "suspects"]
