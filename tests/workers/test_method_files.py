"""What the sidecar tells of files that a method read: searched masks, by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.methods.seams.solver_choice import shift_of, solver_name
from vidplat.methods.vdit import mask_file
from vidplat.methods.vdit.mask_file import LayerMask, Masks
from vidplat.workers import Worker
from vidplat.workers.models.catalogue import searched_masks

SPEC = VideoSpec(32, 32, 17, 16, 2, 3.0, seed=1)  # 17 frames are 5 latent ones


def masks_for(worker: Worker, k: int) -> Masks:
    family = worker.loaded.family
    assert family is not None
    (network,) = family.transformers
    return Masks(
        model=worker.ref.id,
        revision=worker.ref.revision,
        transformer=mask_file.revision_of(network),
        part="transformer",
        frames=5,
        per_frame=16,
        threshold=0.1,
        solver=solver_name(family.scheduler),
        shift=shift_of(family.scheduler),
        sigmas=(0.5,),
        prompts=1,
        metric="relative",
        is_sequential=False,
        layers=(LayerMask(k, 0.05),) * worker.shape.layers,
        errors={k: (0.05,) * worker.shape.layers},
    )


def test_the_sidecar_has_the_hash_of_the_masks_a_video_was_made_with(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path))
    job = Job("1" * 32, "a red circle", "", SPEC, worker.ref, row=1)
    videos = {}
    for k in (1, 2):
        masks = masks_for(worker, k)
        mask_file.save(masks, mask_file.users_file(masks))

        made = worker.make(job, OperatingPoint(2, "sparse:masks=searched"))

        (told,) = made.meta["method_files"]
        assert (told["kind"], told["sha256"]) == ("masks", masks.sha256)
        assert told["model_revision"] == worker.ref.revision
        # what intake puts into the ids of such jobs is this very hash
        assert searched_masks(worker.ref.id, 5) == masks.sha256
        videos[masks.sha256] = made.video

    assert len(set(videos.values())) == 2
    assert "method_files" not in worker.make(job, OperatingPoint(2, "sparse:k=2")).meta
    assert "method_files" not in worker.make(job, OperatingPoint(2)).meta
