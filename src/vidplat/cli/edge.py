"""The edge of the process: every end of a command passes here and becomes one message and one exit
code.

The codes are those of `errors.ExitCode`. What vidplat can explain (`errors.VidplatError`) is one
message on stderr, or one JSON object on stdout with `--json`. What it cannot is one line and the
path of a log file with the traceback; the global option `--debug` shows the traceback instead.

Stands before rich and typer: it imports neither, since it must work when they do not.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

from vidplat.errors import ExitCode, InputError, UsageError, VidplatError, printable


def run(command: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> int:
    """Run `command(arguments)`; whatever happens, return an exit code and leave no traceback on the
    screen.

    The command returns an exit code or None (0), or raises.
    """
    _never_choke_on_a_character()
    wants_json, wants_traceback = "--json" in arguments, "--debug" in arguments
    try:
        code = command(arguments)
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `vidplat ls | head`: the reader has seen enough
        _forget_stdout()
        return ExitCode.ERROR
    except VidplatError as error:
        _tell(error, wants_json)
        return error.exit_code
    except Exception as error:
        if wants_traceback:
            traceback.print_exc()
            return ExitCode.ERROR
        return _tell_the_unexpected(error, wants_json)


def _tell(error: VidplatError, wants_json: bool) -> None:
    problems = list(error.problems) if isinstance(error, InputError) else []
    message = _lines(error)
    if wants_json:
        facts: dict[str, Any] = {
            "kind": type(error).__name__,
            "message": message,
            "exit_code": error.exit_code,
            "retry_can_help": error.retry_can_help,
        }
        if problems:
            facts["problems"] = [_lines(problem) for problem in problems]
        print(json.dumps({"error": facts}, indent=2))
        return
    print(f"{_red('error:')} {message}", file=sys.stderr)
    for problem in problems:
        print(f"  {_lines(problem)}", file=sys.stderr)


def _tell_the_unexpected(error: Exception, wants_json: bool) -> int:
    if (
        isinstance(error, OSError)
        and error.errno in (ENOSPC, EIO)
        and error.filename is None
        and _stdout_is_broken()
    ):
        _forget_stdout()
        print(
            f"{_red('error:')} cannot write to standard output: {error.strerror}", file=sys.stderr
        )
        return ExitCode.ERROR
    where = _keep_traceback(error)
    summary = f"{type(error).__name__}: {_lines(error) or 'no message'}"
    told = f"vidplat met something it did not expect: {summary} (the traceback is in {where})"
    if wants_json:
        facts = {
            "kind": "Unexpected",
            "message": told,
            "exit_code": ExitCode.ERROR,
            "retry_can_help": False,
            "log": where,
        }
        print(json.dumps({"error": facts}, indent=2))
    else:
        print(f"{_red('error:')} {told}", file=sys.stderr)
    return ExitCode.ERROR


def _keep_traceback(error: Exception) -> str:
    """Write the traceback, without secrets, to a file; returns its path, or why there is none."""
    text = "".join(traceback.format_exception(error))
    safe = "\n".join(printable(line, 2000) for line in text.split("\n"))
    name = f"vidplat-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (Path(".vidplat") / "logs", Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            if folder.parent.is_dir():
                folder.mkdir(exist_ok=True)
                path = folder / name
                path.write_text(safe, encoding="utf-8")
                return str(path)
    return "no file: neither .vidplat/logs nor the temporary folder can be written; use --debug"


def _lines(text: object) -> str:
    return "\n".join(printable(line, 2000) for line in str(text).split("\n")).strip()


def _red(text: str) -> str:
    colour = (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    return f"\x1b[1;31m{text}\x1b[0m" if colour else text


def _never_choke_on_a_character() -> None:
    """A terminal that cannot show an emoji gets its escape instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _stdout_is_broken() -> bool:
    """Asked by writing an empty line: what was in the buffer when it broke is gone already."""
    try:
        print(flush=True)
    except (OSError, ValueError):
        return True
    return False


def _forget_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at exit does not complain too."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage(message: str, hint: str = "") -> UsageError:
    """A wrong option or value, with what to try."""
    return UsageError(f"{message}\n{hint}" if hint else message)
