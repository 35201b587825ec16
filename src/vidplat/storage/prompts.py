"""Prompt files become Prompts: the first hand-over of a video's journey.

`read_prompts` streams a file of any size in batches of a few thousand rows, each row either a
Prompt or one RowProblem per wrong cell, so that the caller can list every problem of the file at
once before it enqueues anything. What is wrong with the whole file (missing, empty, truncated, no
prompt column, not UTF-8) is an InputError in one sentence, raised when the first batch is asked for
or where reading stops.

    prompt_files.py      files: opened, and which format they have
    prompt_bytes.py      bytes: unpacked, and in UTF-8
    prompt_kinds.py      what is no list of prompts: archives, programs, markup
    prompt_formats.py    formats: bytes -> blocks of raw columns
    prompt_columns.py    names: which column means what
    prompt_cells.py      values: what a cell may hold
    input_places.py      places: where an input video lies, from where the prompt file lies
    here                 cells -> Prompts; sizes given twice; duplicate ids

Duplicate ids are looked for by 64-bit hashes, 16 bytes per row, and told in a last batch. By
chance, two different ids of a million share a hash once in 40 million files.

Left to the platform's intake: what needs the model (sizes it can make, seconds to frames, methods),
deadlines, exact duplicates, and what an input video holds.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from vidplat.config import InputConfig
from vidplat.domain import Prompt
from vidplat.errors import InputError, UsageError
from vidplat.storage.input_places import folder_of, resolve
from vidplat.storage.prompt_cells import RowProblem, clean_column
from vidplat.storage.prompt_columns import ColumnNames
from vidplat.storage.prompt_files import open_prompt_file
from vidplat.storage.prompt_formats import Block

__all__ = ["RowProblem", "read_prompts"]

#: Cells that a row sets over its batch's VideoSpec; `seconds` becomes num_frames where the fps is
#: known.
_OVERRIDES = (
    "width", "height", "num_frames", "seconds", "fps", "num_inference_steps", "guidance_scale",
    "seed",
)  # fmt: skip
#: The others, in the order of Prompt's fields.
_OTHERS = (
    "text", "negative_prompt", "external_id", "priority", "deadline", "model", "method",
    "input_video", "strength",
)  # fmt: skip
_PROBLEMS_PER_BATCH = 10_000


def read_prompts(
    source: str,
    *,
    stdin: BinaryIO | None = None,
    format: str | None = None,
    ignore_columns: Sequence[str] = (),
    allowed: InputConfig = InputConfig(),
    warn: Callable[[str], None],
) -> Iterator[list[Prompt | RowProblem]]:
    """Rows of the prompt file at `source`: a path, a URL, or "-" for `stdin`.

    `format` is parquet, csv, jsonl or txt; without it the file is asked. `ignore_columns` are left
    out whatever they mean. `allowed` says where input videos may lie. `warn` is told once about
    each column that is ignored. Batches have up to 10,000 rows in the file's order; problems with
    ids come last.
    """
    ids = _SeenIds()
    rows = 0
    folder = folder_of(source)
    with open_prompt_file(source, stdin, format) as prompts:
        columns = ColumnNames(prompts.where, warn, ignore_columns)
        for block in prompts.blocks(columns):
            rows += len(block.rows) + len(block.unreadable)
            yield _batch(block, columns.chosen, ids, folder, allowed)
    if rows == 0:
        raise InputError(f"{prompts.where} has no rows: needed at least one prompt")
    columns.tell_missing()
    yield from ids.problems(columns.chosen.get("external_id", "id"))


class _Cells:
    """A block's cells by our word for the column, clean, and what is wrong with them."""

    def __init__(self, block: Block, names: Mapping[str, str]) -> None:
        self._rows, self._names = block.rows, names
        self.wrong: dict[int, list[RowProblem]] = defaultdict(list)  # index in the block -> why
        self._clean = {
            field: clean_column(field, values, partial(self._say, field))
            for field, values in block.columns.items()
        }

    def __contains__(self, field: str) -> bool:
        return field in self._clean

    def column(self, field: str) -> list[Any]:
        """Its cells; None throughout where the file has no such column."""
        return self._clean.get(field) or [None] * len(self._rows)

    def unfold_sizes(self) -> None:
        """`size` becomes width and height, unless the row has others."""
        sizes = self.column("size")
        if not any(sizes):
            return
        widths, heights = self.column("width"), self.column("height")
        for index, size in enumerate(sizes):
            if size is None:
                continue
            if widths[index] not in (None, size[0]) or heights[index] not in (None, size[1]):
                self._say(
                    "size",
                    index,
                    f"says {size[0]}x{size[1]}, but width and height say otherwise: give one of "
                    "them",
                )
            widths[index], heights[index] = size
        self._clean |= {"width": widths, "height": heights}

    def need_one_length(self) -> None:
        if "seconds" in self and "num_frames" in self:
            frames = self.column("num_frames")
            for index, seconds in enumerate(self.column("seconds")):
                if seconds is not None and frames[index] is not None:
                    other = self._names["num_frames"]
                    self._say("seconds", index, f"and {other} are both given: give one of them")

    def place_videos(self, folder: str, allowed: InputConfig) -> None:
        """Input videos at their canonical places; a strength needs one."""
        places = self.column("input_video")
        for index, written in enumerate(places):
            if written is not None:
                try:
                    places[index] = resolve(written, folder, allowed)
                except UsageError as error:
                    self._say("input_video", index, str(error))
        for index, strength in enumerate(self.column("strength")):
            if strength is not None and places[index] is None and index not in self.wrong:
                self._say(
                    "strength",
                    index,
                    "is how much of an input video is changed, and this row has none: add "
                    "input_video, or leave it empty",
                )

    def _say(self, field: str, index: int, message: str) -> None:
        self.wrong[index].append(RowProblem(self._rows[index], self._names[field], message))


def _batch(
    block: Block, names: Mapping[str, str], ids: _SeenIds, folder: str, allowed: InputConfig
) -> list[Prompt | RowProblem]:
    """A block's rows as Prompts, or as what is wrong with them."""
    cells = _Cells(block, names)
    cells.unfold_sizes()
    cells.need_one_length()
    cells.place_videos(folder, allowed)
    ids.add(block.rows, cells.column("external_id"))

    given = [field for field in _OVERRIDES if field in cells]
    overrides = [cells.column(field) for field in given]
    others = [cells.column(field) for field in _OTHERS]
    batch: list[Prompt | RowProblem] = []
    rows = zip(block.rows, *others, strict=True)
    for index, (row, text, negative, external_id, *rest) in enumerate(rows):
        if index in cells.wrong:
            batch.extend(cells.wrong[index])
            continue
        set_here = {
            field: column[index]
            for field, column in zip(given, overrides, strict=True)
            if column[index] is not None
        }
        batch.append(Prompt(row, text, negative or "", external_id, set_here, *rest))
    if block.unreadable:
        batch.extend(RowProblem(row, "", message) for row, message in block.unreadable.items())
        batch.sort(key=lambda found: found.row)
    return batch


class _SeenIds:
    """Ids of all rows so far, as hashes."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._rows = array("q")

    def add(self, rows: Any, ids: Any) -> None:
        for row, one in zip(rows, ids, strict=False):
            if one is not None:
                self._hashes.append(hash(one))
                self._rows.append(row)

    def problems(self, column: str) -> Iterator[list[Prompt | RowProblem]]:
        """A problem for each row whose id an earlier row has, in the order of rows."""
        hashes, rows = (
            np.frombuffer(values, dtype=np.int64) for values in (self._hashes, self._rows)
        )
        order = np.argsort(hashes, kind="stable")
        same = hashes[order[1:]] == hashes[order[:-1]]
        later = np.flatnonzero(same) + 1  # places in the sorted order whose hash stands before, too
        first = order[np.searchsorted(hashes[order], hashes[order[later]])]
        found = sorted(zip(rows[order[later]].tolist(), rows[first].tolist(), strict=True))
        for start in range(0, len(found), _PROBLEMS_PER_BATCH):
            yield [
                RowProblem(row, column, f"is the same as in row {first}: ids must be unique")
                for row, first in found[start : start + _PROBLEMS_PER_BATCH]
            ]
