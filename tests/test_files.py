"""Files outside the catalog and the output prefix: whole, private where they must be, through no
link."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidplat.files import write_new, write_private, write_whole


def test_a_private_file_is_its_owners_alone_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "here").mkdir()

    beside = write_private(tmp_path / "here" / "logs", "a.log", b"x")
    elsewhere = write_private(tmp_path / "nowhere" / "logs", "a.log", b"x")

    assert beside == tmp_path / "here" / "logs" / "a.log"
    assert elsewhere is not None and elsewhere.parent.parent == tmp_path
    for path in (beside, elsewhere):
        assert path.read_bytes() == b"x"
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("trap", ["a link to a folder", "a folder for everybody"])
def test_a_folder_that_others_may_have_put_there_is_not_used(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs, logs = tmp_path / "theirs", tmp_path / "here" / "logs"
    theirs.mkdir()
    logs.parent.mkdir()
    if trap == "a link to a folder":
        logs.symlink_to(theirs)
    else:
        logs.mkdir()
        logs.chmod(0o777)

    kept = write_private(logs, "a.log", b"x")

    assert kept is not None and kept.parent not in (logs, theirs)
    assert list(logs.iterdir()) == []


def test_no_link_is_followed_and_no_file_opened_that_is_there(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")

    for name in ("link", "dangling", "victim"):
        with pytest.raises(OSError):
            write_new(tmp_path / name, [b"theirs"], 0o600)

    write_whole(tmp_path / "link", [b"ours"])
    assert victim.read_text() == "mine" and (tmp_path / "link").read_text() == "ours"
    assert not (tmp_path / "new").exists()


def test_a_file_is_there_whole_or_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "a.csv"
    write_whole(path, [b"first"])

    monkeypatch.setattr(Path, "replace", _full)
    with pytest.raises(OSError):
        write_whole(path, [b"second"])

    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def _full(self: Path, target: Path) -> None:
    raise OSError("the disk is full")
