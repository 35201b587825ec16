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
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

from vidplat.errors import ExitCode, InputError, VidplatError, printable, told_traceback
from vidplat.files import write_private


def run(command: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> int:
    """Run `command(arguments)`; whatever happens, return an exit code and leave no traceback on the
    screen.

    The command returns an exit code or None (0), or raises.
    """
    _open_what_is_closed()
    _never_choke_on_a_character()
    wants_json, wants_traceback = "--json" in arguments, "--debug" in arguments
    try:
        code = command(arguments)
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        return interrupted(arguments)
    except BrokenPipeError:  # `vidplat ls | head`: the reader has seen enough
        _forget_stdout()
        return ExitCode.ERROR
    except VidplatError as error:
        _tell(wants_json, **_explained(error))
        return error.exit_code
    except Exception as error:
        if wants_traceback:
            print(told_traceback(error), end="", file=sys.stderr)
        elif _is_of_stdout(error):
            _forget_stdout()
            why = getattr(error, "strerror", "")
            _tell(False, message=f"cannot write to standard output: {why}")
        else:
            _tell(wants_json, **_unexpected(error))
        return ExitCode.ERROR


def interrupted(arguments: Sequence[str]) -> int:
    """Tell of a Ctrl-C, in the form that was asked for, where no run can be told of."""
    code, message = ExitCode.INTERRUPTED, "interrupted"
    if "--json" in arguments:
        _tell(True, kind="Interrupted", message=message, exit_code=code, retry_can_help=True)
    else:
        print(message, file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return code


def _tell(wants_json: bool, problems: Sequence[str] = (), **facts: Any) -> None:
    """One error: a JSON object on stdout, or its message and one line per problem on stderr."""
    if wants_json:
        if problems:
            facts["problems"] = problems
        print(json.dumps({"error": facts}, indent=2))
        return
    print(f"{_red('error:')} {facts['message']}", file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)


def _explained(error: VidplatError) -> dict[str, Any]:
    problems = error.problems if isinstance(error, InputError) else ()
    return {
        "kind": type(error).__name__,
        "message": _lines(error),
        "exit_code": error.exit_code,
        "retry_can_help": error.retry_can_help,
        "problems": [_lines(problem) for problem in problems],
    }


def _unexpected(error: Exception) -> dict[str, Any]:
    where = _keep_traceback(error)
    summary = f"{type(error).__name__}: {_lines(error) or 'no message'}"
    told = f"vidplat met something it did not expect: {summary} (the traceback is in {where})"
    return {
        "kind": "Unexpected",
        "message": told,
        "exit_code": ExitCode.ERROR,
        "retry_can_help": False,
        "log": where,
    }


def _is_of_stdout(error: Exception) -> bool:
    """Whether nothing more can be written: a full disk behind a redirection, say."""
    return (
        isinstance(error, OSError)
        and error.errno in (ENOSPC, EIO)
        and error.filename is None
        and _stdout_is_broken()
    )


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to a file that is the user's alone; its path, or why there is none."""
    name = f"vidplat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}.log"
    kept = write_private(Path(".vidplat") / "logs", name, told_traceback(error).encode())
    if kept is not None:
        return str(kept)
    return "no file: neither .vidplat/logs nor the temporary folder can be written; use --debug"


def _lines(text: object) -> str:
    return "\n".join(printable(line, 2000) for line in str(text).split("\n")).strip()


def _red(text: str) -> str:
    colour = (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    return f"\x1b[1;31m{text}\x1b[0m" if colour else text


def _open_what_is_closed() -> None:
    """Of a process that began without stdout or stderr. Else the next file that is opened would get
    its number, and what a library prints."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None and number:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123


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
