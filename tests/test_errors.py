"""What is safe to print: no control characters, no secrets."""

from __future__ import annotations

import pytest

from vidplat.errors import plain_place, printable


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@host/db",
        "https://host/a.mp4?X-Amz-Signature=hunter2&x=1",
        "https://host/a.mp4?sv=2024&sig=hunter2",
        "url='https://host/a.mp4?sig=hunter2'",
        "AWS_SECRET_ACCESS_KEY: hunter2",
        "token=hunter2",
    ],
)
def test_secrets_are_not_printed(text: str) -> None:
    assert "hunter2" not in printable(text)
    assert "***" in printable(text)


def test_words_that_only_look_like_it_are() -> None:
    text = "sigmas=0.5, sigma: 0.25, tokens of a video: 576"
    assert printable(text).startswith("sigmas=0.5, sigma: 0.25")


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("https://me:hunter2@host:80/a/b.csv?sig=hunter2#x", "https://host:80/a/b.csv"),
        ("s3://bucket/a b.csv?endpoint=http://host", "s3://bucket/a b.csv"),
        ("/data/a?b#c.csv", "/data/a?b#c.csv"),
        ("-", "-"),
        ("what is this://?", "what is this://?"),
        ("s3://", "s3://"),
    ],
)
def test_a_place_is_told_without_user_and_options(source: str, plain: str) -> None:
    assert plain_place(source) == plain
