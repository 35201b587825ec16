"""A batch as two parquet files for other programs: one row per job, in the order of the input.

    manifest.parquet   what was made and where: prompt, state, uris, sha256, size, spec, how
    metrics.parquet    how it went: predicted against actual seconds, quality, phases, attempts,
                       failure

Both carry `job_id`, `row` and `external_id`, so they join to each other and to the input. Rows are
read and written in groups of 20,000, compressed with zstd: a million jobs pass through in bounded
memory, apart from the file itself.

Times are seconds since the epoch (UTC) as doubles, durations are seconds. What is unknown is null,
never zero.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import RowMapping

from vidplat.stages import STAGES
from vidplat.storage.catalog import Catalog
from vidplat.storage.rows import from_json, whole


def _of(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


_IDS = [("job_id", pa.string()), ("row", pa.int64()), *_of(pa.string(), "external_id", "state")]
_POINT = [("steps", pa.int32()), ("method", pa.string())]

MANIFEST = pa.schema(
    [
        *_IDS,
        *_of(pa.string(), "prompt", "negative_prompt"),
        *_of(pa.string(), "video_uri", "poster_uri", "meta_uri", "sha256"),
        ("size_bytes", pa.int64()),
        *_of(pa.int32(), "width", "height", "num_frames", "fps"),
        ("num_inference_steps", pa.int32()),  # asked for; `steps` were spent
        ("guidance_scale", pa.float64()),
        ("seed", pa.int64()),
        # of video-to-video jobs: where the source was, its bytes, how much is changed
        *_of(pa.string(), "input_video", "input_sha256"),
        ("strength", pa.float64()),
        *_of(pa.string(), "model_id", "model_revision"),
        *_POINT,
        ("attempt", pa.int32()),  # the one that won
        ("reused_from", pa.string()),  # the batch that made this video, when it was not this one
        ("failure", pa.string()),
    ]
)

METRICS = pa.schema(
    [
        *_IDS,
        *_POINT,
        *_of(pa.string(), "pool", "worker_id"),
        ("attempts", pa.int32()),
        *_of(pa.float64(), "started_at", "finished_at"),
        ("deadline_at", pa.float64()),  # the row's own, else the batch's
        # true when done after its deadline or not done; null without a deadline
        ("missed", pa.bool_()),
        *_of(pa.float64(), "predicted_p50_s", "predicted_p90_s", "actual_s", "predicted_quality"),
        *_of(pa.float64(), *(f"{phase}_s" for phase in STAGES)),
        ("other_s", pa.float64()),  # phases with other names, summed
        ("metrics", pa.map_(pa.string(), pa.float64())),  # quality facts measured on the video
        *_of(pa.string(), "reused_from", "failure_kind", "failure"),
    ]
)

# Our names for columns that the catalog calls otherwise.
_THEIRS = {"steps": "point_steps", "method": "point_method", "failure": "failure_message"}
_THEIRS |= {"attempt": "won_by", "attempts": "attempt"}
_COMPUTED = {"missed", "actual_s", *(f"{phase}_s" for phase in STAGES), "other_s"}
_OF_MANIFEST = {name: _THEIRS.get(name, name) for name in MANIFEST.names}
_OF_METRICS = {name: _THEIRS.get(name, name) for name in METRICS.names if name not in _COMPUTED}


def export_manifest(catalog: Catalog, batch_id: str) -> bytes:
    """The bytes of `manifest.parquet`."""
    return _parquet(catalog, batch_id, MANIFEST, _OF_MANIFEST.values(), _manifest_row)


def export_metrics(catalog: Catalog, batch_id: str) -> bytes:
    """The bytes of `metrics.parquet`."""
    batch_deadline = catalog.batch(batch_id).deadline_at
    return _parquet(
        catalog,
        batch_id,
        METRICS,
        [*_OF_METRICS.values(), "phases"],
        lambda row: _metrics_row(row, batch_deadline),
    )


def _parquet(
    catalog: Catalog,
    batch_id: str,
    schema: pa.Schema,
    columns: Iterable[str],
    to_record: Callable[[RowMapping], dict[str, Any]],
) -> bytes:
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in catalog.job_rows(batch_id, columns):
            records = [to_record(row) for row in rows]
            writer.write_table(pa.Table.from_pylist(records, schema=schema))
    return file.getvalue()


def _manifest_row(row: RowMapping) -> dict[str, Any]:
    record = {ours: row[theirs] for ours, theirs in _OF_MANIFEST.items()}
    if video_uri := row["video_uri"]:
        record["poster_uri"] = whole(row["poster_uri"], video_uri)
        record["meta_uri"] = whole(row["meta_uri"], video_uri)
    return record


def _metrics_row(row: RowMapping, batch_deadline: float | None) -> dict[str, Any]:
    own_deadline = row["deadline_at"]
    deadline = batch_deadline if own_deadline == math.inf else own_deadline
    done, began, ended = row["state"] == "done", row["started_at"], row["finished_at"]
    phases = from_json(row["phases"])
    others = [seconds for phase, seconds in phases.items() if phase not in STAGES]
    return {
        **{ours: row[theirs] for ours, theirs in _OF_METRICS.items()},
        "deadline_at": deadline,
        "missed": None if deadline is None else not (done and ended <= deadline),
        "actual_s": ended - began if done and began is not None else None,
        **{f"{phase}_s": phases.get(phase) for phase in STAGES},
        "other_s": math.fsum(others) if others else None,
        "metrics": list(from_json(row["metrics"]).items()),
    }
