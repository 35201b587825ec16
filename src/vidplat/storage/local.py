"""A folder as a store.

Every write goes to a hidden file beside its target and takes its name in one step: `rename` to
overwrite, `link` to create only if absent. So a name that can be seen has all its bytes, also after
`kill -9`.

There is no fsync: it would cost tens of milliseconds per video. The price is named: after a power
cut the newest names may stand for empty or stale bytes. COMMIT.json holds size and SHA-256 of each
file, and `artifacts.repair` compares them on resume; what does not agree is generated again.

Folders appear with their first object and disappear with their last.
Left to others: free-space checks before a run (doctor). Not promised: order between machines that
share the folder over a network file system with weak caching.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vidplat.errors import StoreError, printable
from vidplat.storage.stores import PARTIAL, NotFound, ObjectFacts, checked_key

_FULL = {errno.ENOSPC, errno.EDQUOT}
_PATIENCE = 20  # times to make a folder that another writer keeps removing as empty
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class LocalStore:
    """Files below `root`, which is made on the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._made: set[Path] = set()  # folders known to exist, to spare a system call per file

    @property
    def url(self) -> str:
        return str(self._root)

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        target = self._path(key)
        partial = self._written_beside(target, data)
        self._in_place(partial, lambda: partial.replace(target))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        partial = self._written_beside(target, data)
        try:
            self._in_place(partial, lambda: target.hardlink_to(partial))
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        return True

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise self._explained(error, key) from error

    def facts(self, key: str, *, digest: bool = True) -> ObjectFacts | None:
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                about = os.fstat(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest() if digest else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explained(error, key) from error
        return ObjectFacts(about.st_size, sha256, about.st_mtime)

    def sizes(self, keys: Collection[str]) -> dict[str, int]:
        found = {}
        for key in keys:
            try:
                found[key] = os.stat(f"{self._root}/{checked_key(key)}").st_size  # noqa: PTH116
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._explained(error, key) from error
        return found

    def move(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        for _ in range(_PATIENCE):
            try:
                self._make_folder(new.parent)
                old.replace(new)
            except FileNotFoundError as error:
                if not old.exists():
                    raise self._explained(error, source) from error
                self._made.discard(new.parent)  # somebody removed the target's folder as empty
            except OSError as error:
                raise self._explained(error, source) from error
            else:
                return self._remove_empty_folders(old.parent)
        raise self._restless(new.parent)

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._explained(error, key) from error
        self._remove_empty_folders(path.parent)

    def list(self, prefix: str = "") -> Iterator[str]:
        start, above = self._path(prefix) if prefix else self._root, len(f"{self._root}/")
        for here, names in self._files_below(start):
            folder = here[above:]
            for name in names:
                if not name.startswith(PARTIAL):
                    yield f"{folder}/{name}" if folder else name

    def uri(self, key: str) -> str:
        return str(self._path(key))

    def impatient(self) -> LocalStore:
        return self

    def sweep_unfinished(self, prefix: str, older_than_s: float) -> int:
        removed = 0
        oldest_kept = time.time() - older_than_s
        start = self._path(prefix) if prefix else self._root
        for here, names in self._files_below(start):
            for path in (Path(here, name) for name in names if name.startswith(PARTIAL)):
                try:
                    if path.stat().st_mtime <= oldest_kept:
                        path.unlink()
                        removed += 1
                except FileNotFoundError:
                    continue  # its writer finished meanwhile
                self._remove_empty_folders(path.parent)
        return removed

    # --- one step each ---------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _written_beside(self, target: Path, data: bytes) -> Path:
        """A hidden file with all of `data`, in the folder of `target`."""
        partial = target.parent / f"{PARTIAL}{secrets.token_hex(8)}"
        for _ in range(_PATIENCE):
            try:
                self._make_folder(target.parent)
                with partial.open("xb", buffering=0) as file:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[file.write(rest) :]
                return partial
            except FileNotFoundError:  # somebody removed the folder as empty: make it again
                self._made.discard(target.parent)
            except OSError as error:
                self._drop(partial)
                raise self._explained(error, target) from error
        raise self._restless(target.parent)

    def _in_place(self, partial: Path, step: Callable[[], object]) -> None:
        try:
            step()
        except FileExistsError:
            raise
        except OSError as error:
            self._drop(partial)
            raise self._explained(error, partial.parent) from error

    @staticmethod
    def _drop(partial: Path) -> None:
        """Remove a half-written file; if even that fails, `sweep_unfinished` will."""
        with suppress(OSError):
            partial.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Raises FileNotFoundError when somebody removes it as empty: worth another try."""
        if folder in self._made:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            # Said of a file that is in the way, but also of a folder that is gone when mkdir looks
            # once more.
            if not stat.S_ISDIR(folder.stat().st_mode):  # raises FileNotFoundError by itself
                raise
            raise FileNotFoundError(errno.ENOENT, "removed as empty", str(folder)) from error
        self._made.add(folder)

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._root and self._root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or gone already
            self._made.discard(folder)
            folder = folder.parent

    def _files_below(self, folder: Path) -> Iterator[tuple[str, Sequence[str]]]:
        """Each folder and the names of the files in it. Texts: a `Path` per file takes longer."""

        def unread(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise self._explained(error, folder) from error

        for here, _, names in os.walk(folder, onerror=unread):
            yield here, names

    @staticmethod
    def _restless(folder: Path) -> StoreError:
        return StoreError(f"the folder {printable(folder)} cannot be made, or vanishes at once")

    def _explained(self, error: OSError, where: object) -> StoreError:
        place = printable(self._root)
        if isinstance(error, FileNotFoundError):
            return NotFound(f"{printable(where)} does not exist in {place}")
        if error.errno in _FULL:
            return StoreError(
                f"the disk of {place} is full: free some space, or choose another output prefix"
            )
        if error.errno in _FORBIDDEN:
            return StoreError.lasting(
                f"{place} cannot be written ({error.strerror}): choose another output prefix"
            )
        if isinstance(error, FileExistsError | NotADirectoryError):
            return StoreError.lasting(
                f"{place} cannot be used as a folder: a file is in the way ({error.strerror})"
            )
        return StoreError(f"{place}: {printable(error.strerror or error)}")
