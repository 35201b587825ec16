"""Prompt files of every format become blocks of raw columns, a few thousand rows at a time.

    parquet    by record batches; text columns stay dictionary-encoded, so a cell repeated a
               thousand times is held once, however long it is
    csv        a header line; commas, or tabs or semicolons when the header has no comma
    jsonl      one object per line; also OpenAI batch lines, whose `body` is the row and `custom_id`
               its id
    txt        one prompt per line

Row numbers are 1-based: lines for jsonl and txt (empty lines are skipped but counted), records
below the header for csv, rows for parquet.

What is wrong with the whole file is an InputError in one sentence; what is wrong with a single row
(a line that is not JSON, a record of the wrong length) is a problem of that row.
Not promised: survival of a parquet file that was built to crash its reader.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from vidplat.errors import InputError, printable
from vidplat.storage.prompt_columns import ColumnNames

_ROWS, _BYTES = 10_000, 32 << 20  # a block is full at whichever comes first
_LONGEST_LINE_BYTES = 32 << 20
_LARGEST_CHUNK_BYTES = 4 << 30  # of one parquet column in one row group, uncompressed

T = TypeVar("T")


@dataclass
class Block:
    """Some rows: their numbers, and their cells by our word for the column."""

    rows: Sequence[int]
    columns: Mapping[str, Sequence[Any]]
    # row number -> why; such rows have no cells
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass
class PromptFile:
    """An open file, its format, and what to call it in messages."""

    file: BinaryIO
    format: str
    where: str

    def blocks(self, columns: ColumnNames) -> Iterator[Block]:
        """All rows in order. `columns` is told the names of the file's."""
        readers = {
            "parquet": _parquet_blocks,
            "csv": _csv_blocks,
            "jsonl": _json_blocks,
            "txt": _text_blocks,
        }
        return readers[self.format](self, columns)


# --- parquet --------------------------------------------------------------------------------------


def _parquet_blocks(source: PromptFile, columns: ColumnNames) -> Iterator[Block]:
    try:
        plain = pq.ParquetFile(source.file)
        schema = plain.schema_arrow
        names = columns.of_table(schema.names)
        for ours, name in names.items():
            _check_type(schema.field(name).type, ours, name, source.where)
        _check_chunks(plain.metadata, set(names.values()), source.where)
        texts = [name for name in names.values() if _is_text(schema.field(name).type)]
        # not pre-buffered: the one row group of a large file would be held whole
        table = pq.ParquetFile(
            source.file,
            metadata=plain.metadata,
            read_dictionary=texts,
            pre_buffer=False,
            buffer_size=1 << 20,
        )
        first = 1
        for batch in table.iter_batches(batch_size=_ROWS, columns=list(names.values())):
            rows = range(first, first + batch.num_rows)
            yield Block(rows, {ours: _cells(batch.column(name)) for ours, name in names.items()})
            first += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        reason = printable(str(error).partition("\n")[0], 120)
        raise InputError(
            f"{source.where} is not a whole parquet file (truncated or damaged): {reason}"
        ) from error


def _is_text(kind: pa.DataType) -> bool:
    text = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view
    return any(test(kind) for test in text) or (
        pa.types.is_dictionary(kind) and _is_text(kind.value_type)
    )


def _check_type(kind: pa.DataType, ours: str, name: str, where: str) -> None:
    """InputError when a column's type can hold nothing that its cells may be."""
    types = pa.types
    if types.is_null(kind) or _is_text(kind):
        return
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    match ours:
        case "text" | "negative_prompt" | "model" | "method" | "size" | "image" | "input_video":
            needed, fits = "text", False
        case "external_id":
            needed, fits = "text or whole numbers", types.is_integer(kind)
        case "deadline":
            needed, fits = "text or times", numeric or types.is_temporal(kind)
        case _:
            needed, fits = "numbers", numeric
    if not fits:
        raise InputError(
            f"{where}: column '{printable(name, 40)}' must hold {needed}, found "
            f"{printable(kind, 60)}"
        )


def _check_chunks(metadata: pq.FileMetaData, wanted: set[str], where: str) -> None:
    for group_number in range(metadata.num_row_groups):
        group = metadata.row_group(group_number)
        for number in range(group.num_columns):
            chunk = group.column(number)
            if (
                chunk.path_in_schema in wanted
                and chunk.total_uncompressed_size > _LARGEST_CHUNK_BYTES
            ):
                raise InputError(
                    f"{where}: row group {group_number + 1} has "
                    f"{chunk.total_uncompressed_size >> 30} GiB in column "
                    f"'{printable(chunk.path_in_schema, 40)}': write it with smaller row groups"
                )


def _cells(column: pa.Array) -> list[Any]:
    """A column as Python values; bytes that are no UTF-8 become lone surrogates."""
    if pa.types.is_dictionary(column.type):
        words = [*_cells(column.dictionary), None]
        return [words[index] for index in column.indices.fill_null(len(words) - 1).to_pylist()]
    if pa.types.is_timestamp(column.type):  # nanoseconds do not fit Python's datetime
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if not _is_text(column.type):
            raise
        binary = column.cast(pa.large_binary()).to_pylist()
        return [
            None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in binary
        ]
    cells: list[Any] = column.to_pylist()
    return cells


# --- text formats ---------------------------------------------------------------------------------


def _lines(source: PromptFile) -> Iterator[str]:
    """Lines with their ends, without a byte order mark. Raises InputError."""
    number = 0
    while line := source.file.readline(_LONGEST_LINE_BYTES + 1):
        number += 1
        if len(line) > _LONGEST_LINE_BYTES:
            raise InputError(
                f"{source.where}: line {number} is longer than {_LONGEST_LINE_BYTES >> 20} MiB"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source.where} is not UTF-8 text: byte 0x{line[error.start]:02x} in line "
                f"{number}; save it as UTF-8"
            ) from error
        yield text.removeprefix("\ufeff") if number == 1 else text


def _filled_lines(source: PromptFile) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    return ((number, line) for number, line in enumerate(_lines(source), 1) if line.strip())


def _text_blocks(source: PromptFile, columns: ColumnNames) -> Iterator[Block]:
    columns.add(["prompt"])
    for lines in _in_blocks(_filled_lines(source), lambda item: len(item[1])):
        texts = [line.rstrip("\r\n") for _, line in lines]
        yield Block([number for number, _ in lines], {"text": texts})


def delimiter_of(header: str) -> str:
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _csv_blocks(source: PromptFile, columns: ColumnNames) -> Iterator[Block]:
    lines = _lines(source)
    header_line = next((line for line in lines if line.strip()), "")
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_LINE_BYTES))
    reader = csv.reader(
        chain([header_line], lines), delimiter=delimiter_of(header_line), strict=True
    )
    records = filter(None, reader)
    row = 0

    def numbered() -> Iterator[tuple[int, list[str]]]:
        nonlocal row
        for record in records:
            row += 1
            yield row, record

    try:
        header = next(records, [])
        places = {ours: header.index(name) for ours, name in columns.of_table(header).items()}
        for block in _in_blocks(numbered(), lambda item: sum(map(len, item[1]))):
            wrong = {
                number: f"has {len(record)} cells, the header has {len(header)}"
                for number, record in block
                if len(record) != len(header)
            }
            whole = [(number, record) for number, record in block if len(record) == len(header)]
            cells = {
                ours: [record[place] or None for _, record in whole]
                for ours, place in places.items()
            }
            yield Block([number for number, _ in whole], cells, wrong)
    except csv.Error as error:
        raise InputError(
            f"{source.where} is not whole CSV: {printable(error)} in the record after row {row} "
            "(a quote that is not closed, or a truncated file)"
        ) from error


def _json_blocks(source: PromptFile, columns: ColumnNames) -> Iterator[Block]:
    for block in _in_blocks(_filled_lines(source), lambda item: len(item[1])):
        rows: list[int] = []
        objects: list[dict[str, Any]] = []
        unreadable: dict[int, str] = {}
        for number, line in block:
            try:
                objects.append(_row_of(json.loads(line)))
                rows.append(number)
            except (ValueError, RecursionError) as error:
                cut = "" if line.endswith("\n") else " (the file may be truncated)"
                unreadable[number] = f"is not a JSON object: {printable(error, 80)}{cut}"
        columns.add(chain.from_iterable(objects))
        if objects:
            columns.need_text()
        cells = {ours: _first_of(known, objects) for ours, known in columns.synonyms.items()}
        yield Block(rows, cells, unreadable)


def _first_of(names: list[str], objects: list[dict[str, Any]]) -> list[Any]:
    """For each object the value of the first of `names` that it has."""
    if len(names) == 1:
        return [found.get(names[0]) for found in objects]
    return [
        next((found[name] for name in names if found.get(name) is not None), None)
        for found in objects
    ]


def _row_of(document: Any) -> dict[str, Any]:
    """The row that a line's object is, or that is inside an OpenAI batch line."""
    if not isinstance(document, dict):
        raise ValueError(
            f'found {type(document).__name__}, needed an object such as {{"prompt": "..."}}'
        )
    body = document.get("body")
    return {**body, "custom_id": document.get("custom_id")} if isinstance(body, dict) else document


def _in_blocks(items: Iterator[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """`items` in lists of up to `_ROWS` items or about `_BYTES` of size."""
    block: list[T] = []
    size = 0
    for item in items:
        block.append(item)
        size += size_of(item)
        if len(block) >= _ROWS or size >= _BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
