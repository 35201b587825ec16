"""`vidplat submit`: make the videos of a prompt file by a deadline."""

from __future__ import annotations

from typing import Annotated

import typer

from vidplat.cli import options
from vidplat.cli.conclusion import conclude
from vidplat.cli.plan import answer_plan
from vidplat.cli.progress import RunDisplay
from vidplat.cli.request import config_of, request_of


def submit_batch(
    context: typer.Context,
    source: options.Source,
    deadline: options.Deadline = None,
    model: options.Model = None,
    output: options.Output = None,
    catalog: options.Catalog = None,
    on_infeasible: options.OnInfeasible = None,
    quality_floor: options.QualityFloor = None,
    method: options.Method = None,
    seed: options.Seed = None,
    width: options.Width = None,
    height: options.Height = None,
    num_frames: options.NumFrames = None,
    fps: options.Fps = None,
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    priority: options.Priority = None,
    pool: options.Pool = None,
    address: options.Address = None,
    local: options.Local = False,
    format: options.Format = None,
    ignore_columns: options.IgnoreColumns = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only plan; the same as `vidplat plan`.")
    ] = False,
    json: options.Json = False,
) -> int:
    """Make the videos of a prompt file by a deadline.

    Submitting the same file again finds what is finished and goes on from there. The first Ctrl-C
    finishes what is running, the second stops at once; `vidplat resume` goes on after either.
    """
    if dry_run:
        return answer_plan(context, json)
    from vidplat import platform

    config, request = config_of(context), request_of(context)
    with RunDisplay(quiet=json) as display:
        result = platform.submit(request, config, display)
    return conclude(result, config, json)
