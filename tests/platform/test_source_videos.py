"""Input videos are looked at once, whatever the number of rows, and kept once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import source_videos as videos
from tests.source_videos import an_mp4, counted, cut
from vidplat.config import InputConfig
from vidplat.errors import InputError, StoreError
from vidplat.platform.intake.source_videos import Source, SourceVideos, keep
from vidplat.storage import open_store
from vidplat.storage.inputs import load_input

LIMITS = InputConfig()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry per video that was really looked into."""
    from vidplat.workers import source_video

    seen: list[str] = []
    real = source_video.look_at

    def counting(file, limits):
        seen.append(getattr(file, "name", "bytes"))
        return real(file, limits)

    monkeypatch.setattr(source_video, "look_at", counting)
    yield seen


def test_a_source_is_described_by_its_content(tmp_path: Path):
    path = an_mp4(tmp_path / "a.mp4")
    (found,) = SourceVideos(LIMITS).look([str(path)]).values()
    assert found == Source(
        hashlib.sha256(path.read_bytes()).hexdigest(), 32, 32, pytest.approx(2.0625)
    )


def test_one_source_is_looked_into_once_whatever_it_is_called(tmp_path: Path, looks: list[str]):
    # given a file under three names, asked for by three pages of rows
    path = an_mp4(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to(path)
    os.link(path, tmp_path / "c.mp4")
    places = [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    news: list[int] = []
    sources = SourceVideos(LIMITS, news.append)

    answers = [sources.look(places[:2]), sources.look(places), sources.look(places)]

    assert len(looks) == 1
    assert news == [2, 1]
    assert len({found for answer in answers for found in answer.values()}) == 1


def test_a_file_that_was_written_anew_is_another_source_to_the_next_intake(
    tmp_path: Path, looks: list[str]
):
    path = an_mp4(tmp_path / "a.mp4")
    sources = SourceVideos(LIMITS)
    first = sources.look([str(path)])
    an_mp4(path, counted(33, step=5))
    assert sources.look([str(path)]) == first  # one intake sees one state
    assert SourceVideos(LIMITS).look([str(path)]) != first
    assert len(looks) == 2


def test_different_sources_are_all_looked_at_and_each_gets_its_own_answer(tmp_path: Path):
    good = [str(an_mp4(tmp_path / f"{n}.mp4", counted(33, step=n))) for n in range(1, 7)]
    bad = {
        str(cut(tmp_path / "cut.mp4", Path(good[0]))): "is truncated",
        str(videos.with_alpha(tmp_path / "alpha.mov")): "has an alpha channel",
        str(tmp_path / "missing.mp4"): "does not exist",
        str(tmp_path): "is a folder",
    }
    found = SourceVideos(LIMITS).look([*good, *bad])
    assert len({source for place in good if isinstance(source := found[place], Source)}) == 6
    assert all(str(found[place]).startswith(said) for place, said in bad.items())


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, looks: list[str]):
    path = tmp_path / "a.mp4"
    with path.open("wb") as file:
        file.truncate(300 * 2**20)
    (said,) = SourceVideos(LIMITS).look([str(path)]).values()
    assert said == "has 300 MiB, at most 256 MiB are taken: cut it (inputs.max_bytes)"
    assert looks == []


def test_a_bucket_out_of_reach_stops_the_intake_and_blames_no_row(monkeypatch: pytest.MonkeyPatch):
    def head(url: str) -> tuple[int, str]:
        raise StoreError("cannot be reached")

    monkeypatch.setattr("vidplat.storage.s3.head", head)
    with pytest.raises(StoreError, match="cannot be reached"):
        SourceVideos(LIMITS).look(["s3://bucket/a.mp4"])


def test_what_is_kept_is_kept_once(tmp_path: Path):
    store = open_store(str(tmp_path / "out"))
    path = an_mp4(tmp_path / "a.mp4")
    (source,) = SourceVideos(LIMITS).look([str(path)]).values()
    assert isinstance(source, Source)
    assert keep(store, {source.sha256: str(path)}) == 1
    assert keep(store, {source.sha256: str(path)}) == 0
    assert load_input(store, source.sha256) == path.read_bytes()


def test_a_source_that_changes_before_it_is_kept_stops_the_submit(tmp_path: Path):
    store = open_store(str(tmp_path / "out"))
    path = an_mp4(tmp_path / "a.mp4")
    (source,) = SourceVideos(LIMITS).look([str(path)]).values()
    assert isinstance(source, Source)
    shutil.copy(an_mp4(tmp_path / "b.mp4", counted(33, step=3)), path)
    with pytest.raises(InputError, match=r"the input video .*a\.mp4 changed while it was read"):
        keep(store, {source.sha256: str(path)})
    path.unlink()
    with pytest.raises(InputError, match=r"the input video .*a\.mp4 does not exist"):
        keep(store, {source.sha256: str(path)})
