"""Files of ours outside the catalog and the output prefix: written whole, and through no link.

They may lie in a folder that others write too (a shared working directory, /tmp). So no name of a
file that is being written can be guessed, none that is there already is opened, and no link in its
place is followed.

Left to others: what is in the files, and what a person is told when they cannot be written.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_new(path: Path, pieces: Iterable[bytes], mode: int) -> None:
    """A file that was not there before. Raises OSError, and leaves no half of it behind."""
    file = os.open(path, _NEW, mode)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.writelines(pieces)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """All of a file or none of it, folders above it included; an old one stays until then. What is
    no file, such as /dev/stdout, is written as it is. Raises OSError."""
    if path.exists() and not path.is_file():
        with path.open("wb") as opened:
            opened.writelines(pieces)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.partial")
    write_new(partial, pieces, 0o666)
    try:
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_private(folder: Path, name: str, data: bytes) -> Path | None:
    """A file that its owner alone can read: in `folder` if that is ours, else in a new folder of
    the temporary one. None when neither can be written."""
    with suppress(OSError):
        if folder.parent.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_ours(folder.parent) and _is_ours(folder):
                write_new(folder / name, [data], 0o600)
                return folder / name
    with suppress(OSError):
        path = Path(tempfile.mkdtemp(prefix="vidplat-")) / name
        write_new(path, [data], 0o600)
        return path
    return None


def _is_ours(folder: Path) -> bool:
    """A real folder of this user, which not everybody may write."""
    about = folder.lstat()
    is_open = about.st_mode & stat.S_IWOTH
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not is_open
