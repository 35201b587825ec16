"""What few steps are worth on one grid of sigmas and another, by prompt fit and by distance.

    python -m benchmarks.step_grids [--model flipbook] [--captions 8] [--threads 1]
        [--steps 24 12 8 6 4 3] [--last 0.1 0.3] [--many 64]

Grids of flow-match Euler at the shift of the model. `stock` is diffusers' own without a last sigma:
it runs down to the least sigma of training, so that its last step has next to nothing to do. `last`
are those that end at a given sigma (`shift_terminal`), `given` is that of the method `euler`, which
ends at 1/T of the time. The distance is to a run of `--many` steps of it; 0 leaves that out, which
takes as long as all others together. An interrupt ends it after the rows so far.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from diffusers import FlowMatchEulerDiscreteScheduler

from benchmarks.common import FIRST_SEEDS, Row, answer, head, mean_of, options, progress, subjects
from benchmarks.making import Maker, near
from flipbook_training.prompt_fit import prompt_fit
from vidplat.domain import OperatingPoint
from vidplat.methods.seams.solver_choice import EulerScheduler, shift_of


def grids(shift: float, lasts: list[float]) -> dict[str, FlowMatchEulerDiscreteScheduler]:
    stock = {"stock": FlowMatchEulerDiscreteScheduler(shift=shift)}
    ending = {
        f"last {last:g}": FlowMatchEulerDiscreteScheduler(shift=shift, shift_terminal=last)
        for last in lasts
    }
    return {**stock, **ending, "given": EulerScheduler(shift=shift)}


def measured(maker: Maker, told: argparse.Namespace) -> Iterator[Row]:
    shift = shift_of(maker.family.scheduler)
    spec, say = maker.shape.defaults, progress()
    for number, one in enumerate(subjects(FIRST_SEEDS["step_grids"], told.captions), start=1):
        maker.family.scheduler = EulerScheduler(shift=shift)
        many = maker.make(one, spec, OperatingPoint(told.many)).frames if told.many else None
        for name, scheduler in grids(shift, told.last).items():
            maker.family.scheduler = scheduler
            for count in told.steps:
                video = maker.make(one, spec, OperatingPoint(count)).frames
                fit = prompt_fit(video, one.caption, spec.fps).share
                row = {"kind": one.kind, "grid": name, "steps": count, "fit": fit}
                yield row if many is None else row | near(video, many)
        say(f"{number} of {told.captions} captions")


def main() -> None:
    parser = options(__doc__, model="flipbook", captions=8, threads=1)
    parser.add_argument("--steps", type=int, nargs="+", default=[24, 12, 8, 6, 4, 3])
    parser.add_argument("--last", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--many", type=int, default=64)
    told = parser.parse_args()
    maker, rows = Maker(told.model, told.threads), list[Row]()
    try:
        for row in measured(maker, told):
            rows.append(row)
    except KeyboardInterrupt:
        print("stopped: what follows is of the rows so far")

    print(head(f"{maker}, {told.captions} captions, to {told.many} steps", "step_grids"))
    print(f"  {'grid':<10}{'steps':>6}{'n':>4}{'fit':>8}{'PSNR':>8}{'SSIM':>8}")
    means = []
    for name, count in dict.fromkeys((row["grid"], row["steps"]) for row in rows):
        group = [row for row in rows if (row["grid"], row["steps"]) == (name, count)]
        figures = {figure: mean_of(group, figure) for figure in ("fit", "psnr_db", "ssim")}
        means.append({"grid": name, "steps": count, "captions": len(group), **figures})
        fit, psnr_db, ssim = figures.values()
        print(f"  {name:<10}{count:>6}{len(group):>4}{fit:>8.1%}{psnr_db:>8.2f}{ssim:>8.4f}")
    answer("step_grids", **vars(told), revision=maker.ref.revision, grids=means)


if __name__ == "__main__":
    main()
