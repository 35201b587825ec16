"""`page(report) -> str`: one self-contained HTML page about a batch. Pure: no clock, no files but
its own style sheet and script, no network.

It tells, in this order: how it ended, in one sentence and five figures; when each worker did what;
predicted against actual; what went wrong and why; the videos, which play on hover or click; and how
they were made.

Safety. Everything from outside passes `_text` (control characters spelled out, then HTML-escaped).
The page carries a Content-Security-Policy that allows its own script and style by hash, images and
videos from beside it or from data URIs, and nothing else; so even a hole in the escaping runs no
script and calls no server. It works without JavaScript: then each video has the browser's own
controls.

Left to others: gathering (`platform/report.py`), charts (`report_charts.py`), where the page is
written.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files

from vidplat import __version__
from vidplat.cli import phrases
from vidplat.cli.report_charts import clock_chart, pool_classes, scatter_chart
from vidplat.domain import JobRecord, JobState, OnInfeasible
from vidplat.errors import printable
from vidplat.platform.report import Card, Report, actual_s

TINY = 160  # videos narrower than this are enlarged pixel by pixel instead of blurred


def page(report: Report) -> str:
    """The whole document."""
    style = _resource("report.css") + _aspect(report)
    script = _resource("report.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src "
        "'self' data:; "
        "media-src 'self' data:; base-uri 'none'; form-action 'none'"
    )
    title = f"{report.done} of {phrases.count(_total(report), 'video')} · {report.batch.id}"
    body = [
        _head(report),
        _clock(report),
        _against(report),
        _trouble(report),
        _videos(report),
        _about(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
        f"<title>{_text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{script}</script>\n</body>\n</html>\n"
    )


# --- how it ended ---------------------------------------------------------------------------------


def _head(report: Report) -> str:
    batch = report.batch
    figures = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(more, 200)}</small></dd></div>"
        for name, value, more in _figures(report)
    )
    promise = report.promise
    lead = (
        [f"Promised at submit, {promise.verdict}: {promise.reason}."]
        if promise and promise.reason
        else []
    )
    lead += [f"Note: {note}." for note in report.notes if note]
    sentences = "".join(f'<p class="lead">{_text(sentence, 400)}</p>' for sentence in lead)
    return (
        f'<header><p class="kicker">{_text(batch.source, 120)} · {_text(batch.model.id, 80)} · '
        f'batch <span class="mono">{_text(batch.id)}</span> · submitted '
        f"{_text(phrases.moment(batch.submitted_at))}</p>"
        f"<h1>{_text(headline(report), 300)}</h1>{sentences}"
        f'<dl class="figures">{figures}</dl></header>'
    )


def headline(report: Report) -> str:
    """The end of the story in one sentence, from what the catalog says."""
    total, done, batch = _total(report), report.done, report.batch
    lost = sum(
        many
        for state, many in report.counts.items()
        if state.is_final and state is not JobState.DONE
    )
    open_jobs = total - done - lost
    start = (
        f"All {phrases.count(total, 'video')}" if done == total and total > 1 else _of(done, total)
    )
    if report.state == "infeasible":
        return "Nothing was made: no plan met the deadline"
    if open_jobs and report.state != "cancelled":
        return f"{start} so far, {open_jobs:,} to go"
    if report.reused == done and done == total:
        return f"{start} {'was' if total == 1 else 'were'} there already"
    if batch.deadline_at is None or report.finished_at is None:
        return f"{start}{f', {lost:,} could not be made' if lost else ' made'}"
    spare_s = batch.deadline_at - report.finished_at
    if report.late:
        time = (
            f"{report.late:,} late, the last by {phrases.seconds(-spare_s)}"
            if spare_s < 0
            else f"{report.late:,} late"
        )
    else:
        time = f"{phrases.seconds(spare_s)} before the deadline"
    return f"{start}, {time}" + (f"; {lost:,} could not be made" if lost else "")


def _of(done: int, total: int) -> str:
    return (
        phrases.count(total, "video")
        if done == total
        else f"{done:,} of {phrases.count(total, 'video')}"
    )


def _figures(report: Report) -> Iterable[tuple[str, str, str]]:
    batch, promise = report.batch, report.promise
    more = [
        f"{many:,} {state.value}"
        for state, many in report.counts.items()
        if state is not JobState.DONE and many
    ]
    more += [f"{report.reused:,} made earlier"] if report.reused else []
    yield "Videos", f"{report.done:,} of {_total(report):,}", ", ".join(more)
    if report.finished_at is not None:
        allowed = (
            phrases.seconds(batch.deadline_at - batch.submitted_at) if batch.deadline_at else None
        )
        yield (
            "Time from submit",
            phrases.seconds(report.finished_at - batch.submitted_at),
            f"of {allowed} allowed" if allowed else "no deadline was set",
        )
    if promise is not None and promise.finish_p50_at > batch.submitted_at:
        yield (
            "Predicted at submit",
            phrases.seconds(promise.finish_p50_at - batch.submitted_at),
            f"p90 {phrases.seconds(promise.finish_p90_at - batch.submitted_at)}",
        )
    if report.mean_quality is not None:
        spent = (
            f"{report.reduced:,} with fewer steps or frames"
            if report.reduced
            else "every video at full quality"
        )
        yield "Predicted quality", phrases.quality(report.mean_quality), f"of 1.00; {spent}"
    if report.device_seconds:
        yield "Device time", phrases.seconds(report.device_seconds), _per_video(report)


def _per_video(report: Report) -> str:
    made = sum(group.made for group in report.groups)
    return f"{phrases.seconds(report.device_seconds / made)} per video" if made else ""


# --- charts and tables ----------------------------------------------------------------------------


def _clock(report: Report) -> str:
    chart = clock_chart(report)
    if not chart:
        return ""
    keys = "".join(
        f'<span class="key {css}"></span>{_text(pool, 40)} &nbsp; '
        for pool, css in pool_classes(report).items()
    )
    return (
        f'<section><h2>Where the time went</h2><p class="note">{keys}'
        f"Each bar is one video{', outlined in red if late' if report.late else ''}; the shaded "
        "stretch is the finish "
        "that was predicted, p50 to p90.</p>"
        f'<div class="scroll">{chart}</div></section>'
    )


def _against(report: Report) -> str:
    if not report.groups:
        return ""
    colours = pool_classes(report)
    rows = "".join(
        f'<tr><td><span class="key {colours[group.pool]}"></span>{_text(group.pool, 40)}</td>'
        f"<td>{_text(group.point, 60)}</td>"
        f'<td class="num">{group.made:,}</td><td '
        f'class="num">{phrases.seconds(group.predicted_s)}</td>'
        f'<td class="num">{phrases.seconds(group.actual_s)}</td>'
        f'<td class="num">{phrases.against(group.actual_s, group.predicted_s)}</td>'
        f'<td class="num">{phrases.percent(group.within_p90)}</td>'
        f'<td class="num">{phrases.quality(group.quality)}</td></tr>'
        for group in report.groups
    )
    heads = "".join(
        f'<th scope="col"{"" if index < 2 else " class=num"}>{name}</th>'
        for index, name in enumerate(
            (
                "pool",
                "made with",
                "videos",
                "predicted",
                "actual",
                "off by",
                "within p90",
                "quality",
            )
        )
    )
    return (
        "<section><h2>Predicted against actual</h2>"
        '<p class="note">Seconds per video. A well-calibrated plan keeps about 90 % of them '
        "within its p90.</p>"
        f'<div class="pair"><div>{scatter_chart(report)}</div>'
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></div></section>"
    )


CAUSES = {
    "infeasible": "infeasible: the plan itself said that not all could be in time",
    "worker lost": "worker lost: a worker died with it in hand",
    "retry": "retry: an earlier attempt failed",
    "start-up": "start-up: the workers came up later than predicted",
    "estimate": "estimate: it, or those before it, took longer than predicted",
}


def _trouble(report: Report) -> str:
    if not report.causes and not report.failures:
        return ""
    causes = "".join(
        f'<tr><td class="num">{many:,}</td><td '
        f'class="wide">{_text(CAUSES.get(cause, cause), 300)}</td></tr>'
        for cause, many in report.causes.items()
    )
    failures = "".join(
        f'<tr><td class="num">{len(rows):,}</td><td class="wide">{_text(message, 400)}</td>'
        f'<td class="wide soft">{_rows(rows)}</td></tr>'
        for message, rows in sorted(report.failures.items(), key=lambda item: -len(item[1]))[:50]
    )
    parts = ["<section><h2>What went wrong</h2>"]
    if causes:
        parts.append(
            '<p class="note">Videos that are late or missing, by cause.</p><div '
            'class="scroll"><table><thead><tr>'
            '<th scope="col" class="num">videos</th><th scope="col">cause</th></tr></thead>'
            f"<tbody>{causes}</tbody></table></div>"
        )
    if failures:
        parts.append(
            '<p class="note"></p><div class="scroll"><table><thead><tr><th scope="col" '
            'class="num">videos</th>'
            '<th scope="col">failure</th><th scope="col">rows</th></tr></thead>'
            f"<tbody>{failures}</tbody></table></div>"
        )
    return "".join([*parts, "</section>"])


def _rows(rows: tuple[int, ...]) -> str:
    shown = ", ".join(str(row) for row in rows[:20])
    return shown if len(rows) <= 20 else f"{shown} and {len(rows) - 20:,} more"


# --- the videos -----------------------------------------------------------------------------------


def _videos(report: Report) -> str:
    if not report.cards:
        return ""
    states = sorted({card.record.state.value for card in report.cards})
    options = "".join(f'<option value="{state}">{state}</option>' for state in states)
    late = (
        '<option value="late">late</option>'
        if any((card.late_s or 0) > 0 for card in report.cards)
        else ""
    )
    left_out = (
        f'<p class="note">{len(report.cards):,} of {_total(report):,} are shown, troubled ones '
        "first; "
        "manifest.parquet has them all.</p>"
        if report.left_out > 0
        else ""
    )
    filters = (
        '<div class="filters" role="search" aria-label="Filter videos">'
        '<label>Prompt <input type="search" data-control="text" placeholder="words in it"></label>'
        '<label>State <select data-control="state"><option '
        f'value="">all</option>{options}{late}</select></label>'
        '<label>Quality <select data-control="quality"><option value="">all</option>'
        '<option value="full">full</option><option '
        'value="reduced">reduced</option></select></label>'
        '<label>Order <select data-control="order"><option value="row">by row</option>'
        '<option value="seconds">slowest first</option><option value="q">lowest quality '
        "first</option></select></label>"
        '<button type="button" data-control="all" aria-pressed="false">Play all</button>'
        '<output data-control="shown"></output></div>'
    )
    cards = "\n".join(_card(report, card) for card in report.cards)
    tiny = " tiny" if all(card.record.job.spec.width < TINY for card in report.cards) else ""
    return (
        f'<section><h2>Videos</h2>{left_out}{filters}<div class="grid{tiny}">\n{cards}\n</div>'
        '<p class="empty" hidden>No video fits these filters.</p></section>'
    )


def _card(report: Report, card: Card) -> str:
    record = card.record
    took_s = actual_s(record)
    reduced = is_reduced(record)
    data = {
        "state": record.state.value,
        "row": record.job.row,
        "quality": "reduced" if reduced else "full",
        "q": None if record.predicted_quality is None else f"{record.predicted_quality:.4f}",
        "seconds": None if took_s is None else f"{took_s:.3f}",
        "late": "1" if (card.late_s or 0) > 0 else None,
    }
    attributes = "".join(
        f' data-{name}="{value}"' for name, value in data.items() if value is not None
    )
    return (
        f'<article class="card"{attributes}><div class="frame">{_frame(card)}</div>'
        f"<h3>{_text(record.job.prompt, 600)}</h3>"
        f'<p class="meta">{_meta(card, took_s)}</p>{_details(report, card)}</article>'
    )


def is_reduced(record: JobRecord) -> bool:
    """Made with fewer steps than full quality asks for."""
    return record.point is not None and record.point.steps < record.job.spec.num_inference_steps


def _frame(card: Card) -> str:
    record = card.record
    if card.video:
        poster = f' poster="{escape(card.poster, quote=True)}"' if card.poster else ""
        return (
            f'<video controls preload="none" loop muted playsinline{poster} '
            f'src="{escape(card.video, quote=True)}" '
            f'aria-label="{_text(record.job.prompt, 200)}"></video>'
        )
    if record.state is JobState.DONE:
        reason, word = "its file is not here", "not found"
    else:
        reason, word = (record.failure.message if record.failure else ""), record.state.value
    tone = "bad" if record.state in (JobState.FAILED, JobState.QUARANTINED) else "soft"
    return f'<div class="none"><b class="{tone}">{word}</b>{_text(reason, 240)}</div>'


def _meta(card: Card, took_s: float | None) -> str:
    record = card.record
    parts = [f'<span title="row of the prompt file">#{record.job.row}</span>']
    if record.state is JobState.DONE:
        if record.point is not None:
            parts.append(_text(record.point.label, 60))
        parts.append("made earlier" if record.reused_from else phrases.seconds(took_s))
        if record.predicted_quality is not None and is_reduced(record):
            parts.append(f"quality {phrases.quality(record.predicted_quality)}")
    else:
        parts.append(record.state.value)
    if card.late_s is not None and card.late_s > 0:
        parts.append(f'<span class="bad">{phrases.seconds(card.late_s)} late</span>')
    return " · ".join(parts)


def _details(report: Report, card: Card) -> str:
    record, spec = card.record, card.record.job.spec
    phases = ", ".join(
        f"{name} {phrases.seconds(value)}"
        for name, value in record.phases.items()
        if value >= 0.005
    )
    predicted = (
        f"{phrases.seconds(record.predicted_p50_s)}, p90 {phrases.seconds(record.predicted_p90_s)}"
        if record.predicted_p50_s is not None
        else None
    )
    link = (
        f'<a href="{escape(card.video, quote=True)}">video.mp4</a>'
        if card.video and _is_path(card.video)
        else None
    )
    facts: dict[str, str | None] = {
        "id": _text(record.job.external_id, 120) if record.job.external_id else None,
        "job": f'<span class="mono">{_text(record.job.id)}</span>',
        "not": _text(record.job.negative_prompt, 300) if record.job.negative_prompt else None,
        "from": _source(record),
        "size": f"{spec.width}×{spec.height}, {spec.num_frames} frames, {spec.fps} fps",
        "seed": f"{spec.seed}",
        "guidance": f"{spec.guidance_scale:g}",
        "worker": _text(record.worker_id, 60) if record.worker_id else None,
        "predicted": predicted,
        "phases": _text(phases, 200) if phases else None,
        "attempts": f"{record.attempt}" if record.attempt > 1 else None,
        "cause": _text(card.cause, 300) if card.cause else None,
        "file": f"{link + ', ' if link else ''}{phrases.size(record.artifact.size_bytes)}"
        if record.artifact
        else None,
        "sha256": f'<span class="mono">{_text(record.artifact.sha256[:16])}…</span>'
        if record.artifact
        else None,
    }
    return f"<details><summary>details</summary><dl>{_pairs(facts)}</dl></details>"


def _source(record: JobRecord) -> str | None:
    job = record.job
    if job.input_video is None:
        return None
    digest = (
        f', <span class="mono">{_text(job.input_sha256[:16])}…</span>' if job.input_sha256 else ""
    )
    return f"{_text(job.input_video, 200)}, strength {job.strength:g}{digest}"


# --- how it was made ------------------------------------------------------------------------------


def _about(report: Report) -> str:
    batch, promise = report.batch, report.promise
    specs = Counter(
        f"{spec.width}×{spec.height}, {spec.num_frames} frames at {spec.fps} fps, "
        f"{spec.num_inference_steps} steps"
        for spec in (card.record.job.spec for card in report.cards)
    )
    wishes = {
        OnInfeasible.REJECT: "reject",
        OnInfeasible.DEGRADE: "lower quality, then reject",
        OnInfeasible.BEST_EFFORT: "go on, and count late videos as missed",
    }
    facts: dict[str, str | None] = {
        "model": f'{_text(batch.model.id, 120)} <span class="mono '
        f'soft">{_text(batch.model.revision, 64)}</span>',
        "full quality": "; ".join(_text(spec, 120) for spec, _ in specs.most_common(3)) or None,
        "deadline": _text(phrases.moment(batch.deadline_at)) if batch.deadline_at else "none",
        "if infeasible": wishes.get(batch.on_infeasible),
        "quality floor": phrases.quality(batch.quality_floor) if batch.quality_floor else None,
        "method": _text(batch.method, 60) if batch.method else "chosen by the planner",
        "quality bound": f"{phrases.quality(promise.quality_bound)} at best in this time"
        if promise
        else None,
        "output": f'<span class="mono">{_text(batch.output_prefix, 300)}</span>',
    }
    return (
        f'<section class="about"><h2>How they were made</h2><dl>{_pairs(facts)}</dl></section>'
        f"<footer>Told by vidplat {_text(__version__)} at "
        f"{_text(phrases.moment(report.told_at))}. Predicted "
        "quality is the likeness to the same video at full quality, 1.00 at best. Each video's "
        "meta.json has all its "
        "parameters.</footer>"
    )


# --- the door -------------------------------------------------------------------------------------


def _text(text: object, limit: int = 200) -> str:
    """Text from outside, harmless in a terminal, in an element and in a quoted attribute."""
    return escape(printable(text, limit), quote=True)


def _pairs(facts: Mapping[str, str | None]) -> str:
    return "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)


def _is_path(href: str) -> bool:
    return not href.startswith("data:")


def _total(report: Report) -> int:
    return sum(report.counts.values())


def _aspect(report: Report) -> str:
    """The commonest shape of a frame, as a style rule: two whole numbers from checked specs."""
    shapes = Counter(
        (card.record.job.spec.width, card.record.job.spec.height) for card in report.cards
    )
    if not shapes:
        return ""
    width, height = shapes.most_common(1)[0][0]
    return f":root {{ --aspect: {int(width)} / {int(height)}; }}\n"


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"


def _resource(name: str) -> str:
    return (files("vidplat.cli") / name).read_text(encoding="utf-8")
