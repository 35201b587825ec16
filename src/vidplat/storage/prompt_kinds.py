"""What a file is that is no list of prompts: told by its first bytes and lines, before any of it
would be rendered.

A list of prompts is read line by line, so anything at all could be taken for one: a page, a
program, a picture. `binary_kind` knows files that are not text; `syntax_of` knows text that is
written in some language. Prompts may hold any punctuation, also `a: b`, `# x`, `{a|b}`, `- x` and
`<lora:x:1>`, so a kind is told only by what its language would not do without, or by most lines of
several. Who means such lines as prompts says `--format txt`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise

from vidplat.storage.prompt_columns import is_header

_LINES = 200  # looked at
_TABLE = "save it as CSV UTF-8, and give that file"
_ROWS = "write its rows as parquet, CSV or JSON lines"
_FLAT = "give the file inside"
#: (how it begins, what it is, what to do)
_MAGIC = (
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", _TABLE),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"unpack it and {_FLAT}"),
    (b"Rar!", "a rar archive", f"unpack it and {_FLAT}"),
    (b"\x1f\x9d", "packed with compress", f"unpack it and {_FLAT}"),
    (b"ARROW1", "an Arrow (Feather) file", _ROWS),
    (b"PARE", "encrypted parquet", "write it without encryption"),
    (b"ORC", "an ORC file", _ROWS),
    (b"Obj\x01", "an Avro file", _ROWS),
    (b"\x93NUMPY", "a NumPy file", _ROWS),
    (b"\x89HDF", "an HDF5 file", _ROWS),
    (b"\x80\x04", "a pickle, which is never loaded", _ROWS),
    (b"\x80\x05", "a pickle, which is never loaded", _ROWS),
    (b"SQLite format 3\0", "an SQLite database", _ROWS),
)
#: The same of files that have letters only; the others above may begin a prompt, such as ORC.
_TEXT_MAGIC = (
    (b"%PDF-1", "a PDF", "copy its text into a .txt file, one prompt a line"),
    (b"{\\rtf", "rich text", "save it as plain text, one prompt a line"),
)
#: (what a zip of an office program holds, what it is, what to do)
_ZIPPED = (
    (b"xl/", "an Excel workbook", _TABLE),
    (b"opendocument.spreadsheet", "a spreadsheet", _TABLE),
    (b"word/", "a Word document", "save it as plain text, one prompt a line"),
    (b"opendocument", "an office document", "save it as plain text, one prompt a line"),
    (
        b"[Content_Types].xml",
        "an Office file",
        "save it as CSV UTF-8 or plain text, and give that file",
    ),
)
_MEDIA = "is a picture, video or sound: prompts are text"
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})


def binary_kind(head: bytes) -> str:
    """What a file is that begins so, and what to do; "" for text (and for parquet)."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        for sign, what, todo in _ZIPPED:
            if sign in head:
                return f"is {what}: {todo}"
        return f"is a zip archive: unpack it and {_FLAT}"
    for magic, what, todo in _TEXT_MAGIC if b"\0" not in head else _MAGIC + _TEXT_MAGIC:
        if head.startswith(magic):
            return f"is {what}: {todo}"
    if b"\0" in head:
        if head[257:262] == b"ustar":
            return f"is a tar archive: unpack it and {_FLAT}"
        if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1aE\xdf\xa3", b"RIFF")):
            return _MEDIA
        if head[4:8] == b"ftyp":
            return _MEDIA
    return _unmarked_wide_text(head) or (
        "is a binary file, not text" if _controls(head) > len(head) / 50 else ""
    )


def _controls(head: bytes) -> int:
    return len(head) - len(head.translate(None, _CONTROLS))


def _unmarked_wide_text(head: bytes) -> str:
    """UTF-16 and UTF-32 without a mark: every second byte, or three of four, are mostly NUL."""
    for width, name in ((4, "UTF-32"), (2, "UTF-16")):
        whole = len(head) // width * width
        if whole < 2 * width:
            continue
        share = [head[at:whole:width].count(0) * width / whole for at in range(width)]
        if min(share) < 0.1 and sum(each > 0.6 for each in share) == width - 1:
            return f"looks like {name} text without a byte order mark: save it as UTF-8"
    return ""


#: What a statement begins with, in languages that people keep in files.
_STATEMENT = (
    r"\s*(import [\w.]+( as \w+)?;?\s*$|from [\w.]+ import |(async )?def \w+\(|class \w+.*[:{]\s*$"
    r"|(export )?(default )?(async )?function\b.*\{|(const|let|var|val) \w+.*=|fn \w+\(|func \w+\("
    r"|(package|use) [\w.:]+;?\s*$|my [$@%]\w+|sub \w+ ?\{|#include\b|#define\b"
    r"|using [\w.]+;|namespace \w+.*\{|@@ -|diff --git "
    r"|(public|private|protected|static) .*\(.*\).*[{;]\s*$|\\(documentclass|usepackage|begin)[{\[]"
    r"|(?i:select .* from .*;|insert into \S+ .*(values|select)|drop table)"
    r"|(CREATE|ALTER|DROP) (OR REPLACE )?(TABLE|VIEW|INDEX|FUNCTION|TYPE|SCHEMA|EXTENSION)\b)"
)
#: What other lines of programs look like.
_CODE_LIKE = (
    r"(.*[;{]|\s*[}\])]+[;,:]?|\s*(def|class|if|for|while|else|elif|try|except|with)\b.*:"
    r"|\s+(return|raise|assert|yield)\b.*|\s*[A-Za-z_][\w.\[\]\"']* [+|-]?= \S.*|\s*[\w.]+\(.*)\s*$"
)
#: Headings, lists, quotes, links, emphasis.
_MARKDOWN = (r"#{1,6} \S", r"\s*([-*+]|\d+\.) \S", r"> ", r".*\[[^\]]+\]\([^)]+\)", r".*\*\*\w")


# --- text ----------------------------------------------------------------------------------------


def syntax_of(head: bytes) -> str:
    """What the text is written in, to be read on from the file's name; "" for plain lines."""
    text = head.decode("utf-8-sig", "replace")
    written = text.lstrip().splitlines()[: _LINES + 1]
    if len(written) > 2 and re.match(r"#{1,6} \S", written[0]) and not written[1].strip():
        return "looks like Markdown"
    lines = [line for line in written if line.strip()]
    if len(text) > 1 and not text.endswith(("\n", "\r")) and len(lines) > 1:
        lines.pop()  # may be cut
    lines = lines[:_LINES]
    if not lines:
        return ""
    return next((f"looks like {kind}" for kind, is_it in _KINDS.items() if is_it(lines)), "")


def is_json(lines: list[str]) -> bool:
    """Whether the lines begin with a JSON document: an object or array, whole or cut."""
    first = lines[0].strip()
    if first[:1] not in ("{", "["):
        return False
    try:
        return len(first) == json.JSONDecoder().raw_decode(first)[1]
    except RecursionError:
        return True
    except ValueError:
        begins = r'[\[{]+$|\{\s*"[^"]*"\s*:|\[\s*\{\s*"|\[\s*"[^"]*"\s*,\s*$'
        return re.match(begins, first) is not None


def _share(lines: list[str], pattern: str) -> float:
    """The share of lines that match; 0 unless there are two of them."""
    found = re.compile(pattern)
    matching = sum(found.match(line) is not None for line in lines)
    return matching / len(lines) if matching > 1 else 0.0


def _is_markup(lines: list[str]) -> bool:
    first = lines[0].lstrip()
    tags = r"<(\?xml|!doctype|!--|html|head|body|svg|rss|feed|div|p|table|ul|ol|h\d)\b"
    is_whole = first.rstrip().endswith(">") or len(first) > 1_000  # a page without lines
    return (re.match(tags, first, re.IGNORECASE) is not None and is_whole) or (
        first.startswith("<") and _share(lines, r"\s*</?[A-Za-z][^<>]*>(.*<[^<>]*>)?\s*$") >= 0.5
    )


def _is_yaml(lines: list[str]) -> bool:
    def goes_deeper(above: str, below: str) -> bool:
        """`key:` alone, and below it a list or a deeper line."""
        key = re.match(r"(\s*)(- )?[\w\"'.-]+:\s*[|>]?[+-]?\s*(#.*)?$", above)
        return key is not None and re.match(rf"{key[1]}(\s+\S|- )", below) is not None

    if lines[0].rstrip() in ("---", "%YAML 1.2", "%YAML 1.1"):
        return True
    if any(goes_deeper(*pair) for pair in pairwise(lines)):
        return True
    named = r"\s*(- )?(prompt|caption|model|width|height|seed|steps|fps|num_frames)\s*[:=]\s*\S"
    return _share(lines, named) >= 0.5


def _is_program(lines: list[str]) -> bool:
    if lines[0].startswith(("#!", "-----BEGIN ")):
        return True
    starts = _share(lines, _STATEMENT)
    shapes = _share(lines, _CODE_LIKE)
    closing = _share(lines, r"\s*[}\])]+[;,]?\s*$")
    begins = any(re.match(_STATEMENT, line) for line in lines)
    return (
        (starts >= 0.1 and starts + shapes >= 0.2)
        or (starts > 0 and shapes >= 0.2)
        or ((begins or closing >= 0.1) and shapes >= 0.3)
    )


def _is_settings(lines: list[str]) -> bool:
    pairs = _share(lines, r"\s*[A-Za-z_][\w.-]*\s*=\s*\S")
    sections = _share(lines, r"\s*\[[\w. \"-]+\]\s*$")
    return pairs >= 0.5 or (pairs > 0 and sections > 0 and pairs + sections >= 0.5)


def _is_markdown(lines: list[str]) -> bool:
    signs = [_share(lines, pattern) for pattern in _MARKDOWN]
    return (
        (len(lines) > 1 and re.fullmatch(r"[=-]{3,}\s*", lines[1]) is not None)
        or _share(lines, r"\s*(```|~~~)") > 0
        or _share(lines, r"\s*\|.*\|\s*$") >= 0.5
        or (
            lines[0].startswith("#")
            and sum(map(bool, signs)) > 1
            and sum(signs) >= 0.3
            and signs[0] > 0
        )
    )


def _is_places(lines: list[str]) -> bool:
    place = re.compile(
        r"""\s*["']?(([A-Za-z][\w+.-]*://|~?/|\.{1,2}/|[A-Za-z]:[\\/])\S+|(~?/|\.{1,2}/|[A-Za-z]:\\)"""
        r"""[^"']*\.\w{2,5}|\S+\.(mp4|mov|mkv|webm|avi|gif|png|jpe?g|webp|txt|csv|parquet|jsonl?|wav"""
        r"""|mp3|safetensors))["']?\s*$""",
        re.IGNORECASE,
    )
    return sum(place.match(line) is not None for line in lines) >= len(lines) / 2


def _is_table(lines: list[str]) -> bool:
    """Equal numbers of cells, with quotes around all, tabs between them, or a column of numbers."""
    if len(lines) < 2:
        return False
    for mark in ("\t", ",", ";", "|"):
        table = [line.strip().split(mark) for line in lines]
        if len(table[0]) < 2 or len({len(cells) for cells in table}) > 1:
            continue
        columns = zip(*table[1:], strict=True)
        if mark == "\t" or (len(lines) > 2 and any(map(_are_numbers, columns))):
            return True
    return _share(lines, r'\s*"[^"]*"(\s*[,;]\s*"[^"]*")+\s*$') == 1


def _are_numbers(cells: Iterable[str]) -> bool:
    return all(re.fullmatch(r'\s*"?[+-]?\d+(\.\d+)?(e[+-]?\d+)?"?\s*', cell) for cell in cells)


def _is_enumerated(lines: list[str]) -> bool:
    numbers = [re.match(r"\s*(\d+)[.):]\s", line) for line in lines]
    counted = [int(found[1]) for found in numbers if found]
    return _share(lines, r"\s*[-*+•] ") == 1 or (
        len(lines) > 1 and counted in ([*range(1, len(lines) + 1)], [*range(len(lines))])
    )


_KINDS: dict[str, Callable[[list[str]], bool]] = {
    "JSON (--format jsonl reads one object per line)": is_json,
    "CSV (--format csv reads it)": lambda lines: is_header(lines[0]),
    "HTML or XML": _is_markup,
    "source code": _is_program,
    "YAML": _is_yaml,
    "settings (INI or TOML)": _is_settings,
    "Markdown": _is_markdown,
    "a list of paths or URLs": _is_places,
    "subtitles": lambda lines: any(re.match(r"[\d:,. ]+ --> [\d:,. ]+", each) for each in lines),
    "a log": lambda lines: _share(lines, r"\W{0,2}\d{4}-\d\d-\d\d[T ]\d\d:\d\d") >= 0.5,
    "a table without a header (name its columns in a first line)": _is_table,
    "a list with bullets or numbers (take them off)": _is_enumerated,
}
