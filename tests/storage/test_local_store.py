"""A folder as a store: what a person with a shell, a full quota or a second process can do to
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidplat.errors import StoreError, UsageError
from vidplat.storage import open_store
from vidplat.storage.places import probe
from vidplat.storage.stores import PARTIAL


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_opening_makes_nothing_and_the_first_write_makes_the_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()
    store.put("c/d", b"x")
    assert files(tmp_path) == ["a/b/c/d"]


def test_paths_are_absolute_whatever_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("renders", "./renders", str(tmp_path / "renders"), f"file://{tmp_path}/renders"):
        assert open_store(url).url == str(tmp_path / "renders")
    assert open_store(f"file://{tmp_path}/with%20space").url == str(tmp_path / "with space")


def test_a_file_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "renders").write_text("I am a file")
    with pytest.raises(StoreError, match="a file is in the way"):
        probe(open_store(str(tmp_path / "renders")))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be refused as")
def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from vidplat.errors import StoreError\nfrom vidplat.storage.local import LocalStore\n"
        "os.setuid(65534)\n"
        "try: LocalStore(Path(sys.argv[1])).put('a', b'x')\nexcept StoreError as error: "
        "print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "cannot be written (Permission denied): choose another output prefix" in told.stdout, (
        told
    )


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    # a process that is killed while it writes leaves only a hidden file, which is not a key
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom vidplat.storage.local import LocalStore\n"
        "store = LocalStore(Path(sys.argv[1]))\n"
        "Path.replace = lambda *_: os._exit(9)\n"
        "store.put('video.mp4', bytes(1000))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, check=False
    )
    store = open_store(str(tmp_path))

    assert ended.returncode == 9
    assert list(store.list()) == []
    assert [name for name in files(tmp_path) if not name.startswith(PARTIAL)] == []
    assert store.sweep_unfinished("", older_than_s=3600) == 0  # it may be alive
    assert store.sweep_unfinished("", older_than_s=-1) == 1
    assert files(tmp_path) == []


def test_empty_folders_disappear_and_come_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for _ in range(3):
        store.put("a/b/c", b"x")
        store.delete("a/b/c")
        assert list(tmp_path.iterdir()) == []


def test_another_process_may_remove_a_folder_that_this_one_remembers(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a/x", b"1")
    (tmp_path / "a" / "x").unlink()
    (tmp_path / "a").rmdir()
    store.put("a/y", b"2")
    store.put("z/y", b"3")
    (tmp_path / "a" / "y").unlink()
    (tmp_path / "a").rmdir()
    store.move("z/y", "a/y")
    assert files(tmp_path) == ["a/y"]


def test_a_folder_removed_while_it_is_being_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given two processes that probe one store: the other one's folder is there when mkdir is
    # called, and then gone
    store, folder = open_store(str(tmp_path)), tmp_path / "batches"
    look, calls = Path.is_dir, []

    def gone_by_then(path: Path, **how: bool) -> bool:
        if path == folder and not calls:
            calls.append(path)
            folder.rmdir()
        return look(path, **how)

    folder.mkdir()
    monkeypatch.setattr(Path, "is_dir", gone_by_then)

    # when
    assert store.put_if_absent("batches/a", b"x")

    # then
    assert calls == [folder]
    assert store.get("batches/a") == b"x"


@pytest.mark.parametrize(
    "url", ["", "a\0b", "gs://bucket/x", "http://host/x", "s3://", "file://host/x"]
)
def test_places_without_a_store_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_store(url)


def test_no_credentials_in_urls_and_none_in_messages() -> None:
    for url in (
        "s3://key:canary-secret@bucket/x",
        "gs://user:canary-secret@bucket",
        "s3://b/x?secret=canary-secret",
    ):
        with pytest.raises(UsageError) as caught:
            open_store(url)
        assert "canary" not in str(caught.value)


def test_a_thousand_small_files_are_listed_quickly(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(1000):
        store.put(f"jobs/{number % 16:02x}/{number}/COMMIT.json", b"{}")
    started = time.perf_counter()
    assert len(list(store.list("jobs"))) == 1000
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("url", ["s3:/bucket/x", "s3:bucket", "S3:/bucket", "memory:/x", "file:/x"])
def test_a_url_that_lacks_a_slash_is_no_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"has too few slashes: write (s3|memory|file)://"):
        open_store(url)
    open_store(f"./{url}").put("a", b"x")
    assert (tmp_path / url / "a").read_bytes() == b"x"


def test_a_folder_may_be_a_file_url(tmp_path: Path) -> None:
    open_store(f"FILE://localhost{tmp_path}/my%20100%25").put("a", b"x")
    assert (tmp_path / "my 100%" / "a").read_bytes() == b"x"
    for url, said in (
        ("file://host/x", "file://host/x names a host; a file URL has three slashes"),
        ("file:///x?y", "holds a \\? or #: write %3F or %23"),
    ):
        with pytest.raises(UsageError, match=said):
            open_store(url)
