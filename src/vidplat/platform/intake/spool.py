"""Jobs on disk, between reading the input and knowing that all of it is right.

Nothing may be enqueued while a later row can still be wrong, the batch's id is known only after the
last row, and standard input cannot be read twice. So accepted rows wait here: one line of JSON per
thousand jobs in a temporary file that has no name (it vanishes with the process, whatever ends it).
Small batches never reach the disk; a million short prompts take about 150 MB of it, and a few MB of
memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from vidplat.domain import Job, ModelRef, VideoSpec

_IN_MEMORY_BYTES = 16 * 2**20
_ROWS_PER_LINE = 1_000


class Row(NamedTuple):
    """A job without what it shares with others: `template` names its size, length and model."""

    id: str
    prompt: str
    negative_prompt: str
    template: int
    seed: int
    row: int
    external_id: str | None
    priority: int
    deadline_at: float | None
    method: str | None
    input_video: str | None = None
    input_sha256: str | None = None
    strength: float | None = None


class JobSpool:
    """Append rows, then read jobs, as often as needed. Not for use by several threads."""

    def __init__(self) -> None:
        # Closed by `close`.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115
        self._templates: list[tuple[VideoSpec, ModelRef]] = []
        self._waiting: list[Row] = []
        self.count = 0

    def template(self, spec: VideoSpec, model: ModelRef) -> int:
        """A number for a spec, whatever its seed, and a model; give equal ones once."""
        self._templates.append((spec, model))
        return len(self._templates) - 1

    def spec(self, row: Row) -> VideoSpec:
        """The row's size and length; the seed is another one."""
        return self._templates[row.template][0]

    def append(self, row: Row) -> None:
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) >= _ROWS_PER_LINE:
            self._write()

    def __iter__(self) -> Iterator[Job]:
        self._write()
        self._file.seek(0)
        for line in self._file:
            yield from map(self._job, json.loads(line))

    def close(self) -> None:
        self._file.close()

    def _write(self) -> None:
        if self._waiting:
            self._file.seek(0, 2)
            line = json.dumps(self._waiting, separators=(",", ":"))
            self._file.write(f"{line}\n".encode("ascii"))
            self._waiting.clear()

    def _job(self, values: list[Any]) -> Job:
        id_, prompt, negative_prompt, template, seed, row, *wishes = values
        spec, model = self._templates[template]
        if seed != spec.seed:
            # A million calls of `dataclasses.replace` cost three seconds more.
            spec = VideoSpec(**{**vars(spec), "seed": seed})
        return Job(id_, prompt, negative_prompt, spec, model, row, *wishes)
