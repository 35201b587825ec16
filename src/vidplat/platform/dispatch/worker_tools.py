"""What a worker process puts together for itself: its video maker, its ways to and from the store.

The worker's half of `assemble`. It loads the storage room's commit and, for a real model, the
workers room; SQL, scheduler and Ray stay outside: start-up counts towards a deadline.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from vidplat.domain import Artifact, Job, ModelRef
from vidplat.errors import InputError
from vidplat.platform.dispatch.dispatcher import Order, WorkerSpec
from vidplat.platform.dispatch.worker_thread import Tools, VideoMaker
from vidplat.storage import open_store
from vidplat.storage.artifacts import commit
from vidplat.storage.inputs import load_input
from vidplat.workers.draft import Rendered


def open_tools(spec: WorkerSpec) -> Tools:
    """The tools of one worker. Nothing is loaded or contacted yet."""
    store = open_store(spec.store_url)
    at_point = crash_points_for(spec.model.id)
    token = secrets.token_hex(4)  # at each try to store a video the same

    def commit_video(order: Order, rendered: Rendered) -> Artifact:
        return commit(
            store,
            batch_id=spec.batch_id,
            job_id=order.job.id,
            attempt=order.attempt,
            token=token,
            video=rendered.video,
            poster=rendered.poster,
            meta=rendered.meta,
            at=at_point,
        ).artifact

    def load_source(job: Job) -> bytes:
        if job.input_sha256 is None:
            raise InputError("the job has no input video")
        return load_input(store, job.input_sha256)

    return Tools(lambda model: _video_maker(model, spec, load_source), commit_video)


def _video_maker(
    model: ModelRef, spec: WorkerSpec, load_source: Callable[[Job], bytes]
) -> VideoMaker:
    if is_fake(model.id):
        from vidplat.testing import FakeModel

        return FakeModel.from_id(model.id, load_source)
    from vidplat.workers import Worker

    return Worker(
        model,
        device="cuda" if spec.pool.gpus > 0 else "cpu",
        threads=spec.pool.threads,
        id=spec.worker_id,
        load_source=load_source,
        limits=spec.inputs,
    )


def is_fake(model_id: str) -> bool:
    """Whether the video maker is the stand-in of `vidplat.testing`."""
    return model_id == "fake" or model_id.startswith("fake:")


def crash_points_for(model_id: str) -> Callable[[str], None]:
    """Where a test wants this process to die; nowhere, unless the model is the stand-in."""
    if not is_fake(model_id):
        return lambda point: None
    from vidplat.testing import crash_points

    return crash_points()
