"""Prompt files of every format become the same Prompts."""

from __future__ import annotations

import io
import json
import os
import threading
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.servers_s3 import S3Server
from vidplat.domain import Prompt
from vidplat.errors import InputError
from vidplat.storage.prompts import RowProblem, read_prompts

ROWS: list[dict[str, Any]] = [
    {
        "prompt": "a red circle",
        "id": "one",
        "seed": 7,
        "width": 64,
        "height": 32,
        "num_frames": 33,
        "fps": 16,
    },
    {
        "prompt": "ein roter Kreis, 红色的圆 🎈",
        "id": "two",
        "steps": 12,
        "guidance_scale": 4.5,
        "priority": 3,
    },
    {
        "prompt": "a cut",
        "seconds": 2.5,
        "negative_prompt": "blurry",
        "deadline": "60s",
        "model": "m",
        "method": "x",
    },
]
PROMPTS = [
    Prompt(
        1,
        "a red circle",
        external_id="one",
        overrides={"seed": 7, "width": 64, "height": 32, "num_frames": 33, "fps": 16},
    ),
    Prompt(
        2,
        "ein roter Kreis, 红色的圆 🎈",
        external_id="two",
        overrides={"num_inference_steps": 12, "guidance_scale": 4.5},
        priority=3,
    ),
    Prompt(3, "a cut", "blurry", overrides={"seconds": 2.5}, deadline="60s", model="m", method="x"),
]
COLUMNS = list(dict.fromkeys(name for row in ROWS for name in row))


def read(source: Path | str, **options: Any) -> list[Prompt | RowProblem]:
    warn = options.pop("warn", lambda text: pytest.fail(f"unexpected warning: {text}"))
    return [row for batch in read_prompts(str(source), warn=warn, **options) for row in batch]


def a_table(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def a_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(a_table(rows), path)
    return path


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows: list[dict[str, Any]], mark: str = ",") -> str:
    cells = [[str(row.get(name, "")) for name in COLUMNS] for row in rows]
    return (
        "\n".join(
            mark.join(f'"{cell}"' if mark in cell else cell for cell in line)
            for line in [COLUMNS, *cells]
        )
        + "\n"
    )


def test_parquet_csv_and_jsonl_of_the_same_rows_are_the_same_prompts(tmp_path: Path) -> None:
    files = {
        "a.parquet": None,
        "a.csv": as_csv(ROWS),
        "a.tsv": as_csv(ROWS, "\t"),
        "semicolons.csv": as_csv(ROWS, ";"),
        "a.jsonl": jsonl(ROWS),
    }
    for name, text in files.items():
        path = tmp_path / name
        a_parquet(path, ROWS) if text is None else path.write_text(text, encoding="utf-8")
        assert read(path) == PROMPTS, name


def test_without_a_telling_name_the_content_tells_the_format(tmp_path: Path) -> None:
    nameless = tmp_path / "nameless"
    for content in (
        a_parquet(tmp_path / "x", ROWS).read_bytes(),
        as_csv(ROWS).encode(),
        jsonl(ROWS).encode(),
    ):
        nameless.write_bytes(content)
        assert read(nameless) == PROMPTS


def test_text_is_one_prompt_a_line_and_rows_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa red circle\r\n\n  a cut, then more  \nlast")
    assert read(path) == [
        Prompt(1, "a red circle"),
        Prompt(3, "  a cut, then more  "),
        Prompt(4, "last"),
    ]


def test_stdin_is_read_whatever_its_format() -> None:
    assert read("-", stdin=io.BytesIO(jsonl(ROWS).encode())) == PROMPTS
    assert read("-", stdin=io.BytesIO(b"a red circle\n")) == [Prompt(1, "a red circle")]
    assert read("-", stdin=io.BytesIO(b"prompt\n"), format="txt") == [Prompt(1, "prompt")]


def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(jsonl(ROWS),))
    writer.start()
    assert read(pipe) == PROMPTS
    writer.join()


def test_parquet_comes_through_stdin_and_urls_as_well(tmp_path: Path) -> None:
    path = a_parquet(tmp_path / "a.parquet", ROWS)
    assert read("-", stdin=io.BytesIO(path.read_bytes())) == PROMPTS
    assert read(f"file://{path}") == PROMPTS
    path.rename(tmp_path / "my 100% (1)?#.parquet")
    assert read(f"FILE://localhost{tmp_path}/my%20100%25 (1)%3F%23.parquet") == PROMPTS
    (tmp_path / "my 100% (1)?#.parquet").rename(path)
    assert read(f"local://{path}") == PROMPTS  # one of fsspec's


def test_a_prompt_file_in_a_bucket_is_read_under_any_key(
    tmp_path: Path, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.with_credentials(monkeypatch)
    bucket = moto_server.bucket_url().split("/")[2]
    content = a_parquet(tmp_path / "a.parquet", ROWS).read_bytes()
    moto_server.client().put_object(Bucket=bucket, Key="my prompts/a (1).parquet", Body=content)
    assert (
        read(f"s3://{bucket}/my prompts/a (1).parquet?endpoint={moto_server.endpoint}") == PROMPTS
    )
    with pytest.raises(InputError, match="does not exist"):
        read(f"s3://{bucket}/other.parquet?endpoint={moto_server.endpoint}")


def test_openai_batch_lines_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    body = {"prompt": "a cut", "model": "flipbook", "seconds": "4", "size": "64x32"}
    path.write_text(
        jsonl([{"custom_id": "r-1", "method": "POST", "url": "/v1/videos", "body": body}])
    )
    expected = Prompt(
        1,
        "a cut",
        external_id="r-1",
        overrides={"seconds": 4.0, "width": 64, "height": 32},
        model="flipbook",
    )
    assert read(path) == [expected]


@pytest.mark.parametrize("name", ["prompt", "caption", "text", "prompt_en", "Prompt", " CAPTION "])
@pytest.mark.parametrize("id_name", ["id", "uuid", "custom_id", "job_id"])
def test_columns_have_the_names_that_people_give_them(
    tmp_path: Path, name: str, id_name: str
) -> None:
    path = a_parquet(tmp_path / "a.parquet", [{name: "a cut", id_name: "x"}])
    assert read(path) == [Prompt(1, "a cut", external_id="x")]


def test_of_two_columns_for_the_same_the_first_in_the_list_of_names_wins(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = a_parquet(tmp_path / "a.parquet", [{"caption": "no", "prompt": "yes"}])
    assert read(path, warn=warnings.append) == [Prompt(1, "yes")]
    assert warnings == [f"{path}: column 'caption' is ignored: 'prompt' means the same"]


def test_json_lines_may_use_different_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        jsonl([{"caption": "one"}, {"prompt": "two", "caption": "no"}, {"prompt": "three"}])
    )
    assert read(path) == [Prompt(1, "one"), Prompt(2, "two"), Prompt(3, "three")]


def test_unknown_columns_are_told_once_with_the_nearest_known_name(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl([{"prompt": "x", "negativ_prompt": "y", "\x1b[31m": 1}] * 3))
    read(path, warn=warnings.append)
    assert warnings == [
        f"{path}: column 'negativ_prompt' is ignored; did you mean 'negative_prompt'?",
        f"{path}: column '\\x1b[31m' is ignored",
    ]


def test_hundreds_of_unknown_columns_are_not_hundreds_of_warnings(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = a_parquet(
        tmp_path / "a.parquet", [{"prompt": "x"} | {f"zz{number}": 1 for number in range(300)}]
    )
    read(path, warn=warnings.append)
    assert len(warnings) == 21
    assert warnings[-1].endswith("more columns are ignored")


def test_sizes_may_be_written_as_one(tmp_path: Path) -> None:
    path = a_parquet(
        tmp_path / "a.parquet",
        [{"prompt": "x", "size": size} for size in ("64x32", "64 × 32", "64*32")],
    )
    assert [row.overrides for row in read(path) if isinstance(row, Prompt)] == [
        {"width": 64, "height": 32}
    ] * 3


def test_parquet_types_that_mean_the_same_are_the_same(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": pa.array(["x"] * 2).dictionary_encode(),
            "id": pa.array([1, 2]),
            "num_frames": pa.array([33.0, None]),
            "seed": pa.array([5, 6], pa.uint8()),
            "guidance_scale": pa.array([4, 5]),
            "deadline": pa.array(
                [datetime(2030, 1, 2, 6, tzinfo=UTC), None], pa.timestamp("ns", "UTC")
            ),
            "model": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        Prompt(
            1,
            "x",
            external_id="1",
            overrides={"num_frames": 33, "seed": 5, "guidance_scale": 4.0},
            deadline="2030-01-02T06:00:00+00:00",
        ),
        Prompt(2, "x", external_id="2", overrides={"seed": 6, "guidance_scale": 5.0}),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "PLAIN"])
def test_parquet_is_read_in_every_encoding_of_text(
    tmp_path: Path, encoding: str, kind: pa.DataType
) -> None:
    # what parquet-mr and DuckDB write in format 2; of several row groups one may have another
    rows = [{"prompt": f"number {n}", "id": str(n), "steps": 1 + n % 9} for n in range(3_000)]
    table, path = a_table(rows), tmp_path / "a.parquet"
    table = table.set_column(0, "prompt", table.column("prompt").cast(kind))
    pq.write_table(
        table,
        path,
        use_dictionary=False,
        column_encoding={"prompt": encoding, "id": "PLAIN", "steps": "DELTA_BINARY_PACKED"},
        data_page_version="2.0",
        row_group_size=1_700,
    )
    found = read(path)
    assert [row.text for row in found if isinstance(row, Prompt)] == [r["prompt"] for r in rows]
    assert found[2_999] == Prompt(
        3_000, "number 2999", external_id="2999", overrides={"num_inference_steps": 3}
    )


def test_text_that_leaves_its_dictionary_within_a_row_group_is_read_on(tmp_path: Path) -> None:
    # of the 5,000 different texts of a group the dictionary holds a fifth; there are three groups
    texts = [f"number {n % 5_200} {'x' * 60}" for n in range(12_000)]
    with pq.ParquetWriter(
        tmp_path / "a.parquet", pa.schema({"prompt": pa.string()}), dictionary_pagesize_limit=70_000
    ) as out:
        out.write_table(pa.table({"prompt": texts}), row_group_size=5_000)
    assert [row.text for row in read(tmp_path / "a.parquet") if isinstance(row, Prompt)] == texts


def test_a_file_whose_footer_is_damaged_does_not_end_the_process(tmp_path: Path) -> None:
    # some of the flips by which pyarrow, asked for what it knows of a column, calls terminate()
    table = pa.table({"prompt": ["a", "b", None] * 3, "seed": [1, 2, 3] * 3})
    pq.write_table(table, tmp_path / "a.parquet", data_page_version="2.0")
    whole = (tmp_path / "a.parquet").read_bytes()
    start = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    for place in range(start + 10, start + 30):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            (tmp_path / "a.parquet").write_bytes(flipped)
            with suppress(InputError):
                read(tmp_path / "a.parquet", warn=lambda text: None)


def test_text_that_a_file_may_repeat_for_nothing_is_held_for_few_rows(tmp_path: Path) -> None:
    # 478 bytes of delta encoding hold a thousand prompts of a megabyte each
    table = pa.table({"prompt": ["x" * 20_000] * 1_000})
    how = {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}}
    pq.write_table(table, tmp_path / "a.parquet", **how)
    batches = list(read_prompts(str(tmp_path / "a.parquet"), warn=pytest.fail))
    assert [len(batch) for batch in batches] == [100] * 10


def test_a_part_of_parquet_that_is_not_read_is_not_called_damage(tmp_path: Path) -> None:
    table = pa.table({"prompt": pa.array(["x", "y", "x"]).dictionary_encode()})
    how = {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}}
    pq.write_table(table, tmp_path / "a.parquet", **how)
    with pytest.raises(InputError, match="has a part that is not read, or is damaged: "):
        read(tmp_path / "a.parquet")


A_UUID = UUID("00000000-0000-0000-0000-00000000002a")


@pytest.mark.parametrize(
    ("column", "values", "fields"),
    [
        ("id", pa.array([A_UUID.bytes], pa.uuid()), {"external_id": str(A_UUID)}),
        ("id", pa.array([7.0]), {"external_id": "7"}),
        ("id", pa.array([1.5]), {"external_id": "1.5"}),
        ("id", pa.array([Decimal("7.00")]), {"external_id": "7"}),
        ("id", pa.array([float("nan")]), {}),
        ("seconds", pa.array([timedelta(seconds=2.5)]), {"overrides": {"seconds": 2.5}}),
        ("seconds", pa.array([2_500_000_001], pa.duration("ns")), {"overrides": {"seconds": 2.5}}),
        ("deadline", pa.array([timedelta(hours=1)]), {"deadline": "3600s"}),
        ("deadline", pa.array([time(6, 30)]), {"deadline": "06:30:00"}),
        ("deadline", pa.array([1], pa.time64("ns")), {"deadline": "00:00:00"}),
        ("deadline", pa.array([date(2030, 1, 2)]), {"deadline": "2030-01-02"}),
        ("deadline", pa.array([Decimal("60")]), {"deadline": "60"}),
        ("width", pa.array([Decimal("64.0")]), {"overrides": {"width": 64}}),
        ("width", pa.array([64.0], pa.float16()), {"overrides": {"width": 64}}),
        ("seed", pa.array([float("nan")]), {}),
        ("model", pa.array(["m"], pa.string_view()), {"model": "m"}),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_column_that_is_taken_has_cells_that_are_taken(
    tmp_path: Path, column: str, values: pa.Array, fields: dict[str, Any]
) -> None:
    pq.write_table(pa.table({"prompt": ["x"], column: values}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [Prompt(1, "x", **fields)]


def test_nan_means_that_there_is_none_in_every_format(tmp_path: Path) -> None:
    nan = float("nan")
    names = ("seed", "num_frames", "guidance_scale", "seconds", "priority")
    a_parquet(tmp_path / "a.parquet", [{"prompt": "x"} | dict.fromkeys(names, nan)])
    (tmp_path / "a.jsonl").write_text(
        jsonl([{"prompt": "x", "id": nan, "model": nan, "size": nan} | dict.fromkeys(names, nan)])
    )
    (tmp_path / "a.csv").write_text(f"prompt,{','.join(names)}\nx,nan,NaN,NAN,nan,\n")
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        assert read(tmp_path / name) == [Prompt(1, "x")], name


# --- CSV as programs write it ---------------------------------------------------------------------


def test_rows_without_any_cell_are_skipped_like_blank_lines_and_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "a.csv").write_text("prompt,id,seed\nx,1,\n\n,,\n , ,\ny,2,\n,,\n")
    assert read(tmp_path / "a.csv", warn=warnings.append) == [
        Prompt(1, "x", external_id="1"),
        Prompt(2, "y", external_id="2"),
    ]
    assert warnings == [
        f"{tmp_path}/a.csv: 3 rows without any cell are skipped, the first after row 1"
    ]


@pytest.mark.parametrize(
    "above", [",,\n", "\n ; ;\n;;\n", '"","",""\n', "\t\t\n", "sep=;\n;;\n", "\ufeff,,\n"]
)
def test_rows_without_any_cell_above_the_header_are_passed_over(tmp_path: Path, above: str) -> None:
    between = next((mark for mark in ";\t" if mark in above), ",")
    header = f"prompt{between}id{between}model\nx{between}1{between}m\n"
    (tmp_path / "a.csv").write_text(above + header)
    assert read(tmp_path / "a.csv") == [Prompt(1, "x", external_id="1", model="m")]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nprompt;id\nx, y;1\n",
        'SEP=|\r\nid|prompt\r\n1|"x, y"\r\n',
        '"sep=,"\nprompt,id\n"x, y",1\n',
        "prompt;id;comment, internal\nx, y;1;\n",
        '"a, note";prompt;id\n;x, y;1\n',
        "prompt\tid\tnote, or; two\nx, y\t1\t\n",
        "id|prompt\n1|x, y\n",
    ],
)
def test_the_header_tells_what_stands_between_cells(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, newline="")
    assert read(tmp_path / "a.csv", warn=lambda text: None) == [Prompt(1, "x, y", external_id="1")]


def test_quotes_inside_cells_that_have_a_backslash_are_named(tmp_path: Path) -> None:
    for text in (
        'prompt,id\n"a \\"red\\" circle",1\n',
        'prompt,id\nx,1\n"ends in \\"",2\n"\\"begins",3\n',
        'prompt\nx\n"over\ntwo \\"lines\\""\n',
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(
            InputError, match=r'it has \\" where CSV has "": in Spark, write it with'
        ):
            read(tmp_path / "a.csv")
    # a backslash is a letter like any other, also before the end of a cell
    (tmp_path / "a.csv").write_text('prompt,id\n"back\\slash, C:\\",1\n')
    assert read(tmp_path / "a.csv") == [Prompt(1, "back\\slash, C:\\", external_id="1")]


# --- columns that are not meant -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_ignored_columns_are_as_if_they_were_not_there(tmp_path: Path, kind: str) -> None:
    rows = [{"caption": "x", "video": "a.mp4", "fps": 29.97, "Seconds": 4.004, "text": "y"}]
    warnings: list[str] = []
    path = tmp_path / f"a.{kind}"
    match kind:
        case "parquet":
            a_parquet(path, rows)
        case "jsonl":
            path.write_text(jsonl(rows))
        case _:
            path.write_text("caption,video,fps,Seconds,text\nx,a.mp4,29.97,4.004,y\n")
    names = ["video", " FPS", "seconds", "caption", "nope"]
    assert read(path, ignore_columns=names, warn=warnings.append) == [Prompt(1, "y")]
    assert warnings == [f"{path}: there is no column 'nope' to ignore"]
    with pytest.raises(InputError, match="has no prompt column"):
        read(path, ignore_columns=["caption", "text"])


# --- strange text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "'); DROP TABLE job;--",
        "<script>alert(1)</script>",
        "\x1b[31mred\x1b[0m\x07",
        "line one\nline two\ttab",
        "\u202eright to left",
        "=cmd|' /C calc'!A0",
        "é" * 8192,  # 16 KiB exactly
    ],
)
def test_a_strange_prompt_is_data_and_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    assert read(a_parquet(tmp_path / "a.parquet", [{"prompt": text}])) == [Prompt(1, text)]
    (tmp_path / "a.jsonl").write_text(jsonl([{"prompt": text}]))
    assert read(tmp_path / "a.jsonl") == [Prompt(1, text)]


@pytest.mark.parametrize("strange", ["../../x", "/etc/x", "👩‍🎬 emoji", "'; --", "x" * 512])
def test_a_strange_id_is_data(tmp_path: Path, strange: str) -> None:
    assert read(a_parquet(tmp_path / "a.parquet", [{"prompt": "x", "id": strange}])) == [
        Prompt(1, "x", external_id=strange)
    ]


def test_many_rows_come_in_batches_and_in_order(tmp_path: Path) -> None:
    path = a_parquet(
        tmp_path / "a.parquet", [{"prompt": f"number {number}"} for number in range(25_000)]
    )
    batches = list(read_prompts(str(path), warn=pytest.fail))
    assert [len(batch) for batch in batches] == [10_000, 10_000, 5_000]
    assert [row.row for batch in batches for row in batch] == list(range(1, 25_001))


def test_a_long_prompt_repeated_in_every_row_is_not_held_in_every_row(tmp_path: Path) -> None:
    # 10,000 rows x 1 MB would be 10 GB; parquet stores the value once, and so does the reader
    table = pa.table(
        {
            "prompt": pa.DictionaryArray.from_arrays(
                pa.array([0] * 10_000, pa.int32()), ["x" * 1_000_000]
            )
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    found = read(tmp_path / "a.parquet")
    assert len(found) == 10_000
    assert all(isinstance(row, RowProblem) for row in found)
    assert pa.total_allocated_bytes() - before < 50 << 20
