"""What a user measured about a model lies under its revision, and goes before what the model came with."""

import json
from pathlib import Path

import pytest

from vidplat.measured import find, folder
from vidplat.workers.models.catalogue import describe_model


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VIDPLAT_MEASURED", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert folder("abc") == tmp_path / "vidplat" / "models" / "abc"
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "own"))
    assert folder("abc") == tmp_path / "own" / "abc"


@pytest.mark.parametrize("revision", ["", "../up", "a/b", ".hidden", "x" * 81, "nul\0"])
def test_a_revision_cannot_leave_its_prefix(revision: str) -> None:
    with pytest.raises(ValueError, match="not a revision"):
        folder(revision)


def test_the_user_s_own_file_goes_before_the_model_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "own"))
    model = tmp_path / "model"
    model.mkdir()
    assert find("profile.json", "abc", model) is None
    (model / "profile.json").touch()
    assert find("profile.json", "abc", model) == model / "profile.json"
    (tmp_path / "own" / "abc").mkdir(parents=True)
    (tmp_path / "own" / "abc" / "profile.json").touch()
    assert find("profile.json", "abc", model) == tmp_path / "own" / "abc" / "profile.json"


def test_a_profile_measured_here_is_the_one_that_plans_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path))
    describe_model.cache_clear()
    ref, shipped = describe_model("flipbook")
    mine = tmp_path / ref.revision
    mine.mkdir()
    (mine / "profile.json").write_text(
        json.dumps({"points": [{"steps_fraction": 0.5, "keyframes_fraction": 1.0, "quality": 0.5}]}), encoding="utf-8"
    )
    describe_model.cache_clear()
    _, own = describe_model("flipbook")
    describe_model.cache_clear()
    assert len(shipped.profile) > 1
    assert [point.quality for point in own.profile] == [0.5]
