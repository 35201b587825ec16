"""A study of one method, caption by caption, at several lengths of video.

A study says what it measures of one caption (`rows`), what the rows of a length come to (`summary`)
and how that is shown (`card`). `run` asks it for every caption of every length, prints a card for
each length, and keeps the rows beside it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import (
    CLASSES,
    FIRST_SEEDS,
    Row,
    Subject,
    answer,
    head,
    options,
    progress,
    result_file,
    subjects,
    write_rows,
)
from benchmarks.making import Maker
from vidplat.domain import VideoSpec


@dataclass(frozen=True)
class Study:
    rows: Callable[[Maker, VideoSpec, Subject], Iterable[Row]]
    summary: Callable[[Sequence[Row]], dict[str, Any]]
    card: Callable[[Maker, Sequence[Row], dict[str, Any]], Iterable[str]]


def length_options(doc: str | None, theme: str) -> argparse.ArgumentParser:
    parser = options(doc, model="flipbook", threads=1)
    parser.add_argument("--frames", type=int, nargs="+", default=[33, 65])
    parser.add_argument("--captions", type=int, nargs="+", default=[8])
    parser.add_argument("--classes", nargs="+", default=CLASSES, choices=CLASSES)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--out", type=Path, default=result_file(theme, ".parquet"))
    return parser


def run(benchmark: str, told: argparse.Namespace, study: Study) -> None:
    """Measure, print the cards, and answer."""
    counts = told.captions * len(told.frames) if len(told.captions) == 1 else told.captions
    if len(counts) != len(told.frames):
        raise SystemExit("--captions: one number, or as many as --frames has")
    maker, say = Maker(told.model, told.threads), progress()
    stop_at = time.monotonic() + 60 * told.minutes
    print(head(f"{maker}, distance to them", benchmark), flush=True)
    every: list[Row] = []
    lengths: dict[str, Any] = {}
    for frames, count in zip(told.frames, counts, strict=True):
        spec, rows = maker.spec(frames), list[Row]()
        asked = subjects(FIRST_SEEDS[benchmark], count, told.classes)
        for number, subject in enumerate(asked):
            if time.monotonic() > stop_at:
                break
            rows += study.rows(maker, spec, subject)
            say(f"{frames} frames, {number + 1} of {count} ({subject.kind})")
        if rows:
            lengths[str(frames)] = found = study.summary(rows)
            captions = len({row["seed"] for row in rows})
            about = f"{frames} frames, {rows[0]['latents']} latents, {captions} captions"
            print("\n".join(["", about, *study.card(maker, rows, found)]), flush=True)
            every += rows
            write_rows(every, told.out)
    facts = {"revision": maker.ref.revision, "full_steps": maker.steps}
    answer(benchmark, **vars(told), **facts, lengths=lengths)
