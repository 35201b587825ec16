"""Bad input: a file that cannot be used is told in one sentence, bad rows are told all at once by
number.
"""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.test_prompts import a_parquet, jsonl
from vidplat.domain import Prompt
from vidplat.errors import InputError, RequestError, UsageError
from vidplat.storage.prompts import RowProblem, read_prompts


def read(source: Path | str, **options: Any) -> list[Prompt | RowProblem]:
    return [
        row
        for batch in read_prompts(str(source), warn=lambda text: None, **options)
        for row in batch
    ]


def problems(rows: list[dict[str, Any]], tmp_path: Path) -> list[tuple[int, str, str]]:
    """(row, column, message) of each problem when the rows come as JSON lines."""
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl(rows))
    return [
        (found.row, found.column, found.message)
        for found in read(path)
        if isinstance(found, RowProblem)
    ]


# --- the whole file -------------------------------------------------------------------------------


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.parquet does not exist: check the path"):
        read(tmp_path / "missing.parquet")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "missing" / "deeper.csv")
    with pytest.raises(InputError, match=r"^~nobody-of-that-name/a\.csv cannot be read: "):
        read("~nobody-of-that-name/a.csv")


def test_a_folder_or_a_device_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder: name one file in it"):
        read(tmp_path)
    with pytest.raises(InputError, match="is a device"):
        read("/dev/zero")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.txt", "a"])
def test_an_empty_file_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="is empty: needed at least one row"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "prompt,id\n"), ("a.jsonl", "\n\n"), ("a.txt", "  \n")]
)
def test_a_file_without_rows_says_so(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="has no rows"):
        read(tmp_path / name)


def test_parquet_without_rows_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read(tmp_path / "a.parquet")


def test_something_else_named_parquet_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("prompt,id\nx,1\n")
    with pytest.raises(InputError, match="is not a parquet file: it begins with"):
        read(tmp_path / "a.parquet")


def test_parquet_cut_short_at_any_place_says_so(tmp_path: Path) -> None:
    whole = a_parquet(
        tmp_path / "whole.parquet", [{"prompt": f"number {n}", "seed": n} for n in range(500)]
    ).read_bytes()
    for length in range(4, len(whole), len(whole) // 40):
        (tmp_path / "cut.parquet").write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a whole parquet file"):
            read(tmp_path / "cut.parquet")


def test_parquet_with_any_byte_flipped_is_read_or_refused_but_never_crashes(tmp_path: Path) -> None:
    whole = a_parquet(
        tmp_path / "whole.parquet", [{"prompt": f"number {n}", "seed": n} for n in range(50)]
    ).read_bytes()
    for place in range(4, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 0x55
        (tmp_path / "flipped.parquet").write_bytes(flipped)
        try:
            read(tmp_path / "flipped.parquet")
        except InputError as error:
            assert "\n" not in str(error)


def test_a_missing_prompt_column_lists_the_columns_and_the_nearest(tmp_path: Path) -> None:
    path = a_parquet(tmp_path / "a.parquet", [{"promt": "x", "width": 64, "\x1b[2J": 1}])
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path} has no prompt column: needed one of prompt, caption, text, prompt_en; "
        "found promt, width, \\x1b[2J; rename 'promt' if it is meant"
    )


@pytest.mark.parametrize("name", ["caption", "Prompt", "prompt_en"])
def test_a_prompt_column_that_was_to_be_ignored_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{name},seed\nx,1\n")
    with pytest.raises(InputError, match=f"; --ignore-columns leaves out '{name}'$"):
        read(path, ignore_columns=[name])


@pytest.mark.parametrize("content", ["width,height\n64,64\n", '{"width": 64}\n'])
def test_a_missing_prompt_column_is_found_in_text_formats_too(tmp_path: Path, content: str) -> None:
    path = tmp_path / ("a.csv" if content[0] == "w" else "a.jsonl")
    path.write_text(content)
    with pytest.raises(InputError, match="has no prompt column"):
        read(path)


@pytest.mark.parametrize(
    ("column", "needed"),
    [
        ({"prompt": [1, 2]}, "must hold text, found int64"),
        ({"prompt": [["a"], ["b"]]}, "must hold text, found list"),
        ({"prompt": ["a", "b"], "width": [True, False]}, "must hold numbers, found bool"),
        ({"prompt": ["a", "b"], "seed": [{"x": 1}, None]}, "must hold numbers, found struct"),
        ({"prompt": ["a", "b"], "id": [True, False]}, "must hold text or numbers, found bool"),
        ({"prompt": ["a", "b"], "fps": [timedelta(1), None]}, "must hold numbers, found duration"),
        ({"prompt": ["a", "b"], "deadline": [[1], [2]]}, "must hold text or times, found list"),
    ],
)
def test_a_column_of_the_wrong_type_is_told_before_any_row(
    tmp_path: Path, column: dict[str, Any], needed: str
) -> None:
    pq.write_table(pa.table(column), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=needed):
        read(tmp_path / "a.parquet")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,prompt\na,b\n")
    with pytest.raises(InputError, match="two columns named 'prompt'"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_text_that_is_not_utf8_names_the_byte_and_the_line(tmp_path: Path, name: str) -> None:
    first = b"prompt" if name == "a.csv" else b"a prompt"
    (tmp_path / name).write_bytes(first + b"\nprompt \xff\n")
    with pytest.raises(
        InputError, match="is not UTF-8 text: byte 0xff in line 2; save it as UTF-8"
    ):
        read(tmp_path / name)


def test_a_json_array_is_told_how_to_become_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps([{"prompt": "x"}]))
    with pytest.raises(InputError, match="one JSON array: write one object per line"):
        read(tmp_path / "a.jsonl")


def test_a_csv_with_an_open_quote_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt\nx\n"never closed\n')
    with pytest.raises(InputError, match=r"not whole CSV: .* after row 1"):
        read(tmp_path / "a.csv")


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.write(b"one\n" + b"x" * (64 << 10))
        file.truncate(100 << 20)  # then NUL bytes, sparse
    with pytest.raises(InputError, match="line 2 is longer than 32 MiB"):
        read(tmp_path / "a.txt")


def test_json_over_several_lines_is_told_how_to_become_lines(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a"):
        (tmp_path / name).write_text(json.dumps({"prompt": "x"}, indent=2))
        with pytest.raises(InputError, match="JSON over several lines: write each object in one"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3:/bucket/a.csv", r"too few slashes: write s3://\.\.\., or \./ before a path"),
        ("S3:bucket/a.csv", r"too few slashes: write s3://"),
        ("https:/host/a.csv", r"too few slashes: write https://"),
        ("file:/data/a.csv", r"too few slashes: write file:///"),
        ("file://host/a.csv", "names a host; a file URL has three slashes"),
        ("file:///data/a.csv?x=1", r"holds a \? or #: write %3F or %23"),
    ],
)
def test_urls_that_lead_nowhere_say_why(source: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(source)


def test_unknown_formats_and_urls_are_refused() -> None:
    with pytest.raises(UsageError, match="choose one of parquet, csv, jsonl, txt"):
        read("a.parquet", format="xml")
    with pytest.raises(InputError, match="cannot be read"):
        read("gopher://host/a.parquet")
    with pytest.raises(InputError, match="no stdin"):
        read("-")


# --- single rows ----------------------------------------------------------------------------------


def test_every_problem_of_a_file_is_told_with_its_row_and_column(tmp_path: Path) -> None:
    found = problems(
        [
            {"prompt": "fine", "steps": 24},
            {"prompt": "", "steps": 0},
            {"prompt": "fine", "fps": -1, "width": 1.5},
            {"prompt": None},
            {"prompt": 7},
        ],
        tmp_path,
    )
    assert found == [
        (2, "prompt", "is empty"),
        (2, "steps", "must be from 1 to 10,000, found 0"),
        (3, "fps", "must be from 1 to 1,000, found -1"),
        (3, "width", "must be a whole number, found 1.5: round it to 2"),
        (4, "prompt", "is empty"),
        (5, "prompt", "must be text, found a number"),
    ]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"prompt": " \t\n"}, "is empty"),
        ({"prompt": "x" * 10_000_000}, "is longer than 16 KiB (10,000,000 characters)"),
        ({"prompt": "é" * 8193}, "is longer than 16 KiB (16,386 bytes)"),
        ({"prompt": "a\0b"}, "holds a NUL character"),
        ({"prompt": "\ud800"}, "holds bytes that are not text (a lone surrogate, or broken UTF-8)"),
        ({"prompt": ["x"]}, "must be text, found a list"),
        ({"id": "a\0b"}, "holds a control character: 'a\\x00b'"),
        ({"id": "a\nb"}, "holds a control character: 'a\\nb'"),
        ({"id": "x" * 10_000}, "has 10,000 characters, at most 512 are allowed"),
        ({"id": "\udfff"}, "holds bytes that are not text (a lone surrogate, or broken UTF-8)"),
        ({"id": {"a": 1}}, "must be text, found an object"),
        ({"num_frames": 0}, "must be from 1 to 100,000, found 0"),
        ({"num_frames": -33}, "must be from 1 to 100,000, found -33"),
        ({"num_frames": float("inf")}, "must be a whole number, found inf"),
        ({"fps": "29.97"}, "must be a whole number, found 29.97: round it to 30"),
        ({"num_frames": "many"}, "must be a whole number, found 'many'"),
        ({"num_frames": True}, "must be a whole number, found True"),
        ({"num_frames": 10**400}, "must be from 1 to 100,000, found 1" + "0" * 38 + "…"),
        ({"guidance_scale": -1}, "must be at least 0 and at most 1,000, found -1"),
        ({"guidance_scale": "\x1b[31m"}, "must be a number, found '\\x1b[31m'"),
        ({"seconds": 0}, "must be above 0 and at most 86,400, found 0"),
        ({"seed": -1}, "must be from 0 to 9,223,372,036,854,775,807, found -1"),
        ({"seed": 2**63}, "must be from 0 to 9,223,372,036,854,775,807, found 9223372036854775808"),
        ({"size": "big"}, "must look like 832x480, found 'big'"),
        ({"size": "0x64"}, "must have sides from 1 to 16,384, found '0x64'"),
        ({"image": "a.png"}, "is not supported yet by this version: leave it empty"),
        ({"input_reference": {"url": "x"}}, "is not supported yet by this version: leave it empty"),
        ({"input_video": 7}, "must be text, found a number"),
        ({"video": "a\x07b"}, "holds a control character"),
        ({"source_video": "x" * 4097}, "has 4,097 characters, at most 4,096 are allowed"),
        ({"strength": 0, "input_video": "a.mp4"}, "must be above 0 and at most 1, found 0"),
        ({"strength": 1.5, "input_video": "a.mp4"}, "must be above 0 and at most 1, found 1.5"),
        (
            {"strength": 0.5},
            "is how much of an input video is changed, and this row has none: add input_video, "
            "or leave it empty",
        ),
        ({"model": "a\x07b"}, "holds a control character: 'a\\x07b'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_cell_says_what_is_wrong_with_it(
    tmp_path: Path, cell: dict[str, Any], message: str
) -> None:
    assert problems([{"prompt": "fine"} | cell], tmp_path) == [(1, next(iter(cell)), message)]


def test_empty_cells_are_absent_not_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "prompt,id,seed,width,size,image,deadline,guidance_scale\nx,,,,,,,\n"
    )
    assert read(tmp_path / "a.csv") == [Prompt(1, "x")]


def test_sizes_and_lengths_given_twice_must_agree(tmp_path: Path) -> None:
    assert problems([{"prompt": "x", "size": "64x64", "width": 64}], tmp_path) == []
    assert problems(
        [
            {"prompt": "x", "size": "64x64", "height": 32},
            {"prompt": "x", "seconds": 2, "num_frames": 33},
        ],
        tmp_path,
    ) == [
        (1, "size", "says 64x64, but width and height say otherwise: give one of them"),
        (2, "seconds", "and num_frames are both given: give one of them"),
    ]


def test_duplicate_ids_name_both_rows_however_far_apart(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "id": f"clip-{n}"} for n in range(25_000)]
    rows[3]["id"] = rows[24_998]["id"] = rows[24_999]["id"] = "same"
    assert problems(rows, tmp_path) == [
        (24_999, "id", "is the same as in row 4: ids must be unique"),
        (25_000, "id", "is the same as in row 4: ids must be unique"),
    ]


def test_rows_without_an_id_are_not_duplicates(tmp_path: Path) -> None:
    assert (
        problems(
            [{"prompt": "x", "id": ""}, {"prompt": "x", "id": None}, {"prompt": "x"}], tmp_path
        )
        == []
    )


def test_lines_that_are_not_objects_are_rows_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"prompt": "x"}\n{"prompt": \n[1]\n' + "[" * 100_000 + '\n{"prompt": "y"}\n{"prompt": "cut'
    )
    found = read(path)
    assert [row.row for row in found] == [1, 2, 3, 4, 5, 6]
    assert [isinstance(row, Prompt) for row in found] == [True, False, False, False, True, False]
    assert "is not a JSON object" in found[1].message  # type: ignore[union-attr]
    assert found[5].message.endswith("(the file may be truncated)")  # type: ignore[union-attr]


def test_csv_records_of_the_wrong_length_are_rows_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,id\nx,1\nx, y,2\n\nz,3\nw\n")
    assert read(tmp_path / "a.csv") == [
        Prompt(1, "x", external_id="1"),
        RowProblem(2, "", "has 3 cells, the header has 2"),
        Prompt(3, "z", external_id="3"),
        RowProblem(4, "", "has 1 cell, the header has 2"),
    ]


def test_broken_utf8_inside_parquet_is_told_by_row(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(2, *pa.array([b"fine", b"\xffbad"]).buffers()[1:])
    pq.write_table(pa.table({"prompt": broken}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        Prompt(1, "fine"),
        RowProblem(
            2, "prompt", "holds bytes that are not text (a lone surrogate, or broken UTF-8)"
        ),
    ]


# --- anything -------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from([None, "parquet", "csv", "jsonl", "txt"]))
def test_any_bytes_are_read_or_refused_in_one_sentence(content: bytes, format: str | None) -> None:
    try:
        read("-", stdin=io.BytesIO(content), format=format)
    except RequestError as error:
        assert str(error).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "prompt",
                "id",
                "size",
                "seed",
                "fps",
                "seconds",
                "deadline",
                "image",
                "input_video",
                "strength",
            ]
        ),
        json_values,
    )
)
def test_any_json_row_becomes_a_prompt_or_problems_that_can_be_printed(row: dict[str, Any]) -> None:
    found = read("-", stdin=io.BytesIO(jsonl([{"prompt": "x"}, row]).encode()), format="jsonl")
    assert {one.row for one in found} == {1, 2}
    for one in found:
        if isinstance(one, RowProblem):
            assert one.message.isprintable()
