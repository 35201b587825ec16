"""What is safe to print: no control characters, no secrets."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidplat
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
        "host=h password=Zq;hunter2 user=u",
        # characters that should have been percent-encoded, and were not
        "postgresql://u:Zq@hunter2@127.0.0.1:1/db",
        "postgresql://u:Zq/hunter2@host/db",
        "postgresql://u:Zq:hunter2@host/db",
        "postgresql://u:hunter2#7@host/db",
        "ray://u:Zq?hunter2@host:10001",
        "cannot open 'postgresql://u:my hunter2@host/db' now",
        "postgresql:/u:hunter2@host/db",  # a slash is missing
        "u:hunter2@host",  # a scheme is missing
        # names that are secrets, and options whose names do not tell
        "https://hunter2@host/a.csv",
        "https://host/a.csv?code=hunter2",
        "https://host/a.csv?hunter2",
        "s3://bucket/a?endpoint=http://u:hunter2@host:9000",
        # as Python, JSON and HTTP write them
        "{'password': 'hunter2 and more'}",
        '{"AccessKey": "hunter2"}',
        "Authorization: Bearer hunter2",
        "x-amz-security-token: hunter2",
    ],
)
def test_secrets_are_not_printed(text: str) -> None:
    assert "hunter2" not in printable(text)
    assert "***" in printable(text)


def test_words_that_only_look_like_it_are() -> None:
    text = "sigmas=0.5, sigma: 0.25, tokens of a video: 576"
    assert printable(text).startswith("sigmas=0.5, sigma: 0.25")


def test_what_the_environment_keeps_secret_is_masked_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEBYa\nhunter2hunter2\n")
    said = printable("Invalid header value b'FwoGZXIvYXdzEBYa\\nhunter2hunter2\\n'")

    assert "FwoG" not in said and "hunter2" not in said


def test_a_password_that_is_a_word_leaves_sentences_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("PGPASSWORD", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(variable, "vidplat")
    assert printable("go on with `vidplat resume b1`") == "go on with `vidplat resume b1`"


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/c.csv?endpoint=http://127.0.0.1:9000&region=eu",
        "http://127.0.0.1:8000/a.csv",
        "postgresql://me@host/db",
        "sqlite:////home/a@b/c:d/x.db",
    ],
)
def test_an_address_without_a_secret_is_told_whole(text: str) -> None:
    assert printable(text) == text


def test_no_sentence_of_ours_is_taken_for_a_secret() -> None:
    eaten = [text for text in sentences() if printable(text, 10_000) != printed(text)]

    assert eaten == []


def printed(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def sentences() -> Iterator[str]:
    """Texts of the package that may be printed, with an x where a value is put in."""
    for path in Path(vidplat.__file__).parent.rglob("*.py"):
        if path.name == "errors.py":  # whose patterns are made of what they find
            continue
        tree = ast.parse(path.read_text("utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(getattr(part, "value", "x"))
                    for part in node.values
                    if isinstance(part, ast.Constant)
                )
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in prose
            ):
                yield node.value


def test_a_long_text_is_made_printable_at_once() -> None:
    began = time.process_time()
    for text in ("a" * 10**6, "@" + "a:" * 10**6, "x://" * 10**6 + "?@:", "token" * 10**6 + "="):
        assert len(printable(text)) == 200
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("https://me:hunter2@host:80/a/b.csv?sig=hunter2#x", "https://host:80/a/b.csv"),
        ("s3://bucket/a b.csv?endpoint=http://host", "s3://bucket/a b.csv"),
        ("/data/a?b#c.csv", "/data/a?b#c.csv"),
        ("-", "-"),
        ("what is this://?", "what is this://?"),
        ("s3://", "s3://"),
        ("https://me:hun/ter2@host/a.csv", "https://host/a.csv"),
        ("https://me:hun?ter#2@host/a.csv?x", "https://host/a.csv"),
        ("https://host/a.csv?mail=a:b@c", "https://host/a.csv"),
        ("https://127.0.0.1:80/a@b.csv", "https://127.0.0.1:80/a@b.csv"),
    ],
)
def test_a_place_is_told_without_user_and_options(source: str, plain: str) -> None:
    assert plain_place(source) == plain
