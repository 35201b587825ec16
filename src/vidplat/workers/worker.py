"""A worker: one loaded model on one device, that makes many videos, one after another.

`Worker(model).load()` brings the model into memory, `calibrate()` measures how fast this device is
with it, `make(job, point)` makes one video: mp4, poster and sidecar in memory. Storing them,
heartbeats across processes and what follows a failure are the platform's.

Determinism: the same job at the same point gives the same frames bit for bit on the same device
class, whatever was made before, as long as `finish_by` did not shorten it. Jobs are made one at a
time: sharing a pass wins 3 to 10 % per step on a CPU core and changes the last bits
(benchmarks/batching.py), and so no video can depend on its neighbours.

Not safe for use by two threads at once, except `is_cancelled` and `finish_by`, which are asked
between steps, and what `Raw` leaves to be done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vidplat.config import InputConfig
from vidplat.domain import DEFAULT_STRENGTH, Job, ModelRef, OperatingPoint, VideoSpec
from vidplat.errors import JobError, ModelError, OutOfMemoryError, SpecError, printable
from vidplat.methods.model_shape import ModelShape
from vidplat.stages import DECODE, MP4, RECONSTRUCT, SOURCE
from vidplat.workers import devices
from vidplat.workers.delivery import handed_over, rendered
from vidplat.workers.draft import Draft, Raw, Rendered
from vidplat.workers.making import Ask, Control, Made, OnStep, Stopwatch
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.limits import check_spec
from vidplat.workers.sidecar import sidecar
from vidplat.workers.source_frames import SourceFrames

if TYPE_CHECKING:
    import numpy as np

    from vidplat.methods.installed import Installed
    from vidplat.workers.models.family import Family

CALIBRATION_S = 2.0


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    ref: ModelRef  # the exact weights
    shape: ModelShape
    family: Family
    installed: Installed | None  # None: its own driver prunes, and refuses other methods


class Worker:
    """See the module's text. `model` is a `ModelRef` (its revision is then checked) or an id."""

    def __init__(
        self,
        model: ModelRef | str,
        *,
        device: str = "cpu",
        threads: int = 1,
        id: str = "worker",
        load_source: Callable[[Job], bytes] | None = None,
        limits: InputConfig = InputConfig(),
    ) -> None:
        """`load_source` gives a job's input video, checked by its SHA-256; `limits` bound it."""
        self.id, self.device, self.threads = id, device, threads
        self.sources = SourceFrames(load_source, limits)
        self._asked = model if isinstance(model, ModelRef) else ModelRef(model, "")
        self._loaded: Loaded | None = None
        self._measured = 0  # calibration videos made so far
        self._tail_s_per_pixel = 0.0  # decode to mp4, per output pixel and frame; measured

    # --- facts ------------------------------------------------------------------------------------

    @property
    def device_class(self) -> str:
        """Equal text, equal speed expected: `cpu-2` (two threads), or the name of the GPU."""
        return devices.class_of(self.device, self.threads)

    @property
    def free_bytes(self) -> int:
        """Memory that a job could use now, with what the model would give back for it."""
        spare = self._loaded.family.spare_bytes if self._loaded else 0
        return devices.free_bytes(self.device) + spare

    @property
    def loaded(self) -> Loaded:
        """The model. Raises `JobError` before `load`."""
        if self._loaded is None:
            raise JobError("the worker has not loaded its model: call load() first")
        return self._loaded

    @property
    def ref(self) -> ModelRef:
        return self.loaded.ref

    @property
    def shape(self) -> ModelShape:
        return self.loaded.shape

    # --- life -------------------------------------------------------------------------------------

    def load(self) -> None:
        """Bring the model into memory. Raises `ModelError`. Again: nothing."""
        if self._loaded is not None:
            return
        devices.prepare(self.device, self.threads)
        from vidplat.methods.installed import Installed
        from vidplat.workers.models.family import MakesBlocks
        from vidplat.workers.models.loading import load_family

        ref, shape = describe_model(self._asked.id)
        if self._asked.revision not in ("", ref.revision):
            raise ModelError(
                f"the weights of {printable(self._asked.id)} are not those of the submit: "
                f"revision {ref.revision} is here, {printable(self._asked.revision)} was asked for"
            )
        family = load_family(locate(self._asked.id), self.device)
        in_blocks = isinstance(family, MakesBlocks)
        installed = None if in_blocks else Installed(family.transformers, ref.revision)
        self._loaded = Loaded(ref, shape, family, installed)

    def prepare_to_finish(self) -> None:
        """Import what `finish` needs, a second on a slow device; no model, and no torch."""
        import vidplat.methods.filling.frames
        import vidplat.quality
        import vidplat.workers.video  # noqa: F401

    def calibrate(self) -> list[dict[str, Any]]:
        """Measure this device with this model, for about two seconds; small sizes first.

        Each row: model_id, device_class, stage, spec, point, seconds. The first pass warms up and
        is not counted.
        """
        sizes = _calibration_sizes(self.shape)
        point = OperatingPoint(steps=min(2, self.shape.defaults.num_inference_steps))
        began = time.perf_counter()
        self._measure(sizes[0], OperatingPoint(steps=1))
        rows: list[dict[str, Any]] = []
        for size in sizes:
            before = time.perf_counter()
            rows += self._measure(size, point)
            now = time.perf_counter()
            # The next size takes about three times as long.
            if now - began + 3 * (now - before) > CALIBRATION_S:
                break
        return rows

    def make(
        self,
        job: Job,
        point: OperatingPoint,
        control: Control = Control(),
        *,
        attempt: int = 1,
        hand_over: bool = False,
        raw: bool = False,
    ) -> Rendered | Raw | Draft:
        """Make one video. Raises `SpecError`, `MethodRefused`, `OutOfMemoryError` or `JobError`.

        With `hand_over` a video of which a method left frames out comes back as a draft, for
        `finish` anywhere. With `raw` a finished one is still to be compressed, in any thread.

        `control.finish_by` shortens the run rather than be late; `steps_done` then says how many
        steps were spent. It covers mp4, not storing: `tail_s` is known here. `on_step` is called
        at each change of phase and after each step; what it raises ends the job.
        """
        check_spec(self.shape, job.spec)
        if point.steps < 1:
            raise SpecError(f"steps must be at least 1, not {point.steps}")
        tail_s = self._tail_s_per_pixel * _pixels(job.spec)
        control = replace(control, tail_s=tail_s)
        ask = Ask(job.prompt, job.negative_prompt, job.spec, point, control=control)
        watch, video = Stopwatch(), None
        if job.input_video is not None:
            control.on_step(SOURCE, 0, point.steps)
            strength = DEFAULT_STRENGTH if job.strength is None else job.strength
            video = (self.sources.of(job), strength)
            watch.lap(SOURCE)
        made = self._made(ask, watch, video, hand_over)
        meta = sidecar(job, self.ref, point, made, self._card(attempt))
        if made.filling is not None:
            return handed_over(made, meta, job.spec)
        told_of = made.passes or made.steps_done
        found = self._raw(job.spec, made.frames, made.phases, made.facts, meta, made.steps_done)
        return found if raw else self._compressed(found, told_of, control.on_step)

    def finish(
        self,
        job: Job,
        draft: Draft,
        *,
        attempt: int = 1,
        on_progress: OnStep = lambda phase, step, steps: None,
        raw: bool = False,
    ) -> Rendered | Raw:
        """The video of a draft with mp4 bytes. Needs no loaded model. Raises `JobError`."""
        from vidplat.methods.filling.frames import filled
        from vidplat.methods.filling.moments import filling_of
        from vidplat.workers.video import to_frames

        steps, watch = draft.steps_done, Stopwatch()
        on_progress(RECONSTRUCT, steps, steps)
        try:
            filling = filling_of(draft.filling)
            frames = filled(to_frames(draft.video), filling.moments)
        except ValueError as problem:
            raise JobError(f"the draft cannot be finished: {printable(problem)}") from problem
        watch.lap(RECONSTRUCT)
        maker = draft.meta.get("worker")
        meta = {**draft.meta, "worker": self._card(attempt), "drafted_by": maker}
        phases = {**draft.phases, **watch.phases}
        found = self._raw(job.spec, frames, phases, draft.metrics, meta, steps)
        return found if raw else self._compressed(found, steps, on_progress)

    # --- inside -----------------------------------------------------------------------------------

    def _made(
        self,
        ask: Ask,
        watch: Stopwatch,
        video: tuple[np.ndarray, float] | None = None,
        hand_over: bool = False,
    ) -> Made:
        """All frames, or with `hand_over` those that were not left out. `video` is what to start
        from and its strength; `watch` has the seconds so far. Out of memory, again with what the
        model can spare."""
        while True:
            try:
                return self._tried(ask, watch, video, hand_over)
            except OutOfMemoryError:
                if not self.loaded.family.spare():
                    raise

    def _tried(
        self, ask: Ask, watch: Stopwatch, video: tuple[np.ndarray, float] | None, hand_over: bool
    ) -> Made:
        from vidplat.workers.edit import encoded
        from vidplat.workers.generate import draft, generate

        model = self.loaded
        with devices.failures_told(self.device, ask.spec):
            if model.installed is not None:
                model.installed.use(ask.point.accelerator)
            if video is not None:
                watch.restart()
                ask = replace(ask, source=encoded(model.family, *video, ask.spec))
                watch.lap(SOURCE)
            begin = draft if hand_over else generate
            made = begin(model.family, ask, model.installed)
        return replace(made, phases={**watch.phases, **made.phases})

    def _measure(self, spec: VideoSpec, point: OperatingPoint) -> list[dict[str, Any]]:
        self._measured += 1  # a new text each time, so that encoding it is measured, not the cache
        ask = Ask(f"calibration {self._measured}", f"not {self._measured}", spec, point)
        made = self._made(ask, Stopwatch())
        done = rendered(spec, made.frames, made.phases, {}, {}, made.steps_done)
        self._noted(spec, done)
        what: dict[str, Any] = {"spec": spec, "point": point}
        about = {"model_id": self.ref.id, "device_class": self.device_class, **what}
        return [{**about, "stage": stage, "seconds": s} for stage, s in done.phases.items()]

    def _raw(self, spec: VideoSpec, *made: Any) -> Raw:
        """Of what `rendered` takes; it must not keep what is on the device."""
        return Raw(lambda: self._noted(spec, rendered(spec, *made)), steps_done=made[-1])

    def _compressed(self, found: Raw, told_of: int, on_progress: OnStep) -> Rendered:
        on_progress(MP4, told_of, told_of)
        return found.compressed()

    def _noted(self, spec: VideoSpec, done: Rendered) -> Rendered:
        """Remember how long a job's end takes: the slower of a fresh and a fading figure."""
        spent = sum(done.phases.get(phase, 0.0) for phase in (DECODE, RECONSTRUCT, MP4))
        rate = spent / _pixels(spec)
        self._tail_s_per_pixel = max(rate, 0.8 * self._tail_s_per_pixel + 0.2 * rate)
        return done

    def _card(self, attempt: int) -> dict[str, Any]:
        return {"id": self.id, "device_class": self.device_class, "attempt": attempt}


def _pixels(spec: VideoSpec) -> int:
    return spec.width * spec.height * spec.num_frames


def _calibration_sizes(shape: ModelShape) -> list[VideoSpec]:
    """The model's defaults at a third of their latent frames, and as they are."""
    spec = shape.defaults
    third = max(1, shape.latent_frames(spec.num_frames) // 3)
    short = replace(spec, num_frames=shape.frames_of(third))
    return [spec] if short == spec else [short, spec]
