"""No secret that a person gives anywhere is printed, logged or kept: wherever a password, token or
signed URL can stand, a canary stands, and all that was written and printed is searched for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web_twin import Answers, served
from vidplat.cli.app import main

CANARY = "c4n4ryK3y"
#: As people write passwords: with what should have been percent-encoded.
PASSWORDS = [
    CANARY,
    *(f"{CANARY}{c}q" for c in "@/:#?% &+"),
    *(f"Zq{c}{CANARY}" for c in "@/:#?% "),
]
SIGNED = [
    f"X-Amz-Credential=AKIA&X-Amz-Signature={CANARY}",
    f"sv=2024&sig={CANARY}",
    f"code={CANARY}",
    CANARY,
]
CATALOGS = [
    *(f"postgresql://u:{password}@127.0.0.1:1/v" for password in PASSWORDS),
    f"postgresql://127.0.0.1:1/v?user=u&password={CANARY}",
    f"postgresql://u@127.0.0.1:1/v?sslpassword={CANARY}&sslmod=x",
    f"postgresql:/u:{CANARY}@127.0.0.1:1/v",
    f"mysql://u:{CANARY}@127.0.0.1:1/v",
    f"host=127.0.0.1 password={CANARY}",
    f"u:{CANARY}@127.0.0.1/v",
    f"sqlite://u:{CANARY}@host/v",
]
PLACES = [
    *(f"s3://u:{password}@bucket/a" for password in PASSWORDS),
    *(f"s3://bucket/a?{options}" for options in SIGNED),
    f"s3://bucket/a?endpoint=http://u:{CANARY}@127.0.0.1:9",
    f"s3://bucket/a?endpoint=http://127.0.0.1:9/?token={CANARY}",
    f"https://u:{CANARY}@127.0.0.1:9/a",
    f"ftp://u:{CANARY}@127.0.0.1:9/a",
]
SOURCES = [
    *(f"http://u:{password}@127.0.0.1:9/a.csv" for password in PASSWORDS),
    *(f"http://127.0.0.1:9/a.csv?{options}" for options in SIGNED),
    f"http://{CANARY}@127.0.0.1:9/a.csv",
    *PLACES[-6:],
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VIDPLAT_CATALOG", "VIDPLAT_OUTPUT", "VIDPLAT_MODEL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv(
        "AWS_SECRET_ACCESS_KEY", "an0ther-k3y"
    )  # not the canary: it is masked by value
    monkeypatch.setattr("vidplat.storage.s3._READING_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / ".vidplat").mkdir()
    (tmp_path / "one.txt").write_text("a red circle\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """All that a command that fails prints, and all that it leaves in files."""
    code = main(arguments)
    shown = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in Path().rglob("*") if path.is_file())
    assert code != 0 and "error" in shown.out + shown.err
    assert "did not expect" not in shown.out + shown.err
    return shown.out + shown.err + written.decode("utf-8", "replace")


def test_catalogs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    leaks = [url for url in CATALOGS if CANARY in told(capsys, "ls", "--catalog", url)]
    monkeypatch.setenv("VIDPLAT_CATALOG", CATALOGS[0])
    fake = ["--model", "fake", "--local"]
    for verb in (["status", "--json"], ["retry"], ["--debug", "submit", "one.txt", *fake]):
        leaks += [str(verb)] if CANARY in told(capsys, *verb) else []
    assert leaks == []


def test_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    verb = ("plan", "one.txt", "--model", "fake", "--output")
    assert [url for url in PLACES if CANARY in told(capsys, *verb, url)] == []


def test_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert [url for url in SOURCES if CANARY in told(capsys, "plan", url, "--json")] == []


def test_models_and_clusters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"https://me:{CANARY}@huggingface.co/owner/name"
    assert CANARY not in told(capsys, "plan", "one.txt", "--model", model)
    for address in (f"ray://u:{CANARY}@127.0.0.1:9", f"u:{CANARY}@127.0.0.1:9"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert CANARY not in told(capsys, "submit", "one.txt", "--model", "fake")


@pytest.mark.parametrize(
    "text",
    [
        f'catalog = ["postgresql://u:{CANARY}@host/v"]',
        f'catalog = "postgresql://u:{CANARY}@127.0.0.1:1/v"',
        f'catalog = "postgresql://u:{CANARY}@host/v',
        f'password = "{CANARY}"',
        f'[ray]\nadress = "ray://u:{CANARY}@host"',
        f'[run]\nlocal = "https://{CANARY}@host"',
    ],
)
def test_settings_in_the_file(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("vidplat.toml").write_text(text)
    assert main(["ls"]) != 0
    shown = capsys.readouterr()
    assert CANARY not in shown.out + shown.err


def test_what_libraries_repeat_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, serving: str
) -> None:
    monkeypatch.setenv("PGPASSWORD", CANARY)
    assert CANARY not in told(capsys, "ls", "--catalog", "postgresql://u@127.0.0.1:1/v")
    for variable in ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(variable, f"{CANARY}\n")  # pasted with its line end
        source = f"s3://bucket/a.csv?endpoint=http://{serving}"
        assert CANARY not in told(capsys, "plan", source, "--debug")


def test_the_videos_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    places = [place for place in (*PLACES, *SOURCES) if "127.0.0.1:9/?" not in place]
    rows = [{"prompt": f"{n}", "input_video": place} for n, place in enumerate(places)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = main(["plan", "rows.jsonl", "--model", "fake", "--json"])
    refused = capsys.readouterr().out
    assert code == 2 and CANARY not in refused
    assert len(json.loads(refused)["error"]["problems"]) == len(rows)


class _Prompts(Answers):
    def answer(self) -> tuple[int, bytes]:
        return 200, b"a red circle\na blue square\n"


@pytest.fixture(scope="module")
def serving() -> Iterator[str]:
    with served(_Prompts) as host:
        yield host


def test_a_batch_from_a_signed_url_remembers_the_place_alone(
    capsys: pytest.CaptureFixture[str], serving: str, elsewhere: Path
) -> None:
    source = f"http://u:{CANARY}@{serving}/a.txt?X-Amz-Signature={CANARY}#{CANARY}"
    assert main(["submit", source, "--model", "fake", "--local"]) == 0
    for verb in (["status"], ["ls", "--json"], ["logs", "--json"], ["status", "--json"]):
        assert main(verb) == 0
    for what in ("manifest", "metrics"):
        assert main(["export", f"{what}.jsonl", "--what", what]) == 0

    shown = capsys.readouterr()
    files = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert f"http://{serving}/a.txt" in shown.out
    assert CANARY not in shown.out + shown.err
    assert [path.name for path, data in files.items() if CANARY.encode() in data] == []
    assert {".db", ".json", ".html", ".parquet"} <= {path.suffix for path in files}
