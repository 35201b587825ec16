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
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from vidplat.domain import Batch, JobRecord, JobState, OperatingPoint
from vidplat.storage.catalog_words import PlanRecord
from vidplat.storage.stores import NotFound

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog
    from vidplat.storage.stores import Store

CARDS = 600  # videos shown on a page; failed and late ones come first
MARKS = 2_000  # jobs drawn in the charts
EMBED_BYTES = 24_000_000  # videos and posters together; above this a page links to them instead
EMBED_JOBS = 300
PAGE = 5_000
EVENTS_SEARCHED = 200  # a run ends with its score, so it is among the latest


@dataclass(frozen=True)
class Card:
    """One job as the page shows it."""

    record: JobRecord
    # Seconds after its deadline; negative: to spare; None: no deadline, or not done.
    late_s: float | None = None
    cause: str = ""  # why it was late or missing, in words
    video: str | None = None  # href: relative path or data URI; None: nothing to play
    poster: str | None = None

    @property
    def took_s(self) -> float | None:
        return actual_s(self.record)

    @property
    def is_late(self) -> bool:
        return self.late_s is not None and self.late_s > 0

    @property
    def is_reduced(self) -> bool:
        return is_reduced(self.record)

    @property
    def is_beside(self) -> bool:
        """True when the page links to a file instead of holding the video."""
        return self.video is not None and not self.video.startswith("data:")


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
    # Jobs with a start and an end, for the charts; thinned out when many.
    marks: tuple[JobRecord, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        return self.counts.get(JobState.DONE, 0)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def left_out(self) -> int:
        """Jobs without a card."""
        return self.total - len(self.cards)


def gather(
    catalog: Catalog,
    batch: Batch,
    *,
    state: str,
    now: float,
    promise: PlanRecord | None = None,
    causes: Mapping[str, str] | None = None,
) -> Report:
    """Walk the jobs of `batch` once. `causes`: of the misses the platform knows, by job id."""
    tally = _Tally(batch, causes or {})
    after_row = 0
    while page := catalog.jobs(batch.id, after_row=after_row, limit=PAGE):
        for record in page:
            tally.add(record)
        after_row = page[-1].job.row
    return tally.report(state, now, promise)


def actual_s(record: JobRecord) -> float | None:
    """Seconds from a job's start to its committed end; None if it was reused or has not ended."""
    if record.started_at is None or record.finished_at is None or record.reused_from is not None:
        return None
    return record.finished_at - record.started_at


def is_reduced(record: JobRecord) -> bool:
    """Made with fewer steps than full quality asks for."""
    return record.point is not None and record.point.steps < record.job.spec.num_inference_steps


def lateness_s(record: JobRecord, batch: Batch) -> float | None:
    """Seconds after its deadline, of a video that this batch made."""
    own = record.job.deadline_at
    deadline_at = batch.deadline_at if own is None else own
    if deadline_at is None or record.finished_at is None:
        return None
    is_made = record.state is JobState.DONE and not record.reused_from
    return record.finished_at - deadline_at if is_made else None


def remembered_causes(catalog: Catalog, batch_id: str) -> dict[str, str]:
    """Job ids of misses and their causes, as the runs of this batch scored themselves."""
    causes: dict[str, str] = {}
    for event in reversed(catalog.events(batch_id, limit=EVENTS_SEARCHED, newest_first=True)):
        if event.kind == "scored":
            causes.update(event.detail.get("causes", {}))
    return causes


class _Tally:
    """Sums over records, and the cards worth showing."""

    def __init__(self, batch: Batch, known_causes: Mapping[str, str]) -> None:
        self._batch, self._known_causes = batch, known_causes
        self._counts: Counter[JobState] = Counter()
        self._causes: Counter[str] = Counter()
        self._failures: defaultdict[str, list[int]] = defaultdict(list)
        # The number of jobs, and the sums of what a Group has the means of.
        self._groups: dict[tuple[str, OperatingPoint], tuple[float, ...]] = {}
        self._reduced = self._reused = self._late = 0
        self._quality_sum, self._quality_of = 0.0, 0
        self._device_seconds = 0.0
        self._finished_at: float | None = None
        self._troubled: list[Card] = []
        self._fine: list[Card] = []
        self._marks: list[JobRecord] = []
        self._stride, self._timed = 1, 0

    def add(self, record: JobRecord) -> None:
        is_done = record.state is JobState.DONE
        late_s = lateness_s(record, self._batch)
        is_late = late_s is not None and late_s > 0
        cause = ""
        if is_late or (record.state.is_final and not is_done):
            # What `score` says, as far as the record itself tells, when nobody remembers the run.
            likely = "retry" if record.attempt > 1 else "estimate"
            likely = likely if is_late else record.state.value
            cause = self._known_causes.get(record.job.id) or likely
            self._causes[cause] += 1
        self._counts[record.state] += 1
        self._late += is_late
        if is_done:
            self._add_done(record)
        elif record.failure is not None:
            self._failures[record.failure.message].append(record.job.row)
        if (took_s := actual_s(record)) is not None:
            self._mark(record)
            if is_done:
                self._time(record, took_s)
        cards = self._troubled if cause else self._fine
        if len(cards) < CARDS:
            cards.append(Card(record, late_s, cause))

    def _add_done(self, record: JobRecord) -> None:
        if record.reused_from is not None:
            self._reused += 1
        elif record.finished_at is not None:
            self._finished_at = max(self._finished_at or 0.0, record.finished_at)
        if record.predicted_quality is not None:
            self.quality_sum += record.predicted_quality
            self.quality_of += 1
        if is_reduced(record):
            self.reduced += 1

    def _time(self, record: JobRecord, took_s: float) -> None:
        self._device_seconds += took_s
        p50_s = record.predicted_p50_s
        if record.point is None or p50_s is None:
            return
        p90_s = record.predicted_p90_s or p50_s
        quality = 1.0 if record.predicted_quality is None else record.predicted_quality
        new = (1, p50_s, p90_s, took_s, took_s <= p90_s, quality)  # in the order of Group's fields
        key = (record.pool or "?", record.point)
        sums = self._groups.get(key, (0,) * len(new))
        self._groups[key] = tuple(total + each for total, each in zip(sums, new, strict=True))

    def _mark(self, record: JobRecord) -> None:
        if self._timed % self._stride == 0:
            self._marks.append(record)
        self._timed += 1
        if len(self._marks) > MARKS:  # thin out evenly, so that a large batch keeps its shape
            self._marks = self._marks[::2]
            self._stride *= 2

    def report(self, state: str, now: float, promise: PlanRecord | None) -> Report:
        shown = [*self._troubled, *self._fine][:CARDS]
        groups = [
            Group(pool, point.label, int(made), *(each / made for each in sums))
            for (pool, point), (made, *sums) in sorted(
                self._groups.items(), key=lambda item: (item[0][0], -item[0][1].steps, item[0][1])
            )
        ]
        return Report(
            batch=self._batch,
            state=state,
            told_at=now,
            counts=dict(self._counts),
            promise=promise,
            finished_at=self._finished_at,
            device_seconds=self._device_seconds,
            mean_quality=self._quality_sum / self._quality_of if self._quality_of else None,
            reduced=self._reduced,
            reused=self._reused,
            late=self._late,
            groups=tuple(groups),
            causes=dict(self._causes.most_common()),
            failures={message: tuple(rows) for message, rows in self._failures.items()},
            cards=tuple(sorted(shown, key=lambda card: card.record.job.row)),
            marks=tuple(self._marks),
            notes=promise.notes if promise else (),
        )


# --- reaching the videos --------------------------------------------------------------------------


def page_key(batch_id: str) -> str:
    """Where a batch's page lies in its store."""
    return f"batches/{batch_id}/report.html"


def write(store: Store, batch_id: str, html: str) -> str:
    """Put the page beside the batch's videos; returns where a person finds it."""
    key = page_key(batch_id)
    store.put(key, html.encode("utf-8"), content_type="text/html; charset=utf-8")
    return store.uri(key)


def link(report: Report, store: Store, *, embed: bool | None = None) -> Report:
    """The same report with an href for each video and poster.

    embed: put the bytes into the page; None does so where they are small and few. A file that has
    gone missing leaves its card without a video, which the page says.
    """
    if embed is None:
        sizes = [each.record.artifact.size_bytes for each in report.cards if each.record.artifact]
        embed = len(sizes) <= EMBED_JOBS and sum(sizes) <= EMBED_BYTES
    here = posixpath.dirname(page_key(report.batch.id))

    def href(uri: str, mime: str) -> str | None:
        key = key_of(store, uri)
        if key is None:
            return None
        return _data_uri(store, key, mime) if embed else quote(posixpath.relpath(key, here))

    def linked(card: Card) -> Card:
        if (artifact := card.record.artifact) is None:
            return card
        video, poster = (
            href(artifact.video_uri, "video/mp4"),
            href(artifact.poster_uri, "image/jpeg"),
        )
        return replace(card, video=video, poster=poster)

    return replace(report, cards=tuple(linked(card) for card in report.cards))


def key_of(store: Store, uri: str) -> str | None:
    """The key behind a URI of this store; None for one that lies elsewhere."""
    prefix = store.uri("x")[:-1]
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None


def _data_uri(store: Store, key: str, mime: str) -> str | None:
    try:
        data = store.get(key)
    except NotFound:
        return None
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
