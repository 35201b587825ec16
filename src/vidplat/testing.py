"""Twins for tests, benchmarks and dry runs: real implementations, only smaller and faster.

- `FakeModel`: a video maker that spends time and memory as told and returns a few deterministic
  bytes. It loads the source of a job that has one, and looks at its bytes no further. It is chosen
  by a model id that starts with `fake`, so that it also works through the command line and in
  worker processes: `fake`, `fake:step_s=0.02,load_s=0.5`.
- `crash_points`: dies at the instrumented point that the variable CRASH_AT names or counts.

A word in square brackets in a prompt makes the fake model misbehave there:

    [abort]       the process dies at the first step
    [abort-late]  the process dies while frames are filled in
    [oom]         out of memory, unless the point is cheaper
    [fail]        this job fails, always
    [flaky]       fails on its first attempt only
    [wrong]       the request is refused
    [slow]        takes five times as long
    [hang]        hangs for an hour on its first attempt
    [unable]      its method is refused, whatever it is
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from vidplat.domain import Job, ModelRef, OperatingPoint, VideoSpec
from vidplat.errors import JobError, ModelError, OutOfMemoryError, SpecError, printable
from vidplat.methods.frames import kept_latents
from vidplat.methods.language import chosen
from vidplat.methods.model_shape import ModelShape, ProfilePoint
from vidplat.workers.draft import Draft, Raw, Rendered
from vidplat.workers.making import Control, OnStep

FAKE_SHAPE = ModelShape(
    family="fake",
    layers=2,
    width=64,
    ffn_width=256,
    text_tokens=16,
    patch=(1, 2, 2),
    temporal_factor=4,
    spatial_factor=8,
    parameter_bytes=1_000_000,
    defaults=VideoSpec(
        width=64,
        height=64,
        num_frames=33,
        fps=16,
        num_inference_steps=8,
        guidance_scale=5.0,
        seed=0,
    ),
    profile=tuple(
        # A concave curve, like a real one: half the steps keep most of the quality.
        ProfilePoint(steps_fraction=part, quality=quality, samples=100)
        for part, quality in ((0.125, 0.60), (0.25, 0.80), (0.5, 0.92), (0.75, 0.97), (1.0, 1.0))
    ),
)


@dataclass
class FakeModel:
    """Spends `step_s` per denoising step and makes a few bytes that depend on the job alone.

    An edit takes `source_s` more for its source; under `lipar` its steps take the share `kept` of
    their time. Under `eco` frames are left out, and filling them in takes `reconstruct_s`, here or
    in the worker that finishes the draft. Compressing takes `mp4_s`.
    """

    step_s: float = 0.0
    decode_s: float = 0.0
    source_s: float = 0.0
    kept: float = 1.0
    reconstruct_s: float = 0.0
    mp4_s: float = 0.0
    load_s: float = 0.0
    size_bytes: int = 256
    free_bytes: int = 2**34
    device_class: str = "fake"
    load_source: Callable[[Job], bytes] | None = None  # the bytes of a job's input video
    loaded: bool = field(default=False, init=False)

    @classmethod
    def from_id(cls, model_id: str, load_source: Callable[[Job], bytes] | None = None) -> FakeModel:
        """What `fake:step_s=0.02,load_s=0.5` describes. Raises ModelError for unknown settings."""
        kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(
            ("step_s", "decode_s", "source_s", "kept", "load_s", "reconstruct_s", "mp4_s"), float
        )
        kinds["size_bytes"] = int
        settings: dict[str, Any] = {}
        for part in filter(None, model_id.partition(":")[2].split(",")):
            key, _, value = part.partition("=")
            try:
                settings[key] = kinds[key](value)
            except (KeyError, ValueError) as error:
                raise ModelError(f"fake model: {printable(part)!r} is no setting of it") from error
        return cls(**settings, load_source=load_source)

    def load(self) -> None:
        time.sleep(self.load_s)
        self.loaded = True

    def prepare_to_finish(self) -> None: ...

    def calibrate(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def make(
        self,
        job: Job,
        point: OperatingPoint,
        control: Control = Control(),
        *,
        attempt: int,
        hand_over: bool = False,
        raw: bool = False,
    ) -> Rendered | Raw | Draft:
        if not self.loaded:
            raise AssertionError("load() comes before make()")
        if "[wrong]" in job.prompt:
            raise SpecError("the fake model refuses this request")

        by_source = any(one.kind.by_source for one in chosen(point))
        metrics = {"kept_share": self.kept} if by_source else {}
        step_s = self.step_s * (5 if "[slow]" in job.prompt else 1) * metrics.get("kept_share", 1.0)
        times = [time.monotonic()]
        phases: dict[str, float] = {}

        def lap(phase: str) -> None:
            times.append(time.monotonic())
            phases[phase] = times[-1] - times[-2]

        told: dict[str, Any] = {}
        if job.input_video is not None:
            control.on_step("source", 0, point.steps)
            told = {"input": self._read_source(job)}
            lap("source")
        control.on_step("encode", 0, point.steps)
        lap("encode")
        done = 0
        while done < point.steps:
            control.on_step("denoise", done, point.steps)
            if control.is_cancelled():
                raise JobError(f"cancelled after {done} of {point.steps} steps")
            _misbehave(job, point, attempt)
            time.sleep(step_s)
            done += 1
            may_end, left_s = control.min_steps <= done < point.steps, control.left_s()
            if may_end and left_s is not None and step_s + self.decode_s > left_s:
                break
        control.on_step("decode", done, point.steps)
        lap("denoise")
        time.sleep(self.decode_s)
        lap("decode")
        video = _bytes_of(f"{job.id} {done}", self.size_bytes)
        who = {"job_id": job.id, "prompt": job.prompt, "model": job.model.id}
        meta = {**who, "attempt": attempt, "steps": done, **told}
        latents = FAKE_SHAPE.latent_frames(job.spec.num_frames)
        left_out = kept_latents(point.accelerator, latents) < latents
        drafted = Draft(video, len(video), {"left_out": left_out}, meta, phases, metrics, done)
        if left_out and hand_over:
            return drafted
        return self.finish(job, drafted, attempt=attempt, on_progress=control.on_step, raw=raw)

    def _read_source(self, job: Job) -> dict[str, Any]:
        if self.load_source is None:
            raise JobError("this fake model was given no way to load input videos")
        size_bytes = len(self.load_source(job))
        time.sleep(self.source_s)
        return {
            "video": job.input_video,
            "sha256": job.input_sha256,
            "strength": job.strength,
            "bytes": size_bytes,
        }

    def finish(
        self, job: Job, draft: Draft, *, attempt: int, on_progress: OnStep, raw: bool = False
    ) -> Rendered | Raw:
        began, phases = time.monotonic(), dict(draft.phases)
        if draft.filling["left_out"]:
            on_progress("reconstruct", draft.steps_done, draft.steps_done)
            if "[abort-late]" in job.prompt:
                os.abort()
            time.sleep(self.reconstruct_s)
            phases["reconstruct"] = time.monotonic() - began
        meta = {**draft.meta, "attempt": attempt}

        def compressed() -> Rendered:
            began = time.monotonic()
            time.sleep(self.mp4_s)
            poster = _bytes_of(f"{job.id} poster", 64)
            whole = {**phases, "mp4": time.monotonic() - began}
            return Rendered(draft.video, poster, meta, whole, draft.metrics, draft.steps_done)

        return Raw(compressed, draft.steps_done) if raw else compressed()


def describe_fake(model_id: str) -> tuple[ModelRef, ModelShape]:
    """What the platform must know of one. Settings change seconds, never bytes: one revision."""
    FakeModel.from_id(model_id)
    return ModelRef(model_id, "1"), replace(FAKE_SHAPE)


def _misbehave(job: Job, point: OperatingPoint, attempt: int) -> None:
    """As the words in square brackets say."""
    if "[abort]" in job.prompt:
        os.abort()
    if "[oom]" in job.prompt and point.steps >= job.spec.num_inference_steps:
        raise OutOfMemoryError("the fake model needs more memory than there is")
    if "[hang]" in job.prompt and attempt == 1:
        time.sleep(3600)
    if "[fail]" in job.prompt or ("[flaky]" in job.prompt and attempt == 1):
        raise JobError("the fake model fails this job")


def _bytes_of(text: str, count: int) -> bytes:
    blocks = (hashlib.sha256(f"{text} {index}".encode()).digest() for index in itertools.count())
    out = bytearray()
    while len(out) < count:
        out += next(blocks)
    return bytes(out[:count])


@cache
def _dying_at(at: str, log: str | None) -> Callable[[str], None]:
    """Counts the points that this process passes; dies, as by `kill -9`, at the n-th or a name.

    One for all who ask, so that they count together.
    """
    passed = itertools.count(1)

    def point(name: str) -> None:
        if at in (str(next(passed)), name):
            if log:
                Path(log).write_text(name)
            os._exit(137)

    return point


def crash_points() -> Callable[[str], None]:
    """The hook that CRASH_AT asks for: a count over the whole process, or a point's name.

    CRASH_LOG names a file that receives the name of the point it died at.
    """
    return _dying_at(os.environ.get("CRASH_AT", ""), os.environ.get("CRASH_LOG"))
