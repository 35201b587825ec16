"""`vidplat plan`: what submit would promise, before anything is loaded, stored or started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from vidplat.cli import documents, options, phrases, render
from vidplat.cli.progress import RunDisplay
from vidplat.cli.request import config_of, request_of
from vidplat.errors import ExitCode

if TYPE_CHECKING:
    from vidplat.platform.interface import PlanAnswer


def plan_batch(
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
    json: options.Json = False,
) -> int:
    """Say what can be made by the deadline, and how well.

    Reads the rows and what is known of costs; stores nothing, loads no model, starts no worker.
    """
    return answer_plan(context, json)


def answer_plan(context: typer.Context, json: bool) -> int:
    """Ask the platform and print its answer; exit code 3 when it is a no."""
    from vidplat import platform

    with RunDisplay(quiet=True) as display:
        answer = platform.plan_only(request_of(context), config_of(context), display)
    if json:
        render.print_json(documents.of_answer(answer))
    else:
        _print(answer)
    return ExitCode.DONE if answer.answer.admitted else ExitCode.INFEASIBLE


def _print(answer: PlanAnswer) -> None:
    said = answer.answer
    style = {"feasible": "green", "degraded": "yellow", "infeasible": "red"}[said.verdict.value]
    render.say(said.headline, style=style)
    for line in dict.fromkeys(said.details):
        render.say(f"  {line}")
    if answer.reused:
        render.say(
            f"  {phrases.count(answer.reused, 'video')} of {answer.jobs:,} exist already and "
            "cost nothing"
        )
    shares = documents.of_answer(answer)["shares"]
    if shares:
        render.say()
        render.print_table(
            ["POOL", "MADE WITH", "VIDEOS", "EACH", "QUALITY"],
            [
                (
                    share["pool"],
                    share["point"],
                    f"{share['jobs']:,}",
                    phrases.seconds(share["p50_s"] / share["jobs"]),
                    phrases.quality(share["mean_quality"]),
                )
                for share in shares
            ],
            right=("VIDEOS", "EACH", "QUALITY"),
        )
    sys.stdout.flush()
