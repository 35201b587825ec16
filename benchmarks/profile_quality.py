"""The points of a model's profile once more, at the settings and costs they have.

    python -m benchmarks.profile_quality [--model flipbook] [--captions 24] [--threads 1]
        [--also early:0.25] [--write]

For a change that moves quality and leaves the work as it is, such as another grid of sigmas:
tuning, counting FLOPs and second full runs, most of a survey's time (`methods`), are left out.
Captions and distances are the survey's. Works and overheads stay, but where work depends on the
video: there the passes that run are counted. Points of `--also`, separated by spaces, are added at
the overhead that is measured. Costs are told by processor time. An interrupt ends it after the
captions so far; `--write` puts the points into the profile.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from benchmarks import common
from benchmarks.common import Row, answer, head, mean_of, options, progress
from benchmarks.making import Maker, Video, near
from benchmarks.methods import subjects, write_profile
from vidplat.domain import OperatingPoint
from vidplat.methods.language import parse, text
from vidplat.methods.model_shape import ProfilePoint
from vidplat.methods.work import MethodWork, method_work
from vidplat.workers.models.catalogue import locate


class Counting(Maker):
    """A maker that counts passes through the first block."""

    def __init__(self, model: str, threads: int) -> None:
        super().__init__(model, threads)
        self.passes = 0
        self.family.transformers[0].blocks[0].register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1

    def counted(self, one: common.Subject, point: OperatingPoint) -> tuple[Video, int]:
        before = self.passes
        return self.make(one, self.shape.defaults, point), self.passes - before


def operating(point: ProfilePoint, steps: int) -> OperatingPoint:
    return OperatingPoint(round(point.steps_fraction * steps), point.method or "steps")


def closed_form(maker: Maker, point: OperatingPoint) -> MethodWork:
    """Its work where that does not depend on the video; else that of a full run."""
    return method_work(replace(maker.shape, profile=()), maker.shape.defaults, point)


def measured(maker: Counting, captions: int, points: list[ProfilePoint]) -> Iterator[Row]:
    fps, say = maker.shape.defaults.fps, progress()
    for number, asked in enumerate(islice(subjects(fps), captions), start=1):
        assert asked.fit is not None
        one = common.Subject(asked.prompt, asked.kind, asked.seed)
        whole, all_passes = maker.counted(one, OperatingPoint(maker.steps))
        rows: list[Row] = [{"point": "full", "cost": 1.0, "fit": asked.fit(whole.frames)}]
        for point in points:
            at = operating(point, maker.steps)
            video, passes = maker.counted(one, at)
            rows.append(
                {
                    "point": at.label,
                    "cost": video.denoise_s / whole.denoise_s,
                    "passes": passes / all_passes,
                    "fit": asked.fit(video.frames),
                    **near(video.frames, whole.frames),
                }
            )
        yield from rows  # of whole captions alone
        say(f"{number} of {captions} captions")


def remeasured(maker: Maker, point: ProfilePoint, rows: list[Row], is_new: bool) -> ProfilePoint:
    """The point with the quality of its rows, and what they say of its work."""
    ssims = [row["ssim"] for row in rows]
    told = replace(
        point,
        quality=round(statistics.mean(ssims), 4),
        quality_spread=round(statistics.stdev(ssims) if len(ssims) > 1 else 0.0, 4),
        psnr_db=round(mean_of(rows, "psnr_db"), 2),
        prompt_fit=round(mean_of(rows, "fit"), 4),
        samples=len(rows),
    )
    if not point.method:
        return told
    work = closed_form(maker, operating(point, maker.steps))
    linear, attention = work.linear, work.attention
    if work == MethodWork():
        linear = attention = mean_of(rows, "passes") / point.steps_fraction
        told = replace(told, linear_work=round(linear, 4), attention_work=round(linear, 4))
    if is_new:
        cost = statistics.median(row["cost"] for row in rows) / point.steps_fraction
        told = replace(
            told,
            linear_work=round(linear, 4),
            attention_work=round(attention, 4),
            overhead=round(cost / linear, 4),
        )
    return told


def main() -> None:
    parser = options(__doc__, model="flipbook", captions=24, threads=1)
    parser.add_argument("--also", nargs="*", default=[], help="methods that are added")
    parser.add_argument("--write", action="store_true", help="put them into the model's profile")
    told = parser.parse_args()
    maker = Counting(told.model, told.threads)
    new = [ProfilePoint(1.0, 0.0, method=text(parse(one))) for one in told.also]
    points, rows = [*maker.shape.profile, *new], list[Row]()
    try:
        for row in measured(maker, told.captions, points):
            rows.append(row)
    except KeyboardInterrupt:
        if not rows:
            raise
        print("stopped: what follows is of the captions so far")

    by_label = {row["point"]: [one for one in rows if one["point"] == row["point"]] for row in rows}
    print(head(f"{maker}, {len(by_label['full'])} captions, to the full run", "methods"))
    print(f"  prompt fit of the full runs: {mean_of(by_label['full'], 'fit'):.1%}")
    print(f"  {'point':<38}{'time':>7}{'work':>7}{'PSNR':>8}{'SSIM':>8}{'+-':>7}{'fit':>8}")
    found = []
    for point in points:
        label = operating(point, maker.steps).label
        now = remeasured(maker, point, by_label[label], point in new)
        found.append(now)
        time = statistics.median(row["cost"] for row in by_label[label])
        print(
            f"  {label:<38}{time:>7.3f}{now.steps_fraction * now.linear_work:>7.3f}"
            f"{now.psnr_db:>8.2f}{now.quality:>8.4f}{now.quality_spread:>7.3f}{now.prompt_fit:>8.1%}"
        )
    found.sort(key=lambda point: point.steps_fraction * point.linear_work * point.overhead)
    if told.write:
        path, ref = locate(told.model).root / "profile.json", maker.ref
        plain = [point for point in found if not point.method]
        ways = [point for point in found if point.method]
        write_profile(path, plain, ways, model=ref.id, revision=ref.revision)
    answer("profile_quality", **vars(told), revision=maker.ref.revision, points=found)


if __name__ == "__main__":
    main()
