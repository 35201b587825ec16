"""Models by hub id: found in the local hub cache, or downloaded into it. No torch.

Downloaded are only JSON, tokenizer files and safetensors, never pickles or code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from vidplat.config import in_home
from vidplat.errors import ModelError, printable

WANTED = ["*.json", "*.safetensors", "*/*.model", "*/*.txt"]


def looks_like_id(text: str) -> bool:
    """Whether `text` has the form owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", text) is not None


def snapshot(model_id: str) -> Path:
    """The local directory of a hub model, downloading what is missing. Raises `ModelError`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, allow_patterns=WANTED))
    except LocalEntryNotFoundError as problem:
        if (cached := dict(cached_pipelines()).get(model_id)) is not None:
            return cached
        raise ModelError(
            f"{printable(model_id)} is not in the hub cache and the hub cannot be reached: "
            "connect, or copy the model here and give its directory"
        ) from problem
    except Exception as problem:  # of many kinds; each means: no such model for us
        reason = printable((str(problem).strip() or type(problem).__name__).splitlines()[0])
        raise ModelError(f"cannot fetch {printable(model_id)} from the hub: {reason}") from problem


def cached_pipelines() -> Iterator[tuple[str, Path]]:
    """(id, directory) of each pipeline in the local hub cache: the snapshot of its main branch, or
    the newest where none is known to be that."""
    home = in_home(os.environ.get("HF_HOME", "~/.cache/huggingface"), "HF_HOME")
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    for repo in sorted(cache.glob("models--*--*")):
        snapshots = [path.parent for path in repo.glob("snapshots/*/model_index.json")]
        main = repo / "refs" / "main"
        named = main.read_text("utf-8").strip() if main.is_file() else ""
        if snapshots:
            yield (
                repo.name.removeprefix("models--").replace("--", "/"),
                max(snapshots, key=lambda path: (path.name == named, path.stat().st_mtime)),
            )
