"""`page(report) -> str`: one self-contained HTML page about a batch. Pure: no clock, no files but
its own templates, style sheet and script, no network.

It tells, in this order: how it ended, in one sentence and five figures; when each worker did what;
predicted against actual; what went wrong and why; the videos, which play on hover or click; and how
they were made. What it looks like is in `page/`: report.html.j2, charts.svg.j2, report.css and
report.js.

Safety. Whatever comes from outside is escaped by the templates (templates.py); only style, script
and policy, which are ours, are taken as they are. The page carries a Content-Security-Policy that
allows its own script and style by hash, images and videos from beside it or from data URIs, and
nothing else; so even a hole in the escaping runs no script and calls no server. It works without
JavaScript: then each video has the browser's own controls.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from vidplat import __version__
from vidplat.cli import phrases
from vidplat.cli.report_charts import Clock, Scatter, pool_classes
from vidplat.cli.templates import own, rendered
from vidplat.domain import JobRecord, JobState, OnInfeasible, VideoSpec
from vidplat.platform.report import Report

TINY = 160  # videos narrower than this are enlarged pixel by pixel instead of blurred
FAILURES = 50  # told apart; of more, the most frequent
SHORTEST_PHASE_S = 0.005

CAUSES = {
    "infeasible": "infeasible: the plan itself said that not all could be in time",
    "worker lost": "worker lost: a worker died with it in hand",
    "retry": "retry: an earlier attempt failed",
    "start-up": "start-up: the workers came up later than predicted",
    "estimate": "estimate: it, or those before it, took longer than predicted",
}
WISHES = {
    OnInfeasible.REJECT: "reject",
    OnInfeasible.DEGRADE: "lower quality, then reject",
    OnInfeasible.BEST_EFFORT: "go on, and count late videos as missed",
}


def page(report: Report) -> str:
    """The whole document."""
    specs = [card.record.job.spec for card in report.cards]
    style, script = own("report.css") + _aspect(specs), own("report.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src 'self' data:; media-src 'self' data:; base-uri 'none'; form-action 'none'"
    )
    failures = sorted(report.failures.items(), key=lambda item: -len(item[1]))[:FAILURES]
    colours = pool_classes(report)
    return rendered(
        "report.html.j2",
        report=report,
        headline=headline(report),
        not_done=_not_done(report),
        colours=colours,
        clock=Clock.of(report, colours),
        scatter=Scatter.of(report, colours),
        causes=CAUSES,
        failures=failures,
        is_tiny=all(spec.width < TINY for spec in specs),
        specs=_commonest(specs),
        wishes=WISHES,
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        policy=Markup(policy),
        phases=_phases,
    )


def headline(report: Report) -> str:
    """The end of the story in one sentence, from what the catalog says."""
    total, done, batch = report.total, report.done, report.batch
    cancelled = report.counts.get(JobState.CANCELLED, 0)
    lost = sum(many for state, many in report.counts.items() if state.is_lost)
    open_jobs = total - done - lost - cancelled
    reasons = ((lost, "could not be made"), (cancelled, "cancelled"))
    not_made = ", ".join(f"{many:,} {why}" for many, why in reasons if many)
    start = phrases.count(total, "video")
    if done < total:
        start = f"{done:,} of {start}"
    elif total > 1:
        start = f"All {start}"
    if report.state == "infeasible":
        return "Nothing was made: no plan met the deadline"
    if open_jobs and report.state != "cancelled":
        return f"{start} so far, {open_jobs:,} to go"
    if report.reused == done == total:
        return f"{start} {'was' if total == 1 else 'were'} there already"
    if batch.deadline_at is None or report.finished_at is None:
        return f"{start}{f', {not_made}' if not_made else ' made'}"
    spare_s = batch.deadline_at - report.finished_at
    if not report.late:
        time = f"{phrases.seconds(spare_s)} before the deadline"
    elif spare_s < 0:
        time = f"{report.late:,} late, the last by {phrases.seconds(-spare_s)}"
    else:
        time = f"{report.late:,} late"
    return f"{start}, {time}" + (f"; {not_made}" if not_made else "")


def _not_done(report: Report) -> list[str]:
    """What is to be said beside the number of videos: `1 failed`, `2 made earlier`."""
    earlier = [f"{report.reused:,} made earlier"] if report.reused else []
    return phrases.not_done(report.counts) + earlier


def _commonest(specs: Sequence[VideoSpec]) -> list[str]:
    """The commonest full qualities."""
    counted = Counter(
        f"{spec.width}×{spec.height}, {spec.num_frames} frames at {spec.fps} fps, "
        f"{spec.num_inference_steps} steps"
        for spec in specs
    )
    return [spec for spec, _ in counted.most_common(3)]


def _aspect(specs: Sequence[VideoSpec]) -> str:
    """The commonest shape of a frame, as a style rule: two whole numbers from checked specs."""
    if not specs:
        return ""
    width, height = Counter((spec.width, spec.height) for spec in specs).most_common(1)[0][0]
    return f":root {{ --aspect: {int(width)} / {int(height)}; }}\n"


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"


def _phases(record: JobRecord) -> str:
    """`encode 0.02 s, denoise 1.4 s`: those that took long enough to be told."""
    told = [item for item in record.phases.items() if item[1] >= SHORTEST_PHASE_S]
    return ", ".join(f"{name} {phrases.seconds(seconds)}" for name, seconds in told)
