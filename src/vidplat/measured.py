"""Where this machine's user keeps what was measured about a model: one folder per revision of its weights.

`$VIDPLAT_MEASURED`, else `vidplat/models` under the user's data folder (`$XDG_DATA_HOME` or `~/.local/share`). A model
directory's own files, as the embedded model ships, are used where the user has measured nothing. Written by
`vidplat bench` and `vidplat profile`; read whenever a model is described.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_REVISION = re.compile(r"[0-9A-Za-z._-]{1,80}")


def folder(revision: str) -> Path:
    """The folder of one revision; it need not exist. Raises `ValueError` for a text that could leave its prefix."""
    if not _REVISION.fullmatch(revision) or revision.startswith("."):
        raise ValueError(f"not a revision: {revision!r}")
    told = os.environ.get("VIDPLAT_MEASURED")
    if told:
        return Path(told).expanduser() / revision
    data = os.environ.get("XDG_DATA_HOME")
    base = Path(data).expanduser() if data else Path.home() / ".local" / "share"
    return base / "vidplat" / "models" / revision


def find(name: str, revision: str, model_root: Path) -> Path | None:
    """The user's own file of that name, else the one that lies beside the model, else None."""
    for path in (folder(revision) / name, model_root / name):
        if path.is_file():
            return path
    return None
