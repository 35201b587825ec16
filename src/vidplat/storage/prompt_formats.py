"""Prompt files of every format become blocks of raw columns, a few thousand rows at a time.

    parquet    by record batches; text columns stay dictionary-encoded, so a cell repeated a
               thousand times is held once, however long it is
    csv        a header line, which tells what stands between cells: commas, tabs, semicolons or
               bars; `sep=;` above it says so, too. Rows without any cell are skipped and told
    jsonl      one object per line; also OpenAI batch lines, whose `body` is the row and `custom_id`
               its id
    txt        one prompt per line

Row numbers are 1-based: lines for jsonl and txt (empty lines are skipped but counted), records
below the header for csv (empty ones do not count), rows for parquet. A line ends in LF, CR or both.

What is wrong with the whole file is an InputError in one sentence; what is wrong with a single row
(a line that is not JSON, a record of the wrong length) is a problem of that row.
Not promised: survival of a parquet file that was built to crash its reader.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from types import NoneType
from typing import Any, BinaryIO, TypeVar
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from vidplat.errors import InputError, printable
from vidplat.storage.prompt_cells import CELLS
from vidplat.storage.prompt_columns import ColumnNames, delimiter_of

_ROWS, _BYTES = 10_000, 32 << 20  # a block is full at whichever comes first
# without a dictionary each row has its text in memory, however short it is in the file
_ROWS_WITHOUT_DICTIONARY = 100
_CHUNK_BYTES = 1 << 20
_LONGEST_LINE_BYTES = 32 << 20
_LARGEST_CHUNK_BYTES = 4 << 30  # of one parquet column in one row group, uncompressed
#: What pyarrow says of what it cannot read.
_NOT_READ = re.compile(r"not (yet )?(implemented|supported)|unsupported", re.IGNORECASE)
#: The first line by which spreadsheets say what stands between cells.
_SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?\s*', re.IGNORECASE)
#: What a record without any cell consists of, whatever stands between cells.
_NO_CELL = ' ,;\t|"\r\n'

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
        plain = pq.ParquetFile(source.file, pre_buffer=False, buffer_size=1 << 20)
        schema = plain.schema_arrow
        names = columns.of_table(schema.names)
        for ours, name in names.items():
            _check_type(schema.field(name).type, ours, name, source.where)
        _check_chunks(plain.metadata, set(names.values()), source.where)
        first = 1
        for batch in _batches(source, plain, list(names.values())):
            rows = range(first, first + batch.num_rows)
            yield Block(rows, {ours: _cells(batch.column(name)) for ours, name in names.items()})
            first += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        reason = printable(str(error).partition("\n")[0], 120)
        if _NOT_READ.search(reason):
            raise InputError(
                f"{source.where} has a part that is not read, or is damaged: {reason}; "
                "write it with plain encodings, without encryption"
            ) from error
        raise InputError(
            f"{source.where} is not a whole parquet file (truncated or damaged): {reason}"
        ) from error


def _batches(source: PromptFile, plain: pq.ParquetFile, names: list[str]) -> Iterator[Any]:
    """Record batches with text as dictionaries, as long as pyarrow can: it refuses some encodings,
    also in the middle of a row group. Which ones there are it does not say safely: asked for the
    columns of a damaged file, it ends the process."""
    schema = plain.schema_arrow
    encoded = pq.ParquetFile(
        source.file,
        metadata=plain.metadata,
        read_dictionary=[name for name in names if _is_text(schema.field(name).type)],
        # not pre-buffered: the one row group of a large file would be held whole
        pre_buffer=False,
        buffer_size=1 << 20,
    )
    has_refused = False
    for group in range(plain.metadata.num_row_groups):
        done = 0
        try:
            if not has_refused:
                for batch in encoded.iter_batches(_ROWS, row_groups=[group], columns=names):
                    yield batch
                    done += batch.num_rows
                continue
        except (pa.ArrowException, OSError) as error:
            if not _NOT_READ.search(str(error)):
                raise
            has_refused = True
        for batch in plain.iter_batches(
            _ROWS_WITHOUT_DICTIONARY, row_groups=[group], columns=names
        ):
            if done < batch.num_rows:
                yield batch.slice(done)
            done = max(0, done - batch.num_rows)


def _is_text(kind: pa.DataType) -> bool:
    return _python_type(kind) is str


def _python_type(kind: pa.DataType) -> type | None:
    """What `_cells` makes of a column; None for what no cell may be."""
    types = pa.types
    if types.is_dictionary(kind):
        return _python_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return UUID if isinstance(kind, pa.UuidType) else _python_type(kind.storage_type)
    return next((found for test, found in _PYTHON_TYPES if test(kind)), None)


_PYTHON_TYPES: tuple[tuple[Callable[[pa.DataType], bool], type], ...] = (
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), str),
    (pa.types.is_string_view, str),
    (pa.types.is_null, NoneType),
    (pa.types.is_integer, int),
    (pa.types.is_floating, float),
    (pa.types.is_decimal, Decimal),
    (pa.types.is_timestamp, datetime),
    (pa.types.is_date, date),
    (pa.types.is_time, time),
    (pa.types.is_duration, timedelta),
)


def _check_type(kind: pa.DataType, ours: str, name: str, where: str) -> None:
    """InputError when a column's type can hold nothing that its cells may be."""
    needs = CELLS[ours].kind
    if not needs.fits(_python_type(kind)):
        raise InputError(
            f"{where}: column '{printable(name, 40)}' must hold {needs.words}, found "
            f"{printable(kind, 60)}; a column that is not meant is left out with --ignore-columns"
        )


def _check_chunks(metadata: pq.FileMetaData, wanted: set[str], where: str) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size <= _LARGEST_CHUNK_BYTES:
            continue  # and nothing is asked of its columns (see `_batches`)
        for chunk in map(group.column, range(metadata.num_columns)):
            size_bytes, name = chunk.total_uncompressed_size, chunk.path_in_schema
            if name in wanted and size_bytes > _LARGEST_CHUNK_BYTES:
                raise InputError(
                    f"{where}: row group {number + 1} has {size_bytes >> 30} GiB in column "
                    f"'{printable(name, 40)}': write it with smaller row groups"
                )


def _cells(column: pa.Array) -> list[Any]:
    """A column as Python values; bytes that are no UTF-8 become lone surrogates."""
    if pa.types.is_dictionary(column.type):
        words = [*_cells(column.dictionary), None]
        return [words[index] for index in column.indices.fill_null(len(words) - 1).to_pylist()]
    if isinstance(column, pa.ExtensionArray) and not isinstance(column.type, pa.UuidType):
        return _cells(column.storage)
    # nanoseconds do not fit Python's types
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    elif pa.types.is_duration(column.type):
        column = column.cast(pa.duration("us"), safe=False)
    elif pa.types.is_time64(column.type):
        column = column.cast(pa.time64("us"), safe=False)
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
    for number, line in enumerate(_lines_of_bytes(source), 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source.where} is not UTF-8 text: byte 0x{line[error.start]:02x} in line "
                f"{number}; save it as UTF-8"
            ) from error
        yield text.removeprefix("\ufeff") if number == 1 else text


def _lines_of_bytes(source: PromptFile) -> Iterator[bytes]:
    """Lines that end in LF, CR or both, as editors show them."""
    number, size, begun = 0, 0, list[bytes]()
    while chunk := source.file.read(_CHUNK_BYTES):
        begun.append(chunk)
        size += len(chunk)
        if b"\n" in chunk or b"\r" in chunk:
            *lines, rest = b"".join(begun).splitlines(keepends=True)
            if rest.endswith(b"\n"):  # after a CR there may come an LF
                lines.append(rest)
                rest = b""
            yield from lines
            number, size, begun = number + len(lines), len(rest), [rest]
        if size > _LONGEST_LINE_BYTES:
            raise InputError(
                f"{source.where}: line {number + 1} is longer than {_LONGEST_LINE_BYTES >> 20} MiB"
            )
    if size:
        yield from b"".join(begun).splitlines(keepends=True)


def _filled_lines(source: PromptFile) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    return ((number, line) for number, line in enumerate(_lines(source), 1) if line.strip())


def _text_blocks(source: PromptFile, columns: ColumnNames) -> Iterator[Block]:
    columns.add(["prompt"])
    for lines in _in_blocks(_filled_lines(source), lambda item: len(item[1])):
        texts = [line.rstrip("\r\n") for _, line in lines]
        yield Block([number for number, _ in lines], {"text": texts})


def _csv_blocks(source: PromptFile, columns: ColumnNames) -> Iterator[Block]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_LINE_BYTES))
    table = _Table(_lines(source))
    try:
        header = next(table.records, [])
        places = {ours: header.index(name) for ours, name in columns.of_table(header).items()}
        for block in _in_blocks(table.rows(), lambda item: sum(map(len, item[1]))):
            wrong = {
                number: f"has {_how_many_cells(len(record))}, the header has {len(header)}"
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
        why = (
            'it has \\" where CSV has "": in Spark, write it with .option("escape", "\\"")'
            if table.has_backslash
            else "a quote that is not closed, or a truncated file"
        )
        raise InputError(
            f"{source.where} is not whole CSV: {printable(error)} in the record after row "
            f"{table.row} ({why})"
        ) from error
    columns.tell_skipped(table.empty, table.first_empty)


def _how_many_cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


class _Table:
    """The records of CSV text, from the header on, and what is known of them when one is wrong."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.row = self.empty = self.first_empty = 0
        self.has_backslash = False  # a \" since the last record: some programs quote so
        header = self._header()
        mark = _SEPARATOR.fullmatch(header)
        if mark is not None:
            header = self._header()
        delimiter = delimiter_of(header) if mark is None else mark[1]
        told = chain([header], self._noted())
        self.records = filter(None, csv.reader(told, delimiter=delimiter, strict=True))

    def _header(self) -> str:
        """The next line with a cell in it: spreadsheets leave some without above it, too."""
        return next((line for line in self._lines if line.strip(_NO_CELL)), "")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Records with their numbers; those without any cell, as spreadsheets leave them, are
        counted apart."""
        for record in self.records:
            self.has_backslash = False
            if record[0].strip() or any(map(str.strip, record)):
                self.row += 1
                yield self.row, record
            else:
                self.first_empty = self.first_empty if self.empty else self.row
                self.empty += 1

    def _noted(self) -> Iterator[str]:
        for line in self._lines:
            if '\\"' in line:
                self.has_backslash = True
            yield line


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
                cut = "" if line.endswith(("\n", "\r")) else " (the file may be truncated)"
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
