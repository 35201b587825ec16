"""A prompt file at a URL: what is not there is told from what cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web_twin import Answers, served
from vidplat.errors import InputError, StoreError
from vidplat.storage import read_prompts


class Handler(Answers):
    """Answers with the status that the path begins with."""

    def answer(self) -> tuple[int, bytes]:
        status = int(self.path[1:4])
        return status, b"a red circle\n" if status == 200 else b""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Handler) as host:
        yield host


def test_a_prompt_file_is_read_from_a_url(address: str) -> None:
    (page,) = read_prompts(f"http://me:hunter2@{address}/200/a.txt?sig=hunter2", warn=print)
    assert [prompt.text for prompt in page] == ["a red circle"]


@pytest.mark.parametrize(
    ("url", "kind", "words", "retry_can_help"),
    [
        ("http://127.0.0.1:9/a.csv", StoreError, "cannot be reached", True),
        ("https://127.0.0.1:9/a.csv", StoreError, "cannot be reached", True),
        ("http://no-such-host.invalid/a.csv", StoreError, "cannot be reached", True),
        ("ftp://127.0.0.1:9/a.csv", StoreError, "cannot be reached", True),
        ("https://ADDRESS/200/a.csv", StoreError, "check http or https", False),
        ("http://ADDRESS/503/a.csv", StoreError, "the server answered 503", True),
        ("http://ADDRESS/418/a.csv", StoreError, "the server answered 418", False),
        ("http://ADDRESS/404/a.csv", InputError, "does not exist", False),
        ("http://ADDRESS/403/a.csv?sig=hunter2", InputError, "has run out", False),
        ("http:///a.csv", InputError, "names no host", False),
        ("https://[b/a.csv", InputError, "Invalid IPv6 URL", False),
        ("nowhere://host/a.csv", InputError, "Protocol not known", False),
    ],
)
def test_what_went_wrong_is_said_as_it_was(
    address: str, url: str, kind: type[StoreError], words: str, retry_can_help: bool
) -> None:
    with pytest.raises(kind) as caught:
        list(read_prompts(url.replace("ADDRESS", address), warn=print))
    assert words in str(caught.value) and "hunter2" not in str(caught.value)
    assert caught.value.retry_can_help == retry_can_help
