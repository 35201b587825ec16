"""Prompt rows become jobs, or one error that lists every bad row. Nothing is enqueued and no model
is loaded.

Each prompt becomes a row or is refused (rows.py); good rows wait in a spool (spool.py), and after
the last one the batch has its id: a hash of the prefix and the jobs in order, so submitting the
same file again finds its batch. A row with an input video is a job of its content, whatever its
place; each place is looked at once.

Built for a million rows: one integer per row is remembered. Reading files is `storage.prompts`'
business and comes in as an iterator, knowledge of models and of input videos as functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vidplat.domain import Batch, Job, Prompt
from vidplat.errors import InputError, printable
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.intake.rows import Models, Rows
from vidplat.platform.intake.source_videos import Source, conversions
from vidplat.platform.intake.spool import JobSpool, Row
from vidplat.platform.interface import Wishes
from vidplat.storage.prompt_cells import RowProblem
from vidplat.storage.prompt_columns import is_optional

MOST_LISTED = 100  # bad rows spelled out in one message; the rest is counted


#: For each place of an input video its source, or why it cannot be used; looked at once.
Look = Callable[[Sequence[str]], Mapping[str, Source | str]]


@dataclass(frozen=True)
class Taken:
    """An input that is right from its first row to its last."""

    batch: Batch
    jobs: Iterable[Job]  # may be iterated more than once
    models: Mapping[str, ModelShape]  # by id, all that occur
    inputs: Mapping[str, str]  # SHA-256 of each input video -> a place where it lies
    close: Callable[[], None]


def take_in(
    pages: Iterable[Sequence[Prompt | RowProblem]],
    *,
    source: str,
    output_prefix: str,
    wishes: Wishes,
    models: Models,
    look: Look,
    now: float,
    on_rows: Callable[[int], None] = lambda count: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Taken:
    """Read `pages` to the end.

    `now` is the moment of submit: deadlines count from it. `on_rows` hears how many rows were read,
    `warn` what will be converted in input videos, a sentence per kind. Raises InputError with every
    bad row, UsageError or ModelError when the submit's own wishes are wrong.
    """
    spool = JobSpool()
    try:
        rows = Rows(wishes, models, now, spool)
        good, bad = _Good(spool, f"{output_prefix}\n{wishes.method or ''}\n"), _Bad()
        read = highest = 0
        for page in pages:
            looked = _looked_at(page, look)
            for item in page:
                if item.row > highest:  # what comes later about an earlier row is not another row
                    read, highest = read + 1, item.row
                if not isinstance(item, Prompt):
                    bad.note(item)
                    continue
                video = looked[item.input_video] if item.input_video else None
                made = rows.take(item, video)
                if isinstance(made, Row):
                    good.note(made, item, video)
                else:
                    for refusal in made:
                        bad.note(refusal)
            on_rows(read)
        bad.raise_if_any(read, printable(source))
        if spool.count == 0:
            raise InputError(f"{printable(source)} has no prompts")
        good.tell(warn)
    except BaseException:
        spool.close()
        raise
    batch = Batch(
        id=good.batch_id(),
        source=source,
        output_prefix=output_prefix,
        model=rows.model,
        submitted_at=now,
        deadline_at=rows.deadline_at,
        priority=wishes.priority,
        quality_floor=wishes.quality_floor,
        on_infeasible=wishes.on_infeasible,
        total=spool.count,
        method=wishes.method,
    )
    return Taken(batch, spool, rows.shapes, good.inputs, spool.close)


def _looked_at(page: Sequence[Prompt | RowProblem], look: Look) -> Mapping[str, Source | str]:
    videos = dict.fromkeys(
        item.input_video for item in page if isinstance(item, Prompt) and item.input_video
    )
    return look(list(videos)) if videos else {}


class _Good:
    """The good rows: kept in the spool, hashed into the batch's id, their videos noted."""

    def __init__(self, spool: JobSpool, start: str) -> None:
        self._spool, self._digest = spool, hashlib.sha256(start.encode())
        self.inputs: dict[str, str] = {}  # SHA-256 -> place
        self._conversions: dict[str, list[int]] = {}  # what -> [how many rows, the first of them]

    def note(self, row: Row, prompt: Prompt, video: Source | str | None) -> None:
        self._spool.append(row)
        self._digest.update(f"{row.id} {row.external_id or ''} {prompt.method or ''}\n".encode())
        if isinstance(video, Source) and row.input_video is not None:
            self.inputs.setdefault(video.sha256, row.input_video)
            for what in (*video.notes, *conversions(video, self._spool.spec(row))):
                self._conversions.setdefault(what, [0, row.row])[0] += 1

    def batch_id(self) -> str:
        return f"b{self._digest.hexdigest()[:11]}"

    def tell(self, warn: Callable[[str], None]) -> None:
        for what, (count, first) in self._conversions.items():
            many = f"{count:,} rows (the first is {first}) have"
            rows = f"row {first} has" if count == 1 else many
            warn(f"{rows} an input video with {what}")


class _Bad:
    """The bad rows: all are counted, the first hundred are spelled out."""

    def __init__(self) -> None:
        self._lines: dict[int, list[str]] = {}
        self._in_column = False  # whether a row would be right without one of its columns
        self._count = 0

    def note(self, problem: RowProblem) -> None:
        if problem.row not in self._lines:
            self._count += 1
            if len(self._lines) >= 2 * MOST_LISTED:  # the reader may report out of order
                for late in sorted(self._lines)[MOST_LISTED:]:
                    del self._lines[late]
        self._lines.setdefault(problem.row, []).append(str(problem))
        self._in_column = self._in_column or is_optional(problem.column)

    def raise_if_any(self, read: int, source: str) -> None:
        if not self._count:
            return
        first = sorted(self._lines)[:MOST_LISTED]
        listed = [line for row in first for line in self._lines[row]]
        if self._count > MOST_LISTED:
            listed.append(f"and {self._count - MOST_LISTED} more rows")
        rows = "1 row" if self._count == 1 else f"{self._count:,} rows"
        left_out = "; --ignore-columns leaves out columns that mean something else"
        raise InputError(
            f"{source}: {rows} of {read:,} cannot be used; nothing was enqueued"
            f"{left_out if self._in_column else ''}",
            listed,
        )
