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

import os
import re
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import Self

#: A host with a port, which is no user with a password.
_HOST_PORT = r"(?:localhost|[\w-]+(?:\.[\w-]+)+|\[[\da-fA-F:.]+\]):\d{1,5}(?:[/?#\s]|$)"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
# A password reaches to the last @ of its word: people forget to percent-encode @, / and the like.
_USERS = (
    re.compile(rf"((?:{_SCHEME}/{{1,3}})?(?!{_HOST_PORT})[^\s:@/?#'\"]*:)(?!/)\S*(?=@)"),
    re.compile(rf"({_SCHEME}//(?!{_HOST_PORT})[^\s:@/?#]*:)(?!\d{{1,5}}\b)[^@\n]*\s[^@\n]*(?=@)"),
    # a token instead of a name
    re.compile(rf"((?<![\w+.-])(?!postgres){_SCHEME}//)[^\s:@/?#]+(?=@)"),
)
_OPTIONS = re.compile(rf"({_SCHEME}/[^\s?]*\?)([^\s#]*[^\s#)'\">.,:;])")
_PLAIN_OPTIONS = ("endpoint", "region")
_VALUES = re.compile(
    r"((?:(?i:secret|passw(?:or)?d|passphrase|token|signature|credential|authorization"
    r"|a(?:pi|ccess)[_-]?key)(?:[_-][\w-]*|[A-Z]\w*|s)?|\b(?i:sig|pwd|pass)(?=[=:]))"
    # a plural before a colon and a blank is a word of ours: "credentials: leave them out"
    r"(?:[\"']\s*[=:]\s*|\s?=\s*|:(?=\S)|(?<!s):\s*))"
    r"(?:\"[^\"]*\"|'[^']*'|(?:Basic|Bearer)\s+\S+|[^&\s]+)"
)
#: Libraries may repeat what they were given in these, whatever it stands beside.
_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PGPASSWORD", "RAY_AUTH_TOKEN",
)  # fmt: skip
_LONGEST_SECRET = 2000
# Of a variable's: "minioadmin" or "vidplat" is a word of other sentences, too.
_SECRET = re.compile(r".{16,}|(?=.*[^a-z]).{8,}")


def printable(text: object, limit: int = 200) -> str:
    """`text` fit for a terminal, a page or a log: escaped, shortened to `limit`, no secrets."""
    plain = _without_secrets(str(text)[: limit + _LONGEST_SECRET])
    shown = plain
    if not plain.isprintable():
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def told_traceback(error: BaseException) -> str:
    """As Python tells it, without secrets."""
    lines = "".join(traceback.format_exception(error)).split("\n")
    return "\n".join(printable(line, 2000) for line in lines)


def _without_secrets(text: str) -> str:
    for variable in _VARIABLES:
        for secret in os.environ.get(variable, "").split():
            if _SECRET.fullmatch(secret):
                text = text.replace(secret, "***")
    if "@" in text:
        for pattern in _USERS:
            text = pattern.sub(r"\1***", text)
    if "?" in text:
        text = _OPTIONS.sub(lambda m: m[1] + "&".join(map(_masked_option, m[2].split("&"))), text)
    return _VALUES.sub(r"\1***", text) if "=" in text or ":" in text else text


def _masked_option(option: str) -> str:
    """One `name=value` of a URL; a signed one may carry a secret under any name."""
    name, equals, _ = option.partition("=")
    return option if name in _PLAIN_OPTIONS else f"{name}=***" if equals else "***"


def plain_place(source: str) -> str:
    """A path as it is; a URL without user, options and fragment, which may hold a secret."""
    scheme, found, rest = source.partition("://")
    if not found or not re.fullmatch(_SCHEME, f"{scheme}:"):
        return source
    user = rf"(?s:(?!{_HOST_PORT})[^:@/?#]*:.*@|[^:@/?#]*@)"
    return f"{scheme}://{re.split(r'[?#]', re.sub(rf'^{user}', '', rest), maxsplit=1)[0]}"


def holds_loose_password(url: str) -> bool:
    """Whether a URL's password holds what ends it there, so that something else is read as the
    host."""
    user = re.match(r"[^:]*://(?![^:@/?#]*:\d{1,5}(?:[/?#]|$))[^:@/?#]*:(.*)@", url, re.DOTALL)
    return user is not None and re.search(r"[@/?#\s]", user[1]) is not None


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

    @classmethod
    def lasting(cls, message: str) -> Self:
        """One that lasts until a person changes something."""
        error = cls(message)
        error.retry_can_help = False
        return error


class StoreError(InfrastructureError): ...


class CatalogError(InfrastructureError): ...


class ClusterError(InfrastructureError): ...
