"""How a finished video becomes an artifact: exactly one per job, whole or not at all, whoever dies
when.

Several workers may finish the same job (a lease ran out, a platform was restarted). This is the
order:

    1. write    video, poster and sidecar into a folder that only this attempt uses; the store
                answers when it has all of each, checked by its digest
    2. commit   COMMIT.json by one conditional put: the commit point, won by exactly one attempt

    batches/<batch>/jobs/<2 hex>/<job>/<attempt>-<token>/{poster.jpg,meta.json,video.mp4}
    batches/<batch>/jobs/<2 hex>/<job>/COMMIT.json

What COMMIT.json names is the video; a folder that no COMMIT.json names is nothing to anybody.
Whoever dies before 2 leaves such a folder, which `sweep` removes. A second finisher loses politely:
it removes its own files and returns the winner's artifact.

Version 1 wrote `.attempt-<attempt>-<token>-video.mp4` beside COMMIT.json and moved it to
`video.mp4` after the commit. `repair` reads such a commit, and finishes its moves.

Left to others: the catalog row (the platform writes it after `commit` returns, and reconciles with
`committed_jobs` and `repair` after a crash), and storing again what a store refused. Not promised:
two reconcilers of one batch at the same time.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from vidplat.domain import Artifact
from vidplat.errors import StoreError, printable
from vidplat.storage.stores import NotFound, Store, checked_key

VIDEO, META, POSTER = "video.mp4", "meta.json", "poster.jpg"
_FILES = {POSTER: "image/jpeg", META: "application/json", VIDEO: "video/mp4"}  # as they are written
_COMMIT = "COMMIT.json"
_VERSION = 2  # of COMMIT.json
_FOLDER = re.compile(r"[0-9]+-[A-Za-z0-9]+")
# What only one attempt writes, below a job's folder; the second kind by version 1.
_OF_ATTEMPT = re.compile(
    rf"(?P<folder>{_FOLDER.pattern})/({'|'.join(map(re.escape, _FILES))})|\.attempt-[^/]+"
)
_FEW_JOBS = 100  # are asked for one by one; to list a batch takes a request for each 250 jobs

#: Where `commit` can be interrupted: it calls `at(name)` when it gets there. Tests die at each of
#: them.
POINTS = ("before-write", *(f"{name}-written" for name in _FILES), "committed")


@dataclass(frozen=True)
class Commit:
    """The end of a commit: whose it is, where the bytes are, and the sidecar's facts."""

    won: bool  # False: another attempt had committed this job already; `artifact` is that attempt's
    artifact: Artifact
    facts: Mapping[str, Any]  # what meta.json holds


@dataclass(frozen=True)
class _File:
    """One file, in the words of COMMIT.json."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Record:
    """What COMMIT.json says."""

    attempt: int
    token: str
    folder: str  # of the files, in the job's; "" where version 1 left them beside COMMIT.json
    files: Mapping[str, _File]  # by name
    meta: Mapping[str, Any]


def batch_folder(batch_id: str) -> str:
    """Key of the folder that holds everything of a batch: manifest, metrics, report and jobs/."""
    return checked_key(f"batches/{batch_id}")


def job_folder(batch_id: str, job_id: str) -> str:
    """Key of the folder that holds one job's files; sharded by the first two digits of its id."""
    return checked_key(f"batches/{batch_id}/jobs/{job_id[:2]}/{job_id}")


def commit(
    store: Store,
    *,
    batch_id: str,
    job_id: str,
    attempt: int,
    token: str,
    video: bytes,
    poster: bytes,
    meta: Mapping[str, Any],
    at: Callable[[str], object] = lambda point: None,
) -> Commit:
    """Make `video` the artifact of the job, or learn whose is.

    `token` is the attempt's fencing token: two processes that both believe to run attempt 1 have
    different ones. `meta` must be JSON. `at` is called with each name in POINTS when it is reached.

    Raises StoreError when the store fails. While writing, the attempt's files are then removed as
    far as possible; at the commit point nobody knows whether it was reached, and they stay. In both
    cases the same call, with the same token, goes on from there.
    """
    folder = job_folder(batch_id, job_id)
    sidecar = json.dumps(
        meta, ensure_ascii=False, allow_nan=False, sort_keys=True, default=str, indent=1
    ).encode()
    content = {POSTER: poster, META: sidecar, VIDEO: video}
    record = _Record(
        attempt,
        token,
        f"{attempt}-{token}",
        {name: _File(len(data), _sha256(data)) for name, data in content.items()},
        json.loads(sidecar),
    )
    # 1. write
    at("before-write")
    try:
        for name, kind in _FILES.items():
            store.put(_key(folder, record, name), content[name], content_type=kind)
            at(f"{name}-written")
    except StoreError:
        with suppress(StoreError):
            _remove(store.impatient(), folder, record)
        raise
    # 2. commit
    winner = _winner(store, folder, record)
    at("committed")
    won = (winner.attempt, winner.token) == (attempt, token)
    if not won:
        _remove(store, folder, record)
    return _as_commit(store, folder, winner, won)


def repair(store: Store, batch_id: str, job_id: str) -> Commit | None:
    """What is committed, once each file was checked against its SHA-256.

    None: nothing is committed; also when files are lost or damaged (a power cut), in which case
    COMMIT.json is removed and the job has to be made again. Safe to repeat, and beside a commit of
    the same job.
    """
    folder = job_folder(batch_id, job_id)
    record = _intact(store, folder)
    return _as_commit(store, folder, record, won=False) if record else None


def committed_jobs(
    store: Store, batch_id: str, jobs: Collection[str] | None = None
) -> Iterator[str]:
    """Ids of the jobs of a batch, or of these, that have a COMMIT.json, in any order."""
    if jobs is not None and len(jobs) <= _FEW_JOBS:
        for job_id in jobs:
            if store.facts(f"{job_folder(batch_id, job_id)}/{_COMMIT}", digest=False):
                yield job_id
        return
    wanted = None if jobs is None else frozenset(jobs)
    for key in store.list(_jobs_folder(batch_id)):
        *_, job_id, name = key.split("/")
        if name == _COMMIT and (wanted is None or job_id in wanted):
            yield job_id


def sweep(
    store: Store, batch_id: str, older_than_s: float, jobs: Collection[str] | None = None
) -> int:
    """Remove files of attempts that ended without a commit, once they are that old; how many.

    Choose an age well above the longest upload: a younger attempt may be alive. `jobs`: look at
    these alone, which spares listing the whole batch where they are few.
    """
    wanted = None if jobs is None else frozenset(jobs)
    writing, places = [batch_folder(batch_id)], [_jobs_folder(batch_id)]
    if wanted is not None and len(wanted) <= _FEW_JOBS:
        writing = places = [job_folder(batch_id, job_id) for job_id in sorted(wanted)]
    oldest_kept = time.time() - older_than_s
    removed = sum(store.sweep_unfinished(place, older_than_s) for place in writing)
    for place in places:
        for folder, names in _by_folder(store, batch_id, place).items():
            if wanted is None or folder.rpartition("/")[2] in wanted:
                removed += _sweep_job(store, folder, names, oldest_kept)
    return removed


# --- sweeping -------------------------------------------------------------------------------------


def _by_folder(store: Store, batch_id: str, place: str) -> dict[str, list[str]]:
    """The names below each job's folder, of what lies below `place`."""
    found: dict[str, list[str]] = {}
    above = len(_jobs_folder(batch_id).split("/")) + 2  # the two digits and the job
    for key in store.list(place):
        parts = key.split("/")
        found.setdefault("/".join(parts[:above]), []).append("/".join(parts[above:]))
    return found


def _sweep_job(store: Store, folder: str, names: Collection[str], oldest_kept: float) -> int:
    of_attempts = {
        name: found["folder"] for name in names if (found := _OF_ATTEMPT.fullmatch(name))
    }
    attempts = set(of_attempts.values())
    is_lone = len(attempts) == 1 and None not in attempts
    if is_lone and _COMMIT in names and VIDEO not in names:
        return 0  # the one that is committed: no need to read that
    old = [name for name in of_attempts if _is_older(store, f"{folder}/{name}", oldest_kept)]
    if not old:
        return 0
    record = _intact(store, folder)  # which first finishes what version 1 may have left
    kept = record.folder if record else None
    rubbish = [f"{folder}/{name}" for name in old if kept is None or of_attempts[name] != kept]
    rubbish = [key for key in rubbish if store.facts(key, digest=False) is not None]
    for key in rubbish:
        store.delete(key)
    return len(rubbish)


def _is_older(store: Store, key: str, oldest_kept: float) -> bool:
    facts = store.facts(key, digest=False)
    return facts is not None and facts.modified_at <= oldest_kept


# --- the commit point and what it names -----------------------------------------------------------


def _winner(store: Store, folder: str, mine: _Record) -> _Record:
    """The record that is committed, mine or another's with its files in place."""
    document = _to_json(mine)
    while not store.put_if_absent(f"{folder}/{_COMMIT}", document):
        theirs = _read_record(store, folder)
        if theirs and (theirs.attempt, theirs.token) == (mine.attempt, mine.token):
            break  # my own earlier put, whose answer was lost on the way
        if intact := _intact(store, folder):
            return intact
    return mine


def _intact(store: Store, folder: str) -> _Record | None:
    """The committed record with its files in place; None without one, or when they are lost."""
    record = _read_record(store, folder)
    if record and all(_in_place(store, folder, record, name) for name in _FILES):
        return record
    if store.facts(f"{folder}/{_COMMIT}", digest=False):
        store.delete(f"{folder}/{_COMMIT}")  # unreadable, or what it promises is gone
    return None


def _in_place(store: Store, folder: str, record: _Record, name: str) -> bool:
    """True when the key holds what was promised; of version 1, moved there if need be."""
    key, promised = _key(folder, record, name), record.files[name]
    if _holds(store, key, promised):
        return True
    first = f"{folder}/.attempt-{record.attempt}-{record.token}-{name}"
    if record.folder or not _holds(store, first, promised):
        return False
    with suppress(NotFound):  # its own committer moved it at this moment
        store.move(first, key)
    return _holds(store, key, promised)


def _holds(store: Store, key: str, promised: _File) -> bool:
    if (found := store.facts(key)) is None:
        return False
    return _File(found.size_bytes, found.sha256 or _sha256(store.get(key))) == promised


def _remove(store: Store, folder: str, record: _Record) -> None:
    for name in _FILES:
        store.delete(_key(folder, record, name))


# --- keys and COMMIT.json -------------------------------------------------------------------------


def _jobs_folder(batch_id: str) -> str:
    return f"{batch_folder(batch_id)}/jobs"


def _key(folder: str, record: _Record, name: str) -> str:
    return "/".join(filter(None, (folder, record.folder, name)))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _to_json(record: _Record) -> bytes:
    return json.dumps({"version": _VERSION, **asdict(record)}, ensure_ascii=False).encode()


def _read_record(store: Store, folder: str) -> _Record | None:
    """COMMIT.json as a record; None when there is none or a power cut left it unreadable."""
    try:
        document = json.loads(store.get(f"{folder}/{_COMMIT}"))
        version = int(document.get("version", 1))
        files = {
            name: _File(int(f["bytes"]), str(f["sha256"])) for name, f in document["files"].items()
        }
        attempt, token = int(document["attempt"]), str(document["token"])
        below = "" if version == 1 else str(document["folder"])
        record = _Record(attempt, token, below, files, document["meta"])
    except (NotFound, ValueError, TypeError, KeyError, AttributeError):
        return None
    if version > _VERSION:
        raise StoreError(
            f"{printable(store.uri(folder))} was written by a newer vidplat (COMMIT.json has "
            f"version {version}, known is {_VERSION}): use that one, or another output prefix"
        )
    is_sound = files.keys() == _FILES.keys() and (not below or _FOLDER.fullmatch(below))
    return record if is_sound else None


def _as_commit(store: Store, folder: str, record: _Record, won: bool) -> Commit:
    video = record.files[VIDEO]
    artifact = Artifact(
        video_uri=store.uri(_key(folder, record, VIDEO)),
        poster_uri=store.uri(_key(folder, record, POSTER)),
        meta_uri=store.uri(_key(folder, record, META)),
        sha256=video.sha256,
        size_bytes=video.bytes,
        attempt=record.attempt,
    )
    return Commit(won, artifact, record.meta)
