"""How long does a plan take, and how far is it from the best any plan could be?

    python -m benchmarks.planning [--jobs 1000 10000 100000]

Plans generated batches on two and eight unequal workers at twice the work that fits at full
quality: one size and one deadline (the usual batch), 18 sizes, a deadline per row, and both; then
the usual batch and a deadline per row once more with `eco` and two light workers behind a link,
which are counted on. Processor seconds of this process, so other programs disturb little; the gap
is to the plan's own certificate, an upper bound on any plan's mean quality. Shape and profile are
those of flipbook; costs are learnt from exact timings by which a full video takes 10 s, 1 s of it
whatever its steps.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

from benchmarks.common import answer, head, options, plain
from vidplat.domain import Job, OpenJob, OperatingPoint, WorkerState, around_seed, id_at_seed
from vidplat.scheduler import plan
from vidplat.scheduler.cost import CostModel, Observation
from vidplat.scheduler.decision import Finisher, Policy, Snapshot
from vidplat.scheduler.menu import Knowledge
from vidplat.scheduler.work import features
from vidplat.stages import STAGES
from vidplat.workers.models.catalogue import describe_model

MODEL, SHAPE = describe_model("flipbook")
TIMES_SLOWER = {"cpu-1": 1.0, "cpu-2": 0.5}  # by device class
LIGHT = (Finisher("cpu-1 light", 0.0, bits_per_s=1e6),) * 2
SIZES = [
    replace(SHAPE.defaults, num_frames=frames, width=width, num_inference_steps=steps)
    for frames in (17, 33, 65)
    for width in (48, 64, 96)
    for steps in (12, 24)
]


@dataclass(frozen=True)
class Case:
    workers: int = 8
    sizes: int = 1
    own_deadlines: bool = False
    light: bool = False


CASES = (
    Case(workers=2),
    Case(),
    Case(sizes=18),
    Case(own_deadlines=True),
    Case(sizes=18, own_deadlines=True),
    Case(light=True),
    Case(own_deadlines=True, light=True),
)


def learnt() -> Knowledge:
    """Costs from forty exact timings of each stage on each device class."""
    costs = CostModel()
    for device_class, slower in TIMES_SLOWER.items():
        for steps in [4, 24, 12, 8, 16, 20, 6, 10] * 5:
            counted = features(SHAPE, SHAPE.defaults, OperatingPoint(steps))
            took = {"denoise": 9.0 * steps / SHAPE.defaults.num_inference_steps, "decode": 0.97}
            for stage in STAGES:
                if any(counted[stage].vector):
                    seconds = took.get(stage, 0.01) * slower
                    timing = Observation(MODEL.id, device_class, stage, counted[stage], seconds)
                    costs = costs.observe(timing)
    return Knowledge({MODEL.id: SHAPE}, costs)


def workers(count: int) -> tuple[WorkerState, ...]:
    """Half of them of a class that is twice as fast, all of different speeds."""
    return tuple(
        WorkerState(f"w{k}", "cloud", f"cpu-{1 + k % 2}", int(16e9), 0.0, speed=0.8 + 0.05 * k)
        for k in range(count)
    )


def batch(jobs: int, case: Case, known: Knowledge) -> Snapshot:
    """`jobs` jobs that would take twice the time there is at full quality."""
    rnd, there = random.Random(1), workers(case.workers)
    capacity = sum(worker.speed / TIMES_SLOWER[worker.device_class] for worker in there)
    passed, listed = 0.0, list[OpenJob]()
    for row in range(1, jobs + 1):
        spec = rnd.choice(SIZES) if case.sizes > 1 else SHAPE.defaults
        full = OperatingPoint(spec.num_inference_steps)
        passed += known.costs.predict(MODEL.id, SHAPE, "cpu-1", spec, full).p50_s / capacity / 2
        due = 20.0 + passed * rnd.uniform(0.95, 1.5) if case.own_deadlines else None
        text, method = f"prompt {row}", "eco" if case.light else None
        job = id_at_seed(around_seed(text, "", spec, MODEL), spec.seed)
        listed.append(OpenJob(Job(job, text, "", spec, MODEL, row, None, 0, due, method)))
    alone = Snapshot(0.0, tuple(listed), there, passed)
    return replace(alone, finishers=LIGHT) if case.light else alone


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000])
    told = parser.parse_args()
    known, rows = learnt(), []
    print(head("plans at twice the work that fits", "planning"))
    for jobs in told.jobs:
        for case in CASES:
            snapshot = batch(jobs, case, known)
            began = time.process_time()
            decided = plan(snapshot, Policy(), known)
            seconds = time.process_time() - began
            gap = 100 * (1 - decided.mean_quality / decided.quality_bound)
            rows.append(
                {"jobs": jobs, **plain(case), "seconds": seconds, "verdict": decided.verdict.value}
                | {"mean_quality": decided.mean_quality, "gap_percent": gap}
            )
            deadlines = "a deadline per row" if case.own_deadlines else "one deadline"
            print(
                f"{jobs:>8} jobs  {case.workers} workers  {case.sizes:>2} sizes  {deadlines:<18}  "
                f"{'light' if case.light else '':<5}  {1000 * seconds:8.1f} ms  "
                f"{decided.verdict.value:<10}  quality {decided.mean_quality:.4f}  gap {gap:.3f} %"
            )
    answer("planning", rows=rows)


if __name__ == "__main__":
    main()
