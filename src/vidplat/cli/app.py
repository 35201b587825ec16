"""The list of commands, nothing else."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import typer

from vidplat import __version__, times
from vidplat.cli import ENTERED_AT, edge
from vidplat.cli.bench import bench
from vidplat.cli.cancel import cancel_jobs
from vidplat.cli.doctor import examine_surroundings
from vidplat.cli.export import export_batch
from vidplat.cli.grouped_help import GroupedHelp
from vidplat.cli.logs import show_logs
from vidplat.cli.ls import list_batches_or_jobs
from vidplat.cli.models import list_or_describe_models
from vidplat.cli.plan import plan_batch
from vidplat.cli.profile import profile
from vidplat.cli.report import write_report
from vidplat.cli.resume import resume_batch
from vidplat.cli.retry import retry_jobs
from vidplat.cli.show import show_job
from vidplat.cli.status import show_status
from vidplat.cli.submit import submit_batch
from vidplat.cli.watch import watch_batch
from vidplat.errors import ExitCode, UsageError

COMMANDS: dict[str, dict[str, Callable[..., int | None]]] = {
    "Make videos": {
        "plan": plan_batch,
        "submit": submit_batch,
        "resume": resume_batch,
        "retry": retry_jobs,
        "cancel": cancel_jobs,
    },
    "Look": {
        "status": show_status,
        "watch": watch_batch,
        "ls": list_batches_or_jobs,
        "show": show_job,
        "logs": show_logs,
    },
    "Take away": {"report": write_report, "export": export_batch},
    "Surroundings": {"models": list_or_describe_models, "doctor": examine_surroundings},
}

app = typer.Typer(
    name="vidplat",
    cls=GroupedHelp,
    help="Thousands of text-to-video prompts, rendered by a deadline, on whatever machines you "
    "have.",
    epilog="Start with: vidplat submit examples/prompts.parquet --deadline 60s",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: a third of the time, and [brackets] stay what they are
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, verbs in COMMANDS.items():
    for name, verb in verbs.items():
        app.command(name, rich_help_panel=panel)(verb)
app.add_typer(profile, name="profile", rich_help_panel="Surroundings")
app.add_typer(bench, name="bench", rich_help_panel="Surroundings")


@app.callback(invoke_without_command=True)
def vidplat(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks instead of keeping them in a file.")
    ] = False,
) -> None:
    if version:
        print(f"vidplat {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """The `vidplat` command; returns its exit code and lets no exception pass.

    Without arguments it is the process's own command line, whose deadline counts from when the
    process began, and which need not wait for threads that nobody waits for any more.
    """
    if arguments is None:
        code = edge.run(lambda given: _run(given, ENTERED_AT), sys.argv[1:])
        if any(thread.name.startswith("worker-") for thread in threading.enumerate()):
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
        return code
    return edge.run(lambda given: _run(given, times.now()), arguments)


@cache
def _command() -> Any:
    """All verbs with their options; making it takes longer than many a command."""
    return typer.main.get_command(app)


def _run(arguments: Sequence[str], entered_at: float) -> Any:
    try:
        code = _command().main(
            list(arguments), prog_name="vidplat", standalone_mode=False, obj=entered_at
        )
    except typer.TyperException as error:  # its own words for a wrong option, in our one form
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "vidplat"
        message = error.format_message().removesuffix("\n")
        raise UsageError(f"{message}\nTry: {verb} --help") from error
    # typer's word for a Ctrl-C that nobody told of; a verb that did returns an ExitCode.
    if code == ExitCode.INTERRUPTED and not isinstance(code, ExitCode):
        raise KeyboardInterrupt
    return code
