"""A job made whole, and made by two workers, told as hashes: run in a process of its own.

    python -m tests.workers.same_job MODEL     one JSON object: how it was made -> hash of the mp4

MODEL is a directory of `tiny_models`. Loads torch.
"""

from __future__ import annotations

import hashlib
import json
import sys

from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.workers import Worker
from vidplat.workers.draft import Draft

SPEC = VideoSpec(64, 64, 17, 16, num_inference_steps=2, guidance_scale=3.0, seed=1)
POINT = OperatingPoint(2, method="eco:k=3")


def hashes_of_videos(model: str) -> dict[str, str]:
    """SHA-256 of one job's mp4: by a worker alone, the draft, and by a light worker from it."""
    maker, light = Worker(model), Worker("never-loaded", id="edge-1")
    maker.load()
    job = Job("1" * 32, "a red circle", "", SPEC, maker.ref, row=1)
    whole = maker.make(job, POINT)
    draft = maker.make(job, POINT, hand_over=True)
    assert isinstance(draft, Draft)
    made = {
        "whole": whole.video,
        "draft": draft.video,
        "handed over": light.finish(job, draft).video,
    }
    return {how: hashlib.sha256(video).hexdigest() for how, video in made.items()}


if __name__ == "__main__":
    json.dump(hashes_of_videos(sys.argv[1]), sys.stdout)
