"""Prompt files become Prompts: the first hand-over of a video's journey.

`read_prompts` streams a file of any size in batches of a few thousand rows, each row either a
Prompt or one RowProblem per wrong cell, so that the caller can list every problem of the file at
once before it enqueues anything. What is wrong with the whole file (missing, empty, truncated, no
prompt column, not UTF-8) is an InputError in one sentence, raised when the first batch is asked for
or where reading stops.

    prompt_files.py      formats: bytes -> blocks of raw columns
    prompt_columns.py    names: which column means what
    prompt_cells.py      values: what a cell may hold
    input_places.py      places: where an input video lies, from where the prompt file lies
    here                 cells -> Prompts; sizes given twice; duplicate ids

Duplicate ids are looked for by 64-bit hashes, 16 bytes per row, and told in a last batch. By
chance, two different ids of a million share a hash once in 40 million files.

Left to others: what needs the model (sizes it can make, seconds to frames), deadlines, exact
duplicates, and what an input video holds.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from vidplat.domain import Prompt
from vidplat.errors import InputError, UsageError
from vidplat.storage.input_places import folder_of, resolve
from vidplat.storage.prompt_cells import RowProblem, clean_column
from vidplat.storage.prompt_files import Block, open_prompt_file

__all__ = ["RowProblem", "read_prompts"]

#: Cells that a row sets over its batch's VideoSpec; `seconds` becomes num_frames where the fps is
#: known.
_OVERRIDES = (
    "width",
    "height",
    "num_frames",
    "seconds",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "seed",
)
_OTHERS = (
    "text",
    "negative_prompt",
    "external_id",
    "priority",
    "deadline",
    "model",
    "method",
    "input_video",
    "strength",
)
_PROBLEMS_PER_BATCH = 10_000


def read_prompts(
    source: str,
    *,
    stdin: BinaryIO | None = None,
    format: str | None = None,
    warn: Callable[[str], None],
) -> Iterator[list[Prompt | RowProblem]]:
    """Rows of the prompt file at `source`: a path, a URL, or "-" for `stdin`.

    `format` is parquet, csv, jsonl or txt; without it the file is asked. `warn` is told once about
    each column that is ignored. Batches have up to 10,000 rows in the file's order; problems with
    ids come last.
    """
    ids = _SeenIds()
    rows = 0
    folder = folder_of(source)
    with open_prompt_file(source, stdin, format) as prompts:
        names: dict[str, str] = {}
        for block in prompts.blocks(names, warn):
            rows += len(block.rows) + len(block.unreadable)
            yield _batch(block, names, ids, folder)
    if rows == 0:
        raise InputError(f"{prompts.where} has no rows: needed at least one prompt")
    yield from ids.problems(names.get("external_id", "id"))


def _batch(
    block: Block, names: dict[str, str], ids: _SeenIds, folder: str
) -> list[Prompt | RowProblem]:
    """A block's rows as Prompts, or as what is wrong with them."""
    wrong: dict[int, list[RowProblem]] = defaultdict(list)  # index in the block -> problems
    clean: dict[str, list[Any]] = {}
    for field, values in block.columns.items():

        def say(index: int, message: str, column: str = names[field]) -> None:
            wrong[index].append(RowProblem(block.rows[index], column, message))

        clean[field] = clean_column(field, values, say)
    _unfold_sizes(block, clean, names, wrong)
    _need_one_length(block, clean, names, wrong)
    _place_videos(block, clean, names, wrong, folder)
    ids.add(block.rows, clean.get("external_id", ()))

    nothing = [None] * len(block.rows)
    fields = [field for field in _OVERRIDES if field in clean]
    overrides = (
        [
            {field: value for field, value in zip(fields, row, strict=True) if value is not None}
            for row in zip(*(clean[field] for field in fields), strict=True)
        ]
        if fields
        else [{} for _ in block.rows]
    )
    columns = [clean.get(field, nothing) for field in _OTHERS]
    batch: list[Prompt | RowProblem] = []
    for index, (row, overridden, *others) in enumerate(
        zip(block.rows, overrides, *columns, strict=True)
    ):
        if index in wrong:
            batch.extend(wrong[index])
            continue
        text, negative, *rest = others
        batch.append(Prompt(row, text, negative or "", rest[0], overridden, *rest[1:]))
    if block.unreadable:
        batch.extend(RowProblem(row, "", message) for row, message in block.unreadable.items())
        batch.sort(key=lambda found: found.row)
    return batch


def _unfold_sizes(
    block: Block,
    clean: dict[str, list[Any]],
    names: dict[str, str],
    wrong: dict[int, list[RowProblem]],
) -> None:
    """`size` becomes width and height, unless the row has others."""
    sizes = clean.pop("size", None)
    if sizes is None or not any(sizes):
        return
    widths = clean.setdefault("width", [None] * len(sizes))
    heights = clean.setdefault("height", [None] * len(sizes))
    for index, size in enumerate(sizes):
        if size is None:
            continue
        if widths[index] not in (None, size[0]) or heights[index] not in (None, size[1]):
            message = (
                f"says {size[0]}x{size[1]}, but width and height say otherwise: give one of them"
            )
            wrong[index].append(RowProblem(block.rows[index], names["size"], message))
        widths[index], heights[index] = size


def _need_one_length(
    block: Block,
    clean: dict[str, list[Any]],
    names: dict[str, str],
    wrong: dict[int, list[RowProblem]],
) -> None:
    if "seconds" not in clean or "num_frames" not in clean:
        return
    for index, (seconds, frames) in enumerate(
        zip(clean["seconds"], clean["num_frames"], strict=True)
    ):
        if seconds is not None and frames is not None:
            message = f"and {names['num_frames']} are both given: give one of them"
            wrong[index].append(RowProblem(block.rows[index], names["seconds"], message))


def _place_videos(
    block: Block,
    clean: dict[str, list[Any]],
    names: dict[str, str],
    wrong: dict[int, list[RowProblem]],
    folder: str,
) -> None:
    """Input videos at their canonical places; a strength needs one."""
    places = clean.get("input_video", [None] * len(block.rows))
    for index, written in enumerate(places):
        if written is not None:
            try:
                places[index] = resolve(written, folder)
            except UsageError as error:
                wrong[index].append(RowProblem(block.rows[index], names["input_video"], str(error)))
    for index, strength in enumerate(clean.get("strength", ())):
        if strength is not None and places[index] is None and index not in wrong:
            message = (
                "is how much of an input video is changed, and this row has none: add "
                "input_video, or leave it empty"
            )
            wrong[index].append(RowProblem(block.rows[index], names["strength"], message))


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
        # for each place in the sorted order, the place where its run of equal hashes begins
        starts = (
            np.maximum.accumulate(np.where(np.r_[True, ~same], np.arange(len(order)), 0))
            if len(order)
            else order
        )
        later = np.flatnonzero(np.r_[False, same]) if len(order) else order
        found = sorted(
            (int(rows[order[place]]), int(rows[order[starts[place]]])) for place in later
        )
        for start in range(0, len(found), _PROBLEMS_PER_BATCH):
            yield [
                RowProblem(row, column, f"is the same as in row {first}: ids must be unique")
                for row, first in found[start : start + _PROBLEMS_PER_BATCH]
            ]
