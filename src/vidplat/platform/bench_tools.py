"""What a worker process puts together for itself: its video maker, and its way into the store.

The worker's half of `assemble`. It loads the storage room's commit and, for a real model, the workers room;
SQL, the scheduler and Ray stay outside, since every second here is start-up that counts towards a deadline.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from vidplat.domain import Artifact, ModelRef
from vidplat.platform.dispatch import BenchSpec, Order
from vidplat.platform.workbench import Rendered, Tools, VideoMaker
from vidplat.storage.artifacts import commit, open_store


def open_tools(spec: BenchSpec) -> Tools:
    """The tools of one bench. Nothing is loaded or contacted yet."""
    store = open_store(spec.store_url)
    at_point = crash_points_for(spec.model.id)

    def commit_video(order: Order, rendered: Rendered) -> Artifact:
        return commit(
            store,
            batch_id=spec.batch_id,
            job_id=order.job.id,
            attempt=order.attempt,
            token=secrets.token_hex(4),
            video=rendered.video,
            poster=rendered.poster,
            meta=rendered.meta,
            at=at_point,
        ).artifact

    return Tools(lambda model: _video_maker(model, spec), commit_video)


def _video_maker(model: ModelRef, spec: BenchSpec) -> VideoMaker:
    if is_fake(model.id):
        from vidplat.testing import FakeModel

        return FakeModel.from_id(model.id)
    from vidplat.workers import Worker

    return Worker(model, device=spec.device, threads=spec.threads, id=spec.worker_id)


def is_fake(model_id: str) -> bool:
    """Whether the video maker is the stand-in of `vidplat.testing`."""
    return model_id == "fake" or model_id.startswith("fake:")


def crash_points_for(model_id: str) -> Callable[[str], None]:
    """Where a test wants this process to die; nowhere, unless the model is the stand-in."""
    if is_fake(model_id):
        from vidplat.testing import crash_points

        if hook := crash_points():
            return hook
    return lambda point: None
