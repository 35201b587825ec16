"""What a user measured about a model lies under its revision, and goes before what the model came
with.
"""

import json
from pathlib import Path

import pytest

from tests.workers.tiny_models import a_tiny_wan
from vidplat.measured import content_sha256, folder, root
from vidplat.workers.models.catalogue import describe_model, searched_masks


def test_the_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VIDPLAT_MEASURED", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert folder("abc") == tmp_path / "vidplat" / "models" / "abc"
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "own"))
    assert folder("abc") == tmp_path / "own" / "abc"
    assert root() == tmp_path / "own"


@pytest.mark.parametrize("revision", ["", "../up", "a/b", ".hidden", "x" * 81, "nul\0"])
def test_a_revision_cannot_leave_its_prefix(revision: str) -> None:
    with pytest.raises(ValueError, match="not a revision"):
        folder(revision)


def test_equal_content_has_one_hash_however_it_is_laid_out() -> None:
    document = {"errors": {10: (0.5,), 2: (0.25,)}, "frames": 5}
    laid_out = json.loads(json.dumps(document, indent=3))
    assert content_sha256(document) == content_sha256(dict(reversed(laid_out.items())))
    assert content_sha256(document) != content_sha256({**document, "frames": 6})


def test_masks_here_have_one_hash_per_length_and_the_user_s_own_go_before_the_model_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "own"))
    model = a_tiny_wan(tmp_path / "tiny")
    own = folder(describe_model(str(model))[0].revision) / "masks"
    own.mkdir(parents=True)
    (model / "masks").mkdir()
    assert searched_masks(str(model), 5) == ""

    (model / "masks" / "aa-F5.json").write_text('{"k": 1}')
    (model / "masks" / "aa-F9.json").write_text('{"k": 9}')
    assert searched_masks(str(model), 5) == content_sha256({"k": 1})

    (own / "aa-F5.json").write_text('{"k":   2}')
    assert searched_masks(str(model), 5) == content_sha256({"k": 2})

    (own / "bb-F5.json").write_text('{"k": 3}')  # of a second transformer
    assert searched_masks(str(model), 5) not in (
        "",
        content_sha256({"k": 2}),
        content_sha256({"k": 3}),
    )


def test_a_profile_measured_here_is_the_one_that_plans_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path))
    describe_model.cache_clear()
    ref, shipped = describe_model("flipbook")
    mine = tmp_path / ref.revision
    mine.mkdir()
    (mine / "profile.json").write_text(
        json.dumps({"points": [{"steps_fraction": 0.5, "quality": 0.5}]}),
        encoding="utf-8",
    )
    describe_model.cache_clear()
    _, own = describe_model("flipbook")
    describe_model.cache_clear()
    assert len(shipped.profile) > 1
    assert [point.quality for point in own.profile] == [0.5]
