"""A worker: one loaded model on one device, that makes many videos, one after another.

`Worker(model).load()` brings the model into memory, `calibrate()` measures how fast this device is
with it, `make(job, point)` makes one video: mp4, poster and sidecar in memory. Storing them,
heartbeats across processes and what follows a failure are the platform's.

Determinism: the same job at the same point gives the same frames bit for bit on the same device
class, whatever was made before, as long as `finish_by` did not shorten it. Jobs are made one at a
time: sharing a pass wins 3 to 10 % per step on a CPU core and changes the last bits
(benchmarks/batching.py), and so no video can depend on its neighbours.

Not safe for use by two threads at once, except `is_cancelled` and `finish_by`, which are asked
between steps.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

from vidplat.config import InputConfig
from vidplat.domain import DEFAULT_STRENGTH, Job, ModelRef, OperatingPoint, VideoSpec
from vidplat.errors import InputError, JobError, ModelError, OutOfMemoryError, SpecError, printable
from vidplat.methods.model_shape import ModelShape
from vidplat.stages import DECODE, MP4, RECONSTRUCT
from vidplat.workers.draft import Draft
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.limits import check_spec

if TYPE_CHECKING:
    import numpy as np

    from vidplat.methods.installed import Installed
    from vidplat.workers.generate import FinishBy, Made, OnStep
    from vidplat.workers.models.family import Family
    from vidplat.workers.text_cache import TextCache

_Thing = TypeVar("_Thing")
LONGEST_SCHEDULE = 10_000
_PACKAGES = ("vidplat", "torch", "diffusers", "transformers", "av", "numpy")


@dataclass(frozen=True)
class Rendered:
    """One finished video in memory, and all there is to tell about it."""

    video: bytes  # mp4
    poster: bytes  # jpeg
    meta: dict[str, Any]  # the sidecar, ready for JSON
    phases: dict[str, float]  # seconds by stage, see `vidplat.stages`
    metrics: dict[str, float]  # flicker, motion_energy, and what methods found (kept_share)
    steps_done: int


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
        """`load_source` gives the bytes of a job's input video, checked against its SHA-256;
        `limits` bound them."""
        self._load_source, self._limits = load_source, limits
        self._last_source: tuple[object, np.ndarray] | None = (
            None  # many jobs may start from one video
        )
        self.id, self.device, self.threads = id, device, threads
        self.load_phases: dict[str, float] = {}  # seconds of `import` and `load`
        self._asked = model if isinstance(model, ModelRef) else ModelRef(model, "")
        self._family: Family | None = None
        self._texts: TextCache | None = None
        self._installed: Installed | None = None  # made when the first point asks for a method
        self._ref: ModelRef | None = None
        self._shape: ModelShape | None = None
        self._measured = 0  # calibration videos made so far
        self._tail_s_per_pixel = 0.0  # decode to mp4, per output pixel and frame; measured

    # --- facts ------------------------------------------------------------------------------------

    @property
    def device_class(self) -> str:
        """Equal text, equal speed expected: `cpu-2` (two threads), or the name of the GPU."""
        if self.device.startswith("cuda"):
            import torch

            return str(torch.cuda.get_device_name(self.device))
        return f"cpu-{self.threads}"

    @property
    def ref(self) -> ModelRef:
        """The exact weights that are loaded."""
        return _loaded(self._ref)

    @property
    def shape(self) -> ModelShape:
        return _loaded(self._shape)

    @property
    def is_loaded(self) -> bool:
        return self._family is not None

    @property
    def free_bytes(self) -> int:
        """Memory that a job could use now."""
        if self.device.startswith("cuda"):
            import torch

            return int(torch.cuda.mem_get_info(self.device)[0])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    # --- life -------------------------------------------------------------------------------------

    def load(self) -> None:
        """Bring the model into memory; `load_phases` then tells the seconds. Raises `ModelError`.
        Again: nothing."""
        if self.is_loaded:
            return
        began = time.perf_counter()
        _prepare_torch(self.device, self.threads)
        from vidplat.workers.models.family import load_family
        from vidplat.workers.text_cache import TextCache

        imported = time.perf_counter()
        self._ref, self._shape = describe_model(self._asked.id)
        if self._asked.revision not in ("", self._ref.revision):
            raise ModelError(
                f"the weights of {printable(self._asked.id)} are not those of the submit: "
                f"revision {self._ref.revision} is here, {printable(self._asked.revision)} was "
                "asked for"
            )
        self._family = load_family(locate(self._asked.id), self.device)
        self._texts = TextCache(self._family, self._ref.revision)
        self.load_phases = {"import": imported - began, "load": time.perf_counter() - imported}

    def prepare_to_finish(self) -> None:
        """Import what `finish` needs, a second on a slow device; no model, and no torch."""
        import vidplat.methods.filling.frames
        import vidplat.quality
        import vidplat.workers.video  # noqa: F401

    def calibrate(
        self, spec: VideoSpec | None = None, budget_s: float = 2.0
    ) -> list[dict[str, Any]]:
        """Measure this device with this model, for about `budget_s` seconds; small sizes first.

        Each row: model_id, device_class, stage, spec, point, seconds. The first pass warms up and
        is not counted. Give `spec` to measure near the sizes that will be made; else the model's
        default.
        """
        spec = spec or self.shape.defaults
        sizes = _calibration_sizes(spec, self.shape)
        began = time.perf_counter()
        self._measure(sizes[0], OperatingPoint(steps=1))
        rows: list[dict[str, Any]] = []
        for size in sizes:
            before = time.perf_counter()
            rows += self._measure(
                size, OperatingPoint(steps=min(2, self.shape.defaults.num_inference_steps))
            )
            took = time.perf_counter() - before
            if (
                time.perf_counter() - began + 3 * took > budget_s
            ):  # the next size is about three times as long
                break
        return rows

    def make(
        self,
        job: Job,
        point: OperatingPoint,
        *,
        attempt: int = 1,
        on_progress: OnStep | None = None,
        finish_by: FinishBy = None,
        min_steps: int = 1,
        is_cancelled: Callable[[], bool] | None = None,
        hand_over: bool = False,
    ) -> Rendered | Draft:
        """Make one video. Raises `SpecError`, `OutOfMemoryError` or `JobError`.

        With `hand_over` a video of which a method left frames out comes back as a draft, for
        `finish` anywhere.

        `finish_by` (epoch seconds, or a function asked at every step boundary) shortens the run
        rather than be late; `steps_done` then says how many steps were spent. It covers mp4, not
        storing. `on_progress(phase, steps finished, steps in all)` is called at each change of
        phase and after each step; what it raises ends the job.
        """
        from vidplat.workers.generate import Wishes

        check_spec(self.shape, job.spec)
        if point.steps < 1:
            raise SpecError(f"steps must be at least 1, not {point.steps}")

        wishes = Wishes(
            on_step=on_progress or _silent,
            finish_by=finish_by,
            tail_s=self._tail_s(job.spec),
            min_steps=min_steps,
            is_cancelled=is_cancelled or _never,
        )
        source, source_s = None, 0.0
        if job.input_video is not None:
            wishes.on_step("source", 0, point.steps)
            began = time.perf_counter()
            source = (self._source(job), DEFAULT_STRENGTH if job.strength is None else job.strength)
            source_s = time.perf_counter() - began
        made = self._make(
            job.prompt, job.negative_prompt, job.spec, point, wishes, source, hand_over
        )
        if source is not None:
            made.phases["source"] = made.phases.get("source", 0.0) + source_s
        facts = dict(self._installed.facts() if self._installed is not None else made.facts)
        if made.filling is not None:
            from vidplat.workers.video import DRAFT_CRF, to_mp4

            began = time.perf_counter()
            video = to_mp4(made.frames, job.spec.fps, crf=DRAFT_CRF)
            made.phases["decode"] += time.perf_counter() - began
            meta = self._sidecar(job, point, made, attempt)
            return Draft(
                video,
                len(video),
                made.filling.document(),
                meta,
                made.phases,
                facts,
                made.steps_done,
            )
        told_of = made.passes or made.steps_done
        wishes.on_step("mp4", told_of, told_of)
        video, poster = self._compressed(made.frames, job.spec, made.phases)
        metrics = _seen(made.frames) | facts
        meta = self._sidecar(job, point, made, attempt) | _measured(made.phases, metrics)
        return Rendered(video, poster, meta, made.phases, metrics, made.steps_done)

    def finish(
        self, job: Job, draft: Draft, *, attempt: int = 1, on_progress: OnStep | None = None
    ) -> Rendered:
        """The video of a draft; its `video` is mp4 bytes. Needs no loaded model. Raises
        `JobError`."""
        from vidplat.methods.filling.frames import filled
        from vidplat.methods.filling.moments import filling_of
        from vidplat.workers.video import to_frames

        told, steps, phases = on_progress or _silent, draft.steps_done, dict(draft.phases)
        told("reconstruct", steps, steps)
        began = time.perf_counter()
        try:
            filling = filling_of(draft.filling)
            frames = filled(to_frames(draft.video), filling.moments)
        except ValueError as problem:
            raise JobError(f"the draft cannot be finished: {printable(problem)}") from problem
        phases["reconstruct"] = time.perf_counter() - began
        told("mp4", steps, steps)
        video, poster = self._compressed(frames, job.spec, phases)
        metrics = _seen(frames) | dict(draft.metrics)
        worker = {"id": self.id, "device_class": self.device_class, "attempt": attempt}
        meta = {**draft.meta, "worker": worker, "drafted_by": draft.meta.get("worker")}
        return Rendered(video, poster, meta | _measured(phases, metrics), phases, metrics, steps)

    # --- inside -----------------------------------------------------------------------------------

    def _make(
        self,
        prompt: str,
        negative_prompt: str,
        spec: VideoSpec,
        point: OperatingPoint,
        wishes: Any,
        source: tuple[np.ndarray, float] | None = None,
        hand_over: bool = False,
    ) -> Made:
        """All frames, or with `hand_over` those that were not left out; `source` is the video to
        start from and its strength."""
        import torch

        from vidplat.workers.generate import draft, generate
        from vidplat.workers.models.family import MakesBlocks

        begin = draft if hand_over else generate
        try:
            family = _loaded(self._family)
            installed = self._with_methods(family, point)
            texts = _loaded(self._texts)
            if source is None:
                return begin(family, texts, prompt, negative_prompt, spec, point, wishes, installed)
            from vidplat.workers.edit import edit

            frames, strength = source
            whole, told = point, wishes
            if not isinstance(family, MakesBlocks):
                whole = replace(point, steps=schedule_steps(point.steps, strength))
                told = replace(
                    wishes,
                    on_step=lambda at, step, of: wishes.on_step(at, step, min(of, point.steps)),
                )
            return edit(
                family,
                texts,
                frames,
                prompt,
                negative_prompt,
                spec,
                whole,
                strength,
                told,
                installed,
            )
        except (torch.OutOfMemoryError, MemoryError) as problem:
            self._forget_memory()
            raise OutOfMemoryError(_no_room(spec)) from problem
        except RuntimeError as problem:
            if "not enough memory" in str(problem) or "can't allocate memory" in str(problem):
                self._forget_memory()
                raise OutOfMemoryError(_no_room(spec)) from problem
            raise JobError(f"the model failed: {printable(problem)}") from problem

    def _compressed(
        self, frames: np.ndarray, spec: VideoSpec, phases: dict[str, float]
    ) -> tuple[bytes, bytes]:
        """mp4 and poster of a whole video, checked against what was promised; its seconds are added
        to `phases`."""
        from vidplat.workers.video import probe, to_mp4, to_poster

        began = time.perf_counter()
        video, poster = to_mp4(frames, spec.fps), to_poster(frames)
        facts = probe(video)
        found = (facts.width, facts.height, facts.num_frames, facts.fps)
        promised = (spec.width, spec.height, spec.num_frames, float(spec.fps))
        if found != promised:
            raise JobError(
                f"the file holds {found} (width, height, frames, fps), promised were {promised}"
            )
        phases["mp4"] = time.perf_counter() - began
        self._note_tail(spec, phases)
        return video, poster

    def _source(self, job: Job) -> np.ndarray:
        """The job's input video at its spec: (num_frames, height, width, 3) uint8 RGB, not to be
        written to."""
        spec = job.spec
        wanted = (job.input_sha256, spec.width, spec.height, spec.num_frames, spec.fps)
        if self._last_source is None or self._last_source[0] != wanted:
            from vidplat.workers.video import read_video

            if self._load_source is None:
                raise JobError("this worker was given no way to load input videos")
            data = self._load_source(job)
            try:
                frames = read_video(
                    data, spec.width, spec.height, spec.num_frames, spec.fps, self._limits
                )
            except InputError as problem:
                raise InputError(f"the input video {problem}") from problem
            self._last_source = (wanted, frames)
        return self._last_source[1]

    def _with_methods(self, family: Family, point: OperatingPoint) -> Installed | None:
        """The methods of `point` installed, others undone. Nothing is loaded before a point asks
        for one."""
        from vidplat.workers.models.family import MakesBlocks

        method = point.accelerator
        if isinstance(
            family, MakesBlocks
        ):  # its driver prunes by itself, and other methods are refused there
            return None
        if self._installed is None and not method:
            return None
        if self._installed is None:
            from vidplat.methods.installed import Installed

            self._installed = Installed(family.transformers, self.ref.revision)
        self._installed.use(method)
        return self._installed

    def _measure(self, spec: VideoSpec, point: OperatingPoint) -> list[dict[str, Any]]:
        from vidplat.workers.generate import Wishes

        self._measured += 1  # a new text each time, so that encoding it is measured, not the cache
        made = self._make(
            f"calibration {self._measured}", f"not {self._measured}", spec, point, Wishes()
        )
        self._compressed(made.frames, spec, made.phases)
        about = {
            "model_id": self.ref.id,
            "device_class": self.device_class,
            "spec": spec,
            "point": point,
        }
        return [
            about | {"stage": stage, "seconds": seconds} for stage, seconds in made.phases.items()
        ]

    def _tail_s(self, spec: VideoSpec) -> float:
        return self._tail_s_per_pixel * spec.width * spec.height * spec.num_frames

    def _note_tail(self, spec: VideoSpec, phases: Mapping[str, float]) -> None:
        """Remember how long the end of a job takes; the slower of a fresh and a fading figure, to
        be safe."""
        spent = sum(phases.get(phase, 0.0) for phase in (DECODE, RECONSTRUCT, MP4))
        rate = spent / (spec.width * spec.height * spec.num_frames)
        self._tail_s_per_pixel = max(rate, 0.8 * self._tail_s_per_pixel + 0.2 * rate)

    def _forget_memory(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _sidecar(self, job: Job, point: OperatingPoint, made: Made, attempt: int) -> dict[str, Any]:
        return {
            "job_id": job.id,
            "external_id": job.external_id,
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "model": asdict(self.ref),
            "spec": asdict(job.spec),
            **_input_facts(job),
            "point": asdict(point) | {"steps_done": made.steps_done},
            **self._method_files(),
            "sigmas": [round(sigma, 6) for sigma in made.sigmas],
            "worker": {"id": self.id, "device_class": self.device_class, "attempt": attempt},
            "versions": _versions(),
        }

    def _method_files(self) -> dict[str, Any]:
        files = self._installed.files() if self._installed is not None else []
        return {"method_files": files} if files else {}


def _seen(frames: np.ndarray) -> dict[str, float]:
    """Metrics of a finished video."""
    from vidplat.quality import flicker, motion_energy

    return {"flicker": flicker(frames), "motion_energy": motion_energy(frames)}


def _measured(phases: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, Any]:
    """What the sidecar tells of seconds and metrics."""
    return {
        "phases_s": {phase: round(seconds, 4) for phase, seconds in phases.items()},
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
    }


def _input_facts(job: Job) -> dict[str, Any]:
    if job.input_video is None:
        return {}
    return {
        "input": {"video": job.input_video, "sha256": job.input_sha256, "strength": job.strength}
    }


def schedule_steps(steps: int, strength: float) -> int:
    """The least length of a schedule of which the last `strength` has `steps` steps.

    A point counts steps that are taken, as costs and the profile do; an edit takes the last
    `strength` of a schedule, int(length x strength) steps. So 24 steps at strength 0.6 are the end
    of a schedule of 40. A strength of next to nothing gets fewer steps than asked for rather than
    an endless schedule.
    """
    length = max(1, int(min(steps / strength, LONGEST_SCHEDULE)) - 1)
    while int(length * strength) < steps and length < LONGEST_SCHEDULE:
        length += 1
    return length


def _silent(phase: str, step: int, steps: int) -> None:
    pass


def _never() -> bool:
    return False


def _loaded(thing: _Thing | None) -> _Thing:
    if thing is None:
        raise JobError("the worker has not loaded its model: call load() first")
    return thing


def _prepare_torch(device: str, threads: int) -> None:
    """Import torch and fix what decides the order of sums: the thread count, and deterministic
    kernels.

    The CPU kernels used here are deterministic for a given thread count, and asking for it imports
    the compiler (1 s), so only CUDA is asked.
    """
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS is repeatable only with this
    import torch

    torch.set_num_threads(threads)
    if device.startswith("cuda"):
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and only for debugging
        torch.backends.cudnn.benchmark = False


def _calibration_sizes(spec: VideoSpec, shape: ModelShape) -> list[VideoSpec]:
    """`spec` at a third of its latent frames, and as it is."""
    third = max(1, shape.latent_frames(spec.num_frames) // 3)
    short = replace(spec, num_frames=shape.frames_of(third))
    return [spec] if short == spec else [short, spec]


def _no_room(spec: VideoSpec) -> str:
    return (
        f"out of memory at {spec.width}x{spec.height}, {spec.num_frames} frames: a smaller "
        "or shorter video may fit"
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found
