"""Quality against cost for every method and rival, on the same weights, prompts, seeds and noise.

    python -m benchmarks.methods [--model flipbook] [--captions 24] [--threads 1] [--only hsa,steps]
    [--write]
                                 [--targets 0.75 0.5 0.25] [--beside FILE.parquet]

For target costs of 75, 50 and 25 % of the measured denoising time each method's knob is tuned to
within 2 % where it can be. Every video is compared with the full-step video of its own solver and
seed, made in the same round. Captions are held out and spread evenly over the classes of movement.
`--beside` adds the rows of an earlier survey of the same model, so that other targets come into one
profile. Per-prompt rows go to <out>.parquet, the picture to <out>.svg; `--write` puts the points
worth having into the model's profile. Prints a card and ends with one JSON line. An interrupt ends
the survey after the rows made so far; all ways at 24 captions take about 45 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import numpy as np

FIRST_SEED = 9_800_000_000  # captions from here on; training drew below 3e9
CLASSES = ("still", "slow", "fast", "orbit", "bounce", "dash", "pan", "cut")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--captions", type=int, default=24)
    words.add_argument("--tuning", type=int, default=4, help="captions that knobs are tuned on")
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--steps", type=int, help="steps of the full run; default: the model's")
    words.add_argument("--only", help="methods, separated by commas")
    words.add_argument(
        "--targets", type=float, nargs="+", default=None, help="shares of the full denoising time"
    )
    words.add_argument("--beside", type=Path, help="rows of an earlier survey")
    words.add_argument("--out", type=Path, default=Path("benchmarks/results/methods"))
    words.add_argument(
        "--write", action="store_true", help="put what is worth having into the model's profile"
    )
    told = words.parse_args()

    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from benchmarks.rivals.caches import RIVALS, WithRivals
    from vidplat.cli.method_chart import method_chart
    from vidplat.methods.candidates import candidates
    from vidplat.platform.measuring.findings import findings, profile_points
    from vidplat.workers.models.catalogue import describe_model, locate
    from vidplat.workers.models.loading import load_family
    from vidplat.workers.survey.survey import TARGETS, Bench, Row, survey

    torch.set_num_threads(told.threads)
    ref, shape = describe_model(told.model)
    spec = shape.defaults if told.steps is None else replaced(shape.defaults, told.steps)
    bench = Bench(load_family(locate(told.model), "cpu"), spec)
    frames = shape.latent_frames(spec.num_frames)
    bench.installed = WithRivals(bench.family.transformers)
    ways = candidates(spec, frames)
    for rival in RIVALS.values():
        ways += rival.candidates(spec.num_inference_steps, frames)
    if told.only:
        ways = [way for way in ways if way.name.split()[0] in told.only.split(",")]
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    rows = []
    try:
        for row in survey(
            bench,
            list(subjects(told.captions, spec.fps)),
            ways,
            targets=told.targets or TARGETS,
            tuning=told.tuning,
            say=say,
        ):
            rows.append(row)  # noqa: PERF402  # one by one, so that an interrupt keeps them
    except KeyboardInterrupt:
        if not rows:
            raise
        say("stopped: what follows is of the prompts so far")
    if told.beside:
        rows = [*(Row(**row) for row in pq.read_table(told.beside).to_pylist()), *rows]
    found = findings(rows)
    kinds = dict.fromkeys(row.kind for row in rows)
    split = {kind: findings(row for row in rows if row.kind == kind) for kind in kinds}

    told.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist([asdict(row) for row in rows]), told.out.with_suffix(".parquet")
    )
    lines = {
        name: [(f.cost, f.psnr_db) for f in found if f.method == name]
        for name in {f.method: 0 for f in found}
    }
    title = f"{told.model}: quality against cost, {told.captions} prompts"
    chart = method_chart(lines, title=title, measure="PSNR to the full run, dB")
    told.out.with_suffix(".svg").write_text(chart, encoding="utf-8")

    print("\n".join(card(told.model, ref.revision, spec, told.captions, found, split)))
    ours = [finding for finding in found if finding.method not in RIVALS]
    points = profile_points(ours, spec.num_inference_steps)
    print(
        "worth having beside fewer steps: "
        + (", ".join(point.method for point in points) or "none")
    )
    if told.write:
        write_points(locate(told.model).root / "profile.json", points)
    print(
        json.dumps(
            {
                "benchmark": "methods",
                "model": told.model,
                "revision": ref.revision,
                "captions": told.captions,
                "seeds": f"{FIRST_SEED}..",
                "full_steps": spec.num_inference_steps,
                "findings": [
                    {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(f).items()}
                    for f in found
                ],
                "psnr_db_by_class": {
                    kind: {f"{f.method} {f.target:.0%}": round(f.psnr_db, 2) for f in group}
                    for kind, group in split.items()
                },
                "seconds": round(time.perf_counter() - began),
                "threads": told.threads,
                "machine": platform.processor() or platform.machine(),
                "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
            }
        )
    )


def replaced(spec, steps):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(spec, num_inference_steps=steps)


def subjects(count, fps):  # type: ignore[no-untyped-def]
    """`count` held-out captions, the classes of movement in turn."""
    from flipbook_training import world
    from flipbook_training.prompt_fit import prompt_fit
    from vidplat.workers.survey.survey import Subject

    wanted, seed = cycle(CLASSES), FIRST_SEED
    for _ in range(count):
        kind = next(wanted)
        while True:
            rng = np.random.default_rng(seed)
            scene = world.draw_scene(rng)
            caption = world.describe(scene, rng)
            seed += 1
            if scene.motion_class == kind:
                break

        def fit(frames, caption=caption):  # type: ignore[no-untyped-def]
            return prompt_fit(frames, caption, fps).share

        yield Subject(caption, seed=seed - FIRST_SEED, kind=kind, fit=fit)


def card(model, revision, spec, count, found, split):  # type: ignore[no-untyped-def]
    full_fit = next((f.fit_full for f in found if f.fit_full is not None), None)
    steps = spec.num_inference_steps
    yield (
        f"{model} {revision[:12]}, {count} held-out captions, against {steps} steps of the "
        "same seed"
    )
    if full_fit is not None:
        yield f"  prompt fit of the full runs: {full_fit:.1%}"
    yield (
        f"  {'method':<15}{'target':>7} "
        f"{'point':<44}{'time':>7}{'e2e':>7}{'FLOPs':>7}{'PSNR':>7}{'SSIM':>8}"
        f"{'fit':>7}{'flicker':>8}{'motion':>7}{'MiB':>6}"
    )
    for f in found:
        yield (
            f"  {f.method:<15}{f.target:>7.0%} "
            f"{f.label:<44}{f.cost:>7.3f}{f.cost_end_to_end:>7.3f}{f.work:>7.3f}"
            f"{f.psnr_db:>7.2f}{f.ssim:>8.4f}{f.fit or 0:>7.1%}{f.flicker_ratio or 0:>8.2f}"
            f"{f.motion_ratio or 0:>7.2f}"
            f"{f.peak_bytes / 2**20:>6.0f}"
        )
    yield "  PSNR by class of movement, dB"
    yield f"  {'method':<15}{'target':>7}" + "".join(f"{kind:>8}" for kind in split)
    for f in found:
        cells = [
            next(g for g in group if (g.method, g.target) == (f.method, f.target))
            for group in split.values()
        ]
        yield f"  {f.method:<15}{f.target:>7.0%}" + "".join(
            f"{cell.psnr_db:>8.2f}" for cell in cells
        )


def write_points(path, points):  # type: ignore[no-untyped-def]
    """Replace the profile's points of methods; those of plain steps stay."""
    profile = json.loads(path.read_text(encoding="utf-8"))
    plain = [point for point in profile["points"] if not point.get("method")]
    profile["points"] = plain + [asdict(point) for point in points]
    path.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
