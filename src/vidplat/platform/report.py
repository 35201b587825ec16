"""What there is to say about a batch after (or while) it runs, gathered from the catalog.

`gather` walks the batch's jobs once, page by page, and keeps sums and a bounded number of cards, so
that a batch of a million rows makes a page of ordinary size. `link` finds out how a page that lies
beside the batch's videos reaches them: a relative path, or the bytes themselves as a data URI where
the whole is small.

The page itself is made by `cli/report_page.py`, a pure function of `Report`. Nothing here decides
or corrects anything: what the catalog says is what is told.
"""

from __future__ import annotations

import base64
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import quote

from vidplat.domain import Artifact, Batch, JobRecord, JobState, OperatingPoint
from vidplat.storage.catalog_words import Event, PlanRecord
from vidplat.storage.stores import NotFound

CARDS = 600  # videos shown on a page; failed and late ones come first
MARKS = 2_000  # jobs drawn in the charts
EMBED_BYTES = 24_000_000  # videos and posters together; above this a page links to them instead
EMBED_JOBS = 300
PAGE = 5_000
EVENTS_SEARCHED = 200  # a run ends with its score, so it is among the latest


class Records(Protocol):
    """The part of the catalog that a report reads."""

    def jobs(
        self,
        batch_id: str,
        *,
        states: Sequence[JobState] | None = None,
        after_row: int = 0,
        limit: int | None = None,
    ) -> list[JobRecord]: ...


class History(Records, Protocol):
    """A catalog that also remembers events."""

    def events(
        self,
        batch_id: str,
        job_id: str | None = None,
        after_id: int = 0,
        limit: int | None = None,
        *,
        newest_first: bool = False,
    ) -> list[Event]: ...


class Shelf(Protocol):
    """The part of a store that a report needs."""

    def uri(self, key: str) -> str: ...

    def get(self, key: str) -> bytes: ...

    def put(self, key: str, data: bytes, *, content_type: str = ...) -> None: ...


@dataclass(frozen=True)
class Card:
    """One job as the page shows it."""

    record: JobRecord
    late_s: float | None = (
        None  # seconds after its deadline; negative: to spare; None: no deadline, or not done
    )
    cause: str = ""  # why it was late or missing, in words
    video: str | None = None  # href: relative path or data URI; None: nothing to play
    poster: str | None = None


@dataclass(frozen=True)
class Group:
    """Jobs made the same way in the same pool: what was predicted for one, and what it took."""

    pool: str
    point: str  # OperatingPoint.label
    made: int
    predicted_s: float  # mean of p50
    predicted_p90_s: float  # mean of p90
    actual_s: float  # mean
    within_p90: float  # share of jobs that took no longer than their p90
    quality: float  # mean predicted


@dataclass(frozen=True)
class Report:
    """All that a page about a batch says."""

    batch: Batch
    state: str
    told_at: float
    counts: Mapping[JobState, int]
    promise: PlanRecord | None = None  # the plan in force when the run began
    finished_at: float | None = None  # when the last video so far was committed
    device_seconds: float = 0.0
    mean_quality: float | None = None  # predicted, over finished videos
    reduced: int = 0  # finished videos made below full quality
    reused: int = 0  # finished videos that another batch already had
    late: int = 0  # finished after their deadline
    groups: tuple[Group, ...] = ()
    causes: Mapping[str, int] = field(default_factory=dict)  # of late and missing videos
    failures: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # message -> rows
    cards: tuple[Card, ...] = ()
    marks: tuple[
        JobRecord, ...
    ] = ()  # jobs with a start and an end, for the charts; thinned out when many
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        return self.counts.get(JobState.DONE, 0)

    @property
    def left_out(self) -> int:
        """Jobs without a card."""
        return sum(self.counts.values()) - len(self.cards)


def gather(
    catalog: Records,
    batch: Batch,
    *,
    state: str,
    now: float,
    promise: PlanRecord | None = None,
    causes: Mapping[str, str] | None = None,
) -> Report:
    """Walk the jobs of `batch` once. `causes` maps job ids to the cause of a miss, where the
    platform knows it."""
    tally = _Tally(batch, causes or {})
    for record in _walk(catalog, batch.id):
        tally.add(record)
    return tally.report(state, now, promise)


def _walk(catalog: Records, batch_id: str) -> Iterator[JobRecord]:
    after_row = 0
    while page := catalog.jobs(batch_id, after_row=after_row, limit=PAGE):
        yield from page
        after_row = page[-1].job.row


def actual_s(record: JobRecord) -> float | None:
    """Seconds from a job's start to its committed end; None for one that was reused or has not
    ended."""
    if record.started_at is None or record.finished_at is None or record.reused_from is not None:
        return None
    return record.finished_at - record.started_at


def lateness_s(record: JobRecord, batch: Batch) -> float | None:
    deadline_at = (
        record.job.deadline_at if record.job.deadline_at is not None else batch.deadline_at
    )
    if (
        deadline_at is None
        or record.finished_at is None
        or record.state is not JobState.DONE
        or record.reused_from
    ):
        return None
    return record.finished_at - deadline_at


def remembered_causes(catalog: History, batch_id: str) -> dict[str, str]:
    """Job ids of misses and their causes, as the runs of this batch scored themselves when they
    ended."""
    causes: dict[str, str] = {}
    for event in reversed(catalog.events(batch_id, limit=EVENTS_SEARCHED, newest_first=True)):
        if event.kind == "scored":
            causes.update(event.detail.get("causes", {}))
    return causes


def likely_cause(record: JobRecord) -> str:
    """Why a video was late, as far as its own record tells: what `score.py` says when nobody
    remembers the run."""
    return "retry" if record.attempt > 1 else "estimate"


class _Tally:
    """Sums over records, and the cards worth showing."""

    def __init__(self, batch: Batch, causes: Mapping[str, str]) -> None:
        self.batch = batch
        self.known_causes = causes
        self.counts: Counter[JobState] = Counter()
        self.causes: Counter[str] = Counter()
        self.failures: dict[str, list[int]] = {}
        self.sums: dict[tuple[str, OperatingPoint], _Sums] = {}
        self.quality_sum, self.quality_of, self.reduced, self.reused, self.late = 0.0, 0, 0, 0, 0
        self.device_seconds = 0.0
        self.finished_at: float | None = None
        self.troubled: list[Card] = []
        self.fine: list[Card] = []
        self.marks: list[JobRecord] = []
        self.stride, self.timed = 1, 0

    def add(self, record: JobRecord) -> None:
        self.counts[record.state] += 1
        late_s = lateness_s(record, self.batch)
        is_late = late_s is not None and late_s > 0
        cause = ""
        if is_late or (record.state.is_final and record.state is not JobState.DONE):
            cause = self.known_causes.get(record.job.id) or (
                likely_cause(record) if is_late else record.state.value
            )
            self.causes[cause] += 1
        self.late += is_late
        if record.failure is not None and record.state is not JobState.DONE:
            self.failures.setdefault(record.failure.message, []).append(record.job.row)
        if record.state is JobState.DONE:
            self._add_done(record)
        self._mark(record)
        card = Card(record, late_s, cause)
        shelf = self.troubled if cause else self.fine
        if len(shelf) < CARDS:
            shelf.append(card)

    def _add_done(self, record: JobRecord) -> None:
        if record.reused_from is not None:
            self.reused += 1
        elif record.finished_at is not None:
            self.finished_at = max(self.finished_at or 0.0, record.finished_at)
        if record.predicted_quality is not None:
            self.quality_sum += record.predicted_quality
            self.quality_of += 1
        if record.point and record.point.steps < record.job.spec.num_inference_steps:
            self.reduced += 1
        took_s = actual_s(record)
        if took_s is not None:
            self.device_seconds += took_s
            if record.point is not None and record.predicted_p50_s is not None:
                key = (record.pool or "?", record.point)
                self.sums.setdefault(key, _Sums()).add(record, took_s)

    def _mark(self, record: JobRecord) -> None:
        if actual_s(record) is None:
            return
        if self.timed % self.stride == 0:
            self.marks.append(record)
        self.timed += 1
        if len(self.marks) > MARKS:  # thin out evenly, so that a large batch keeps its shape
            self.marks = self.marks[::2]
            self.stride *= 2

    def report(self, state: str, now: float, promise: PlanRecord | None) -> Report:
        shown = [*self.troubled, *self.fine][:CARDS]
        return Report(
            batch=self.batch,
            state=state,
            told_at=now,
            counts=dict(self.counts),
            promise=promise,
            finished_at=self.finished_at,
            device_seconds=self.device_seconds,
            mean_quality=self.quality_sum / self.quality_of if self.quality_of else None,
            reduced=self.reduced,
            reused=self.reused,
            late=self.late,
            groups=tuple(
                self.sums[key].group(*key) for key in sorted(self.sums, key=_full_quality_first)
            ),
            causes=dict(self.causes.most_common()),
            failures={message: tuple(rows) for message, rows in self.failures.items()},
            cards=tuple(sorted(shown, key=lambda card: card.record.job.row)),
            marks=tuple(self.marks),
            notes=promise.notes if promise else (),
        )


def _full_quality_first(key: tuple[str, OperatingPoint]) -> tuple[object, ...]:
    pool, point = key
    return pool, -point.steps, point.method


@dataclass
class _Sums:
    made: int = 0
    predicted_s: float = 0.0
    predicted_p90_s: float = 0.0
    actual_s: float = 0.0
    within: int = 0
    quality: float = 0.0

    def add(self, record: JobRecord, took_s: float) -> None:
        p50_s = record.predicted_p50_s or 0.0
        p90_s = record.predicted_p90_s or p50_s
        self.made += 1
        self.predicted_s += p50_s
        self.predicted_p90_s += p90_s
        self.actual_s += took_s
        self.within += took_s <= p90_s
        self.quality += 1.0 if record.predicted_quality is None else record.predicted_quality

    def group(self, pool: str, point: OperatingPoint) -> Group:
        return Group(
            pool=pool,
            point=point.label,
            made=self.made,
            predicted_s=self.predicted_s / self.made,
            predicted_p90_s=self.predicted_p90_s / self.made,
            actual_s=self.actual_s / self.made,
            within_p90=self.within / self.made,
            quality=self.quality / self.made,
        )


# --- reaching the videos --------------------------------------------------------------------------


def page_key(batch_id: str) -> str:
    """Where a batch's page lies in its store."""
    return f"batches/{batch_id}/report.html"


def write(store: Shelf, batch_id: str, html: str) -> str:
    """Put the page beside the batch's videos; returns where a person finds it."""
    key = page_key(batch_id)
    store.put(key, html.encode("utf-8"), content_type="text/html; charset=utf-8")
    return store.uri(key)


def link(report: Report, store: Shelf, *, embed: bool | None = None) -> Report:
    """The same report with an href for each video and poster.

    embed: put the bytes into the page; None does so where they are small and few. A file that has
    gone missing leaves its card without a video, which the page says.
    """
    if embed is None:
        embed = is_small(card.record.artifact for card in report.cards)
    here = posixpath.dirname(page_key(report.batch.id))
    return replace(report, cards=tuple(_linked(card, store, here, embed) for card in report.cards))


def is_small(artifacts: Iterable[Artifact | None]) -> bool:
    sizes = [artifact.size_bytes for artifact in artifacts if artifact is not None]
    return len(sizes) <= EMBED_JOBS and sum(sizes) <= EMBED_BYTES


def _linked(card: Card, store: Shelf, here: str, embed: bool) -> Card:
    artifact = card.record.artifact
    if artifact is None:
        return card
    if embed:
        return replace(
            card,
            video=_data_uri(store, artifact.video_uri, "video/mp4"),
            poster=_data_uri(store, artifact.poster_uri, "image/jpeg"),
        )
    return replace(
        card,
        video=_href(store, artifact.video_uri, here),
        poster=_href(store, artifact.poster_uri, here),
    )


def key_of(store: Shelf, uri: str) -> str | None:
    """The key behind a URI of this store; None for one that lies elsewhere."""
    prefix = store.uri("x")[:-1]
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None


def _href(store: Shelf, uri: str, here: str) -> str | None:
    key = key_of(store, uri)
    return None if key is None else quote(posixpath.relpath(key, here))


def _data_uri(store: Shelf, uri: str, mime: str) -> str | None:
    key = key_of(store, uri)
    if key is None:
        return None
    try:
        data = store.get(key)
    except NotFound:
        return None
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
