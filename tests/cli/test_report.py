"""What a report gathers, and a page in which nothing from outside can act."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.cli.records import SUBMITTED_AT, Rows, a_batch, a_record
from vidplat.cli.report_charts import ticks
from vidplat.cli.report_page import headline, page
from vidplat.domain import JobRecord, JobState, ModelRef, OperatingPoint
from vidplat.platform import report as reports
from vidplat.platform.report import Report, gather, link
from vidplat.storage.catalog_words import PlanRecord
from vidplat.storage.memory import MemoryStore

NASTY = (
    '<script>alert(1)</script><img src=x onerror=alert(1)>"\' onload=alert(1) x="'
    "</title></style></textarea><!-- ]]> \x1b[31m \x00 {{7*7}} javascript:alert(1) '); DROP "
    "TABLE jobs;-- ‮"
)


def a_report(*records: JobRecord, state: str = "done", **wishes: object) -> Report:
    batch = a_batch(total=len(records), **wishes)
    return gather(Rows(records, state), batch, SUBMITTED_AT + 70)


# --- gathering ------------------------------------------------------------------------------------


def test_jobs_made_alike_are_one_line_of_predicted_against_actual() -> None:
    # given three cloud jobs of 24 steps predicted at 2 s (p90 2.4 s) that took 2, 2.2 and 3 s
    records = [a_record(row, took_s=took) for row, took in ((1, 2.0), (2, 2.2), (3, 3.0))]

    report = a_report(*records)

    # then their mean is 2.4 s and two of three stayed within p90
    (group,) = report.groups
    assert (group.pool, group.point, group.made) == ("cloud", "24 steps", 3)
    assert round(group.actual_s, 6) == 2.4
    assert round(group.within_p90, 6) == round(2 / 3, 6)


def test_late_and_missing_videos_are_counted_by_cause() -> None:
    late = a_record(1, start_s=58, took_s=4)  # done 2 s after the deadline at 60 s
    failed = a_record(2, state=JobState.FAILED, failure="out of memory")
    batch = a_batch(total=2)

    report = gather(Rows([late, failed], causes={late.job.id: "worker lost"}), batch, 0)

    assert report.late == 1
    assert report.causes == {"worker lost": 1, "failed": 1}
    assert report.failures == {"out of memory": [2]}


def test_a_row_with_its_own_deadline_is_judged_by_it() -> None:
    own = a_record(1, start_s=58, took_s=4)
    own = replace(own, job=replace(own.job, deadline_at=SUBMITTED_AT + 100))

    assert a_report(own).late == 0


def test_a_video_that_another_batch_made_is_neither_late_nor_timed() -> None:
    report = a_report(a_record(1, start_s=-5000, took_s=2, reused_from="b999999999999"))

    assert (report.reused, report.late, report.groups, report.device_seconds) == (1, 0, (), 0.0)
    assert headline(report) == "1 video was there already"


def test_a_large_batch_keeps_its_sums_and_shows_its_troubled_jobs_first() -> None:
    failed = a_record(5000, state=JobState.FAILED, failure="no")
    records = [*(a_record(row) for row in range(1, 5000)), failed]

    report = a_report(*records)

    assert report.done == 4999
    assert len(report.cards) == reports.CARDS and report.left_out == 5000 - reports.CARDS
    assert report.cards[-1].record.job.row == 5000
    assert len(report.marks) <= reports.MARKS


def test_small_videos_are_put_into_the_page_and_large_ones_linked() -> None:
    store, record = MemoryStore("videos"), a_record(1)
    assert record.artifact
    key = record.artifact.video_uri.removeprefix("memory://videos/")
    store.put(key, b"video")
    report = a_report(record)

    (inside,) = link(report, store).cards
    (linked,) = link(report, store, embed=False).cards

    assert inside.video == "data:video/mp4;base64,dmlkZW8="
    assert inside.poster is None  # its file is not there
    assert linked.video == f"jobs/{record.job.id[:2]}/{record.job.id}/video.mp4"


def test_a_video_of_another_batch_is_reached_by_a_relative_path() -> None:
    store = MemoryStore("videos")
    record = a_record(1, batch_id="bffffffffff0")

    (card,) = link(a_report(record), store, embed=False).cards

    assert card.video == f"../bffffffffff0/jobs/{record.job.id[:2]}/{record.job.id}/video.mp4"


def test_a_video_outside_the_store_is_not_linked() -> None:
    record = a_record(1, prefix="s3://elsewhere")

    (card,) = link(a_report(record), MemoryStore("videos"), embed=False).cards

    assert card.video is None


# --- the sentence at the top ----------------------------------------------------------------------


def test_the_headline_says_how_it_ended() -> None:
    on_time = a_record(1, start_s=6, took_s=2)
    late = a_record(2, start_s=60, took_s=2)
    failed = a_record(3, state=JobState.FAILED, failure="no")
    queued = a_record(4, state=JobState.QUEUED)

    assert headline(a_report(on_time, a_record(5))) == "All 2 videos, 52 s before the deadline"
    assert headline(a_report(on_time, late)) == "All 2 videos, 1 late, the last by 2.0 s"
    assert (
        headline(a_report(on_time, failed))
        == "1 of 2 videos, 52 s before the deadline; 1 could not be made"
    )
    assert headline(a_report(on_time, queued, state="open")) == "1 of 2 videos so far, 1 to go"
    assert (
        headline(a_report(queued, state="infeasible"))
        == "Nothing was made: no plan met the deadline"
    )
    assert headline(a_report(on_time, deadline_at=None)) == "1 video made"


# --- the page -------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Every element and attribute of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def a_report_full_of(text: str) -> Report:
    """A failed job and a late one, with `text` in every place that somebody else fills."""
    model = ModelRef(text, text)
    failed = a_record(
        1, text, external_id=text, failure=text, state=JobState.FAILED, pool=f"a{text}"
    )
    late = a_record(2, text, start_s=70, external_id=f"../../{text}", pool=f"b{text}")
    records = [
        replace(
            record,
            worker_id=text,
            point=OperatingPoint(8, text),
            phases={text: 2.0},
            job=replace(
                record.job,
                negative_prompt=text,
                model=model,
                input_video=text,
                input_sha256=text,
                strength=0.5,
            ),
        )
        for record in (failed, late)
    ]
    plan = PlanRecord(
        0.0, "", text, text, 0, 0, SUBMITTED_AT + 1, SUBMITTED_AT + 2, 1, 1, 1, 2, notes=(text,)
    )
    return gather(
        Rows(records, promise=plan, causes={record.job.id: text for record in records}),
        a_batch(source=text, method=text, output_prefix=text, model=model, total=2),
        0,
    )


def test_whatever_strangers_write_the_page_has_the_same_elements_and_attributes() -> None:
    nasty, plain = (Tags(page(a_report_full_of(text))) for text in (NASTY, "plain"))

    assert nasty.names == plain.names
    assert [name for name, _ in nasty.attributes] == [name for name, _ in plain.attributes]
    assert nasty.names.count("script") == 1
    assert not [name for name, _ in nasty.attributes if name.startswith("on") or name == "style"]


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% raw %}", "{# gone #}", "{{ report.__class__ }}"]
)
def test_a_template_inside_a_prompt_is_only_text(text: str) -> None:
    html = page(a_report(a_record(1, text)))

    assert f"<h3>{text}</h3>" in html


def test_a_secret_inside_a_url_is_not_shown() -> None:
    html = page(a_report(a_record(1), output_prefix="s3://key:hunter2@bucket/videos"))

    assert "bucket/videos" in html
    assert "hunter2" not in html


def test_control_characters_are_spelled_out_in_the_page() -> None:
    html = page(a_report_full_of(NASTY))

    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f‮]", html)


def test_the_page_names_nothing_outside_itself() -> None:
    html = page(a_report(a_record(1)))

    links = [
        value
        for name, value in Tags(html).attributes
        if name in ("src", "href", "poster", "action")
    ]
    assert links == []  # no video was linked, and there is no style sheet, font or script elsewhere
    assert "http://" not in html and "https://" not in html


def test_the_policy_of_the_page_allows_no_script_but_its_own() -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page(a_report(a_record(1))))

    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


def test_the_same_report_is_the_same_page() -> None:
    report = a_report_full_of(NASTY)

    assert page(report) == page(report)


def test_an_empty_batch_still_has_a_page() -> None:
    html = page(a_report(state="infeasible"))

    assert "Nothing was made" in html


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 61, 8) == [0, 10, 20, 30, 40, 50, 60]
    assert ticks(0, 0.5, 5) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert ticks(0, 7200, 8) == [0, 900, 1800, 2700, 3600, 4500, 5400, 6300, 7200]
    assert all(len(ticks(0, top, 8)) <= 10 for top in (1e-4, 3, 59, 1e3, 1e5, 1e7))
