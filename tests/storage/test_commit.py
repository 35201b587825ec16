"""One artifact per job, whole or not at all, wherever a process dies and however many finish the
job.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers_s3 import S3Server
from vidplat.errors import StoreError
from vidplat.storage import artifacts, open_store
from vidplat.storage.artifacts import (
    POINTS,
    Commit,
    batch_folder,
    commit,
    committed_jobs,
    job_folder,
    repair,
    sweep,
)
from vidplat.storage.memory import MemoryStore
from vidplat.storage.stores import Store

BATCH, JOB = "b0123456789a", "ab" * 16
FOLDER = f"batches/{BATCH}/jobs/ab/{JOB}"
NAMES = ("video.mp4", "meta.json", "poster.jpg")


class Died(BaseException):
    """The process is gone: nothing after this point ran."""


#: The whole matrix on the real server is thorough; what only it can prove runs there every time.
EVERY_TIME = pytest.param("radosgw", marks=pytest.mark.server)
THOROUGH = pytest.param("radosgw", marks=[pytest.mark.server, pytest.mark.thorough])
on_each_store = pytest.mark.parametrize(
    "store", ["memory", "folder", "moto", EVERY_TIME], indirect=True
)


@pytest.fixture(params=["memory", "folder", "moto", THOROUGH])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "memory":
        return open_store(f"memory://{tmp_path.name}")
    if request.param == "folder":
        return open_store(str(tmp_path))
    server: S3Server = request.getfixturevalue(
        "moto_server" if request.param == "moto" else "s3_server"
    )
    server.with_credentials(monkeypatch)
    return open_store(server.bucket_url())


def make(
    store: Store, attempt: int = 1, *, job_id: str = JOB, token: str = "t", **options: Any
) -> Commit:
    """Finish the job as that attempt, with a video that tells which attempt made it."""
    facts = {
        "batch_id": BATCH,
        "job_id": job_id,
        "attempt": attempt,
        "token": token,
        "poster": b"poster",
    }
    given = {
        "video": video_of(attempt, token),
        "meta": {"prompt": "a red circle", "attempt": attempt},
    } | facts
    return commit(store, **(given | options))


def video_of(attempt: int, token: str = "t") -> bytes:
    return f"video of attempt {attempt} {token}".encode() * 100


def dying_at(point: str) -> Callable[[str], None]:
    def die(reached: str) -> None:
        if reached == point:
            raise Died

    return die


def keys(store: Store) -> set[str]:
    return set(store.list())


def final(attempt: int, token: str = "t") -> set[str]:
    """The keys of a job that this attempt has won."""
    return {f"{FOLDER}/COMMIT.json", *(f"{FOLDER}/{attempt}-{token}/{name}" for name in NAMES)}


def assert_whole(store: Store, found: Commit | None) -> None:
    """What the artifact names is what COMMIT.json promises, and nothing else is there."""
    assert found is not None
    artifact, commit_key = found.artifact, f"{FOLDER}/COMMIT.json"
    uris = {artifact.video_uri, artifact.poster_uri, artifact.meta_uri, store.uri(commit_key)}
    assert {store.uri(key) for key in keys(store)} == uris
    token = json.loads(store.get(commit_key))["token"]
    assert keys(store) == final(artifact.attempt, token)
    assert_holds(store, found, f"{artifact.attempt}-{token}/")


def assert_holds(store: Store, found: Commit, below: str) -> None:
    video = store.get(f"{FOLDER}/{below}video.mp4")
    assert (len(video), hashlib.sha256(video).hexdigest()) == (
        found.artifact.size_bytes,
        found.artifact.sha256,
    )
    assert json.loads(store.get(f"{FOLDER}/{below}meta.json")) == found.facts


def test_a_commit_leaves_three_files_and_their_proof(store: Store) -> None:
    done = make(store)
    assert done.won
    assert done.artifact.attempt == 1
    assert done.artifact.video_uri == store.uri(f"{FOLDER}/1-t/video.mp4")
    assert done.artifact.sha256 == hashlib.sha256(video_of(1)).hexdigest()
    assert_whole(store, done)
    assert list(committed_jobs(store, BATCH)) == [JOB]


def test_what_was_committed_can_be_read_back(store: Store) -> None:
    assert repair(store, BATCH, JOB) is None
    done = make(store)
    found = repair(store, BATCH, JOB)
    assert found is not None
    assert not found.won
    assert (found.artifact, found.facts) == (done.artifact, done.facts)


def test_a_second_finisher_loses_politely(store: Store) -> None:
    first = make(store, 1)
    second = make(store, 2)
    assert not second.won
    assert second.artifact == first.artifact
    assert second.facts["attempt"] == 1
    assert_whole(store, second)


def test_the_same_attempt_told_again_is_still_the_winner(store: Store) -> None:
    # the answer to the conditional put was lost, so the put is sent again and meets its own object
    first = make(store, 1)
    assert make(store, 1) == first
    assert_whole(store, first)


@on_each_store
@pytest.mark.parametrize("point", ["video.mp4-written", "committed"])
def test_a_death_before_or_after_the_commit_point_is_repaired(store: Store, point: str) -> None:
    with pytest.raises(Died):
        make(store, 1, at=dying_at(point))
    assert make(store, 2).artifact.attempt == (1 if point == "committed" else 2)
    sweep(store, BATCH, older_than_s=-1)
    assert_whole(store, repair(store, BATCH, JOB))


@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_point_is_repaired_by_the_next_finisher(store: Store, point: str) -> None:
    with pytest.raises(Died):
        make(store, 1, at=dying_at(point))
    assert_nothing_partial(store)

    again = make(store, 2)

    committed_before = POINTS.index(point) >= POINTS.index("committed")
    assert again.won != committed_before
    assert again.artifact.attempt == (1 if committed_before else 2)
    sweep(store, BATCH, older_than_s=-1)
    assert_whole(store, again)


@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_point_is_repaired_by_a_reconciler(store: Store, point: str) -> None:
    with pytest.raises(Died):
        make(store, 1, at=dying_at(point))

    found = repair(store, BATCH, JOB)
    sweep(store, BATCH, older_than_s=-1)

    if POINTS.index(point) >= POINTS.index("committed"):
        assert_whole(store, found)
        assert repair(store, BATCH, JOB) == found  # repairing what is whole changes nothing
    else:
        assert found is None
        assert keys(store) == set()


def assert_nothing_partial(store: Store) -> None:
    for name, content in (("video.mp4", video_of(1)), ("poster.jpg", b"poster")):
        if store.facts(f"{FOLDER}/1-t/{name}"):
            assert store.get(f"{FOLDER}/1-t/{name}") == content


@on_each_store
def test_of_eight_finishers_at_once_one_wins_and_all_agree(store: Store) -> None:
    start, results = threading.Barrier(8), []

    def finish(number: int) -> None:
        start.wait()
        results.append(make(store, number, token=f"t{number}"))

    threads = [threading.Thread(target=finish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [result.won for result in results].count(True) == 1
    assert len({result.artifact for result in results}) == 1
    assert_whole(store, results[0])


def test_a_damaged_video_takes_its_commit_back_so_that_it_is_made_again(tmp_path: Path) -> None:
    # a power cut can leave a name with stale bytes: rename was written to disk, content was not
    store = open_store(str(tmp_path))
    make(store, 1)
    (tmp_path / FOLDER / "1-t" / "video.mp4").write_bytes(b"\0" * 100)

    assert repair(store, BATCH, JOB) is None
    assert store.facts(f"{FOLDER}/COMMIT.json") is None
    again = make(store, 2)
    sweep(store, BATCH, older_than_s=-1)  # of what is left of the first

    assert again.won
    assert_whole(store, again)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"files": {}}', b"null", b'{"attempt": 1, "files": 3}', b"\xff",
        b'{"version": 2, "attempt": 1, "token": "t", "folder": "../2-u", "meta": {}, "files":'
        b' {"video.mp4": {"bytes": 1, "sha256": ""}, "meta.json": {"bytes": 1, "sha256": ""},'
        b' "poster.jpg": {"bytes": 1, "sha256": ""}}}',
    ],
)  # fmt: skip
def test_an_unreadable_commit_is_no_commit(tmp_path: Path, content: bytes) -> None:
    store = open_store(str(tmp_path))
    store.put(f"{FOLDER}/COMMIT.json", content)
    assert repair(store, BATCH, JOB) is None
    assert_whole(store, make(store, 2))


def test_a_commit_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    make(store, 1)
    key = f"{FOLDER}/COMMIT.json"
    store.put(key, store.get(key).replace(b'"version": 2', b'"version": 3'))
    for step in (lambda: repair(store, BATCH, JOB), lambda: make(store, 2)):
        with pytest.raises(StoreError, match="was written by a newer vidplat"):
            step()
    assert store.facts(key) is not None


def test_a_store_that_fails_while_it_is_written_to_leaves_nothing_and_may_be_asked_again() -> None:
    store = MemoryStore()
    honest = store.put

    def failing(key: str, data: bytes, *, content_type: str = "") -> None:
        if key.endswith("video.mp4"):
            raise StoreError("the store is away")
        honest(key, data, content_type=content_type)

    store.put = failing  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="is away"):
        make(store)
    assert keys(store) == set()
    store.put = honest  # type: ignore[method-assign]
    assert_whole(store, make(store))


@pytest.mark.parametrize("has_reached", [True, False])
def test_a_store_that_fails_at_the_commit_point_is_asked_again(has_reached: bool) -> None:
    # the answer to the conditional put never came: it may be written or not
    store = MemoryStore()
    honest = store.put_if_absent

    def lost(key: str, data: bytes) -> bool:
        if has_reached:
            honest(key, data)
        raise StoreError("no answer")

    store.put_if_absent = lost  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="no answer"):
        make(store)
    assert (repair(store, BATCH, JOB) is not None) == has_reached  # nothing it needs is removed

    store.put_if_absent = honest  # type: ignore[method-assign]
    again = make(store)
    assert again.won
    assert_whole(store, again)


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs '{disk}' 2>/dev/null"):
        pytest.skip("mounting is not allowed here")
    try:
        store = open_store(str(disk))
        with pytest.raises(
            StoreError, match="is full: free some space, or choose another output prefix"
        ):
            make(store, video=bytes(2 << 20))
        assert [path for path in disk.rglob("*") if path.is_file()] == []
        assert make(store).won
    finally:
        os.system(f"umount '{disk}'")


def test_a_sweep_spares_the_young_and_the_committed(store: Store) -> None:
    make(store, 1)
    with pytest.raises(Died):
        make(store, 2, at=dying_at("video.mp4-written"))
    assert sweep(store, BATCH, older_than_s=3600) == 0
    assert sweep(store, BATCH, older_than_s=-1) == 3
    assert keys(store) == final(1)
    assert sweep(store, BATCH, older_than_s=-1) == 0


def test_a_sweep_removes_nothing_but_what_attempts_write(store: Store) -> None:
    kept = {f"{FOLDER}/{name}" for name in ("notes.txt", "1-t/notes.txt", "late-t/video.mp4")}
    for key in (*kept, f"batches/{BATCH}/jobs/README", f"batches/{BATCH}/report.html"):
        store.put(key, b"by hand")
    store.put(f"{FOLDER}/1-t/video.mp4", b"of an attempt")
    assert sweep(store, BATCH, older_than_s=-1) == 1
    assert keys(store) >= kept


OTHERS = [f"{number:032x}" for number in range(3)]


class Asked(MemoryStore):
    """Remembers which folders it listed."""

    def __init__(self) -> None:
        super().__init__("")
        self.listed: list[str] = []

    def list(self, prefix: str = "") -> Iterator[str]:
        self.listed.append(prefix)
        return super().list(prefix)


@pytest.mark.parametrize("few", [100, 1])  # asked for one by one, or found in the whole listing
def test_given_jobs_alone_are_looked_at(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    # given two of four jobs committed, and of each an attempt that came to nothing
    monkeypatch.setattr(artifacts, "_FEW_JOBS", few)
    store, every = Asked(), [JOB, *OTHERS]
    for number, job_id in enumerate(every):
        if number % 2 == 0:
            make(store, 1, job_id=job_id)
        with pytest.raises(Died):
            make(store, 2, job_id=job_id, at=dying_at("video.mp4-written"))

    # then
    assert set(committed_jobs(store, BATCH)) == {every[0], every[2]}
    store.listed.clear()
    asked = [every[0], every[1], "cd" * 16]
    assert list(committed_jobs(store, BATCH, jobs=asked)) == [every[0]]
    assert sweep(store, BATCH, older_than_s=-1, jobs=asked) == 6
    assert sweep(store, BATCH, older_than_s=-1) == 6
    whole = f"batches/{BATCH}/jobs"
    assert store.listed.count(whole) == (1 if few == 100 else 3)
    assert list(committed_jobs(store, BATCH, jobs=[])) == []


# --- what version 1 wrote -------------------------------------------------------------------------


def make_as_version_1(
    store: Store, attempt: int = 1, *, moved: int = 3, commit: bool = True
) -> None:
    """As it died after so many moves to the final names; 3: it did not."""
    meta = {"prompt": "a red circle", "attempt": attempt}
    contents = {
        "poster.jpg": b"poster",
        "meta.json": json.dumps(meta).encode(),
        "video.mp4": video_of(attempt),
    }
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    }
    document = {"version": 1, "attempt": attempt, "token": "t", "files": files, "meta": meta}
    for number, (name, data) in enumerate(contents.items()):
        is_moved = commit and number < moved
        store.put(f"{FOLDER}/{'' if is_moved else f'.attempt-{attempt}-t-'}{name}", data)
    if commit:
        store.put(f"{FOLDER}/COMMIT.json", json.dumps(document).encode())


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_commit_of_version_1_is_read_and_its_moves_are_finished(store: Store, moved: int) -> None:
    make_as_version_1(store, moved=moved)

    found = repair(store, BATCH, JOB)

    assert found is not None
    assert found.artifact.video_uri == store.uri(f"{FOLDER}/video.mp4")
    assert keys(store) == {f"{FOLDER}/{name}" for name in ("COMMIT.json", *NAMES)}
    assert_holds(store, found, "")
    assert repair(store, BATCH, JOB) == found
    assert list(committed_jobs(store, BATCH)) == [JOB]


@pytest.mark.parametrize("moved", [0, 3])
def test_who_finishes_after_a_commit_of_version_1_loses_politely(store: Store, moved: int) -> None:
    make_as_version_1(store, moved=moved)
    with pytest.raises(Died):
        make(store, 2, at=dying_at("meta.json-written"))
    late = make(store, 3)
    assert (late.won, late.artifact.attempt) == (False, 1)
    assert sweep(store, BATCH, older_than_s=-1) == 2
    assert keys(store) == {f"{FOLDER}/{name}" for name in ("COMMIT.json", *NAMES)}


def test_a_sweep_finishes_commits_of_version_1_and_removes_its_attempts(store: Store) -> None:
    make_as_version_1(store, 2, commit=False)
    make_as_version_1(store, 1, moved=0)
    assert sweep(store, BATCH, older_than_s=-1) == 3
    assert keys(store) == {f"{FOLDER}/{name}" for name in ("COMMIT.json", *NAMES)}


def test_keys_are_made_of_our_own_ids_only() -> None:
    assert batch_folder(BATCH) == f"batches/{BATCH}"
    assert job_folder(BATCH, JOB) == FOLDER
    for wrong in ("../../x", "/etc/x", "a\0b", "x" * 10_000, ""):
        with pytest.raises(StoreError):
            job_folder(BATCH, wrong)
        with pytest.raises(StoreError):
            batch_folder(wrong)


def test_a_small_commit_to_a_folder_costs_little_more_than_writing_its_files(
    tmp_path: Path,
) -> None:
    store = open_store(str(tmp_path / "store"))
    commits, writes = [], []
    for number in range(50):
        began = time.process_time()  # of the processor: other programs do not count
        make(store, job_id=f"{number:032x}", video=bytes(30_000))
        committed = time.process_time()
        write_four_files(tmp_path / f"plain-{number}")
        commits.append(committed - began)
        writes.append(time.process_time() - committed)
    assert min(commits) < 2.5 * min(writes)  # 1.15 times, 1.2 ms


def write_four_files(folder: Path) -> None:
    """What a commit comes down to: a video, a poster, a sidecar and their proof, each synced."""
    folder.mkdir()
    for name, size in (("video", 30_000), ("poster", 100), ("meta", 1_000), ("commit", 300)):
        part = folder / f".{name}"
        with part.open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
