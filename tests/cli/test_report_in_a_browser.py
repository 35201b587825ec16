"""The report page in a real headless Chromium: it plays, filters, and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.browser import Browser, chromium
from tests.cli.records import SUBMITTED_AT, Rows, a_batch, a_record
from vidplat.cli.report_page import page
from vidplat.domain import JobRecord, JobState
from vidplat.platform.report import gather, link, page_key
from vidplat.storage import open_store

CHROMIUM = chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: the report page is not opened"
)

NASTY = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"><svg '
    "onload=window.hacked=1>"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def video() -> tuple[bytes, bytes]:
    """A second of 64x64 video and its poster."""
    import numpy as np

    from vidplat.workers.video import to_mp4, to_poster

    frames = np.zeros((17, 64, 64, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[20:40, index * 2 : index * 2 + 20] = (220, 40, 40)
    return to_mp4(frames, 16), to_poster(frames)


def write(
    folder: Path, records: list[JobRecord], video: tuple[bytes, bytes], *, embed: bool
) -> Path:
    """The page and its videos under `folder`, as a run leaves them."""
    store = open_store(str(folder))
    for record in records:
        if record.artifact is not None:
            store.put(record.artifact.video_uri.removeprefix(f"{folder}/"), video[0])
            store.put(record.artifact.poster_uri.removeprefix(f"{folder}/"), video[1])
    batch = a_batch(output_prefix=str(folder), total=len(records))
    report = gather(Rows(records), batch, SUBMITTED_AT + 70)
    key = page_key(batch.id)
    store.put(key, page(link(report, store, embed=embed)).encode())
    return folder / key


def three(folder: Path) -> list[JobRecord]:
    prefix = str(folder)
    return [
        a_record(1, "a red circle drifts left", took_s=2.0, prefix=prefix),
        a_record(2, "a blue square waits", took_s=3.0, steps=8, quality=0.9, prefix=prefix),
        a_record(3, NASTY, state=JobState.FAILED, failure=NASTY, external_id=NASTY, prefix=prefix),
    ]


@pytest.mark.parametrize("embed", [True, False], ids=["videos inside", "videos beside"])
def test_a_click_plays_the_video_from_disk(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path, embed: bool
) -> None:
    browser.open(write(tmp_path, three(tmp_path), video, embed=embed))

    played = browser.run(
        """(async () => {
            const card = document.querySelector('.card'), video = card.querySelector('video');
            card.querySelector('.play').click();
            await new Promise((tell, fail) => {
                video.addEventListener('timeupdate', () => video.currentTime > 0 && tell());
                const late = () => fail(new Error('it did not play: ' + video.error?.message));
                setTimeout(late, 20000);
            });
            return [video.videoWidth, video.videoHeight, video.paused, video.muted];
        })()"""
    )

    assert played == [64, 64, False, True]
    assert browser.console == []
    # nothing but the page itself and files beside it was asked for
    assert all(url.startswith(tmp_path.as_uri()) for url in browser.requests)
    assert len(browser.requests) == 1 or not embed


def test_a_prompt_full_of_html_is_only_text(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path
) -> None:
    browser.open(write(tmp_path, three(tmp_path), video, embed=True))

    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('.card h3')[2].textContent") == NASTY
    assert browser.console == []


def test_even_a_hole_in_the_escaping_runs_no_script(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path
) -> None:
    path = write(tmp_path, three(tmp_path), video, embed=True)
    path.write_text(path.read_text().replace("</h1>", f"{NASTY}</h1>", 1))

    browser.open(path)

    assert browser.run("document.querySelectorAll('h1 img').length") == 1  # the hole is real
    assert browser.run("window.hacked") is None
    assert any("Content Security Policy" in line for line in browser.console)


def test_filters_and_order_choose_cards(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path
) -> None:
    browser.open(write(tmp_path, three(tmp_path), video, embed=True))

    def rows_after(control: str, value: str) -> list[str]:
        return list(
            browser.run(
                f"""(() => {{
                    const control = document.querySelector('[data-control="{control}"]');
                    control.value = {value!r};
                    control.dispatchEvent(new Event('input'));
                    const cards = [...document.querySelectorAll('.card')];
                    const shown = cards.filter(card => !card.hidden);
                    control.value = control.tagName === 'SELECT' ? control.options[0].value : '';
                    const isOrder = control.dataset.control === 'order';
                    if (!isOrder) control.dispatchEvent(new Event('input'));
                    return shown.map(card => card.dataset.row);
                }})()"""
            )
        )

    assert rows_after("text", "blue waits") == ["2"]
    assert rows_after("text", "BLUE red") == []
    assert rows_after("state", "failed") == ["3"]
    assert rows_after("quality", "reduced") == ["2"]
    assert rows_after("order", "seconds") == ["2", "1", "3"]


def test_the_keyboard_reaches_and_plays_a_video(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path
) -> None:
    browser.open(write(tmp_path, three(tmp_path), video, embed=True))
    browser.run("document.querySelector('[data-control=all]').focus()")

    browser.press("Tab")
    label = browser.run("document.activeElement.getAttribute('aria-label')")
    browser.press("Enter")

    assert label == "Play: a red circle drifts left"
    assert browser.run("document.activeElement.getAttribute('aria-pressed')") == "true"


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_fits_narrow_and_wide_windows(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path, width: int
) -> None:
    long = replace(three(tmp_path)[0], worker_id="a-worker-with-a-name-that-goes-on-and-on")
    word = a_record(4, "pneumonoultramicroscopicsilicovolcanoconiosis" * 6, prefix=str(tmp_path))
    path = write(tmp_path, [long, word, *three(tmp_path)[1:]], video, embed=True)
    browser.resize(width, 900)

    browser.open(path)

    try:
        assert browser.run("document.documentElement.scrollWidth") <= width
    finally:
        browser.resize(1240, 900)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_in_dark(
    browser: Browser, video: tuple[bytes, bytes], tmp_path: Path, scheme: str
) -> None:
    browser.prefer(color_scheme=scheme)
    browser.open(write(tmp_path, three(tmp_path), video, embed=True))

    # WCAG contrast of every text style against the page
    worst = browser.run(
        """(() => {
            const light = text => {
                const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
                    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const paper = light(getComputedStyle(document.body).backgroundColor);
            const ratio = node => {
                const ink = light(getComputedStyle(node).color);
                return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
            };
            const nodes = document.querySelectorAll('h1,h2,h3,p,td,th,dt,dd,summary,b');
            return Math.min(...[...nodes].map(ratio));
        })()"""
    )

    browser.prefer(color_scheme="light")
    assert worst >= 4.5


def test_without_javascript_every_video_has_its_controls(
    video: tuple[bytes, bytes], tmp_path: Path
) -> None:
    path = write(tmp_path, three(tmp_path), video, embed=True)
    html = path.read_text()

    # as delivered, before the script runs
    assert html.count("<video controls") == 2
    assert ".filters { display: none;" in html
