"""What there is to say about a batch after (or while) it runs, gathered from the catalog.

`gather` walks the batch's jobs once, page by page, and keeps sums and a bounded number of cards, so
that a batch of a million rows makes a page of ordinary size. `link` finds out how a page beside the
batch's videos reaches them: a relative path, or a data URI with the bytes where the whole is small.

The page itself is made by `cli/report_page.py`, a pure function of `Report`. Nothing here decides
or corrects anything: what the catalog says is what is told.
"""

from __future__ import annotations

import base64
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from vidplat.domain import Artifact, Batch, JobRecord, JobState, OperatingPoint
from vidplat.methods.language import made_with
from vidplat.platform.interface import finish_s
from vidplat.storage.catalog_words import PlanRecord
from vidplat.storage.stores import NotFound

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog
    from vidplat.storage.stores import Store

CARDS = 600  # videos shown on a page; failed and late ones come first
MARKS = 2_000  # jobs drawn in the charts
EMBED_BYTES = 24_000_000  # videos and posters together; above this a page links to them instead
EMBED_JOBS = 300
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
    point: str  # as `made_with` tells it
    made: int
    predicted_s: float  # mean of p50
    predicted_p90_s: float  # mean of p90
    actual_s: float  # mean
    within_p90: float  # share of jobs that took no longer than their p90
    quality: float  # mean predicted


@dataclass
class Report:
    """All that a page about a batch says; complete when `gather` returns it."""

    batch: Batch
    state: str
    told_at: float
    promise: PlanRecord | None  # the plan in force when the latest run began
    notes: tuple[str, ...]
    counts: Counter[JobState] = field(default_factory=Counter)
    finished_at: float | None = None  # when the last video so far was committed
    device_seconds: float = 0.0
    mean_quality: float | None = None  # predicted, over finished videos
    reduced: int = 0  # finished videos made below full quality
    reused: int = 0  # finished videos that another batch already had
    late: int = 0  # finished after their deadline
    groups: Sequence[Group] = ()
    causes: Mapping[str, int] = field(default_factory=dict)  # of late and missing videos
    failures: dict[str, list[int]] = field(default_factory=dict)  # message -> rows
    cards: Sequence[Card] = ()
    # Jobs with a start and an end, for the charts; thinned out when many.
    marks: list[JobRecord] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.counts.get(JobState.DONE, 0)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def promised_s(self) -> tuple[float, float] | None:
        """From asking to the end, as it was promised: p50 and p90."""
        return finish_s(self.promise, self.promise.at) if self.promise else None

    @property
    def left_out(self) -> int:
        """Jobs without a card."""
        return self.total - len(self.cards)


def gather(catalog: Catalog, batch: Batch, now: float) -> Report:
    """Walk the jobs of `batch` once."""
    promise = next(iter(catalog.plans(batch.id, 1)), None)
    notes = promise.notes if promise else ()
    report = Report(batch, catalog.batch_state(batch.id), now, promise, notes)
    tally = _Tally(report, _remembered_causes(catalog, batch.id))
    for record in catalog.every_job(batch.id):
        tally.add(record)
    return tally.report()


def actual_s(record: JobRecord) -> float | None:
    """Seconds from a job's start to its committed end; None for one reused or not ended."""
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


def _remembered_causes(catalog: Catalog, batch_id: str) -> dict[str, str]:
    """Causes of misses by job id, as the runs of this batch scored themselves at their ends."""
    causes: dict[str, str] = {}
    for event in reversed(catalog.events(batch_id, limit=EVENTS_SEARCHED, newest_first=True)):
        if event.kind == "scored":
            causes.update(event.detail.get("causes", {}))
    return causes


def likely_cause(record: JobRecord) -> str:
    """Why a video was late, as far as its record tells; `score.py` knows more during a run."""
    return "retry" if record.attempt > 1 else "estimate"


class _Tally:
    """Fills a report record by record: sums, and the cards worth showing."""

    def __init__(self, report: Report, known_causes: Mapping[str, str]) -> None:
        self._report, self._known_causes = report, known_causes
        self._causes: Counter[str] = Counter()
        self._groups: defaultdict[tuple[str, OperatingPoint], _Sums] = defaultdict(_Sums)
        self._quality_sum, self._quality_of = 0.0, 0
        self._troubled: list[Card] = []
        self._fine: list[Card] = []
        self._stride, self._timed = 1, 0

    def add(self, record: JobRecord) -> None:
        report, is_done = self._report, record.state is JobState.DONE
        late_s = lateness_s(record, report.batch)
        is_late = late_s is not None and late_s > 0
        cause = ""
        if is_late or (record.state.is_final and not is_done):
            ours = likely_cause(record) if is_late else record.state.value
            cause = self._known_causes.get(record.job.id) or ours
            self._causes[cause] += 1
        report.counts[record.state] += 1
        report.late += is_late
        if is_done:
            self._add_done(record)
        elif record.failure is not None:
            report.failures.setdefault(record.failure.message, []).append(record.job.row)
        if (took_s := actual_s(record)) is not None:
            self._mark(record)
            if is_done:
                self._time(record, took_s)
        cards = self._troubled if cause else self._fine
        if len(cards) < CARDS:
            cards.append(Card(record, late_s, cause))

    def _add_done(self, record: JobRecord) -> None:
        report = self._report
        if record.reused_from is not None:
            report.reused += 1
        elif record.finished_at is not None:
            report.finished_at = max(report.finished_at or 0.0, record.finished_at)
        if record.predicted_quality is not None:
            self._quality_sum += record.predicted_quality
            self._quality_of += 1
        report.reduced += is_reduced(record)

    def _time(self, record: JobRecord, took_s: float) -> None:
        self._report.device_seconds += took_s
        if record.point is not None and record.predicted_p50_s is not None:
            self._groups[record.pool or "?", record.point].add(record, took_s)

    def _mark(self, record: JobRecord) -> None:
        if self._timed % self._stride == 0:
            self._report.marks.append(record)
        self._timed += 1
        if len(self._report.marks) > MARKS:  # thin out evenly: a large batch keeps its shape
            del self._report.marks[1::2]
            self._stride *= 2

    def report(self) -> Report:
        """The report of all that was added."""
        report, shown = self._report, [*self._troubled, *self._fine][:CARDS]
        full_first = sorted(self._groups, key=lambda at: (at[0], -at[1].steps, at[1].method))
        report.groups = tuple(self._groups[at].group(*at) for at in full_first)
        report.causes = dict(self._causes.most_common())
        report.cards = tuple(sorted(shown, key=lambda card: card.record.job.row))
        if self._quality_of:
            report.mean_quality = self._quality_sum / self._quality_of
        return report


class _Sums:
    """Over jobs made the same way in the same pool."""

    def __init__(self) -> None:
        self.made = 0
        self.totals = [0.0] * 5  # in the order of Group's fields

    def add(self, record: JobRecord, took_s: float) -> None:
        p50_s = record.predicted_p50_s or 0.0
        p90_s = record.predicted_p90_s or p50_s
        quality = 1.0 if record.predicted_quality is None else record.predicted_quality
        new = (p50_s, p90_s, took_s, took_s <= p90_s, quality)
        self.made += 1
        self.totals = [total + each for total, each in zip(self.totals, new, strict=True)]

    def group(self, pool: str, point: OperatingPoint) -> Group:
        return Group(pool, made_with(point), self.made, *(each / self.made for each in self.totals))


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
        embed = is_small(card.record.artifact for card in report.cards)
    here = posixpath.dirname(page_key(report.batch.id))
    reach = partial(_data_uri, store) if embed else partial(_href, store, here)
    return replace(report, cards=tuple(_linked(card, reach) for card in report.cards))


def is_small(artifacts: Iterable[Artifact | None]) -> bool:
    sizes = [artifact.size_bytes for artifact in artifacts if artifact is not None]
    return len(sizes) <= EMBED_JOBS and sum(sizes) <= EMBED_BYTES


def _linked(card: Card, reach: Callable[[str, str], str | None]) -> Card:
    if (artifact := card.record.artifact) is None:
        return card
    video = reach(artifact.video_uri, "video/mp4")
    return replace(card, video=video, poster=reach(artifact.poster_uri, "image/jpeg"))


def key_of(store: Store, uri: str) -> str | None:
    """The key behind a URI of this store; None for one that lies elsewhere."""
    prefix = store.uri("x")[:-1]
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None


def _href(store: Store, here: str, uri: str, mime: str) -> str | None:
    key = key_of(store, uri)
    return None if key is None else quote(posixpath.relpath(key, here))


def _data_uri(store: Store, uri: str, mime: str) -> str | None:
    key = key_of(store, uri)
    if key is None:
        return None
    try:
        data = store.get(key)
    except NotFound:
        return None
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
