"""What every store must do: memory, a folder, a fast S3 imitation, and a real S3-compatible
server.
"""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidplat.errors import StoreError
from vidplat.storage import open_store
from vidplat.storage.places import probe
from vidplat.storage.stores import NotFound, Store, checked_key

PLACES = ["memory", "folder", "moto", pytest.param("radosgw", marks=pytest.mark.server)]


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    match request.param:
        case "memory":
            return open_store(f"memory://{tmp_path.name}")
        case "folder":
            return open_store(str(tmp_path / "renders"))
        case "moto":
            server = request.getfixturevalue("moto_server")
        case _:
            server = request.getfixturevalue("s3_server")
    server.with_credentials(monkeypatch)
    return open_store(server.bucket_url())


def test_what_was_put_is_what_one_gets(store: Store) -> None:
    store.put("a/b.bin", bytes(range(256)), content_type="video/mp4")
    assert store.get("a/b.bin") == bytes(range(256))


def test_a_second_put_overwrites(store: Store) -> None:
    store.put("a", b"old")
    store.put("a", b"new")
    assert store.get("a") == b"new"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.facts("empty") is not None


def test_getting_what_is_not_there_says_so(store: Store) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        store.get("a/missing")


def test_only_the_first_put_if_absent_writes(store: Store) -> None:
    assert store.put_if_absent("commit", b"first")
    assert not store.put_if_absent("commit", b"second")
    assert store.get("commit") == b"first"


def test_after_a_delete_the_key_is_absent_again(store: Store) -> None:
    store.put_if_absent("commit", b"first")
    store.delete("commit")
    assert store.put_if_absent("commit", b"second")


def test_of_sixteen_racing_writers_exactly_one_wins(store: Store) -> None:
    for round_number in range(5):
        key, winners, start = f"race/{round_number}", [], threading.Barrier(16)

        def race(
            number: int,
            key: str = key,
            winners: list[int] = winners,
            start: threading.Barrier = start,
        ) -> None:
            start.wait()
            if store.put_if_absent(key, b"%d" % number):
                winners.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(winners) == 1
        assert store.get(key) == b"%d" % winners[0]


def test_facts_tell_size_digest_and_age(store: Store) -> None:
    store.put("a", b"four")
    facts = store.facts("a")
    assert facts is not None
    assert (facts.size_bytes, facts.sha256) == (4, hashlib.sha256(b"four").hexdigest())
    assert abs(facts.modified_at - time.time()) < 30


@pytest.mark.parametrize("most_heads", [0, 200], ids=["listed", "one by one"])
def test_sizes_are_told_of_what_there_is(
    store: Store, most_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidplat.storage.s3._MOST_HEADS", most_heads)
    store.put("batches/b1/jobs/aa/video.mp4", b"four")
    store.put("batches/b2/jobs/aa/video.mp4", b"fifth")
    store.put("batches/b2/jobs/bb/video.mp4", b"")
    wanted = [
        f"batches/{batch}/jobs/{job}/video.mp4" for batch in ("b1", "b2") for job in ("aa", "bb")
    ]
    assert store.sizes(wanted) == {wanted[0]: 4, wanted[2]: 5, wanted[3]: 0}
    assert store.sizes(wanted[:1]) == {wanted[0]: 4}
    assert store.sizes([]) == {}


def test_there_are_no_facts_about_nothing(store: Store) -> None:
    store.put("folder/a", b"x")
    assert store.facts("missing") is None
    assert store.facts("folder/a/below-a-file") is None


def test_a_move_keeps_bytes_and_digest(store: Store) -> None:
    store.put("a", b"bytes", content_type="video/mp4")
    store.move("a", "b/c")
    assert store.get("b/c") == b"bytes"
    assert store.facts("b/c").sha256 == hashlib.sha256(b"bytes").hexdigest()  # type: ignore[union-attr]


def test_a_move_leaves_nothing_behind(store: Store) -> None:
    store.put("x/a", b"bytes")
    store.put("y/b", b"overwritten")
    store.move("x/a", "y/b")
    assert store.get("y/b") == b"bytes"
    assert list(store.list()) == ["y/b"]


def test_moving_what_is_not_there_says_so(store: Store) -> None:
    with pytest.raises(NotFound):
        store.move("missing", "target")


def test_deleting_twice_is_deleting(store: Store) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert list(store.list()) == []


def test_a_listing_is_of_one_folder_and_complete(store: Store) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "other", ".attempt-1"):
        store.put(key, b"")
    assert sorted(store.list("jobs/1")) == ["jobs/1/a", "jobs/1/b/c"]
    assert len(list(store.list())) == 5
    assert list(store.list("nothing/here")) == []


def test_an_object_of_many_parts_is_whole(store: Store) -> None:
    data = bytes(range(251)) * (
        90_000
    )  # 22.6 MB: above the multipart threshold, with an odd last part
    store.put("large", data, content_type="video/mp4")
    facts = store.facts("large")
    assert store.get("large") == data
    assert facts is not None
    assert facts.sha256 == hashlib.sha256(data).hexdigest()


def test_the_same_url_opens_the_same_store(store: Store) -> None:
    store.put("a", b"x")
    assert open_store(store.url).get("a") == b"x"


def test_a_probe_is_content_and_leaves_nothing(store: Store) -> None:
    probe(store)
    assert list(store.list()) == []


def test_nothing_unfinished_is_swept_where_nothing_is_unfinished(store: Store) -> None:
    store.put("a/b", b"x")
    assert store.sweep_unfinished("a", older_than_s=0) == 0
    assert store.get("a/b") == b"x"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/x",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "./a",
        "a\0b",
        "é",
        "a b",
        "a\\b",
        "x" * 129,
        ".partial-x",
    ],
)
def test_a_key_off_the_allow_list_is_refused_by_every_method(store: Store, key: str) -> None:
    for step in (store.get, store.facts, store.delete, store.uri, lambda k: store.put(k, b"")):
        with pytest.raises(StoreError, match="is not made of names"):
            step(key)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "/"])).map("/".join))
def test_no_accepted_key_leaves_the_prefix(key: str) -> None:
    root = Path("/prefix")
    try:
        checked_key(key)
    except StoreError:
        return
    assert root in (root / key).resolve().parents
