"""The token by which a Ray cluster knows its user: found, or made so that nobody else can read it.

Ray looks for it in `RAY_AUTH_TOKEN`, in the file that `RAY_AUTH_TOKEN_PATH` names, and in
`~/.ray/auth_token`, and asks whether to use one in `RAY_AUTH_MODE`, when it is imported. Whoever
sets that variable has decided; here it is only filled in.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

_MODE = "RAY_AUTH_MODE"


def offer_token() -> None:
    """Show the token of this user, if there is one, to clusters that are attached to. To be called
    before Ray is imported."""
    if "ray" not in sys.modules and (_is_given() or _file().is_file()):
        os.environ.setdefault(_MODE, "token")


def keep_token() -> None:
    """See that there is a token for a cluster that is started here, for this user's eyes alone: the
    file that Ray would write could be read by all."""
    if _is_given() or os.environ.get(_MODE, "token") != "token":
        return
    file = _file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with suppress(FileExistsError), os.fdopen(os.open(file, flags, 0o600), "w") as new:
        new.write(secrets.token_hex(32))
    with suppress(OSError):  # somebody else's to change
        file.chmod(0o600)


def _is_given() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def _file() -> Path:
    return Path.home() / ".ray" / "auth_token"
