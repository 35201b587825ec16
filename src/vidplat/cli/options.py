"""The options several verbs share, each with one spelling and one help text."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from vidplat.cli.reach import complete_batch

# An option that is left out is None, and its help says what holds then.
option = partial(typer.Option, show_default=False)
argument = partial(typer.Argument, show_default=False)

Catalog = Annotated[
    str | None,
    option(
        "--catalog",
        metavar="URL",
        help="Where jobs are remembered: sqlite:///path or postgresql://... [VIDPLAT_CATALOG; "
        "default: .vidplat/catalog.db here]",
    ),
]
Output = Annotated[
    str | None,
    option(
        "--output",
        "-o",
        metavar="URL",
        help="Where videos go: a folder or s3://bucket/prefix. [VIDPLAT_OUTPUT; default: "
        "./renders]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
BatchId = Annotated[
    str | None,
    argument(
        metavar="BATCH",
        help="A batch id or the start of one. Default: the latest.",
        autocompletion=complete_batch,
    ),
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job id, the start of one, or your own id from the prompt file."
    ),
]
OneJob = Annotated[str | None, option("--job", metavar="JOB", help="This job only.")]
InBatch = Annotated[str | None, option("--batch", metavar="BATCH", help="Look in this batch only.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="A parquet, CSV, JSONL or text file (one prompt a line), a URL of one, or - for "
        "stdin.",
    ),
]
Format = Annotated[
    str | None,
    option(
        "--format", metavar="NAME", help="parquet, csv, jsonl or txt, if the name does not say."
    ),
]
IgnoreColumns = Annotated[
    str | None,
    option(
        "--ignore-columns",
        metavar="A,B",
        help="Columns of PROMPTS to leave out, such as a caption set's own video,fps.",
    ),
]
Deadline = Annotated[
    str | None,
    option(
        "--deadline",
        "-d",
        metavar="WHEN",
        help="60s, 90m, 6h, 1h30m; 06:00 (the next one here); or ISO 8601. Counts from submit.",
    ),
]
Model = Annotated[
    str | None,
    option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A name of `vidplat models`, a folder, or a hub id. [default: flipbook]",
    ),
]
MeasuredModel = Annotated[str, typer.Argument(metavar="MODEL", help="As for --model of submit.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
OnInfeasible = Annotated[
    str | None,
    option(
        "--on-infeasible",
        metavar="reject|degrade|best-effort",
        help="When not every video can be made in time. [default: degrade]",
    ),
]
QualityFloor = Annotated[
    float | None,
    option("--quality-floor", metavar="Q", help="Least acceptable predicted quality, 0 to 1."),
]
Method = Annotated[
    str | None,
    option("--method", metavar="NAME", help="Force how videos are made: full, steps:12, eco:5."),
]
Seed = Annotated[int | None, option("--seed", help="Base seed for rows that give none.")]
Width = Annotated[int | None, option("--width", help="Pixels.")]
Height = Annotated[int | None, option("--height", help="Pixels.")]
NumFrames = Annotated[int | None, option("--num-frames", help="Frames per video.")]
Fps = Annotated[int | None, option("--fps", help="Frames per second.")]
Steps = Annotated[int | None, option("--steps", help="Denoising steps at full quality.")]
GuidanceScale = Annotated[
    float | None, option("--guidance-scale", help="How strictly to follow the prompt.")
]
Pool = Annotated[
    list[str] | None,
    option(
        "--pool",
        metavar="NAME=WORKERS[:THREADS][:light][,gpus=N]",
        help="Workers of a pool; repeat for more. [default: cloud=1 edge=1]",
    ),
]
Priority = Annotated[int | None, option("--priority", help="Higher goes first.")]
Address = Annotated[
    str | None,
    option(
        "--address",
        metavar="ADDRESS",
        help="A running Ray cluster to use. [RAY_ADDRESS; default: start one here]",
    ),
]
Local = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
