"""How submit and resume end: the report page is written, predicted stands against actual, one line
says it all.

The exit code is the platform's. A report page that cannot be written costs a warning, not the
batch.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vidplat.cli import documents, phrases, reach, render
from vidplat.domain import JobState
from vidplat.errors import ExitCode, VidplatError
from vidplat.platform.interface import finish_s

if TYPE_CHECKING:
    from vidplat.config import Config
    from vidplat.platform.interface import BatchResult
    from vidplat.platform.report import Report


def conclude(result: BatchResult, config: Config, json: bool) -> int:
    """Print the end of a run and return its exit code."""
    report, place = _report(result, config)
    if json:
        render.print_json(documents.of_result(result, place))
        return result.exit_code
    from vidplat.cli.report_page import headline

    message = result.message
    if result.exit_code is ExitCode.DONE and not result.computed:
        message = f"nothing to do: {message}"
    elif report is not None and not (
        result.exit_code is ExitCode.INTERRUPTED or result.counts[JobState.CANCELLED]
    ):
        message = headline(report)
    if message:
        render.say(message, style="green" if result.exit_code is ExitCode.DONE else "yellow")
    if result.exit_code is ExitCode.INFEASIBLE:
        for line in result.answer.details if result.answer else ():
            render.say(f"  {line}")
        return result.exit_code
    if result.computed and report is not None:
        is_over = result.exit_code is not ExitCode.INTERRUPTED
        _print_comparison(result, report, is_over)
    if result.score.misses:
        causes = Counter(miss.cause for miss in result.score.misses).most_common()
        shown = ", ".join(f"{many:,} by {cause}" for cause, many in causes)
        render.say(f"late: {shown}", style="yellow")
    if place:
        render.say(f"report  {place}")
    return result.exit_code


def _report(result: BatchResult, config: Config) -> tuple[Report | None, str | None]:
    from vidplat.cli.report import write_page

    if result.exit_code is ExitCode.INFEASIBLE:
        return None, None
    try:
        with reach.open_catalog(config.catalog) as catalog:
            return write_page(catalog, result.batch)
    except VidplatError as error:
        render.warn(f"no report page: {error}; try `vidplat report {result.batch.id}` later")
        return None, None


def _print_comparison(result: BatchResult, report: Report, is_over: bool) -> None:
    """The table of predicted against actual. What was predicted of the whole batch is compared
    where that has ended."""
    score, start = result.score, result.asked_at
    rows: list[tuple[str, ...]] = []
    if is_over and result.plan is not None and score.finished_at > start:
        p50_s, p90_s = finish_s(result.plan, start)
        p90 = f" (p90 {phrases.seconds(p90_s)})"
        finish = _compared(p50_s, score.finished_at - start, p90)
        rows.append(("finish", "", *finish, ""))
    if score.startup_s:
        rows.append(("start-up", "", *_compared(score.predicted_startup_s, score.startup_s), ""))
    for group in report.groups:
        name, took = f"{group.pool}, {group.point}", _compared(group.predicted_s, group.actual_s)
        rows.append((name, f"{group.made:,}", *took, phrases.quality(group.quality)))
    render.say()
    numbers = ("VIDEOS", "PREDICTED", "ACTUAL", "OFF BY", "QUALITY")
    render.print_table(["", *numbers], rows, right=numbers)
    render.say(
        f"{phrases.percent(score.within_p90)} within p90, workers busy "
        f"{phrases.percent(score.busy_share)} of the time after start-up, predicted quality "
        f"{phrases.quality(score.mean_quality)} of 1.00",
        style="dim",
    )
    render.say()


def _compared(predicted_s: float, actual_s: float, p90: str = "") -> tuple[str, str, str]:
    """Predicted, actual, and how far off."""
    predicted, actual = phrases.seconds(predicted_s) + p90, phrases.seconds(actual_s)
    return predicted, actual, phrases.against(actual_s, predicted_s)
