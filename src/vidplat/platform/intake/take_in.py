"""Prompt rows become jobs, or one error that lists every bad row. Nothing is enqueued and no model
is loaded.

Each row is completed (row over submit over the model's defaults), checked against what the model
can make, given a seed and an id, and put into a spool (spool.py); after the last row the batch has
its id. How:

    seed    the row's; else the base seed plus the number of rows before it that ask for the very
            same video, so that a prompt given three times makes three different videos
    twice   a row that spells out a video an earlier row already makes is an error that names both
            rows
    id      job: hash of all that decides the pixels. batch: hash of the prefix and the jobs in
            order, so submitting the same file again finds its batch
    source  a row with an input video is a job of its content, whatever its place; each place is
            looked at once. Its method is `steps` unless it says otherwise: what else the planner
            knows is made for text alone

Built for a million rows: what rows share is checked once per distinct combination, and one integer
per row is remembered. Reading files is `storage.prompts`' business and comes in as an iterator,
knowledge of models and of input videos as functions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from vidplat.config import parse_deadline
from vidplat.domain import (
    DEFAULT_STRENGTH,
    PLAIN_METHODS,
    Batch,
    Job,
    ModelRef,
    OnInfeasible,
    Prompt,
    VideoSpec,
)
from vidplat.errors import InputError, RequestError, UsageError, printable
from vidplat.methods import blocks
from vidplat.methods.frames import frames_problem
from vidplat.methods.language import uses_searched_masks
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.intake.edits import Source, conversions, method_problem, too_short
from vidplat.platform.intake.spool import JobSpool, Row
from vidplat.scheduler.profile import check_method

MOST_LISTED = 100  # bad rows spelled out in one message; the rest is counted
_PIXELS_MAX = 2**34  # pixels of all frames of one video: beyond it no machine has the memory
_SIDE_MAX, _FRAMES_MAX, _STEPS_MAX, _FPS_MAX = 16_384, 100_000, 10_000, 1_000
_PRIORITY_MAX = 1_000_000

_quoted = (
    json.encoder.encode_basestring_ascii
)  # what json.dumps does to a string, without its detours


class Problem(Protocol):
    """A row the reader could not use. `storage.prompts.RowProblem`."""

    @property
    def row(self) -> int: ...
    @property
    def column(self) -> str: ...
    @property
    def message(self) -> str: ...


class Models(Protocol):
    """What intake must know of models; `workers` knows it."""

    def describe(self, model_id: str) -> tuple[ModelRef, ModelShape]:
        """Raises ModelError."""

    def check(self, shape: ModelShape, spec: VideoSpec) -> None:
        """Raises SpecError with the rule and the nearest valid value."""

    def nearest_frames(self, frames: int, shape: ModelShape) -> int: ...

    def searched_masks(self, model_id: str, latent_frames: int) -> str:
        """SHA-256 of the searched masks that are here for such videos; "" when there are none.
        Raises ModelError."""


class Sources(Protocol):
    """What intake must know of input videos. `platform.source_videos.SourceVideos`."""

    def look(self, places: Sequence[str]) -> Mapping[str, Source | str]:
        """For each place the source, or the sentence why it cannot be used. A place is looked at
        once."""


@dataclass(frozen=True)
class Wishes:
    """What holds for rows that say nothing themselves."""

    model: str
    spec: Mapping[str, Any] = field(default_factory=dict)  # VideoSpec fields, or `seconds`
    seed: int = 0
    priority: int = 0
    deadline: str | None = None
    method: str | None = None
    quality_floor: float = 0.0
    on_infeasible: OnInfeasible = OnInfeasible.DEGRADE


@dataclass(frozen=True)
class Taken:
    """An input that is right from its first row to its last."""

    batch: Batch
    jobs: Iterable[Job]  # may be iterated more than once
    models: Mapping[str, ModelShape]  # by id, all that occur
    inputs: Mapping[str, str]  # SHA-256 of each input video -> a place where it lies
    close: Callable[[], None]


@dataclass
class _Template:
    """What rows of the same size, length and model share."""

    number: int  # in the spool
    spec: VideoSpec
    middle: str  # the part of the job id's text that the spec gives, without its seed
    end: str  # and the model
    problem: tuple[str, str] | None  # column, message
    in_blocks: bool = False  # the model makes its frames block by block
    latent_frames: int = 0


def take_in(
    pages: Iterable[Sequence[Prompt | Problem]],
    *,
    source: str,
    output_prefix: str,
    wishes: Wishes,
    models: Models,
    sources: Sources,
    now: float,
    on_rows: Callable[[int], None] = lambda count: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Taken:
    """Read `pages` to the end.

    `now` is the moment of submit: deadlines count from it. `on_rows` hears how many rows were read,
    `warn` what will be converted in input videos, a sentence per kind. Raises InputError with every
    bad row, UsageError or ModelError when the submit's own wishes are wrong.
    """
    rows = _Rows(output_prefix, wishes, models, now)
    read = highest = 0
    try:
        rows.check_wishes()
        for page in pages:
            videos = dict.fromkeys(
                item.input_video for item in page if isinstance(item, Prompt) and item.input_video
            )
            rows.looked = sources.look(list(videos)) if videos else {}
            for item in page:
                if item.row > highest:  # what comes later about an earlier row is not another row
                    read, highest = read + 1, item.row
                if isinstance(item, Prompt):
                    rows.take(item)
                else:
                    rows.refuse(item.row, item.column, item.message)
            on_rows(read)
        rows.raise_problems(read, source)
        rows.tell_notes(warn)
    except BaseException:
        rows.spool.close()
        raise
    batch = Batch(
        id=rows.batch_id(),
        source=source,
        output_prefix=output_prefix,
        model=rows.model,
        submitted_at=now,
        deadline_at=rows.deadline_at,
        priority=wishes.priority,
        quality_floor=wishes.quality_floor,
        on_infeasible=wishes.on_infeasible,
        total=rows.spool.count,
        method=wishes.method,
    )
    return Taken(batch, rows.spool, rows.shapes(), rows.inputs, rows.spool.close)


class _Rows:
    """The state of one intake."""

    def __init__(self, output_prefix: str, wishes: Wishes, models: Models, now: float) -> None:
        self._wishes, self._models, self._now = wishes, models, now
        self.model, shape = models.describe(wishes.model)
        self._known: dict[str, tuple[ModelRef, ModelShape] | str] = {
            wishes.model: (self.model, shape)
        }
        self.deadline_at = None if wishes.deadline is None else parse_deadline(wishes.deadline, now)
        self._deadlines: dict[str, float | str] = {}
        self._methods: dict[
            tuple[str, bool, bool, int], str
        ] = {}  # what is wrong with each, "" when nothing
        self.looked: Mapping[str, Source | str] = {}  # the input videos of this page
        self.inputs: dict[str, str] = {}  # SHA-256 -> place
        self._masks: dict[
            tuple[str, int], str
        ] = {}  # model id and latent frames -> SHA-256 of searched masks
        self._notes: dict[
            str, list[int]
        ] = {}  # what is converted -> [how many rows, the first of them]
        if wishes.method is not None:
            check_method(wishes.method)
        if not 0.0 <= wishes.quality_floor <= 1.0:
            raise UsageError(
                f"the quality floor must lie between 0 and 1, not {wishes.quality_floor}"
            )
        self.spool = JobSpool()
        self._templates: dict[Any, _Template] = {}
        self._first_row: dict[
            int, int
        ] = {}  # job id as an integer -> the row that asked for it first
        self._next_seed: dict[
            tuple[int, str, str, str], int
        ] = {}  # only for videos asked for more than once
        self._digest = hashlib.sha256(f"{output_prefix}\n{wishes.method or ''}\n".encode())
        self._problems: dict[int, list[str]] = {}
        self._bad_rows = 0

    def check_wishes(self) -> None:
        """A row that says nothing must be possible."""
        template = self._template(())
        if template.problem is not None:
            raise UsageError(f"the submit's own settings: {template.problem[1]}")

    # --- one row --------------------------------------------------------------------------------

    def take(self, prompt: Prompt) -> None:
        source = None if prompt.input_video is None else self.looked[prompt.input_video]
        if isinstance(source, str):
            self.refuse(prompt.row, "input_video", source)
        overrides = prompt.overrides
        seed = overrides.get("seed")
        key = tuple((name, value) for name, value in overrides.items() if name != "seed")
        template = self._templates.get((prompt.model, key)) or self._template(key, prompt.model)
        if template.problem is not None:
            return self.refuse(prompt.row, *template.problem)
        deadline_at = self.deadline_at
        if prompt.deadline is not None:
            found = self._deadline(prompt.deadline)
            if isinstance(found, str):
                return self.refuse(prompt.row, "deadline", found)
            deadline_at = found
        method = prompt.method or self._wishes.method
        if method is not None and (
            wrong := self._method_problem(method, prompt.input_video is not None, template)
        ):
            return self.refuse(prompt.row, "method", wrong)
        if prompt.priority is not None and abs(prompt.priority) > _PRIORITY_MAX:
            return self.refuse(
                prompt.row, "priority", f"must lie within ±{_PRIORITY_MAX}, not {prompt.priority}"
            )

        if isinstance(source, str):
            return None  # refused above; the other cells have been checked all the same
        end, strength = template.end, None
        if source is not None:
            if wrong := too_short(source, template.spec):
                return self.refuse(prompt.row, "input_video", wrong)
            strength = DEFAULT_STRENGTH if prompt.strength is None else prompt.strength
            end = f"{end[:-1]},{_quoted(source.sha256)},{json.dumps(strength)}]"
            method = "steps" if method in (None, "auto") else method
        if method is not None and (
            masks := self._searched_masks(method, prompt.model, template.spec)
        ):
            end = f"{end[:-1]},{_quoted(masks)}]"

        start = f"[{_quoted(prompt.text)},{_quoted(prompt.negative_prompt)},{template.middle},"
        if seed is None:
            seed, digest = self._free_seed(prompt, template.number, start, end)
        else:
            if not 0 <= seed < 2**63:
                return self.refuse(
                    prompt.row, "seed", f"must be between 0 and {2**63 - 1}, not {seed}"
                )
            digest = _digest(start, seed, end)
            if (first := self._first_row.get(int.from_bytes(digest, "big"))) is not None:
                return self.refuse(
                    prompt.row,
                    "seed",
                    f"asks for the same video as row {first} (same text, size and seed {seed}): "
                    "remove one of the two or change its seed",
                )
        self._first_row[int.from_bytes(digest, "big")] = prompt.row
        if source is not None and prompt.input_video is not None:
            self.inputs.setdefault(source.sha256, prompt.input_video)
            for note in (*source.notes, *conversions(source, template.spec)):
                self._notes.setdefault(note, [0, prompt.row])[0] += 1

        job_id = digest.hex()
        self._digest.update(f"{job_id} {prompt.external_id or ''} {prompt.method or ''}\n".encode())
        self.spool.append(
            Row(
                job_id,
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
                source.sha256 if source is not None else None,
                strength,
            )
        )
        return None

    def _free_seed(self, prompt: Prompt, template: int, start: str, end: str) -> tuple[int, bytes]:
        """The least seed from the base upwards whose video nobody asked for yet, and that video's
        digest."""
        seed = self._wishes.seed
        digest = _digest(start, seed, end)
        if int.from_bytes(digest, "big") not in self._first_row:
            return seed, digest
        key = (template, prompt.text, prompt.negative_prompt, end)
        seed = self._next_seed.get(key, seed + 1)
        while int.from_bytes(digest := _digest(start, seed, end), "big") in self._first_row:
            seed += 1
        self._next_seed[key] = seed + 1
        return seed, digest

    def _deadline(self, text: str) -> float | str:
        """The moment, or what is wrong with it."""
        if text not in self._deadlines:
            try:
                self._deadlines[text] = parse_deadline(text, self._now)
            except UsageError as error:
                self._deadlines[text] = str(error)
        return self._deadlines[text]

    def _method_problem(self, method: str, has_source: bool, template: _Template) -> str:
        key = (method, has_source, template.in_blocks, template.latent_frames)
        if key not in self._methods:
            wrong = method_problem(method, has_source)
            try:
                check_method(method)
                suits = blocks.method_problem(method) if template.in_blocks else ""
                self._methods[key] = (
                    suits or wrong or self._frames_problem(method, template.latent_frames)
                )
            except UsageError as error:
                self._methods[key] = wrong or str(error)
        return self._methods[key]

    @staticmethod
    def _frames_problem(method: str, latent_frames: int) -> str:
        """What a method says of frames that such a video does not have."""
        plain = method.partition(":")[0].strip().lower() in ("auto", *PLAIN_METHODS)
        return "" if plain else frames_problem(method, latent_frames)

    def _searched_masks(self, method: str, model_id: str | None, spec: VideoSpec) -> str:
        """What a video made by searched masks depends on beside its method's text; "" for other
        methods."""
        if not uses_searched_masks(method):
            return ""
        known = self._model(model_id or self._wishes.model)
        if isinstance(known, str):
            return ""
        key = (known[0].id, known[1].latent_frames(spec.num_frames) // known[1].patch[0])
        if key not in self._masks:
            self._masks[key] = self._models.searched_masks(*key)
        return self._masks[key]

    def _template(self, key: tuple[tuple[str, Any], ...], model_id: str | None = None) -> _Template:
        if (
            len(self._templates) > 100_000
        ):  # every row has a size of its own: forget rather than fill the memory
            self._templates.clear()
        template = self._templates[model_id, key] = self._checked_template(dict(key), model_id)
        return template

    def _checked_template(self, overrides: dict[str, Any], model_id: str | None) -> _Template:
        known = self._model(model_id or self._wishes.model)
        if isinstance(known, str):
            return _Template(-1, VideoSpec(0, 0, 0, 0, 0, 0.0, 0), "", "", ("model", known))
        model, shape = known
        try:
            spec = self._spec(shape, overrides)
            _check_bounds(spec)
            self._models.check(shape, spec)
        except RequestError as error:
            return _Template(-1, VideoSpec(0, 0, 0, 0, 0, 0.0, 0), "", "", ("video", str(error)))
        facts = (
            spec.width,
            spec.height,
            spec.num_frames,
            spec.fps,
            spec.num_inference_steps,
            spec.guidance_scale,
        )
        return _Template(
            self.spool.template(spec, model),
            spec,
            ",".join(json.dumps(fact) for fact in facts),
            f",{_quoted(model.id)},{_quoted(model.revision)}]",
            None,
            shape.blocks is not None,
            shape.latent_frames(spec.num_frames),
        )

    def _spec(self, shape: ModelShape, overrides: Mapping[str, Any]) -> VideoSpec:
        """The row's values over the submit's over the model's; `num_frames` over `seconds` where
        both are given."""
        spec = shape.defaults
        for values in (self._wishes.spec, overrides):
            chosen = dict(values)
            seconds = chosen.pop("seconds", None)
            chosen.pop("seed", None)
            spec = replace(spec, **chosen)
            if seconds is not None and "num_frames" not in chosen:
                if not 0 < seconds <= 3600:
                    raise UsageError(
                        f"seconds must be above 0 and at most 3600, not {printable(seconds)}"
                    )
                spec = replace(
                    spec, num_frames=self._models.nearest_frames(round(seconds * spec.fps), shape)
                )
        return replace(spec, guidance_scale=float(spec.guidance_scale), seed=self._wishes.seed)

    def _model(self, model_id: str) -> tuple[ModelRef, ModelShape] | str:
        if model_id not in self._known:
            try:
                self._known[model_id] = self._models.describe(model_id)
            except RequestError as error:
                self._known[model_id] = str(error)
        return self._known[model_id]

    # --- the whole ------------------------------------------------------------------------------

    def refuse(self, row: int, column: str, message: str) -> None:
        if row not in self._problems:
            self._bad_rows += 1
            if (
                len(self._problems) >= 2 * MOST_LISTED
            ):  # the reader may report out of order: keep the first rows
                for late in sorted(self._problems)[MOST_LISTED:]:
                    del self._problems[late]
        self._problems.setdefault(row, []).append(
            f"row {row}, {printable(column, 40)}: {printable(message, 400)}"
        )

    def raise_problems(self, read: int, source: str) -> None:
        """Every bad row at once, or nothing."""
        shown = printable(source)
        if self._problems:
            listed = [
                line for row in sorted(self._problems)[:MOST_LISTED] for line in self._problems[row]
            ]
            if self._bad_rows > MOST_LISTED:
                listed.append(f"and {self._bad_rows - MOST_LISTED} more rows")
            rows = "1 row" if self._bad_rows == 1 else f"{self._bad_rows:,} rows"
            raise InputError(
                f"{shown}: {rows} of {read:,} cannot be used; nothing was enqueued", listed
            )
        if self.spool.count == 0:
            raise InputError(f"{shown} has no prompts")

    def tell_notes(self, warn: Callable[[str], None]) -> None:
        for note, (count, first) in self._notes.items():
            rows = (
                f"row {first} has" if count == 1 else f"{count:,} rows (the first is {first}) have"
            )
            warn(f"{rows} an input video with {note}")

    def batch_id(self) -> str:
        return f"b{self._digest.hexdigest()[:11]}"

    def shapes(self) -> dict[str, ModelShape]:
        return {
            known[0].id: known[1] for known in self._known.values() if not isinstance(known, str)
        }


def _digest(start: str, seed: int, end: str) -> bytes:
    """The 16 bytes whose hex digits are `domain.job_id` of the same facts; `start` ends before the
    seed."""
    return hashlib.sha256(f"{start}{seed}{end}".encode("ascii")).digest()[:16]


def _check_bounds(spec: VideoSpec) -> None:
    """Limits of any machine, so that later arithmetic stays sensible; the model's own rules come
    after."""
    for name, value, most in (
        ("width", spec.width, _SIDE_MAX),
        ("height", spec.height, _SIDE_MAX),
        ("num_frames", spec.num_frames, _FRAMES_MAX),
        ("num_inference_steps", spec.num_inference_steps, _STEPS_MAX),
        ("fps", spec.fps, _FPS_MAX),
    ):
        if value > most:
            raise UsageError(f"{name} must be at most {most}, not {printable(value, 40)}")
    if spec.width * spec.height * spec.num_frames > _PIXELS_MAX:
        raise UsageError(
            f"{spec.width}x{spec.height}, {spec.num_frames} frames is too large for one video"
        )
