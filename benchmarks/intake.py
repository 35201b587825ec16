"""How long and how much memory a large prompt file takes: read alone, and by `vidplat submit`.

    python -m benchmarks.intake [--rows 1000000] [--format parquet|csv|jsonl|txt] [--repeated]
        [--whole]

Writes a file of that many different prompts, twelve columns each and ten bad rows among them, then
reads it in a process of its own, so that the peak memory is the reader's. `--repeated` gives every
row the same prompt of 10 kB, which parquet stores once. `--whole` then submits that file, which
must be refused with every bad row listed (exit 2), and the same file without bad rows for a
deadline of 1 s: every job is enqueued in a fresh SQLite catalog and the plan says no (exit 3).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import answer, head, options
from vidplat.storage.prompts import RowProblem, read_prompts

BAD_ROWS = 10
GROUP = 50_000  # rows of a parquet file's group


@dataclass(frozen=True)
class Prompts:
    """What a written file holds."""

    total: int
    repeated: bool
    with_bad_rows: bool = True

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        every = self.total // BAD_ROWS
        for number in range(start, self.total if stop is None else min(stop, self.total)):
            text = f"a small red lighthouse number {number} in the rain, slow drift to the left"
            is_bad = self.with_bad_rows and number % every == every // 2
            yield {
                "prompt": "a small lighthouse " * 500 if self.repeated else f"{text}, film grain",
                "id": f"clip-{number:09d}",
                "negative_prompt": "blurry, low quality",
                "seed": number,
                "width": 64,
                "height": 64,
                "num_frames": 33,
                "fps": 0 if is_bad else 16,
                "steps": 24,
                "guidance_scale": 4.0,
                "priority": number % 3,
                "model": "flipbook",
            }

    def write(self, path: Path) -> None:
        match path.suffix:
            case ".parquet":
                schema = pa.Table.from_pylist(list(self.rows(0, 1))).schema
                with pq.ParquetWriter(path, schema) as out:
                    for start in range(0, self.total, GROUP):
                        group = list(self.rows(start, start + GROUP))
                        out.write_table(pa.Table.from_pylist(group))
            case ".csv":
                with path.open("w", newline="") as out:
                    table = csv.DictWriter(out, next(self.rows()))
                    table.writeheader()
                    table.writerows(self.rows())
            case ".jsonl":
                with path.open("w") as out:
                    out.writelines(json.dumps(row) + "\n" for row in self.rows())
            case _:
                with path.open("w") as out:
                    out.writelines(f"{row['prompt']}\n" for row in self.rows())


def read(path: Path) -> dict[str, float]:
    """Read the file as intake does: what was found, seconds, peak memory of this process."""
    began, cpu_began, prompts, problems = time.perf_counter(), time.process_time(), 0, 0
    for batch in read_prompts(str(path), warn=print):
        wrong = sum(isinstance(row, RowProblem) for row in batch)
        problems += wrong
        prompts += len(batch) - wrong
    return {
        "prompts": prompts,
        "problems": problems,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu_began, 2),
        "peak_mib": peak_mib(),
    }


def submit(path: Path, folder: Path) -> dict[str, float]:
    """`vidplat submit` of the file for a deadline of 1 s: exit code, seconds, peak memory, bad rows
    it listed."""
    command = [sys.executable, "-m", "vidplat", "submit", str(path), "--deadline", "1s"]
    command += ["--model", "flipbook", "--output", str(folder / "out")]
    command += ["--catalog", f"sqlite:///{folder}/catalog.db"]
    began, peak = time.perf_counter(), 0
    with (folder / "told").open("w+") as told:
        running = subprocess.Popen(command, stdout=told, stderr=told)
        while running.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # between its end and our noticing
                peak = max(peak, peak_mib(running.pid))
            time.sleep(0.05)
        told.seek(0)
        listed = sum(line.startswith("  row ") for line in told)
    seconds = round(time.perf_counter() - began, 2)
    return {"exit_code": running.returncode, "seconds": seconds, "peak_mib": peak, "listed": listed}


def peak_mib(pid: int | str = "self") -> int:
    """Peak resident memory of a process; not ru_maxrss, in which a child starts with its parent's
    peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", default="parquet", choices=["parquet", "csv", "jsonl", "txt"])
    parser.add_argument("--repeated", action="store_true", help="one prompt of 10 kB in every row")
    parser.add_argument("--whole", action="store_true", help="submit the file as well")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.read:
        print(json.dumps(read(told.read)))
        return
    whole = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"prompts.{told.format}"
        Prompts(told.rows, told.repeated).write(path)
        size_mib = path.stat().st_size / 2**20
        command = [sys.executable, "-m", "benchmarks.intake", "--read", str(path)]
        found = json.loads(subprocess.check_output(command, text=True))
        if told.whole:
            whole["with bad rows"] = submit(path, folder)
            Prompts(told.rows, told.repeated, with_bad_rows=False).write(path)
            whole["all good"] = submit(path, folder)

    about = f"{told.rows:,} rows of {told.format}, {size_mib:.0f} MiB"
    print(head(about, "intake"))
    rate = f"{told.rows / found['seconds']:,.0f} rows/s, {found['cpu_seconds']} s of a processor"
    print(f"  read in {found['seconds']} s ({rate}); peak memory {found['peak_mib']} MiB")
    print(f"  {found['prompts']:,} prompts, {found['problems']} problems")
    for name, one in whole.items():
        ended = f"exit {one['exit_code']} in {one['seconds']} s, {one['listed']} bad rows listed"
        print(f"  submit, {name}: {ended}; peak memory {one['peak_mib']} MiB")
    answer("intake", rows=told.rows, format=told.format, **found, submit=whole)


if __name__ == "__main__":
    main()
