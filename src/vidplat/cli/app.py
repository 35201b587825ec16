"""The list of commands, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vidplat import __version__
from vidplat.cli import (
    cancel,
    doctor,
    edge,
    export,
    logs,
    ls,
    models,
    plan,
    report,
    resume,
    retry,
    show,
    status,
    submit,
    watch,
)
from vidplat.errors import UsageError

app = typer.Typer(
    name="vidplat",
    help="Thousands of text-to-video prompts, rendered by a deadline, on whatever machines you have.",
    epilog="Start with: vidplat submit examples/prompts.parquet --deadline 60s",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for panel, verbs in {
    "Make videos": (plan.plan, submit.submit, resume.resume, retry.retry, cancel.cancel),
    "Look": (status.status, watch.watch, ls.ls, show.show, logs.logs),
    "Take away": (report.report, export.export),
    "Surroundings": (models.models, doctor.doctor),
}.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)


@app.callback(invoke_without_command=True)
def vidplat(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of keeping them in a file.")] = False,
) -> None:
    if version:
        print(f"vidplat {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """The `vidplat` command; returns its exit code and lets no exception pass."""
    return edge.run(_run, sys.argv[1:] if arguments is None else arguments)


def _run(arguments: Sequence[str]) -> Any:
    try:
        return typer.main.get_command(app).main(list(arguments), prog_name="vidplat", standalone_mode=False)
    except typer.Abort:
        return edge.INTERRUPTED
    except typer.TyperException as error:  # its own words for a wrong option, in our one form
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "vidplat"
        raise UsageError(f"{error.format_message()}\nTry: {verb} --help") from error
