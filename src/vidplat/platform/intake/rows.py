"""One prompt becomes a row of the spool, or is refused with a reason.

A row is completed (its own cells over the submit's wishes over the model's defaults), checked
against any machine and then against the model, and given a seed and an id. What many rows share
(model and size, deadline, method, masks) is worked out once per distinct value and remembered; of
each row one integer stays, by which a video asked for twice is noticed.

Left to others: what is noted of a good row (take_in.py), what a source holds (source_videos.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

from vidplat.domain import DEFAULT_STRENGTH, ModelRef, Prompt, VideoSpec, around_seed, id_at_seed
from vidplat.errors import RequestError, UsageError, printable
from vidplat.methods.kinds import Task
from vidplat.methods.language import asked, unsuited, uses_searched_masks
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.intake.source_videos import Source, or_why, too_short
from vidplat.platform.intake.spool import JobSpool, Row
from vidplat.platform.interface import Wishes
from vidplat.storage.prompt_cells import RowProblem
from vidplat.times import parse_deadline
from vidplat.workers.models.limits import check_spec, nearest_frames

_PIXELS_MAX = 2**34  # pixels of all frames of one video: beyond it no machine has the memory
_MOST = {
    "width": 16_384,
    "height": 16_384,
    "num_frames": 100_000,
    "num_inference_steps": 10_000,
    "fps": 1_000,
}
_PRIORITY_MAX = 1_000_000
_REMEMBERED = 100_000  # distinct values: beyond it the oldest are forgotten


class Models(Protocol):
    """What intake must know of models; `workers` knows it."""

    def describe(self, model_id: str) -> tuple[ModelRef, ModelShape]:
        """Raises ModelError."""

    def searched_masks(self, model_id: str, latent_frames: int) -> str:
        """SHA-256 of the masks that were searched for such videos, or "". Raises ModelError."""


@dataclass(frozen=True)
class _Template:
    """What rows of the same size, length and model share."""

    number: int  # in the spool
    spec: VideoSpec
    model: ModelRef
    task: Task  # without an input video
    token_frames: int


_Wrong = tuple[str, str]  # column, message


class Rows:
    """Makes the rows of one submit, in their order. Used by one thread. Raises UsageError or
    ModelError when the submit's own wishes are wrong."""

    def __init__(self, wishes: Wishes, models: Models, now: float, spool: JobSpool) -> None:
        self._wishes, self._models, self._spool = wishes, models, spool
        self.model, _ = models.describe(wishes.model)
        self.deadline_at = None if wishes.deadline is None else parse_deadline(wishes.deadline, now)
        self.shapes: dict[str, ModelShape] = {}  # of all models that rows named, by id
        self._asked = _Asked(wishes.seed)
        remember = lru_cache(_REMEMBERED)
        self._described = remember(self._describe)
        self._template = remember(self._new_template)
        self._moment = remember(or_why(partial(parse_deadline, now=now)))
        self._method_problem = remember(or_why(unsuited))
        self._masks = remember(self._searched_masks)
        if wishes.method is not None:
            asked(wishes.method)
        if not 0.0 <= wishes.quality_floor <= 1.0:
            raise UsageError(
                f"the quality floor must lie between 0 and 1, not {wishes.quality_floor}"
            )
        says_nothing = self._template(wishes.model, ())
        if not isinstance(says_nothing, _Template):
            raise UsageError(f"the submit's own settings: {says_nothing[1]}")

    def take(self, prompt: Prompt, source: Source | str | None) -> Row | list[RowProblem]:
        """The prompt's row; or what is wrong with its `source`, and with the first other cell."""
        refused = []
        if isinstance(source, str):
            refused.append(RowProblem(prompt.row, "input_video", source))
        overrides = dict(prompt.overrides)
        seed = overrides.pop("seed", None)
        template = self._template(prompt.model or self._wishes.model, tuple(overrides.items()))
        if not isinstance(template, _Template):
            return [*refused, RowProblem(prompt.row, *template)]
        if wrong := self._wrong_cell(prompt, seed, source, template):
            refused.append(RowProblem(prompt.row, *wrong))
        if refused or isinstance(source, str):
            return refused
        row = self._row(prompt, seed, source, template)
        return [row] if isinstance(row, RowProblem) else row

    def _wrong_cell(
        self, prompt: Prompt, seed: int | None, source: Source | str | None, template: _Template
    ) -> _Wrong | None:
        if isinstance(moment := self._deadline(prompt), str):
            return "deadline", moment
        method = prompt.method or self._wishes.method
        if method is not None:
            task = replace(template.task, is_edit=source is not None)
            if wrong := self._method_problem(method, task):
                return "method" if prompt.method else "--method", wrong
        if prompt.priority is not None and abs(prompt.priority) > _PRIORITY_MAX:
            return "priority", f"must lie within ±{_PRIORITY_MAX}, not {prompt.priority}"
        if isinstance(source, Source) and (wrong := too_short(source, template.spec)):
            return "input_video", wrong
        if seed is not None and not 0 <= seed < 2**63:
            return "seed", f"must be between 0 and {2**63 - 1}, not {seed}"
        return None

    def _row(
        self, prompt: Prompt, seed: int | None, source: Source | None, template: _Template
    ) -> Row | RowProblem:
        """A row whose cells are all right, with a seed that no row before it has for this video."""
        method = prompt.method or self._wishes.method
        sha256 = strength = None
        if source is not None:
            sha256 = source.sha256
            strength = DEFAULT_STRENGTH if prompt.strength is None else prompt.strength
            method = "steps" if asked(method or "auto").name == "auto" else method
        masks = self._masks(method, template.model.id, template.token_frames) if method else ""
        text, video = (prompt.text, prompt.negative_prompt), (template.spec, template.model)
        around = around_seed(*text, *video, sha256, strength, masks)
        if seed is None:
            seed, found = self._asked.free_seed(around)
        elif (first := self._asked.first(found := id_at_seed(around, seed))) is not None:
            return RowProblem(
                prompt.row,
                "seed",
                f"asks for the same video as row {first} (same text, size and seed {seed}): "
                "remove one of the two or change its seed",
            )
        self._asked.note(found, prompt.row)
        deadline_at = self._deadline(prompt)
        assert not isinstance(deadline_at, str), "checked before"
        return Row(
            found,
            prompt.text,
            prompt.negative_prompt,
            template.number,
            seed,
            prompt.row,
            prompt.external_id,
            self._wishes.priority if prompt.priority is None else prompt.priority,
            deadline_at,
            method,
            prompt.input_video,
            sha256,
            strength,
        )

    def _deadline(self, prompt: Prompt) -> float | str | None:
        return self.deadline_at if prompt.deadline is None else self._moment(prompt.deadline)

    # --- what rows share, each remembered -------------------------------------------------------

    def _describe(self, model_id: str) -> tuple[ModelRef, ModelShape] | str:
        try:
            model, shape = self._models.describe(model_id)
        except RequestError as error:
            return str(error)
        self.shapes[model.id] = shape
        return model, shape

    def _new_template(self, model_id: str, size: tuple[tuple[str, Any], ...]) -> _Template | _Wrong:
        known = self._described(model_id)
        if isinstance(known, str):
            return "model", known
        model, shape = known
        try:
            spec = self._spec(shape, dict(size))
            _check_bounds(spec)
            check_spec(shape, spec)
        except RequestError as error:
            return "video", str(error)
        task = Task.of(shape, spec, spec.num_inference_steps)
        token_frames = task.latent_frames // shape.patch[0]
        return _Template(self._spool.template(spec, model), spec, model, task, token_frames)

    def _spec(self, shape: ModelShape, size: dict[str, Any]) -> VideoSpec:
        """The row's values over the submit's over the model's; `num_frames` over `seconds`."""
        spec = shape.defaults
        for values in (self._wishes.spec, size):
            chosen = {name: value for name, value in values.items() if name != "seed"}
            seconds = chosen.pop("seconds", None)
            spec = replace(spec, **chosen)
            if seconds is not None and "num_frames" not in chosen:
                if not 0 < seconds <= 3600:
                    raise UsageError(
                        f"seconds must be above 0 and at most 3600, not {printable(seconds)}"
                    )
                frames = nearest_frames(round(seconds * spec.fps), shape)
                spec = replace(spec, num_frames=frames)
        return replace(spec, guidance_scale=float(spec.guidance_scale), seed=self._wishes.seed)

    def _searched_masks(self, method: str, model_id: str, token_frames: int) -> str:
        """What a video depends on beside its method's text where masks were searched, or ""."""
        if not uses_searched_masks(method):
            return ""
        return self._models.searched_masks(model_id, token_frames)


class _Asked:
    """Which row asked first for each video. A row that gives no seed gets the base seed plus the
    number of rows before it that ask for the same: a prompt given thrice makes three videos."""

    def __init__(self, base_seed: int) -> None:
        self._base = base_seed
        self._first: dict[int, int] = {}  # job id as an integer -> row; an integer is smaller
        self._next: dict[int, int] = {}  # of videos asked for again: id at the base -> next seed

    def first(self, job: str) -> int | None:
        """The row that asks for this video."""
        return self._first.get(int(job, 16))

    def note(self, job: str, row: int) -> None:
        self._first[int(job, 16)] = row

    def free_seed(self, around: tuple[str, str]) -> tuple[int, str]:
        """The least seed from the base upwards whose video nobody asked for yet, and its id."""
        seed, job = self._base, id_at_seed(around, self._base)
        at_base = int(job, 16)
        if at_base in self._first:
            seed = self._next.get(at_base, seed + 1)
            while self.first(job := id_at_seed(around, seed)) is not None:
                seed += 1
            self._next[at_base] = seed + 1
        return seed, job


def _check_bounds(spec: VideoSpec) -> None:
    """Limits of any machine, so that later arithmetic stays sensible."""
    for name, most in _MOST.items():
        value = getattr(spec, name)
        if value > most:
            raise UsageError(f"{name} must be at most {most}, not {printable(value, 40)}")
    if spec.width * spec.height * spec.num_frames > _PIXELS_MAX:
        raise UsageError(
            f"{spec.width}x{spec.height}, {spec.num_frames} frames is too large for one video"
        )
