"""Records as parquet, and parquet as CSV and JSON lines with the same columns and values.

Nested values (the metrics map) are JSON text in CSV. Null is an empty cell in CSV and null in JSON
lines. Values are not altered but for one kind: in CSV an apostrophe goes before text that a
spreadsheet would run as a formula, as prompts come from anywhere.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Also behind what a spreadsheet may drop before it looks: blanks, controls, invisible characters.
# The full-width forms are formulas to some.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\x7f\u00ad\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]")


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Parquet with a column for each key; types are those of the values."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def to_csv(parquet: bytes) -> Iterator[bytes]:
    """CSV with a header, UTF-8, quoted where needed; in pieces, of which one is in memory."""
    file = pq.ParquetFile(io.BytesIO(parquet))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=file.schema_arrow.names)
    writer.writeheader()
    for rows in _pages(file):
        writer.writerows({name: _flat(value) for name, value in row.items()} for row in rows)
        yield text.getvalue().encode("utf-8")
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode("utf-8")  # of a file without rows


def to_json_lines(parquet: bytes) -> Iterator[bytes]:
    """One JSON object per line, ASCII; in pieces, of which one is in memory."""
    for rows in _pages(pq.ParquetFile(io.BytesIO(parquet))):
        yield "".join(json.dumps(_plain(row)) + "\n" for row in rows).encode("ascii")


def _pages(file: pq.ParquetFile) -> Iterator[list[dict[str, Any]]]:
    for batch in file.iter_batches(20_000):
        yield batch.to_pylist(maps_as_pydicts="strict")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and value != value else value
        for name, value in row.items()
    }


def _flat(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return json.dumps(value) if isinstance(value, dict | list) else value
