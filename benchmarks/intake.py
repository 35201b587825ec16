"""How long and how much memory a large prompt file takes: reading alone, and the whole intake of
`vidplat submit`.

    python benchmarks/intake.py [--rows 1000000] [--format parquet|csv|jsonl|txt] [--repeated]
    [--whole]

Writes a file of that many different prompts, twelve columns each and ten bad rows among them, then
reads it in a process of its own, so that the peak memory is the reader's. `--repeated` gives every
row the same prompt of 10 kB, which parquet stores once. `--whole` then submits that file, which
must be refused with every bad row listed (exit 2), and the same file without bad rows for a
deadline of 1 s: every job is enqueued in a fresh SQLite catalog and the plan says no (exit 3).
Prints a card, and one JSON line at the end.
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
from pathlib import Path
from typing import Any

BAD_ROWS = 10
_GROUP = 50_000


def write(path: Path, rows: int, kind: str, repeated: bool, bad_rows: bool = True) -> None:
    match kind:
        case "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            with pq.ParquetWriter(
                path, pa.Table.from_pylist(list(_rows(0, 1, rows, repeated, bad_rows))).schema
            ) as out:
                for start in range(0, rows, _GROUP):
                    group = list(_rows(start, min(start + _GROUP, rows), rows, repeated, bad_rows))
                    out.write_table(pa.Table.from_pylist(group))
        case "csv":
            with path.open("w", newline="") as out:
                table = csv.DictWriter(out, next(_rows(0, 1, rows, repeated, bad_rows)))
                table.writeheader()
                table.writerows(_rows(0, rows, rows, repeated, bad_rows))
        case "jsonl":
            with path.open("w") as out:
                out.writelines(
                    json.dumps(row) + "\n" for row in _rows(0, rows, rows, repeated, bad_rows)
                )
        case _:
            with path.open("w") as out:
                out.writelines(
                    f"{row['prompt']}\n" for row in _rows(0, rows, rows, repeated, bad_rows)
                )


def _rows(
    start: int, stop: int, total: int, repeated: bool, bad_rows: bool
) -> Iterator[dict[str, Any]]:
    every = total // BAD_ROWS
    for number in range(start, stop):
        bad = bad_rows and number % every == every // 2
        yield {
            "prompt": "a small lighthouse " * 500
            if repeated
            else f"a small red lighthouse number {number} in the rain, "
            "slow drift to the left, film grain, soft light at dawn",
            "id": f"clip-{number:09d}",
            "negative_prompt": "blurry, low quality",
            "seed": number,
            "width": 64,
            "height": 64,
            "num_frames": 33,
            "fps": 0 if bad else 16,
            "steps": 24,
            "guidance_scale": 4.0,
            "priority": number % 3,
            "model": "flipbook",
        }


def read(path: Path) -> dict[str, float]:
    """Read the file as intake does; what was found, how long it took, and the peak memory of this
    process."""
    from vidplat.storage.prompts import RowProblem, read_prompts

    started, cpu_started, prompts, problems = time.perf_counter(), time.process_time(), 0, 0
    for batch in read_prompts(str(path), warn=print):
        wrong = sum(isinstance(row, RowProblem) for row in batch)
        problems += wrong
        prompts += len(batch) - wrong
    return {
        "prompts": prompts,
        "problems": problems,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu_started, 2),
        "peak_mib": peak_mib(),
    }


def submit(path: Path, folder: Path) -> dict[str, float]:
    """`vidplat submit` of the file for a deadline of 1 s: exit code, seconds, peak memory, bad rows
    it listed."""
    command = [
        sys.executable,
        "-m",
        "vidplat",
        "submit",
        str(path),
        "--deadline",
        "1s",
        "--model",
        "flipbook",
    ]
    command += ["--output", str(folder / "out"), "--catalog", f"sqlite:///{folder}/catalog.db"]
    started, peak = time.perf_counter(), 0
    with (folder / "told").open("w+") as told:
        running = subprocess.Popen(command, stdout=told, stderr=told)
        while running.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # between its end and our noticing
                peak = max(peak, peak_mib(running.pid))
            time.sleep(0.05)
        told.seek(0)
        listed = sum(line.startswith("  row ") for line in told)
    seconds = round(time.perf_counter() - started, 2)
    return {"exit_code": running.returncode, "seconds": seconds, "peak_mib": peak, "listed": listed}


def peak_mib(pid: int | str = "self") -> int:
    """Peak resident memory of a process; not ru_maxrss, in which a child starts with its parent's
    peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10
    )


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--format", default="parquet", choices=["parquet", "csv", "jsonl", "txt"])
    options.add_argument("--repeated", action="store_true")
    options.add_argument("--whole", action="store_true")
    options.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.read:
        print(json.dumps(read(chosen.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts.{chosen.format}"
        write(path, chosen.rows, chosen.format, chosen.repeated)
        size_mib = path.stat().st_size / 2**20
        command = [sys.executable, __file__, "--read", str(path)]
        told = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
        whole = {}
        if chosen.whole:
            whole["with bad rows"] = submit(path, Path(folder))
            write(path, chosen.rows, chosen.format, chosen.repeated, bad_rows=False)
            whole["all good"] = submit(path, Path(folder))
    print(f"{chosen.rows:,} rows of {chosen.format}, {size_mib:.0f} MiB")
    rate = f"{chosen.rows / told['seconds']:,.0f} rows/s"
    print(f"  read in {told['seconds']} s ({rate}), {told['cpu_seconds']} s of them on a processor")
    print(
        f"  {told['prompts']:,} prompts, {told['problems']} problems; peak memory "
        f"{told['peak_mib']} MiB"
    )
    for name, found in whole.items():
        what = (
            f"exit {found['exit_code']} in {found['seconds']} s, {found['listed']} bad rows listed"
        )
        print(f"  submit, {name}: {what}; peak memory {found['peak_mib']} MiB")
    print(
        json.dumps(
            {
                "benchmark": "intake",
                "rows": chosen.rows,
                "format": chosen.format,
                **told,
                "submit": whole,
            }
        )
    )


if __name__ == "__main__":
    main()
