"""Quality against cost for every method and rival, on the same weights, prompts, seeds and noise.

    python -m benchmarks.methods [--model flipbook] [--captions 24] [--threads 1]
        [--only hsa,steps] [--targets 0.75 0.5 0.25] [--beside FILE.parquet] [--out FILE.parquet]
        [--write]

For target costs of 75, 50 and 25 % of the measured denoising time each method's knob is tuned to
within 2 % where it can be. Every video is compared with the full-step video of its own solver and
seed, made in the same round. Captions are held out and spread evenly over the classes of movement.
`--beside` adds the rows of an earlier survey of the same model, so that other targets come into one
profile. Rows of prompts go to `--out`, a picture beside them. An interrupt ends the survey after
the rows made so far; all ways at 24 captions take about 45 minutes on one core.

`--write` puts plain steps and the points worth having beside them into the model's profile, from
which plans choose. A new model's profile begins with `--only steps --targets 0.04 0.08 0.12 0.16
0.25 0.33 0.5 0.67 0.83 --write`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count, cycle, islice
from pathlib import Path

import pyarrow.parquet as pq
import torch

from benchmarks import common
from benchmarks.common import (
    CLASSES,
    FIRST_SEEDS,
    answer,
    head,
    options,
    progress,
    result_file,
    write_rows,
)
from benchmarks.rivals.caches import RIVALS, WithRivals
from flipbook_training.prompt_fit import prompt_fit
from vidplat.cli.method_chart import method_chart
from vidplat.domain import VideoSpec
from vidplat.methods.candidates import candidates
from vidplat.methods.model_shape import ProfilePoint
from vidplat.platform.measuring.findings import Finding, findings, profile_points, step_points
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.loading import load_family
from vidplat.workers.survey.survey import TARGETS, Bench, Row, Subject, survey


def subjects(fps: int) -> Iterator[Subject]:
    """Held-out captions without end, the classes of movement in turn; scenes of other classes than
    the one that is due are passed over."""
    wanted = cycle(CLASSES)
    kind = next(wanted)
    for number in count():
        one = common.subject(FIRST_SEEDS["methods"], number)
        if one.kind == kind:
            kind = next(wanted)

            def fit(frames, caption=one.caption):  # type: ignore[no-untyped-def]
                return prompt_fit(frames, caption, fps).share

            yield Subject(one.caption, seed=number + 1, kind=one.kind, fit=fit)


def card(found: Sequence[Finding], split: dict[str, list[Finding]]) -> Iterator[str]:
    full_fit = next((f.fit_full for f in found if f.fit_full is not None), None)
    if full_fit is not None:
        yield f"  prompt fit of the full runs: {full_fit:.1%}"
    yield (
        f"  {'method':<15}{'target':>7} {'point':<44}{'time':>7}{'e2e':>7}{'FLOPs':>7}{'PSNR':>7}"
        f"{'SSIM':>8}{'fit':>7}{'flicker':>8}{'motion':>7}{'MiB':>6}"
    )
    for f in found:
        yield (
            f"  {f.method:<15}{f.target:>7.0%} {f.label:<44}{f.cost:>7.3f}{f.cost_end_to_end:>7.3f}"
            f"{f.work:>7.3f}{f.psnr_db:>7.2f}{f.ssim:>8.4f}{f.fit or 0:>7.1%}"
            f"{f.flicker_ratio or 0:>8.2f}{f.motion_ratio or 0:>7.2f}{f.peak_bytes / 2**20:>6.0f}"
        )
    yield "  PSNR by class of movement, dB"
    yield f"  {'method':<15}{'target':>7}" + "".join(f"{kind:>8}" for kind in split)
    by_class = {kind: {(g.method, g.target): g.psnr_db for g in gs} for kind, gs in split.items()}
    for f in found:
        cells = (known[f.method, f.target] for known in by_class.values())
        yield f"  {f.method:<15}{f.target:>7.0%}" + "".join(f"{db:>8.2f}" for db in cells)


def chart(found: Sequence[Finding], title: str) -> str:
    """The picture, as SVG."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for f in found:
        lines.setdefault(f.method, []).append((f.cost, f.psnr_db))
    return method_chart(lines, title=title, measure="PSNR to the full run, dB")


def write_profile(
    path: Path,
    plain: Sequence[ProfilePoint],
    points: Sequence[ProfilePoint],
    **about: str,
) -> None:
    """Replace the profile's points of methods, where there are new ones, and those of plain steps
    that were measured anew. `about` is what else the file says of them, such as the revision."""
    profile = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"points": []}
    known = profile["points"]
    steps = {point["steps_fraction"]: point for point in known if not point.get("method")}
    steps |= {point.steps_fraction: asdict(point) for point in plain}
    kept = [asdict(point) for point in points] or [one for one in known if one.get("method")]
    profile |= about
    profile["points"] = [*(steps[fraction] for fraction in sorted(steps)), *kept]
    path.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")


def measured(told: argparse.Namespace, spec: VideoSpec, frames: int) -> list[Row]:
    """Rows of the survey, those so far where it is interrupted, and of the earlier one."""
    ways = list(candidates(spec, frames))
    for rival in RIVALS.values():
        ways += rival.candidates(spec.num_inference_steps, frames)
    if told.only:
        ways = [way for way in ways if way.name.split()[0] in told.only.split(",")]
    bench = Bench(load_family(locate(told.model), "cpu"), spec)
    bench.installed = WithRivals(bench.family.transformers)
    asked, say, rows = list(islice(subjects(spec.fps), told.captions)), progress(), list[Row]()
    try:
        for row in survey(bench, asked, ways, told.targets, told.tuning, say):
            rows.append(row)  # one by one, so that an interrupt keeps them
    except KeyboardInterrupt:
        if not rows:
            raise
        say("stopped: what follows is of the prompts so far")
    earlier = pq.read_table(told.beside).to_pylist() if told.beside else []
    return [*(Row(**row) for row in earlier), *rows]


def main() -> None:
    parser = options(__doc__, model="flipbook", captions=24, threads=1)
    parser.add_argument("--tuning", type=int, default=4, help="captions that knobs are tuned on")
    parser.add_argument("--steps", type=int, help="of the full run; default: the model's")
    parser.add_argument("--only", help="methods, separated by commas")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--beside", type=Path, help="rows of an earlier survey")
    parser.add_argument("--out", type=Path, default=result_file("methods", ".parquet"))
    parser.add_argument("--write", action="store_true", help="put points into the model's profile")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    ref, shape = describe_model(told.model)
    steps = told.steps or shape.defaults.num_inference_steps
    spec = replace(shape.defaults, num_inference_steps=steps)
    rows = measured(told, spec, shape.latent_frames(spec.num_frames))
    found, by_class = findings(rows), {}
    for kind in (kind for kind in CLASSES if any(row.kind == kind for row in rows)):
        by_class[kind] = findings(row for row in rows if row.kind == kind)
    ours = [one for one in found if one.method not in RIVALS]
    points = profile_points(ours, steps)

    about = f"{told.model} {ref.revision[:12]}, {told.captions} captions, to {steps} steps"
    print(head(about, "methods"))
    print("\n".join(card(found, by_class)))
    worth = ", ".join(point.method for point in points)
    print(f"worth having beside fewer steps: {worth or 'none'}")
    write_rows(map(asdict, rows), told.out)
    told.out.with_suffix(".svg").write_text(chart(found, about), encoding="utf-8")
    if told.write:
        path, plain = locate(told.model).root / "profile.json", step_points(ours, steps)
        write_profile(path, plain, points, model=told.model, revision=ref.revision)
    db = {kind: [f.psnr_db for f in group] for kind, group in by_class.items()}
    facts = {"revision": ref.revision, "findings": found, "psnr_db_by_class": db}
    answer("methods", **vars(told) | {"steps": steps}, **facts)


if __name__ == "__main__":
    main()
