"""One tree of errors. Whether a retry can help is an attribute: nobody reads messages to decide.

    VidplatError
    ├── RequestError            the request is wrong; the same request will be wrong again  (exit 2)
    │   ├── UsageError              an option or its value
    │   ├── InputError              the prompt file, or rows of it (all listed at once)
    │   ├── ModelError              a model that is unknown, incomplete or refused for safety
    │   └── SpecError               a size, length or step count the model cannot make
    ├── JobError                this job failed                                             (exit 4)
    │   ├── OutOfMemoryError        one rung cheaper may fit
    │   └── MethodRefused           a method that a loaded model cannot be used with
    └── InfrastructureError     the surroundings failed; a retry can help                   (exit 1)
        ├── StoreError              object storage or a disk refused, vanished or is full
        ├── CatalogError            the SQL catalog: unreachable, locked, from a newer version
        └── ClusterError            Ray, or a worker of it

A message says what was needed, what was found, where, and what to do. Messages are single sentences
or short lists, safe to print: `printable` has been applied to everything that came from outside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

_SECRETS = re.compile(
    r"(?i)(://[^/\s:@]*:)[^@/\s]+(@)"
    r"|((?:(?:secret|password|token|signature|credential)[\w-]*|\bsig)[=:]\s*)[^&\s,;]+"
)


def printable(text: object, limit: int = 200) -> str:
    """`text` fit for a terminal, a page or a log: escaped, shortened to `limit`, no secrets."""
    plain = _SECRETS.sub(lambda m: f"{m[1]}***{m[2]}" if m[1] else f"{m[3]}***", str(text))
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def plain_place(source: str) -> str:
    """A path as it is; a URL without user, options and fragment, which may hold a secret."""
    scheme, found, rest = source.partition("://")
    if not found or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return source
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


class ExitCode(IntEnum):
    """What the command line ends with."""

    DONE = 0
    ERROR = 1
    USAGE = 2  # or bad input
    INFEASIBLE = 3
    SOME_FAILED = 4
    DEADLINE_MISSED = 5
    INTERRUPTED = 130


class VidplatError(Exception):
    """Anything vidplat can explain. `exit_code` is what the command line ends with."""

    exit_code = ExitCode.ERROR
    retry_can_help = False


class RequestError(VidplatError):
    exit_code = ExitCode.USAGE


class UsageError(RequestError): ...


class InputError(RequestError):
    """The prompt file is unusable, or some of its rows are. `problems` has one line per bad row."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ModelError(RequestError): ...


class SpecError(RequestError):
    """A VideoSpec that the model cannot make; the message has the rule and the nearest value."""


class JobError(VidplatError):
    exit_code = ExitCode.SOME_FAILED


class OutOfMemoryError(JobError):
    retry_can_help = True


class MethodRefused(JobError):
    """A loaded model, or its solver, and a method that do not go together for this video. Wrong as
    a request where somebody asked for the method by name; else the plan may choose another."""


class InfrastructureError(VidplatError):
    retry_can_help = True


class StoreError(InfrastructureError): ...


class CatalogError(InfrastructureError): ...


class ClusterError(InfrastructureError): ...
