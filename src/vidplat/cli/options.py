"""The options several verbs share, each with one spelling and one help text."""

from __future__ import annotations

from typing import Annotated

import typer

from vidplat.cli.reach import complete_batch

Catalog = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        metavar="URL",
        help="Where jobs are remembered: sqlite:///path or postgresql://... [VIDPLAT_CATALOG; "
        "default: .vidplat/catalog.db here]",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="URL",
        help="Where videos go: a folder or s3://bucket/prefix. [VIDPLAT_OUTPUT; default: "
        "./renders]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
BatchId = Annotated[
    str | None,
    typer.Argument(
        metavar="BATCH",
        help="A batch id or the start of one. Default: the latest.",
        show_default=False,
        autocompletion=complete_batch,
    ),
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job id, the start of one, or your own id from the prompt file."
    ),
]
InBatch = Annotated[
    str | None,
    typer.Option("--batch", metavar="BATCH", help="Look in this batch only.", show_default=False),
]
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
    typer.Option(
        "--format",
        metavar="NAME",
        help="parquet, csv, jsonl or txt, if the name does not say.",
        show_default=False,
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        "--deadline",
        "-d",
        metavar="WHEN",
        help="60s, 90m, 6h, 1h30m; 06:00 (the next one here); or ISO 8601. Counts from submit.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A name of `vidplat models`, a folder, or a hub id. [default: flipbook]",
        show_default=False,
    ),
]
OnInfeasible = Annotated[
    str | None,
    typer.Option(
        "--on-infeasible",
        metavar="reject|degrade|best-effort",
        help="When not every video can be made in time. [default: degrade]",
        show_default=False,
    ),
]
QualityFloor = Annotated[
    float | None,
    typer.Option(
        "--quality-floor",
        metavar="Q",
        help="Least acceptable predicted quality, 0 to 1.",
        show_default=False,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="Force how videos are made: full, steps:12, eco:5.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Base seed for rows that give none.", show_default=False),
]
Width = Annotated[int | None, typer.Option("--width", help="Pixels.", show_default=False)]
Height = Annotated[int | None, typer.Option("--height", help="Pixels.", show_default=False)]
NumFrames = Annotated[
    int | None, typer.Option("--num-frames", help="Frames per video.", show_default=False)
]
Fps = Annotated[int | None, typer.Option("--fps", help="Frames per second.", show_default=False)]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Denoising steps at full quality.", show_default=False)
]
GuidanceScale = Annotated[
    float | None,
    typer.Option("--guidance-scale", help="How strictly to follow the prompt.", show_default=False),
]
Pool = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        metavar="NAME=WORKERS[:THREADS][:light]",
        help="Workers of a pool; repeat for more. [default: cloud=1 edge=1]",
        show_default=False,
    ),
]
Priority = Annotated[
    int | None, typer.Option("--priority", help="Higher goes first.", show_default=False)
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="A running Ray cluster to use. [RAY_ADDRESS; default: start one here]",
        show_default=False,
    ),
]
Local = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
