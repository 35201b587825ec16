"""`vidplat bench methods`: what every method costs and loses, on the user's own model and
machine.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidplat.cli import options, render
from vidplat.cli.render import Column
from vidplat.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidplat.methods.kinds import Candidate
    from vidplat.methods.model_shape import ProfilePoint
    from vidplat.platform.measuring.findings import Finding
    from vidplat.workers.survey.survey import Subject

bench = typer.Typer(
    help="Measure a model on this machine.", no_args_is_help=True, rich_markup_mode=None
)


@bench.callback()
def bench_model() -> None:
    """Measure a model on this machine."""


_PROMPTS = (
    "a large red circle moves fast right on a plain gray background",
    "a small green triangle stays still on a striped navy background",
    "a large white square orbits clockwise on a plain black background",
    "a small yellow cross on a checkered maroon background, the camera pans left",
)


@bench.command("methods")
def bench_methods(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As for --model of submit.")
    ] = "flipbook",
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="Prompt file; its first rows are used.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many prompts.")] = 4,
    only: Annotated[
        str | None, typer.Option("--only", help="Methods, separated by commas.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    out: Annotated[
        Path, typer.Option("--out", help="Where methods.svg and methods.parquet go.")
    ] = Path("bench"),
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Let plans on this machine use what was found.")
    ] = True,
    json: options.Json = False,
) -> int:
    """Measure quality against cost for every method and peer, and let plans choose from it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vidplat import workers
    from vidplat.cli.method_chart import method_chart
    from vidplat.methods.candidates import candidates
    from vidplat.platform.measuring.findings import findings, profile_points, step_points
    from vidplat.workers.models.catalogue import locate
    from vidplat.workers.models.family import load_family
    from vidplat.workers.survey.survey import Bench, survey

    ref, shape = workers.describe_model(model)
    spec = shape.defaults
    subjects = _subjects(prompts, count)
    ways = _chosen(candidates(spec, shape.latent_frames(spec.num_frames)), only)
    torch.set_num_threads(threads)
    made = Bench(load_family(locate(model), device), ref.revision, spec)
    began = time.perf_counter()

    def say(line: str) -> None:
        render.say(f"{time.perf_counter() - began:6.0f} s  {line}", style="dim", to=sys.stderr)

    rows = list(survey(made, subjects, ways, tuning=min(2, len(subjects)), say=say))
    made.close()
    found = findings(rows)
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), out / "methods.parquet")
    lines = {
        name: [(f.cost, f.psnr_db) for f in found if f.method == name]
        for name in {f.method: 0 for f in found}
    }
    chart = method_chart(
        lines, title=f"{model}, {len(subjects)} prompts", measure="PSNR to the full run, dB"
    )
    (out / "methods.svg").write_text(chart, encoding="utf-8")
    points = [
        *step_points(found, spec.num_inference_steps),
        *profile_points(found, spec.num_inference_steps),
    ]
    kept = (
        _keep(ref.revision, model, points)
        if keep and any(not point.method for point in points)
        else None
    )
    if json:
        render.print_json(
            {
                "model": ref.id,
                "revision": ref.revision,
                "findings": [asdict(f) for f in found],
                "points": [asdict(point) for point in points],
                "picture": str(out / "methods.svg"),
                "rows": str(out / "methods.parquet"),
                "profile": str(kept) if kept else None,
            }
        )
        return 0
    _table(found)
    render.say(f"picture {out / 'methods.svg'}, rows {out / 'methods.parquet'}")
    if kept:
        render.say(f"plans on this machine now choose from {kept}")
    elif keep:
        render.say(
            "plans do not use this: without `steps` there is nothing to compare methods with",
            style="dim",
        )
    return 0


def _subjects(prompts: Path | None, count: int) -> list[Subject]:
    from vidplat.workers.survey.survey import Subject

    if prompts is None:
        return [Subject(text, seed=seed) for seed, text in enumerate((_PROMPTS * count)[:count])]
    from vidplat.domain import Prompt
    from vidplat.storage.prompts import read_prompts

    found: list[Subject] = []
    for batch in read_prompts(str(prompts), warn=render.warn):
        for row in batch:
            if not isinstance(row, Prompt):
                raise InputError(f"{prompts} cannot be used", [str(row)])
            found.append(Subject(row.text, seed=len(found)))
            if len(found) == count:
                return found
    return found


def _chosen(ways: list[Candidate], only: str | None) -> list[Candidate]:
    if only is None:
        return ways
    names = [name.strip() for name in only.split(",")]
    known = list(
        dict.fromkeys(way.name.split()[0] for way in ways)
    )  # `eco 5` and `eco 6` are asked for as eco
    for name in names:
        if name not in known:
            raise UsageError(f"--only {name!r} is not known; there are {', '.join(known)}")
    return [way for way in ways if way.name.split()[0] in names]


def _keep(revision: str, model: str, points: Sequence[ProfilePoint]) -> Path:
    from json import dumps

    from vidplat.measured import folder

    path = folder(revision) / "profile.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(
        dumps({"model": model, "points": [asdict(point) for point in points]}, indent=1) + "\n"
    )
    aside.replace(path)
    return path


def _table(found: Sequence[Finding]) -> None:
    columns = ("METHOD", "POINT", "TIME", "END TO END", "FLOPS", "PSNR", "SSIM", "MIB")
    render.print_table(
        [Column(name, gives_way=name == "POINT") for name in columns],
        [
            (
                one.method,
                one.label,
                f"{one.cost:.1%}",
                f"{one.cost_end_to_end:.1%}",
                f"{one.work:.1%}",
                f"{one.psnr_db:.2f}",
                f"{one.ssim:.4f}",
                f"{one.peak_bytes / 2**20:.0f}",
            )
            for one in found
        ],
    )
