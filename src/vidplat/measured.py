"""Where a machine's user keeps what was measured of models: a folder per revision of weights.

`$VIDPLAT_MEASURED`, else `vidplat/models` under the user's data folder (`$XDG_DATA_HOME` or
`~/.local/share`). In the folder of a revision lie `profile.json`, written by `vidplat bench`, and
`masks/`, written by `vidplat profile`. A model directory may hold the same, as the embedded model
does; that is used where the user has measured nothing.

Left to others: what is in these files (`workers.models.catalogue`, `methods.vdit.mask_file`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidplat.config import in_home

MASKS = "masks"  # the folder of searched masks, in a revision's folder and beside a model

_REVISION = re.compile(r"[0-9A-Za-z._-]{1,80}")


def root() -> Path:
    """What holds the folders of all revisions; it need not exist."""
    told = os.environ.get("VIDPLAT_MEASURED")
    if told:
        return in_home(told, "VIDPLAT_MEASURED")
    base = in_home(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "XDG_DATA_HOME")
    return base / "vidplat" / "models"


def folder(revision: str) -> Path:
    """The folder of a revision, there or not. Raises ValueError for a text that could leave it."""
    if not _REVISION.fullmatch(revision) or revision.startswith("."):
        raise ValueError(f"not a revision: {revision!r}")
    return root() / revision


def content_sha256(document: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON document's canonical text: equal for equal content, whatever its layout."""
    plain = json.loads(json.dumps(document))  # keys become texts, as in a file, and sort like them
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
