"""What is no list of prompts is refused with what it is and a way out; prompts hold anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from tests.storage.test_prompts import read
from vidplat.domain import Prompt
from vidplat.errors import InputError

_PLAIN = ["a red circle", "two dogs run", "a market at dawn", "rain on a lake", "a lighthouse"]


def an_archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "a red circle\n")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (an_archive("[Content_Types].xml", "xl/workbook.xml"), "Excel workbook: save it as CSV"),
        (an_archive("word/document.xml"), "Word document: save it as plain text"),
        (an_archive("[Content_Types].xml", "x"), "an Office file: save it as CSV UTF-8 or plain"),
        (an_archive("prompts.txt"), "a zip archive: unpack it and give the file inside"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Excel or Word file"),
        (b"prompts.txt" + bytes(246) + b"ustar\x0000" + bytes(247), "a tar archive"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a picture, video or sound"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "is a picture, video or sound"),
        (b"SQLite format 3\0\x10\0\1\1", "an SQLite database: write its rows as parquet"),
        (b"ARROW1\0\0\xff\xff\xff\xff", "an Arrow (Feather) file: write its rows as parquet"),
        (b"\x80\x04\x95\x10\0\0\0", "a pickle, which is never loaded"),
        (b"\x7fELF\2\1\1\0" + bytes(99), "is a binary file"),
        ("a red circle\n".encode("utf-16-le"), "UTF-16 text without a byte order mark: save it"),
        ("a red circle\n".encode("utf-32-be"), "UTF-32 text without a byte order mark: save it"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["prompts.txt", "prompts.csv", "prompts"])
def test_a_file_that_is_not_text_is_named(
    tmp_path: Path, content: bytes, said: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)


SYNTAX = {
    "HTML or XML": (
        "<!DOCTYPE html>\n<html><body>\n<p>a red circle</p>\n</body></html>\n",
        '<?xml version="1.0"?>\n<prompts>\n  <prompt>a red circle</prompt>\n</prompts>\n',
        "<html><body>a red circle</body></html>",
    ),
    "JSON": (
        '{"prompt": "a red circle"}\n{"prompt": "a blue square"}\n',
        '["a red circle", "a blue square"]\n',
        '[\n  "a red circle",\n  "a blue square"\n]\n',
        '{\n  "prompts": ["a red circle"]\n}\n',
    ),
    "CSV": ("prompt,seed\na red circle,1\n", "id;caption\n1;a red circle\n", "prompt\nx\n"),
    "YAML": (
        "prompts:\n  - a red circle\n  - a blue square\n",
        "---\n- a red circle\n",
        "model: flipbook\nprompt: a red circle\nseed: 4\n",
    ),
    "source code": (
        "import sys\nfrom pathlib import Path\n\n\ndef main():\n    print(sys.argv)\n",
        "#!/bin/sh\necho a red circle\n",
        "#include <stdio.h>\nint main(void) {\n  return 0;\n}\n",
        "function draw(x) {\n  return x;\n}\nconst y = draw(1);\n",
        "body {\n  color: red;\n}\np {\n  margin: 0;\n}\n",
    ),
    "settings": ("[run]\nwindow = 5\n[inputs]\nmax_seconds = 3\n", "WIDTH=64\nHEIGHT=64\n"),
    "Markdown": (
        "# Prompts\n\nThese are ours.\n",
        "# Prompts\n- a red circle\n- a blue square\n## More\n",
        "| prompt | note |\n| --- | --- |\n| a red circle | x |\n",
    ),
    "a list of paths": (
        "/data/a.mp4\n/data/b c.mp4\n",
        "s3://bucket/a.txt\nhttps://host/b\n",
        "a.png\nb.png\n",
    ),
    "a table": ("1\ta red circle\n2\ta blue square\n", "1,a red circle\n2,two dogs\n3,rain\n"),
    "a list with bullets": ("- a red circle\n- a blue square\n", "1. a circle\n2. a square\n"),
    "a log": ("2026-12-01 10:00:01 started\n2026-12-01 10:00:02 ended\n",),
    "subtitles": ("1\n00:00:01,000 --> 00:00:02,000\na red circle\n",),
}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in SYNTAX.items() for text in texts]
)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_syntax_is_never_taken_for_prompts(tmp_path: Path, kind: str, text: str, ends: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(text.replace("\n", ends).encode())
    with pytest.raises(InputError, match=rf"looks like {kind}.*--format txt takes every line"):
        read(path)
    lines = [line for line in text.split("\n") if line.strip()]
    assert [row.text for row in read(path, format="txt") if isinstance(row, Prompt)] == lines


@pytest.mark.parametrize("name", ["app.py", "prompts.yaml", "notes.md", "page.html", "a.rs", "x.R"])
def test_a_name_that_ends_in_something_else_is_refused_whatever_the_lines(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("a red circle\n")
    with pytest.raises(InputError, match=r"is a \.\w+ file, not a list of prompts: needed parquet"):
        read(tmp_path / name)
    assert read(tmp_path / name, format="txt") == [Prompt(1, "a red circle")]


@pytest.mark.parametrize("name", ["prompts", "a.TXT", "v1.5", "my.prompts", "2026.12.01", "a.list"])
def test_other_names_are_lists_of_prompts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a red circle\n")
    assert read(tmp_path / name) == [Prompt(1, "a red circle")]


@pytest.mark.parametrize(
    "odd",
    [
        "# a hashtag on a wall", "- a dash", "> a quote", "a cat: close-up", "Scene: dawn",
        "(masterpiece:1.2), best quality", "<lora:film:0.8> a girl", "<sks> dog", "[wide] a cat",
        "{red|blue} car", "import of goods at a harbour", "from above, a city", "for Elise: x",
        "public park at night;", "select a flower from the garden", "E = mc^2 in the sand",
        '"quoted"', '"a", said the fox, "b"', "/imagine prompt a castle", "50/50 split screen",
        "1. a number", "12:30 on a clock", "a, b, c", "left | right", "a\ttab", "ORC warrior",
        "BZh is not packed", "%PDF-like paper", "PK fire", "~ waves ~", "**bold** strokes",
        '{"a": 1} on a wall', '["x"] marks the spot', "<html> in neon", "a --> b",
        "http://x.com on a bus", "file.txt on a desk", "a robot {", "}", "ends in a colon:",
        "\tindented", "漢字の雨", "🐈 🌧", "NaN", "null island",
    ],
)  # fmt: skip
def test_prompts_may_hold_any_punctuation(tmp_path: Path, odd: str) -> None:
    for lines in ([odd], [odd, *_PLAIN], [*_PLAIN, odd]):
        (tmp_path / "a.txt").write_text("".join(f"{line}\n" for line in lines))
        found = read(tmp_path / "a.txt")
        assert [row.text for row in found if isinstance(row, Prompt)] == lines


@pytest.mark.parametrize(
    "around",
    [
        "Scene: {}", "(({}))", "<lora:x:0.8> {}", "<sks> {}", "[{}]", "{{{}}}", '"{}"', "{};",
        "# {}", "> {}", "{} | film grain", "{}, 4k, 8k", "{} --ar 16:9", "**{}**", "{}:",
        "timelapse: {}; camera: static", "static shot of {};", "({})", "1girl, {}, solo", "$ {}",
    ],
)  # fmt: skip
def test_all_prompts_of_a_list_may_have_the_same_punctuation(tmp_path: Path, around: str) -> None:
    lines = [around.format(text) for text in _PLAIN]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert [row.text for row in read(tmp_path / "a.txt") if isinstance(row, Prompt)] == lines
