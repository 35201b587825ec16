"""How a finished video becomes an artifact: exactly one per job, whole or not at all, whoever dies
when.

Several workers may finish the same job (a lease ran out, a platform was restarted). This is the
order:

    1. write    video, poster and sidecar under keys that only this attempt uses
    2. verify   each key's size and SHA-256, as the store tells them
    3. commit   COMMIT.json by one conditional put: the commit point, won by exactly one attempt
    4. publish  move the three files to their final names
    5. tidy     nothing of the attempt is left

    batches/<batch>/jobs/<2 hex>/<job>/.attempt-<attempt>-<token>-{poster.jpg,meta.json,video.mp4}
    batches/<batch>/jobs/<2 hex>/<job>/COMMIT.json
    batches/<batch>/jobs/<2 hex>/<job>/{poster.jpg,meta.json,video.mp4}

Whoever dies before 3 leaves rubbish, which `sweep` removes; whoever dies after it leaves a
committed job, which `repair` finishes from what COMMIT.json says. A second finisher loses politely:
it removes its own files and returns the winner's artifact. Final names are written by moves and
copies of verified files only, so a partial file is never seen under one.

Left to others: the catalog row (the platform writes it after `commit` returns, and reconciles with
`committed_jobs` and `repair` after a crash). Not promised: two reconcilers of one batch at the same
time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from vidplat.domain import Artifact
from vidplat.errors import StoreError, printable
from vidplat.storage.stores import NotFound, Store, checked_key

VIDEO, META, POSTER = "video.mp4", "meta.json", "poster.jpg"
#: The three files in the order they are written and published: whoever sees the video sees the
#: rest.
_FILES = {POSTER: "image/jpeg", META: "application/json", VIDEO: "video/mp4"}
ALONE = 500  # jobs whose folders are listed one by one; more of them are found in one long list
_ATTEMPT = ".attempt-"  # how names begin that only one attempt writes

#: Where `commit` can be interrupted: it calls `at(name)` when it gets there. Tests die at each of
#: them.
POINTS = (
    "before-write",
    *(f"{name}-written" for name in _FILES),
    "verified",
    "committed",
    *(f"{name}-published" for name in _FILES),
)


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
    files: Mapping[str, _File]  # by final name
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

    Raises StoreError when the store fails before the commit point (the attempt's files are then
    removed as far as possible) or while publishing (the job is committed; `repair` finishes it).
    """
    folder = job_folder(batch_id, job_id)
    sidecar = json.dumps(
        meta, ensure_ascii=False, allow_nan=False, sort_keys=True, default=str, indent=1
    ).encode()
    content = {POSTER: poster, META: sidecar, VIDEO: video}
    record = _Record(
        attempt,
        token,
        {name: _File(len(data), _sha256(data)) for name, data in content.items()},
        json.loads(sidecar),
    )
    try:
        # 1. write
        at("before-write")
        for name, kind in _FILES.items():
            store.put(_attempt_key(folder, record, name), content[name], content_type=kind)
            at(f"{name}-written")
        # 2. verify
        for name, promised in record.files.items():
            _verify(store, _attempt_key(folder, record, name), promised)
        at("verified")
        # 3. commit
        winner = _winner(store, folder, record)
    except StoreError:
        with suppress(StoreError):
            _remove_attempt(store, folder, record)
        raise
    at("committed")
    won = (winner.attempt, winner.token) == (attempt, token)
    # 4. publish, 5. tidy (the loser has seen the winner's files in place)
    if won:
        _publish(store, folder, winner, at)
    else:
        _remove_attempt(store, folder, record)
    return _as_commit(store, folder, winner, won)


def repair(store: Store, batch_id: str, job_id: str) -> Commit | None:
    """Finish a commit that died before its files were in place, and check each file against its
    SHA-256.

    None: nothing is committed; also when files are lost or damaged (a power cut), in which case
    COMMIT.json is removed and the job has to be made again. Safe to repeat, and beside a commit of
    the same job.
    """
    folder = job_folder(batch_id, job_id)
    record = _intact(store, folder)
    return _as_commit(store, folder, record, won=False) if record else None


def committed_jobs(
    store: Store, batch_id: str, job_ids: Collection[str] | None = None
) -> Iterator[str]:
    """Ids of the jobs of a batch (of these alone) that have a COMMIT.json, in any order."""
    for key in _keys(store, batch_id, job_ids):
        *_, job_id, name = key.split("/")
        if name == "COMMIT.json":
            yield job_id


def sweep(
    store: Store, batch_id: str, older_than_s: float, job_ids: Collection[str] | None = None
) -> int:
    """Remove files of attempts that ended without a commit, once they are that old; how many. With
    `job_ids` only what those jobs left.

    Choose an age well above the longest upload: a younger attempt may be alive.
    """
    oldest_kept = time.time() - older_than_s
    folders = [batch_folder(batch_id)]
    if job_ids is not None and len(job_ids) <= ALONE:
        folders = [job_folder(batch_id, job_id) for job_id in job_ids]
    removed = sum(store.sweep_unfinished(folder, older_than_s) for folder in folders)
    for key in list(_keys(store, batch_id, job_ids)):
        folder, found, _ = key.partition(f"/{_ATTEMPT}")
        if not found:
            continue
        facts = store.facts(key, digest=False)
        if facts is None or facts.modified_at > oldest_kept:
            continue
        _intact(store, folder)  # first publish what this attempt may have committed
        if store.facts(key, digest=False) is not None:
            store.delete(key)
            removed += 1
    return removed


def _keys(store: Store, batch_id: str, job_ids: Collection[str] | None) -> Iterator[str]:
    """Keys of the files of these jobs, or of all: a few folders are listed one by one."""
    if job_ids is not None and len(job_ids) <= ALONE:
        for job_id in job_ids:
            yield from store.list(job_folder(batch_id, job_id))
        return
    wanted = None if job_ids is None else set(job_ids)
    for key in store.list(f"{batch_folder(batch_id)}/jobs"):
        if wanted is None or key.split("/")[-2] in wanted:
            yield key


# --- the five steps -------------------------------------------------------------------------------


def _verify(store: Store, key: str, promised: _File) -> None:
    found = store.facts(key)
    if found is None or _File(found.size_bytes, found.sha256 or "") != promised:
        raise StoreError(
            f"{printable(store.uri(key))}: wrote {promised.bytes} bytes, the store has "
            f"{'nothing' if found is None else f'{found.size_bytes} bytes'} or other content"
        )


def _winner(store: Store, folder: str, mine: _Record) -> _Record:
    """The record that is committed, mine or another's with its files in place."""
    document = _to_json(mine)
    while not store.put_if_absent(f"{folder}/COMMIT.json", document):
        theirs = _read_record(store, folder)
        if theirs and (theirs.attempt, theirs.token) == (mine.attempt, mine.token):
            break  # my own earlier put, whose answer was lost on the way
        if intact := _intact(store, folder):
            return intact
    return mine


def _publish(store: Store, folder: str, record: _Record, at: Callable[[str], object]) -> None:
    for name in _FILES:
        try:
            store.move(_attempt_key(folder, record, name), f"{folder}/{name}")
        except NotFound:  # moved already: by me before a crash, or by a reconciler at this moment
            _verify(store, f"{folder}/{name}", record.files[name])
        at(f"{name}-published")


def _intact(store: Store, folder: str) -> _Record | None:
    """The committed record with its files in place; None without one, or when they are lost."""
    record = _read_record(store, folder)
    if record and all(_placed(store, folder, record, name) for name in _FILES):
        return record
    if store.facts(f"{folder}/COMMIT.json", digest=False):
        store.delete(f"{folder}/COMMIT.json")  # unreadable, or what it promises is gone
    return None


def _placed(store: Store, folder: str, record: _Record, name: str) -> bool:
    """True when the final name holds what was promised; moved there if need be."""
    final, attempt = f"{folder}/{name}", _attempt_key(folder, record, name)
    if _holds(store, final, record.files[name]):
        return True
    if _holds(store, attempt, record.files[name]):
        with suppress(NotFound):  # its own committer moved it at this moment
            store.move(attempt, final)
    return _holds(store, final, record.files[name])


def _holds(store: Store, key: str, promised: _File) -> bool:
    if (found := store.facts(key)) is None:
        return False
    return _File(found.size_bytes, found.sha256 or _sha256(store.get(key))) == promised


def _remove_attempt(store: Store, folder: str, record: _Record) -> None:
    for name in _FILES:
        store.delete(_attempt_key(folder, record, name))


# --- keys and COMMIT.json -------------------------------------------------------------------------


def _attempt_key(folder: str, record: _Record, name: str) -> str:
    return f"{folder}/{_ATTEMPT}{record.attempt}-{record.token}-{name}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _to_json(record: _Record) -> bytes:
    return json.dumps({"version": 1, **asdict(record)}, ensure_ascii=False).encode()


def _read_record(store: Store, folder: str) -> _Record | None:
    """COMMIT.json as a record; None when there is none or a power cut left it unreadable."""
    try:
        document = json.loads(store.get(f"{folder}/COMMIT.json"))
        files = {
            name: _File(int(f["bytes"]), str(f["sha256"])) for name, f in document["files"].items()
        }
        record = _Record(int(document["attempt"]), str(document["token"]), files, document["meta"])
    except (NotFound, ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if files.keys() == _FILES.keys() else None


def _as_commit(store: Store, folder: str, record: _Record, won: bool) -> Commit:
    video = record.files[VIDEO]
    artifact = Artifact(
        video_uri=store.uri(f"{folder}/{VIDEO}"),
        poster_uri=store.uri(f"{folder}/{POSTER}"),
        meta_uri=store.uri(f"{folder}/{META}"),
        sha256=video.sha256,
        size_bytes=video.bytes,
        attempt=record.attempt,
    )
    return Commit(won, artifact, record.meta)
