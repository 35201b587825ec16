"""Where input videos may lie: every way to say it becomes one place, and no secret gets through or
is shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.servers_s3 import S3Server
from vidplat.config import InputConfig
from vidplat.domain import Prompt
from vidplat.errors import StoreError, UsageError
from vidplat.storage import open_store
from vidplat.storage.input_places import folder_of, look, opened, resolve
from vidplat.storage.prompts import RowProblem, read_prompts

SECRETS = (
    "https://bucket.s3.amazonaws.com/a.mp4?X-Amz-Signature=hunter2&X-Amz-Credential=me",
    "https://account.blob.core.windows.net/c/a.mp4?sv=2024&sig=hunter2",
    "https://me:hunter2@host/a.mp4",
    "s3://me:hunter2@bucket/a.mp4",
    "s3://bucket/a.mp4?X-Amz-Signature=hunter2",
    "s3://bucket/a.mp4?sig=hunter2",
    "s3://bucket/a.mp4?endpoint=http://me:hunter2@host:9000",
    "s3://bucket/a.mp4?endpoint=http://host/%3Ftoken%3Dhunter2",
    "memory://name/a.mp4?sig=hunter2",
)


@pytest.mark.parametrize(
    ("written", "folder", "place"),
    [
        ("clips/a.mp4", "/data", "/data/clips/a.mp4"),
        ("../a b?#%20.mp4", "/data/x", "/data/a b?#%20.mp4"),
        ("/data/./x/../a.mp4", "/elsewhere", "/data/a.mp4"),
        ("file:///data/a%20b.mp4", "/elsewhere", "/data/a b.mp4"),
        ("file://localhost/data/a.mp4", "", "/data/a.mp4"),
        ("s3://bucket/a b/ü.mp4", "", "s3://bucket/a b/ü.mp4"),
        ("S3://bucket/a.mp4", "/data", "s3://bucket/a.mp4"),
        ("clips/a.mp4", "s3://bucket/data/", "s3://bucket/data/clips/a.mp4"),
        ("../a.mp4", "s3://bucket/data/x/?region=r", "s3://bucket/data/a.mp4?region=r"),
        ("memory://name/clips/a.mp4", "", "memory://name/clips/a.mp4"),
    ],
)
def test_each_way_to_name_a_place_becomes_one(written: str, folder: str, place: str) -> None:
    assert resolve(written, folder) == place


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "https://host/a.mp4",
            "is an http(s) URL, which is not read: download the video, or put it into a bucket",
        ),
        ("ftp://host/a.mp4", "cannot be read from ftp:// URLs: give a path, file:// or s3://"),
        (
            "file://host/a.mp4",
            "names a host; a file URL has three slashes: file:///folder/name",
        ),
        ("s3://bucket", "must look like s3://bucket/key"),
        ("s3://bucket/a#b.mp4", "holds a '?' or '#', which cannot be part of an s3:// key here"),
        ("s3://[/a.mp4", "must look like s3://bucket/key"),
        ("s3://bucket:9000/a.mp4", "must look like s3://bucket/key"),
        (
            "s3://bucket/x/../a.mp4",
            "has a . or .. in its key, which servers understand differently",
        ),
        (
            "s3:/bucket/a.mp4",
            "looks like a URL but has too few slashes: write s3://..., or ./ before a path",
        ),
        ("file:///data/a.mp4?x=1", "holds a ? or #: write %3F or %23 in a file URL"),
        ("~nobody-of-that-name/a.mp4", "is neither a path nor a URL that can be understood"),
        (
            "a.mp4",
            "is a relative path, and the prompt file has no folder to start from: give a whole one",
        ),
    ],
)
def test_what_names_no_place_is_said_in_a_sentence(written: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(written, "")
    assert str(caught.value) == said


def test_the_server_of_s3_places_is_the_configurations_or_that_of_the_prompt_file() -> None:
    here = InputConfig(endpoint="http://host:9000")
    assert resolve("s3://b/a.mp4", "/data", here) == "s3://b/a.mp4?endpoint=http://host:9000"
    beside = "s3://mine/data/?endpoint=http://users-own:1"
    assert resolve("s3://b/a.mp4", beside, here) == "s3://b/a.mp4?endpoint=http://host:9000"
    assert resolve("a.mp4", beside, here) == "s3://mine/data/a.mp4?endpoint=http://users-own:1"


def test_schemes_and_buckets_may_be_narrowed_by_the_configuration() -> None:
    narrow = InputConfig(schemes=("s3",), buckets=("mine",))
    assert resolve("s3://mine/a.mp4", "", narrow) == "s3://mine/a.mp4"
    for written, folder, said in (
        ("/data/a.mp4", "", "lies at a file:// place"),
        ("a.mp4", "/data", "lies at a file:// place"),
        ("memory://name/a.mp4", "", "lies at a memory:// place"),
        ("s3://other/a.mp4", "", "lies in a bucket that this configuration does not allow"),
        ("a.mp4", "s3://other/x/", "lies in a bucket that this configuration does not allow"),
    ):
        with pytest.raises(UsageError, match=said):
            resolve(written, folder, narrow)


def test_files_stay_in_the_folders_of_the_configuration_whatever_leads_out(tmp_path: Path) -> None:
    # given a folder that rows may name, a secret beside it, and links that lead out and back in
    clips, secret = tmp_path / "clips", tmp_path / "secret"
    for folder in (clips, secret, tmp_path / "clips-of-others"):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"12345")
    (clips / "out").symlink_to(secret)
    (clips / "out.mp4").symlink_to(secret / "a.mp4")
    (tmp_path / "in").symlink_to(clips)
    allowed = InputConfig(folders=(str(tmp_path / "in"),))

    for written in ("a.mp4", f"file://{tmp_path}/in/%61.mp4", "out/../a.mp4"):
        assert resolve(written, str(clips), allowed) == str(clips / "a.mp4")
    for written in (
        "../secret/a.mp4",
        "out/a.mp4",
        "out.mp4",
        f"file://{clips}/%2e%2e/secret/a.mp4",
        f"file://localhost{secret}/a.mp4",
        f"{tmp_path}/clips-of-others/a.mp4",
        "~/a.mp4",
        "/etc/hostname",
    ):
        with pytest.raises(UsageError, match="lies outside of the folders"):
            resolve(written, str(clips), allowed)


def test_a_key_above_the_bucket_is_refused() -> None:
    with pytest.raises(UsageError, match="leads out of the prompt file's bucket"):
        resolve("../../a.mp4", "s3://bucket/data/")


@pytest.mark.parametrize("written", SECRETS)
def test_a_url_with_a_secret_is_refused_and_never_shown(tmp_path: Path, written: str) -> None:
    (tmp_path / "a.csv").write_text(f'prompt,video\nx,"{written}"\n')
    (found,) = rows_of(tmp_path / "a.csv")
    assert isinstance(found, RowProblem)
    assert found.column == "video"
    assert "hunter2" not in found.message


def test_a_prompt_file_says_what_relative_places_are_relative_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_of("-") == str(tmp_path)
    assert folder_of("S3://bucket/data/a.csv") == "s3://bucket/data/"
    assert folder_of("lists/a.csv") == str(tmp_path / "lists")
    assert folder_of("file:///data/a%20b/list.csv") == "/data/a b"
    assert folder_of("s3://bucket/data/a.csv?region=r") == "s3://bucket/data/?region=r"
    assert folder_of("https://host/a.csv") == ""
    assert folder_of("~nobody-of-that-name/a.csv") == ""
    assert folder_of("file://[/a.csv") == ""


def rows_of(path: Path, **options: Any) -> list[Prompt | RowProblem]:
    warn = options.pop("warn", lambda text: None)
    return [row for batch in read_prompts(str(path), warn=warn, **options) for row in batch]


@pytest.mark.parametrize("name", ["input_video", "video", "source_video", "Init_Video"])
def test_the_column_has_several_names_and_strength_goes_with_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text(
        f"prompt,{name},strength\nx,clips/a.mp4,0.25\ny,/data/b.mp4,\nz,,\n"
    )
    assert rows_of(tmp_path / "a.csv") == [
        Prompt(1, "x", input_video=str(tmp_path / "clips/a.mp4"), strength=0.25),
        Prompt(2, "y", input_video="/data/b.mp4"),
        Prompt(3, "z"),
    ]


# --- looking --------------------------------------------------------------------------------------


def test_a_file_is_known_by_its_inode_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12345")
    (tmp_path / "link.mp4").symlink_to(path)
    first = look(str(path))
    assert first.size_bytes == 5
    assert look(str(tmp_path / "link.mp4")) == first
    os.utime(path, ns=(0, 1))
    assert look(str(path)).identity != first.identity


def test_what_cannot_be_looked_at_is_said_in_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, said in (
        (tmp_path / "no.mp4", "does not exist: "),
        (tmp_path / "pipe" / "a.mp4", "does not exist: "),
        (tmp_path, "is a folder: "),
        (tmp_path / "pipe", "is a device or pipe, not a file: "),
        (tmp_path / ("x" * 300), "cannot be read (File name too long): "),
    ):
        with pytest.raises(UsageError) as caught:
            look(str(place))
        assert str(caught.value).startswith(said)


def test_objects_of_stores_in_memory_are_found_by_their_uri(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}/deep")
    store.put("clips/a.mp4", b"12345")
    place = store.uri("clips/a.mp4")
    assert look(place).size_bytes == 5
    with opened(place) as file:
        assert file.read() == b"12345"
    with pytest.raises(UsageError, match=r"does not exist: memory://"):
        look(f"memory://{tmp_path.name}/deep/clips/b.mp4")


def test_objects_of_a_bucket_are_known_by_their_etag(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.with_credentials(monkeypatch)
    url, mark, options = moto_server.bucket_url().partition("?")
    open_store(f"{url}{mark}{options}").put("a.mp4", b"12345")
    open_store(f"{url}{mark}{options}").put("copy.mp4", b"12345")
    place = resolve("a.mp4", f"{url}/{mark}{options}")
    assert look(place).size_bytes == 5
    assert look(place.replace("a.mp4", "copy.mp4")) == look(place)
    with opened(place) as file:
        assert file.read() == b"12345"
    with (
        pytest.raises(UsageError, match="has more than 4 bytes, which the server hid"),
        opened(place, most_bytes=4),
    ):
        pass
    with pytest.raises(UsageError, match=r"does not exist: s3://[^?]*/no\.mp4$"):
        look(place.replace("a.mp4", "no.mp4"))


def test_a_bucket_that_refuses_is_the_rows_fault_and_one_that_is_out_of_reach_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused, unreachable = StoreError("S3 refused the credentials"), StoreError("cannot be reached")
    refused.retry_can_help = False

    def fail(error: StoreError) -> None:
        def head(url: str) -> tuple[int, str]:
            raise error

        monkeypatch.setattr("vidplat.storage.s3.head", head)

    fail(refused)
    with pytest.raises(UsageError, match="cannot be read: S3 refused the credentials"):
        look("s3://bucket/a.mp4")
    fail(unreachable)
    with pytest.raises(StoreError, match="cannot be reached"):
        look("s3://bucket/a.mp4")
